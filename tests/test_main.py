"""The command as a process: what signals leave of it."""

import signal
import subprocess
import sys

import pytest

from tests.networks import residual_network

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="it sends no signals")

_IMPORTING = """
class Interrupt:
    def find_spec(self, *_):
        os.kill(os.getpid(), number)
sys.meta_path.insert(0, Interrupt())
"""
_WRITING = """
Path.chmod = lambda *_: os.kill(os.getpid(), number)
"""
_IGNORED = f"""
signal.signal(number, signal.SIG_IGN)
{_WRITING}
"""


def send(number, when, folder):
    """Convert a model, and send a signal meanwhile: the exit code, and what is said on errors."""
    model = residual_network().save(folder / "m.onnx")
    start = "import os, signal, sys\nfrom pathlib import Path\nfrom onnxsnn.__main__ import main\n"
    reset = "signal.signal(number, signal.SIG_DFL)"  # what runs the tests may ignore it
    code = f"{start}number = {int(number)}\n{reset}\n{when}\nmain()"
    command = [sys.executable, "-c", code, "convert", str(model), "-o", str(folder / "snn.onnx")]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    return ended.returncode, ended.stderr


@pytest.mark.parametrize("when", [_IMPORTING, _WRITING])
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_signals_end_it_as_shells_know_and_leave_nothing(tmp_path, name, when):
    number = getattr(signal, name)
    assert send(number, when, tmp_path) == (128 + number, "")
    assert [path.name for path in tmp_path.iterdir()] == ["m.onnx"]


def test_signals_that_are_ignored_stay_so(tmp_path):
    code, _ = send(signal.SIGHUP, _IGNORED, tmp_path)
    assert code == 0
    assert (tmp_path / "snn.onnx").exists()
