"""The error of a layer, split into parts that add up to it.

Of a neuron with threshold theta, and spikes that are worth `scale` each (theta, unless it was
corrected), let

    z, a   the ANN's pre-activation and activation
    m      the mean current that arrived in the SNN
    q(x)   the static response: what the neuron gives if a current x arrives evenly
    o      what it gave: scale times its mean spikes

Then `o - a` is, by telescoping, the sum of

    clipping       clip(a, 0, scale) - a   theta is too low
    quantization   q(z) - clip(a, 0, scale)   T is too small
    inherited      q(m) - q(z)   the layers before gave another current than the ANN's
    unevenness     o - q(m)   spikes came too early or too late

Let d_k be these four over all neurons and samples, and e their sum. Part k of the squared error
`||e||^2 = sum_k <d_k, e>` is `<d_k, e>`: it halves each cross term between its two parts, which is
the Shapley value of the game `||sum of the d_k of a coalition||^2`. A part is negative where it
makes up for others. Compare Bu et al., ICLR 2022, section 3, who name clipping, quantization
and unevenness.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace

import numpy as np

from onnxsnn.analysis.evaluate import squares
from onnxsnn.arrays import Array, Floats
from onnxsnn.neurons import Neuron

__all__ = ["ErrorSplit", "LayerResponse", "SplitTotals", "parts"]


@dataclass(frozen=True)
class ErrorSplit:
    """One layer's error, and its parts, which add up to it.

    Attributes:
        error: as measured.
        clipping, quantization, unevenness, inherited: see the module.
    """

    error: float
    clipping: float
    quantization: float
    unevenness: float
    inherited: float


@dataclass(frozen=True)
class LayerResponse:
    """A layer's neurons as functions of an even current.

    Attributes:
        neuron: the model; its initial potential may be an array, in thresholds.
        threshold: theta, broadcastable to the layer's spikes.
        scale: what a spike is worth, in the same shape.
        timesteps: T.
    """

    neuron: Neuron
    threshold: Array
    scale: Array
    timesteps: int

    @classmethod
    def of(
        cls, neuron: Neuron, threshold: Array, scale: Array, potential: Array, timesteps: int
    ) -> LayerResponse:
        """With an initial potential in units of the activation."""
        start = {"initial_potential": potential / threshold}
        return cls(replace(neuron, **start), threshold, scale, timesteps)  # type: ignore[type-var]

    def clipped(self, activation: Array) -> Floats:
        """What neurons without rounding would give of an activation."""
        rates = self.neuron.least_rate, self.neuron.greatest_spike
        clipped: Floats = np.clip(activation, *(self.scale * rate for rate in rates))
        return clipped

    def static(self, current: Array) -> Floats:
        """The static response q."""
        response = self.neuron.response(current, self.threshold, self.timesteps)
        return response * (self.scale / self.threshold)


def parts(
    response: LayerResponse, current: Array, activation: Array, arrived: Array, rate: Array
) -> dict[str, Floats]:
    """The parts d_k of each neuron's error in each sample, by name.

    Args:
        response: the layer.
        current: z, with the current that a correction added; shaped as the layer's spikes.
        activation: a.
        arrived: m.
        rate: mean spikes per step.
    """
    clipped, even = response.clipped(activation), response.static(current)
    came = response.static(arrived)
    return {
        "clipping": clipped - activation,
        "quantization": even - clipped,
        "unevenness": response.scale * rate - came,
        "inherited": came - even,
    }


class SplitTotals:
    """Sums over the samples of one layer."""

    def __init__(self) -> None:
        self._squares = self._activations = self._sum = self._error = 0.0
        names = [f.name for f in fields(ErrorSplit)][1:]
        self._shares = dict.fromkeys(names, 0.0)
        self._sums = dict.fromkeys(names, 0.0)

    def add(self, error: Floats, activation: Array, parts: Mapping[str, Floats]) -> None:
        """A batch: the measured errors, the ANN's activations, and the parts of the errors."""
        error = np.asarray(error, np.float64)
        self._squares += squares(error)
        self._error += float(error.sum())
        self._activations += squares(activation)
        self._sum += float(np.abs(activation).sum(dtype=np.float64))
        for name, part in parts.items():
            part = np.asarray(part, np.float64)
            self._shares[name] += float(np.vdot(part, error))
            self._sums[name] += float(part.sum())

    def squared(self) -> ErrorSplit:
        """`||e||^2 / ||a||^2` and its parts; not relative where the ANN's layer is silent."""
        norm = self._activations or 1.0
        return ErrorSplit(
            self._squares / norm, **{name: value / norm for name, value in self._shares.items()}
        )

    def mean(self) -> ErrorSplit:
        """The signed error `sum e / ||a||_1` and its parts; as `squared` where that is silent."""
        norm = self._sum or 1.0
        return ErrorSplit(
            self._error / norm, **{name: value / norm for name, value in self._sums.items()}
        )
