"""Gathers that take all of a flat tensor in order, as exporters write torch.as_strided.

The indices are 0, 1, 2, ... in the shape that the tensor had before it was made flat, so that
nothing happens; yet rows are read by their places, and samples seem to be mixed. Indices that are
computed from shapes alone are computed for a few samples to see whether they are so.
"""

from __future__ import annotations

import numpy as np

from onnxsnn.errors import OnnxSnnError
from onnxsnn.graph import (
    Graph,
    Node,
    Tensor,
    bypass,
    constant,
    is_static_shape,
    part_up_to,
    reads_values,
    to_model,
    zeros,
)
from onnxsnn.passes.report import Report
from onnxsnn.session import Session

__all__ = ["remove_strides"]

_SAMPLES = 3


def remove_strides(graph: Graph, report: Report) -> None:
    """Take such Gathers out; what made their input flat goes where nothing else reads it."""
    for node in list(graph.nodes):
        source = _flattened(node)
        if source is not None and _in_order(graph, node.inputs[1], source):
            bypass(graph, node, source)
            report.actions["Gather of all in order removed"] += 1


def _flattened(node: Node) -> Tensor | None:
    """What a Gather reads, before it was made flat, where its output has the same shape again."""
    flat = node.inputs[0].inputs[0] if node.op == "Gather" and node.inputs[0].inputs else None
    if flat is None or flat.op != "Reshape":
        return None
    source, target = flat.inputs[0], constant(flat.inputs[1])
    if target is None or target.tolist() != [-1]:
        return None
    before, after = source.shape, node.outputs[0].shape
    return source if before and after and before[1:] == after[1:] else None


def _in_order(graph: Graph, indices: Tensor, source: Tensor) -> bool:
    """Whether the indices are 0, 1, 2, ... in the shape of the source."""
    sized = all(is_static_shape(tensor.shape) for tensor in graph.inputs)
    if not sized or reads_values(graph, indices):
        return False
    try:
        part = to_model(part_up_to(graph, [indices.name, source.name]))
        found, values = Session(part).run(zeros(graph, _SAMPLES)).values()
    except OnnxSnnError:
        return False
    return np.array_equal(found, np.arange(values.size).reshape(values.shape))
