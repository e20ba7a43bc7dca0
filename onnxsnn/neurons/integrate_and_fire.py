"""The integrate-and-fire neuron with soft reset: binary spikes, nothing lost at a reset."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from onnxsnn.arrays import Floats
from onnxsnn.neurons.neuron import Neuron
from onnxsnn.neurons.ternary import TernaryIntegrateAndFire

__all__ = ["IntegrateAndFire"]


@dataclass(frozen=True)
class IntegrateAndFire(Neuron):
    r"""Integrate-and-fire with soft reset (Ding et al., IJCAI 2021, section 2).

        u = v + z;    s = 1 if u >= theta else 0;    v = u - theta * s

    Summed over T steps, the mean of `theta * s` is the mean of `z` less `(v_T - v_0) / T`.

    In the body, s is HardSigmoid(u - theta) with slope 2^96 and the value 1 at 0, in place of a
    comparison and a cast: for thresholds above 1e-21, no difference of float32 numbers below 0
    is so near to it that s would not be 0.

    Attributes:
        initial_potential: `v_0` as a fraction of theta. One half turns the floor of the
            static response into a round; zero is the founding paper's.
    """

    initial_potential: float = 0.5

    name: ClassVar[str] = "if"
    operator: ClassVar[str] = "IntegrateAndFire"
    body: ClassVar[str] = """
    IntegrateAndFire (x, theta, v) => (s, v_next) {
        u = Add (v, x)
        above = Sub (u, theta)
        s = HardSigmoid <alpha: float = 79228162514264337593543950336.0, beta: float = 1.0> (above)
        charge = Mul (theta, s)
        v_next = Sub (u, charge)
    }
    """

    @property
    def bits_per_spike(self) -> float:
        """Of the values 0 and 1."""
        return 1.0

    @property
    def signed(self) -> TernaryIntegrateAndFire:
        """The neuron beside it for values that can be negative."""
        return TernaryIntegrateAndFire()

    def step(self, current: Floats, threshold: Floats, *states: Floats) -> tuple[Floats, ...]:
        """One timestep: spikes in {0, 1} and the membrane potential after the reset."""
        charged = states[0] + current
        spikes = (charged >= threshold).astype(charged.dtype)
        return spikes, charged - threshold * spikes
