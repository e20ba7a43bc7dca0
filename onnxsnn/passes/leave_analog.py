"""Rectifiers that are better no neurons stay what they compute.

1. Those of the read-out, which no layer of weights is behind: a ReLU or Clip that an image or a
   map ends with. On the running mean it is exact; a neuron would round it to T + 1 values.
2. Those behind NonMaxSuppression, and whatever else gives as many values as it finds: a potential
   would have no place of its own there.

They become LeakyRelu of slope 0, and a Min where they clip: the same values, which no later pass
takes for a neuron.
"""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs

from onnxsnn.arrays import Array
from onnxsnn.graph import Graph, Node, data_input, insert, nodes_before, unique_name
from onnxsnn.operators import rectifier_limit
from onnxsnn.passes.report import Report
from onnxsnn.ratenorm import UNSET_THRESHOLD
from onnxsnn.signals import Signal, Signals, holds_weights, weighted_input
from onnxsnn.value_sizes import sized_by_values

__all__ = ["leave_analog"]


def leave_analog(graph: Graph) -> Report:
    """Rewrite these rectifiers; value-preserving."""
    report = Report("leave_analog")
    graph.toposort()
    varying = sized_by_values(graph)
    there = [n for n in graph.nodes if any(tensor.name in varying for tensor in n.inputs)]
    for node in {id(node): node for node in [*_read_out(graph), *there]}.values():
        limit = rectifier_limit(node)
        if limit is not None:
            report.actions[f"{node.op} left analog"] += 1
            _rewrite(graph, node, limit)
    weights = sum(weighted_input(node) is not None for node in there)
    if weights:
        report.warnings.append(
            f"layers of weights stay analog ({weights}): how much they read, the values decide in "
            "each step, so that no neuron can keep a potential there"
        )
    return report


def _read_out(graph: Graph) -> list[Node]:
    """The nodes that no layer of weights is behind; none where no spikes would come before."""
    signals = Signals(graph)
    read = [(node, weighted_input(node)) for node in graph.nodes]
    if not any(at is not None and signals[node.inputs[at]] is Signal.ANALOG for node, at in read):
        return []
    weighted = [node for node, at in read if at is not None or holds_weights(node)]
    before = nodes_before(tensor for node in weighted for tensor in node.inputs)
    known = {id(node) for node in [*weighted, *before]}
    return [node for node in graph.nodes if id(node) not in known]


def _rewrite(graph: Graph, node: Node, limit: Array) -> None:
    source, output = data_input(node), node.outputs[0]
    node.op, node.attrs, node.inputs = "LeakyRelu", {"alpha": 0.0}, [source]
    if np.any(limit < UNSET_THRESHOLD):
        name = unique_name(graph, f"{output.name}.rectified")
        rectified = gs.Variable(name, output.dtype, output.shape)
        node.outputs = [rectified]
        bound = gs.Constant(f"{name}.bound", np.asarray(limit, output.dtype))
        insert(graph, "Min", [rectified, bound], output)
