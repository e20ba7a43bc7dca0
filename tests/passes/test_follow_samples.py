"""follow_samples: samples are found where a Reshape of all of them puts each."""

from itertools import pairwise
from math import prod

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxsnn.passes.follow_samples import FollowedSamples, Place, place_among
from tests.models import Builder, uniform


def together(samples, place):
    """Samples in one array, where they lie on an axis, with others or not."""
    shape = samples[0].shape
    apart = (*shape[: place.axis], -1, place.inner, *shape[place.axis + 1 :])
    stacked = np.stack([sample.reshape(apart) for sample in samples], place.axis + 1)
    return stacked.reshape(*shape[: place.axis], -1, *shape[place.axis + 1 :])


factors = st.lists(st.sampled_from([1, 2, 3]), min_size=1, max_size=6)


@st.composite
def reshapes(draw):
    """Two shapes of the same values, and a place in the first."""
    product = draw(factors)
    shapes = []
    for _ in range(2):
        cuts = draw(st.sets(st.integers(1, len(product)), max_size=3))
        edges = [0, *sorted(cuts), len(product)]
        shapes.append([prod(product[a:b]) for a, b in pairwise(edges)])
    axis = draw(st.integers(0, len(shapes[0]) - 1))
    inner = draw(st.sampled_from([n for n in (1, 2, 3, 6) if shapes[0][axis] % n == 0]))
    return *shapes, Place(axis, inner)


@given(reshapes())
def test_samples_are_where_a_reshape_of_all_puts_each(drawn):
    before, after, place = drawn
    behind = place.inner * prod(before[place.axis + 1 :])
    found = place_among(after, behind, place.axis)
    if found is None:
        return
    of_seven = [7 * size if axis == found.axis else size for axis, size in enumerate(after)]
    assert place_among(of_seven, behind, place.axis, 7) == found
    samples = [sample.reshape(before) for sample in uniform(2, prod(before))]
    target = [-1 if axis == found.axis else size for axis, size in enumerate(after)]
    expected = together([sample.reshape(after) for sample in samples], found)
    np.testing.assert_array_equal(together(samples, place).reshape(target), expected)


@given(st.lists(st.integers(1, 4), min_size=1, max_size=4))
def test_samples_in_front_have_a_place_in_every_shape(sizes):
    assert place_among(sizes, prod(sizes), 0) is not None


def test_they_are_beside_what_follows_but_for_channels():
    assert place_among([7, 4, 8], 32, 1) == Place(1, 4)
    assert place_among([7, 32], 32, 1) == Place(0)
    assert place_among([7, 1, 32], 32, 1) == Place(1)
    assert place_among([64, 49, 3], 64 * 49 * 3, 0) == Place(0, 64)
    assert place_among([12, 2], 4, 0) == Place(0, 2)
    assert place_among([3, 5], 2, 0) is None


@pytest.mark.parametrize("batch", [1, 3])
def test_samples_are_followed_through_a_graph(batch):
    b = Builder((4, 6), batch=batch)
    moved = b.op("Transpose", perm=[1, 0, 2])
    product = b.op("MatMul", b.last, b.normal(6, 5))
    total = b.op("ReduceSum", b.last, b.constant([1], np.int64), keepdims=0)
    graph = b.graph()
    samples = FollowedSamples(graph, batch)
    for node in graph.nodes:
        samples.follow(node)
    tensors = graph.tensors()
    assert samples.place(tensors["x"]) == Place(0)
    assert samples.place(tensors[moved]) == samples.place(tensors[product]) == Place(1)
    assert samples.place(tensors[total]) is None
