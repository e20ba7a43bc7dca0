"""Threshold methods: what each promises, on distributions whose answer is known."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxsnn.calibration.statistics import ChannelStatistics
from onnxsnn.neurons import (
    BurstIntegrateAndFire,
    IntegrateAndFire,
    MultiThreshold,
    TernaryIntegrateAndFire,
)
from onnxsnn.thresholds import METHODS, balance, bound, fit, gaussian, maximum, percentile

NEURON = IntegrateAndFire()


def observed(*channels, signed=False):
    statistics = ChannelStatistics(len(channels), signed)
    statistics.update(np.array(channels, np.float32))
    return statistics


def normal(mean=0.0, std=1.0, count=20000, seed=0):
    return np.random.default_rng(seed).normal(mean, std, count)


def error(values, theta, timesteps, neuron=NEURON):
    activation = np.maximum(values, 0)
    response = neuron.response(activation, np.asarray(theta), timesteps)
    return float(np.mean((response - activation) ** 2))


def test_max_is_the_greatest_activation():
    np.testing.assert_allclose(maximum(observed([1.0, 3.0], [-1.0, 0.5]), NEURON, 8), [3.0, 0.5])


@pytest.mark.parametrize("neuron", [IntegrateAndFire(), MultiThreshold(8), MultiThreshold(9)])
def test_max_clips_nothing_whatever_the_largest_spike(neuron):
    statistics = observed([0.5, 2.0, 0.0])
    thresholds = METHODS["max"](statistics, neuron, 4)
    assert thresholds * min(neuron.greatest_spike, 1.0) == pytest.approx([2.0])
    for name in ("percentile", "bound", "balance"):
        binary = METHODS[name](statistics, IntegrateAndFire(), 4)
        assert METHODS[name](statistics, neuron, 4) * neuron.greatest_spike == pytest.approx(binary)


def test_percentile_counts_zeros():
    values = np.concatenate([np.zeros(9000), np.linspace(0, 1, 1000)])
    assert percentile(observed(values), NEURON, 8)[0] == pytest.approx(0.99, abs=0.003)


@settings(max_examples=30)
@given(st.integers(0, 100), st.floats(-1, 3))
def test_percentile_is_numpy_s_up_to_a_bin(seed, mean):
    values = normal(mean, seed=seed)
    statistics = observed(values)
    low, high = (np.percentile(np.maximum(values, 0), 99.9, method=m) for m in ("lower", "higher"))
    width = statistics.width[0]
    assert low - width <= percentile(statistics, NEURON, 8)[0] <= high + width


def test_percentile_of_a_rare_channel_is_its_maximum():
    values = np.full(10000, -1.0)
    values[3] = 2.0
    assert percentile(observed(values), NEURON, 8)[0] == pytest.approx(2.0)


def test_percentile_is_no_more_than_the_greatest_value():
    statistics = observed(np.full(5000, 3.9))
    assert percentile(statistics, NEURON, 4) == statistics.maximum


def test_balance_is_a_hundred_steps_on_what_is_clipped():
    values = np.maximum(normal(count=5000), 0)
    theta = 0.0
    for _ in range(100):
        theta += 2 * np.maximum(values - theta, 0).mean()
    assert balance(observed(values), NEURON, 8)[0] == pytest.approx(theta, rel=0.01)
    assert theta < values.max()


@pytest.mark.parametrize("timesteps", [1, 2, 4, 8, 32])
@pytest.mark.parametrize("v0", [0.0, 0.5])
def test_fit_has_the_least_error_of_any_threshold(timesteps, v0):
    values, neuron = normal(), IntegrateAndFire(v0)
    theta = fit(observed(values), neuron, timesteps)[0]
    grid = np.linspace(0.05, 1.0, 200) * values.max()
    best = min(error(values, candidate, timesteps, neuron) for candidate in grid)
    assert error(values, theta, timesteps, neuron) <= best * 1.02


def test_fit_grows_with_the_number_of_timesteps():
    statistics = observed(normal())
    thetas = [fit(statistics, NEURON, timesteps)[0] for timesteps in (1, 2, 4, 8, 16, 64)]
    assert thetas == sorted(thetas)


def test_fit_is_per_channel_and_scales_with_the_activation():
    values = normal()
    thetas = fit(observed(values, 8 * values), NEURON, 8)
    assert thetas[1] == pytest.approx(8 * thetas[0], rel=0.02)


def test_fit_of_two_levels_is_the_upper_one():
    assert fit(observed([0.0] * 10 + [2.0] * 10), NEURON, 1)[0] == pytest.approx(2.0, rel=0.02)


def test_fit_knows_that_bursts_emit_what_was_not_seen():
    """What data do not show needs no room that several spikes a step have anyway."""
    statistics = observed(np.random.default_rng(0).exponential(1.0, 40))
    assert fit(statistics, BurstIntegrateAndFire(levels=4), 32)[0] < statistics.maximum[0]


@pytest.mark.parametrize("timesteps", [2, 8, 32])
def test_bound_minimises_clipping_plus_two_omega_over_t(timesteps):
    values = np.maximum(normal(), 0)

    def total(theta):
        rates = np.minimum(values / theta, 1)
        clipping = np.sum((theta * rates - values) ** 2) / np.sum(values**2)
        return clipping + 2 * rates.sum() / (rates**2).sum() / timesteps

    theta = bound(observed(values), NEURON, timesteps)[0]
    best = min(total(candidate) for candidate in np.linspace(0.05, 1, 200) * values.max())
    assert total(theta) <= best * 1.02


@pytest.mark.parametrize(("mean", "std"), [(0.0, 1.0), (0.5, 0.3), (-0.5, 2.0)])
@pytest.mark.parametrize("timesteps", [2, 8])
def test_gaussian_is_fit_where_activations_are_normal(mean, std, timesteps):
    values = normal(mean, std, 200_000)
    statistics = observed(values)
    theta = gaussian(statistics, NEURON, timesteps)[0]
    least = error(values, fit(statistics, NEURON, timesteps)[0], timesteps)
    assert error(values, theta, timesteps) == pytest.approx(least, rel=0.05)


def dcgs(mean, std, levels, iterations=500):
    """Huang et al. 2025 (DCGS): the fixed point for even levels."""
    theta = mean + 3 * std
    erf = np.vectorize(math.erf)
    i = np.arange(1, levels + 1)
    for _ in range(iterations):
        c = ((2 * i - 1) * theta / (2 * levels) - mean) / (np.sqrt(2) * std)
        below = 1 - np.sum((2 * i - 1) * erf(c)) / levels**2
        density = std * np.sqrt(2 / np.pi) * np.mean(np.exp(-(c**2)))
        theta = (mean * (1 - erf(c).mean()) + density) / below
    return theta


@pytest.mark.parametrize("levels", [2, 4, 8])
def test_gaussian_finds_the_fixed_point_of_dcgs(levels):
    statistics = observed(normal(0.2, 1.0, 200_000))
    ours = gaussian(statistics, NEURON, levels)[0]
    assert ours == pytest.approx(dcgs(statistics.mean[0], statistics.std[0], levels), rel=0.03)


def test_gaussian_is_the_same_of_values_whose_sign_is_turned():
    values = normal(-1.0, 0.5)
    one, other = (
        gaussian(observed(sign * values, signed=True), TernaryIntegrateAndFire(), 8)
        for sign in (1, -1)
    )
    np.testing.assert_allclose(one, other, rtol=0.02)


def test_gaussian_counts_magnitudes_of_either_sign():
    """Of a mean of 0 both tails are as long; a mean beside it leaves one the shorter."""
    values = normal(0.5)
    both_tails = gaussian(observed(values, signed=True), TernaryIntegrateAndFire(), 4)
    assert both_tails < gaussian(observed(values), NEURON, 4)


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
@settings(max_examples=30)
@given(seed=st.integers(0, 1000), timesteps=st.integers(1, 64))
def test_every_method_gives_positive_thresholds_within_reach(method, seed, timesteps):
    values = np.random.default_rng(seed).normal(0, 1, (3, 200)) * [[0.01], [1.0], [100.0]]
    statistics = observed(*values)
    thetas = method(statistics, NEURON, timesteps)
    assert np.all(thetas > 0)
    assert np.all(np.isfinite(thetas))
