"""A convolution whose kernel is about as large as its map becomes one matrix product.

On a map of 2x2 pixels a kernel of 3x3 meets padding in five of its nine places. The matrix
that takes all values of a sample to all outputs is what the convolution gives for the unit
vectors:

    y = reshape(x) M + b,    M[i, :] = conv(e_i)

It has H W C x H' W' C' values, and is used where that is less work than the convolution.
"""

from __future__ import annotations

import math

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from onnxsnn.arrays import Array
from onnxsnn.functions import MINIMUM_OPSET
from onnxsnn.graph import (
    Graph,
    Node,
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
    """Replace every convolution of constant weights by a Gemm where that is less work."""
    report = Report("dense_convolutions")
    for node in list(graph.nodes):
        if node.op == "Conv" and _is_less_work(node):
            _replace(graph, node)
            report.actions["Conv turned into Gemm"] += 1
    return report


def _is_less_work(node: Node) -> bool:
    """Whether all values of a sample are fewer than a kernel's, and the matrix is no giant."""
    weights = constant(node.inputs[1])
    biases = [constant(tensor) for tensor in node.inputs[2:] if not tensor.is_empty()]
    read, given = (tensor.shape for tensor in (node.inputs[0], node.outputs[0]))
    if (
        weights is None
        or any(values is None for values in biases)
        or not (is_static_shape(read) and is_static_shape(given))
    ):
        return False
    values, results = math.prod(read[1:]), math.prod(given[1:])
    return bool(values < weights[0].size and values * results <= _GROWTH * weights.size)


_GROWTH = 2  # of the weights' memory, at most


def _replace(graph: Graph, node: Node) -> None:
    source, output = node.inputs[0], node.outputs[0]
    matrix, bias = _matrix(node, source.shape[1:]), _bias(node, output.shape[1:])
    flat = gs.Variable(unique_name(graph, f"{source.name}.flat"), source.dtype)
    product = gs.Variable(unique_name(graph, f"{output.name}.flat"), output.dtype)
    shape = np.array([-1, *output.shape[1:]])
    parameters = {"matrix": matrix, "bias": bias, "shape": shape}
    constants = [
        gs.Constant(unique_name(graph, f"{node.name}.{name}"), values)
        for name, values in parameters.items()
    ]
    remove(graph, node)
    insert(graph, "Flatten", [source], flat)
    insert(graph, "Gemm", [flat, *constants[:2]], product)
    insert(graph, "Reshape", [product, constants[2]], output)


def _matrix(node: Node, shape: list[int]) -> Array:
    """What the convolution gives for each unit vector, without its bias."""
    count = math.prod(shape)
    units = np.eye(count, dtype=np.float32).reshape(count, *shape)
    (given,) = Session(_alone(node)).run({"x": units}).values()
    matrix: Array = given.reshape(count, -1)
    return matrix


def _bias(node: Node, shape: list[int]) -> Array:
    bias = constant(node.inputs[2]) if len(node.inputs) > 2 else None
    column = np.zeros(shape[0], np.float32) if bias is None else bias
    return np.repeat(column, math.prod(shape[1:]))


def _alone(node: Node) -> onnx.ModelProto:
    """The convolution as a model."""
    x, y = (
        gs.Variable("x", np.float32, ["N", *node.inputs[0].shape[1:]]),
        gs.Variable("y", np.float32),
    )
    weights = gs.Constant("weights", node.inputs[1].values)
    convolution = gs.Node("Conv", attrs=node.attrs, inputs=[x, weights], outputs=[y])
    return to_model(gs.Graph([convolution], [x], [y], opset=MINIMUM_OPSET))
