"""Let a graph that was exported for a batch of one take any batch.

1. The first axis of every input and output becomes symbolic. A Reshape to a constant shape copies
   axes of 1 instead (a 0 in its shape), or lets its first axis take what is left (a -1), as where
   samples and heads lie along one axis. Constants of one sample beside others in a Concat (class
   tokens) or GatherElements are repeated, and sizes of a Resize begin with the batch's. Whether
   that is sound the arithmetic says: the new graph must give, for a batch of two, what the old one
   gives for each sample alone. Where it does not, the graph stays as it was.
2. A graph whose batch is symbolic, and that takes one sample but not two all the same (an
   exporter wrote the 1 into it somewhere), gets a batch of one, so that samples are run one
   at a time.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_graphsurgeon as gs

from onnxsnn.arrays import Array
from onnxsnn.graph import (
    Graph,
    constant,
    infer_shapes,
    insert,
    is_static_shape,
    to_model,
    unique_name,
)
from onnxsnn.passes.report import Report
from onnxsnn.session import Session

__all__ = ["free_batch"]

_BATCH = "N"


def free_batch(graph: Graph) -> tuple[Graph, Report]:
    """The graph with a symbolic batch axis, where it had a batch of one and that is sound."""
    report = Report("free_batch")
    if graph.inputs and all(_has_open_batch(tensor) for tensor in graph.inputs):
        return _fixed_where_needed(graph, report), report
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


def _has_open_batch(tensor: gs.Tensor) -> bool:
    return is_static_shape(tensor.shape) and bool(tensor.shape) and not _is_size(tensor.shape[0])


def _is_size(size: int | str | None) -> bool:
    return isinstance(size, int)


def _fixed_where_needed(graph: Graph, report: Report) -> Graph:
    if _runs(graph, 2) or not _runs(graph, 1):
        return graph
    for tensor in graph.inputs:
        tensor.shape = [1, *tensor.shape[1:]]
    for tensor in graph.outputs:
        if tensor.shape:
            tensor.shape = [1, *tensor.shape[1:]]
    report.actions["batch axis fixed at 1"] += 1
    report.warnings.append("the graph takes one sample at a time, whatever its inputs' shapes say")
    return infer_shapes(graph)


def _runs(graph: Graph, samples: int) -> bool:
    try:
        Session(to_model(graph)).run(_random(graph, samples))
    except Exception:  # ONNX Runtime's are not of one class
        return False
    return True


def _random(graph: Graph, samples: int) -> dict[str, Array]:
    generator = np.random.default_rng(0)
    return {
        tensor.name: generator.random((samples, *tensor.shape[1:])).astype(tensor.dtype)
        for tensor in graph.inputs
    }


def _freed(graph: Graph) -> Graph | None:
    freed = graph.copy()
    for node in list(freed.nodes):
        if node.op in _FREES:
            _FREES[node.op](freed, node)
    for tensor in [*freed.inputs, *freed.outputs]:
        if not tensor.shape or tensor.shape[0] != 1:
            return None
        tensor.shape = [_BATCH, *tensor.shape[1:]]
    return infer_shapes(freed)


def _free_reshape(graph: Graph, node: gs.Node) -> None:
    """Copy axes of 1, and a first axis that stays; else let the first take what is left."""
    written = constant(node.inputs[1])
    source, target = node.inputs[0].shape, node.outputs[0].shape
    if written is None or not written.size or not source:
        return
    if node.attrs.get("allowzero", 0) and not np.all(written):
        return  # an axis of no values
    known = is_static_shape(target)
    shape = np.array(target if known else written, np.int64)
    for axis, (before, after) in enumerate(zip(source, shape, strict=False)):
        if before == after and (after == 1 or axis == 0):
            shape[axis] = 0
    if known and shape[0] != 0:
        shape[0] = -1
    node.inputs[1] = gs.Constant(unique_name(graph, f"{node.name}.shape"), shape)
    node.attrs.pop("allowzero", None)  # here, 0 says: copy


def _repeat_constants(graph: Graph, node: gs.Node) -> None:
    """Repeat constants of one sample for as many as are beside them."""
    beside = [tensor for tensor in node.inputs if constant(tensor) is None]
    for position, tensor in enumerate(node.inputs):
        values = constant(tensor)
        if beside and node.attrs.get("axis", 0) and values is not None and values.shape[:1] == (1,):
            each = gs.Variable(unique_name(graph, f"{tensor.name}.each"), values.dtype)
            insert(graph, "Expand", [tensor, _sizes(graph, beside[0], values.shape[1:])], each)
            node.inputs[position] = each


def _free_resize(graph: Graph, node: gs.Node) -> None:
    """Sizes to resize to that begin with the batch's."""
    sizes = constant(node.inputs[3]) if len(node.inputs) > 3 else None
    if sizes is not None and "axes" not in node.attrs:
        node.inputs[3] = _sizes(graph, node.inputs[0], sizes[1:])


_FREES = {
    "Concat": _repeat_constants,
    "GatherElements": _repeat_constants,
    "Reshape": _free_reshape,
    "Resize": _free_resize,
}


def _sizes(graph: Graph, tensor: gs.Tensor, others: Sequence[int] | Array) -> gs.Tensor:
    """The batch size of a tensor, and these behind it, as a vector."""
    shape, batch, sizes = (
        gs.Variable(unique_name(graph, f"{tensor.name}.{part}"), np.int64)
        for part in ("shape", "batch", "sizes")
    )
    first, rest = (
        gs.Constant(unique_name(graph, f"{tensor.name}.{part}"), np.array(values, np.int64))
        for part, values in (("first", [0]), ("rest", others))
    )
    insert(graph, "Shape", [tensor], shape)
    insert(graph, "Gather", [shape, first], batch, attrs={"axis": 0})
    insert(graph, "Concat", [batch, rest], sizes, attrs={"axis": 0})
    return sizes


def _same_for_each_sample(graph: Graph, freed: Graph) -> bool:
    feeds = _random(graph, 2)
    try:
        together = Session(to_model(freed)).run(feeds)
    except Exception:  # the graph does not take two samples: any reason will do
        return False
    alone = Session(to_model(graph)).run(feeds)  # one sample at a time: its batch is fixed
    return all(
        np.allclose(values, alone[name], rtol=1e-3, atol=1e-5) for name, values in together.items()
    )
