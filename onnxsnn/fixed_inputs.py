"""Inputs that are settings, and no samples, become constants: a sampling rate, means, a state."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy

import numpy as np
import onnx
from onnx import numpy_helper

from onnxsnn.arrays import Array, holds
from onnxsnn.errors import UsageError
from onnxsnn.functions import MINIMUM_OPSET
from onnxsnn.graph import from_model, opset_of, to_model
from onnxsnn.inputs import InputSpec
from onnxsnn.model import input_specs
from onnxsnn.passes.clean import clean

__all__ = ["fix_inputs"]


def fix_inputs(model: onnx.ModelProto, values: Mapping[str, float | Array]) -> onnx.ModelProto:
    """A copy of a model in which some inputs are constants.

    Args:
        model: any model.
        values: by input, an array of its shape, or the number that all of it holds, whatever its
            shape. Sizes that are open are those of the array, and 1 for a number; where one is 1,
            so is an open number of samples. Floats are rounded to the type of the input.

    Raises:
        UsageError: there is no such input, its shape is another than the array's, its type cannot
            hold the values, or no input is left.
        ModelError: a weight of a model that has branches holds NaN.
    """
    specs = {spec.name: spec for spec in input_specs(model)}
    for name in values:
        if name not in specs:
            raise UsageError(f"there is no input {name!r}; there are {', '.join(specs)}")
    if not specs.keys() - values.keys():
        raise UsageError("no input is left for samples; leave one out")
    constants = {name: _constant(specs[name], value) for name, value in values.items()}
    fixed = deepcopy(model)
    kept = [tensor for tensor in fixed.graph.input if tensor.name not in values]
    if any(_opens_to_one(specs[name], constant) for name, constant in constants.items()):
        for tensor in kept:
            for samples in tensor.type.tensor_type.shape.dim[:1]:
                samples.dim_value = samples.dim_value or 1
    fixed.graph.ClearField("input")
    fixed.graph.input.extend(kept)
    fixed.graph.initializer.extend(
        numpy_helper.from_array(constant, name) for name, constant in constants.items()
    )
    has_branches = any(node.op_type == "If" for node in fixed.graph.node)
    return _decided(fixed) if has_branches and opset_of(fixed) >= MINIMUM_OPSET else fixed


def _decided(model: onnx.ModelProto) -> onnx.ModelProto:
    """A model whose constants are folded, and the branches taken that they decide.

    ONNX Runtime would do so itself, but loses outputs of branches that are the same, or crashes.
    """
    graph, _ = clean(from_model(model))
    return to_model(graph)


def _opens_to_one(spec: InputSpec, values: Array) -> bool:
    """Whether a size that an input leaves open is 1."""
    return any(pair == (None, 1) for pair in zip(spec.shape, values.shape, strict=True))


def _constant(spec: InputSpec, value: float | Array) -> Array:
    return _fitted(spec, value) if isinstance(value, np.ndarray) else _filled(spec, value)


def _fitted(spec: InputSpec, values: Array) -> Array:
    """An array of an input's shape, in its type."""
    if not _takes_shape(spec, values.shape):
        wanted = ", ".join("?" if size is None else str(size) for size in spec.shape)
        raise UsageError(
            f"input {spec.name!r} takes an array of shape [{wanted}], and one of "
            f"{list(values.shape)} came"
        )
    if not _holds_all(spec, values):
        raise UsageError(
            f"input {spec.name!r} is of {spec.dtype}, which cannot hold all values of the array, "
            f"which is of {values.dtype}"
        )
    return values.astype(spec.dtype)


def _takes_shape(spec: InputSpec, shape: tuple[int, ...]) -> bool:
    return len(shape) == len(spec.shape) and all(
        wanted in (None, size) for wanted, size in zip(spec.shape, shape, strict=True)
    )


def _holds_all(spec: InputSpec, values: Array) -> bool:
    """Whether an input's type has all numbers, or for one of floats, finite ones near to them."""
    if values.dtype.kind not in "fiub" or spec.dtype.hasobject:  # text
        return False
    if not spec.takes_floats:
        return holds(spec.dtype, values)
    with np.errstate(over="ignore"):
        return bool(np.isfinite(values.astype(spec.dtype)).all())


def _filled(spec: InputSpec, number: float) -> Array:
    """An array of an input's shape and type."""
    if not _holds(spec, number):
        raise UsageError(f"input {spec.name!r} is of {spec.dtype}, which cannot hold {number}")
    return np.full([size or 1 for size in spec.shape], number, spec.dtype)


def _holds(spec: InputSpec, number: float) -> bool:
    """The same of a number."""
    try:
        values = np.asarray(number, np.float64 if spec.takes_floats else None)
    except OverflowError:
        return False
    return _holds_all(spec, values)
