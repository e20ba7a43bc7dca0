"""Limits of whole numbers that data do not come near are left out.

A quantized network cuts every tensor off where its whole numbers end. Where a quantizer left out
a Clip, or limits were learnt, that is part of what the network computes; elsewhere it is for
outliers, and would only keep analog what is linear, in front of a residual Add above all. Only data
tell; what they told is in the SNN's metadata, so that the ANN beside it has the same layers.
Without data, those stay that layers of weights alone read: neurons are in front of these anyway.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from onnxsnn.arrays import Array
from onnxsnn.data import Dataset
from onnxsnn.errors import DataError
from onnxsnn.graph import (
    Graph,
    Node,
    bypass,
    data_input,
    is_float,
    part_up_to,
    to_model,
)
from onnxsnn.operators import clipped_between
from onnxsnn.passes.report import Report
from onnxsnn.session import Session
from onnxsnn.signals import weighted_input

__all__ = ["leave_out_limits", "needless_limits"]

_SAMPLES = 64
_BATCH = 8
_SHARE = 1e-4  # of the squares of a tensor: what rounding to 8 bits takes too


def needless_limits(graph: Graph, data: Dataset | None) -> list[str]:
    """The nodes that cut off, on both sides of 0 or above it, next to nothing of the data.

    Without data, those that anything but layers of weights reads.
    """
    limits = {}
    for node in graph.nodes:
        bounds = clipped_between(node)
        if bounds is None or not is_float(node.inputs[0]):
            continue
        if np.all(bounds[0] < 0) and np.all(bounds[1] > 0):
            limits[node.name] = node, bounds
    if data is None:
        return [name for name, (node, _) in limits.items() if not _is_for_weights(node)]
    if not limits:
        return []
    try:
        shares = _cut_off(graph, limits, data.spread(_SAMPLES))
    except DataError:  # so it will in the calibration, which says what to do
        return []
    return [name for name, share in shares.items() if share <= _SHARE]


def _is_for_weights(node: Node) -> bool:
    readers = node.outputs[0].outputs
    return bool(readers) and all(weighted_input(reader) is not None for reader in readers)


def leave_out_limits(graph: Graph, names: Collection[str]) -> Report:
    """Take these nodes away."""
    report = Report("leave_out_limits")
    for node in [node for node in graph.nodes if node.name in names]:
        bypass(graph, node, data_input(node))
        report.actions["limits left out"] += 1
    graph.cleanup().toposort()
    return report


def _cut_off(
    graph: Graph, limits: dict[str, tuple[Node, tuple[Array, Array]]], data: Dataset
) -> dict[str, float]:
    """By node, the squares of what it cuts off, relative to those of what it reads."""
    read = [data_input(node).name for node, _ in limits.values()]
    session = Session(to_model(part_up_to(graph, read)))
    sums = {name: np.zeros(2) for name in limits}
    for feeds, _ in data.batches(_BATCH):
        found = session.run({name: feeds[name] for name in session.inputs})
        for (name, (_, bounds)), values in zip(limits.items(), found.values(), strict=True):
            cut = values - np.clip(values, *bounds)
            sums[name] += (
                np.sum(np.square(cut), dtype=float),
                np.sum(np.square(values), dtype=float),
            )
    return {name: cut / max(whole, np.finfo(float).tiny) for name, (cut, whole) in sums.items()}
