"""Reference: the ANN's currents and activations, layer by layer, under the SNN's names."""

import numpy as np
import onnx
import pytest

from onnxsnn import convert, load_source
from onnxsnn.analysis.reference import Reference
from onnxsnn.errors import DataError
from onnxsnn.session import Session
from tests.models import Builder, dataset, uniform
from tests.networks import residual_network

X = uniform(6, 3, 8, 8)


@pytest.fixture
def source(tmp_path):
    return load_source(residual_network().save(tmp_path / "m.onnx"))


def activations(source):
    """By ReLU, what the source itself gives."""
    model = onnx.ModelProto()
    model.CopyFrom(source.model)
    relus = {node.name: node.output[0] for node in model.graph.node if node.op_type == "Relu"}
    del model.graph.output[:]
    model.graph.output.extend(map(onnx.helper.make_empty_tensor_value_info, relus.values()))
    values = Session(model).run({"x": X})
    return {name: values[output] for name, output in relus.items()}


@pytest.mark.parametrize("correct", [False, True])
def test_activations_are_the_source_s_whatever_the_thresholds(source, correct):
    """Thresholds far too low, and corrected weights, are the SNN's alone."""
    few = dataset(x=0.1 * X)
    snn = convert(source, few, timesteps=2, correct=correct).snn
    reference = Reference(source, snn)
    currents, expected = reference.currents({"x": X}), activations(source)
    assert list(currents) == list(snn.spikes)
    assert currents.keys() == expected.keys()
    for layer, current in currents.items():
        assert (current < 0).any()
        found = reference.activation(layer, current)
        np.testing.assert_allclose(found, expected[layer], rtol=1e-4, atol=1e-5)


def test_a_clip_stays_the_ann_s(tmp_path):
    """ReLU6 gives no more than 6, though its neurons' threshold may be another."""
    b = Builder((3,))
    b.clip(6.0)
    b.gemm(2)
    source = load_source(b.save(tmp_path / "m.onnx"))
    snn = convert(source, dataset(x=np.ones((4, 3), np.float32)), threshold="max").snn
    (layer,) = snn.spikes
    given = Reference(source, snn).activation(layer, np.array([[-1.0, 0.5, 9.0]], np.float32))
    np.testing.assert_array_equal(given, [[0, 0.5, 6]])


def test_an_encoder_has_no_rectifier(tmp_path):
    """What encodes analog values lets negative ones through."""
    b = Builder((3,))
    b.gemm(4)
    b.op("Tanh")
    b.gemm(2, inputs=4)
    source = load_source(b.save(tmp_path / "m.onnx"))
    x = uniform(8, 3)
    snn = convert(source, dataset(x=x), timesteps=2).snn
    reference = Reference(source, snn)
    ((layer, current),) = reference.currents({"x": x}).items()
    np.testing.assert_array_equal(reference.activation(layer, current), current)
    assert (current < 0).any()


def test_another_network_s_ann_is_refused(source, tmp_path):
    b = Builder((3, 8, 8))
    b.conv(4)
    b.relu()
    b.head()
    other = load_source(b.save(tmp_path / "other.onnx"))
    with pytest.raises(DataError, match="give the ANN that it was converted from"):
        Reference(other, convert(source, dataset(x=X), timesteps=2).snn)
