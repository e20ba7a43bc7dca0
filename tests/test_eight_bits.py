"""Whole weights of 8 bits, and the grid of their sums."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxsnn.eight_bits import MIDDLE, fits_byte, grid_of, whole_weights

whole_rows = st.lists(
    st.lists(st.integers(-127, 127), min_size=5, max_size=5), min_size=1, max_size=4
)


@given(whole_rows, st.floats(1e-3, 1e3))
def test_multiples_of_one_number_are_kept(rows, unit):
    weights = np.array(rows) * unit
    whole, scale = whole_weights(weights.astype(np.float32))
    np.testing.assert_allclose(whole * scale[:, None], weights, rtol=1e-5, atol=1e-6 * unit)


def test_other_weights_are_rounded_by_half_a_step_at_most():
    weights = np.random.default_rng(0).normal(size=(8, 50)).astype(np.float32)
    whole, scale = whole_weights(weights)
    assert whole.dtype == np.int8
    np.testing.assert_allclose(scale, np.abs(weights).max(axis=1) / 127)
    assert np.all(np.abs(whole * scale[:, None] - weights) <= 0.5001 * scale[:, None])


def test_a_channel_without_weights_has_a_scale():
    whole, scale = whole_weights(np.zeros((2, 3), np.float32))
    assert not whole.any()
    assert np.all(scale > 0)


@given(whole_rows, st.integers(-2, 0), st.integers(1, 4), st.integers(0, 1000))
def test_sums_that_fit_into_a_byte_are_exact(rows, least, most, seed):
    weights = np.sign(rows) * np.minimum(np.abs(rows), 8)
    grid = grid_of(weights, least, most, (np.zeros(len(rows)), np.zeros(len(rows))))
    np.testing.assert_array_equal(grid.step, 1)
    spikes = np.random.default_rng(seed).choice([least, most], (50, 5))
    sums = spikes @ weights.T
    byte = MIDDLE + grid.shift + sums
    assert byte.min() >= 0
    assert byte.max() <= 255


@pytest.mark.parametrize(("low", "high"), [(-3000, 5000), (0, 9000), (-7000, -100), (-300, 200)])
def test_wide_sums_get_the_finest_steps_that_hold_what_was_seen(low, high):
    weights = np.full((1, 200), 127) * np.resize([1, -1], 200)
    grid = grid_of(weights, 0, 1, (np.array([low]), np.array([high])))
    seen = np.array([min(low, 0), max(high, 0)])
    byte = MIDDLE + grid.shift + seen / grid.step
    assert byte.min() >= -0.5
    assert byte.max() <= 255.5
    assert np.ptp(seen) / (grid.step - 1) > 255


@given(whole_rows, st.integers(-2, 0), st.integers(1, 4), st.integers(0, 300))
def test_sums_fit_where_bytes_give_all_of_them_back(rows, least, most, seen):
    weights = np.array(rows)
    grid = grid_of(weights, least, most, (np.full(len(rows), -seen), np.full(len(rows), seen)))
    spikes = np.array([*product([least, most], repeat=5)])  # the extreme sums are among these
    sums = spikes @ weights.T
    wire = np.clip(MIDDLE + grid.shift + np.rint(sums / grid.step), 0, 255)
    is_same = np.array_equal((wire - MIDDLE - grid.shift) * grid.step, sums)
    assert fits_byte(weights, least, most, grid) <= is_same
    if np.all(grid.step == 1):
        assert fits_byte(weights, least, most, grid) == is_same
