"""pooling_sizes: what onnx infers of poolings that round up is what ONNX Runtime gives."""

import pytest

from onnxsnn.passes.clean import clean
from tests.models import Builder, assert_same, outputs_of, uniform


@pytest.mark.parametrize("operator", ["AveragePool", "MaxPool"])
@pytest.mark.parametrize(("size", "taps", "pad"), [(5, 2, 1), (4, 1, 0), (6, 3, 1), (7, 2, 0)])
def test_sizes_of_poolings_that_round_up_are_right(operator, size, taps, pad):
    """A window that would begin behind the data is none, whatever the opset."""
    b, x = Builder((2, size, size)), uniform(3, 2, size, size)
    for _ in range(2):  # the sizes of one follow from those of the other
        b.op(operator, kernel_shape=[taps] * 2, strides=[2, 2], pads=[pad] * 4, ceil_mode=1)
    expected = outputs_of(b.undeclared(), x=x)
    graph, _ = clean(b.graph())
    assert graph.outputs[0].shape == ["N", *expected[b.last].shape[1:]]
    assert_same(expected, outputs_of(graph, x=x))


@pytest.mark.parametrize("operator", ["AveragePool", "LpPool", "MaxPool"])
def test_a_pooling_that_gains_a_window_along_one_axis_becomes_two(operator):
    """What onnx infers along the other, where it gains none, would be one too many."""
    b, x = Builder((2, 6, 7), opset=19), uniform(3, 2, 6, 7)
    b.op(operator, kernel_shape=[2, 2], strides=[3, 3], ceil_mode=1)
    expected = outputs_of(b.undeclared(), x=x)
    assert expected[b.last].shape == (3, 2, 2, 3)
    graph, _ = clean(b.graph())
    assert graph.outputs[0].shape == ["N", 2, 2, 3]
    assert [node.op for node in graph.nodes] == [operator] * 2
    assert_same(expected, outputs_of(graph, x=x))


def test_a_pooling_whose_indices_are_read_stays_one():
    b, x = Builder((2, 6, 7)), uniform(3, 2, 6, 7)
    b.op("MaxPool", kernel_shape=[2, 2], strides=[3, 3], ceil_mode=1, count=2)
    indices = b.op("Identity", f"{b.last}_1")
    expected = outputs_of(b.undeclared(indices), x=x)
    graph, _ = clean(b.graph(indices))
    assert_same(expected, outputs_of(graph, x=x))
