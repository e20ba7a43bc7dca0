"""The README's code runs as it stands."""

import re
from pathlib import Path

import numpy as np
import pytest

from tests.models import uniform
from tests.networks import residual_network

BLOCKS = re.findall(
    r"```python\n(.*?)```", (Path(__file__).parent.parent / "README.md").read_text(), re.DOTALL
)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    residual_network().save(tmp_path / "model.onnx")
    np.savez("samples.npz", x=uniform(20, 3, 8, 8))
    return tmp_path


def test_code_runs_and_the_file_needs_nothing_of_ours(folder, capsys):
    library, stock = BLOCKS
    ours: dict[str, object] = {}
    exec(library, ours)
    assert (folder / "model.snn.onnx").exists()
    assert "onnxsnn" not in stock.replace("model.snn.onnx", "")

    theirs = {"x": uniform(20, 3, 8, 8)[:16]}
    exec(stock, theirs)
    (name,) = ours["result"].outputs
    np.testing.assert_array_equal(theirs["values"][name], ours["result"].outputs[name])
    assert capsys.readouterr().out
