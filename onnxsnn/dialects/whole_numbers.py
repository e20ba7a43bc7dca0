"""Tensors of whole numbers, and the real ones that they stand for: (q - z) s, scale s and zero z.

What is real is not rounded any more, but cut off where its whole numbers end: quantizers leave out
a Relu or Clip that does no more than they, and where limits were learnt, they are part of what the
network computes. `passes/leave_out_limits.py` takes away those that data do not come near.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from onnxsnn.arrays import Array
from onnxsnn.graph import (
    Graph,
    Node,
    Tensor,
    computed,
    constant,
    has_body,
    insert,
    is_output,
    nodes_before,
    unique_name,
)
from onnxsnn.operators import clipped_between

__all__ = [
    "MOVES",
    "Dequantizer",
    "is_of_constants",
    "kind_given",
    "scale_and_zero",
    "type_limits",
    "whole_levels",
    "zero_point",
]

_KEEPS_ALL = {
    "DepthToSpace", "Dropout", "Expand", "Flatten", "Identity", "Pad", "Reshape", "SpaceToDepth",
    "Squeeze", "Tile", "Transpose", "Unsqueeze",
}  # of the values that they move  # fmt: skip
MOVES = _KEEPS_ALL | {
    "AveragePool", "Concat", "Gather", "GlobalAveragePool", "GlobalMaxPool", "MaxPool", "ReduceMax",
    "ReduceMean", "ReduceSum", "Slice", "Split",
}  # of numbers that are not negative, they make no negative ones  # fmt: skip
_WITHIN_LAYERS = {"Add", "BatchNormalization", "Clip", "Div", "Mul", "Sub"}
_ROUNDING = {"DequantizeLinear", "Identity", "QuantizeLinear"}
_MANY_STEPS = 15  # of 4 bits
_NOT_NEGATIVE = {"Abs", "Exp", "HardSigmoid", "Relu", "Sigmoid", "Softmax", "Sqrt"}


class Dequantizer:
    """The work, node after node: what is real by now, and what whole numbers it stood for."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.levels: dict[int, tuple[Array, Array]] = {}  # by id() of a tensor, scale and zero
        self.sums: set[int] = set()  # id() of tensors that are sums of whole numbers, in float32
        self.not_negative = {id(tensor) for tensor in graph.inputs}  # they are not cut off either
        self._numbers = itertools.count()

    def move(self, node: Node) -> None:
        """What a node gives stands for whole numbers as what it reads."""
        if id(node.inputs[0]) in self.levels:
            levels = self.single(node)
            for tensor in node.outputs:
                self.stands_for(tensor, *levels)

    def single(self, node: Node) -> tuple[Array, Array]:
        """One scale and zero point for all that a node reads: of many, the axis may move."""
        scale, zero = self.levels[id(node.inputs[0])]
        if scale.size > 1:
            scale, zero = whole_levels(zero)
            node.inputs[0] = self.whole(node.inputs[0], zero)
            self.stands_for(node.inputs[0], scale, zero)
        return scale, zero

    def read_whole(self, node: Node) -> None:
        """Let a node that knows of no scale read whole numbers, of their type, as it did."""
        for position, tensor in enumerate(node.inputs):
            if id(tensor) in self.levels:
                scale, zero = self.levels[id(tensor)]
                if node.op == "Cast" and node.attrs["to"] == onnx.TensorProto.FLOAT:
                    node.inputs[position] = self.whole(tensor, np.zeros_like(zero))
                else:
                    node.inputs[position] = self._rounded(tensor, scale, zero)

    def note_sign(self, node: Node) -> None:
        """Note what cannot be negative."""
        keeps = node.op in {*MOVES, "Add", "Mul"} and all(map(self._is_positive, node.inputs))
        if keeps or node.op in _NOT_NEGATIVE or _clips_from_0(node):
            self.not_negative.update(id(tensor) for tensor in node.outputs)

    def _is_positive(self, tensor: Tensor) -> bool:
        """Whether a tensor has no values below 0; whole numbers that say a shape do not count."""
        values = constant(tensor)
        if values is None:
            return tensor.is_empty() or id(tensor) in self.not_negative
        return values.dtype.kind == "i" or bool(np.all(values >= 0))

    def stands_for(self, tensor: Tensor, scale: Array, zero: Array) -> None:
        """A tensor is real from now on, and stood for whole numbers."""
        tensor.dtype = np.float32
        self.levels[id(tensor)] = scale, zero

    def real(self, tensor: Tensor, scale: Tensor, zero: Tensor | None, axis: int = 0) -> Tensor:
        """The real numbers that a tensor stands for; `axis` has a scale each, if there are many."""
        values = constant(tensor)
        axes = len(tensor.shape or ()) if values is None else values.ndim
        worth, nothing = scale_and_zero(scale, zero, axes, axis)
        if values is not None:
            return self.number((values.astype(np.float32) - nothing) * worth)
        known = self.levels.get(id(tensor))
        if known is not None and all(map(np.array_equal, known, (worth, nothing))):
            return tensor
        return self.made("Mul", self.whole(tensor, nothing), self.number(worth))

    def whole(self, tensor: Tensor, zero: Array) -> Tensor:
        """The whole numbers that a tensor holds or stands for, less a zero point, in float32."""
        held, nothing = constant(tensor), zero.astype(np.float32)
        if id(tensor) in self.levels:
            scale, own = self.levels[id(tensor)]
            whole = tensor if np.all(scale == 1) else self.made("Div", tensor, self.number(scale))
            shift = own.astype(np.float32) - nothing
            return self.made("Add", whole, self.number(shift)) if np.any(shift) else whole
        if held is not None:
            return self.number(held.astype(np.float32) - nothing)
        cast = self.made("Cast", tensor, to=onnx.TensorProto.FLOAT)
        return self.made("Sub", cast, self.number(nothing))

    def number(self, values: Array | float) -> Tensor:
        """A constant of float32."""
        name = unique_name(self.graph, f"onnxsnn.real.{next(self._numbers)}")
        return gs.Constant(name, np.asarray(values, np.float32))

    def made(self, operator: str, *inputs: Tensor, **attrs: object) -> Tensor:
        """The output of a new node, in float32."""
        return computed(self.graph, operator, inputs, operator, attrs)

    def become(self, node: Node, operator: str, *inputs: Tensor) -> None:
        """A node becomes one of ONNX's own, without the attributes that only theirs have."""
        node.op, node.domain, node.inputs = operator, None, list(inputs)
        for name in ("channels_last", "opset"):
            node.attrs.pop(name, None)
        for tensor in node.outputs:
            tensor.dtype = np.float32

    def become_product(self, node: Node, left: Tensor, right: Tensor, bias: Tensor) -> None:
        """A node becomes a product, plus a bias unless that is empty."""
        node.attrs.clear()
        self.become(node, "MatMul", left, right)
        if not bias.is_empty():
            (output,) = node.outputs
            product = gs.Variable(unique_name(self.graph, f"{output.name}.product"), np.float32)
            node.outputs = [product]
            insert(self.graph, "Add", [product, bias], output)

    def round_output(self, node: Node, scale: Tensor, zero: Tensor | None) -> None:
        """What a node gives was rounded to whole numbers."""
        output = node.outputs[0]
        exact = gs.Variable(unique_name(self.graph, f"{output.name}.exact"), np.float32)
        node.outputs = [exact]
        self.note_sign(node)
        self.round(exact, output, scale, zero)

    def round(
        self,
        source: Tensor,
        output: Tensor,
        scale: Tensor,
        zero: Tensor | None,
        axes: int = 0,
        axis: int = 0,
    ) -> None:
        """Let a tensor be another that is not rounded any more, but cut off.

        Of so many axes, one may have a scale each.
        """
        worth, nothing = scale_and_zero(scale, zero, axes, axis)
        self.stands_for(output, worth, nothing)
        least, most = type_limits(nothing.dtype)
        self.clip(source, output, least, most)

    def clip(self, source: Tensor, output: Tensor, least: float, most: float) -> None:
        """Let a real tensor be another, cut off as its whole numbers are."""
        scale, zero = self.levels[id(output)]
        limits = (most - zero.astype(np.float32)) * scale
        limit = self.number(np.max(limits))
        rectifier = self._rectifier_of(source)
        positive = rectifier is not None or self._is_positive(source)
        if rectifier is not None:
            _lower(rectifier, self.number(0), limit)
        rectifies = bool(np.all(zero == least))
        if limits.size > 1 and (rectifier is not None or (rectifies and not positive)):
            rectified = self.made("Relu", source) if rectifier is None else source
            insert(self.graph, "Min", [rectified, self.number(limits)], output)
        elif rectifies and not positive:
            insert(self.graph, "Clip", [source, self.number(0), limit], output)
        elif rectifier is not None:
            insert(self.graph, "Identity", [source], output)
        else:
            self._cut_off(source, output, (least - zero.astype(np.float32)) * scale, limits)
        if positive or rectifies:
            self.not_negative.add(id(output))

    def _cut_off(self, source: Tensor, output: Tensor, low: Array, high: Array) -> None:
        """Let a tensor be another, cut off on both sides of 0, or above it alone.

        At -c and c where one step of many is all the difference: that is a neuron's own limit
        (`passes/encode.py`).
        """
        scale, _ = self.levels[id(output)]
        if self._is_within(source, output, low - scale, high + scale):
            insert(self.graph, "Identity", [source], output)
            return
        if self._is_positive(source):
            insert(self.graph, "Min", [source, self.number(high)], output)
            return
        steps = (high - low) / scale
        if np.all(steps >= _MANY_STEPS) and np.all(np.abs(low + high) < 1.5 * scale):
            high = np.minimum(-low, high)
            low = -high
        if scale.size > 1:
            raised = self.made("Max", source, self.number(low))
            insert(self.graph, "Min", [raised, self.number(high)], output)
        else:
            insert(self.graph, "Clip", [source, self.number(low), self.number(high)], output)

    def _is_within(self, source: Tensor, output: Tensor, low: Array, high: Array) -> bool:
        """Whether a tensor is not to be cut off there, if that does not rectify.

        What comes in is in the range that it was measured to have, and what was whole numbers is
        within their limits, but where the same values have narrower ones; a Clip cuts off itself,
        before or behind, and what a bias or a normalization reads is not the end of a layer yet.
        What is not negative is mostly spikes, which would not be those behind a limit; but sums of
        them go further than they do.
        """
        maker = _maker(source)
        if maker is None or (self._is_positive(source) and maker.op != "Add"):
            return True
        bounds = clipped_between(maker)
        clipped = bounds is not None and np.all(bounds[0] >= low) and np.all(bounds[1] <= high)
        was_whole = self._was_whole(source, low.max(), high.min())
        return bool(clipped) or was_whole or self._is_within_layer(output)

    def _was_whole(self, tensor: Tensor, low: float, high: float) -> bool:
        """Whether a tensor was moved, or averaged, of one that stood for whole numbers.

        All of whose values it has if those are within these limits.
        """
        all_of_them = True
        while tensor.inputs and tensor.inputs[0].op in MOVES:
            all_of_them &= tensor.inputs[0].op in _KEEPS_ALL
            tensor = tensor.inputs[0].inputs[0]
            if id(tensor) in self.levels:
                scale, zero = self.levels[id(tensor)]
                ends = [(end - zero.astype(np.float32)) * scale for end in type_limits(zero.dtype)]
                within = low <= np.min(ends) and np.max(ends) <= high
                return bool(within) or not all_of_them
        return False

    def _is_within_layer(self, tensor: Tensor) -> bool:
        """Whether nothing but a Clip, or arithmetic with constants, reads a tensor."""
        if is_output(self.graph, tensor) or not tensor.outputs:
            return False
        for node in tensor.outputs:
            if node.op in _WITHIN_LAYERS:
                others = [each for each in node.inputs if each is not tensor]
                fits = all(map(is_of_constants, others))
            else:
                fits = node.op in _ROUNDING and self._is_within_layer(node.outputs[0])
            if not fits:
                return False
        return True

    def _rectifier_of(self, tensor: Tensor) -> Node | None:
        """The Relu, or Clip from 0, that makes a tensor which nothing reads, or no longer does."""
        readers = 0
        while len(tensor.outputs) == readers and tensor.inputs:
            if is_output(self.graph, tensor):
                return None
            node = tensor.inputs[0]
            limited = node.op == "Min" and constant(node.inputs[-1]) is not None
            if node.op != "Identity" and not limited:
                return node if node.op == "Relu" or _clips_from_0(node) else None
            tensor, readers = node.inputs[0], 1
        return None

    def whole_output(self, tensor: Tensor) -> Tensor:
        """An output of the model, in whole numbers as it was."""
        scale, zero = self.levels[id(tensor)]
        name, tensor.name = tensor.name, unique_name(self.graph, f"{tensor.name}.real")
        whole = self._rounded(tensor, scale, zero)
        whole.name, whole.shape = name, tensor.shape
        return whole

    def _rounded(self, tensor: Tensor, scale: Array, zero: Array) -> Tensor:
        """The whole numbers that a real tensor stands for, of their type."""
        least, most = type_limits(zero.dtype)
        steps = self.made("Round", self.made("Div", tensor, self.number(scale)))
        shifted = self.made("Add", steps, self.number(zero))
        cut = self.made("Clip", shifted, self.number(least), self.number(most))
        kind = onnx.helper.np_dtype_to_tensor_dtype(zero.dtype)
        whole = self.made("Cast", cut, to=kind)
        whole.dtype = zero.dtype
        return whole


def is_of_constants(tensor: Tensor) -> bool:
    """Whether nothing that a tensor is computed from is an input of the graph, or within a body."""
    before = nodes_before([tensor])
    sources = [tensor, *(source for node in before for source in node.inputs)]
    return not any(map(has_body, before)) and all(
        source.inputs or constant(source) is not None or not source.name for source in sources
    )


def whole_levels(zero: Array) -> tuple[Array, Array]:
    """Scale and zero point of whole numbers that stand for themselves, of a zero point's type."""
    return np.ones((), np.float32), np.zeros((), zero.dtype)


def scale_and_zero(scale: Tensor, zero: Tensor | None, axes: int, axis: int) -> tuple[Array, Array]:
    """Scale and zero point, broadcastable to a tensor of so many axes."""
    worth: Array = scale.values
    nothing = zero_point(zero)
    many = [-1 if place == axis % axes else 1 for place in range(axes)] or [-1]
    shape = many if worth.size > 1 else ()
    return worth.reshape(shape), np.broadcast_to(nothing.reshape(-1), worth.size).reshape(shape)


def zero_point(zero: Tensor | None) -> Array:
    """Its values, 0 where it is left out."""
    return np.zeros((), np.uint8) if zero is None or zero.is_empty() else np.asarray(zero.values)


def type_limits(kind: np.dtype[Any]) -> tuple[float, float]:
    """The least and the greatest whole number of a type; no limits of another."""
    if kind.name in _FEW_BITS:
        return _FEW_BITS[kind.name]
    if kind.kind not in "iu":
        return -np.inf, np.inf
    return float(np.iinfo(kind).min), float(np.iinfo(kind).max)


_FEW_BITS = {"int2": (-2.0, 1.0), "uint2": (0.0, 3.0), "int4": (-8.0, 7.0), "uint4": (0.0, 15.0)}


def _clips_from_0(node: Node) -> bool:
    low = constant(node.inputs[1]) if node.op == "Clip" and len(node.inputs) > 1 else None
    return low is not None and bool(np.all(low == 0))


def _maker(tensor: Tensor) -> Node | None:
    """The node that makes a tensor, not Identity; None of an input of the graph."""
    while tensor.inputs and tensor.inputs[0].op == "Identity":
        tensor = tensor.inputs[0].inputs[0]
    return tensor.inputs[0] if tensor.inputs else None


def _lower(rectifier: Node, zero: Tensor, limit: Tensor) -> None:
    """Let a rectifier clip at a limit, unless it clips below."""
    own = constant(rectifier.inputs[2]) if len(rectifier.inputs) > 2 else None
    if own is None or own > limit.values:
        rectifier.op, rectifier.inputs = "Clip", [rectifier.inputs[0], zero, limit]


def kind_given(attributes: Mapping[str, Any]) -> np.dtype[Any]:
    """The type that a QuantizeLinear without a zero point gives."""
    kind = attributes.get("output_dtype", 0) or onnx.TensorProto.UINT8
    return np.dtype(onnx.helper.tensor_dtype_to_np_dtype(kind))
