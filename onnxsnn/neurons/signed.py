"""The signed neuron: integrate-and-fire that takes back what it fired too early."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from onnxsnn.arrays import Floats
from onnxsnn.neurons.integrate_and_fire import IntegrateAndFire
from onnxsnn.neurons.ternary import TernaryIntegrateAndFire

__all__ = ["SignedIntegrateAndFire"]


@dataclass(frozen=True)
class SignedIntegrateAndFire(IntegrateAndFire):
    r"""Integrate-and-fire that fires -1 below zero, but no more than it has fired before.

        u = v + z
        s = 1 if u >= theta, -1 if u < 0 and n > 0, else 0
        v = u - theta * s;    n = n + s

    The count n keeps the response a rectifier's: under a constant current it is that of
    integrate-and-fire. Compare Wang et al., IJCAI 2022 (signed neuron with memory).
    """

    name: ClassVar[str] = "signed"
    operator: ClassVar[str] = "SignedIntegrateAndFire"
    states: ClassVar[tuple[str, ...]] = ("potential", "count")
    body: ClassVar[str] = """
    SignedIntegrateAndFire (x, theta, v, n) => (s, v_next, n_next) {
        u = Add (v, x)
        below = Less (u, theta)
        fires = Not (below)
        positive = Cast <to: int = 1> (fires)
        zero = Constant <value = float {0.0}> ()
        falls = Less (u, zero)
        fired = Less (zero, n)
        returns = And (falls, fired)
        negative = Cast <to: int = 1> (returns)
        s = Sub (positive, negative)
        charge = Mul (theta, s)
        v_next = Sub (u, charge)
        n_next = Add (n, s)
    }
    """

    @property
    def bits_per_spike(self) -> float:
        """Of the values -1, 0 and 1."""
        return TernaryIntegrateAndFire().bits_per_spike

    @property
    def least_spike(self) -> float:
        """It takes back one spike a step."""
        return -1.0

    def step(self, current: Floats, threshold: Floats, *states: Floats) -> tuple[Floats, ...]:
        """One timestep: spikes in {-1, 0, 1}, potential, count."""
        potential, count = states
        charged = potential + current
        spikes = (charged >= threshold).astype(charged.dtype)
        spikes -= (charged < 0) & (count > 0)
        return spikes, charged - threshold * spikes, count + spikes
