"""Models of other floating-point types, computed in float32.

Inputs and outputs keep their types: a Cast stands behind each such input and before each
such output. Only bfloat16, which NumPy has not, becomes float32 there too. What float32
cannot hold (a mask of -1.8e308, say) becomes its greatest value.
"""

from __future__ import annotations

from copy import deepcopy

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from onnxsnn.dialects.parts import graphs_of
from onnxsnn.graph import free_name

__all__ = ["other_precisions", "to_single_precision"]

_OTHERS = {
    TensorProto.FLOAT16: "float16",
    TensorProto.BFLOAT16: "bfloat16",
    TensorProto.DOUBLE: "float64",
}
_TYPE_ATTRIBUTES = {"to", "dtype", "output_dtype", "softmax_precision", "stash_type"}


def other_precisions(model: onnx.ModelProto) -> list[str]:
    """The floating-point types, other than float32, in which a model's weights or data are."""
    graph = model.graph
    types = {tensor.data_type for tensor in graph.initializer}
    types |= {value.type.tensor_type.elem_type for value in [*graph.input, *graph.output]}
    return sorted(_OTHERS[kind] for kind in types & set(_OTHERS))


def to_single_precision(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of a model without functions, in which every such type has become float32."""
    single = deepcopy(model)
    graph = single.graph
    weights = {tensor.name for tensor in graph.initializer}
    for inner in graphs_of(graph):
        for attribute in (attribute for node in inner.node for attribute in node.attribute):
            _convert_attribute(attribute)
        for tensor in inner.initializer:
            _convert_tensor(tensor)
    fed = {value.name: value for value in graph.input if value.name not in weights}
    given = [value for value in graph.output if value.name not in fed]
    before = [_cast_input(graph, value) for value in fed.values() if _is_cast(value)]
    after = [_cast_output(graph, value) for value in given if _is_cast(value)]
    nodes = [*before, *graph.node, *after]
    del graph.node[:]
    graph.node.extend(nodes)
    cast = {value.name for value in [*fed.values(), *graph.output] if _is_cast(value)}
    for inner in graphs_of(graph):
        for value in [*inner.value_info, *inner.input, *inner.output]:
            if value.type.tensor_type.elem_type in _OTHERS and value.name not in cast:
                value.type.tensor_type.elem_type = TensorProto.FLOAT
    return single


def _is_cast(value: onnx.ValueInfoProto) -> bool:
    return value.type.tensor_type.elem_type in (TensorProto.FLOAT16, TensorProto.DOUBLE)


def _convert_attribute(attribute: onnx.AttributeProto) -> None:
    if attribute.name in _TYPE_ATTRIBUTES and attribute.i in _OTHERS:
        attribute.i = TensorProto.FLOAT
    if attribute.HasField("t"):
        _convert_tensor(attribute.t)


def _convert_tensor(tensor: TensorProto) -> None:
    if tensor.data_type not in _OTHERS:
        return
    values = numpy_helper.to_array(tensor)
    limits = np.finfo(np.float32)
    with np.errstate(over="ignore"):
        single = np.asarray(values).astype(np.float32)
    overflow = np.isinf(single) & np.isfinite(values.astype(np.float64))
    single = np.where(overflow, np.clip(single, limits.min, limits.max), single)
    tensor.CopyFrom(numpy_helper.from_array(single, tensor.name))


def _cast_input(graph: onnx.GraphProto, value: onnx.ValueInfoProto) -> onnx.NodeProto:
    """Let every reader of an input read it in float32; the node that makes it so."""
    single = _new_name(graph, value)
    _rename(graph, value.name, single)
    return helper.make_node("Cast", [value.name], [single], f"{single}/Cast", to=TensorProto.FLOAT)


def _cast_output(graph: onnx.GraphProto, value: onnx.ValueInfoProto) -> onnx.NodeProto:
    """Let an output be the cast of what the graph computes; the node that makes it so."""
    single = _new_name(graph, value)
    _rename(graph, value.name, single)
    kind = value.type.tensor_type.elem_type
    return helper.make_node("Cast", [single], [value.name], f"{value.name}/Cast", to=kind)


def _rename(graph: onnx.GraphProto, name: str, new: str) -> None:
    """Let nodes read and write a tensor under another name."""
    nodes = (node for inner in graphs_of(graph) for node in inner.node)
    for names in (names for node in nodes for names in (node.input, node.output)):
        for position, found in enumerate(names):
            if found == name:
                names[position] = new


def _new_name(graph: onnx.GraphProto, value: onnx.ValueInfoProto) -> str:
    taken = {name for node in graph.node for name in node.output}
    return free_name(taken, f"{value.name}.float32")
