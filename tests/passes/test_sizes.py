"""Sizes that a graph computes become constants where they are known, and nothing else changes."""

import numpy as np
import pytest

from onnxsnn.graph import constant, from_model
from onnxsnn.passes.clean import clean
from onnxsnn.passes.sizes import _distinct, _expand, _reshape, fix_targets, sizes_of
from tests.models import Builder, assert_same, outputs_of, uniform


def operators(graph):
    return [node.op for node in graph.nodes]


def heads():
    """[N, 5, 8] to [N, 2, 5, 4] and back; how many heads there are is left open."""
    b = Builder((5, 8))
    bounds = (b.constant([v], np.int64) for v in (0, 1, 0))
    first = b.op("Slice", b.op("Shape", "x"), *bounds)

    def reshape(x, *sizes):
        return b.op("Reshape", x, b.op("Concat", first, b.constant(sizes, np.int64), axis=0))

    split = b.op("Transpose", reshape("x", 5, -1, 4), perm=[0, 2, 1, 3])
    split = reshape(split, -1, 5, 4)
    reshape(b.op("Transpose", split, perm=[0, 2, 1, 3]), 5, -1)
    return b


def test_a_size_that_follows_from_all_others_is_known():
    b, x = heads(), uniform(3, 5, 8)
    graph, _ = clean(b.graph())
    assert "Shape" not in operators(graph)
    assert graph.outputs[0].shape[1:] == [5, 8]
    assert_same(outputs_of(b.model(), x=x), outputs_of(graph, x=x))


def products_of_heads():
    """Attention's scores as TensorFlow's einsum is exported: samples and heads in one axis."""
    b = Builder((2, 5, 4))

    def sizes(of, *axes):
        return b.op("Gather", b.op("Shape", of), b.constant(axes, np.int64), axis=0)

    def joined(x, *sizes):
        return b.op("Reshape", x, b.op("Concat", *sizes, axis=0))

    other = b.op("Mul", "x", b.constant(2.0))
    rest, width = b.constant([-1], np.int64), sizes("x", 3)
    first, second = (
        joined(x, b.op("ReduceProd", sizes(x, 0, 1), keepdims=1), rest, width) for x in ("x", other)
    )
    scores = b.op("MatMul", first, b.op("Transpose", second, perm=[0, 2, 1]))
    apart = b.op("Max", sizes("x", 0, 1), sizes(other, 0, 1))
    joined(scores, apart, sizes("x", 2), sizes(other, 2))
    return b


def test_samples_and_heads_in_one_axis_are_known_apart_and_together():
    b, x = products_of_heads(), uniform(3, 2, 5, 4)
    graph, _ = clean(b.graph())
    assert not {"Shape", "ReduceProd", "Max"}.intersection(operators(graph))
    (product,) = [node for node in graph.nodes if node.op == "MatMul"]
    assert [tensor.shape[1:] for tensor in product.inputs] == [[5, 4], [4, 5]]
    assert graph.outputs[0].shape[1:] == [2, 5, 5]
    assert_same(outputs_of(b.model(), x=x), outputs_of(graph, x=x))


def shuffled(blocks):
    """Blocks that take the first half of the channels twice, all sizes computed, and mix them."""
    b, last = Builder((4, 3)), "x"

    def size(of, axis):
        return b.op("Gather", b.op("Shape", of), b.constant([axis], np.int64), axis=0)

    zero, ones, two = (b.constant([number], np.int64) for number in range(3))
    for _ in range(blocks):
        half = b.op("Div", size(last, 1), two)
        first = b.op("Slice", last, zero, half, ones)
        both = b.op("Concat", first, b.op("Relu", first), axis=1)
        n, c, length = (size(both, axis) for axis in range(3))
        pairs = b.op("Concat", n, two, b.op("Div", c, two), length, axis=0)
        mixed = b.op("Transpose", b.op("Reshape", both, pairs), perm=[0, 2, 1, 3])
        last = b.op("Reshape", mixed, b.op("Concat", n, c, length, axis=0))
    return b


def test_what_is_behind_a_slice_is_known_once_its_bounds_are():
    b, x = shuffled(3), uniform(2, 4, 3)
    graph, _ = clean(b.graph())
    assert "Shape" not in operators(graph)
    assert graph.outputs[0].shape[1:] == [4, 3]
    assert_same(outputs_of(b.model(), x=x), outputs_of(graph, x=x))


@pytest.mark.parametrize(
    ("before", "after", "target"),
    [
        (["N", 17, 64], ["N", 17, "?", 16], [0, 17, 4, 16]),
        (["N", "M", 6], ["M", "N", "?", 3], None),
        (["N", "M", 6], ["N", "?", 2, 3], [0, 0, 2, 3]),
        (["N", 6], ["N", "?", "??", 3], None),
        (["N", 6, "M"], ["N", "M", 6], [0, -1, 6]),
        (["N", 6], ["N", "N", 6], [0, 1, 6]),
        (["N", 10], ["N", 5], None),
        ([None, 6], [None, 2, 3], [0, 2, 3]),
        ([None, 6], [None, "?", 3], None),
        (["?", 16, 12], ["N", 4, 16, 12], [-1, 4, 16, 12]),
        (["N", 4, 6], ["?", 3, 8], [0, 3, 8]),
        (["N", 4, 6], ["?", 6], [-1, 6]),
        (["N", "M", 4], ["N", 4], None),
    ],
)
def test_what_is_known_of_a_reshape(before, after, target):
    assert _reshape(_distinct(before), _distinct(after)) == target


@pytest.mark.parametrize(
    ("before", "after", "target"),
    [
        (["N", 2, 1, 5], ["N", 2, 3, 5], [1, 1, 3, 1]),
        (["N", 5], [3, "N", 5], [3, 1, 1]),
        ([1, 5], ["N", 3, 5], None),
        (["?", 1], ["N", 4], None),
        ([None, 1], [None, 4], None),
    ],
)
def test_what_is_known_of_an_expand(before, after, target):
    assert _expand(_distinct(before), _distinct(after)) == target


def test_an_expand_keeps_the_batch_that_it_reads():
    b, x = Builder((1, 4)), uniform(3, 1, 4)
    bounds = (b.constant([v], np.int64) for v in (0, 1, 0))
    first = b.op("Slice", b.op("Shape", "x"), *bounds)
    b.op("Expand", "x", b.op("Concat", first, b.constant([5, 4], np.int64), axis=0))
    graph, _ = clean(b.graph())
    assert operators(graph) == ["Expand"]
    assert_same(outputs_of(b.model(), x=x), outputs_of(graph, x=x))


@pytest.mark.parametrize("sizes", [[0, -1], [-1, 48], [2, 3, 16]])
def test_a_constant_target_stays_unless_more_is_known(sizes):
    b, x = Builder((3, 4, 4)), uniform(2, 3, 4, 4)
    b.op("Reshape", "x", b.constant(sizes, np.int64))
    graph = b.graph()
    changed = -1 in sizes
    assert fix_targets(graph) == changed
    assert constant(graph.nodes[-1].inputs[1]).tolist() == ([0, 48] if changed else sizes)
    assert not fix_targets(graph)
    assert_same(outputs_of(b.model(), x=x), outputs_of(graph, x=x))


def test_a_target_that_nothing_more_is_known_of_is_left():
    b = Builder(("M", 4))
    b.op("Reshape", "x", b.constant([0, -1], np.int64))
    assert not fix_targets(b.graph())


def test_an_output_that_is_named_as_the_batch_is_not_taken_for_it():
    b, x = Builder((2, 3)), uniform(4, 2, 3)
    b.op("Reshape", b.relu(), b.constant([-1, 3], np.int64))
    model = b.model()
    first, second = model.graph.output[0].type.tensor_type.shape.dim
    first.dim_param, second.dim_value = "N", 3
    graph, _ = clean(from_model(model))
    assert_same(outputs_of(b.model(), x=x), outputs_of(graph, x=x))


def test_sizes_are_followed_by_name():
    b = Builder((3, "H"))
    shape = b.op("Shape", "x")
    last = b.op("Gather", shape, b.constant(2, np.int64))
    last = b.op("Unsqueeze", last, b.constant([0], np.int64))
    both = b.op("Concat", b.op("Shape", "x", end=2), b.constant([-1], np.int64), last, axis=0)
    b.op("Reshape", "x", both)
    more = b.op("Mul", last, b.constant([2], np.int64))
    b.op("ConstantOfShape", more)
    tensors = b.graph().tensors()
    assert sizes_of(tensors[shape]).tolist() == ["N", 3, "H"]
    assert sizes_of(tensors[both]).tolist() == ["N", 3, -1, "H"]
    assert sizes_of(tensors[more]) is None
    assert sizes_of(tensors["x"]) is None


def test_sizes_are_followed_through_slices_of_any_step():
    b = Builder((3, 5, 7))
    bounds = (b.constant([v], np.int64) for v in (1, 4, 0, 2))
    some = b.op("Slice", b.op("Shape", "x"), *bounds)
    b.op("ConstantOfShape", some)
    assert sizes_of(b.graph().tensors()[some]).tolist() == [3, 7]


def expanded(*sizes):
    """A vector as a token in front of x, as PyTorch's older exporter writes token.expand(sizes)."""
    b = Builder((5, 4))
    batch = b.op("Gather", b.op("Shape", "x"), b.constant(0, np.int64))
    batch = b.op("Unsqueeze", batch, b.constant([0], np.int64))
    rest = [b.constant([size], np.int64) for size in sizes]
    asked = b.op("Concat", batch, *rest, axis=0)
    asked = b.op("Reshape", asked, b.constant([-1], np.int64))
    left_alone = b.op("Equal", asked, b.constant([-1, -1, -1], np.int64))
    target = b.op("Where", left_alone, b.constant([1, 1, 1], np.int64), asked)
    b.op("Concat", b.op("Expand", b.normal(1, 1, 4), target), "x", axis=1)
    return b


@pytest.mark.parametrize(("sizes", "tokens"), [((-1, -1), 1), ((2, -1), 2)])
def test_axes_that_an_expand_leaves_alone_are_known(sizes, tokens):
    b, x = expanded(*sizes), uniform(3, 5, 4)
    graph, _ = clean(b.graph())
    (expand,) = (node for node in graph.nodes if node.op == "Expand")
    assert expand.outputs[0].shape == ["N", tokens, 4]
    assert_same(outputs_of(b.model(), x=x), outputs_of(graph, x=x))


@pytest.mark.parametrize("asked", [0, 3])
def test_a_choice_that_the_batch_decides_stays(asked):
    b = Builder((5, 4))
    shape = b.op("Shape", "x")
    same = b.op("Equal", shape, b.constant([asked, 5, 4], np.int64))
    b.op("Expand", "x", b.op("Where", same, b.constant([3, 1, 1], np.int64), shape))
    graph, _ = clean(b.graph())
    assert "Where" in operators(graph)


def tiled(token, x=(5, 4)):
    """A token for each sample, as PyTorch's exporters write token.repeat(samples, 1, 1)."""
    b = Builder(x)
    batch = b.op("Gather", b.op("Shape", "x"), b.constant(0, np.int64))
    batch = b.op("Unsqueeze", batch, b.constant([0], np.int64))
    times = b.op("Concat", batch, b.constant([1], np.int64), b.constant([1], np.int64), axis=0)
    b.op("Concat", b.op("Tile", b.normal(*token), times), "x", axis=1)
    return b


def test_a_token_that_is_repeated_for_each_sample_is_expanded():
    b, x = tiled((1, 2, 4)), uniform(3, 5, 4)
    graph, _ = clean(b.graph())
    (expand,) = (node for node in graph.nodes if node.op == "Expand")
    assert expand.outputs[0].shape == ["N", 2, 4]
    assert_same(outputs_of(b.model(), x=x), outputs_of(graph, x=x))


def test_sizes_are_known_behind_a_token_that_is_repeated_for_each_sample():
    """Attention, as PyTorch's older exporter writes it, cuts its weights by them."""
    b, x = tiled((1, 2, 4)), uniform(3, 5, 4)
    tokens = b.last
    width = b.op("Gather", b.op("Shape", tokens), b.constant([2], np.int64))
    bounds = b.constant([0], np.int64), width, b.constant([1], np.int64)
    b.op("MatMul", tokens, b.op("Slice", b.normal(4, 12), *bounds))
    graph, _ = clean(b.graph())
    assert "Slice" not in operators(graph)
    assert_same(outputs_of(b.model(), x=x), outputs_of(graph, x=x))


def test_what_has_several_values_is_tiled():
    graph, _ = clean(tiled((2, 2, 4)).graph())
    assert "Tile" in operators(graph)
