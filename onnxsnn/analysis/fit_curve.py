"""The fit curve: how fast each layer's firing rates go to what they converge to.

    K_l(t) = ||r_l(t) - r_l||^2 / ||r_l||^2  <  2 * Omega_l / t

r_l(t) is the firing rate after t steps, r_l the Rate Norm Layer's activation, both over all
neurons and samples; Omega_l = ||r_l||_1 / ||r_l||_2^2 (Ding et al., IJCAI 2021, section 3.2
and theorem 2; the bound is proven for currents that arrive evenly and v_0 = 0). The Rate Norm
Layers are the SNN's own: its step graph, neurons replaced, run for one step.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass

import numpy as np
import onnx

from onnxsnn.analysis.evaluate import squares
from onnxsnn.arrays import Array, Floats
from onnxsnn.data import Dataset
from onnxsnn.errors import OVERFLOW, DataError
from onnxsnn.model import SpikingModel
from onnxsnn.neurons import Neuron
from onnxsnn.runtime.dataset import batches
from onnxsnn.runtime.runner import Runner
from onnxsnn.session import Session

__all__ = ["FitCurve", "FitCurves", "fit_curves", "rate_model"]


@dataclass(frozen=True)
class FitCurve:
    """One layer's.

    Attributes:
        layer: its name.
        values: K(t) after each step, [T].
        omega: Omega of its Rate Norm Layer on the data.
    """

    layer: str
    values: list[float]
    omega: float

    @property
    def bound(self) -> list[float]:
        """`2 * Omega / t` after each step."""
        return [2.0 * self.omega / t for t in range(1, len(self.values) + 1)]


def fit_curves(
    snn: SpikingModel,
    data: Dataset,
    timesteps: int | None = None,
    progress: Callable[[int, int], None] = lambda _done, _all: None,
) -> list[FitCurve]:
    """The fit curve of every layer that was active, in order.

    Args:
        snn: any SNN.
        data: samples.
        timesteps: to run; None for the number that the SNN was made for.
        progress: called with the samples done and all.

    Raises:
        UsageError: timesteps below 1.
        DataError: the data do not fit the model.
    """
    snn = snn.unrounded()
    steps = snn.steps(timesteps)
    runner, measured = Runner(snn, taps=list(snn.spikes.values())), FitCurves(snn, steps)
    for feeds, _ in batches(snn, data, progress):
        measured.start(feeds)
        for outputs in runner.steps(feeds, steps):
            measured.add(outputs)
    return measured.curves()


class FitCurves:
    """The fit curves of an SNN that somebody else runs.

    Args:
        snn: any SNN.
        timesteps: T.
    """

    def __init__(self, snn: SpikingModel, timesteps: int) -> None:
        self._spikes, self._rates = snn.spikes, Session(rate_model(snn))
        self._totals = {layer: _Totals(timesteps) for layer in self._spikes}
        self._limits: Mapping[str, Array] = {}
        self._counts: dict[str, Array] = {}
        self._steps = 0

    def start(self, feeds: Mapping[str, Array]) -> None:
        """A batch begins: its inputs by name.

        Raises:
            DataError: they overflow in a layer.
        """
        self._limits, self._counts, self._steps = self._rates.run(feeds), {}, 0
        for layer, name in self._spikes.items():
            if np.isnan(self._limits[name]).any():
                raise DataError(f"{OVERFLOW} (in layer {layer!r})")
            self._totals[layer].add_limit(self._limits[name])

    def add(self, values: Mapping[str, Array]) -> None:
        """Its next step: the layers' spikes among the tensors by name."""
        self._steps += 1
        for layer, name in self._spikes.items():
            self._counts[layer] = self._counts.get(layer, 0) + values[name]
            rate = self._counts[layer] / self._steps
            self._totals[layer].add(self._steps - 1, rate, self._limits[name])

    def curves(self) -> list[FitCurve]:
        """What came of it, of every layer that was active, in order."""
        return [total.curve(layer) for layer, total in self._totals.items() if total.squares]


class _Totals:
    """Sums over the samples of one layer."""

    def __init__(self, timesteps: int) -> None:
        self.errors: Floats = np.zeros(timesteps)
        self.squares = self.sum = 0.0

    def add(self, step: int, rate: Array, limit: Array) -> None:
        """The rates of a batch after a step."""
        self.errors[step] += squares(rate - limit)

    def add_limit(self, limit: Array) -> None:
        """What the rates of a batch converge to."""
        self.squares += squares(limit)
        self.sum += float(np.abs(limit).sum(dtype=np.float64))

    def curve(self, layer: str) -> FitCurve:
        """What came of it."""
        return FitCurve(layer, (self.errors / self.squares).tolist(), self.sum / self.squares)


def rate_model(snn: SpikingModel) -> onnx.ModelProto:
    """The Rate Norm Layers of an SNN: each neuron's spikes become clip(x / theta, 0, greatest).

    All running sums are at their defaults and it is the first step, so that every tensor is
    its own mean. The outputs are the layers' rates, under the names of their spikes.
    """
    model = deepcopy(snn.model)
    neurons = snn.neurons
    nodes: list[onnx.NodeProto] = []
    for node in snn.model.graph.node:
        neuron = neurons.get(node.name)
        nodes += [node] if neuron is None else _rate_nodes(model, node, neuron)
    for old, new in ((model.graph.node, nodes), (model.graph.output, _outputs(snn))):
        del old[:]
        old.extend(new)
    return model


def _rate_nodes(
    model: onnx.ModelProto, node: onnx.NodeProto, neuron: Neuron
) -> list[onnx.NodeProto]:
    """Nodes that give a layer's rates in the place of its spikes."""
    spikes, ratio = node.output[0], f"{node.output[0]}.ratio"
    limits = {f"{spikes}.least": neuron.least_rate, f"{spikes}.greatest": neuron.greatest_spike}
    for name, value in limits.items():
        constant = onnx.numpy_helper.from_array(np.array(value, np.float32), name)
        model.graph.initializer.append(constant)
    make = onnx.helper.make_node
    return [make("Div", node.input[:2], [ratio]), make("Clip", [ratio, *limits], [spikes])]


def _outputs(snn: SpikingModel) -> list[onnx.ValueInfoProto]:
    """The spikes as outputs; of what shape, is left open."""
    kind = onnx.TensorProto.FLOAT
    return [onnx.helper.make_tensor_value_info(n, kind, None) for n in snn.spikes.values()]
