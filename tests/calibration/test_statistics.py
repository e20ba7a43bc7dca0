"""ChannelStatistics: streaming, growing, merging, and exact about what it counts."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from onnxsnn.calibration.statistics import BINS, ChannelStatistics
from onnxsnn.errors import DataError


def observed(values, batches=1, signed=False):
    statistics = ChannelStatistics(len(values), signed)
    for batch in np.array_split(np.asarray(values, np.float32), batches, axis=1):
        statistics.update(batch)
    return statistics


def test_maximum_total_and_moments_are_exact():
    values = np.random.default_rng(0).normal(1.0, 2.0, (3, 500)).astype(np.float32)
    statistics = observed(values, batches=7)
    np.testing.assert_allclose(statistics.maximum, values.max(axis=1))
    np.testing.assert_allclose(statistics.mean, values.mean(axis=1), rtol=1e-5)
    np.testing.assert_allclose(statistics.std, values.std(axis=1), rtol=1e-4)
    assert statistics.total == 500


def test_positive_values_are_counted_and_others_are_not():
    statistics = observed([[1.0, 0.0, -1.0, 2.0]])
    assert statistics.counts.sum() == 2
    assert statistics.total == 4


def test_range_grows_by_powers_of_two_and_keeps_what_was_counted():
    statistics = observed([[0.001, 1000.0]], batches=2)
    assert statistics.counts.sum() == 2
    assert statistics.width[0] * BINS > 1000.0 >= statistics.width[0] * BINS / 2
    assert np.log2(statistics.width[0]) % 1 == 0


def test_a_channel_without_positive_values_is_not_active():
    statistics = observed([[-1.0, 0.0], [1.0, 2.0]])
    np.testing.assert_array_equal(statistics.active, [False, True])
    assert statistics.maximum[0] == 0


def test_a_channel_may_wake_up_late():
    statistics = observed([[-1.0, 5.0]], batches=2)
    assert statistics.active[0]
    assert statistics.counts.sum() == 1


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("value", [1e-45, 1e-30, 1e30])
def test_values_of_any_size_are_counted_beside_others(value):
    statistics = observed([[value, -1e30], [1.0, -1.0]])
    assert statistics.counts.sum(axis=1).tolist() == [1, 1]
    assert statistics.width[0] * BINS > value


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e37])
def test_values_that_overflow_or_would_when_summed_are_refused(value):
    with pytest.raises(DataError, match="overflow or are NaN"):
        observed([[1.0, value]])


samples = hnp.arrays(
    np.float32,
    st.tuples(st.integers(1, 4), st.integers(1, 60)),
    elements=st.floats(-1e6, 1e6, width=32, allow_subnormal=False),
)


@given(samples, st.integers(2, 6))
def test_batches_add_up_to_the_whole(values, batches):
    whole, parts = observed(values), observed(values, min(batches, values.shape[1]))
    np.testing.assert_array_equal(whole.counts, parts.counts)
    np.testing.assert_array_equal(whole.exponent, parts.exponent)


@given(samples)
def test_every_value_lies_within_a_bin_of_its_centre(values):
    statistics = observed(values)
    for channel, row in enumerate(values):
        positive = np.sort(row[row > 0])
        counted = np.repeat(statistics.centres[channel], statistics.counts[channel].astype(int))
        np.testing.assert_allclose(counted, positive, atol=float(statistics.width[channel]))


@given(samples)
def test_merged_counts_all_channels(values):
    layer = observed(values).merged()
    flat = observed(values.reshape(1, -1))
    np.testing.assert_array_equal(layer.counts, flat.counts)
    np.testing.assert_allclose(layer.sum, flat.sum, rtol=1e-4, atol=1e-2)
    assert layer.total == flat.total


def test_merged_counts_magnitudes_where_its_channels_do():
    layer = observed([[-3.0, 1.0], [2.0, -1.0]], signed=True).merged()
    assert layer.signed
    assert layer.counts.sum() == 4
