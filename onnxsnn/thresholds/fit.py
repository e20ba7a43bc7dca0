"""Method `fit`: the threshold of least error at the timesteps that will be run."""

from __future__ import annotations

import numpy as np

from onnxsnn.arrays import Floats
from onnxsnn.calibration.clipping import unseen
from onnxsnn.calibration.statistics import ChannelStatistics
from onnxsnn.neurons import Neuron
from onnxsnn.thresholds.candidates import CANDIDATES, expected_error

__all__ = ["fit"]


def fit(statistics: ChannelStatistics, neuron: Neuron, timesteps: int) -> Floats:
    """`theta = argmin E[(q_T(a; theta) - a)^2]`, thresholds [C].

    The fit curve of Ding et al. (IJCAI 2021, section 3.2) at step T, with the clipping
    error in it; `q_T` is the neuron's static response. Compare the MMSE thresholds of Li
    et al. (ICML 2021, section 4.1). What the data do not show counts too (`unseen`).
    """
    width = statistics.width[:, None]
    candidates = CANDIDATES * width
    seen = expected_error(statistics.counts, neuron, timesteps) * width**2
    error = seen + unseen(statistics, candidates * neuron.greatest_spike)
    thresholds: Floats = np.take_along_axis(candidates, error.argmin(axis=1)[:, None], axis=1)
    return thresholds[:, 0]
