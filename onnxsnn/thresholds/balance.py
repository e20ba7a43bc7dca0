"""Method `balance`: local threshold balancing, from forward passes alone."""

from __future__ import annotations

import numpy as np

from onnxsnn.arrays import Floats
from onnxsnn.calibration.statistics import ChannelStatistics
from onnxsnn.neurons import Neuron

__all__ = ["balance"]

_PASSES = 100
_RATE = 1.0  # eta


def balance(
    statistics: ChannelStatistics,
    neuron: Neuron,  # noqa: ARG001 - every method has one signature
    timesteps: int,  # noqa: ARG001
) -> Floats:
    """`theta <- theta + 2 eta E[max(a - theta, 0)]` from zero, thresholds [C].

    Bu, Li and Yu (CVPR 2025), section 4: descent on the clipping error, which balances what is
    clipped against the size of a spike by stopping after 100 passes. Theirs clips what the next
    layer sees; here, all passes are over the statistics of the ANN.
    """
    theta = np.zeros((statistics.channels, 1))
    for _ in range(_PASSES):
        overflow = np.maximum(statistics.centres - theta, 0.0)
        clipped = (statistics.counts * overflow).sum(axis=1, keepdims=True)
        theta = theta + 2.0 * _RATE * clipped / max(statistics.total, 1)
    thresholds: Floats = theta[:, 0]
    return thresholds
