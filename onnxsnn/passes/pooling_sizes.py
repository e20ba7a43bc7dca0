"""Poolings round their sizes down where rounding up gives no more.

Of poolings that round up, onnx's inference counts windows that would lie behind the data, of which
ONNX Runtime makes none: ONNX says so since opset 22. What follows from such sizes would be wrong.

1. One that gains no window along any axis rounds down.
2. One that gains some along one axis, and none along another, becomes two: windows along both axes
   are windows along one, and of these along the other. Indices of a MaxPool are of the whole: where
   it gives them, it stays.
"""

from __future__ import annotations

from typing import Any

import onnx_graphsurgeon as gs

from onnxsnn.graph import Graph, Node, insert, unique_name

__all__ = ["round_down"]

_POOLS = {"AveragePool", "LpPool", "MaxPool"}


def round_down(graph: Graph) -> bool:
    """Let poolings round down along the axes where they gain nothing; whether some do.

    Sizes behind follow from it, and are to be inferred anew.
    """
    changed = False
    for node in [node for node in graph.nodes if node.op in _POOLS]:
        gained = _windows_gained(node)
        vain = [axis for axis, is_real in gained.items() if not is_real]
        if not vain or (any(gained.values()) and len(node.outputs) > 1):
            continue
        if any(gained.values()):
            _pool_first(graph, node, vain)
        del node.attrs["ceil_mode"]
        changed = True
    return changed


def _pool_first(graph: Graph, node: Node, axes: list[int]) -> None:
    """Let a pooling pool along some axes of space, and another behind it along the others."""
    (output,) = node.outputs
    others = [axis for axis in range(len(node.attrs["kernel_shape"])) if axis not in axes]
    between = gs.Variable(unique_name(graph, f"{node.name}.between"), output.dtype)
    node.outputs = [between]
    insert(graph, node.op, [between], output, attrs=_pooling_along(node, others))
    node.attrs = _pooling_along(node, axes)


def _pooling_along(node: Node, axes: list[int]) -> dict[str, Any]:
    """The attributes of a pooling, for windows along some of its axes of space alone."""
    count = len(node.attrs["kernel_shape"])
    single = {"kernel_shape": 1, "strides": 1, "dilations": 1, "pads": 0}
    changed = {
        name: [value if at % count in axes else one for at, value in enumerate(node.attrs[name])]
        for name, one in single.items()
        if name in node.attrs
    }
    return {**node.attrs, **changed}


def _windows_gained(node: Node) -> dict[int, bool]:
    """By axis of space along which rounding up seems to gain a pooling a window, whether it does.

    It does if the window begins in the data, or before.
    """
    sizes = (node.inputs[0].shape or [])[2:]
    if not node.attrs.get("ceil_mode", 0) or not all(isinstance(size, int) for size in sizes):
        return {}
    if node.attrs.get("auto_pad", "NOTSET").startswith("SAME"):
        return {}
    ones = [1] * len(sizes)
    pads = node.attrs.get("pads", [0, 0] * len(sizes))
    strides, dilations = (node.attrs.get(name, ones) for name in ("strides", "dilations"))
    gained = {}
    for axis, (size, taps) in enumerate(zip(sizes, node.attrs["kernel_shape"], strict=True)):
        room = size + pads[axis] + pads[axis + len(sizes)] - (taps - 1) * dilations[axis] - 1
        start = -(-room // strides[axis]) * strides[axis]  # of the last window
        if start > room:
            gained[axis] = start < size + pads[axis]
    return gained
