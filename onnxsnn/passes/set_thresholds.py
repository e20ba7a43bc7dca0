"""Give every Rate Norm Layer its threshold: a method's, for a neuron and a number of timesteps.

1. A channel gets what the method says of its statistics.
2. A channel that was never active gets what the method says of its layer.
3. Where the graph was trained with a threshold (ReLU6, RNL, QCFS), no neuron emits more than that
   in a step: no threshold exceeds it, or its share of it where spikes have other sizes than 1.
4. With `per_layer`, all channels of a layer get what the method says of the layer.
5. Without a method, trained thresholds stay as they are.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from onnxsnn.arrays import Array
from onnxsnn.calibration.observe import Statistics
from onnxsnn.calibration.statistics import ChannelStatistics
from onnxsnn.graph import Graph, Node, describe
from onnxsnn.neurons import Neuron
from onnxsnn.passes.report import Report
from onnxsnn.ratenorm import SIGNED, rate_norms, set_threshold, threshold_of
from onnxsnn.thresholds import ThresholdMethod

__all__ = ["ThresholdReport", "set_thresholds"]


@dataclass
class ThresholdReport(Report):
    """The report of the pass; `origins` holds, by node name, whence its threshold came."""

    origins: dict[str, str] = field(default_factory=dict)


def set_thresholds(
    graph: Graph,
    statistics: Statistics,
    method: tuple[str, ThresholdMethod],
    neuron: Neuron,
    timesteps: int,
    *,
    per_layer: bool = False,
    keep_trained: bool = False,
) -> ThresholdReport:
    """Set the threshold of every Rate Norm Layer, and of the product behind it.

    Args:
        graph: a graph with Rate Norm Layers.
        statistics: by node name, from `calibrate`.
        method: a threshold method and its name.
        neuron: the neuron that will run; its signed counterpart where values can be negative.
        timesteps: the number of steps that will be run.
        per_layer: one threshold for all channels of a layer.
        keep_trained: leave thresholds that the graph was trained with.
    """
    name, choose = method
    report = ThresholdReport("set_thresholds", preserves_values=False)
    for node in rate_norms(graph):
        encoder = neuron.signed if node.op == SIGNED else neuron
        trained = threshold_of(node)
        if trained is not None:
            trained = trained / encoder.greatest_spike  # which then emits no more than was trained
            if keep_trained:
                set_threshold(graph, node, trained)
                report.origins[node.name] = "trained"
                report.actions["trained thresholds kept"] += 1
                continue
        observed = statistics[node.name]
        if not observed.active.any():
            report.warnings.append(f"{describe(node)} was never active during calibration")
        values = _choose(choose, observed, encoder, timesteps, per_layer)
        set_threshold(graph, node, _limited(values, trained, node))
        report.origins[node.name] = name
        report.actions[f"thresholds set by {name}"] += 1
    return report


def _choose(
    choose: ThresholdMethod,
    observed: ChannelStatistics,
    neuron: Neuron,
    timesteps: int,
    per_layer: bool,
) -> Array:
    """Thresholds [C], positive; 1 for a layer that was never active.

    A channel that is hardly ever more than nothing has the layer's.
    """
    layer = observed.merged()
    whole = choose(layer, neuron, timesteps)[0] if layer.active.any() else 1.0
    if per_layer:
        return np.full(observed.channels, whole)
    values = choose(observed, neuron, timesteps)
    return np.where(observed.active & (values > _NOTHING), values, whole)


_NOTHING = 2.0**-64  # of thresholds near to what float32 holds, spikes come by rounding


def _limited(values: Array, trained: Array | None, node: Node) -> Array:
    shape = node.inputs[1].values.shape
    values = values.reshape(shape)
    return values if trained is None else np.minimum(values, trained)
