"""encode: where signed encoders go; they keep the values."""

import numpy as np
import pytest

from onnxsnn.passes.clean import clean
from onnxsnn.passes.encode import encode
from onnxsnn.passes.relu_to_ratenorm import relu_to_ratenorm
from onnxsnn.ratenorm import SIGNED, threshold_of
from tests.models import Builder, assert_same, outputs_of, uniform


def encoded(b, x, *outputs):
    """The encoders of a model's graph, which is checked to keep its values."""
    graph, _ = clean(b.graph(*outputs))
    relu_to_ratenorm(graph)
    before = outputs_of(graph, x=x)
    report = encode(graph)
    assert_same(before, outputs_of(graph, x=x))
    assert report.preserves_values
    return [node for node in graph.nodes if node.op == SIGNED], graph


X = uniform(2, 3, 6, 6)


@pytest.mark.parametrize("operator", ["Sigmoid", "HardSwish", "Tanh", "LeakyRelu", "Elu"])
def test_activation_in_front_of_weights_is_encoded_once_per_channel(operator):
    b = Builder((3, 6, 6))
    b.conv(4)
    b.op(operator)
    b.conv(5)
    (norm,), _ = encoded(b, X)
    assert norm.inputs[1].values.shape == (1, 4, 1, 1)
    assert threshold_of(norm) is None
    assert norm.name == f"{operator.lower()}1/encoder"


def test_first_layer_and_preprocessing_are_left_alone():
    b = Builder((3, 6, 6))
    b.op("Exp", "x")
    b.conv(4)
    b.relu()
    b.head()
    assert not encoded(b, X)[0]


def test_rectifier_needs_no_encoder_behind_pooling_and_flattening():
    b = Builder((3, 6, 6))
    b.conv(4)
    b.relu()
    b.op("MaxPool", kernel_shape=[2, 2], strides=[2, 2])
    b.op("Flatten")
    b.gemm(3, inputs=36)
    assert not encoded(b, X)[0]


def test_linear_bottleneck_is_encoded():
    b = Builder((3, 6, 6))
    b.conv(4)
    b.relu()
    b.conv(2)
    b.conv(4)
    assert len(encoded(b, X)[0]) == 1


def test_layers_that_read_one_tensor_share_an_encoder_and_a_residual_keeps_the_tensor():
    b = Builder((3, 6, 6))
    b.conv(4)
    x = b.op("Tanh")
    left = b.conv(4)
    b.last = x
    right = b.conv(4)
    b.op("Add", b.op("Add", left, right), x)
    norms, graph = encoded(b, X)
    assert len(norms) == 1
    assert {reader.op for reader in graph.tensors()[x].outputs} == {SIGNED, "Add"}


def test_only_what_is_analog_in_a_concat_is_encoded():
    b = Builder((3, 6, 6))
    b.conv(4)
    spikes = b.relu()
    analog = b.op("Sigmoid", b.conv(4))
    b.op("Concat", spikes, analog, axis=1)
    b.channels = 8
    b.conv(4)
    (norm,), _ = encoded(b, X)
    assert norm.inputs[0].name == analog


def test_thresholds_are_per_channel_in_front_of_a_flatten():
    b = Builder((3, 6, 6))
    b.conv(4)
    b.op("Sigmoid")
    b.op("Flatten")
    b.gemm(3, inputs=144)
    (norm,), _ = encoded(b, X)
    assert norm.inputs[1].values.shape == (1, 4, 1, 1)


def test_thresholds_lie_along_the_axis_that_the_weights_sum_over():
    b = Builder((5, 6))
    b.op("MatMul", "x", b.normal(6, 8))
    b.op("Erf")
    b.op("MatMul", b.last, b.normal(8, 3))
    (norm,), _ = encoded(b, uniform(2, 5, 6))
    assert norm.inputs[1].values.shape == (1, 1, 8)


def test_product_of_two_tensors_is_no_layer_of_weights():
    b = Builder((5, 6))
    q = b.op("MatMul", "x", b.normal(6, 8))
    k = b.op("Transpose", b.op("MatMul", "x", b.normal(6, 8)), perm=[0, 2, 1])
    b.op("MatMul", q, k)
    b.op("Softmax", axis=-1)
    assert not encoded(b, uniform(2, 5, 6))[0]


def test_unknown_size_of_the_channels_gets_one_threshold():
    b = Builder((5, "D"))
    b.op("MatMul", "x", b.normal(6, 8))
    b.op("Reshape", b.op("Erf"), b.constant([0, 2, -1], np.int64))
    b.op("Einsum", b.last, b.normal(20, 3), equation="nkd,de->nke")
    (norm,), _ = encoded(b, uniform(2, 5, 6))
    assert norm.inputs[1].values.size in (1, 20)


def test_samples_keep_an_axis_in_front_of_a_reshape_that_merges_it():
    """As torch.nn's attention brings its heads together, with the sequence in front."""
    b, x = Builder((6, 5, 4)), uniform(2, 6, 5, 4)
    b.op("MatMul", b.last, b.normal(4, 4))
    b.op("Sigmoid")
    b.op("Transpose", perm=[1, 0, 2, 3])
    b.op("Reshape", b.last, b.constant([-1, 20], np.int64))
    b.op("Gemm", b.last, b.normal(20, 8))
    (encoder,), _ = encoded(b, x)
    assert encoder.inputs[0].shape == [6, "N", 20]
    assert encoder.inputs[1].values.shape == (1, 1, 20)


@pytest.mark.parametrize("target", [[-1], [-1, 8], [0, 0, 0, -1]])
def test_other_reshapes_are_left(target):
    b, x = Builder((6, 5, 4)), uniform(2, 6, 5, 4)
    b.op("MatMul", b.last, b.normal(4, 4))
    b.op("Sigmoid")
    b.op("Transpose", perm=[1, 0, 2, 3])
    b.op("Reshape", b.last, b.constant(target, np.int64))
    sizes = {1: 240, 2: 8, 4: 4}[len(target)]
    b.op("MatMul", b.last, b.normal(sizes, 3))
    (encoder,), graph = encoded(b, x)
    assert sum(node.op == "Reshape" for node in graph.nodes) == 1
    assert encoder.inputs[0].inputs[0].op == "Reshape"


def test_clip_of_both_signs_is_the_layer_itself():
    b = Builder((3, 6, 6))
    b.conv(4)
    b.op("Clip", b.last, b.constant(np.float32(-0.5)), b.constant(np.float32(0.5)))
    b.conv(5)
    (norm,), graph = encoded(b, X)
    assert np.all(threshold_of(norm) == 0.5)
    assert norm.inputs[0].inputs[0].op == "Conv"
    assert not any(node.op == "Clip" for node in graph.nodes)


@pytest.mark.parametrize("operators", [("Min", "Max"), ("Max", "Min")])
@pytest.mark.parametrize("shape", [(), (1, 1)])
def test_so_are_a_maximum_and_a_minimum(operators, shape):
    b = Builder((3, 6, 6))
    b.conv(4)
    for operator in operators:
        bound = np.full(shape, 0.5 if operator == "Min" else -0.5, np.float32)
        b.op(operator, b.constant(bound), b.last)
    b.conv(5)
    (norm,), graph = encoded(b, X)
    assert np.all(threshold_of(norm) == 0.5)
    assert not any(node.op in operators for node in graph.nodes)


@pytest.mark.parametrize("bounds", [{"Min": 0.5}, {"Max": -0.5}, {"Min": 0.5, "Max": -0.4}])
def test_a_maximum_or_a_minimum_of_other_bounds_is_encoded_as_any_operator(bounds):
    b = Builder((3, 6, 6))
    b.conv(4)
    for operator, bound in bounds.items():
        b.op(operator, b.last, b.constant(np.float32(bound)))
    b.conv(5)
    (norm,), _ = encoded(b, X)
    assert threshold_of(norm) is None


def test_clip_of_both_signs_is_the_layer_itself_before_an_average_and_a_flattening():
    b = Builder((3, 6, 6))
    b.conv(4)
    b.op("Clip", b.last, b.constant(np.float32(-0.5)), b.constant(np.float32(0.5)))
    b.op("GlobalAveragePool")
    b.op("Flatten")
    b.gemm(3, inputs=4)
    (norm,), graph = encoded(b, X)
    assert norm.inputs[0].inputs[0].op == "Conv"
    assert not any(node.op == "Clip" for node in graph.nodes)


@pytest.mark.parametrize(("low", "high"), [(-0.5, 0.4), (-0.5, None), (0.1, 0.5), (None, None)])
def test_clip_of_other_bounds_is_encoded_as_any_operator(low, high):
    b = Builder((3, 6, 6))
    b.conv(4)
    bounds = ["" if bound is None else b.constant(np.float32(bound)) for bound in (low, high)]
    b.op("Clip", b.last, *bounds)
    b.conv(5)
    (norm,), _ = encoded(b, X)
    assert threshold_of(norm) is None


def test_clip_of_both_signs_stays_for_its_other_readers():
    b = Builder((3, 6, 6))
    b.conv(4)
    x = b.op("Clip", b.last, b.constant(np.float32(-0.5)), b.constant(np.float32(0.5)))
    b.op("Add", b.conv(4), x)
    (norm,), graph = encoded(b, X)
    assert norm.inputs[0].inputs[0].op == "Conv"
    assert {reader.op for reader in graph.tensors()[x].outputs} == {"Add"}
