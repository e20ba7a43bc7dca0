"""States whose samples lie along another axis than the first, as where a sequence comes first.

Whatever carries a state gets its samples in front by a Transpose, and what it gives goes back by
another, so that a Runner finds the rows of a sample in every state, and folds time into them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import onnx_graphsurgeon as gs

from onnxsnn.arrays import Array
from onnxsnn.graph import Graph, Node, Tensor, constant, insert, replace_reads, unique_name
from onnxsnn.passes.name_batch import batch_names
from onnxsnn.passes.spike import SpikeReport, State

__all__ = ["samples_first", "samples_order", "turned"]


def samples_first(graph: Graph, report: SpikeReport) -> None:
    """Bring the samples of every state to the front; the states of the report with them.

    Args:
        graph: a step graph, with shapes, whose batch axis is known by the name it has in inputs.
        report: of the pass that made it.
    """
    states = {state.input: state for state in report.states}
    batch = batch_names(graph)
    for node in list(graph.nodes):
        if not any(tensor.name in states for tensor in node.inputs):
            continue
        order = samples_order(node.inputs[0], batch)
        if order != sorted(order):
            _turn(graph, node, order, states)
            report.actions["states turned, samples first"] += 1
    report.states = list(states.values())
    graph.toposort()


def samples_order(tensor: Tensor, batch: set[str]) -> list[int]:
    """The axes of a tensor, that of the samples first, if it is known to be another.

    Args:
        tensor: whose shape has names where sizes are open.
        batch: what the axis of the samples is named.
    """
    shape = tensor.shape or []
    named = [axis for axis, size in enumerate(shape) if size in batch]
    first = named[0] if len(named) == 1 and isinstance(shape[0], int) else 0
    return sorted(range(len(shape)), key=lambda axis: axis != first)


def _turn(graph: Graph, node: Node, order: list[int], states: dict[str, State]) -> None:
    """Let a node that carries a state work on samples first."""
    back = np.argsort(order).tolist()
    carried = {state.output for state in states.values()}
    for position, tensor in enumerate(node.inputs):
        if tensor.name in states:
            state = states[tensor.name]
            states[tensor.name] = replace(state, default=turned(state.default, order))
            tensor.shape = [tensor.shape[axis] for axis in order]
        elif constant(tensor) is not None:
            name, values = unique_name(graph, f"{tensor.name}.turned"), turned(tensor.values, order)
            node.inputs[position] = gs.Constant(name, values)
        elif tensor.shape:
            node.inputs[position] = _variable(graph, tensor, order)
            insert(graph, "Transpose", [tensor], node.inputs[position], attrs={"perm": order})
    for position, tensor in enumerate(node.outputs):
        if tensor.name not in carried:
            node.outputs[position] = _variable(graph, tensor, order)
            insert(graph, "Transpose", [node.outputs[position]], tensor, attrs={"perm": back})
            continue
        read = gs.Variable(unique_name(graph, f"{tensor.name}.read"), tensor.dtype, tensor.shape)
        tensor.shape = [tensor.shape[axis] for axis in order]
        if tensor.outputs:
            replace_reads(tensor, read)
            insert(graph, "Transpose", [tensor], read, attrs={"perm": back})


def _variable(graph: Graph, tensor: Tensor, order: Sequence[int]) -> Tensor:
    """A tensor like another, with its axes in another order."""
    name = unique_name(graph, f"{tensor.name}.turned")
    return gs.Variable(name, tensor.dtype, [tensor.shape[axis] for axis in order])


def turned(values: Array, order: Sequence[int]) -> Array:
    """An array that broadcasts to a tensor, as the tensor's axes are put into another order."""
    if not values.ndim:
        return values
    return values.reshape((1,) * (len(order) - values.ndim) + values.shape).transpose(order)
