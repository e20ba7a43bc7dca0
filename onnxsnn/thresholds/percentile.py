"""Method `percentile`: the activation that all but a thousandth stay below."""

from __future__ import annotations

import numpy as np

from onnxsnn.arrays import Floats
from onnxsnn.calibration.statistics import ChannelStatistics
from onnxsnn.neurons import Neuron

__all__ = ["percentile"]

_PERCENTILE = 99.9


def percentile(
    statistics: ChannelStatistics,
    neuron: Neuron,  # noqa: ARG001 - every method has one signature
    timesteps: int,  # noqa: ARG001
) -> Floats:
    """The 99.9th percentile of the activation, zeros counted, thresholds [C].

    Rueckauer et al., Frontiers in Neuroscience 2017, section 2.2.4. A channel that is
    active more rarely than that keeps its maximum: its percentile would be zero.
    """
    above = statistics.total * (1 - _PERCENTILE / 100)
    counts = statistics.counts
    beyond = counts[:, ::-1].cumsum(axis=1)[:, ::-1] - counts  # values beyond bin i
    last = np.argmax(beyond <= above, axis=1)  # the first bin that few enough lie beyond
    rows = np.arange(statistics.channels)
    inside = np.maximum(counts[rows, last], 1.0)
    fraction = np.clip(1 - (above - beyond[rows, last]) / inside, 0.0, 1.0)
    value = np.minimum((last + fraction) * statistics.width, statistics.maximum)
    rare = counts.sum(axis=1) <= above
    return np.where(rare, statistics.maximum, value)
