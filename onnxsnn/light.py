"""Models without their weights, which are large: what does not read them should not copy them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import onnx

__all__ = ["is_large", "light_model", "without_values"]

_LARGE = 2**14  # values; no shape has as many axes


def is_large(tensor: onnx.TensorProto) -> bool:
    """Whether an initializer takes time to copy; such values say nothing of any shape."""
    return math.prod(tensor.dims) > _LARGE and bool(tensor.HasField("raw_data"))


def without_values(tensor: onnx.TensorProto) -> onnx.TensorProto:
    """An initializer of the same name, type and shape."""
    return onnx.TensorProto(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims)


def light_model(
    model: onnx.ModelProto, initializers: Sequence[onnx.TensorProto]
) -> onnx.ModelProto:
    """A copy of a model with other initializers, and without metadata."""
    parts = model.graph
    graph = onnx.helper.make_graph(
        parts.node,
        parts.name,
        parts.input,
        parts.output,
        initializers,
        value_info=parts.value_info,
        sparse_initializer=parts.sparse_initializer,
    )
    return onnx.helper.make_model(
        graph,
        ir_version=model.ir_version,
        opset_imports=model.opset_import,
        functions=model.functions,
    )
