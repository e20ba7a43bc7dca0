"""One form for what ONNX writes in several: the vocabulary of exported networks.

    Conv            weight [outputs, inputs / groups, *kernel], bias [outputs]; kernel, strides,
                    pads, dilations, groups
    ConvTranspose   weight [inputs, outputs / groups, *kernel], bias [outputs]; the same, and
                    output_padding
    Linear          weight [outputs, inputs], bias [outputs], over the last axis
    AveragePool     kernel, strides, pads, include_padding
    MaxPool         kernel, strides, pads
    Mean            axes, keepdims
    Add, Subtract   of two tensors or more
    Scale, Shift    times, or plus, an array that broadcasts to a sample
    Rectify         what is below 0 becomes 0
    Limit           what is above an array that broadcasts becomes that
    Concat          axis
    Pad             with zeros; pads
    Slice           along every axis from starts, in steps
    Take            along axis, at an array of indices; a single one takes the axis away
    Repeat          every value so many times along every axis: factors
    Reshape         to the shape of what it gives
    Transpose       order
    RunningSum, RunningMean, DelayedMean (delay), SumIncrement, MeanIncrement, SumToMean
                    the forms of tensors in time (`onnxsnn.passes.spike`)
    neurons         threshold, v0, and the neuron's own settings (`onnxsnn.neurons`)

`pads` are those before the data, axis by axis, followed by those behind. Axes are counted
without the batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs

from onnxsnn.arrays import Array
from onnxsnn.errors import UnsupportedError
from onnxsnn.graph import Graph, Node, Tensor, constant, describe, is_static_shape
from onnxsnn.neurons import NEURONS
from onnxsnn.operators import LONGEST, reduced_axes, slice_bounds
from onnxsnn.padding import same_paddings
from onnxsnn.weights import weight_layer

__all__ = ["RULES", "Context", "Form", "as_in_onnx", "sizes_of"]


@dataclass(frozen=True)
class Context:
    """What a rule may need beside the node.

    Attributes:
        defaults: the states before the first step, by name.
        steps: names of the tensors that count the steps.
    """

    graph: Graph
    defaults: dict[str, Array]
    steps: set[str]


@dataclass(frozen=True)
class Form:
    """An operation's operator, the tensors that it reads, its settings and arrays."""

    operator: str
    inputs: list[Tensor]
    settings: dict[str, Any] = field(default_factory=dict)
    arrays: dict[str, Array] = field(default_factory=dict)


def sizes_of(tensor: Tensor, where: str) -> list[int]:
    """The shape of a sample of `tensor`.

    Raises:
        UnsupportedError: a size is not known, or the samples are not in front.
    """
    shape = tensor.shape
    if shape and isinstance(shape[0], int) and sum(isinstance(size, str) for size in shape) == 1:
        raise UnsupportedError(
            f"{where}: {tensor.name!r} does not have its samples in front ({shape}), and files "
            "other than ONNX are of one sample; put the batch first throughout in the source model"
        )
    if not is_static_shape(shape):
        raise UnsupportedError(
            f"{where}: the size of {tensor.name!r} is not fixed ({shape}), and files other than "
            "ONNX need it; export the source model with fixed sizes and convert it again"
        )
    return [int(size) for size in shape[1:]]


def as_in_onnx(node: Node, context: Context) -> Form:
    """Any node as it is: its attributes as settings, its constants as arrays `input0`, ...."""
    moving = [t for t in node.inputs if constant(t) is None and not t.is_empty()]
    arrays = {f"input{i}": t.values for i, t in enumerate(node.inputs) if constant(t) is not None}
    inputs = [tensor for tensor in moving if tensor.name not in context.defaults]
    return Form(node.op, inputs, _settings(node), arrays)


def _settings(node: Node) -> dict[str, Any]:
    arrays = {
        name: value.values if isinstance(value, gs.Constant) else value
        for name, value in node.attrs.items()
        if not hasattr(value, "nodes")
    }
    return {
        name: value.tolist() if hasattr(value, "tolist") else value
        for name, value in arrays.items()
    }


def _of_sample(values: Array, axes: int) -> Array:
    """A constant that broadcasts against a batch of `axes` axes, for one sample."""
    return values[0] if values.ndim == axes and len(values) == 1 else values


def _neuron(node: Node, context: Context) -> Form:
    current, theta, potential = node.inputs[:3]
    axes = len(node.outputs[0].shape)
    start, _ = np.broadcast_arrays(context.defaults[potential.name], theta.values)
    arrays = {"threshold": _of_sample(theta.values, axes), "v0": _of_sample(start, axes)}
    return Form(node.op, [current], _settings(node), arrays)


def _in_time(node: Node, context: Context) -> Form:  # noqa: ARG001
    return Form(node.op, node.inputs[:1], _settings(node))


def _convolution(node: Node, context: Context) -> Form | None:
    layer = weight_layer(context.graph, node)
    window = None if layer is None else _window(node, list(layer.weight.shape[2:]))
    if layer is None or window is None:
        return None
    ones = [1] * len(window["kernel"])
    settings = {
        **window,
        "dilations": list(node.attrs.get("dilations", ones)),
        "groups": int(node.attrs.get("group", 1)),
    }
    if node.op == "ConvTranspose":
        if "output_shape" in node.attrs:
            return None
        zeros = [0] * len(ones)
        settings["output_padding"] = list(node.attrs.get("output_padding", zeros))
    return Form(node.op, node.inputs[:1], settings, {"weight": layer.weight, "bias": layer.bias})


def _linear(node: Node, context: Context) -> Form | None:
    layer = weight_layer(context.graph, node)
    if layer is None:
        return None
    weight = layer.weight if node.attrs.get("transB", 0) else layer.weight.T
    bias = np.broadcast_to(layer.bias.reshape(-1), (len(weight),))
    return Form("Linear", node.inputs[:1], {}, {"weight": weight, "bias": bias})


def _pool(node: Node, context: Context) -> Form | None:  # noqa: ARG001
    window = _window(node, list(node.attrs["kernel_shape"]))
    spread = any(size != 1 for size in node.attrs.get("dilations", []))
    if window is None or spread or node.attrs.get("ceil_mode", 0):
        return None
    if sum(bool(tensor.name) for tensor in node.outputs) > 1:
        return None
    included = {"include_padding": bool(node.attrs.get("count_include_pad", 0))}
    return Form(node.op, node.inputs, window | (included if node.op == "AveragePool" else {}))


def _window(node: Node, kernel: list[int]) -> dict[str, Any] | None:
    """Kernel, strides and pads of a convolution or a pooling."""
    strides = list(node.attrs.get("strides", [1] * len(kernel)))
    pads = list(node.attrs.get("pads", [0] * (2 * len(kernel))))
    padding = node.attrs.get("auto_pad", "NOTSET")
    if padding in ("SAME_UPPER", "SAME_LOWER"):
        if node.op == "ConvTranspose":
            return None
        sizes = sizes_of(node.inputs[0], describe(node))[1:]
        before, behind = zip(*same_paddings(node, kernel, sizes), strict=True)
        pads = [*before, *behind]
    return {"kernel": kernel, "strides": strides, "pads": pads}


def _mean(node: Node, context: Context) -> Form | None:  # noqa: ARG001
    of_space = list(range(2, len(node.inputs[0].shape)))
    over = of_space if node.op == "GlobalAveragePool" else sorted(reduced_axes(node) or [])
    if not over or 0 in over:
        return None
    keepdims = node.op == "GlobalAveragePool" or bool(node.attrs.get("keepdims", 1))
    return Form("Mean", node.inputs[:1], {"axes": [a - 1 for a in over], "keepdims": keepdims})


def _arithmetic(node: Node, context: Context) -> Form | None:
    """Of tensors, of one and an array, or by the number of steps so far."""
    moving = [tensor for tensor in node.inputs if constant(tensor) is None]
    if node.op == "Div" and node.inputs[1].name in context.steps:
        return Form("SumToMean", node.inputs[:1])
    if len(moving) == len(node.inputs):
        return Form(_OF_TENSORS[node.op], moving) if node.op in _OF_TENSORS else None
    if len(node.inputs) != 2 or len(moving) != 1 or node.op not in _BY_ARRAY:
        return None
    operator, values_of = _BY_ARRAY[node.op]
    (values,) = (tensor.values for tensor in node.inputs if constant(tensor) is not None)
    if node.op in ("Sub", "Div") and moving[0] is not node.inputs[0]:
        return None
    values = _of_sample(values, len(node.outputs[0].shape))
    return Form(operator, moving, {}, {operator.lower(): values_of(values)})


_OF_TENSORS = {"Add": "Add", "Sub": "Subtract"}
_BY_ARRAY: dict[str, tuple[str, Callable[[Array], Array]]] = {
    "Add": ("Shift", np.array),
    "Sub": ("Shift", np.negative),
    "Mul": ("Scale", np.array),
    "Div": ("Scale", np.reciprocal),
    "Min": ("Limit", np.array),
}


def _rectifier(node: Node, context: Context) -> Form | None:  # noqa: ARG001
    return Form("Rectify", node.inputs) if node.attrs.get("alpha") == 0 else None


def _concat(node: Node, context: Context) -> Form | None:  # noqa: ARG001
    axis = int(node.attrs["axis"]) % len(node.outputs[0].shape)
    if axis == 0 or any(constant(tensor) is not None for tensor in node.inputs):
        return None
    return Form("Concat", node.inputs, {"axis": axis - 1})


def _pad(node: Node, context: Context) -> Form | None:  # noqa: ARG001
    pads, value = ([*map(constant, node.inputs[1:]), None, None])[:2]
    zero = len(node.inputs) < 3 or (value is not None and not np.any(value))
    if (
        pads is None
        or not zero
        or len(node.inputs) > 3
        or node.attrs.get("mode", "constant") != "constant"
    ):
        return None
    before, behind = pads.reshape(2, -1).tolist()
    if before[0] or behind[0]:
        return None
    return Form("Pad", node.inputs[:1], {"pads": before[1:] + behind[1:]})


def _slice(node: Node, context: Context) -> Form | None:  # noqa: ARG001
    sizes = sizes_of(node.inputs[0], describe(node))
    axes = len(sizes) + 1
    bounds = slice_bounds(node)
    if bounds is None:
        return None
    starts, steps = [0] * len(sizes), [1] * len(sizes)
    for start, end, axis, step in bounds:
        at = axis % axes - 1
        if at < 0:
            if (start, step) == (0, 1) and end >= LONGEST:  # TensorFlow names every axis
                continue
            return None
        starts[at], _, steps[at] = slice(int(start), int(end), int(step)).indices(sizes[at])
    return Form("Slice", node.inputs[:1], {"starts": starts, "steps": steps})


def _take(node: Node, context: Context) -> Form | None:  # noqa: ARG001
    values, indices = node.inputs
    places = constant(indices)
    if places is None or places.ndim > 1 or constant(values) is not None:
        return None
    sizes = sizes_of(values, describe(node))
    axis = int(node.attrs.get("axis", 0)) % (len(sizes) + 1)
    if axis == 0:
        return None
    return Form("Take", [values], {"axis": axis - 1}, {"indices": places % sizes[axis - 1]})


def _repeat(node: Node, context: Context) -> Form | None:  # noqa: ARG001
    """A Resize to whole multiples, each value being the nearest one's."""
    before, after = (sizes_of(t, describe(node)) for t in (node.inputs[0], node.outputs[0]))
    factors = [large // small for large, small in zip(after, before, strict=True)]
    scales = constant(node.inputs[2]) if len(node.inputs) > 2 else None
    given = [1, *factors] if scales is None or scales.size == 0 else scales.tolist()
    modes = (
        node.attrs.get("coordinate_transformation_mode", "half_pixel"),
        node.attrs.get("nearest_mode", "round_prefer_floor"),
    )
    whole = [f * size for f, size in zip(factors, before, strict=True)] == after
    nearest = node.attrs.get("mode", "nearest") == "nearest" and modes in _NEAREST
    if not (whole and nearest and given == [1, *factors]):
        return None
    return Form("Repeat", node.inputs[:1], {"factors": factors})


_NEAREST = {
    ("asymmetric", "floor"),
    ("half_pixel", "round_prefer_floor"),
    ("half_pixel", "round_prefer_ceil"),
    ("pytorch_half_pixel", "round_prefer_floor"),
    ("pytorch_half_pixel", "round_prefer_ceil"),
}
"""Modes in which as many values are nearest to each, where sizes grow by whole factors."""


def _tile(node: Node, context: Context) -> Form | None:  # noqa: ARG001
    """A Tile of axes of size 1, where to repeat a tensor is to repeat its values."""
    sizes, counts = sizes_of(node.inputs[0], describe(node)), constant(node.inputs[1])
    if counts is None or counts[0] != 1:
        return None
    if any(size > 1 and count > 1 for size, count in zip(sizes, counts[1:], strict=True)):
        return None
    return Form("Repeat", node.inputs[:1], {"factors": counts[1:].tolist()})


def _reshape(node: Node, context: Context) -> Form | None:  # noqa: ARG001
    before, after = (sizes_of(t, describe(node)) for t in (node.inputs[0], node.outputs[0]))
    return Form("Reshape", node.inputs[:1]) if math.prod(before) == math.prod(after) else None


def _transpose(node: Node, context: Context) -> Form | None:  # noqa: ARG001
    axes = list(range(len(node.inputs[0].shape)))
    first, *order = node.attrs.get("perm", axes[::-1])
    return Form("Transpose", node.inputs, {"order": [a - 1 for a in order]}) if first == 0 else None


RULES: dict[str, Callable[[Node, Context], Form | None]] = {
    "Conv": _convolution,
    "ConvTranspose": _convolution,
    "Gemm": _linear,
    "MatMul": _linear,
    "AveragePool": _pool,
    "MaxPool": _pool,
    "GlobalAveragePool": _mean,
    "ReduceMean": _mean,
    **dict.fromkeys(["Add", "Sub", "Mul", "Div", "Min"], _arithmetic),
    "LeakyRelu": _rectifier,
    "Concat": _concat,
    "Pad": _pad,
    "Slice": _slice,
    "Gather": _take,
    "Resize": _repeat,
    "Tile": _tile,
    **dict.fromkeys(["Flatten", "Identity", "Reshape", "Squeeze", "Unsqueeze"], _reshape),
    "Transpose": _transpose,
    **dict.fromkeys(["RunningSum", "RunningMean", "DelayedMean"], _in_time),
    **dict.fromkeys(["SumIncrement", "MeanIncrement"], _in_time),
    **{neuron.operator: _neuron for neuron in NEURONS.values()},
}
"""By operator, what gives a node's canonical form; None where this node has none."""
