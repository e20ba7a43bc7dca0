"""leave_out_limits: of limits of whole numbers, those stay that data come to."""

import numpy as np
import pytest

from onnxsnn import convert, load_source
from onnxsnn.analysis.reference import Reference
from onnxsnn.graph import to_model
from onnxsnn.passes.clean import clean
from onnxsnn.passes.leave_out_limits import leave_out_limits, needless_limits
from tests.models import Builder, assert_same, dataset, outputs_of, uniform

X = uniform(32, 3, 8, 8)


def residual(scale, zero=0):
    """A sum of two convolutions, each in 8 bits."""
    b = Builder((3, 8, 8))
    levels = b.constant(scale), b.constant(zero, np.int8)

    def rounded():
        b.conv(4)
        return b.op("DequantizeLinear", b.op("QuantizeLinear", b.last, *levels), *levels)

    b.op("Relu", b.op("Add", rounded(), rounded()))
    b.head()
    return b


def read(b, tmp_path):
    return clean(load_source(b.save(tmp_path / "m.onnx")).graph())[0]


@pytest.mark.parametrize("zero", [0, 30])
def test_what_data_do_not_come_near_goes(tmp_path, zero):
    graph = read(residual(0.1, zero), tmp_path)
    model = to_model(graph)
    report = leave_out_limits(graph, needless_limits(graph, dataset(x=X)))
    assert report.actions == {"limits left out": 2}
    assert not any(node.op == "Clip" for node in graph.nodes)
    assert_same(outputs_of(model, x=X), outputs_of(graph, x=X))


def test_what_they_come_to_stays(tmp_path):
    graph = read(residual(0.004), tmp_path)
    assert needless_limits(graph, dataset(x=X)) == []
    assert sum(node.op == "Clip" for node in graph.nodes) == 2


def test_so_do_those_of_channels_that_few_come_near(tmp_path):
    b = Builder((3, 8, 8))
    b.conv(2)
    levels = b.constant([0.1, 0.004]), b.constant([0, 0], np.int8)
    whole = b.op("QuantizeLinear", b.last, *levels, axis=1)
    b.op("Relu", b.op("DequantizeLinear", whole, *levels, axis=1))
    b.head()
    graph = read(b, tmp_path)
    assert needless_limits(graph, dataset(x=X)) == []
    assert len(needless_limits(graph, dataset(x=0.01 * X))) == 2


def test_without_data_those_stay_that_weights_alone_read(tmp_path):
    assert len(needless_limits(read(residual(0.004), tmp_path), None)) == 2
    b = Builder((3, 8, 8))
    b.conv(4)
    levels = b.constant(0.004), b.constant(0, np.int8)
    b.op("DequantizeLinear", b.op("QuantizeLinear", b.last, *levels), *levels)
    b.conv(4)
    graph = read(b, tmp_path)
    assert needless_limits(graph, None) == []
    assert sum(node.op == "Clip" for node in graph.nodes) == 1


def test_rectifiers_stay():
    b = Builder((3, 8, 8))
    b.conv(4)
    b.clip(1000.0)
    b.head()
    assert needless_limits(b.graph(), dataset(x=X)) == []


def test_data_that_do_not_fit_are_left_to_the_calibration(tmp_path):
    graph = read(residual(0.1), tmp_path)
    assert needless_limits(graph, dataset(x=uniform(4, 2, 8, 8))) == []


def test_a_quantized_network_has_the_layers_it_would_have_without(tmp_path):
    quantized = residual(0.1).save(tmp_path / "m.onnx")
    snn = convert(quantized, dataset(x=X), timesteps=4).snn
    assert not any(node.op_type == "Clip" for node in snn.model.graph.node)
    assert len(snn.metadata["limits_left_out"]) == 2


def test_the_ann_beside_an_snn_has_its_layers_whatever_the_data(tmp_path):
    b = Builder((3, 8, 8))
    b.conv(4)
    b.op("LeakyRelu", alpha=0.1)
    levels = b.constant(0.05), b.constant(60, np.int8)
    b.op("DequantizeLinear", b.op("QuantizeLinear", b.last, *levels), *levels)
    b.conv(4)
    b.head()
    source = load_source(b.save(tmp_path / "m.onnx"))
    snn = convert(source, dataset(x=X), timesteps=4).snn
    assert Reference(source, snn, dataset(x=100 * X)).currents({"x": X}).keys() == snn.spikes.keys()
