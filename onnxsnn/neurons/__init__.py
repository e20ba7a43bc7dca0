"""Neuron models: one file each, with function body, static response and numpy step."""

from __future__ import annotations

from typing import ClassVar, Protocol

from onnxsnn.arrays import Floats
from onnxsnn.neurons.burst import BurstIntegrateAndFire, SignedBurstIntegrateAndFire
from onnxsnn.neurons.integrate_and_fire import IntegrateAndFire
from onnxsnn.neurons.multi_threshold import MultiThreshold, SignedMultiThreshold
from onnxsnn.neurons.signed import SignedIntegrateAndFire
from onnxsnn.neurons.ternary import TernaryIntegrateAndFire

__all__ = [
    "NEURONS",
    "RECTIFYING_NEURONS",
    "BurstIntegrateAndFire",
    "IntegrateAndFire",
    "MultiThreshold",
    "Neuron",
    "SignedBurstIntegrateAndFire",
    "SignedIntegrateAndFire",
    "SignedMultiThreshold",
    "TernaryIntegrateAndFire",
]


class Neuron(Protocol):
    """What the thresholds, the passes and the simulators know of a neuron model."""

    name: ClassVar[str]
    operator: ClassVar[str]
    body: ClassVar[str]
    states: ClassVar[tuple[str, ...]]
    """The roles of its states, the membrane potential first; the others start at zero."""

    def __hash__(self) -> int:
        """Neurons are values: equal ones can stand for each other."""

    @property
    def initial_potential(self) -> float:
        """Membrane potential before the first step, as a fraction of the threshold."""

    @property
    def attributes(self) -> dict[str, float | list[float]]:
        """What the function body is told of this neuron, as attributes of its nodes."""

    @property
    def bits_per_spike(self) -> float:
        """log2 of the number of values that it can send in a step."""

    @property
    def signed(self) -> Neuron:
        """The neuron that stands beside it where values can be negative."""

    def response(self, activation: Floats, threshold: Floats, timesteps: int) -> Floats:
        """What the neuron has emitted per step after T steps of constant input, times theta."""

    def step(self, current: Floats, threshold: Floats, *states: Floats) -> tuple[Floats, ...]:
        """One timestep: spikes, and the states after it."""


RECTIFYING_NEURONS: dict[str, type[Neuron]] = {
    neuron.name: neuron
    for neuron in (
        IntegrateAndFire,
        SignedIntegrateAndFire,
        BurstIntegrateAndFire,
        MultiThreshold,
    )
}
"""The neurons that can stand for a rectifier, by name."""

NEURONS: dict[str, type[Neuron]] = RECTIFYING_NEURONS | {
    neuron.name: neuron
    for neuron in (TernaryIntegrateAndFire, SignedBurstIntegrateAndFire, SignedMultiThreshold)
}
"""All neurons by name, those that encode values of either sign too."""
