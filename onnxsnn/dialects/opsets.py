"""Bring a model to a newer opset, with the values that it gave.

onnx's converter rewrites what is written otherwise in newer opsets, but not two operators that
mean something else there by the same words:

1. Resize of opset 10, and Upsample, lie on the corners of pixels ("asymmetric") and round down,
   or up along axes that shrink (as ONNX Runtime does); since opset 11, Resize lies on their
   centres and rounds half down, unless told, in one way along all axes.
2. Hardmax before opset 13 is one over its axis and all behind it, and over its axis alone since.

Nor does it take a BatchNormalization that was saved in training, with the moments that it gives
beside: where nothing reads these, they go. So does the value of a Pad that repeats or reflects: it
means nothing, and would be left where no newer Pad takes it.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from functools import partial

import numpy as np
import onnx
from onnx import numpy_helper, version_converter

from onnxsnn.dialects.parts import Parts, constants_of, graphs_of, replace_nodes
from onnxsnn.errors import ModelError
from onnxsnn.graph import opset_of

__all__ = ["to_opset"]

_PAD = 11
_SCAN = 9  # the first opset in which Scan is what it is now; onnx does not convert it
_RESIZE = 11
_HARDMAX = 13


def to_opset(model: onnx.ModelProto, opset: int) -> onnx.ModelProto:
    """A model of `opset` or newer: a new one, or the same where it is so already.

    Raises:
        ModelError: onnx cannot convert it.
    """
    own = opset_of(model)
    if own >= opset:
        return model
    if own < _SCAN and any(node.op_type == "Scan" for node in model.graph.node):
        raise ModelError(
            f"Scan of opset {own} takes a batch, and is no longer what Scan is; "
            f"export the model again with opset {opset} or newer"
        )
    old = deepcopy(model)
    for graph in graphs_of(old.graph):
        _drop_moments(graph)
        if own < _PAD:
            _drop_values(graph)
        if own < _HARDMAX:
            replace_nodes(graph, _flat_hardmax)
    try:
        new = version_converter.convert_version(old, opset)
    except Exception as error:
        raise ModelError(
            f"onnx cannot convert the model from opset {own} to {opset} "
            f"({_first_line(error)}); export it again with opset {opset} or newer"
        ) from error
    if own < _RESIZE:
        for graph in graphs_of(new.graph):
            replace_nodes(graph, partial(_from_corners, constants=constants_of(graph)))
    return new


def _drop_moments(graph: onnx.GraphProto) -> None:
    """Let a BatchNormalization give its first output alone, where no other is read."""
    read = {name for node in graph.node for name in node.input}
    read |= {tensor.name for tensor in graph.output}
    for node in graph.node:
        if node.op_type == "BatchNormalization" and not read & {*node.output[1:]}:
            del node.output[1:]


def _drop_values(graph: onnx.GraphProto) -> None:
    """Let a Pad have a value only where it pads with one."""
    for node in graph.node:
        if node.op_type == "Pad":
            given = {attribute.name: attribute for attribute in node.attribute}
            if "value" in given and "mode" in given and given["mode"].s != b"constant":
                node.attribute.remove(given["value"])


def _flat_hardmax(node: onnx.NodeProto) -> list[onnx.NodeProto]:
    """A Hardmax of two axes, where it means the same in every opset; any other node as it is."""
    if node.op_type != "Hardmax":
        return [node]
    parts = Parts(node)
    flat = parts.add("Flatten", node.input[0], axis=parts.attributes.get("axis", 1))
    shape = parts.add("Shape", node.input[0])
    parts.add("Reshape", parts.add("Hardmax", flat, axis=1), shape, gives=node.output[0])
    return parts.nodes


def _from_corners(
    node: onnx.NodeProto, constants: Mapping[str, onnx.TensorProto]
) -> list[onnx.NodeProto]:
    """A Resize as it was before opset 11; any other node as it is.

    It becomes two where one axis grows and another shrinks, by their nearest.
    """
    if node.op_type != "Resize":
        return [node]
    known = constants.get(node.input[2])
    scales = np.ones(1) if known is None else numpy_helper.to_array(known)
    parts = Parts(node)
    parts.attributes["coordinate_transformation_mode"] = "asymmetric"
    nearest = parts.attributes.get("mode", b"nearest") == b"nearest"
    rounds = {"nearest_mode": "ceil" if np.any(scales < 1) else "floor"}
    read = list(parts.inputs)
    if nearest and np.any(scales < 1) and np.any(scales > 1):
        grown = parts.array(np.maximum(scales, 1))
        growing = {**parts.attributes, "nearest_mode": "floor"}
        read[0] = parts.add("Resize", read[0], read[1], grown, **growing)
        read[2] = parts.array(np.minimum(scales, 1))
    parts.add("Resize", *read, gives=parts.outputs[0], **parts.attributes, **rounds)
    return parts.nodes


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
