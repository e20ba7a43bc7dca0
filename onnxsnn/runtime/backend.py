"""What the Runner asks of a backend: one timestep, with states that it keeps in its own form."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from onnxsnn.arrays import Array

__all__ = ["Backend"]


class Backend(Protocol):
    """One timestep of the step graph. Inputs and states are opaque to the caller."""

    def prepare(self, feeds: Mapping[str, Array]) -> Any:
        """The inputs in the backend's form: they are the same in every step."""

    def initial_state(self) -> Any:
        """The state before the first step."""

    def step(self, inputs: Any, state: Any) -> tuple[dict[str, Array], Any]:
        """Outputs of one timestep by name, and the state after it."""
