"""A Squeeze that names no axes keeps the samples where their number is open."""

import numpy as np
import pytest
from onnx import TensorProto, helper

from onnxsnn.dialects.squeezes import name_squeezed
from onnxsnn.graph import from_model
from tests.models import Builder, assert_same, outputs_of, uniform


def pooled(batch="N", opset=17):
    """One value per channel, without the axes of space, and what a layer makes of them."""
    b = Builder((3, 6, 6), batch=batch, opset=opset)
    b.conv(4)
    b.op("GlobalAveragePool")
    b.op("Squeeze")
    b.op("MatMul", b.last, b.normal(4, 5))
    return b


def shape_of_output(model):
    return from_model(model).outputs[0].shape


@pytest.mark.parametrize("opset", [12, 17])
@pytest.mark.parametrize("samples", [1, 4])
def test_samples_keep_their_axis(opset, samples):
    model, x = pooled(opset=opset).undeclared(), uniform(samples, 3, 6, 6)
    named = name_squeezed(model)
    assert shape_of_output(named) == ["N", 5]
    (found,) = outputs_of(named, x=x).values()
    assert found.shape == (samples, 5)
    (squeezed,) = outputs_of(model, x=x).values()
    np.testing.assert_allclose(found.reshape(squeezed.shape), squeezed, atol=1e-6)


def test_outputs_may_be_declared_as_those_of_one_sample():
    """As where the network was traced with one, and said to take any number."""
    b = Builder((1, 3))
    b.op("ReduceMax", axes=[2])
    b.op("Squeeze")
    model = b.undeclared()
    output = helper.make_tensor_value_info(b.last, TensorProto.FLOAT, [])
    model.graph.output[0].CopyFrom(output)
    assert shape_of_output(name_squeezed(model)) == ["N"]


def test_one_squeeze_lets_the_next_be_known():
    b = Builder((1, 3, 1))
    b.op("Squeeze")
    b.op("Unsqueeze", b.last, b.constant([2], np.int64))
    b.op("Squeeze")
    named = name_squeezed(b.undeclared())
    assert shape_of_output(named) == ["N", 3]
    assert [len(node.input) for node in named.graph.node] == [2, 2, 2]


def test_nothing_is_squeezed_where_no_axis_is_known_to_be_of_size_one():
    b = Builder((3,))
    b.op("Squeeze")
    b.relu()
    named = name_squeezed(b.undeclared())
    assert [node.op_type for node in named.graph.node] == ["Identity", "Relu"]
    assert shape_of_output(named) == ["N", 3]


def test_other_models_are_left_as_they_are():
    said = Builder((1, 3))
    said.op("Squeeze", said.last, said.constant([1], np.int64))
    for b in (said, pooled(batch=1)):
        model = b.undeclared()
        assert name_squeezed(model) is model


def test_what_takes_one_sample_without_its_axis_goes_on_so():
    b = Builder((3, 1))
    b.op("Squeeze")
    b.op("Unsqueeze", b.last, b.constant([0], np.int64))
    b.gemm(4, inputs=3)
    model, x = b.undeclared(), uniform(1, 3, 1)
    assert name_squeezed(model) is model
    assert_same(outputs_of(model, x=x), outputs_of(name_squeezed(model), x=x))


def test_what_goes_on_with_the_values_of_one_sample_goes_on_so():
    b = Builder((1, 4))
    b.op("Squeeze")
    b.op("Slice", b.last, b.constant([0], np.int64), b.constant([2], np.int64))
    model = b.undeclared()
    assert name_squeezed(model) is model


def test_axes_of_a_model_that_cannot_be_tried_are_named():
    """Lengths that are tried are not those that it takes."""
    b = Builder((1, 3, "L"))
    b.op("Reshape", b.last, b.constant([-1, 1, 5], np.int64))
    b.op("Squeeze")
    assert shape_of_output(name_squeezed(b.undeclared()))[1:] == [5]
