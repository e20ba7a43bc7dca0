"""An If that values decide becomes a Loop of one turn, whose body it is.

What the branches of an If read, its node does not list. A Loop does (`passes/carry_captures.py`),
and works on running means, as every operator that is not linear. In each step the branch is the one
that the estimates of this step take.
"""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs

from onnxsnn.graph import Graph, Node, insert, unique_name
from onnxsnn.passes.carry_captures import carry_captures
from onnxsnn.passes.choose_branches import decided_by_values
from onnxsnn.passes.report import Report

__all__ = ["loop_branches"]


def loop_branches(graph: Graph, sizes_known: bool) -> Report:
    """Put every If that gives tensors into a Loop; value-preserving.

    Args:
        graph: it is changed.
        sizes_known: whether branches were chosen by the sizes of data; if not, an If that sizes
            may decide stays.
    """
    report = Report("loop_branches")
    for node in list(graph.nodes):
        gives_tensors = all(tensor.dtype is not None for tensor in node.outputs)
        if node.op != "If" or not gives_tensors:
            continue
        if sizes_known or decided_by_values(graph, node.inputs[0]):
            _wrap(graph, node)
            report.actions["If put into a Loop"] += 1
    if report.changed:
        carry_captures(graph, report)
        graph.toposort()
    return report


def _wrap(graph: Graph, node: Node) -> None:
    """Let a Loop of one turn run the node, and give what that turn gives."""
    name = node.name
    turn = gs.Variable(f"{name}.turn", np.int64, [])
    going, same = (gs.Variable(f"{name}.{role}", np.bool_, []) for role in ("going", "same"))
    outputs = list(node.outputs)
    found = [gs.Variable(f"{t.name}.found", t.dtype, t.shape) for t in outputs]
    node.outputs = found
    graph.nodes = [other for other in graph.nodes if other is not node]
    body = gs.Graph([node], [turn, going], [same, *found], name=name, opset=graph.opset)
    insert(body, "Identity", [going], same)
    once = gs.Constant(unique_name(graph, f"{name}.turns"), np.array(1, np.int64))
    always = gs.Constant(unique_name(graph, f"{name}.always"), np.array(True))
    axis = gs.Constant(unique_name(graph, f"{name}.axis"), np.array([0], np.int64))
    turns = [
        gs.Variable(unique_name(graph, f"{t.name}.turns"), t.dtype, t.shape and [1, *t.shape])
        for t in outputs
    ]
    insert(graph, "Loop", [once, always], *turns, attrs={"body": body})
    for stacked, output in zip(turns, outputs, strict=True):
        insert(graph, "Squeeze", [stacked, axis], output)
