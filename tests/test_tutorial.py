"""The tutorial's commands run in order, as they stand."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from onnxsnn.cli import main

TUTORIAL = (Path(__file__).parents[1] / "docs" / "tutorial.md").read_text()
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", TUTORIAL, re.DOTALL)
NEEDED = ("torch", "onnxscript", "sklearn", "skl2onnx", "matplotlib", "nir")


@pytest.fixture
def shell(tmp_path):
    """Runs a command line in a folder of its own, with `python` and `onnxsnn` those of the test."""
    programs = tmp_path / "bin"
    programs.mkdir()
    command_line = f"{sys.executable} -c 'from onnxsnn.cli import main; main()'"
    for name, command in (("python", sys.executable), ("onnxsnn", command_line)):
        (programs / name).write_text(f'#!/bin/sh\nexec {command} "$@"\n')
        (programs / name).chmod(0o755)
    folder = tmp_path / "work"
    folder.mkdir()
    path = f"{programs}{os.pathsep}{os.environ['PATH']}"
    root = str(Path(__file__).parents[1])
    environment = os.environ | {"PATH": path, "PYTHONPATH": root}

    def run(command):
        done = subprocess.run(
            ["sh", "-ec", command], cwd=folder, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    run.folder = folder
    return run


@pytest.mark.slow
def test_every_command_runs(shell):
    for package in NEEDED:
        pytest.importorskip(package, reason=f"{package} is not installed; the tutorial needs it")
    for language, block in BLOCKS:
        if language == "python":
            name = re.match(r"# (\w+\.py)\n", block).group(1)
            (shell.folder / name).write_text(block)
            continue
        for command in block.strip().splitlines():
            shell(command)
    written = {path.name for path in shell.folder.iterdir()}
    files = {"digits.loop.onnx", "digits.npz", "zero.nir", "compare.svg", "report.html"}
    assert files <= written
    assert accuracy(shell, "digits.snn.onnx", "digits.onnx", "test.npz") > 0.95
    assert accuracy(shell, "mlp.snn.onnx", "mlp.onnx", "test_flat.npz") > 0.9


def accuracy(shell, snn, ann, data):
    printed = shell(f"onnxsnn evaluate {snn} --ann {ann} --data {data} -T 8 --json")
    return json.loads(printed)["rows"][-1]["accuracy"]


def test_blocks_are_scripts_and_commands_alone():
    assert {language for language, _ in BLOCKS} == {"python", "sh"}
    commands = [c for lang, block in BLOCKS if lang == "sh" for c in block.strip().splitlines()]
    scripts = {block.split()[1] for language, block in BLOCKS if language == "python"}
    assert all(command.split()[0] in ("python", "onnxsnn") for command in commands)
    assert scripts == {c.split()[1] for c in commands if c.startswith("python")}
    ours = {c.split()[1] for c in commands if c.startswith("onnxsnn")}
    assert ours <= main.commands.keys()
