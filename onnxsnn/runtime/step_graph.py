"""The step graph in ONNX Runtime: each timestep is one run of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx

from onnxsnn.arrays import Array
from onnxsnn.passes.spike import State
from onnxsnn.runtime.backend import Stepping
from onnxsnn.runtime.ort_values import Values, from_arrays, run_bound
from onnxsnn.session import make_session

__all__ = ["StepGraph"]


class StepGraph(Stepping):
    """Steps a graph by IO binding; only the outputs asked for become NumPy arrays.

    `threads` and `spinning` are those of `make_session`.
    """

    def __init__(
        self,
        model: onnx.ModelProto,
        states: Sequence[State],
        outputs: Sequence[str],
        threads: int | None = None,
        *,
        spinning: bool = True,
    ) -> None:
        self._session = make_session(model, threads, spinning=spinning)
        self._states = list(states)
        self._outputs = list(outputs)

    def prepare(self, feeds: Mapping[str, Array]) -> Values:
        """The inputs as ONNX Runtime's own values."""
        return from_arrays(feeds)

    def step(self, inputs: Values, state: Values) -> tuple[dict[str, Array], Values]:
        """One run of the session."""
        names = [*self._outputs, *(state.output for state in self._states)]
        values = run_bound(self._session, inputs | state, names)
        outputs = {name: values[name].numpy() for name in self._outputs}
        return outputs, {s.input: values[s.output] for s in self._states}
