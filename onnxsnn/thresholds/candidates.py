"""The candidates among which `fit`, `bound` and `gaussian` search, in units of a bin's width.

As bins are of equal width within a channel, an error that scales with the activation is
the same function of (bin, candidate / width) in every channel: one matrix serves all.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from onnxsnn.arrays import Floats
from onnxsnn.calibration.statistics import BINS
from onnxsnn.neurons import Neuron

__all__ = ["CANDIDATES", "CENTRES", "expected_error"]

CENTRES: Floats = np.arange(BINS) + 0.5
CANDIDATES: Floats = np.geomspace(BINS / 128, 2 * BINS, 585)  # 1 % apart


def expected_error(weights: Floats, neuron: Neuron, timesteps: int) -> Floats:
    """Squared error of the neuron's static response, summed over bins.

    Args:
        weights: of each bin, [C, BINS].
        neuron: the neuron that will run.
        timesteps: the number of steps that will be run.

    Returns:
        In units of the squared width, [C, candidates].
    """
    error: Floats = np.matmul(weights, _squared_error(neuron, timesteps).T)
    return error


@lru_cache(maxsize=4)
def _squared_error(neuron: Neuron, timesteps: int) -> Floats:
    """Of the static response at every bin, for every candidate, [candidates, BINS]."""
    response = neuron.response(CENTRES, CANDIDATES[:, None], timesteps)
    squared: Floats = (response - CENTRES) ** 2
    return squared
