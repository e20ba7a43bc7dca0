"""Method `bound`: the threshold of the least upper bound of the fit curve."""

from __future__ import annotations

import numpy as np

from onnxsnn.arrays import Floats
from onnxsnn.calibration.statistics import ChannelStatistics
from onnxsnn.neurons import Neuron
from onnxsnn.thresholds.candidates import CANDIDATES, CENTRES

__all__ = ["bound"]


def bound(
    statistics: ChannelStatistics,
    neuron: Neuron,  # noqa: ARG001 - every method has one signature
    timesteps: int,
) -> Floats:
    """`theta = argmin ||theta r - a||^2 / ||a||^2 + 2 Omega(theta) / T`, thresholds [C].

    `r = clip(a, 0, theta) / theta` and `Omega = ||r||_1 / ||r||_2^2`: the upper bound of
    Ding et al. (IJCAI 2021, theorem 2) in the place of the fit curve, with the clipping
    error added.
    """
    counts = statistics.counts
    rates = np.minimum(CENTRES / CANDIDATES[:, None], 1.0)  # [candidates, BINS]
    clipped = (rates * CANDIDATES[:, None] - CENTRES) ** 2
    energy = np.maximum(counts @ CENTRES**2, np.finfo(float).tiny)[:, None]
    squared_rates = np.maximum(counts @ (rates**2).T, np.finfo(float).tiny)
    omega = (counts @ rates.T) / squared_rates
    total = (counts @ clipped.T) / energy + 2.0 * omega / timesteps  # [C, candidates]
    thresholds: Floats = CANDIDATES[total.argmin(axis=1)] * statistics.width
    return thresholds
