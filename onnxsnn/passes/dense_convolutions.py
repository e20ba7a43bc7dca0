"""A convolution whose kernel is about as large as its map becomes one matrix product.

On a map of 2x2 pixels a kernel of 3x3 meets padding in five of its nine places. The matrix
that takes all values of a sample to all outputs is what the convolution gives for the unit
vectors:

    y = reshape(x) M + b,    M[i, :] = conv(e_i)

It has H W C x H' W' C' values, and is used where that is less work than the convolution. A
quantized convolution becomes its steps, each rounded as there, so that its bytes are the same:

    sums = (reshape(x) - zero) M + shift,    y = middle + round(scale * sums)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from onnxsnn.arrays import Array
from onnxsnn.functions import MINIMUM_OPSET
from onnxsnn.graph import (
    Graph,
    Node,
    Tensor,
    constant,
    insert,
    is_static_shape,
    remove,
    to_model,
    unique_name,
)
from onnxsnn.passes.report import Report
from onnxsnn.session import Session

__all__ = ["dense_convolutions"]


def dense_convolutions(graph: Graph) -> Report:
    """Replace every convolution of constant weights by a product where that is less work."""
    report = Report("dense_convolutions")
    for node in list(graph.nodes):
        if node.op in _STEPS and _is_less_work(node):
            steps = _STEPS[node.op](node)
            _replace(graph, node, steps)
            report.actions[f"{node.op} turned into {steps[0].operator}"] += 1
    return report


@dataclass(frozen=True)
class _Step:
    """An operator that reads what the one before it gave, and constants, and gives `dtype`."""

    operator: str
    constants: Sequence[Array]
    dtype: Any
    attrs: dict[str, Any] = field(default_factory=dict)


def _is_less_work(node: Node) -> bool:
    """Whether all values of a sample are fewer than a kernel's, and the matrix is no giant."""
    weights = constant(_kernel(node))
    others = [constant(tensor) for tensor in node.inputs[1:] if not tensor.is_empty()]
    read, given = (tensor.shape for tensor in (node.inputs[0], node.outputs[0]))
    if (
        weights is None
        or any(values is None for values in others)
        or (node.op == "QLinearConv" and np.any(others[_WEIGHT_ZERO]))
        or not (is_static_shape(read) and is_static_shape(given))
    ):
        return False
    values, results = math.prod(read[1:]), math.prod(given[1:])
    return bool(values < weights[0].size and values * results <= _GROWTH * weights.size)


_GROWTH = 2  # of the weights' memory, at most


def _kernel(node: Node) -> Tensor:
    return node.inputs[3 if node.op == "QLinearConv" else 1]


def _replace(graph: Graph, node: Node, steps: list[_Step]) -> None:
    source, output = node.inputs[0], node.outputs[0]
    size = math.prod(output.shape[1:])
    remove(graph, node)
    flat = gs.Variable(unique_name(graph, f"{source.name}.flat"), source.dtype)
    insert(graph, "Flatten", [source], flat)
    for step in steps:
        read, name = flat, unique_name(graph, f"{output.name}.flat")
        flat = gs.Variable(name, step.dtype, [output.shape[0], size])
        constants = [
            gs.Constant(unique_name(graph, f"{name}.constant{number}"), values)
            for number, values in enumerate(step.constants)
        ]
        insert(graph, step.operator, [read, *constants], flat, attrs=step.attrs)
    sizes = np.array([-1, *output.shape[1:]])
    shape = gs.Constant(unique_name(graph, f"{output.name}.shape"), sizes)
    insert(graph, "Reshape", [flat, shape], output)


def _steps_of_conv(node: Node) -> list[_Step]:
    bias = _values(node, 2, np.zeros(1, np.float32))
    return [_Step("Gemm", [_matrix(node), _each_pixel(bias, node)], np.float32)]


def _steps_of_quantized(node: Node) -> list[_Step]:
    read_scale, read_zero, weights, scales, _, given_scale, given_zero = (
        tensor.values for tensor in (node.inputs[at] for at in range(1, 8))
    )
    matrix, shift = _matrix(node).astype(weights.dtype), _values(node, 8, np.zeros(1, np.int32))
    scale, one = read_scale * scales / given_scale, np.array(1, np.float32)
    return [
        _Step("MatMulInteger", [matrix, read_zero], np.int32),
        _Step("Add", [_each_pixel(shift, node)], np.int32),
        _Step("Cast", [], np.float32, {"to": onnx.TensorProto.FLOAT}),
        _Step("Mul", [_each_pixel(scale, node)], np.float32),
        _Step("QuantizeLinear", [one, given_zero], given_zero.dtype),
    ]


_STEPS = {"Conv": _steps_of_conv, "QLinearConv": _steps_of_quantized}
_WEIGHT_ZERO = 4  # of the constants of a QLinearConv, the zero point of its weights


def _values(node: Node, position: int, default: Array) -> Array:
    """The values of an input that may be left out."""
    tensors = [tensor for tensor in node.inputs[position:] if not tensor.is_empty()]
    values: Array = tensors[0].values if tensors else default
    return values


def _matrix(node: Node) -> Array:
    """What the convolution gives for each unit vector, without its bias.

    Channels meet their kernels alone: each pair of them is a channel that is given for one that
    is read.
    """
    kernel, (channels, *space) = _kernel(node).values, node.inputs[0].shape[1:]
    groups = channels // kernel.shape[1]
    pixels = np.eye(math.prod(space), dtype=np.float32).reshape(-1, 1, *space)
    (given,) = Session(_alone(node)).run({"x": pixels}).values()
    pairs = given.reshape(len(pixels), groups, -1, kernel.shape[1], math.prod(given.shape[2:]))
    _, _, outputs, inputs, results = pairs.shape
    matrix = np.zeros((groups, inputs, len(pixels), groups, outputs, results), np.float32)
    for group in range(groups):
        matrix[group, :, :, group] = pairs[:, group].transpose(2, 0, 1, 3)
    return matrix.reshape(channels * len(pixels), -1)


def _each_pixel(values: Array, node: Node) -> Array:
    """Values of each output channel [C'], or one for all, as those of each pixel [C' H' W']."""
    channels, *pixels = node.outputs[0].shape[1:]
    return np.repeat(np.broadcast_to(values.reshape(-1), channels), math.prod(pixels))


def _alone(node: Node) -> onnx.ModelProto:
    """The convolution of one channel by every kernel, in float32, which holds bytes exactly."""
    kernel, space = _kernel(node).values.astype(np.float32), node.inputs[0].shape[2:]
    weights = gs.Constant("weights", kernel.reshape(-1, 1, *kernel.shape[2:]))
    x, y = gs.Variable("x", np.float32, ["N", 1, *space]), gs.Variable("y", np.float32)
    attrs = {**node.attrs, "group": 1}
    convolution = gs.Node("Conv", attrs=attrs, inputs=[x, weights], outputs=[y])
    return to_model(gs.Graph([convolution], [x], [y], opset=MINIMUM_OPSET))
