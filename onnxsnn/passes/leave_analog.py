"""Where values decide how many there are, rectifiers are no neurons, and stay what they compute.

Behind NonMaxSuppression there are as many boxes as were found in this step, so that a potential
would have no place of its own. A rectifier there becomes LeakyRelu of slope 0, and a Min where it
clips: the same values, which no later pass takes for a neuron.
"""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs

from onnxsnn.arrays import Array
from onnxsnn.graph import Graph, Node, data_input, insert, unique_name
from onnxsnn.operators import rectifier_limit
from onnxsnn.passes.report import Report
from onnxsnn.ratenorm import UNSET_THRESHOLD
from onnxsnn.signals import weighted_input
from onnxsnn.value_sizes import sized_by_values

__all__ = ["leave_analog"]


def leave_analog(graph: Graph) -> Report:
    """Rewrite the rectifiers whose size the values decide; value-preserving."""
    report = Report("leave_analog")
    graph.toposort()
    varying = sized_by_values(graph)
    there = [n for n in graph.nodes if any(tensor.name in varying for tensor in n.inputs)]
    for node in there:
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


def _rewrite(graph: Graph, node: Node, limit: Array) -> None:
    source, output = data_input(node), node.outputs[0]
    node.op, node.attrs, node.inputs = "LeakyRelu", {"alpha": 0.0}, [source]
    if np.any(limit < UNSET_THRESHOLD):
        name = unique_name(graph, f"{output.name}.rectified")
        rectified = gs.Variable(name, output.dtype, output.shape)
        node.outputs = [rectified]
        bound = gs.Constant(f"{name}.bound", np.asarray(limit, output.dtype))
        insert(graph, "Min", [rectified, bound], output)
