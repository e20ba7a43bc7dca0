"""Calibration: one streaming pass that gathers statistics of every spiking layer's input.

Memory does not depend on the number of samples: each batch's activations are counted and
dropped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import numpy as np
import onnx

from onnxsnn.arrays import Array
from onnxsnn.calibration.statistics import ChannelStatistics
from onnxsnn.errors import DataError
from onnxsnn.graph import Graph, Node, Tensor, to_model
from onnxsnn.ratenorm import SIGNED, rate_norms
from onnxsnn.session import Session

__all__ = ["Statistics", "by_channel", "calibrate"]

Statistics = dict[str, ChannelStatistics]


def calibrate(
    graph: Graph,
    feeds: Iterable[Mapping[str, Array]],
    progress: Callable[[int], None] = lambda _: None,
) -> Statistics:
    """Statistics of every Rate Norm Layer's input, by node name.

    Args:
        graph: a graph with Rate Norm Layers; it is left as it is.
        feeds: batches of inputs, by name.
        progress: called after every batch with the number of samples so far.

    Raises:
        DataError: there are no batches, or an activation is too large or NaN.
    """
    nodes = rate_norms(graph)
    statistics = {
        node.name: ChannelStatistics(node.inputs[1].values.size, signed=node.op == SIGNED)
        for node in nodes
    }
    session = Session(_with_outputs(graph, [node.inputs[0] for node in nodes]), spinning=False)
    seen = 0
    for batch in feeds:
        outputs = session.run(batch, sorted({node.inputs[0].name for node in nodes}))
        for node in nodes:
            _count(statistics[node.name], outputs[node.inputs[0].name], node)
        seen += len(next(iter(batch.values())))
        progress(seen)
    if not seen:
        raise DataError("there are no samples to calibrate on")
    return statistics


def _with_outputs(graph: Graph, tensors: list[Tensor]) -> onnx.ModelProto:
    """The model of `graph`, which gives `tensors` as outputs and nothing else."""
    outputs = graph.outputs
    graph.outputs = list({id(tensor): tensor for tensor in tensors}.values())
    try:
        return to_model(graph)
    finally:
        graph.outputs = outputs


def _count(statistics: ChannelStatistics, values: Array, node: Node) -> None:
    """Count a batch's values by channel."""
    try:
        statistics.update(by_channel(node, values))
    except DataError as error:
        raise DataError(f"{error} (at the input of node {node.name!r})") from error


def by_channel(node: Node, values: Array) -> Array:
    """What a Rate Norm Layer reads, along the axis of its thresholds, [C, any]."""
    threshold = node.inputs[1].values
    if threshold.size > 1:
        values = np.moveaxis(values, int(np.argmax(threshold.shape)), 0)
    return values.reshape(threshold.size, -1)
