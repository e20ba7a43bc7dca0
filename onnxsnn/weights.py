"""Layers that hold weights: how a scale or a shift beside them enters weights and bias.

    y = W x + b
    scale of the output   s * y        W' = s W          b' = s b
    shift of the output   y + d        W' = W            b' = b + d
    scale of the input    W (s x) + b  W' = W s          b' = b
    shift of the input    W (x + d)+b  W' = W            b' = b + W d

Constants may be shared between nodes, so they are never changed in place: a layer gets
new ones.
"""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs

from onnxsnn.arrays import Array
from onnxsnn.graph import Graph, Node, Tensor, constant, insert, remove, unique_name

__all__ = ["WeightLayer", "weight_layer", "write_as_matmul"]


class WeightLayer:
    """A node with constant weights in its second input; vectors are per channel."""

    takes_bias = True
    groups = 1  # whose inputs and outputs are apart
    inputs: int
    outputs: int

    def __init__(self, graph: Graph, node: Node) -> None:
        self.graph = graph
        self.node = node
        self.weight = np.asarray(node.inputs[1].values)

    @property
    def bias(self) -> Array:
        """The bias [outputs], zeros where the node has none."""
        if len(self.node.inputs) > 2 and not self.node.inputs[2].is_empty():
            return np.asarray(self.node.inputs[2].values)
        return np.zeros(self.outputs, self.weight.dtype)

    @property
    def rows(self) -> Array:
        """The weights that each output sums over [outputs, n]."""
        raise NotImplementedError

    @property
    def takes_input_shift(self) -> bool:
        """Whether every output sees the whole input, so that a shift is the same everywhere."""
        return self.takes_bias

    def input_axis(self, axes: int) -> int:
        """The axis of an input of `axes` axes that the weights sum over."""
        raise NotImplementedError

    def output_axis(self, axes: int) -> int:
        """The axis of an output of `axes` axes that holds the layer's outputs."""
        return self.input_axis(axes)

    def scale_output(self, scale: Array) -> None:
        """Multiply output channel i by `scale[i]`."""
        self._set_weight(self.weight * self._along_outputs(scale))
        if np.any(self.bias):
            self._set_bias(self.bias * scale)

    def shift_output(self, shift: Array) -> None:
        """Add `shift[i]` to output channel i."""
        if np.any(shift):
            self._set_bias(self.bias + shift)

    def scale_input(self, scale: Array) -> None:
        """Let input channel j arrive multiplied by `scale[j]`."""
        self._set_weight(self.weight * self._along_inputs(scale))

    def change_rows(self, change: Array) -> None:
        """Add to the weights what has the order of `rows`, [outputs, n]."""
        self._set_weight(self.weight + self._of_rows(change))

    def shift_input(self, shift: Array) -> None:
        """Let input channel j arrive with `shift[j]` added."""
        self.shift_output(self._sum_to_outputs(self.weight * self._along_inputs(shift)))

    def _of_rows(self, rows: Array) -> Array:
        """What `rows` are, in the order of the weight."""
        raise NotImplementedError

    def _along_outputs(self, vector: Array) -> Array:
        raise NotImplementedError

    def _along_inputs(self, vector: Array) -> Array:
        raise NotImplementedError

    def _sum_to_outputs(self, values: Array) -> Array:
        raise NotImplementedError

    def _set_weight(self, values: Array) -> None:
        self.weight = values.astype(self.weight.dtype)
        self.node.inputs[1] = self._constant("weight", self.weight)

    def _set_bias(self, values: Array) -> None:
        bias = self._constant("bias", values.astype(self.weight.dtype))
        if len(self.node.inputs) > 2:
            self.node.inputs[2] = bias
        else:
            self.node.inputs.append(bias)

    def _constant(self, role: str, values: Array) -> gs.Constant:
        return gs.Constant(unique_name(self.graph, f"{self.node.name}.{role}"), values)


class _Convolution(WeightLayer):
    """Conv: weight [outputs, inputs / groups, *kernel]."""

    def __init__(self, graph: Graph, node: Node) -> None:
        super().__init__(graph, node)
        self.groups = int(node.attrs.get("group", 1))
        self.outputs = self.weight.shape[0]
        self.inputs = self.weight.shape[1] * self.groups

    @property
    def rows(self) -> Array:
        return self.weight.reshape(self.outputs, -1)

    def _of_rows(self, rows: Array) -> Array:
        return rows.reshape(self.weight.shape)

    @property
    def takes_input_shift(self) -> bool:
        padding = self.node.attrs.get("auto_pad", "NOTSET")
        return padding in ("NOTSET", "VALID") and not any(self.node.attrs.get("pads", ()))

    def input_axis(self, axes: int) -> int:  # noqa: ARG002
        return 1

    def _first(self, vector: Array) -> Array:
        return vector.reshape(-1, *(1,) * (self.weight.ndim - 1))

    def _second(self, vector: Array) -> Array:
        rows = self.weight.shape[0] // self.groups
        grouped = np.repeat(vector.reshape(self.groups, -1), rows, axis=0)  # [first, second]
        return grouped.reshape(*grouped.shape, *(1,) * (self.weight.ndim - 2))

    _along_outputs = _first
    _along_inputs = _second

    def _sum_to_outputs(self, values: Array) -> Array:
        total: Array = values.reshape(self.outputs, -1).sum(axis=1)
        return total


class _ConvTranspose(_Convolution):
    """ConvTranspose: weight [inputs, outputs / groups, *kernel]."""

    takes_input_shift = False  # borders see fewer taps

    def __init__(self, graph: Graph, node: Node) -> None:
        super().__init__(graph, node)
        self.inputs, self.outputs = self.weight.shape[0], self.weight.shape[1] * self.groups

    @property
    def rows(self) -> Array:
        grouped = self.weight.reshape(self.groups, -1, *self.weight.shape[1:])
        return np.moveaxis(grouped, 1, 2).reshape(self.outputs, -1)

    def _of_rows(self, rows: Array) -> Array:
        kernel = self.weight.shape[2:]
        grouped = rows.reshape(self.groups, self.weight.shape[1], -1, *kernel)
        return np.moveaxis(grouped, 1, 2).reshape(self.weight.shape)

    _along_outputs = _Convolution._second
    _along_inputs = _Convolution._first


class _Gemm(WeightLayer):
    """Gemm in canonical form, alpha and beta 1: weight [inputs, outputs], or its transpose."""

    def __init__(self, graph: Graph, node: Node) -> None:
        super().__init__(graph, node)
        self.transposed = bool(node.attrs.get("transB", 0))
        shape = self.weight.shape
        self.inputs, self.outputs = shape[::-1] if self.transposed else shape

    @property
    def rows(self) -> Array:
        return self.weight if self.transposed else self.weight.T

    def _of_rows(self, rows: Array) -> Array:
        return rows if self.transposed else rows.T

    def input_axis(self, axes: int) -> int:
        return axes - 1

    def _along_outputs(self, vector: Array) -> Array:
        return vector[:, None] if self.transposed else vector

    def _along_inputs(self, vector: Array) -> Array:
        return vector if self.transposed else vector[:, None]

    def _sum_to_outputs(self, values: Array) -> Array:
        total: Array = values.sum(axis=1 if self.transposed else 0)
        return total


class _MatMul(_Gemm):
    """MatMul of more than two axes, its right operand constant [inputs, outputs]; no bias."""

    takes_bias = False


_LAYERS: dict[str, type[WeightLayer]] = {
    "Conv": _Convolution,
    "ConvTranspose": _ConvTranspose,
    "Gemm": _Gemm,
    "MatMul": _MatMul,
}


def weight_layer(graph: Graph, node: Node | None) -> WeightLayer | None:
    """`node` as a layer with weights; None where it is none, or they are not constant."""
    if node is None or node.op not in _LAYERS or len(node.inputs) < 2:
        return None
    if constant(node.inputs[0]) is not None or node.attrs.get("transA", 0):
        return None
    if any(constant(tensor) is None for tensor in node.inputs[1:] if not tensor.is_empty()):
        return None
    if node.op == "MatMul" and node.inputs[1].values.ndim != 2:
        return None
    return _LAYERS[node.op](graph, node)


def write_as_matmul(layer: WeightLayer, source: Tensor, output: Tensor) -> None:
    """Write a Gemm as MatMul and Add, which take any number of axes.

    Args:
        layer: the Gemm; its graph loses it, and needs a new topological order.
        source: what is multiplied.
        output: what the sum is.
    """
    graph, node = layer.graph, layer.node
    weight = gs.Constant(unique_name(graph, f"{node.name}.weight"), layer.rows.T.copy())
    bias = gs.Constant(unique_name(graph, f"{node.name}.bias"), layer.bias)
    product = gs.Variable(unique_name(graph, f"{node.name}.product"), output.dtype, output.shape)
    name = node.name
    remove(graph, node)
    insert(graph, "MatMul", [source, weight], product).name = name
    insert(graph, "Add", [product, bias], output)
