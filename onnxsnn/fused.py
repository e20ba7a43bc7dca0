"""Operators of ONNX Runtime's own, as its optimizer writes them, taken apart.

A model that was saved optimized holds convolutions and products with the activation inside, GELU as
one operator, and products with a transposition in front (domain com.microsoft). Each becomes what
it was made of, in ONNX's operators.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import onnx
from onnx import helper

__all__ = ["take_apart"]

_DOMAIN = "com.microsoft"


def take_apart(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of a model with such operators in parts; the model itself where it has none."""
    if not any(map(_is_fused, model.graph.node)):
        return model
    apart = onnx.ModelProto()
    apart.CopyFrom(model)
    ranks = {tensor.name: len(tensor.dims) for tensor in model.graph.initializer}
    nodes = [part for node in model.graph.node for part in _parts(node, ranks)]
    apart.graph.ClearField("node")
    apart.graph.node.extend(nodes)
    if not any(node.domain == _DOMAIN for node in nodes):
        kept = [entry for entry in model.opset_import if entry.domain != _DOMAIN]
        apart.ClearField("opset_import")
        apart.opset_import.extend(kept)
    return apart


def _is_fused(node: onnx.NodeProto) -> bool:
    turns_batch = any(a.name.startswith("transBatch") and a.i for a in node.attribute)
    return node.domain == _DOMAIN and node.op_type in _RULES and not turns_batch


def _parts(node: onnx.NodeProto, ranks: Mapping[str, int]) -> list[onnx.NodeProto]:
    if not _is_fused(node):
        return [node]
    parts = _Parts(node, ranks)
    parts.add("Identity", _RULES[node.op_type](parts), to=node.output[0])
    return parts.nodes


class _Parts:
    """The nodes that stand for one.

    Attributes:
        nodes: so far.
        inputs: what the node reads.
        attributes: of the node; a rule takes out what its parts have not.
        ranks: of constants, by name.
    """

    def __init__(self, node: onnx.NodeProto, ranks: Mapping[str, int]) -> None:
        self.ranks = ranks
        self.nodes: list[onnx.NodeProto] = []
        self.inputs = list(node.input)
        self.attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        self._node = node

    def add(self, operator: str, *inputs: str, to: str = "", **attributes: Any) -> str:
        """A node, named after the one that it is a part of; the tensor that it gives."""
        number = len(self.nodes)
        output = to or f"{self._node.output[0]}.{operator}.{number}"
        name = f"{self._node.name or self._node.output[0]}/{operator}.{number}"
        self.nodes.append(helper.make_node(operator, inputs, [output], name, **attributes))
        return output

    def number(self, value: float) -> str:
        """A constant."""
        tensor = helper.make_tensor("value", onnx.TensorProto.FLOAT, [], [value])
        return self.add("Constant", value=tensor)

    def read(self, position: int) -> str:
        """An input; empty where it is left out."""
        return self.inputs[position] if position < len(self.inputs) else ""

    def plus(self, tensor: str, other: str) -> str:
        """A sum, or the tensor alone where nothing is added."""
        return self.add("Add", tensor, other) if other else tensor


def _convolution(parts: _Parts) -> str:
    kind = parts.attributes.pop("activation", b"")
    values = parts.attributes.pop("activation_params", [])
    total = parts.add("Conv", *parts.inputs[:3], **parts.attributes)
    return _activated(parts, parts.plus(total, parts.read(3)), kind, values)


def _gemm(parts: _Parts) -> str:
    kind = parts.attributes.pop("activation", b"")
    names = ("activation_alpha", "activation_beta", "activation_gamma")
    values = [parts.attributes.pop(name) for name in names if name in parts.attributes]
    return _activated(parts, parts.add("Gemm", *parts.inputs, **parts.attributes), kind, values)


def _activated(parts: _Parts, tensor: str, kind: bytes, values: list[float]) -> str:
    """An activation by its name; its settings are ONNX's, in ONNX's order."""
    operator = kind.decode()
    if not operator:
        return tensor
    if operator == "Clip":
        return parts.add(operator, tensor, *map(parts.number, values))
    settings: dict[str, Any] = dict(zip(("alpha", "beta"), values, strict=False))
    return parts.add(operator, tensor, **settings)


def _product(parts: _Parts) -> str:
    """With factors transposed; an Einsum does that whatever their rank."""
    turned = [bool(parts.attributes.get(f"trans{side}", 0)) for side in "AB"]
    factors = parts.inputs[:2]
    for position, name in enumerate(factors):
        if turned[position] and name in parts.ranks:
            *rest, rows, columns = range(parts.ranks[name])
            factors[position] = parts.add("Transpose", name, perm=[*rest, columns, rows])
            turned[position] = False
    left, right = ("ij", "ji")[turned[0]], ("jk", "kj")[turned[1]]
    if any(turned):
        product = parts.add("Einsum", *factors, equation=f"...{left},...{right}->...ik")
    else:
        product = parts.add("MatMul", *factors)
    return parts.add("Mul", product, parts.number(parts.attributes.get("alpha", 1.0)))


def _gelu(parts: _Parts) -> str:
    """x / 2 (1 + erf(x / sqrt(2)))."""
    x = parts.plus(parts.read(0), parts.read(1))
    erf = parts.add("Erf", parts.add("Mul", x, parts.number(0.5**0.5)))
    return _half_of(parts, x, erf)


def _fast_gelu(parts: _Parts) -> str:
    """x / 2 (1 + tanh(x (0.797885 + 0.035677 x^2)))."""
    x = parts.plus(parts.read(0), parts.read(1))
    cubic = parts.add("Mul", parts.add("Mul", x, x), parts.number(0.035677408136300125))
    slope = parts.add("Add", cubic, parts.number(0.7978845608028654))
    return _half_of(parts, x, parts.add("Tanh", parts.add("Mul", x, slope)))


def _half_of(parts: _Parts, x: str, gate: str) -> str:
    half = parts.add("Mul", x, parts.number(0.5))
    return parts.add("Mul", half, parts.add("Add", gate, parts.number(1.0)))


def _quick_gelu(parts: _Parts) -> str:
    """x sigmoid(alpha x)."""
    x = parts.read(0)
    scaled = parts.add("Mul", x, parts.number(parts.attributes.get("alpha", 1.702)))
    return parts.add("Mul", x, parts.add("Sigmoid", scaled))


_RULES: dict[str, Callable[[_Parts], str]] = {
    "BiasGelu": _gelu,
    "FastGelu": _fast_gelu,
    "FusedConv": _convolution,
    "FusedGemm": _gemm,
    "FusedMatMul": _product,
    "Gelu": _gelu,
    "QuickGelu": _quick_gelu,
}
