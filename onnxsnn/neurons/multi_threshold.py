"""Multi-threshold neurons: one spike a step, of one of several sizes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from onnxsnn.arrays import Floats
from onnxsnn.neurons.neuron import Neuron

__all__ = ["MultiThreshold", "SignedMultiThreshold"]


_NEAREST = """
        smallest = Constant <value_float: float = @smallest> ()
        greatest = Constant <value = float {1.0}> ()
        size = Abs (wanted)
        capped = Clip (size, smallest, greatest)
        power = Constant <value = float {8388608.0}> ()
        shifted = Mul (capped, power)
        raised = Add (capped, shifted)
        level = Sub (raised, shifted)
        middle = Constant <value = float {0.5}> ()
        bound = Mul (smallest, middle)
        small = Less (size, bound)
        none = Constant <value = float {0.0}> ()
        spike = Where (small, none, level)
        sign = Sign (wanted)
        nearest = Mul (spike, sign)
""".strip()
# the power of two nearest to `wanted`: added to 2^23 times itself, float32 keeps one bit of it


@dataclass(frozen=True)
class MultiThreshold(Neuron):
    r"""A spike of the size nearest to the potential: theta, theta/2, ..., theta/2^(n-1), or none.

        u = v + z;    s = the level nearest to u / theta, of either sign;    v = u - theta * s

    A negative spike takes back no more than was fired before, which keeps the response a
    rectifier's: u is taken as no less than -N, the sum of all spikes, and a spike that would
    make N negative is halved to the level below. (ECMT, Huang et al., ACM MM 2024, section
    4.2; its thresholds of 3/4 of a level are where the nearest level changes.)

    Attributes:
        initial_potential: `v_0` as a fraction of theta; sizes are rounded to the nearest.
        levels: n.
    """

    initial_potential: float = 0.0
    levels: int = 8

    name: ClassVar[str] = "multi-threshold"
    operator: ClassVar[str] = "MultiThreshold"
    states: ClassVar[tuple[str, ...]] = ("potential", "count")
    body: ClassVar[str] = f"""
    MultiThreshold <smallest> (x, theta, v, n) => (s, v_next, n_next) {{
        u = Add (v, x)
        ratio = Div (u, theta)
        lowest = Neg (n)
        wanted = Max (ratio, lowest)
        {_NEAREST}
        sum = Add (n, nearest)
        zero = Constant <value = float {{0.0}}> ()
        exceeds = Less (sum, zero)
        half = Constant <value = float {{0.5}}> ()
        lower = Mul (nearest, half)
        s = Where (exceeds, lower, nearest)
        charge = Mul (theta, s)
        v_next = Sub (u, charge)
        n_next = Add (n, s)
    }}
    """

    @property
    def sizes(self) -> Floats:
        """The sizes of spikes in units of theta, ascending."""
        sizes: Floats = np.exp2(np.arange(1.0 - self.levels, 1.0))
        return sizes

    @property
    def least_spike(self) -> float:
        """A spike of the greatest size, taken back."""
        return -self.greatest_spike

    @property
    def spike_unit(self) -> float:
        """The smallest size."""
        return float(self.sizes[0])

    @property
    def attributes(self) -> dict[str, float | list[float]]:
        """What the function body is told of this neuron."""
        return {"smallest": float(self.sizes[0])}

    @property
    def bits_per_spike(self) -> float:
        """Of the sizes of either sign, and none."""
        return float(np.log2(2 * self.levels + 1))

    @property
    def signed(self) -> SignedMultiThreshold:
        """The neuron beside it for values that can be negative."""
        return SignedMultiThreshold(levels=self.levels)

    def nearest(self, values: Floats) -> Floats:
        """The spike nearest to each value, in units of theta."""
        size = np.abs(values)
        _, exponent = np.frexp(size / 1.5)  # 2 ** exponent is the nearest power of two
        level = np.ldexp(size.dtype.type(1), np.clip(exponent, 1 - self.levels, 0))
        spikes: Floats = np.where(size < self.sizes[0] / 2, 0, np.copysign(level, values))
        return spikes

    def response(self, activation: Floats, threshold: Floats, timesteps: int) -> Floats:
        """Static response: the mean spike times theta of a run of T steps, by running it."""
        ratio = np.asarray(activation / threshold, np.float64)
        states: list[Floats] = [np.zeros_like(ratio) for _ in self.states]
        states[0] = states[0] + self.initial_potential
        total = np.zeros_like(ratio)
        for _ in range(timesteps):
            spikes, *states = self.step(ratio, np.ones(()), *states)
            total = total + spikes
        response: Floats = threshold * total / timesteps
        return response

    def step(self, current: Floats, threshold: Floats, *states: Floats) -> tuple[Floats, ...]:
        """One timestep: spikes in units of theta, potential, sum of spikes."""
        potential, count = states
        charged = potential + current
        spikes = self.nearest(np.maximum(charged / threshold, -count))
        spikes = np.where(count + spikes < 0, spikes / 2, spikes)
        return spikes, charged - threshold * spikes, count + spikes


@dataclass(frozen=True)
class SignedMultiThreshold(MultiThreshold):
    """The same without the guard: it takes values of either sign."""

    name: ClassVar[str] = "signed multi-threshold"
    operator: ClassVar[str] = "SignedMultiThreshold"
    states: ClassVar[tuple[str, ...]] = ("potential",)
    body: ClassVar[str] = f"""
    SignedMultiThreshold <smallest> (x, theta, v) => (s, v_next) {{
        u = Add (v, x)
        wanted = Div (u, theta)
        {_NEAREST}
        s = Identity (nearest)
        charge = Mul (theta, s)
        v_next = Sub (u, charge)
    }}
    """

    @property
    def signed(self) -> SignedMultiThreshold:
        """Itself: it encodes values of both signs."""
        return self

    def step(self, current: Floats, threshold: Floats, *states: Floats) -> tuple[Floats, ...]:
        """One timestep: spikes in units of theta, and the potential."""
        charged = states[0] + current
        spikes = self.nearest(charged / threshold)
        return spikes, charged - threshold * spikes
