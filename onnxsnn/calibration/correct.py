"""Correction of initial potentials, front to back, so that mean firing rates are the ANN's.

A neuron's static response rounds; but its current does not arrive evenly. A bias is there
from the first step, and the spikes that weigh against it come later, so a deep layer fires
too often at first, and no spike can be taken back. On average over samples, the rate of a
channel is then off by a constant, which its initial potential can make good:

    v_0 <- v_0 + T * theta * (mean rate of the ANN - mean rate of the SNN)

(Li et al., ICML 2021, section 4.2.) Layers are corrected in order, each on what the
corrected layers before it really emit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from onnxsnn.arrays import Array, Floats
from onnxsnn.calibration.observe import Statistics
from onnxsnn.calibration.statistics import ChannelStatistics
from onnxsnn.data import Dataset
from onnxsnn.model import SpikingModel
from onnxsnn.neurons import Neuron
from onnxsnn.runtime.dataset import batch_size
from onnxsnn.runtime.runner import Runner

__all__ = ["correct_potentials"]


def correct_potentials(
    snn: SpikingModel,
    statistics: Statistics,
    data: Dataset,
    neuron: Neuron,
    progress: Callable[[int, int], None] = lambda _done, _all: None,
) -> SpikingModel:
    """An SNN whose initial potentials make up for uneven spikes.

    It costs one run of T steps over the data for each layer, up to that layer.

    Args:
        snn: an SNN; it is left as it is.
        statistics: of the ANN's layers on the same data, by layer.
        data: unlabelled samples.
        neuron: the neuron of the SNN.
        progress: called with the layers done and the layers in all.
    """
    layers = list(snn.spikes)
    for done, layer in enumerate(layers, start=1):
        theta = snn.thresholds[layer]
        surplus = _spiking_rate(snn, layer, data) - _static_rate(
            statistics[layer], theta, neuron.greatest_spike
        )
        state = snn.potential(layer)
        potential = state.default - snn.timesteps * theta * surplus
        snn = snn.with_state(replace(state, default=potential.astype(np.float32)))
        progress(done, len(layers))
    return snn


def _static_rate(statistics: ChannelStatistics, theta: Array, greatest: float) -> Floats:
    """Mean of `clip(a / theta, 0, greatest)` over the data, in the shape of theta.

    Of values of either sign it is the mean of `a / theta`: what is clipped is made up for too.
    """
    if statistics.signed:
        return statistics.mean.reshape(theta.shape) / theta
    rates = greatest * statistics.rates(greatest * theta)
    mean: Floats = (statistics.counts * rates).sum(axis=1) / statistics.total
    return mean.reshape(theta.shape)


def _spiking_rate(snn: SpikingModel, layer: str, data: Dataset) -> Floats:
    """Mean spikes per step of each channel over the data, in the shape of theta."""
    part = snn.up_to(layer)
    runner, shape = Runner(part), snn.thresholds[layer].shape
    others = tuple(axis for axis, size in enumerate(shape) if size == 1)
    total = np.zeros(shape)
    for feeds, _ in data.batches(batch_size(part)):
        for outputs in runner.steps(feeds, snn.timesteps):
            spikes = outputs[snn.spikes[layer]]
            total += spikes.mean(axis=others, keepdims=True, dtype=np.float64) * len(spikes)
    return total / (len(data) * snn.timesteps)
