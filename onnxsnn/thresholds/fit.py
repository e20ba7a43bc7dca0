"""Method `fit`: the threshold of least error at the timesteps that will be run."""

from __future__ import annotations

from onnxsnn.arrays import Floats
from onnxsnn.calibration.statistics import ChannelStatistics
from onnxsnn.neurons import Neuron
from onnxsnn.thresholds.candidates import CANDIDATES, expected_error

__all__ = ["fit"]


def fit(statistics: ChannelStatistics, neuron: Neuron, timesteps: int) -> Floats:
    """`theta = argmin E[(q_T(a; theta) - a)^2]`, thresholds [C].

    The fit curve of Ding et al. (IJCAI 2021, section 3.2) at step T, with the clipping
    error in it; `q_T` is the neuron's static response. Compare the MMSE thresholds of Li
    et al. (ICML 2021, section 4.1).
    """
    error = expected_error(statistics.counts, neuron, timesteps)
    thresholds: Floats = CANDIDATES[error.argmin(axis=1)] * statistics.width
    return thresholds
