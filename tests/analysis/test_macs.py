"""macs: multiply-accumulates, against counts by hand."""

import pytest

from onnxsnn.analysis.macs import OPEN_SIZE, macs, with_sizes
from tests.models import Builder


def last_macs(b):
    return macs(with_sizes(b.graph()).nodes[-1])


def test_convolution_does_a_kernel_per_output_value():
    b = Builder((3, 8, 8))
    b.conv(4)
    assert last_macs(b) == 4 * 8 * 8 * 3 * 9


def test_groups_and_strides_do_less():
    b = Builder((4, 8, 8))
    b.conv(8, group=4, strides=[2, 2])
    assert last_macs(b) == 8 * 4 * 4 * 9


def test_transposed_convolution_does_a_kernel_per_input_value():
    b = Builder((3, 8, 8))
    b.conv_transpose(5)
    assert last_macs(b) == 3 * 8 * 8 * 5 * 4


def test_gemm_of_one_sample():
    b = Builder((6,))
    b.gemm(5)
    assert last_macs(b) == 30


def test_product_of_two_tensors_does_the_common_axis_per_output_value():
    b = Builder((5, 6))
    b.op("MatMul", "x", b.op("Transpose", "x", perm=[0, 2, 1]))
    assert last_macs(b) == 5 * 5 * 6


@pytest.mark.parametrize("equation", ["...i,io->...o", "n...i,io->n...o", "...li,io->...lo"])
def test_einsum_s_dots_stand_for_axes(equation):
    b = Builder((5, 6))
    b.op("Einsum", "x", b.normal(6, 7), equation=equation)
    assert last_macs(b) == 5 * 6 * 7


def test_einsum_does_one_for_all_indices_together():
    b = Builder((5, 6))
    b.op("Einsum", "x", b.normal(6, 7), equation="nld,dk->nlk")
    assert last_macs(b) == 5 * 6 * 7


@pytest.mark.parametrize(("operator", "gates"), [("LSTM", 4), ("GRU", 3), ("RNN", 1)])
def test_recurrent_layer_does_all_its_weights_per_element_of_the_sequence(operator, gates):
    b = Builder((7, 6))
    sequence = b.op("Transpose", perm=[1, 0, 2])
    b.op(operator, sequence, b.normal(2, gates * 5, 6), b.normal(2, gates * 5, 5), hidden_size=5,
         direction="bidirectional")  # fmt: skip
    assert last_macs(b) == 7 * 2 * gates * 5 * (6 + 5)


@pytest.mark.parametrize("operator", ["Relu", "Softmax", "GlobalAveragePool"])
def test_operators_without_products_of_weights_do_none(operator):
    b = Builder((3, 8, 8))
    b.op(operator)
    assert last_macs(b) == 0


def test_open_sizes_are_assumed_for_one_sample():
    b = Builder((3, "H", "W"))
    b.conv(4)
    assert last_macs(b) == 4 * OPEN_SIZE**2 * 27


def test_unknown_shape_gives_none():
    b = Builder((3, "H", "W"))
    b.conv(4)
    node = b.graph().nodes[-1]
    assert macs(node) is None


def test_einsum_of_one_tensor_moves_it():
    b = Builder((5, 6))
    b.op("Einsum", "x", equation="nld->ndl")
    assert last_macs(b) == 0


def test_attention_meets_each_query_with_each_key_and_its_share_with_each_value():
    b = Builder((2, 5, 8), opset=23)
    keys, values = (b.constant(b.random.normal(size=(1, 2, 7, n))) for n in (8, 3))
    b.op("Attention", "x", keys, values)
    assert last_macs(b) == 2 * 5 * 7 * (8 + 3)
