"""fold_normalization: BatchNorm and other affine chains enter the weights beside them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxsnn.passes.clean import clean
from onnxsnn.passes.fold_normalization import fold_normalization
from tests.models import Builder, assert_same, outputs_of, uniform


def folded(b, *outputs, shape=None):
    """The graph after the pass, checked to compute what the model does; and the report."""
    graph, _ = clean(b.graph(*outputs))
    report = fold_normalization(graph)
    x = uniform(3, *(shape or (3, 8, 8)))
    assert_same(outputs_of(b.model(*outputs), x=x), outputs_of(graph, x=x), 1e-5)
    return graph, report


def operators(graph):
    return [node.op for node in graph.nodes]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("group", [1, 3])
def test_batchnorm_after_convolution_is_folded(bias, group):
    b = Builder((3, 8, 8))
    b.conv(6, group=group, bias=bias)
    b.batchnorm()
    assert operators(folded(b)[0]) == ["Conv"]


@pytest.mark.parametrize("group", [1, 3])
def test_batchnorm_after_transposed_convolution_is_folded(group):
    b = Builder((3, 8, 8))
    b.conv_transpose(6, group=group)
    b.batchnorm()
    assert operators(folded(b)[0]) == ["ConvTranspose"]


@pytest.mark.parametrize("transposed", [0, 1])
def test_batchnorm_after_gemm_is_folded(transposed):
    b = Builder((5,))
    b.gemm(6, transB=transposed)
    b.batchnorm()
    assert operators(folded(b, shape=(5,))[0]) == ["Gemm"]


def test_add_after_matmul_of_two_axes_becomes_its_bias():
    b = Builder((5,))
    b.op("MatMul", "x", b.normal(5, 4))
    b.op("Add", b.constant([[1.0, 2.0, 3.0, 4.0]]), b.last)
    assert operators(folded(b, shape=(5,))[0]) == ["Gemm"]


def test_scale_after_matmul_of_three_axes_is_folded_and_shift_is_not():
    scaled, shifted = Builder((4, 5)), Builder((4, 5))
    for b, operator in ((scaled, "Mul"), (shifted, "Add")):
        b.op("MatMul", "x", b.normal(5, 6))
        b.op(operator, b.last, b.normal(6))
    assert operators(folded(scaled, shape=(4, 5))[0]) == ["MatMul"]
    assert operators(folded(shifted, shape=(4, 5))[0]) == ["MatMul", "Add"]


@pytest.mark.parametrize("group", [1, 3])
def test_batchnorm_before_unpadded_convolution_is_folded(group):
    b = Builder((3, 8, 8))
    b.batchnorm()
    b.conv(6, group=group, pads=[0, 0, 0, 0])
    assert operators(folded(b)[0]) == ["Conv"]


def test_batchnorm_before_padded_convolution_is_not_folded():
    b = Builder((3, 8, 8))
    b.batchnorm()
    b.conv(6)
    assert operators(folded(b)[0]) == ["Mul", "Add", "Conv"]


def test_batchnorm_before_convolution_padded_by_auto_pad_is_not_folded():
    b = Builder((3, 8, 8))
    b.batchnorm()
    weight = b.normal(4, 3, 3, 3)
    b.op("Conv", b.last, weight, auto_pad="SAME_UPPER")
    assert operators(folded(b)[0]) == ["Mul", "Add", "Conv"]


def test_scale_alone_before_padded_convolution_is_folded():
    b = Builder((3, 8, 8))
    b.op("Mul", "x", b.normal(1, 3, 1, 1))
    b.conv(6)
    assert operators(folded(b)[0]) == ["Conv"]


def test_batchnorm_before_transposed_convolution_is_not_folded():
    b = Builder((3, 8, 8))
    b.batchnorm()
    b.conv_transpose(4, kernel=3)
    assert operators(folded(b)[0]) == ["Mul", "Add", "ConvTranspose"]


@pytest.mark.parametrize("transposed", [0, 1])
def test_batchnorm_before_gemm_is_folded(transposed):
    b = Builder((5,))
    b.batchnorm()
    b.gemm(6, transB=transposed)
    assert operators(folded(b, shape=(5,))[0]) == ["Gemm"]


def test_batchnorm_before_two_convolutions_is_folded_into_both():
    b = Builder((3, 8, 8))
    normed = b.batchnorm()
    left = b.conv(4, kernel=1)
    b.channels, b.last = 3, normed
    b.op("Add", left, b.conv(4, kernel=1))
    assert operators(folded(b)[0]) == ["Conv", "Conv", "Add"]


def test_batchnorm_alone_becomes_scale_and_shift():
    b = Builder((3, 8, 8))
    b.batchnorm()
    b.relu()
    assert operators(folded(b)[0]) == ["Mul", "Add", "Relu"]


def test_convolution_whose_output_is_read_elsewhere_keeps_its_weights():
    b = Builder((3, 8, 8))
    raw = b.conv(4)
    normed = b.batchnorm()
    b.op("Add", raw, normed)
    assert operators(folded(b)[0]) == ["Conv", "Mul", "Add", "Add"]


def test_convolution_whose_output_is_the_model_s_keeps_its_weights():
    b = Builder((3, 8, 8))
    raw = b.conv(4)
    normed = b.batchnorm()
    assert operators(folded(b, raw, normed)[0]) == ["Conv", "Mul", "Add"]


def test_weight_shared_by_two_convolutions_is_not_changed_for_the_other():
    b = Builder((3, 8, 8))
    weight = b.normal(3, 3, 1, 1)
    b.op("Conv", "x", weight)
    b.channels = 3
    normed = b.batchnorm()
    b.op("Add", normed, b.op("Conv", b.op("Abs", "x"), weight))
    assert sorted(operators(folded(b)[0])) == ["Abs", "Add", "Conv", "Conv"]


def test_normalization_exported_as_arithmetic_is_folded():
    b = Builder((3, 8, 8))
    b.conv(4)
    b.op("Sub", b.last, b.normal(4, 1, 1))
    b.op("Div", b.last, b.constant(np.array([1.0, 2.0, 3.0, 4.0]).reshape(1, 4, 1, 1)))
    b.op("Mul", b.normal(4, 1, 1), b.last)
    b.op("Add", b.last, b.normal(1, 4, 1, 1))
    b.op("Neg")
    b.op("Sub", b.constant(1.0), b.last)
    assert operators(folded(b)[0]) == ["Conv"]


def test_chain_of_scalars_that_nothing_takes_becomes_scale_and_shift():
    b = Builder((3, 8, 8))
    b.op("Mul", b.last, b.constant(2.0))
    b.op("Neg")
    b.op("Add", b.last, b.constant(-1.0))
    b.relu()
    assert operators(folded(b)[0]) == ["Mul", "Add", "Relu"]


def test_shift_that_varies_over_positions_is_not_folded():
    b = Builder((3, 8, 8))
    b.conv(4)
    b.op("Add", b.last, b.normal(1, 4, 8, 8))
    assert operators(folded(b)[0]) == ["Conv", "Add"]


def test_constant_that_widens_the_tensor_is_left_alone():
    b = Builder((1, 8, 8))
    b.conv(1)
    b.op("Add", b.last, b.normal(1, 4, 1, 1))
    assert operators(folded(b, shape=(1, 8, 8))[0]) == ["Conv", "Add"]


def test_constant_divided_by_a_tensor_is_left_alone():
    b = Builder((3, 8, 8))
    b.conv(4)
    b.op("Exp")
    b.op("Div", b.constant(2.0), b.last)
    assert operators(folded(b)[0]) == ["Conv", "Exp", "Div"]


def test_integer_arithmetic_is_left_alone():
    b = Builder((3, 8, 8))
    b.op("Cast", "x", to=7)
    b.op("Mul", b.last, b.constant(2, np.int64))
    b.op("Cast", to=1)
    assert operators(folded(b)[0]) == ["Cast", "Mul", "Cast"]


def test_moments_are_those_of_the_batchnorm_and_follow_the_chain():
    b = Builder((3, 8, 8))
    b.conv(2)
    gamma, beta = b.constant([2.0, -3.0]), b.constant([0.5, 1.0])
    b.op("BatchNormalization", b.last, gamma, beta, b.constant([0, 0]), b.constant([1, 1]))
    end = b.op("Mul", b.last, b.constant(-2.0))
    moments = folded(b)[1].moments[end]
    np.testing.assert_allclose(moments.mean.ravel(), [-1.0, -2.0])
    np.testing.assert_allclose(moments.std.ravel(), [4.0, 6.0])


@settings(max_examples=25)
@given(st.lists(st.sampled_from(["conv", "bn", "mul", "add", "relu", "pool"]), max_size=8),
       st.integers(0, 1000))  # fmt: skip
def test_any_chain_keeps_its_values(steps, seed):
    b = Builder((3, 8, 8), seed)
    for step in steps:
        match step:
            case "conv":
                b.conv(4, kernel=(1, 3)[seed % 2])
            case "bn":
                b.batchnorm()
            case "mul" | "add":
                b.op(step.capitalize(), b.last, b.normal(1, b.channels, 1, 1))
            case "relu":
                b.relu()
            case "pool":
                b.op("MaxPool", kernel_shape=[2, 2], pads=[0, 0, 1, 1])
    b.op("Flatten")
    folded(b)


@pytest.mark.parametrize("kept", [0, 1])
def test_a_scale_of_zero_takes_the_bias_with_it(kept):
    b = Builder((3, 8, 8))
    b.op("Conv", "x", b.normal(4, 3, 3, 3), b.constant([1.0, 0.0, 0.0, 0.0]), pads=[1] * 4)
    b.op("Mul", b.last, b.constant(np.array([0, *[kept] * 3]).reshape(4, 1, 1)))
    assert operators(folded(b)[0]) == ["Conv"]
