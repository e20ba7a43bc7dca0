"""Threshold methods: one file each, one signature."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from onnxsnn.arrays import Floats
from onnxsnn.calibration.statistics import ChannelStatistics
from onnxsnn.neurons import Neuron
from onnxsnn.thresholds.balance import balance
from onnxsnn.thresholds.bound import bound
from onnxsnn.thresholds.fit import fit
from onnxsnn.thresholds.gaussian import gaussian
from onnxsnn.thresholds.maximum import maximum
from onnxsnn.thresholds.percentile import percentile

__all__ = [
    "METHODS",
    "ThresholdMethod",
    "balance",
    "bound",
    "fit",
    "gaussian",
    "maximum",
    "percentile",
]

ThresholdMethod: TypeAlias = Callable[[ChannelStatistics, Neuron, int], Floats]
"""Statistics of C channels, the neuron and the timesteps that will run -> thresholds [C].

A channel that has seen no positive value may get any value: it is replaced by its layer's.
"""


def _within_spikes(method: ThresholdMethod) -> ThresholdMethod:
    """A method that says how much is emitted at most, for spikes that may all be less than 1."""

    def thresholds(statistics: ChannelStatistics, neuron: Neuron, timesteps: int) -> Floats:
        return method(statistics, neuron, timesteps) / min(neuron.greatest_spike, 1.0)

    return thresholds


METHODS: dict[str, ThresholdMethod] = {
    "fit": fit,
    "max": _within_spikes(maximum),
    "percentile": _within_spikes(percentile),
    "bound": _within_spikes(bound),
    "balance": _within_spikes(balance),
    "gaussian": gaussian,
}
