r"""How long spikes take to reach the read-out, estimated from thresholds and currents.

A neuron that fires at theta, starts at v0 and gets a current m in every step first fires at step
k = ceil((theta - v0) / m), and so is silent for k - 1 steps. What those behind it miss in each
of them is its current, on average. So a layer's latency is the mean of k - 1 over its neurons,
each weighted by its current, clipped at what it can send:

    latency = sum m (k - 1) / sum m

A weight m takes the 1/m out of k: no neuron adds more than theta - v0 to the sum, however weak
it is. With v0 = theta/2, one that fires in every second step or more often is never late. The
layers of a chain wait for each other, and their latencies add up; t0 is that of the longest
chain. More than T/2 is never left out: the outputs are a mean over T - t0 steps, whose rounding
goes with 1 / (T - t0), and would become worse than twice what it is without a delay.

Bu, Li and Yu (CVPR 2025) leave out the steps until spikes have arrived; the weights, and this
estimate of the delay, are ours.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from onnxsnn.arrays import Array
from onnxsnn.calibration.observe import Statistics
from onnxsnn.calibration.statistics import ChannelStatistics
from onnxsnn.graph import Graph
from onnxsnn.neurons import Neuron
from onnxsnn.operators import values_read
from onnxsnn.ratenorm import SIGNED, is_rate_norm

__all__ = ["latency", "read_out_delay"]


def read_out_delay(
    graph: Graph,
    statistics: Statistics,
    neuron: Neuron,
    potentials: Mapping[str, float],
    timesteps: int,
) -> int:
    """The number t0 of steps to leave out of the outputs: 0 to T/2.

    Args:
        graph: Rate Norm Layers whose thresholds are set.
        statistics: of their inputs.
        neuron: that will run; its signed counterpart where values can be negative.
        potentials: initial potentials by layer, as fractions of the threshold, other than the
            neuron's.
        timesteps: T.
    """
    graph.toposort()
    arrival: dict[int, float] = {}  # by tensor, the longest chain of layers before it
    for node in graph.nodes:
        latest = max((arrival.get(id(tensor), 0.0) for tensor in values_read(node)), default=0.0)
        if is_rate_norm(node):
            model = neuron.signed if node.op == SIGNED else neuron
            start = potentials.get(node.name, model.initial_potential)
            latest += latency(statistics[node.name], node.inputs[1].values, model, start)
        arrival.update((id(tensor), latest) for tensor in node.outputs)
    longest = max(arrival.get(id(tensor), 0.0) for tensor in graph.outputs)
    return min(round(longest), timesteps // 2)


def latency(statistics: ChannelStatistics, threshold: Array, neuron: Neuron, start: float) -> float:
    """The steps in which a layer's neurons are silent, before their first spike, weighted.

    Args:
        statistics: of the layer's input.
        threshold: [C], or anything that has C values.
        neuron: its model.
        start: the initial potential, as a fraction of the threshold.
    """
    most = neuron.greatest_spike
    rates = most * statistics.rates(most * threshold)  # [C, bins], in thresholds
    silent = np.maximum(np.ceil((neuron.fires_at - start) / rates) - 1, 0)
    weights = statistics.counts * rates
    sent = float(weights.sum())
    return float((weights * silent).sum()) / sent if sent else 0.0
