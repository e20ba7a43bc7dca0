"""Backend `onnxruntime`: states stay in ONNX Runtime, bound from one step's output to the next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx
import onnxruntime as ort

from onnxsnn.arrays import Array
from onnxsnn.passes.spike import State
from onnxsnn.session import make_session, run_failure

__all__ = ["OnnxRuntimeBackend"]

_Values = dict[str, ort.OrtValue]


class OnnxRuntimeBackend:
    """Steps a graph by IO binding; only the outputs asked for become NumPy arrays."""

    def __init__(
        self,
        model: onnx.ModelProto,
        states: Sequence[State],
        outputs: Sequence[str],
        threads: int | None = None,
    ) -> None:
        self._session = make_session(model, threads)
        self._states = list(states)
        self._outputs = list(outputs)

    def prepare(self, feeds: Mapping[str, Array]) -> _Values:
        """The inputs as ONNX Runtime's own values."""
        return {name: ort.OrtValue.ortvalue_from_numpy(value) for name, value in feeds.items()}

    def initial_state(self) -> _Values:
        """No values: the graph's default initializers are the state before the first step."""
        return {}

    def step(self, inputs: _Values, state: _Values) -> tuple[dict[str, Array], _Values]:
        """One run of the session."""
        binding = self._session.io_binding()
        for name, value in (inputs | state).items():
            binding.bind_ortvalue_input(name, value)
        names = [*self._outputs, *(state.output for state in self._states)]
        for name in names:
            binding.bind_output(name, "cpu")
        try:
            self._session.run_with_iobinding(binding)
        except Exception as error:  # ONNX Runtime's are not of one class
            raise run_failure({n: v.numpy() for n, v in inputs.items()}, error) from error
        values = dict(zip(names, binding.get_outputs(), strict=True))
        outputs = {name: values[name].numpy() for name in self._outputs}
        return outputs, {s.input: values[s.output] for s in self._states}
