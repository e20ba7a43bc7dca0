"""A layer on rows of a sequence and its samples becomes one on both axes.

PyTorch's attention has the sequence in front, and its last layer on rows: all samples of the first
place, then all of the second. No axis is that of the samples there, so that no neuron could stand
in front of the layer with its samples first. Where such rows are taken apart again right behind,
they need not be put together:

    Reshape [S, N, H] -> [S * N, C], Gemm, Reshape [S, N, K]   becomes
    Reshape [S, N, H] -> [S, N, C], MatMul, Add

JAX's exporter, as others do, writes every fully connected layer on more than two axes so, with the
samples in front. On rows, thresholds of neurons before them would not reach the weights:

    Reshape [N, S, C] -> [N * S, C], Gemm or MatMul, Reshape [N, S, H, D]   becomes
    MatMul, Add, Reshape [N, S, K] -> [N, S, H, D]
"""

from __future__ import annotations

import math
from typing import TypeGuard

import numpy as np
import onnx_graphsurgeon as gs

from onnxsnn.graph import (
    Graph,
    Node,
    constant,
    insert,
    is_static_shape,
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
    for node in [node for node in graph.nodes if node.op in ("Gemm", "MatMul")]:
        before, after = sole_producer(graph, node.inputs[0]), sole_consumer(graph, node.outputs[0])
        layer = weight_layer(graph, node)
        if layer is None:
            continue
        if node.op == "Gemm" and _puts_together(before) and _takes_apart(after, layer.outputs):
            _apart(graph, layer, before, after)
        elif (shape := _rows_of_samples(node, layer.inputs)) and _to_samples(after):
            _with_samples(graph, layer, shape, after)
        else:
            continue
        report.actions["rows of sequence and samples taken apart"] += 1
    graph.cleanup().toposort()
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


def _rows_of_samples(node: Node, channels: int) -> list[int | str] | None:
    """The shape, of samples, of what a layer reads in rows; None where these are something else.

    A Reshape makes the rows, and the last axes become that of the channels.
    """
    makers = node.inputs[0].inputs
    if not makers or makers[0].op != "Reshape" or len(node.inputs[0].shape or ()) != 2:
        return None
    shape = makers[0].inputs[0].shape
    if shape is None or isinstance(shape[0], int) or not is_static_shape(shape):
        return None
    if math.prod(shape[1:]) == channels:
        return None  # a row is a sample
    kept = next((k for k in range(2, len(shape)) if math.prod(shape[k:]) == channels), None)
    return None if kept is None else [*shape[:kept], channels]


def _to_samples(node: Node | None) -> TypeGuard[Node]:
    """Whether a node makes something else of what it reads, of whatever shape that was."""
    target = constant(node.inputs[1]) if node is not None and node.op == "Reshape" else None
    return target is not None and bool(np.all(target != 0))


def _with_samples(graph: Graph, layer: WeightLayer, shape: list[int | str], after: Node) -> None:
    node, output = layer.node, after.outputs[0]
    source = node.inputs[0].inputs[0].inputs[0]
    if len(source.shape) > len(shape):
        merged = gs.Variable(unique_name(graph, f"{source.name}.channels"), source.dtype, shape)
        target = np.array([0] * (len(shape) - 1) + shape[-1:], np.int64)
        insert(graph, "Reshape", [source, gs.Constant(f"{merged.name}.shape", target)], merged)
        source = merged
    made = [*shape[:-1], layer.outputs]
    if output.shape is not None and output.shape[1:] == made[1:]:
        remove(graph, after)
    else:
        name = unique_name(graph, f"{node.outputs[0].name}.apart")
        output = gs.Variable(name, output.dtype, made)
        after.inputs[0] = output
    if node.op == "Gemm":
        write_as_matmul(layer, source, output)
    else:
        node.inputs[0], node.outputs = source, [output]
