"""The integer step graph undone: float32 again, with the weights that rounding left.

It is what reads a network as weights, neurons and spikes that needs it: exports, the count of
synaptic operations, the analysis of errors. The currents are in units of the activation, and
what rounding does to them in each step is lost.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_graphsurgeon as gs

from onnxsnn.arrays import Array
from onnxsnn.functions import INTEGER
from onnxsnn.graph import Graph, Node, Tensor, constant, remove, replace_reads, unique_name

__all__ = ["unrounded"]


def unrounded(graph: Graph, grids: Mapping[str, Array], defaults: dict[str, Array]) -> None:
    """Turn an integer step graph into a step graph.

    Args:
        graph: the integer step graph, its states plain inputs; it is changed.
        grids: by layer of neurons that reads sums as they are, what 1 is worth in each channel
            [C], in units of the activation.
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
            if node.op.startswith(INTEGER):
                self._neurons(node)
            elif node.op == "QuantizeLinear":
                self.units[id(node.inputs[0])] = float(_values(node, 1))
                self._skip(node)
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

    def _neurons(self, node: Node) -> None:
        self._numbers(node.outputs[0], float(_values(node, -2)))
        node.op = node.op.removeprefix(INTEGER)
        node.inputs = list(node.inputs)[:-3]
        if node.name in self.grids:
            theta, potential = node.inputs[1], node.inputs[2]
            worth = self._along(node, self.grids[node.name])
            node.inputs[1] = self._constant(f"{node.name}.theta", theta.values * worth)
            start = (self.defaults[potential.name] * worth).astype(np.float32)
            self.defaults[potential.name] = start

    def _along(self, node: Node, grid: Array) -> Array:
        """What 1 is worth, shaped to meet what a layer of neurons reads."""
        maker, sizes = node.inputs[0].inputs[0], [1] * node.inputs[1].values.ndim
        sizes[1 if maker.op == "Conv" else -1] = -1
        return grid.reshape(sizes)

    def _worth(self, node: Node) -> tuple[Array, Array]:
        """Of a layer's channels [C]: what 1 of its sums is worth, and what is added to it."""
        (reader,) = node.outputs[0].outputs
        if reader.op == "DequantizeLinear":
            zeros = _values(reader, 2) if len(reader.inputs) > 2 else np.zeros(1)
            return _values(reader, 1), -zeros.astype(np.float64)
        return self.grids[reader.name], _values(reader, -3).reshape(-1)

    def _mean(self, node: Node) -> None:
        """A convolution of ones is the mean over windows that it stands for."""
        unit = self.units[id(node.inputs[0])] / _values(node, 3)[0].size
        node.op, node.inputs = "AveragePool", [node.inputs[0]]
        node.attrs.pop("group")
        node.attrs["count_include_pad"] = 1
        self._numbers(node.outputs[0], unit)

    def _convolution(self, node: Node) -> None:
        worth, offset = self._worth(node)
        whole, scale = _values(node, 3).astype(np.float64), _values(node, 4).astype(np.float64)
        middle, shift = float(_values(node, 7)), _values(node, 8)
        factor = worth * scale / self.units[id(node.inputs[0])]
        weights = whole * factor.reshape(-1, *[1] * (whole.ndim - 1))
        node.op = "Conv"
        self._set(node, weights, worth * (offset + middle + scale * shift))

    def _product(self, node: Node) -> None:
        worth, offset = self._worth(node)
        flat = len(node.inputs[0].shape) == 2
        weights = _values(node, 1) * (worth / self.units[id(node.inputs[0])])
        node.op = "Gemm" if flat else "MatMul"
        self._set(node, weights, np.broadcast_to(worth * offset, worth.shape) if flat else None)

    def _set(self, node: Node, weights: Array, bias: Array | None) -> None:
        node.inputs = [node.inputs[0], self._constant(f"{node.name}.weight", weights)]
        if bias is not None:
            node.inputs.append(self._constant(f"{node.name}.bias", bias))
        node.outputs[0].dtype = np.float32

    def _constant(self, name: str, values: Array) -> gs.Constant:
        return gs.Constant(unique_name(self.graph, name), np.asarray(values, np.float32))


def _values(node: Node, position: int) -> Array:
    values = constant(node.inputs[position])
    assert values is not None
    return values
