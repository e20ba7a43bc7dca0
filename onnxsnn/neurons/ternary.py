"""The ternary neuron: integrate-and-fire with soft reset, and spikes of both signs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from onnxsnn.arrays import Floats
from onnxsnn.neurons.neuron import Neuron

__all__ = ["TernaryIntegrateAndFire"]


@dataclass(frozen=True)
class TernaryIntegrateAndFire(Neuron):
    r"""Integrate-and-fire that fires -1 below zero, for values that can be negative.

        u = v + z;    s = 1 if u >= theta, -1 if u < 0, else 0;    v = u - theta * s

    What came too early is taken back, and while the current stays within theta, v stays
    in [0, theta): the running sum of spikes is never further than a spike from that of the
    current. Compare the signed neurons of Wang et al., IJCAI 2022 (SNM), section 3.2; the
    potential that is kept here is the memory there.

    Attributes:
        initial_potential: `v_0` as a fraction of theta; one half rounds to the nearest level.
    """

    initial_potential: float = 0.5

    name: ClassVar[str] = "ternary"
    operator: ClassVar[str] = "TernaryIntegrateAndFire"
    body: ClassVar[str] = """
    TernaryIntegrateAndFire (x, theta, v) => (s, v_next) {
        u = Add (v, x)
        below = Less (u, theta)
        fires = Not (below)
        positive = Cast <to: int = 1> (fires)
        zero = Constant <value = float {0.0}> ()
        falls = Less (u, zero)
        negative = Cast <to: int = 1> (falls)
        s = Sub (positive, negative)
        charge = Mul (theta, s)
        v_next = Sub (u, charge)
    }
    """

    @property
    def bits_per_spike(self) -> float:
        """Of the values -1, 0 and 1."""
        return float(np.log2(3))

    @property
    def signed(self) -> TernaryIntegrateAndFire:
        """Itself: it encodes values of both signs."""
        return self

    def step(self, current: Floats, threshold: Floats, *states: Floats) -> tuple[Floats, ...]:
        """One timestep: spikes in {-1, 0, 1} and the membrane potential after the reset."""
        charged = states[0] + current
        spikes = (charged >= threshold).astype(charged.dtype) - (charged < 0)
        return spikes, charged - threshold * spikes
