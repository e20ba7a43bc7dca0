"""What a graph is tried on, and when it gives the same."""

import numpy as np
import pytest

from onnxsnn.trial import agree, trial_values


def test_floats_are_tried_on_fractions_and_others_on_zeros_and_ones():
    random = np.random.default_rng(0)
    fractions, bits = (trial_values(random, (5, 9), kind) for kind in (np.float32, np.int64))
    assert (fractions.dtype, bits.dtype) == (np.float32, np.int64)
    assert 0 <= fractions.min() < fractions.max() < 1
    assert len(np.unique(fractions)) == 45
    assert np.unique(bits).tolist() == [0, 1]


@pytest.mark.parametrize(
    ("other", "same"),
    [([1.0, np.nan], True), ([1.0, 2.0], False), ([1.1, np.nan], False), ([[1.0, np.nan]], False)],
)
def test_arrays_agree_in_shape_and_values_and_where_there_are_none(other, same):
    assert agree(np.array([1.0, np.nan]), np.array(other)) is same
