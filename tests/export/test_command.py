"""The command `export`: names, notes, losses and mistakes."""

import numpy as np
import onnx
import pytest
from click.testing import CliRunner

from onnxsnn import IntegrateAndFire, convert
from onnxsnn.cli import main
from tests.models import dataset, uniform
from tests.networks import IntegerBuilder, average_network, residual_network


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working folder with an SNN that every format can hold."""
    monkeypatch.chdir(tmp_path)
    b = IntegerBuilder((2, 6, 6))
    b.conv(4)
    b.clip(2.0)
    b.op("Flatten")
    b.gemm(3, inputs=144)
    path = b.save(tmp_path / "model.onnx")
    convert(path, threshold="trained", neuron=IntegrateAndFire(0.0)).snn.save("model.snn.onnx")
    return tmp_path


def call(*arguments, code=0):
    result = CliRunner().invoke(main, ["export", *arguments])
    assert result.exit_code == code, result.output
    return result


@pytest.mark.usefixtures("folder")
def test_files_are_named_after_the_model():
    call("model.snn.onnx", "--loop")
    call("model.snn.onnx", "--step")
    call("model.snn.onnx", "--npz")
    onnx.checker.check_model("model.loop.onnx")
    onnx.checker.check_model("model.step.onnx")
    assert "README" in np.load("model.npz").files


def test_nir_says_what_its_reader_must_know(folder):
    pytest.importorskip("nir", reason="nir is not installed: pip install 'onnxsnn[nir]'")
    output = call("model.snn.onnx", "--nir", "-o", "other.nir").stdout
    assert (folder / "other.nir").exists()
    assert "subtracts its threshold" in output


def test_loss_is_a_line_and_a_warning_where_it_is_allowed(folder):
    pytest.importorskip("nir", reason="nir is not installed: pip install 'onnxsnn[nir]'")
    convert("model.onnx", threshold="trained").snn.save("half.snn.onnx")
    refused = call("half.snn.onnx", "--nir", code=1)
    assert "before the first step" in refused.stderr
    assert len(refused.stderr.strip().splitlines()) == 1
    assert not (folder / "half.nir").exists()
    assert "lost: the potential" in call("half.snn.onnx", "--nir", "--allow-loss").stderr


@pytest.mark.parametrize("kind", ["--nir", "--npz"])
def test_what_an_integer_snn_rounds_is_a_warning(folder, kind):
    if kind == "--nir":
        pytest.importorskip("nir", reason="nir is not installed: pip install 'onnxsnn[nir]'")
    path = average_network().save(folder / "ann.onnx")
    settings = {"neuron": IntegrateAndFire(0.0), "integer": True}
    convert(path, dataset(x=uniform(4, 2, 8, 8)), correct=False, **settings).snn.save("i.snn.onnx")
    assert "lost: the rounding of currents" in call("i.snn.onnx", kind).stderr
    assert (folder / "i").with_suffix(f".{kind[2:]}").exists()
    for lossless in ("--loop", "--step"):
        assert "lost" not in call("i.snn.onnx", lossless).stderr


@pytest.mark.parametrize("kinds", [[], ["--loop", "--npz"], ["--loop", "--step"]])
@pytest.mark.usefixtures("folder")
def test_one_kind_is_asked_for(kinds):
    assert "one of --loop, --step, --nir and --npz" in call("model.snn.onnx", *kinds, code=2).stderr


def test_mistakes_are_one_line(folder):
    residual_network().save(folder / "ann.onnx")
    assert "convert it first" in call("ann.onnx", "--loop", code=1).stderr
    over_itself = call("model.snn.onnx", "--loop", "-o", "model.snn.onnx", code=2)
    assert "is a file that is read here" in over_itself.stderr
    assert "cannot be written" in call("model.snn.onnx", "--npz", "-o", "gone/x.npz", code=1).stderr
    assert "loses nothing" in call("model.snn.onnx", "--loop", "--allow-loss", code=2).stderr
    assert "loses nothing" in call("model.snn.onnx", "--step", "--allow-loss", code=2).stderr
    call("model.snn.onnx", "--loop")
    assert "all timesteps" in call("model.loop.onnx", "--npz", code=1).stderr
    call("model.snn.onnx", "--step")
    assert "plain inputs" in call("model.step.onnx", "--npz", code=1).stderr
