"""Neurons fitted to the currents that really arrive, by running them.

A static response knows what arrives on average, and not when: a current that comes in uneven
pieces makes a neuron fire too early, which no later current takes back, or too late, when no
steps are left. Here, a layer's neurons are run on samples of their currents, with what a
channel can be given without touching what a neuron is:

    threshold theta,  initial potential v_0,  a bias current b,  a scale of what it emits

and each channel keeps what brings its mean emission nearest to the ANN's activation. It is
the search for thresholds of least squared error (Li et al., ICML 2021, section 4.1) and their
correction of biases and potentials (section 4.2) in one, on currents as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from onnxsnn.arrays import Floats
from onnxsnn.neurons import Neuron

__all__ = ["Fit", "fit_neurons"]

_AMOUNTS = (-1.0, -0.75, -0.5, -0.25, 0.25, 0.5, 0.75, 1.0)
_GREATEST_BIAS = 0.3  # in thresholds per step
_PRIOR = 1.0  # weight of the threshold as the scale: one observation at the full rate


@dataclass(frozen=True)
class Fit:
    """What the neurons of a layer are given, by channel, [C] each.

    Attributes:
        threshold: theta, in units of the activation.
        potential: v_0, in units of the activation.
        bias: a current in every step, in units of the activation.
        scale: what a spike is worth to those that read it, in units of the activation.
    """

    threshold: Floats
    potential: Floats
    bias: Floats
    scale: Floats


def fit_neurons(
    currents: Floats,
    target: Floats,
    start: Fit,
    neuron: Neuron,
    reaches: Sequence[float],
    *,
    thresholds: bool = True,
) -> Fit:
    """The fit of least squared error that a pattern search finds from `start`, by channel.

    Args:
        currents: samples of what arrives in each step, [T, C, samples].
        target: what the ANN's activation is there, [C, samples].
        start: where the search starts; no channel's error ends above its error there.
        neuron: the neuron that will run.
        reaches: of the rounds of the search; the steps of a round are a quarter of its reach.
        thresholds: whether thresholds may change too.
    """
    knobs = _KNOBS if thresholds else _KNOBS[1:]
    best, error = _tried(start, currents, target, neuron, rescale=False)
    for reach in reaches:
        for turn in knobs:
            origin = best
            for amount in _AMOUNTS:
                candidate = turn(origin, amount * reach, len(currents))
                candidate, found = _tried(candidate, currents, target, neuron)
                best = _chosen(found < error, candidate, best)
                error = np.minimum(found, error)
    return best


def _turn_threshold(fit: Fit, amount: float, _: int) -> Fit:
    """By up to a factor of two; the potential stays the same fraction of it."""
    factor = 2.0**amount
    return replace(fit, threshold=fit.threshold * factor, potential=fit.potential * factor)


def _turn_potential(fit: Fit, amount: float, _: int) -> Fit:
    return replace(fit, potential=fit.potential + amount * fit.threshold)


def _turn_bias(fit: Fit, amount: float, _: int) -> Fit:
    return replace(fit, bias=fit.bias + amount * _GREATEST_BIAS * fit.threshold)


def _delay(fit: Fit, amount: float, timesteps: int) -> Fit:
    """Less potential and more bias, or the reverse: later spikes, and about as many."""
    bias = amount * fit.threshold / timesteps
    return replace(fit, bias=fit.bias + bias, potential=fit.potential - bias * timesteps / 2)


_KNOBS: tuple[Callable[[Fit, float, int], Fit], ...] = (
    _turn_threshold,
    _turn_potential,
    _turn_bias,
    _delay,
)


def _tried(
    fit: Fit, currents: Floats, target: Floats, neuron: Neuron, *, rescale: bool = True
) -> tuple[Fit, Floats]:
    """The fit with its best scale, and its mean squared error, [C]."""
    rates = _mean_spikes(fit, currents, neuron)
    if rescale:
        squares = np.square(rates).sum(axis=1) + _PRIOR
        scale = ((rates * target).sum(axis=1) + _PRIOR * fit.threshold) / squares
        fit = replace(fit, scale=np.where(scale > 0, scale, fit.threshold))
    error: Floats = np.square(fit.scale[:, None] * rates - target).mean(axis=1)
    return fit, error


def _mean_spikes(fit: Fit, currents: Floats, neuron: Neuron) -> Floats:
    """Mean spikes per step, [C, samples], of neurons that are run on the currents."""
    threshold, bias = fit.threshold[:, None], fit.bias[:, None]
    shape = currents.shape[1:]
    states = [np.zeros(shape, currents.dtype) for _ in neuron.states]
    states[0] += fit.potential[:, None]
    total = np.zeros(shape, currents.dtype)
    for current in currents:
        spikes, *states = neuron.step(current + bias, threshold, *states)
        total += spikes
    return total / len(currents)


def _chosen(better: npt.NDArray[np.bool_], candidate: Fit, best: Fit) -> Fit:
    """By channel, the candidate where it is better."""
    pairs = {name: (value, getattr(best, name)) for name, value in vars(candidate).items()}
    return Fit(**{name: np.where(better, *values) for name, values in pairs.items()})
