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
        greatest = Constant <value_float: float = @greatest> ()
        digits = Constant <value_float: float = @digits> ()
        all_digits = Constant <value = float {24.0}> ()
        beyond = Sub (all_digits, digits)
        two = Constant <value = float {2.0}> ()
        times = Pow (two, beyond)
        whole = Constant <value = float {12582912.0}> ()
        least_shift = Mul (smallest, whole)
        size = Abs (wanted)
        capped = Min (size, greatest)
        own_shift = Mul (capped, times)
        shift = Max (own_shift, least_shift)
        raised = Add (capped, shift)
        taken = Sub (raised, capped)
        level = Sub (raised, taken)
        sign = Sign (wanted)
        nearest = Mul (level, sign)
""".strip()
# the size nearest to `wanted`: of x added to 2^(24 - d) x, float32 keeps d binary digits, and of x
# added to 1.5 * 2^23 of the smallest size, whole multiples of that; taking away what was added, as
# it was rounded too, is right below a power of two as well (Dekker, Numerische Mathematik 1971)


@dataclass(frozen=True)
class MultiThreshold(Neuron):
    r"""A spike of the one of n sizes that is nearest to the potential, of either sign, or none.

        u = v + z;    s = the size nearest to u / theta, of either sign;    v = u - theta * s

    Sizes are whole multiples of the smallest that have d binary digits at most, as of floating
    point: 1, 1/2, 1/4, ... for d = 1 (ECMT, Huang et al., ACM MM 2024, section 4.2, whose
    thresholds of 3/4 of a size are where the nearest one changes); for d = 2 and n = 8 they are
    16, 12, 8, 6, 4, 3, 2, 1 sixteenths, which are nearer to most potentials.

    A negative spike takes back no more than was fired before, which keeps the response a
    rectifier's: u is taken as no less than -N, the sum of all spikes, and a spike that would
    make N negative is halved.

    Attributes:
        initial_potential: `v_0` as a fraction of theta; sizes are rounded to the nearest.
        levels: n.
        digits: d.
    """

    initial_potential: float = 0.0
    levels: int = 8
    digits: int = 2

    name: ClassVar[str] = "multi-threshold"
    operator: ClassVar[str] = "MultiThreshold"
    states: ClassVar[tuple[str, ...]] = ("potential", "count")
    body: ClassVar[str] = f"""
    MultiThreshold <smallest, greatest, digits> (x, theta, v, n) => (s, v_next, n_next) {{
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
        octave = 2 ** (self.digits - 1)  # numbers from a power of two to the next
        number = np.arange(1, self.levels + 1)
        power, place = np.divmod(np.maximum(number - octave, 0), octave)
        multiples = np.where(number < octave, number, (octave + place) * np.exp2(power))
        sizes: Floats = multiples / np.exp2(np.ceil(np.log2(multiples[-1])))
        return sizes

    @property
    def greatest_spike(self) -> float:
        """The greatest size: 1, or what is next below."""
        return float(self.sizes[-1])

    @property
    def least_spike(self) -> float:
        """A spike of the greatest size, taken back."""
        return -self.greatest_spike

    @property
    def spike_unit(self) -> float:
        """The smallest size."""
        return float(self.sizes[0])

    @property
    def fires_at(self) -> float:
        """Where the smallest size is as near as none."""
        return self.spike_unit / 2

    @property
    def attributes(self) -> dict[str, float]:
        """What the function body is told of this neuron."""
        return {
            "smallest": float(self.sizes[0]),
            "greatest": self.greatest_spike,
            "digits": float(self.digits),
        }

    @property
    def bits_per_spike(self) -> float:
        """Of the sizes of either sign, and none."""
        return float(np.log2(2 * self.levels + 1))

    @property
    def signed(self) -> SignedMultiThreshold:
        """The neuron beside it for values that can be negative."""
        return SignedMultiThreshold(levels=self.levels, digits=self.digits)

    def nearest(self, values: Floats) -> Floats:
        """The spike nearest to each value, in units of theta."""
        size = np.minimum(np.abs(values), values.dtype.type(self.greatest_spike))
        _, exponent = np.frexp(size)  # no digit of it is worth 2 ** exponent
        _, least = np.frexp(self.sizes[0])
        grain = np.ldexp(size.dtype.type(1), np.maximum(exponent - self.digits, least - 1))
        spikes: Floats = np.copysign(np.rint(size / grain) * grain, values)
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
    SignedMultiThreshold <smallest, greatest, digits> (x, theta, v) => (s, v_next) {{
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
