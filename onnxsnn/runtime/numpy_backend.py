"""Backend `numpy`: onnx's reference implementation, slow and independent of ONNX Runtime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

from onnxsnn.arrays import Array
from onnxsnn.errors import ModelError
from onnxsnn.passes.spike import State
from onnxsnn.runtime.backend import Stepping
from onnxsnn.session import run_failure

__all__ = ["NumpyBackend"]

_Values = dict[str, Array]


class NumpyBackend(Stepping):
    """Steps a graph with NumPy; states are arrays."""

    def __init__(
        self,
        model: onnx.ModelProto,
        states: Sequence[State],
        outputs: Sequence[str],
        threads: int | None = None,  # noqa: ARG002 - NumPy chooses its own
        **_: Any,
    ) -> None:
        self.warnings: list[str] = []
        try:
            self._evaluator = ReferenceEvaluator(model, new_ops=_own(model))
        except Exception as error:
            raise ModelError(
                f"onnx's reference implementation does not take the model: {error}"
            ) from error
        self._states = list(states)
        self._outputs = list(outputs)

    def prepare(self, feeds: Mapping[str, Array]) -> _Values:
        """The inputs, as they are."""
        return dict(feeds)

    def shape(self, state: _Values, name: str) -> tuple[int, ...]:
        """The shape of one state after a step."""
        return state[name].shape

    def gather(self, pieces: Sequence[_Values], rows: Sequence[Array], size: int) -> None:
        """None: whether the graph mixes samples is not known."""

    def step(self, inputs: _Values, state: _Values) -> tuple[dict[str, Array], _Values]:
        """One evaluation of the graph."""
        names = [*self._outputs, *(state.output for state in self._states)]
        try:
            values = dict(zip(names, self._evaluator.run(names, inputs | state), strict=True))
        except Exception as error:  # NumPy's are not of one class
            raise run_failure(inputs, error) from error
        outputs = {name: values[name] for name in self._outputs}
        return outputs, {s.input: values[s.output] for s in self._states}


class _QuantizeLinear(OpRun):
    """Numbers to unsigned bytes."""

    op_domain = ""

    def _run(self, x: Array, scale: Array, zero: Array, **_: Any) -> tuple[Array]:
        return (np.clip(np.rint(x / scale) + zero, 0, 255).astype(np.uint8),)


class _DequantizeLinear(OpRun):
    """Whole numbers to numbers, with a scale for all or one for each index of an axis."""

    op_domain = ""

    def _run(
        self, x: Array, scale: Array, zero: Array | None = None, axis: int = 1, **_: Any
    ) -> tuple[Array]:
        sizes = [-1 if at == axis % x.ndim else 1 for at in range(x.ndim)]
        scale, zero = (np.asarray(v, np.float32) for v in (scale, 0 if zero is None else zero))
        scale, zero = (v.reshape(sizes if v.size > 1 else ()) for v in (scale, zero))
        return ((x.astype(np.float32) - zero) * scale,)


class _Lrn(OpRun):
    """Values over what neighbouring channels hold together; onnx's takes samples for channels."""

    op_domain = ""

    def _run(
        self, x: Array, alpha: float, beta: float, bias: float, size: int, **_: Any
    ) -> tuple[Array]:
        beside = [(0, 0)] * x.ndim
        beside[1] = ((size - 1) // 2, size // 2)
        windows = np.lib.stride_tricks.sliding_window_view(np.pad(x**2, beside), size, axis=1)
        return ((x / (bias + alpha / size * windows.sum(axis=-1)) ** beta).astype(x.dtype),)


_QuantizeLinear.__name__, _DequantizeLinear.__name__ = "QuantizeLinear", "DequantizeLinear"
_Lrn.__name__ = "LRN"
_FIRST_OPSET = 19


def _own(model: onnx.ModelProto) -> list[type[OpRun]]:
    """What onnx's reference implementation has from opset 19 on only, or has otherwise."""
    opset = max(entry.version for entry in model.opset_import if not entry.domain)
    return [_Lrn] if opset >= _FIRST_OPSET else [_Lrn, _QuantizeLinear, _DequantizeLinear]
