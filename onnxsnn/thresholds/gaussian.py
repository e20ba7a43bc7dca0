"""Method `gaussian`: `fit` over a normal distribution in the place of samples."""

from __future__ import annotations

import numpy as np

from onnxsnn.arrays import Floats
from onnxsnn.calibration.statistics import BINS, ChannelStatistics
from onnxsnn.neurons import Neuron
from onnxsnn.thresholds.candidates import CANDIDATES, CENTRES, expected_error

__all__ = ["gaussian"]

_REACH = 5.0  # standard deviations above the mean that the bins cover


def gaussian(statistics: ChannelStatistics, neuron: Neuron, timesteps: int) -> Floats:
    """`theta = argmin E[(q_T(relu(z); theta) - relu(z))^2]`, z normal, thresholds [C].

    Mean and standard deviation are the channel's; behind a BatchNorm they are its beta and
    |gamma|, and no data are needed. DCGS (Huang et al. 2025) minimises the same error by a
    fixed-point iteration for even levels; the search here serves any neuron.
    """
    mean = np.abs(statistics.mean) if statistics.signed else statistics.mean
    top = np.maximum(mean + _REACH * statistics.std, np.finfo(np.float32).tiny)
    width = top / BINS  # [C]
    spread = np.maximum(statistics.std, width)[:, None]
    values = CENTRES * width[:, None]
    density = np.exp(-(((values - mean[:, None]) / spread) ** 2) / 2)
    if statistics.signed:  # of the magnitude: either sign
        density += np.exp(-(((values + mean[:, None]) / spread) ** 2) / 2)
    error = expected_error(density, neuron, timesteps)
    thresholds: Floats = CANDIDATES[error.argmin(axis=1)] * width
    return thresholds
