"""QONNX, as Brevitas exports networks of few bits, in ONNX's own operators.

Its operators are of no standard, and ONNX Runtime runs none of them. Weights become what they are
rounded to. What rounds values on the way becomes QuantizeLinear, Clip to the whole numbers of so
many bits, and DequantizeLinear (QCDQ), which `quantized.py` knows; above 8 bits, it is left out,
but for a least value of 0. BipolarQuant is a choice of two values.

https://github.com/fastmachinelearning/qonnx/tree/main/docs/qonnx-custom-ops says what they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from onnxsnn.arrays import Array
from onnxsnn.errors import ModelError

__all__ = ["constants_of", "without_qonnx"]

_DOMAINS = {"finn.custom_op.general", "onnx.brevitas", "qonnx.custom_op.general"}
_ROUND: dict[str, Callable[[Array], Array]] = {
    "CEIL": np.ceil, "FLOOR": np.floor, "HALF_DOWN": np.round, "HALF_UP": np.round,
    "ROUND": np.round,
}  # fmt: skip
_SHIFTS = {"CEIL": 0.5, "FLOOR": -0.5}  # steps, which make another rounding of the nearest
_BYTE = 8  # bits


def without_qonnx(model: onnx.ModelProto) -> onnx.ModelProto:
    """A model in ONNX's own operators; the model itself where it has no other.

    Raises:
        ModelError: such an operator is not known, or its scale or number of bits is no constant.
    """
    if not any(node.domain in _DOMAINS for node in model.graph.node):
        return model
    plain = onnx.ModelProto()
    plain.CopyFrom(model)
    constants = dict(constants_of(model.graph))
    plain.graph.ClearField("node")
    for node in model.graph.node:
        if node.domain not in _DOMAINS:
            plain.graph.node.append(node)
            continue
        parts = _Parts(node, constants)
        plain.graph.node.extend(parts.nodes)
        plain.graph.initializer.extend(parts.weights)
        constants |= {tensor.name: numpy_helper.to_array(tensor) for tensor in parts.weights}
    opsets = [entry for entry in plain.opset_import if entry.domain not in _DOMAINS]
    plain.ClearField("opset_import")
    plain.opset_import.extend(opsets)
    return plain


def constants_of(graph: onnx.GraphProto) -> Iterator[tuple[str, Array]]:
    """The values of constants, by name."""
    for tensor in graph.initializer:
        yield tensor.name, numpy_helper.to_array(tensor)
    for node in graph.node:
        values = {a.name: a.t for a in node.attribute} if node.op_type == "Constant" else {}
        if "value" in values:
            yield node.output[0], numpy_helper.to_array(values["value"])


class _Parts:
    """What one node becomes.

    Attributes:
        nodes: ONNX's own.
        weights: or the constant that it gives.
    """

    def __init__(self, node: onnx.NodeProto, constants: Mapping[str, Array]) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self._node, self._constants = node, constants
        self._attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        if node.op_type == "BipolarQuant":
            self._two_values()
        elif node.op_type in ("IntQuant", "Quant"):
            self._whole_numbers()
        else:
            raise self._unknown(f"is not known; {_ELSE}")

    def _unknown(self, problem: str) -> ModelError:
        return ModelError(f"node {self._node.name!r} ({self._node.op_type}, of QONNX): {problem}")

    def _read(self, position: int) -> Array:
        """What has to be a constant."""
        values = self._constants.get(self._node.input[position])
        if values is None:
            raise self._unknown(f"input {position} is no constant; run qonnx-cleanup on the file")
        return values

    def _add(self, operator: str, *inputs: str | Array, **attributes: Any) -> str:
        """A node, of whose inputs arrays are constants; what it gives."""
        base, names = self._node.output[0], []
        for values in inputs:
            if not isinstance(values, str):
                name = f"{base}.constant.{len(self.weights)}"
                self.weights.append(numpy_helper.from_array(np.asarray(values), name))
                values = name
            names.append(values)
        output = f"{base}.{operator}.{len(self.nodes)}"
        name = f"{self._node.name or base}/{operator}.{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, names, [output], name, **attributes))
        return output

    def _end(self) -> None:
        """Let the last node give what the node gave."""
        self.nodes[-1].output[0] = self._node.output[0]

    def _give(self, values: Array) -> None:
        """Give a constant."""
        tensor = numpy_helper.from_array(values.astype(np.float32), self._node.output[0])
        self.weights.append(tensor)

    def _two_values(self) -> None:
        """The scale from 0 on, and its negative below."""
        scale, held = self._read(1).astype(np.float32), self._constants.get(self._node.input[0])
        if held is not None:
            self._give(np.where(held >= 0, scale, -scale))
            return
        positive = self._add("GreaterOrEqual", self._node.input[0], np.zeros((), np.float32))
        self._add("Where", positive, scale, -scale)
        self._end()

    def _whole_numbers(self) -> None:
        """(q - z) s, with q the whole number that is nearest to x / s + z, within its bits."""
        scale, zero = (self._read(at).astype(np.float32) for at in (1, 2))
        least, most = self._limits()
        mode = self._attributes.get("rounding_mode", b"ROUND").decode().upper()
        if mode not in _ROUND:
            raise self._unknown(f"rounds by {mode}, which is not known; {_ELSE}")
        held = self._constants.get(self._node.input[0])
        if held is not None:
            whole = _ROUND[mode](np.clip(held / scale + zero, least, most))
            self._give((whole - zero) * scale)
            return
        source = self._node.input[0]
        if mode in _SHIFTS:
            source = self._add("Add", source, scale * np.float32(_SHIFTS[mode]))
        if most - least >= 2**_BYTE:
            rectifies = least == 0 and not np.any(zero)
            self._add("Relu" if rectifies else "Identity", source)
        else:
            self._quantized(source, scale, zero, (least, most))
        self._end()

    def _limits(self) -> tuple[float, float]:
        """The least and the greatest whole number."""
        bits = float(self._read(3).reshape(-1)[0])
        narrow = float(self._attributes.get("narrow", 0))
        if self._attributes.get("signed", 1):
            return narrow - 2 ** (bits - 1), 2 ** (bits - 1) - 1
        return 0.0, 2**bits - 1 - narrow

    def _quantized(
        self, source: str, scale: Array, zero: Array, limits: tuple[float, float]
    ) -> None:
        """By QuantizeLinear, Clip and DequantizeLinear."""
        kind = np.int8 if limits[0] < 0 else np.uint8
        many = np.flatnonzero(np.greater(scale.shape, 1))
        if len(many) > 1:
            raise self._unknown(f"has scales along several axes; {_ELSE}")
        axis = {"axis": int(many[0])} if len(many) else {}
        worth = scale.reshape(-1 if len(many) else ())
        nothing = np.broadcast_to(zero.reshape(-1), worth.size).reshape(worth.shape).astype(kind)
        whole = self._add("QuantizeLinear", source, worth, nothing, **axis)
        bounds = (np.array(limit, kind) for limit in limits)
        whole = self._add("Clip", whole, *bounds)
        self._add("DequantizeLinear", whole, worth, nothing, **axis)


_ELSE = "export the model as QCDQ"
