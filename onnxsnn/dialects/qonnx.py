"""QONNX, as Brevitas exports networks of few bits, in ONNX's own operators.

Its operators are of no standard, and ONNX Runtime runs none of them. Weights become what they are
rounded to. What rounds values on the way becomes QuantizeLinear, Clip to the whole numbers of so
many bits, and DequantizeLinear (QCDQ), which `quantized.py` knows; above 8 bits, it is left out,
but for a least value of 0. BipolarQuant is a choice of two values.

https://github.com/fastmachinelearning/qonnx/tree/main/docs/qonnx-custom-ops says what they are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import deepcopy
from typing import Any

import numpy as np
import onnx
from onnx.numpy_helper import from_array, to_array

from onnxsnn.arrays import Array
from onnxsnn.dialects.opsets import to_opset
from onnxsnn.dialects.parts import Parts, constants_of
from onnxsnn.errors import ModelError
from onnxsnn.functions import MINIMUM_OPSET

__all__ = ["without_qonnx"]

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
        ModelError: such an operator is not known, its scale or number of bits is no constant, or
            onnx cannot bring the model to an opset that has what stands for it.
    """
    if not any(node.domain in _DOMAINS for node in model.graph.node):
        return model
    model = to_opset(model, MINIMUM_OPSET)  # older ones have not all that is written here
    plain = deepcopy(model)
    constants = constants_of(model.graph)
    plain.graph.ClearField("node")
    for node in model.graph.node:
        if node.domain not in _DOMAINS:
            plain.graph.node.append(node)
            continue
        parts = _Parts(node, constants)
        plain.graph.node.extend(parts.nodes)
        if parts.weights is not None:
            plain.graph.initializer.append(parts.weights)
            constants[parts.weights.name] = parts.weights
    opsets = [entry for entry in plain.opset_import if entry.domain not in _DOMAINS]
    plain.ClearField("opset_import")
    plain.opset_import.extend(opsets)
    return plain


class _Parts(Parts):
    """What one node becomes: nodes of ONNX's own, or weights.

    Attributes:
        weights: the constant that it gives, where it reads one.
    """

    def __init__(self, node: onnx.NodeProto, constants: Mapping[str, onnx.TensorProto]) -> None:
        super().__init__(node)
        self.weights: onnx.TensorProto | None = None
        self._constants = constants
        if node.op_type == "BipolarQuant":
            self._two_values()
        elif node.op_type in ("IntQuant", "Quant"):
            self._whole_numbers()
        else:
            raise self._unknown(f"is not known; {_ELSE}")

    def _unknown(self, problem: str) -> ModelError:
        return ModelError(f"node {self._node.name!r} ({self._node.op_type}, of QONNX): {problem}")

    def _held(self, position: int) -> Array | None:
        """The values of an input; None where it is no constant."""
        tensor = self._constants.get(self.inputs[position])
        return None if tensor is None else to_array(tensor).astype(np.float32)

    def _setting(self, position: int) -> Array:
        """What has to be a constant."""
        values = self._held(position)
        if values is None:
            raise self._unknown(f"input {position} is no constant; run qonnx-cleanup on the file")
        return values

    def _give_weights(self, values: Array) -> None:
        self.weights = from_array(values.astype(np.float32), self.outputs[0])

    def _two_values(self) -> None:
        """The scale from 0 on, and its negative below."""
        scale, held = self._setting(1), self._held(0)
        if held is not None:
            self._give_weights(np.where(held >= 0, scale, -scale))
            return
        positive = self.add("GreaterOrEqual", self.inputs[0], self.number(0))
        self.give(0, self.add("Where", positive, *map(self.array, (scale, -scale))))

    def _whole_numbers(self) -> None:
        """(q - z) s, with q the whole number that is nearest to x / s + z, within its bits."""
        scale, zero = self._setting(1), self._setting(2)
        least, most = self._limits()
        mode = self.attributes.get("rounding_mode", b"ROUND").decode().upper()
        if mode not in _ROUND:
            raise self._unknown(f"rounds by {mode}, which is not known; {_ELSE}")
        held = self._held(0)
        if held is not None:
            whole = _ROUND[mode](np.clip(held / scale + zero, least, most))
            self._give_weights((whole - zero) * scale)
            return
        source = self.inputs[0]
        if mode in _SHIFTS:
            source = self.add("Add", source, self.array(scale * np.float32(_SHIFTS[mode])))
        if most - least < 2**_BYTE:
            source = self._quantized(source, scale, zero, (least, most))
        elif least == 0 and not np.any(zero):
            source = self.add("Relu", source)
        self.give(0, source)

    def _limits(self) -> tuple[float, float]:
        """The least and the greatest whole number."""
        bits = float(self._setting(3).reshape(-1)[0])
        narrow = float(self.attributes.get("narrow", 0))
        if self.attributes.get("signed", 1):
            return narrow - 2 ** (bits - 1), 2 ** (bits - 1) - 1
        return 0.0, 2**bits - 1 - narrow

    def _quantized(
        self, source: str, scale: Array, zero: Array, limits: tuple[float, float]
    ) -> str:
        """By QuantizeLinear, Clip and DequantizeLinear."""
        kind = np.int8 if limits[0] < 0 else np.uint8
        many = np.flatnonzero(np.greater(scale.shape, 1))
        if len(many) > 1:
            raise self._unknown(f"has scales along several axes; {_ELSE}")
        axis: dict[str, Any] = {"axis": int(many[0])} if len(many) else {}
        worth = scale.reshape(-1 if len(many) else ())
        nothing = np.broadcast_to(zero.reshape(-1), worth.size).reshape(worth.shape).astype(kind)
        steps = [self.array(values) for values in (worth, nothing)]
        whole = self.add("QuantizeLinear", source, *steps, **axis)
        cut = self.add("Clip", whole, *(self.array(np.array(limit, kind)) for limit in limits))
        return self.add("DequantizeLinear", cut, *steps, **axis)


_ELSE = "export the model as QCDQ"
