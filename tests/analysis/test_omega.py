"""Omega and p, from the statistics of a layer."""

import numpy as np
import pytest

from onnxsnn.analysis.omega import omega, threshold_ratio
from onnxsnn.calibration.statistics import ChannelStatistics


def observed(*channels):
    statistics = ChannelStatistics(len(channels))
    statistics.update(np.array(channels, np.float32))
    return statistics


def test_omega_is_the_ratio_of_norms_of_the_rates():
    values = np.abs(np.random.default_rng(0).normal(0, 1, (3, 5000)))
    threshold = np.array([0.5, 1.0, 2.0])
    rates = np.minimum(values / threshold[:, None], 1)
    expected = rates.sum() / np.square(rates).sum()
    assert omega(observed(*values), threshold) == pytest.approx(expected, rel=0.01)


def test_omega_of_full_rates_is_one_and_falls_with_the_threshold():
    statistics = observed(np.linspace(0.1, 1.0, 50))
    assert omega(statistics, np.array([0.05])) == pytest.approx(1.0)
    assert omega(statistics, np.array([0.3])) < omega(statistics, np.array([1.0]))


def test_p_is_the_threshold_over_the_maximum_of_active_channels():
    statistics = observed([2.0, 1.0], [-1.0, -1.0], [4.0, 0.0])
    assert threshold_ratio(statistics, np.array([1.0, 7.0, 4.0])) == pytest.approx(0.75)


def test_layer_that_was_never_active_has_neither():
    statistics = observed([-1.0, -2.0])
    assert omega(statistics, np.ones(1)) is None
    assert threshold_ratio(statistics, np.ones(1)) is None
