"""Method `max`: the greatest activation seen."""

from __future__ import annotations

from onnxsnn.arrays import Floats
from onnxsnn.calibration.statistics import ChannelStatistics
from onnxsnn.neurons import Neuron

__all__ = ["maximum"]


def maximum(
    statistics: ChannelStatistics,
    neuron: Neuron,  # noqa: ARG001 - every method has one signature
    timesteps: int,  # noqa: ARG001
) -> Floats:
    """`theta = max a`, thresholds [C] (Diehl et al., IJCNN 2015): nothing is clipped."""
    return statistics.maximum
