"""Clipping: what thresholds clip, of all data and of what data do not show."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxsnn.calibration.clipping import Clipping, unseen
from onnxsnn.calibration.statistics import ChannelStatistics
from onnxsnn.neurons import IntegrateAndFire
from onnxsnn.thresholds import fit

OPEN = np.array(np.inf)


def observed(values, signed=False):
    statistics = ChannelStatistics(len(values), signed)
    statistics.update(values)
    return statistics


def normal(channels, samples, seed=0):
    return np.random.default_rng(seed).normal(0, 1, (channels, samples)).astype(np.float32)


def seen_error(values, greatest):
    return np.square(np.maximum(values - greatest[:, None], 0)).mean(axis=1)


@given(seed=st.integers(0, 99), part=st.floats(0.05, 1.5), signed=st.booleans())
def test_of_many_samples_it_is_what_is_clipped_of_them_up_to_a_bin(seed, part, signed):
    values = normal(3, 20_000, seed) * np.float32([[0.1], [1], [30]])
    counted = np.abs(values) if signed else values
    greatest = part * values.max(axis=1)
    found = Clipping.of(observed(values, signed), OPEN).error(greatest)
    expected = seen_error(counted, greatest)
    np.testing.assert_allclose(found, expected, rtol=0.02, atol=1e-4 * values.max() ** 2)


def test_one_more_value_of_an_exponential_tail_counts_by_its_weight():
    """Where a tenth of the values is in the tail, of which they tell a great deal."""
    random = np.random.default_rng(0)
    values = 2 + random.exponential(0.5, (1, 10_000))
    statistics = observed(values)
    highest = values.max()
    for threshold in (highest - 1, highest, highest + 0.7):
        drawn = highest + random.exponential(0.5, 10**6)
        expected = 0.3 * np.square(np.maximum(drawn - threshold, 0)).mean()
        assert unseen(statistics, np.array([[threshold]])) == pytest.approx(expected, rel=0.3)


def test_what_the_activation_clips_itself_is_not_clipped_by_a_threshold():
    values, limit = normal(2, 5_000), np.array([1.0, 10.0])
    clipping = Clipping.of(observed(values), limit)
    assert clipping.error(np.array([1.0, 1.0]))[0] < 1e-12
    assert clipping.error(np.array([0.5, 0.5]))[0] == pytest.approx(
        seen_error(np.minimum(values, 1), np.array([0.5, 0.5]))[0], rel=0.02
    )
    assert clipping.error(np.array([1.0, 1.0]))[1] > 0.05


def test_above_what_an_activation_clips_itself_nothing_is_clipped():
    """The greatest value is not in the middle of its bin."""
    statistics = observed(np.full((1, 100), 3.9))
    greatest = 3.9 + statistics.width / 20
    assert Clipping.of(statistics, np.array(3.9)).error(greatest) < 1e-10


def test_channels_can_be_taken_apart():
    clipping, greatest = Clipping.of(observed(normal(4, 500)), OPEN), np.array([0.2, 1, 3, 5])
    for c in range(4):
        rows = slice(c, c + 1)
        assert clipping[rows].error(greatest[rows]) == clipping.error(greatest)[rows]


def test_a_channel_that_is_never_active_clips_nothing():
    assert Clipping.of(observed(-np.ones((1, 50))), OPEN).error(np.array([0.3])) == 0


@pytest.mark.parametrize(("samples", "lowest", "highest"), [(24, 1.1, 2.0), (10**6, 0.8, 1.0)])
def test_thresholds_for_many_steps_leave_room_above_few_samples(samples, lowest, highest):
    values = np.abs(normal(1, samples))
    theta = fit(observed(values), IntegrateAndFire(), 256)[0]
    assert lowest < theta / values.max() < highest


def test_thresholds_for_few_steps_do_not():
    values = np.abs(normal(1, 24))
    assert fit(observed(values), IntegrateAndFire(), 2)[0] < values.max()
