"""fit_neurons: neurons fitted to currents that really arrive."""

import numpy as np
import pytest

from onnxsnn.calibration.clipping import Clipping
from onnxsnn.calibration.fitting import Fit, fit_neurons
from onnxsnn.calibration.statistics import ChannelStatistics
from onnxsnn.neurons import NEURONS, IntegrateAndFire

T = 4
REACHES = (1.0, 0.4, 0.1)


def uneven(channels=3, samples=500, seed=0, timesteps=T):
    """Currents [T, C, samples] around means, and the rectified means."""
    random = np.random.default_rng(seed)
    mean = random.normal(0, 1, (channels, samples)).astype(np.float32)
    noise = random.normal(0, 1, (timesteps, channels, samples)).astype(np.float32)
    return mean + noise - noise.mean(axis=0), np.maximum(mean, 0)


def fitted(currents, target, before, neuron, *settings, **options):
    """`fit_neurons`, where the samples are all data."""
    statistics = ChannelStatistics(len(target), signed=True)
    statistics.update(target)
    clipping = Clipping.of(statistics, np.array(np.inf))
    return fit_neurons(currents, target, clipping, before, neuron, *settings, **options)


def start(target, neuron, factor=1.0):
    theta = factor * target.max(axis=1)
    return Fit(theta, neuron.initial_potential * theta, np.zeros_like(theta), theta)


def emitted(fit, currents, neuron):
    """Mean emission by the definition of the neuron, one channel at a time."""
    result = np.zeros(currents.shape[1:])
    for c in range(currents.shape[1]):
        theta = np.float32(fit.threshold[c])
        states = [np.zeros(currents.shape[2], np.float32) for _ in neuron.states]
        states[0] += np.float32(fit.potential[c])
        for current in currents[:, c]:
            spikes, *states = neuron.step(current + np.float32(fit.bias[c]), theta, *states)
            result[c] += spikes * fit.scale[c] / len(currents)
    return result


def error(fit, currents, target, neuron):
    return np.square(emitted(fit, currents, neuron) - target).mean(axis=1)


@pytest.mark.parametrize("name", NEURONS)
def test_every_channel_of_every_neuron_ends_nearer_than_it_started(name):
    neuron = NEURONS[name]()
    currents, target = uneven()
    target = target if neuron.signed is not neuron else currents.mean(axis=0)
    before = start(np.abs(target), neuron)
    after = fitted(currents, target, before, neuron, REACHES)
    errors = [error(fit, currents, target, neuron) for fit in (before, after)]
    assert np.all(errors[1] <= errors[0] * (1 + 1e-5))
    assert errors[1].sum() < 0.9 * errors[0].sum()


def test_asked_for_neurons_are_right_early_at_little_cost_in_the_end():
    neuron = IntegrateAndFire()
    currents, target = uneven(timesteps=16)
    early, late = (
        fitted(currents, target, start(target, neuron), neuron, REACHES, anytime=anytime)
        for anytime in (True, False)
    )
    for steps in (2, 4, 8):
        errors = [error(fit, currents[:steps], target, neuron).sum() for fit in (early, late)]
        assert errors[0] < 0.85 * errors[1]
    assert error(early, currents, target, neuron).sum() < 0.01 * np.square(target).mean(1).sum()


def test_channels_are_fitted_apart():
    neuron = IntegrateAndFire()
    currents, target = uneven()
    together = fitted(currents, target, start(target, neuron), neuron, REACHES)
    for c in range(3):
        one = slice(c, c + 1)
        alone = fitted(currents[:, one], target[one], start(target[one], neuron), neuron, REACHES)
        for name, values in vars(alone).items():
            np.testing.assert_allclose(getattr(together, name)[one], values, rtol=1e-5)


def test_a_threshold_that_is_too_high_comes_down():
    neuron = IntegrateAndFire()
    currents, target = uneven()
    before = start(target, neuron, factor=4.0)
    assert np.all(fitted(currents, target, before, neuron, REACHES).threshold < before.threshold)


def test_thresholds_stay_where_they_may_not_change():
    neuron = IntegrateAndFire()
    currents, target = uneven()
    before = start(target, neuron, factor=2.0)
    after = fitted(currents, target, before, neuron, REACHES, thresholds=False)
    np.testing.assert_array_equal(after.threshold, before.threshold)
    assert np.any(after.potential != before.potential)


def test_a_channel_that_is_right_stays_as_it_is():
    """Even currents at whole levels: the static response is exact."""
    neuron = IntegrateAndFire()
    levels = np.tile(np.arange(T + 1, dtype=np.float32) / T, 100)[None]
    before = start(levels, neuron)
    after = fitted(np.stack([levels] * T), levels, before, neuron, REACHES)
    for name, values in vars(before).items():
        np.testing.assert_array_equal(getattr(after, name), values)


def test_a_channel_that_is_silent_in_the_ann_falls_silent():
    neuron = IntegrateAndFire()
    currents = np.random.default_rng(0).normal(0, 1, (T, 1, 500)).astype(np.float32)
    silent = np.zeros((1, 500), np.float32)
    fit = fitted(currents, silent, start(silent + 1, neuron), neuron, REACHES)
    assert error(fit, currents, silent, neuron) < 0.01
