"""Neuron models: one file each, with function body, static response and numpy step."""

from __future__ import annotations

from typing import ClassVar, Protocol

from onnxsnn.arrays import Floats
from onnxsnn.neurons.integrate_and_fire import IntegrateAndFire
from onnxsnn.neurons.ternary import TernaryIntegrateAndFire

__all__ = ["NEURONS", "IntegrateAndFire", "Neuron", "TernaryIntegrateAndFire"]


class Neuron(Protocol):
    """What the thresholds, the passes and the simulators know of a neuron model."""

    name: ClassVar[str]
    operator: ClassVar[str]
    body: ClassVar[str]
    bits_per_spike: ClassVar[float]

    @property
    def initial_potential(self) -> float:
        """Membrane potential before the first step, as a fraction of the threshold."""

    @property
    def signed(self) -> Neuron:
        """The neuron that stands beside it where values can be negative."""

    def response(self, activation: Floats, threshold: Floats, timesteps: int) -> Floats:
        """What the neuron has emitted per step after T steps of constant input, times theta."""

    def step(self, current: Floats, threshold: Floats, potential: Floats) -> tuple[Floats, Floats]:
        """One timestep: spikes and the membrane potential after them."""


NEURONS: dict[str, type[Neuron]] = {
    IntegrateAndFire.name: IntegrateAndFire,
    TernaryIntegrateAndFire.name: TernaryIntegrateAndFire,
}
