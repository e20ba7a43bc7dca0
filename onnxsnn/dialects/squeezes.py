"""Squeeze without axes takes all of size 1: that of the samples too, where there is one sample.

Exporters write `squeeze()` so in networks of any number of samples. There, the axes that are known
to be of size 1 get named: the samples keep theirs, and how many axes are left is known. Networks
that were written for one sample, and go on with its values in front, are told by running one.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy

import numpy as np
import onnx
from onnx import TensorProto, helper

from onnxsnn.arrays import Array
from onnxsnn.graph import from_model, opset_of
from onnxsnn.trial import same_but_for_axes, trial_values

__all__ = ["name_squeezed"]

_AXES_ARE_INPUTS = 13  # the opset since when they are no attribute
_LENGTH = 64  # of axes whose size is open, in a sample to try


def name_squeezed(model: onnx.ModelProto) -> onnx.ModelProto:
    """Name the axes of every Squeeze that names none, and reads something of an open size.

    Returns:
        a new model; the same where there is no such Squeeze, or where one sample would not give
        what it gave.

    Raises:
        ModelError: shapes cannot be inferred.
    """
    if not _known(model):
        return model
    named = deepcopy(model)
    while known := _known(named):  # each that is named may tell of more
        for node, axes in known:
            _name(named, node, axes)
    return named if same_but_for_axes(model, named, _one_sample(model)) else model


def _known(model: onnx.ModelProto) -> list[tuple[onnx.NodeProto, list[int]]]:
    """Every Squeeze without axes that reads something of an open size, and its axes of size 1."""
    squeezes = [node for node in model.graph.node if node.op_type == "Squeeze"]
    bare = [node for node in squeezes if not node.attribute and not any(node.input[1:])]
    tensors = from_model(model).tensors() if bare else {}
    shapes = [tensors[node.input[0]].shape for node in bare]
    return [
        (node, [axis for axis, size in enumerate(shape) if size == 1])
        for node, shape in zip(bare, shapes, strict=True)
        if _is_open(shape)
    ]


def _is_open(shape: Sequence[int | str | None] | None) -> bool:
    return shape is not None and not all(isinstance(size, int) for size in shape)


def _name(model: onnx.ModelProto, node: onnx.NodeProto, axes: list[int]) -> None:
    """Let a Squeeze take these axes."""
    del node.input[1:]
    if not axes:
        node.op_type = "Identity"
    elif opset_of(model) < _AXES_ARE_INPUTS:
        node.attribute.append(helper.make_attribute("axes", axes))
    else:
        name = f"{node.output[0]}.axes"
        constant = helper.make_tensor(name, TensorProto.INT64, [len(axes)], axes)
        model.graph.initializer.append(constant)
        node.input.append(name)


def _one_sample(model: onnx.ModelProto) -> dict[str, Array]:
    """What it is fed, of sizes that are open some that most networks take."""
    random = np.random.default_rng(0)
    constants = {tensor.name for tensor in model.graph.initializer}
    feeds = {}
    for tensor in model.graph.input:
        if tensor.name not in constants:
            kind = tensor.type.tensor_type
            first, *sizes = [size.dim_value for size in kind.shape.dim] or [1]
            shape = [first or 1, *(size or _LENGTH for size in sizes)][: len(kind.shape.dim)]
            dtype = helper.tensor_dtype_to_np_dtype(kind.elem_type)
            feeds[tensor.name] = trial_values(random, shape, dtype)
    return feeds
