"""Omega: how fast a layer's firing rates converge, known before a single step is run."""

from __future__ import annotations

import numpy as np

from onnxsnn.arrays import Array
from onnxsnn.calibration.statistics import ChannelStatistics

__all__ = ["omega", "threshold_ratio"]


def omega(statistics: ChannelStatistics, threshold: Array) -> float | None:
    """`Omega = ||r||_1 / ||r||_2^2` of a layer's rates `r = clip(a, 0, theta) / theta`.

    The fit curve at step t stays below `2 * Omega / t` (Ding et al., IJCAI 2021, theorem 2).

    Args:
        statistics: of the layer's input.
        threshold: [C], or anything that has C values.

    Returns:
        None for a layer that was never active.
    """
    rates = statistics.rates(threshold)
    squares = float((statistics.counts * rates**2).sum())
    return float((statistics.counts * rates).sum()) / squares if squares else None


def threshold_ratio(statistics: ChannelStatistics, threshold: Array) -> float | None:
    """`p = theta / max a`, the mean over the channels that were active; None if none was."""
    active = statistics.active
    if not active.any():
        return None
    return float(np.mean(threshold.reshape(-1)[active] / statistics.maximum[active]))
