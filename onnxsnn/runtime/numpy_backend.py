"""Backend `numpy`: onnx's reference implementation, slow and independent of ONNX Runtime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import onnx
from onnx.reference import ReferenceEvaluator

from onnxsnn.arrays import Array
from onnxsnn.errors import ModelError
from onnxsnn.passes.spike import State
from onnxsnn.runtime.backend import Stepping, Tile
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
            self._evaluator = ReferenceEvaluator(model)
        except Exception as error:
            raise ModelError(
                f"onnx's reference implementation does not take the model: {error}"
            ) from error
        self._states = list(states)
        self._outputs = list(outputs)

    def prepare(self, feeds: Mapping[str, Array]) -> _Values:
        """The inputs, as they are."""
        return dict(feeds)

    def initial_state(self) -> _Values:
        """No values: the graph's default initializers are the state before the first step."""
        return {}

    def tile(self, feeds: Mapping[str, Array], timesteps: int) -> Tile:  # type: ignore[override]
        """All samples, and a step at a time."""
        return super().tile(len(next(iter(feeds.values()))), timesteps)

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
