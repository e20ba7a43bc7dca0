"""Inputs that are settings, and no samples, become constants: a sampling rate, a first state."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy

import numpy as np
import onnx
from onnx import numpy_helper

from onnxsnn.arrays import Array
from onnxsnn.errors import UsageError
from onnxsnn.functions import MINIMUM_OPSET
from onnxsnn.graph import from_model, opset_of, to_model
from onnxsnn.inputs import InputSpec
from onnxsnn.model import input_specs
from onnxsnn.passes.clean import clean

__all__ = ["fix_inputs"]


def fix_inputs(model: onnx.ModelProto, values: Mapping[str, float]) -> onnx.ModelProto:
    """A copy of a model in which some inputs are constants.

    Args:
        model: any model.
        values: by input, the number that all of it holds, whatever its shape; sizes that are
            open become 1, and where there are any, so does an open number of samples.

    Raises:
        UsageError: there is no such input, its type cannot hold the number, or none is left.
        ModelError: a weight of a model that has branches holds NaN.
    """
    specs = {spec.name: spec for spec in input_specs(model)}
    for name in values:
        if name not in specs:
            raise UsageError(f"there is no input {name!r}; there are {', '.join(specs)}")
    if not specs.keys() - values.keys():
        raise UsageError("no input is left for samples; leave one out")
    fixed = deepcopy(model)
    kept = [tensor for tensor in fixed.graph.input if tensor.name not in values]
    if any(None in specs[name].shape for name in values):
        for tensor in kept:
            for samples in tensor.type.tensor_type.shape.dim[:1]:
                samples.dim_value = samples.dim_value or 1
    fixed.graph.ClearField("input")
    fixed.graph.input.extend(kept)
    fixed.graph.initializer.extend(
        numpy_helper.from_array(_filled(specs[name], number), name)
        for name, number in values.items()
    )
    has_branches = any(node.op_type == "If" for node in fixed.graph.node)
    return _decided(fixed) if has_branches and opset_of(fixed) >= MINIMUM_OPSET else fixed


def _decided(model: onnx.ModelProto) -> onnx.ModelProto:
    """A model whose constants are folded, and the branches taken that they decide.

    ONNX Runtime would do so itself, but loses outputs of branches that are the same, or crashes.
    """
    graph, _ = clean(from_model(model))
    return to_model(graph)


def _filled(spec: InputSpec, number: float) -> Array:
    """An array of an input's shape and type."""
    if not _holds(spec, number):
        raise UsageError(f"input {spec.name!r} is of {spec.dtype}, which cannot hold {number}")
    return np.full([size or 1 for size in spec.shape], number, spec.dtype)


def _holds(spec: InputSpec, number: float) -> bool:
    """Whether an input's type has a number, or for one of floats, a finite one near to it."""
    if spec.dtype.hasobject:  # text
        return False
    try:
        with np.errstate(over="ignore"):
            held = spec.dtype.type(number)
    except (OverflowError, ValueError):  # of NumPy's whole numbers
        return False
    return bool(np.isfinite(held) if spec.takes_floats else held.item() == number)
