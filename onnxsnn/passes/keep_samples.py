"""Keep the axis of the samples where a graph for one sample drops it.

Networks that were written for one sample squeeze its axis away, flatten all there is, or take the
first of one, and go on without. Behind such a node, every tensor gets the axis back in front: what
works value by value or on the last axes stays as it is, axes that are counted from the front move
by one, and sizes get a 1 in front. Where a node puts an axis of size 1 in front itself, that is the
samples' again. Whether this is sound, a run on several samples has to say.
"""

from __future__ import annotations

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from onnxsnn.errors import ModelError
from onnxsnn.graph import (
    Graph,
    Node,
    Tensor,
    constant,
    insert,
    is_static_shape,
    resized,
    unique_name,
)
from onnxsnn.weights import weight_layer, write_as_matmul

__all__ = ["keep_samples"]


def keep_samples(graph: Graph) -> Graph | None:
    """The graph with samples in front in all that depends on them.

    Args:
        graph: for one sample, with the shapes of all tensors; it stays as it is.

    Returns:
        the new graph; None where nothing drops the samples, or something does not take them back.
    """
    kept = graph.copy()
    kept.toposort()
    lacking: set[str] = set()  # tensors whose shapes, as they were, have no samples
    for node in list(kept.nodes):
        if any(tensor.name in lacking for tensor in node.inputs):
            if not _moves(kept, node, lacking):
                return None
        elif _drops(node) and not _resize(kept, node, lacking):
            return None
    if not lacking:
        return None
    for tensor in kept.outputs:
        if tensor.name in lacking and tensor.shape[:1] == [1] and not _merge(kept, tensor):
            return None
    try:
        return resized(kept, lambda tensor: tensor.shape)
    except ModelError:  # a node does not take one axis more
        return None


_RESIZES = {"Flatten", "Reshape", "Squeeze", "Unsqueeze"}


def _drops(node: Node) -> bool:
    """Whether a node takes the first axis, of size 1, away."""
    source, shape = node.inputs[0] if node.inputs else None, node.outputs[0].shape
    if source is None or constant(source) is not None or not source.shape or shape is None:
        return False
    takes = node.op in _RESIZES or _takes_one(node)
    return takes and source.shape[0] == 1 and shape[:1] != [1]


def _takes_one(node: Node) -> bool:
    """Whether a node takes one along the first axis."""
    if node.op != "Gather" or node.attrs.get("axis", 0) != 0:
        return False
    index = constant(node.inputs[1])
    return index is not None and index.ndim == 0


def _resize(graph: Graph, node: Node, lacking: set[str]) -> bool:
    """Let a node, which changes no value, give its shape with samples in front, if it is known."""
    shape = list(node.outputs[0].shape)
    if not all(isinstance(size, int) for size in shape):
        return False
    if shape[:1] != [1]:
        lacking.add(node.outputs[0].name)
        shape = [1, *shape]
    name = unique_name(graph, f"{node.name}.shape")
    node.op, node.attrs = "Reshape", {}
    node.inputs = [node.inputs[0], gs.Constant(name, np.array(shape, np.int64))]
    return True


def _moves(graph: Graph, node: Node, lacking: set[str]) -> bool:
    """Let a node read what has samples in front now; whether that can be said."""
    shapes = [tensor.shape for tensor in node.inputs if tensor.name in lacking]
    if any(shape is None for shape in [*shapes, *(tensor.shape for tensor in node.outputs)]):
        return False
    if node.op in _RESIZES:
        return _resize(graph, node, lacking)
    axes = max(map(len, shapes))
    lacking.update(tensor.name for tensor in node.outputs if len(tensor.shape) <= axes)
    return _move_gemm(graph, node) if node.op == "Gemm" else _move_axes(graph, node, axes)


def _move_gemm(graph: Graph, node: Node) -> bool:
    """Write a Gemm as what takes three axes, if it is a layer of weights."""
    layer = weight_layer(graph, node)
    if layer is not None:
        write_as_matmul(layer, node.inputs[0], node.outputs[0])
    return layer is not None


def _move_axes(graph: Graph, node: Node, axes: int) -> bool:
    """Move what a node counts axes by, from the front, by one; whether all of it is known.

    Args:
        graph: the graph.
        node: a node of it.
        axes: how many what it reads had.
    """
    if node.op == "Transpose":
        order = node.attrs.get("perm", range(axes)[::-1])
        node.attrs["perm"] = [0, *(axis + 1 for axis in order)]
        return True
    try:
        schema = onnx.defs.get_schema(node.op, graph.opset, node.domain or "")
    except onnx.defs.SchemaError:
        return False
    if "axis" in schema.attributes:
        axis = node.attrs.get("axis", schema.attributes["axis"].default_value.i)
        node.attrs["axis"] = _moved(axis)
    if "axes" in schema.attributes:
        node.attrs["axes"] = [_moved(axis) for axis in node.attrs.get("axes", range(axes))]
    names = [entry.name for entry in schema.inputs]
    return "axes" not in names or _move_input(graph, node, names.index("axes"), axes)


def _move_input(graph: Graph, node: Node, position: int, axes: int) -> bool:
    """Move the axes that are an input: all, or as many as a Slice has starts, if it is left out."""
    given = node.inputs[position] if position < len(node.inputs) else gs.Variable.empty()
    values = constant(given)
    if values is None and not given.is_empty():
        return False
    starts = constant(node.inputs[1]) if node.op == "Slice" else None
    found = np.arange(axes if starts is None else starts.size) if values is None else values
    moved = np.array([_moved(int(axis)) for axis in found], np.int64)
    axes_now = gs.Constant(unique_name(graph, f"{node.name}.axes"), moved)
    node.inputs = [*node.inputs[:position], axes_now, *node.inputs[position + 1 :]]
    return True


def _moved(axis: int) -> int:
    return axis + 1 if axis >= 0 else axis


def _merge(graph: Graph, tensor: Tensor) -> bool:
    """Let an output whose first axis is of size 1, which passes for that of the samples, be so.

    Returns:
        whether its other sizes are known, so that it can.
    """
    if not is_static_shape(tensor.shape):
        return False
    (node,) = tensor.inputs
    apart = gs.Variable(unique_name(graph, f"{tensor.name}.apart"), tensor.dtype)
    node.outputs = [apart if output is tensor else output for output in node.outputs]
    sizes = np.array([-1, *tensor.shape[1:]], np.int64)
    shape = gs.Constant(unique_name(graph, f"{tensor.name}.shape"), sizes)
    insert(graph, "Reshape", [apart, shape], tensor)
    return True
