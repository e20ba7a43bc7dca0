"""The integer step graph undone: float32 again, with the weights that rounding left.

It is what reads a network as weights, neurons and spikes that needs it: exports, the count of
synaptic operations, the analysis of errors. The currents are in units of the activation, and
what rounding does to them in each step is lost.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from onnxsnn.arrays import Array
from onnxsnn.functions import INTEGER
from onnxsnn.graph import (
    Graph,
    Node,
    Tensor,
    constant,
    floats,
    per_channel,
    remove,
    replace_reads,
    sole_consumer,
)
from onnxsnn.passes.unit_thresholds import scale_currents
from onnxsnn.weights import weight_layer

__all__ = ["unrounded"]


def unrounded(graph: Graph, grids: Mapping[str, Array], defaults: dict[str, Array]) -> None:
    """Turn an integer step graph into a step graph.

    Args:
        graph: the integer step graph, its states plain inputs; it is changed.
        grids: by layer whose currents are in other units than the activation's, what 1 is worth
            in each channel [C], or in all [1].
        defaults: the states before the first step, by input; potentials are changed.
    """
    graph.toposort()
    _Unrounder(graph, grids, defaults).run()


class _Unrounder:
    """The pass at work. A tensor of bytes becomes the numbers that they stand for."""

    def __init__(
        self, graph: Graph, grids: Mapping[str, Array], defaults: dict[str, Array]
    ) -> None:
        self.graph = graph
        self.grids = grids
        self.defaults = defaults
        self.units: dict[int, float] = {}  # of tensors that were bytes

    def run(self) -> None:
        for node in list(self.graph.nodes):
            if not node.outputs:  # taken out, with the layer before it
                continue
            if node.op.startswith(INTEGER):
                self._neurons(node)
            elif node.op == "QuantizeLinear":
                self._quantized(node)
            elif node.op == "DequantizeLinear":
                self._skip(node)
            elif node.op == "QLinearConv" and len(node.inputs) < 9:
                self._mean(node)
            elif node.op == "QLinearConv":
                self._convolution(node)
            elif node.op == "MatMulInteger":
                self._product(node)
            else:
                self._move(node)
        for node in self.graph.nodes:
            if node.name in self.grids:
                self._in_activations(node, self.grids[node.name])
        self.graph.cleanup()
        self.graph.toposort()

    def _skip(self, node: Node) -> None:
        replace_reads(node.outputs[0], node.inputs[0])
        remove(self.graph, node)

    def _numbers(self, tensor: Tensor, unit: float) -> None:
        tensor.dtype = np.float32
        self.units[id(tensor)] = unit

    def _move(self, node: Node) -> None:
        """What only moves values moves numbers."""
        units = [self.units[id(tensor)] for tensor in node.inputs if id(tensor) in self.units]
        if units and node.outputs[0].dtype == np.uint8:
            self._numbers(node.outputs[0], units[0])
            if node.op == "Pad":
                node.inputs = list(node.inputs)[:2]  # the byte that stands for 0

    def _neurons(self, node: Node) -> None:
        self._numbers(node.outputs[0], float(_values(node, -2)))
        node.op = node.op.removeprefix(INTEGER)
        node.inputs = list(node.inputs)[:-2]

    def _in_activations(self, node: Node, grid: Array) -> None:
        """Let a layer of neurons have currents in units of the activation."""
        theta, potential = node.inputs[1].values, node.inputs[2].name
        worth = grid.reshape(theta.shape)
        taken = scale_currents(self.graph, node, worth)
        assert taken
        node.inputs[1] = floats(self.graph, f"{node.name}.theta", theta * worth)
        self.defaults[potential] = (self.defaults[potential] * worth).astype(np.float32)

    def _quantized(self, node: Node) -> None:
        """Numbers that were made bytes, perhaps more than once: in several units."""
        source, unit = node.inputs[0], float(_values(node, 1))
        if self.units.setdefault(id(source), unit) == unit:
            self._skip(node)
        else:
            node.op, node.inputs = "Identity", [source]
            self._numbers(node.outputs[0], unit)

    def _mean(self, node: Node) -> None:
        """A convolution of ones is the mean over windows that it stands for."""
        unit = self.units[id(node.inputs[0])] / _values(node, 3)[0].size
        node.op, node.inputs = "AveragePool", [node.inputs[0]]
        node.attrs.pop("group")
        node.attrs["count_include_pad"] = 1
        self._numbers(node.outputs[0], unit)

    def _convolution(self, node: Node) -> None:
        (numbers,) = node.outputs[0].outputs  # a DequantizeLinear
        worth, zeros = _values(numbers, 1), _values(numbers, 2).astype(np.float64)
        self._skip(numbers)
        whole, scale = _values(node, 3).astype(np.float64), _values(node, 4).astype(np.float64)
        middle, shift = float(_values(node, 7)), _values(node, 8)
        factor = worth * scale / self.units[id(node.inputs[0])]
        weights = whole * factor.reshape(-1, *[1] * (whole.ndim - 1))
        node.op = "Conv"
        self._set(node, weights, worth * (middle + scale * shift - zeros))

    def _product(self, node: Node) -> None:
        (numbers,) = node.outputs[0].outputs  # a Cast
        (currents,) = numbers.outputs[0].outputs  # a Mul
        worth = _values(currents, 1).reshape(-1)
        self._skip(numbers)
        self._skip(currents)
        weights = _values(node, 1) * (worth / self.units[id(node.inputs[0])])
        node.op = "Gemm" if len(node.inputs[0].shape) == 2 else "MatMul"
        self._set(node, weights, np.zeros(len(worth)))

    def _set(self, node: Node, weights: Array, bias: Array) -> None:
        """Give a layer its weights, and the bias that an Add behind it may hold."""
        output = node.outputs[0]
        output.dtype = np.float32
        node.inputs = [node.inputs[0], floats(self.graph, f"{node.name}.weight", weights)]
        layer = weight_layer(self.graph, node)
        assert layer is not None
        layer.shift_output(bias)
        reader = sole_consumer(self.graph, output)
        added = constant(reader.inputs[1]) if reader is not None and reader.op == "Add" else None
        if added is None or not layer.takes_bias:
            return
        axes = len(output.shape)
        vector = per_channel(added, axes, layer.output_axis(axes), layer.outputs)
        if vector is not None:
            layer.shift_output(vector)
            self._skip(reader)


def _values(node: Node, position: int) -> Array:
    values = constant(node.inputs[position])
    assert values is not None
    return values
