"""Neurons fitted to the currents that really arrive, by running them.

A static response knows what arrives on average, and not when: a current that comes in uneven
pieces makes a neuron fire too early, which no later current takes back, or too late, when no
steps are left. Here, a layer's neurons are run on samples of their currents, with what a
channel can be given without touching what a neuron is:

    threshold theta,  initial potential v_0,  a bias current b,  a scale of what it emits

and each channel keeps what brings its mean emission nearest to the ANN's activation. It is
the search for thresholds of least squared error (Li et al., ICML 2021, section 4.1) and their
correction of biases and potentials (section 4.2) in one, on currents as they are.

Many fits are about as near after T steps, and most of them fire late: what waits, errs less. Asked
for neurons that are right at any time, the error of the mean after T / 2, T / 4 and T / 8 steps
counts a little too. Outputs lose little after T steps, and gain much after fewer.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from onnxsnn.arrays import Floats
from onnxsnn.calibration.clipping import Clipping
from onnxsnn.neurons import Neuron
from onnxsnn.parallel import over_channels

__all__ = ["Fit", "fit_neurons"]

_AMOUNTS = (-1.0, -0.75, -0.5, -0.25, 0.25, 0.5, 0.75, 1.0)
_GREATEST_BIAS = 0.3  # in thresholds per step
_PRIOR = 1.0  # weight of the threshold as the scale: one observation at the full rate
_PARTS = (2, 4, 8)  # of T: what the mean counts after, of neurons right at any time,
_EARLY = 0.1  # by this factor; measured on VGG-16 and PreActResNet-18
_LEAST = 2  # steps: what a layer has emitted after the first is chance

Knob: TypeAlias = Callable[["Fit", float, int], "Fit"]
"""Turns a fit by an amount, for neurons that run for so many steps."""


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
    clipping: Clipping,
    start: Fit,
    neuron: Neuron,
    reaches: Sequence[float],
    *,
    thresholds: bool = True,
    anytime: bool = False,
) -> Fit:
    """The fit of least squared error that a pattern search finds from `start`, by channel.

    Args:
        currents: samples of what arrives in each step, [T, C, samples].
        target: what the ANN's activation is there, [C, samples].
        clipping: what would be clipped of all of the activation.
        start: where the search starts; no channel's error ends above its error there.
        neuron: the neuron that will run.
        reaches: of the rounds of the search; the steps of a round are a quarter of its reach.
        thresholds: whether thresholds may change too.
        anytime: whether the error of the mean over the first steps counts too.
    """
    layer = _Samples(currents, target, clipping, neuron, _marks(len(currents), anytime))
    knobs = _KNOBS if thresholds else _KNOBS[1:]
    fits = over_channels(
        lambda rows: layer[rows].search(_of_each(lambda v: v[rows], start), reaches, knobs),
        *target.shape,
    )
    return _of_each(lambda *values: np.concatenate(values), *fits)


@dataclass(frozen=True)
class _Samples:
    """What `fit_neurons` fits some channels to, and after which steps the mean counts."""

    currents: Floats
    target: Floats
    clipping: Clipping
    neuron: Neuron
    marks: Collection[int]

    def __getitem__(self, rows: slice) -> _Samples:
        """Those of some of the channels."""
        parts = self.currents[:, rows], self.target[rows], self.clipping[rows]
        return _Samples(*parts, self.neuron, self.marks)

    def search(self, start: Fit, reaches: Sequence[float], knobs: Sequence[Knob]) -> Fit:
        """The best fit, of what turning the knobs finds."""
        best, error = self._tried(start, rescale=False)
        for reach in reaches:
            for turn in knobs:
                origin = best
                for amount in _AMOUNTS:
                    candidate = turn(origin, amount * reach, len(self.currents))
                    candidate, found = self._tried(candidate)
                    best = _chosen(found < error, candidate, best)
                    error = np.minimum(found, error)
        return best

    def _tried(self, fit: Fit, *, rescale: bool = True) -> tuple[Fit, Floats]:
        """The fit with the scale that is best after all steps, and its error, [C].

        What is clipped counts as in all data, of which the samples are a part.
        """
        *early, rates = self._mean_spikes(fit)
        if rescale:
            squares = np.square(rates).sum(axis=1) + _PRIOR
            scale = ((rates * self.target).sum(axis=1) + _PRIOR * fit.threshold) / squares
            fit = replace(fit, scale=np.where(scale > 0, scale, fit.threshold))
        errors = [self._error(fit, means) for means in (rates, *early)]
        greatest = fit.scale * self.neuron.greatest_spike
        clipped = np.square(np.maximum(np.abs(self.target) - greatest[:, None], 0)).mean(axis=1)
        error: Floats = errors[0] + np.float32(_EARLY) * sum(errors[1:])
        return fit, error + (self.clipping.error(greatest) - clipped)

    def _error(self, fit: Fit, rates: Floats) -> Floats:
        """The mean squared error of what is emitted, [C]."""
        error: Floats = np.square(fit.scale[:, None] * rates - self.target).mean(axis=1)
        return error

    def _mean_spikes(self, fit: Fit) -> list[Floats]:
        """Mean spikes per step until each mark, [C, samples], of neurons run on the currents."""
        threshold, bias = fit.threshold[:, None], fit.bias[:, None]
        states = [np.zeros_like(self.currents[0]) for _ in self.neuron.states]
        states[0] += fit.potential[:, None]
        total = np.zeros_like(self.currents[0])
        means: list[Floats] = []
        for step, current in enumerate(self.currents, start=1):
            spikes, *states = self.neuron.step(current + bias, threshold, *states)
            total += spikes
            if step in self.marks:
                means.append(total / step)
        return means


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


_KNOBS: tuple[Knob, ...] = (
    _turn_threshold,
    _turn_potential,
    _turn_bias,
    _delay,
)


def _marks(timesteps: int, anytime: bool) -> set[int]:
    """The steps after which means count: the last, and where asked some before."""
    early = (timesteps // part for part in _PARTS if anytime)
    return {timesteps, *(step for step in early if step >= _LEAST)}


def _chosen(better: npt.NDArray[np.bool_], candidate: Fit, best: Fit) -> Fit:
    """By channel, the candidate where it is better."""
    return _of_each(lambda values, others: np.where(better, values, others), candidate, best)


def _of_each(work: Callable[..., Any], *fits: Fit) -> Fit:
    """What comes of the thresholds, the potentials, the biases and the scales of fits."""
    return Fit(
        *(work(*values) for values in zip(*(vars(fit).values() for fit in fits), strict=True))
    )
