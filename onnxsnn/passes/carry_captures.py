"""What the body of a Loop or Scan reads from around it becomes a state that never changes.

A body may read any tensor of the graph around it, which its node does not list among its inputs,
and passes look at inputs alone. As a state it is an input. Constants stay where they are.

An Identity hands the state on: where a Scan's body gives what it is given, ONNX Runtime 1.32 goes
on with zeros.
"""

from __future__ import annotations

import onnx_graphsurgeon as gs

from onnxsnn.graph import Graph, Node, Tensor, constant, insert, unique_name
from onnxsnn.passes.report import Report

__all__ = ["carry_captures"]


def carry_captures(graph: Graph, report: Report) -> None:
    """Let every Loop and Scan of the graph list what it reads."""
    for node in graph.nodes:
        if node.op in ("Loop", "Scan"):
            captured = _captured(node.attrs["body"])
            for tensor in captured.values():
                _carry(graph, node, tensor)
                report.actions[f"tensors listed that a {node.op} reads"] += 1


def _captured(body: Graph) -> dict[int, Tensor]:
    """What a body, and bodies within it, read from outside, and is no constant, by id()."""
    own = {id(tensor) for tensor in body.inputs}
    own.update(id(tensor) for node in body.nodes for tensor in node.outputs)
    read = [tensor for node in body.nodes for tensor in node.inputs] + list(body.outputs)
    found = {id(t): t for t in read if constant(t) is None and not t.is_empty()}
    for inner in body.subgraphs():
        found |= _captured(inner)
    return {key: tensor for key, tensor in found.items() if key not in own}


def _carry(graph: Graph, node: Node, tensor: Tensor) -> None:
    """Make a tensor the last of the states, those behind which a Scan reads slices."""
    body, name = node.attrs["body"], unique_name(graph, f"{node.name}/{tensor.name}")
    inner, same = (gs.Variable(n, tensor.dtype, tensor.shape) for n in (name, f"{name}.same"))
    _replace(body, tensor, inner)
    insert(body, "Identity", [inner], same)
    if node.op == "Loop":
        states, conditions = len(node.inputs) - 2, 1
    else:
        states, conditions = len(node.inputs) - node.attrs["num_scan_inputs"], 0
    node.inputs.insert(states + 2 * conditions, tensor)
    body.inputs.insert(states + 2 * conditions, inner)
    body.outputs.insert(states + conditions, same)
    node.outputs.insert(states, gs.Variable(unique_name(graph, f"{name}.last"), tensor.dtype))


def _replace(body: Graph, old: Tensor, new: Tensor) -> None:
    """Let a body, and bodies within it, read another tensor."""
    for part in (body, *body.subgraphs(recursive=True)):
        part.outputs = [new if tensor is old else tensor for tensor in part.outputs]
        for node in part.nodes:
            for position, tensor in enumerate(node.inputs):
                if tensor is old:
                    node.inputs[position] = new
