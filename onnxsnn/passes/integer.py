"""The integer step graph: weights and spikes of 8 bits.

1. A tensor of spikes holds whole multiples of a unit between two bounds, its *levels*: what
   neurons send, what shape operators, a Pad with zeros and a Resize to the nearest make of it,
   means over windows (sums of spikes, the division left to the weights), what a linear Resize
   finds between them, and what maxima are of running sums. Beside each other, they are in the
   least unit of all.
2. Neurons send bytes: `zero + s / unit`. Whatever reads numbers gets them by DequantizeLinear.
3. Conv, Gemm and MatMul of constant weights that read levels get whole weights of 8 bits, one
   scale per output channel, and become QLinearConv and MatMulInteger. What QLinearConv gives
   are bytes again: sums in whole steps (`onnxsnn.eight_bits`). Means become sums by a
   QLinearConv of ones, without a bias.
4. What reads such a layer reads its sums as the currents that they stand for: bytes by
   DequantizeLinear, sums of 32 bits by Cast and Mul, as ONNX Runtime 1.23 moves Transposes wrongly
   past a DequantizeLinear of these. The bias is added there, in full precision.
5. Everything else stays as it was.

Bytes are unsigned, and spikes below zero have a zero point: ONNX Runtime has fast kernels for
unsigned activations and signed weights, and spikes are small enough for those that add two
products in 16 bits.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from onnxsnn.arrays import Array
from onnxsnn.eight_bits import MIDDLE, Grid, fits_byte, grid_of, whole_weights
from onnxsnn.functions import INTEGER
from onnxsnn.graph import (
    Graph,
    Node,
    Tensor,
    constant,
    insert,
    is_static_shape,
    remove,
    unique_name,
)
from onnxsnn.neurons import Neuron
from onnxsnn.operators import crops
from onnxsnn.passes.report import Report
from onnxsnn.weights import WeightLayer, weight_layer

__all__ = ["integer", "rounded_layers", "rounding_layers"]

_WIDEST = 128  # between levels: two times 128 times 127 still is a number of 16 bits
_APART = 1 + 2.0**-17  # sums halfway between two bytes round away from 0, in any runtime
_LAYERS = {"Conv", "Gemm", "MatMul"}
_WINDOW = {"auto_pad", "dilations", "kernel_shape", "pads", "strides"}
_MAXIMA = {"GlobalMaxPool", "MaxPool", "ReduceMax"}
_MOVES = {
    *("Expand", "Flatten", "Gather", "Identity", "Reshape"),
    *("Slice", "SpaceToDepth", "Squeeze", "Tile", "Transpose", "Unsqueeze"),
}
_OF_NUMBERS = {"SpaceToDepth"}  # ONNX Runtime 1.23 moves no bytes by it


@dataclass(frozen=True)
class Levels:
    """What values a tensor can hold: `unit` times whole numbers from `least` to `most`."""

    unit: float
    least: int
    most: int

    @property
    def zero(self) -> Array:
        """The byte that stands for 0."""
        return np.array(-self.least, np.uint8)


def integer(
    graph: Graph, neurons: Mapping[str, Neuron], seen: Mapping[str, tuple[Array, Array]]
) -> Report:
    """Turn a step graph into the integer step graph.

    Args:
        graph: the step graph, its states plain inputs; it is changed.
        neurons: by layer, its neuron model.
        seen: by convolution of `rounded_layers`, the least and the greatest current of each of
            its channels that came up in calibration.
    """
    graph.toposort()
    return _Integer(graph, neurons, seen).run()


def rounded_layers(graph: Graph, neurons: Mapping[str, Neuron]) -> list[Node]:
    """The layers of weights that read spikes: those that the pass gives 8-bit weights."""
    levels = _levels_of(graph, neurons)
    return [
        node
        for node in graph.nodes
        if node.op in _LAYERS
        and id(node.inputs[0]) in levels
        and node.outputs[0].shape is not None
        and weight_layer(graph, node) is not None
    ]


def rounding_layers(graph: Graph, unrounded: Graph, neurons: Mapping[str, Neuron]) -> list[str]:
    """The convolutions of an integer step graph that round or clip sums that do not fit into bytes.

    Args:
        graph: the integer step graph.
        unrounded: the step graph that it is in float32; it must be in order.
        neurons: by layer, its neuron model.
    """
    levels = _levels_of(unrounded, neurons)
    read = {n.name: levels[id(t)] for n in unrounded.nodes for t in n.inputs[:1] if id(t) in levels}
    convolutions = [n for n in graph.nodes if n.op == "QLinearConv" and len(n.inputs) == 9]
    return [node.name for node in convolutions if not _is_exact(node, read[node.name])]


def _is_exact(node: Node, levels: Levels) -> bool:
    """Whether a convolution gives every sum as it is."""
    weights, scale, shift = (node.inputs[position].values for position in (3, 4, 8))
    grid = Grid(1 / scale, shift * scale)
    return fits_byte(weights.reshape(len(weights), -1), levels.least, levels.most, grid)


def _levels_of(graph: Graph, neurons: Mapping[str, Neuron]) -> dict[int, Levels]:
    """By id() of a tensor, its levels, where it has some; the graph must be in order."""
    levels: dict[int, Levels] = {}
    sums: dict[int, Levels] = {}  # of running sums, by how much they grow in a step
    for node in graph.nodes:
        if node.name in neurons:
            _note(levels, node, _spikes_of(neurons[node.name]))
            continue
        read = next(map(id, node.inputs), 0)  # which is no tensor's id
        if node.op == "RunningSum":
            _note(sums, node, levels.get(read))
        elif node.op == "SumIncrement":
            _note(levels, node, sums.get(read))
        elif node.op in _MAXIMA or (_moves(node) and read in sums):
            _note(sums, node, sums.get(read))
        elif _moves(node):
            _note(levels, node, levels.get(read))
        elif node.op == "Concat":
            _note(levels, node, _common([levels.get(id(t)) for t in node.inputs]))
        elif node.op in ("AveragePool", "GlobalAveragePool"):
            _note(levels, node, _mean_of(node, levels.get(read)))
        elif node.op == "Resize":
            _note(levels, node, _between(node, levels.get(read)))
    return levels


def _moves(node: Node) -> bool:
    """Whether a node gives the values that it reads, moved or repeated, and no others."""
    nearest = node.attrs.get("mode", "nearest") == "nearest" and not crops(node)
    return (
        node.op in _MOVES
        or (node.op == "Resize" and nearest)
        or (node.op == "Pad" and len(node.inputs) == 2)  # with zeros, or with what is there
    )


def _note(known: dict[int, Levels], node: Node, levels: Levels | None) -> None:
    if levels is not None and levels.most - levels.least <= _WIDEST:
        known[id(node.outputs[0])] = levels


def _spikes_of(neuron: Neuron) -> Levels:
    unit = neuron.spike_unit
    return Levels(unit, round(neuron.least_spike / unit), round(neuron.greatest_spike / unit))


def _common(levels: list[Levels | None]) -> Levels | None:
    """Levels that hold those of all, where the least unit divides every other."""
    known = [one for one in levels if one is not None]
    unit = min((one.unit for one in known), default=1.0)
    times = [one.unit / unit for one in known]
    if len(known) < len(levels) or not np.allclose(times, np.round(times), rtol=0, atol=1e-6):
        return None
    bounds = [
        round(count) * bound
        for count, one in zip(times, known, strict=True)
        for bound in (one.least, one.most)
    ]
    return Levels(unit, min(bounds), max(bounds))


def _mean_of(node: Node, levels: Levels | None) -> Levels | None:
    """The levels of means over windows that all divide by the same number."""
    shape, attrs = node.inputs[0].shape, node.attrs
    if levels is None or not is_static_shape(shape):
        return None
    if node.op == "GlobalAveragePool":
        count = math.prod(shape[2:])
    else:
        uneven = any(attrs.get("pads", ())) and not attrs.get("count_include_pad", 0)
        computed = attrs.get("auto_pad", "NOTSET") not in ("NOTSET", "VALID")
        if uneven or computed or attrs.get("ceil_mode", 0):
            return None
        count = math.prod(attrs["kernel_shape"])
    return Levels(levels.unit / count, levels.least * count, levels.most * count)


def _between(node: Node, levels: Levels | None) -> Levels | None:
    """The levels of what a linear Resize makes of levels: it divides gaps into equal parts."""
    before, after = node.inputs[0].shape, node.outputs[0].shape
    if levels is None or not before or not after or not _is_linear(node):
        return None
    parts, scales = 1, _scales(node)
    for axis, (least, most) in enumerate(zip(before, after, strict=True)):
        if least in (1, most):
            continue
        if not isinstance(least, int) or not isinstance(most, int) or most % least:
            return None
        if scales is not None and (not scales.size or scales[axis] != most // least):
            return None
        parts *= _parts(node, least, most)
    return Levels(levels.unit / parts, levels.least * parts, levels.most * parts)


def _is_linear(node: Node) -> bool:
    """Whether a Resize is linear between what is there, by the sizes of all axes."""
    special = {"antialias": 0, "keep_aspect_ratio_policy": "stretch", "axes": None}
    usual = all(node.attrs.get(name, value) == value for name, value in special.items())
    return node.attrs.get("mode") == "linear" and usual and not crops(node)


def _scales(node: Node) -> Array | None:
    """By how much a Resize is told to stretch each axis, empty if unknown; None if by sizes."""
    if len(node.inputs) > 3 and not node.inputs[3].is_empty():
        return None
    known = constant(node.inputs[2])
    return np.zeros(0) if known is None else known


def _parts(node: Node, least: int, most: int) -> int:
    """Into how many parts a linear Resize of an axis divides the gap between two values."""
    times = most // least
    match node.attrs.get("coordinate_transformation_mode", "half_pixel"):
        case "asymmetric":
            return times
        case "align_corners":
            return (most - 1) // math.gcd(most - 1, least - 1)
        case _:  # from the middle of a pixel
            return times if times % 2 else 2 * times


class _Integer:
    """The pass at work: the levels of tensors, and the bytes that stand for them."""

    def __init__(
        self,
        graph: Graph,
        neurons: Mapping[str, Neuron],
        seen: Mapping[str, tuple[Array, Array]],
    ) -> None:
        self.graph = graph
        self.seen = seen
        self.report = Report("integer", preserves_values=False)
        self.levels = _levels_of(graph, neurons)
        self.layers = rounded_layers(graph, neurons)
        self.neurons = [
            node
            for node in graph.nodes
            if node.name in neurons and id(node.outputs[0]) in self.levels
        ]
        self.bytes: dict[int, Tensor] = {}

    def run(self) -> Report:
        chosen = {id(node) for node in self.layers}
        for node in self.graph.nodes:
            if id(node) not in chosen and weight_layer(self.graph, node) is not None:
                self.report.actions[f"{node.op} left in float32"] += 1
        for node in self.neurons:
            self._send_bytes(node)
        for node in self.layers:
            self._round(node)
        self.graph.cleanup()
        self.graph.toposort()
        return self.report

    def _constant(self, name: str, values: Array | float, dtype: type = np.float32) -> Tensor:
        return gs.Constant(unique_name(self.graph, name), np.asarray(values, dtype))

    def _like(self, tensor: Tensor, role: str, dtype: type = np.float32) -> Tensor:
        return gs.Variable(unique_name(self.graph, f"{tensor.name}.{role}"), dtype, tensor.shape)

    def _send_bytes(self, node: Node) -> None:
        """Let a layer of neurons send bytes, under the name of its spikes."""
        spikes, levels = node.outputs[0], self.levels[id(node.outputs[0])]
        sent = self._like(spikes, "number", np.uint8)
        sent.name, spikes.name = spikes.name, sent.name
        unit = self._constant(f"{node.name}.unit", levels.unit)
        zero = self._constant(f"{node.name}.zero", levels.zero, np.uint8)
        node.op = INTEGER + node.op
        node.outputs[0] = sent
        node.inputs += [unit, zero]
        insert(self.graph, "DequantizeLinear", [sent, unit, zero], spikes)
        self.bytes[id(spikes)] = sent
        self.report.actions[f"{node.op.removeprefix(INTEGER)} sends bytes"] += 1

    def _bytes_of(self, tensor: Tensor) -> Tensor:
        """The bytes that stand for a tensor of levels; each is made once."""
        if id(tensor) not in self.bytes:
            self.bytes[id(tensor)] = self._made_of_bytes(tensor)
        return self.bytes[id(tensor)]

    def _made_of_bytes(self, tensor: Tensor) -> Tensor:
        """What makes a tensor of levels, of bytes; others are quantized."""
        maker, levels = tensor.inputs[0], self.levels[id(tensor)]
        if maker.op == "Concat":
            sources = [self._bytes_in(levels, source) for source in maker.inputs]
        elif _moves(maker) and maker.op not in _OF_NUMBERS:
            sources = [self._bytes_of(t) if id(t) in self.levels else t for t in maker.inputs]
        elif maker.op != "AveragePool":
            return self._quantized(tensor, levels)
        twin = self._like(tensor, "bytes", np.uint8)
        if maker.op == "AveragePool":
            self._add_up(maker, twin)
            return twin
        if maker.op == "Pad":
            sources.append(self._constant(f"{twin.name}.zero", levels.zero, np.uint8))
        insert(self.graph, maker.op, sources, twin, attrs=dict(maker.attrs))
        return twin

    def _bytes_in(self, levels: Levels, tensor: Tensor) -> Tensor:
        """The bytes that stand for a tensor among levels that hold its own."""
        if self.levels[id(tensor)] == levels:
            return self._bytes_of(tensor)
        return self._quantized(tensor, levels)

    def _quantized(self, tensor: Tensor, levels: Levels) -> Tensor:
        """A tensor of numbers as bytes."""
        twin = self._like(tensor, "bytes", np.uint8)
        unit = self._constant(f"{twin.name}.unit", levels.unit)
        zero = self._constant(f"{twin.name}.zero", levels.zero, np.uint8)
        insert(self.graph, "QuantizeLinear", [tensor, unit, zero], twin)
        return twin

    def _add_up(self, pool: Node, sums: Tensor) -> None:
        """The sums over the windows of a pooling: a convolution of ones, channel by channel."""
        source, kernel = pool.inputs[0], pool.attrs["kernel_shape"]
        weights = np.ones((source.shape[1], 1, *kernel), np.int8)
        zero, middle = (self.levels[id(tensor)].zero for tensor in (source, pool.outputs[0]))
        attrs = {name: value for name, value in pool.attrs.items() if name in _WINDOW}
        attrs |= {"group": len(weights)}
        scale = np.ones(len(weights))
        self._convolve(sums, self._bytes_of(source), weights, scale, zero, middle, attrs)

    def _convolve(
        self, sums: Tensor, read: Tensor, weights: Array, scale: Array, zero: Array, middle: Array,
        attrs: Mapping[str, Any], shift: Array | None = None,
    ) -> Node:  # fmt: skip
        """QLinearConv: `sums = middle + scale * (weights * (read - zero) + shift)`."""
        name, one = sums.name, self._constant("one", 1.0)
        inputs = [
            read,
            one,
            self._constant(f"{name}.zero", zero, np.uint8),
            self._constant(f"{name}.whole", weights, np.int8),
            self._constant(f"{name}.scale", scale),
            self._constant(f"{name}.none", np.zeros(len(weights)), np.int8),
            one,
            self._constant(f"{name}.middle", middle, np.uint8),
        ]
        if shift is not None:
            inputs.append(self._constant(f"{name}.shift", shift, np.int32))
        return insert(self.graph, "QLinearConv", inputs, sums, attrs=dict(attrs))

    def _round(self, node: Node) -> None:
        """Give a layer whole weights, and what reads it the currents that its sums stand for."""
        layer = weight_layer(self.graph, node)
        assert layer is not None
        source, output, levels = node.inputs[0], node.outputs[0], self.levels[id(node.inputs[0])]
        read = self._bytes_of(source)
        turn = self._convolution if node.op == "Conv" else self._product
        sums, worth, zeros = turn(node, layer, levels, read)
        axis = layer.output_axis(len(output.shape))
        self._as_currents(sums, output, axis, worth, zeros, layer.bias)
        remove(self.graph, node)

    def _convolution(
        self, node: Node, layer: WeightLayer, levels: Levels, read: Tensor
    ) -> tuple[Tensor, Array, Array | None]:
        """QLinearConv in the place of a convolution: its bytes, what 1 of them is worth, and
        which of them is no current.
        """
        whole, scales = whole_weights(layer.rows)
        worth = scales * levels.unit
        low, high = ((bound - layer.bias) / worth for bound in self.seen[node.name])
        grid = grid_of(whole, levels.least, levels.most, (low, high))
        sums = self._like(node.outputs[0], "sums", np.uint8)
        weights = whole.reshape(layer.weight.shape)
        apart = np.where(grid.step > 1, _APART, 1)  # whole sums are no ties
        scale, shift = apart / grid.step, grid.shift * grid.step
        zero, middle = levels.zero, np.array(MIDDLE)
        new = self._convolve(sums, read, weights, scale, zero, middle, node.attrs, shift)
        new.name = node.name
        self.report.actions["Conv turned into QLinearConv"] += 1
        return sums, worth * grid.step, (MIDDLE + grid.shift).astype(np.uint8)

    def _product(
        self, node: Node, layer: WeightLayer, levels: Levels, read: Tensor
    ) -> tuple[Tensor, Array, Array | None]:
        """MatMulInteger in the place of a Gemm or MatMul: its sums, and what 1 is worth."""
        whole, scales = whole_weights(layer.rows)
        sums, name = self._like(node.outputs[0], "sums", np.int32), node.name
        weights = self._constant(f"{name}.whole", np.ascontiguousarray(whole.T), np.int8)
        zero = self._constant(f"{name}.zero", levels.zero, np.uint8)
        insert(self.graph, "MatMulInteger", [read, weights, zero], sums).name = name
        self.report.actions[f"{node.op} turned into MatMulInteger"] += 1
        return sums, scales * levels.unit, None

    def _as_currents(
        self, sums: Tensor, output: Tensor, axis: int, worth: Array, zeros: Array | None,
        bias: Array,
    ) -> None:  # fmt: skip
        """Let `output` be the currents that sums stand for; channels lie along `axis`."""
        output.inputs.clear()
        name = output.name
        target = self._like(output, "unbiased") if np.any(bias) else output
        if zeros is None:
            numbers = self._like(sums, "numbers")
            insert(self.graph, "Cast", [sums], numbers, attrs={"to": onnx.TensorProto.FLOAT})
            shaped = self._constant(f"{name}.worth", _along(output, axis, worth))
            insert(self.graph, "Mul", [numbers, shaped], target)
        else:
            inputs = [
                sums,
                self._constant(f"{name}.worth", worth),
                self._constant(f"{name}.zeros", zeros, np.uint8),
            ]
            insert(self.graph, "DequantizeLinear", inputs, target, attrs={"axis": axis})
        if target is not output:
            shaped = self._constant(f"{name}.bias", _along(output, axis, bias))
            insert(self.graph, "Add", [target, shaped], output)


def _along(tensor: Tensor, axis: int, values: Array) -> Array:
    """Values [C], shaped to meet `tensor` along an axis."""
    return values.reshape([-1 if at == axis else 1 for at in range(len(tensor.shape))])
