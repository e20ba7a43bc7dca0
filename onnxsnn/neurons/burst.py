"""Burst neurons: integrate-and-fire with several spikes in one timestep."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from onnxsnn.arrays import Floats
from onnxsnn.neurons.neuron import Neuron

__all__ = ["BurstIntegrateAndFire", "SignedBurstIntegrateAndFire"]


@dataclass(frozen=True)
class BurstIntegrateAndFire(Neuron):
    r"""Up to G spikes a step (Li and Zeng, IJCAI 2022, section 3.2).

        u = v + z;    s = clip(floor(u / theta), 0, G);    v = u - theta * s

    Attributes:
        initial_potential: `v_0` as a fraction of theta.
        levels: G.
    """

    initial_potential: float = 0.5
    levels: int = 4

    name: ClassVar[str] = "burst"
    operator: ClassVar[str] = "BurstIntegrateAndFire"
    body: ClassVar[str] = """
    BurstIntegrateAndFire <least, most> (x, theta, v) => (s, v_next) {
        low = Constant <value_float: float = @least> ()
        high = Constant <value_float: float = @most> ()
        u = Add (v, x)
        ratio = Div (u, theta)
        whole = Floor (ratio)
        above = Max (whole, low)
        s = Min (above, high)
        charge = Mul (theta, s)
        v_next = Sub (u, charge)
    }
    """

    @property
    def least(self) -> int:
        """The least number of spikes in a step."""
        return 0

    @property
    def greatest_spike(self) -> float:
        """All spikes of a step."""
        return float(self.levels)

    @property
    def attributes(self) -> dict[str, float]:
        """What the function body is told of this neuron."""
        return {"least": float(self.least), "most": float(self.levels)}

    @property
    def bits_per_spike(self) -> float:
        """Of the numbers of spikes that a step can have."""
        return float(np.log2(self.levels - self.least + 1))

    @property
    def signed(self) -> SignedBurstIntegrateAndFire:
        """The neuron beside it for values that can be negative."""
        return SignedBurstIntegrateAndFire(levels=self.levels)

    def step(self, current: Floats, threshold: Floats, *states: Floats) -> tuple[Floats, ...]:
        """One timestep: the number of spikes, and the potential."""
        charged = states[0] + current
        spikes = np.clip(np.floor(charged / threshold), self.least, self.levels)
        return spikes, charged - threshold * spikes


@dataclass(frozen=True)
class SignedBurstIntegrateAndFire(BurstIntegrateAndFire):
    """The same with up to G negative spikes a step."""

    name: ClassVar[str] = "signed burst"

    @property
    def least(self) -> int:
        """As many negative spikes as positive ones."""
        return -self.levels

    @property
    def signed(self) -> SignedBurstIntegrateAndFire:
        """Itself: it encodes values of both signs."""
        return self
