"""A Gather that takes all of a flat tensor in order goes, and no other."""

import numpy as np
import pytest

from onnxsnn.passes.clean import clean
from tests.models import Builder, assert_same, outputs_of, uniform


def strided(change=lambda _b, indices: indices, shape=(4, 1, 1)):
    """The mean over each map, as PyTorch exports it from a tensor whose channels came last."""
    b = Builder((4, 6, 6))
    mean = b.op("ReduceMean", b.relu(), axes=[2, 3], keepdims=1)
    samples = b.op("Squeeze", b.op("Shape", "x", end=1), b.constant([0], np.int64))
    rows = b.op("Range", b.constant(0, np.int64), samples, b.constant(1, np.int64))
    rows = b.op("Mul", rows, b.constant(4, np.int64))
    rows = b.op("Unsqueeze", rows, b.constant(np.arange(1, len(shape) + 1), np.int64))
    indices = b.op("Add", rows, b.constant(np.arange(4).reshape(shape), np.int64))
    indices = change(b, indices)
    b.op("Gather", b.op("Reshape", mean, b.constant([-1], np.int64)), indices)
    return b


def check(b, expected, shape=(4, 6, 6)):
    graph, report = clean(b.graph())
    assert [node.op for node in graph.nodes].count("Gather") == 1 - expected
    assert report.actions["Gather of all in order removed"] == expected
    for samples in (1, 3, 5):
        x = uniform(samples, *shape)
        assert_same(outputs_of(b.model(), x=x), outputs_of(graph, x=x))


def test_all_in_order_is_what_there_was():
    check(strided(), 1)


def test_another_shape_stays():
    check(strided(shape=(2, 2)), 0)


@pytest.mark.parametrize(
    "change",
    [
        lambda b, indices: b.op("Abs", b.op("Sub", indices, b.constant(1, np.int64))),
        lambda b, indices: b.op("Add", indices, still(b)),
    ],
    ids=["another order", "an order that depends on values"],
)
def test_another_order_stays(change):
    check(strided(change), 0)


def test_samples_and_channels_that_change_places_stay():
    """Where there are as many samples as channels, the indices are those of all in order."""
    b = Builder((3,))
    flat = b.op("Reshape", b.relu(), b.constant([-1], np.int64))
    samples, three = b.op("Shape", "x", end=1), b.constant([3], np.int64)
    count = b.op("Squeeze", b.op("Mul", samples, three))
    indices = b.op("Range", b.constant(0, np.int64), count, b.constant(1, np.int64))
    b.op("Gather", flat, b.op("Reshape", indices, b.op("Concat", three, samples, axis=0)))
    check(b, 0, shape=(3,))


def still(b):
    """0 where the input is 0, and for all inputs up to 1."""
    return b.op("Cast", b.op("Clip", b.op("Slice", "x", *(
        b.constant(v, np.int64) for v in ([0, 0, 0], [9, 1, 1], [1, 2, 3])
    )), b.constant(0.0), b.constant(0.5)), to=7)  # fmt: skip
