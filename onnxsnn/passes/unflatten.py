"""A layer on rows of a sequence and its samples becomes one on both axes.

PyTorch's attention has the sequence in front, and its last layer on rows: all samples of the first
place, then all of the second. No axis is that of the samples there, so that no neuron could stand
in front of the layer with its samples first. Where such rows are taken apart again right behind,
they need not be put together:

    Reshape [S, N, H] -> [S * N, C], Gemm, Reshape [S, N, K]   becomes
    Reshape [S, N, H] -> [S, N, C], MatMul, Add
"""

from __future__ import annotations

from typing import TypeGuard

import numpy as np
import onnx_graphsurgeon as gs

from onnxsnn.graph import (
    Graph,
    Node,
    constant,
    remove,
    sole_consumer,
    sole_producer,
    unique_name,
)
from onnxsnn.passes.report import Report
from onnxsnn.weights import WeightLayer, weight_layer, write_as_matmul

__all__ = ["unflatten"]


def unflatten(graph: Graph) -> Report:
    """Keep the axes of a sequence and its samples apart; value-preserving up to rounding."""
    report = Report("unflatten")
    for node in [node for node in graph.nodes if node.op == "Gemm"]:
        before, after = sole_producer(graph, node.inputs[0]), sole_consumer(graph, node.outputs[0])
        layer = weight_layer(graph, node)
        if layer is not None and _puts_together(before) and _takes_apart(after, layer.outputs):
            _apart(graph, layer, before, after)
            report.actions["rows of sequence and samples taken apart"] += 1
    return report


def _puts_together(node: Node | None) -> TypeGuard[Node]:
    """Whether a node makes rows, of any number."""
    target = constant(node.inputs[1]) if node is not None and node.op == "Reshape" else None
    return target is not None and int(target[0]) == -1


def _takes_apart(node: Node | None, channels: int) -> TypeGuard[Node]:
    """Whether a node makes a sequence, of samples behind it, of rows that keep their values."""
    target = constant(node.inputs[1]) if node is not None and node.op == "Reshape" else None
    if target is None or target.size < 3 or target[-1] != channels:
        return False
    return bool(np.all(target != 0) and -1 in target[1:-1])


def _apart(graph: Graph, layer: WeightLayer, before: Node, after: Node) -> None:
    rows, output = before.outputs[0], after.outputs[0]
    target = np.array([*after.inputs[1].values[:-1], layer.inputs], np.int64)
    before.inputs[1] = gs.Constant(unique_name(graph, f"{before.name}.shape"), target)
    rows.shape = [*output.shape[:-1], layer.inputs]
    remove(graph, after)
    write_as_matmul(layer, rows, output)
    graph.toposort()
