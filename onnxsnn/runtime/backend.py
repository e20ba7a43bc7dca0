"""What the Runner asks of a backend: timesteps, with states that it keeps in its own form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from onnxsnn.arrays import Array

__all__ = ["Backend", "Stepping", "Tile"]

Tile = tuple[int, int]
"""How many samples, and how many timesteps of them, are best run at once."""


class Backend(Protocol):
    """Timesteps of an SNN. Inputs and states are opaque to the caller."""

    warnings: list[str]
    """What the user should know, each once."""

    def tile(self, feeds: Mapping[str, Array], timesteps: int) -> Tile:
        """The tile for a run of these inputs; asked before they are prepared."""

    def prepare(self, feeds: Mapping[str, Array]) -> Any:
        """The inputs in the backend's form: they are the same in every step."""

    def initial_state(self) -> Any:
        """The state before the first step."""

    def advance(
        self, inputs: Any, state: Any, timesteps: int, every_step: bool
    ) -> tuple[dict[str, Array], Any]:
        """Outputs by name after each step, [timesteps, N, ...], and the state after the last.

        Without `every_step`, outputs after the last step alone will do, [1, N, ...].
        """

    def shape(self, state: Any, name: str) -> Sequence[int]:
        """The shape of one state after a step."""

    def gather(self, pieces: Sequence[Any], rows: Sequence[Array], size: int) -> list[Any] | None:
        """Some rows of each piece of inputs or states, together, in pieces of `size` samples.

        None where the graph may mix samples.
        """


class Stepping:
    """What graphs that are run a step at a time share."""

    def tile(self, feeds: Mapping[str, Array], timesteps: int) -> Tile:  # noqa: ARG002
        """All samples, and a step at a time."""
        return len(next(iter(feeds.values()))), 1

    def initial_state(self) -> dict[str, Any]:
        """No values: the graph's default initializers are the state before the first step."""
        return {}

    def step(self, inputs: Any, state: Any) -> tuple[dict[str, Array], Any]:
        """Outputs of one timestep by name, and the state after it."""
        raise NotImplementedError

    def advance(
        self,
        inputs: Any,
        state: Any,
        timesteps: int,
        every_step: bool,  # noqa: ARG002
    ) -> tuple[dict[str, Array], Any]:
        """One step after the other."""
        history: list[dict[str, Array]] = []
        for _ in range(timesteps):
            outputs, state = self.step(inputs, state)
            history.append(outputs)
        return {name: np.stack([o[name] for o in history]) for name in history[0]}, state
