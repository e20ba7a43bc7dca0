"""Let a graph that was exported for a batch of one take any batch.

The first axis of every input and output becomes symbolic, and a Reshape to a constant
shape that begins with 1 copies the batch axis instead (a 0 in its shape). Whether that is
sound the arithmetic says: the new graph must give, for a batch of two, what the old one
gives for each sample alone. Where it does not, the graph stays as it was.
"""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs

from onnxsnn.graph import Graph, constant, infer_shapes, is_static_shape, to_model, unique_name
from onnxsnn.passes.report import Report
from onnxsnn.session import Session

__all__ = ["free_batch"]

_BATCH = "N"


def free_batch(graph: Graph) -> tuple[Graph, Report]:
    """The graph with a symbolic batch axis, where it had a batch of one and that is sound."""
    report = Report("free_batch")
    if not graph.inputs or not all(_has_batch_of_one(tensor) for tensor in graph.inputs):
        return graph, report
    freed = _freed(graph)
    if freed is None or not _same_for_each_sample(graph, freed):
        report.warnings.append("the batch axis stays 1: the graph mixes or fixes it")
        return graph, report
    report.actions["batch axis made symbolic"] += 1
    return freed, report


def _has_batch_of_one(tensor: gs.Tensor) -> bool:
    return bool(tensor.shape) and tensor.shape[0] == 1 and is_static_shape(tensor.shape)


def _freed(graph: Graph) -> Graph | None:
    freed = graph.copy()
    for node in freed.nodes:
        shape = constant(node.inputs[1]) if node.op == "Reshape" else None
        source = node.inputs[0].shape if node.inputs else None
        if shape is not None and shape.size and shape[0] == 1 and source and source[0] == 1:
            name = unique_name(freed, f"{node.name}.shape")
            node.inputs[1] = gs.Constant(name, np.concatenate([[0], shape[1:]]).astype(np.int64))
    for tensor in [*freed.inputs, *freed.outputs]:
        if not tensor.shape or tensor.shape[0] != 1:
            return None
        tensor.shape = [_BATCH, *tensor.shape[1:]]
    return infer_shapes(freed)


def _same_for_each_sample(graph: Graph, freed: Graph) -> bool:
    generator = np.random.default_rng(0)
    feeds = {
        tensor.name: generator.random((2, *tensor.shape[1:])).astype(tensor.dtype)
        for tensor in graph.inputs
    }
    try:
        together = Session(to_model(freed)).run(feeds)
    except Exception:  # the graph does not take two samples: any reason will do
        return False
    alone = Session(to_model(graph)).run(feeds)  # one sample at a time: its batch is fixed
    return all(
        np.allclose(values, alone[name], rtol=1e-3, atol=1e-5) for name, values in together.items()
    )
