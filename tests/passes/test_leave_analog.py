"""leave_analog: behind as much as the values decide, nothing is taken for a neuron."""

import numpy as np
import onnx
import onnx.utils
import pytest

from onnxsnn import Runner, convert
from onnxsnn.errors import UnsupportedError
from onnxsnn.operators import rectifier_limit
from onnxsnn.passes.leave_analog import leave_analog
from tests.models import Builder, assert_same, dataset, outputs_of, uniform
from tests.networks import detector, residual_network

X = uniform(24, 3, 8, 8)


def head(rectifier):
    """A detector, and two layers that look at what is found."""
    d = detector()
    d.builder.gemm(6)
    if rectifier == "Clip":
        d.builder.clip(0.3)
    else:
        d.builder.op(rectifier)
    d.builder.gemm(3)
    return d


@pytest.mark.parametrize("rectifier", ["Relu", "Clip"])
def test_rectifiers_there_keep_their_values_and_are_none(rectifier):
    d = head(rectifier)
    graph = d.builder.graph(d.boxes, d.builder.last)
    report = leave_analog(graph)
    assert report.actions == {f"{rectifier} left analog": 1}
    assert ["(2)" in warning for warning in report.warnings] == [True]
    assert sum(rectifier_limit(node) is not None for node in graph.nodes) == 1
    model = d.builder.model(d.boxes, d.builder.last)
    assert_same(outputs_of(model, x=X), outputs_of(graph, x=X))
    assert not leave_analog(graph).changed


def ending(rectifier, *behind):
    """A network whose last layer of weights a rectifier is behind, and more."""
    b = Builder((3, 8, 8))
    b.conv(6)
    b.relu()
    b.conv(4)
    b.clip(0.5) if rectifier == "Clip" else b.relu()
    for operator in behind:
        b.op(operator)
    return b


@pytest.mark.parametrize("rectifier", ["Relu", "Clip"])
def test_the_read_out_is_rectified_on_its_running_mean(tmp_path, rectifier):
    b = ending(rectifier)
    before, rectified = b.nodes[2].output[0], b.last
    path = b.save(tmp_path / "m.onnx", before, rectified)
    snn = convert(path, dataset(x=X), timesteps=3).snn
    assert [layer.name for layer in snn.layers] == ["relu1"]
    outputs = Runner(snn).run(X).outputs
    limit = 0.5 if rectifier == "Clip" else np.inf
    assert_same({rectified: np.clip(outputs[before], 0, limit)}, {rectified: outputs[rectified]})


def test_so_it_is_whatever_else_it_ends_with(tmp_path):
    b = ending("Relu", "GlobalAveragePool", "Flatten", "Softmax")
    snn = convert(b.save(tmp_path / "m.onnx"), dataset(x=X), timesteps=3).snn
    assert [layer.name for layer in snn.layers] == ["relu1"]


def test_so_no_rectifier_is_that_weights_are_behind_or_no_spikes_before():
    b = ending("Relu")
    b.conv(3)
    assert not leave_analog(b.graph()).changed
    b = Builder((3, 8, 8))
    b.conv(6)
    b.relu()
    b.op("GlobalAveragePool")
    assert not leave_analog(b.graph()).changed


def test_nothing_is_to_do_elsewhere():
    report = leave_analog(residual_network().graph())
    assert not report.changed
    assert not report.warnings


@pytest.mark.parametrize("activation", ["Relu", "Clip", "HardSwish"])
@pytest.mark.parametrize("correct", [None, True])
def test_snn_computes_these_layers_on_what_it_found(tmp_path, activation, correct):
    d = head(activation)
    path = d.builder.save(tmp_path / "m.onnx", d.boxes, d.picked, d.builder.last)
    conversion = convert(path, dataset(x=X), timesteps=4, correct=correct)
    assert any("stay analog (2)" in warning for warning in conversion.warnings)
    assert len(conversion.snn.spikes) == 1
    outputs = Runner(conversion.snn).run(X).outputs
    model = onnx.utils.Extractor(d.builder.model()).extract_model([d.picked], [d.builder.last])
    expected = outputs_of(model, **{d.picked: outputs[d.picked]})
    assert_same(expected, {d.builder.last: outputs[d.builder.last]})


def test_strict_refuses_them(tmp_path):
    d = head("Relu")
    with pytest.raises(UnsupportedError, match="without --strict"):
        convert(d.builder.save(tmp_path / "m.onnx"), dataset(x=X), strict=True)
