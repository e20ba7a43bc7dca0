"""Calibration: one streaming pass that gathers statistics of every RateNorm's input.

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
from onnxsnn.graph import Graph, Tensor, channel_axis, to_model
from onnxsnn.passes.relu_to_ratenorm import rate_norms
from onnxsnn.session import Session

__all__ = ["Statistics", "calibrate"]

Statistics = dict[str, ChannelStatistics]


def calibrate(
    graph: Graph,
    feeds: Iterable[Mapping[str, Array]],
    threads: int | None = None,
    progress: Callable[[int], None] = lambda _: None,
) -> Statistics:
    """Statistics of every RateNorm's input, by node name.

    Args:
        graph: a graph with RateNorm nodes; it is left as it is.
        feeds: batches of inputs, by name.
        threads: for ONNX Runtime.
        progress: called after every batch with its number of samples.

    Raises:
        DataError: there are no batches, or an activation is not finite.
    """
    nodes = rate_norms(graph)
    axes = {node.name: channel_axis(node.inputs[0]) for node in nodes}
    sources = {node.name: node.inputs[0].name for node in nodes}
    statistics = {node.name: ChannelStatistics(node.inputs[1].values.size) for node in nodes}
    session = Session(_with_outputs(graph, [node.inputs[0] for node in nodes]), threads)
    seen = 0
    for batch in feeds:
        outputs = session.run(batch, sorted(set(sources.values())))
        for name, counted in statistics.items():
            _count(counted, outputs[sources[name]], axes[name], name)
        size = len(next(iter(batch.values())))
        seen += size
        progress(size)
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


def _count(statistics: ChannelStatistics, values: Array, axis: int, name: str) -> None:
    by_channel = np.moveaxis(values, axis, 0).reshape(values.shape[axis], -1)
    try:
        statistics.update(by_channel)
    except DataError as error:
        raise DataError(f"{error} (at the input of node {name!r})") from error
