"""Settings of the whole test suite."""

import os

if "PYTEST_XDIST_WORKER" in os.environ:  # before NumPy is imported
    os.environ["OPENBLAS_NUM_THREADS"] = "1"

import onnxruntime as ort
from hypothesis import settings

# No deadlines, which a busy machine breaks; and in CI the same examples in every run.
settings.register_profile("suite", deadline=None, derandomize=bool(os.environ.get("CI")))
settings.load_profile("suite")


class _OneThread(ort.SessionOptions):
    """The options of sessions that leave the other cores to the other workers.

    Threads of several sessions, which spin while they wait, take most of each other's time.
    """

    def __init__(self):
        super().__init__()
        self.intra_op_num_threads = 1


if "PYTEST_XDIST_WORKER" in os.environ:
    ort.SessionOptions = _OneThread


def pytest_terminal_summary(terminalreporter):
    """Say how many of onnx's node cases ran as SNNs."""
    counts = {
        outcome: sum("test_backend_nodes" in report.nodeid for report in reports)
        for outcome in ("passed", "failed", "skipped")
        if (reports := terminalreporter.stats.get(outcome, []))
    }
    if any(counts.values()):
        shares = ", ".join(f"{count} {outcome}" for outcome, count in counts.items())
        terminalreporter.write_line(f"onnx node cases as SNNs: {shares}")
