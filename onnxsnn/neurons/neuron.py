"""What the thresholds, the passes and the simulators know of a neuron model."""

from __future__ import annotations

from typing import ClassVar, Protocol

import numpy as np

from onnxsnn.arrays import Floats

__all__ = ["Neuron"]


class Neuron(Protocol):
    """A neuron model; its settings are the fields of a frozen dataclass."""

    name: ClassVar[str]
    operator: ClassVar[str]
    body: ClassVar[str]
    states: ClassVar[tuple[str, ...]] = ("potential",)
    """The roles of its states, the membrane potential first; the others start at zero."""

    def __hash__(self) -> int:
        """Neurons are values: equal ones can stand for each other."""
        return hash(repr(self))

    @property
    def initial_potential(self) -> float:
        """Membrane potential before the first step, as a fraction of the threshold."""

    @property
    def attributes(self) -> dict[str, float]:
        """What the function body is told of this neuron, as attributes of its nodes."""
        return {}

    @property
    def bits_per_spike(self) -> float:
        """log2 of the number of values that it can send in a step."""

    @property
    def greatest_spike(self) -> float:
        """The most that it can send in a step, in thresholds."""
        return 1.0

    @property
    def least_spike(self) -> float:
        """The least that it can send in a step, in thresholds: below zero, it takes back."""
        return self.least_rate

    @property
    def spike_unit(self) -> float:
        """What all that it can send is a whole multiple of, in thresholds."""
        return 1.0

    @property
    def fires_at(self) -> float:
        """The least potential above zero at which it sends something, in thresholds."""
        return self.spike_unit

    @property
    def least_rate(self) -> float:
        """The least that it gives on average, in thresholds: nothing, where it is a rectifier.

        A signed neuron that rectifies takes back no more than it has fired.
        """
        return -self.greatest_spike if self.signed is self else 0.0

    @property
    def signed(self) -> Neuron:
        """The neuron that stands beside it where values can be negative."""

    def response(self, activation: Floats, threshold: Floats, timesteps: int) -> Floats:
        """What the neuron has emitted per step after T steps of constant input, times theta.

        `q_T = theta/T * clip(floor(a*T/theta + v_0/theta), least*T, greatest*T)`, unless a model
        says otherwise. `activation` and `threshold` broadcast; the result is in the units of both.
        """
        spikes = np.floor(activation * timesteps / threshold + self.initial_potential)
        least, greatest = self.least_rate * timesteps, self.greatest_spike * timesteps
        response: Floats = threshold / timesteps * np.clip(spikes, least, greatest)
        return response

    def step(self, current: Floats, threshold: Floats, *states: Floats) -> tuple[Floats, ...]:
        """One timestep: spikes, and the states after it."""
