"""absorb_scales: thresholds' factors enter weights, pass through, or are demanded."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxsnn.passes.absorb_scales import absorb_scales
from onnxsnn.passes.clean import clean
from onnxsnn.passes.relu_to_ratenorm import relu_to_ratenorm
from onnxsnn.ratenorm import rate_norms
from tests.models import Builder, assert_same, outputs_of, uniform


def rated(b, *outputs):
    """The model's graph with RateNorm nodes of random thresholds, one per channel."""
    graph, _ = clean(b.graph(*outputs))
    relu_to_ratenorm(graph)
    random = np.random.default_rng(1)
    for node in rate_norms(graph):
        shape = node.inputs[1].values.shape
        node.inputs[1].values = random.uniform(0.2, 2.0, shape).astype(np.float32)
    return graph


def absorbed(b, *outputs, shape=(3, 8, 8)):
    """The graph after the pass, checked to compute what it did before."""
    graph = rated(b, *outputs)
    x = 2 * uniform(3, *shape)
    before = outputs_of(graph, x=x)
    absorb_scales(graph)
    assert_same(before, outputs_of(graph, x=x), 1e-5)
    return graph


def multiplications(graph):
    return sum(node.op == "Mul" for node in graph.nodes)


@pytest.mark.parametrize("layer", ["conv", "grouped conv", "conv_transpose", "gemm", "matmul"])
def test_weights_take_the_factor(layer):
    b = Builder((3, 8, 8)) if layer != "matmul" else Builder((5, 6))
    match layer:
        case "conv":
            b.relu()
            b.conv(4)
        case "grouped conv":
            b.relu()
            b.conv(6, group=3)
        case "conv_transpose":
            b.conv(4)
            b.relu()
            b.conv_transpose(6, group=2)
        case "gemm":
            b.op("Flatten")
            b.relu()
            b.gemm(4, inputs=192)
        case "matmul":
            b.op("MatMul", "x", b.normal(6, 7))
            b.relu()
            b.op("MatMul", b.last, b.normal(7, 3))
    graph = absorbed(b, shape=(5, 6) if layer == "matmul" else (3, 8, 8))
    assert multiplications(graph) == 0


@pytest.mark.parametrize(
    "between",
    [
        ("MaxPool", {"kernel_shape": [2, 2], "strides": [2, 2]}),
        ("AveragePool", {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}),
        ("GlobalAveragePool", {}),
        ("GlobalMaxPool", {}),
        ("ReduceMax", {"axes": [2, -1]}),
    ],
)
def test_pooling_lets_the_factor_through(between):
    b = Builder((3, 8, 8))
    b.relu()
    b.op(between[0], **between[1])
    b.conv(4, kernel=1)
    assert multiplications(absorbed(b)) == 0


def test_a_maximum_that_tells_its_place_too_keeps_the_factor():
    b = Builder((3, 8, 8))
    b.relu()
    pooled = b.op("MaxPool", count=2, kernel_shape=[2, 2], strides=[2, 2])
    places = b.op("Identity", f"{pooled}_1")
    absorbed(b, b.op("Sigmoid", pooled), places)


def test_factors_that_differ_between_pixels_stay_in_front_of_pooling():
    b = Builder((4, 2))
    b.op("Flatten")
    b.gemm(16, inputs=8)
    b.relu()
    b.op("Reshape", b.last, b.constant([0, 1, 4, 4], np.int64))
    b.op("MaxPool", kernel_shape=[2, 2], strides=[2, 2])
    b.channels = 1
    b.conv(3)
    assert multiplications(absorbed(b, shape=(4, 2))) == 1


def resized_to_sizes(b):
    """As exporters write it where widths are open: to the sizes of another tensor."""
    sizes = b.op("Concat", b.op("Shape", b.last, end=2), b.constant([12, 16], np.int64), axis=0)
    b.op("Resize", b.nodes[0].output[0], "", "", sizes, mode="linear")


def resized(b):
    b.op("Resize", b.last, "", b.constant([1, 1, 2, 2]), mode="nearest")


def averaged_and_spread(b):
    b.op("ReduceMean", b.last, axes=[2, -1], keepdims=1)
    b.op("Expand", b.last, b.constant([1, 1, 8, 8], np.int64))


def sliced(b):
    """Positions, and channels: the factors of those that are left."""
    b.op("Slice", b.last, *(b.constant(v, np.int64) for v in ([1, 2], [8, 4], [3, 1], [2, 1])))
    b.channels = 1


def parted(b):
    b.op("Split", count=3, axis=1)
    b.channels = 1


def shuffled(b):
    """Channels change places, and are still all that factors vary along: pooling lets them by."""
    b.op("Reshape", b.last, b.constant([0, 3, 1, 8, 8], np.int64))
    b.op("Transpose", perm=[0, 2, 1, 3, 4])
    b.op("Reshape", b.last, b.constant([0, 3, 8, 8], np.int64))
    b.op("MaxPool", kernel_shape=[2, 2])


BETWEEN = [resized_to_sizes, resized, averaged_and_spread, sliced, parted, shuffled]


@pytest.mark.parametrize("between", BETWEEN)
def test_what_works_within_channels_lets_the_factor_through(between):
    b = Builder((3, 8, 8))
    b.relu()
    between(b)
    b.conv(4)
    assert not multiplications(absorbed(b))


def test_a_mean_that_is_left_without_axes_lets_the_factor_through():
    b = Builder((3, 8, 8))
    b.relu()
    b.op("ReduceMean", b.last, axes=[2, 3], keepdims=0)
    b.gemm(4)
    assert not multiplications(absorbed(b))


@pytest.mark.parametrize("axes", [[1], [1, 2, 3]])
def test_a_mean_over_channels_keeps_the_factor(axes):
    b = Builder((3, 8, 8))
    b.relu()
    b.op("ReduceMean", b.last, axes=axes)
    assert multiplications(absorbed(b)) == 1


def test_channels_that_are_resized_keep_the_factor():
    b = Builder((3, 8, 8))
    b.relu()
    b.op("Resize", b.last, "", b.constant([1, 2, 1, 1]), mode="nearest")
    assert multiplications(absorbed(b)) == 1


def test_flatten_lets_the_factor_through_to_gemm():
    b = Builder((3, 8, 8))
    b.relu()
    b.op("MaxPool", kernel_shape=[2, 2], strides=[2, 2])
    b.op("Flatten")
    b.gemm(4, inputs=48)
    assert multiplications(absorbed(b)) == 0


def test_reshape_transpose_and_squeeze_let_the_factor_through():
    b = Builder((3, 8, 8))
    b.relu()
    b.op("Transpose", perm=[0, 2, 3, 1])
    b.op("Reshape", b.last, b.constant([0, 1, 192], np.int64))
    b.op("Squeeze", b.last, b.constant([1], np.int64))
    b.gemm(4, inputs=192)
    assert multiplications(absorbed(b)) == 0


def test_a_reshape_that_merges_the_samples_keeps_the_factor():
    b = Builder((3, 6))
    b.op("Reshape", b.relu(), b.constant([-1, 6], np.int64))
    b.gemm(4, inputs=6)
    assert multiplications(absorbed(b, shape=(3, 6))) == 1


def test_padding_with_zeros_lets_the_factor_through_and_with_ones_does_not():
    for value, expected in ((0.0, 0), (1.0, 1)):
        b = Builder((3, 8, 8))
        b.relu()
        b.op("Pad", b.last, b.constant([0, 0, 1, 1, 0, 0, 1, 1], np.int64), b.constant(value))
        b.conv(4, pads=[0, 0, 0, 0])
        assert multiplications(absorbed(b)) == expected


@pytest.mark.parametrize("indices", [[2, 0, 0, 1], [[1], [-1]], 1])
@pytest.mark.parametrize("axis", [1, -1])
def test_what_is_chosen_brings_its_factor(indices, axis):
    b = Builder((3, 8, 8))
    b.relu()
    b.op("Gather", b.last, b.constant(indices, np.int64), axis=axis)
    b.op("Flatten")
    chosen = np.size(indices)
    b.gemm(4, inputs=chosen * 64 if axis == 1 else chosen * 24)
    assert multiplications(absorbed(b)) == 0


def test_indices_that_are_computed_choose_where_the_factor_does_not_vary():
    for axis, kept in ((2, 0), (1, 1)):
        b = Builder((3, 8, 8))
        place = b.op("ArgMax", b.op("ReduceMax", "x", axes=[0, 1, 3], keepdims=0), keepdims=1)
        place = b.op("Clip", place, b.constant(0, np.int64), b.constant(2, np.int64))
        b.op("Gather", b.op("Relu", "x"), place, axis=axis)
        b.op("Flatten")
        b.gemm(4, inputs=24 if axis == 2 else 64)
        assert multiplications(absorbed(b)) == kept


def test_blocks_of_space_bring_the_factors_of_their_channels():
    b = Builder((3, 8, 8))
    b.relu()
    b.op("SpaceToDepth", blocksize=2)
    b.channels = 12
    b.conv(4)
    assert multiplications(absorbed(b)) == 0


@pytest.mark.parametrize("weights_first", [False, True])
def test_a_product_over_another_axis_reads_rates(weights_first):
    """As one between the tokens of a channel: the factor is of what it gives, too."""
    b = Builder((5, 6))
    b.op("MatMul", "x", b.normal(6, 7))
    b.relu()
    if weights_first:
        b.op("MatMul", b.normal(4, 5), b.last)
    else:
        b.op("Transpose", perm=[0, 2, 1])
        b.op("MatMul", b.last, b.normal(5, 4))
    mixed = b.nodes[-1].name
    b.op("Add", b.last, b.normal(4, 7) if weights_first else b.normal(4))
    graph = absorbed(b, shape=(5, 6))
    assert multiplications(graph) == 1
    (product,) = (node for node in graph.nodes if node.name == mixed)
    (addition,) = (node for node in graph.nodes if node.op == "Add")
    assert any(t.inputs and t.inputs[0].op == "Mul" for t in addition.inputs)
    assert not any(t.inputs and t.inputs[0].op == "Mul" for t in product.inputs)


def test_a_product_over_the_factor_s_axis_takes_it():
    b = Builder((5, 6))
    b.op("MatMul", b.normal(4, 5), "x")
    b.relu()
    b.op("Transpose", perm=[0, 2, 1])
    b.op("MatMul", b.normal(3, 6), b.last)
    assert multiplications(absorbed(b, shape=(5, 6))) == 1


@pytest.mark.parametrize("repeats", [[1, 2, 1, 1], [1, 1, 2, 3], [1, 3, 1, 2]])
def test_repeated_channels_repeat_the_factor(repeats):
    b = Builder((3, 8, 8))
    b.relu()
    b.op("Tile", b.last, b.constant(repeats, np.int64))
    b.channels *= repeats[1]
    b.conv(4)
    assert multiplications(absorbed(b)) == 0


@pytest.mark.parametrize(
    ("before", "behind", "mode", "kept"),
    [(1, 2, "constant", 0), (1, 2, "reflect", 1), (-1, 2, "constant", 1)],
)
def test_zeros_beside_channels_let_the_factor_through(before, behind, mode, kept):
    b = Builder((3, 8, 8))
    b.relu()
    b.op("Pad", b.last, b.constant([0, before, 0, 0, 0, behind, 0, 0], np.int64), mode=mode)
    b.channels += before + behind
    b.conv(4)
    assert multiplications(absorbed(b)) == kept


def test_concat_lets_different_factors_through():
    b = Builder((3, 8, 8))
    first = b.relu()
    b.conv(4)
    second = b.relu()
    b.op("Concat", first, second, "x", axis=1)
    b.channels = 10
    b.conv(5)
    assert multiplications(absorbed(b)) == 0


def test_mul_by_a_constant_merges():
    b = Builder((3, 8, 8))
    b.relu()
    b.op("Mul", b.last, b.constant(np.array([1.0, 2.0, 3.0]).reshape(3, 1, 1)))
    b.op("Div", b.last, b.constant(4.0))
    b.conv(4)
    assert multiplications(absorbed(b)) == 0


@pytest.mark.parametrize(("operator", "expected"), [("Mul", 2), ("Div", 1)])
def test_a_negative_constant_in_front_of_a_maximum_keeps_the_factor(operator, expected):
    """A minimum over windows, as exporters write it: -max(-x)."""
    b = Builder((3, 8, 8))
    b.relu()
    b.op(operator, b.last, b.constant(-1.0))
    b.op("MaxPool", kernel_shape=[2, 2], strides=[2, 2])
    b.conv(4)
    assert multiplications(absorbed(b)) == expected


def test_residual_add_demands_both_factors():
    b = Builder((3, 8, 8))
    first = b.relu()
    b.conv(3)
    second = b.relu()
    b.op("Add", first, second)
    b.conv(2)
    graph = absorbed(b)
    assert multiplications(graph) == 2


def test_factor_is_taken_by_one_reader_and_demanded_by_another():
    b = Builder((3, 8, 8))
    pooled = b.op("MaxPool", b.relu(), kernel_shape=[3, 3], pads=[1, 1, 1, 1])
    body = b.conv(3)
    b.op("Add", pooled, body)
    b.op("Add", b.last, b.op("Sigmoid", pooled))
    graph = absorbed(b)
    assert multiplications(graph) == 1  # once for both that demand it


def test_output_is_the_activation_not_the_rate():
    b = Builder((3, 8, 8))
    pooled = b.op("GlobalAveragePool", b.relu())
    absorbed(b, pooled)


@settings(max_examples=25)
@given(
    st.lists(
        st.sampled_from(["conv", "relu", "max", "avg", "add", "cat", "pad", "mul"]),
        min_size=1,
        max_size=9,
    ),
    st.integers(0, 1000),
)
def test_any_network_keeps_its_values(steps, seed):
    b = Builder((3, 8, 8), seed)
    made = [("x", 3)]
    for step in steps:
        match step:
            case "conv":
                b.conv(4)
            case "relu":
                b.relu()
            case "max":
                b.op("MaxPool", kernel_shape=[3, 3], pads=[1, 1, 1, 1])
            case "avg":
                b.op("AveragePool", kernel_shape=[3, 3], pads=[1, 1, 1, 1])
            case "add":
                same = [name for name, channels in made if channels == b.channels]
                if same:
                    b.op("Add", b.last, same[seed % len(same)])
            case "cat":
                name, channels = made[seed % len(made)]
                b.op("Concat", b.last, name, axis=1)
                b.channels += channels
            case "pad":
                b.op("Slice", b.op("Pad", b.last, b.constant([0, 0, 1, 1, 0, 0, 1, 1], np.int64)),
                     b.constant([0, 0], np.int64), b.constant([8, 8], np.int64),
                     b.constant([2, 3], np.int64))  # fmt: skip
            case "mul":
                b.op("Mul", b.last, b.constant(2.0))
        made.append((b.last, b.channels))
    b.head()
    absorbed(b)


@pytest.mark.parametrize("operator", ["Mul", "Div"])
def test_a_constant_that_repeats_channels_is_left_alone(operator):
    b = Builder((1, 8, 8))
    b.relu()
    b.op(operator, b.last, b.constant(np.array([1.0, 2.0, 0.5]).reshape(1, 3, 1, 1)))
    b.channels = 3
    b.conv(4)
    assert operator in [node.op for node in absorbed(b, shape=(1, 8, 8)).nodes]
