"""What every layer does over time, where its error comes from, and what it costs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from onnxsnn.analysis.error_split import ErrorSplit, LayerResponse, SplitTotals, parts
from onnxsnn.analysis.evaluate import (
    Measured,
    measure_of,
    relative_error,
    squared_error,
    squares,
)
from onnxsnn.analysis.exact_layer import with_exact_layer
from onnxsnn.analysis.fit_curve import FitCurve, FitCurves
from onnxsnn.analysis.reference import Reference
from onnxsnn.arrays import Array
from onnxsnn.data import Dataset
from onnxsnn.errors import UnsupportedError
from onnxsnn.model import SpikingModel, compared_outputs
from onnxsnn.neurons import Neuron
from onnxsnn.runtime.dataset import batches
from onnxsnn.runtime.early_exit import classes
from onnxsnn.runtime.runner import Runner
from onnxsnn.session import SampleSession, lacking_samples
from onnxsnn.source import Source

__all__ = ["SAMPLES", "Analysis", "LayerAnalysis", "Measures", "RateDistribution", "analyse"]

SAMPLES = 512
_LEVELS = 16  # of a distribution; fewer where T has fewer
_VALUES = 2**18  # of a layer whose error is split, in a batch: as many samples as have them


@dataclass(frozen=True)
class Measures(Measured):
    """How near the outputs after T steps are; see `evaluate.Row`."""

    accuracy: float | None
    agreement: float | None
    error: float | None

    def gain_over(self, other: Measures) -> tuple[float, float]:
        """How much better this is: by its measure, then by the error, where there is one."""
        sign = -1.0 if self.measure == "error" else 1.0
        first = sign * (getattr(self, self.measure) - getattr(other, self.measure))
        return first, (other.error or 0.0) - (self.error or 0.0)


@dataclass(frozen=True)
class RateDistribution:
    """The firing rates of a layer's neurons in each sample, in spikes per step.

    Attributes:
        rates: the middles of equally wide classes.
        shares: the share of neurons and samples in each.
        silent: the share that never fired.
        channels: of the layer.
        dead: channels of which no neuron fired in any sample.
        saturated: channels of which every neuron fired in every step of every sample.
    """

    rates: list[float]
    shares: list[float]
    silent: float
    channels: int
    dead: int
    saturated: int


@dataclass(frozen=True)
class LayerAnalysis:
    """One layer.

    Attributes:
        layer: its name.
        curve: its fit curve; None where it was never active.
        distribution: of its firing rates.
        squared: the error of what it gives, `||e||^2 / ||a||^2`, and its parts; of a large
            layer, over some of the samples.
        mean: its signed error, `sum e / ||a||_1`, and its parts.
        exact: the network's measures if this layer is exact.
        gain: what that gains: accuracy, else agreement, else error.
    """

    layer: str
    curve: FitCurve | None
    distribution: RateDistribution
    squared: ErrorSplit
    mean: ErrorSplit
    exact: Measures
    gain: float


@dataclass(frozen=True)
class Analysis:
    """What came of it.

    Attributes:
        samples: how many were run, evenly spread over the data.
        timesteps: T.
        measure: what layers are compared by: `accuracy`, `agreement` or `error`.
        plain: the measures of the SNN as it is, on these samples.
        costliest: the layer whose being exact gains most; None where none gains.
        layers: in order.
    """

    samples: int
    timesteps: int
    measure: str
    plain: Measures
    costliest: str | None
    layers: list[LayerAnalysis]


def analyse(
    snn: SpikingModel,
    data: Dataset,
    ann: Source,
    timesteps: int | None = None,
    *,
    samples: int = SAMPLES,
    progress: Callable[[int, int], None] = lambda _done, _all: None,
) -> Analysis:
    """Look into every layer of an SNN, beside the ANN; of an integer SNN, currents not rounded.

    It takes a run of T steps, and one more behind each layer.

    Args:
        snn: any SNN.
        data: samples; of many, `samples` are run, evenly spread over all.
        ann: the network that the SNN was converted from.
        timesteps: T; None for the number that the thresholds were chosen for.
        samples: how many to run at most.
        progress: called with the samples done and all.

    Raises:
        UsageError: timesteps below 1.
        DataError: the data or the ANN do not fit the SNN.
        UnsupportedError: the SNN takes one sample, and an output has no axis for more.
    """
    steps, snn = snn.steps(timesteps), snn.unrounded()
    _refuse_lacking_samples(snn)
    data = data.spread(samples)
    looker = _Looker(snn, ann, data, steps)
    for feeds, labels in batches(snn, data, progress):
        looker.look(feeds, labels)
    curves = {curve.layer: curve for curve in looker.curves.curves()}
    plain = looker.plain.measures()
    exact = {layer: scores.measures() for layer, scores in looker.exact.items()}
    measure = measure_of([plain, *exact.values()])
    gains = {layer: measures.gain_over(plain) for layer, measures in exact.items()}
    most = max(gains, key=lambda layer: gains[layer])
    return Analysis(
        samples=len(data),
        timesteps=steps,
        measure=measure,
        plain=plain,
        costliest=most if gains[most][0] > 0 else None,
        layers=[
            LayerAnalysis(
                layer=layer,
                curve=curves.get(layer),
                distribution=looker.rates[layer].distribution(),
                squared=looker.splits[layer].squared(),
                mean=looker.splits[layer].mean(),
                exact=exact[layer],
                gain=gains[layer][0],
            )
            for layer in snn.spikes
        ],
    )


def _refuse_lacking_samples(snn: SpikingModel) -> None:
    """Behind a layer whose spikes are given, nothing would say what is of which sample."""
    for name in lacking_samples(snn.output_shapes, snn.batch):
        raise UnsupportedError(
            f"layers cannot be analysed, as the SNN takes one sample, and output {name!r} has no "
            "axis for more; export the model for a batch, with the samples along the first axis"
        )


class _Looker:
    """Runs batch after batch, and keeps the sums."""

    def __init__(self, snn: SpikingModel, ann: Source, data: Dataset, timesteps: int) -> None:
        self._snn, self._timesteps = snn, timesteps
        self._compared = compared_outputs(snn)
        self._reference = Reference(ann, snn, data)
        self._ann = SampleSession(ann.model)
        self._spikes = snn.spikes
        self._currents = {layer: snn.current(layer) for layer in self._spikes}
        fed = {spec.name for spec in snn.inputs}
        taps = {*self._spikes.values(), *self._currents.values()} - fed
        self._runner = Runner(snn, taps=sorted(taps))
        thresholds, scales, neurons = snn.thresholds, snn.scales, snn.neurons
        self._biases = snn.biases
        self._responses = {
            layer: LayerResponse.of(
                neurons[layer],
                thresholds[layer],
                scales[layer],
                snn.potential(layer).default,
                timesteps,
            )
            for layer in self._spikes
        }
        self.curves = FitCurves(snn, timesteps)
        self.plain = _Scores()
        self.exact = {layer: _Scores() for layer in self._spikes}
        self.splits = {layer: SplitTotals() for layer in self._spikes}
        self.rates = {
            layer: _Rates(neurons[layer], thresholds[layer], timesteps) for layer in self._spikes
        }

    def look(self, feeds: Mapping[str, Array], labels: Array | None) -> None:
        """Run a batch: as it is, and with each layer exact."""
        expected = self._ann.run(feeds, self._compared)
        outputs, runs = self._run(feeds)
        samples = len(next(iter(feeds.values())))
        self.plain.add(outputs, expected, labels, samples)
        currents = self._reference.currents(feeds)
        for layer, run in runs.items():
            self.rates[layer].add(run)
            self._split(layer, run, currents[layer])
            arrived = run.current / self._timesteps - self._biases[layer]
            rates = self._reference.activation(layer, arrived) / self._responses[layer].scale
            exact = self._run_exact(layer, feeds, rates)
            self.exact[layer].add(exact, expected, labels, samples)

    def _split(self, layer: str, run: _LayerRun, current: Array) -> None:
        """Take a batch into the split of a layer's error; of a large layer, some samples."""
        few = slice(0, max(1, _VALUES * len(current) // current.size))
        response, current = self._responses[layer], current[few]
        activation = self._reference.activation(layer, current)
        arrived, rate = run.current[few] / self._timesteps, run.spikes[few] / self._timesteps
        error = response.scale * rate - activation
        split = parts(response, current + self._biases[layer], activation, arrived, rate)
        self.splits[layer].add(error, activation, split)

    def _run(self, feeds: Mapping[str, Array]) -> tuple[dict[str, Array], dict[str, _LayerRun]]:
        """The outputs after T steps, and the sums of each layer."""
        runs: dict[str, _LayerRun] = {}
        values: dict[str, Array] = {}
        self.curves.start(feeds)
        for values in self._runner.steps(feeds, self._timesteps):
            known = {**feeds, **values}
            self.curves.add(known)
            for layer, name in self._spikes.items():
                step = _LayerRun.of(known[name], known[self._currents[layer]])
                runs[layer] = step if layer not in runs else runs[layer].plus(step)
        return {name: values[name] for name in self._snn.outputs}, runs

    def _run_exact(
        self, layer: str, feeds: Mapping[str, Array], rates: Array
    ) -> Mapping[str, Array]:
        """The outputs if the layer gives these rates in every step.

        The SNN behind the layer is made anew for every batch: to keep all of them would take
        as many copies of the weights as there are layers.
        """
        exact = with_exact_layer(self._snn, layer)
        known = {**feeds, self._spikes[layer]: rates.astype(np.float32)}
        inputs = {spec.name: known[spec.name] for spec in exact.inputs}
        return Runner(exact).run(inputs, self._timesteps).outputs


class _LayerRun(NamedTuple):
    """Sums over the steps of one batch, shaped as the layer's spikes."""

    spikes: Array
    current: Array
    fired: Array

    @classmethod
    def of(cls, spikes: Array, current: Array) -> _LayerRun:
        """One step."""
        return cls(spikes, np.broadcast_to(current, spikes.shape), (spikes != 0).astype(np.int32))

    def plus(self, other: _LayerRun) -> _LayerRun:
        """More steps."""
        return _LayerRun(*(mine + its for mine, its in zip(self, other, strict=True)))


class _Rates:
    """The firing rates of one layer over the samples."""

    def __init__(self, neuron: Neuron, threshold: Array, timesteps: int) -> None:
        least, greatest = neuron.least_rate, neuron.greatest_spike
        levels = min(timesteps, _LEVELS)
        self._middles = np.linspace(least, greatest, levels * (2 if least else 1) + 1)
        half = (self._middles[1] - self._middles[0]) / 2
        self._edges = np.append(self._middles - half, self._middles[-1] + half)
        self._counts = np.zeros(len(self._middles), np.int64)
        self._axis = int(np.argmax(threshold.shape)) if threshold.size > 1 else None
        self._timesteps = timesteps
        self._fired = np.zeros(threshold.size, bool)
        self._always = np.ones(threshold.size, bool)
        self._silent = 0

    def add(self, run: _LayerRun) -> None:
        """A batch."""
        self._counts += np.histogram(run.spikes / self._timesteps, self._edges)[0]
        self._silent += int(np.count_nonzero(run.fired == 0))
        others = tuple(axis for axis in range(run.fired.ndim) if axis != self._axis)
        self._fired |= run.fired.any(axis=others).reshape(-1)
        self._always &= (run.fired == self._timesteps).all(axis=others).reshape(-1)

    def distribution(self) -> RateDistribution:
        """What came of it."""
        total = int(self._counts.sum())
        return RateDistribution(
            rates=self._middles.tolist(),
            shares=(self._counts / total).tolist(),
            silent=self._silent / total,
            channels=self._fired.size,
            dead=int(np.count_nonzero(~self._fired)),
            saturated=int(np.count_nonzero(self._always)),
        )


class _Scores:
    """How near the outputs are, over the samples."""

    def __init__(self) -> None:
        self._samples = self._correct = self._agreeing = 0
        self._error = self._norm = 0.0
        self._labelled = self._classes = False

    def add(
        self,
        outputs: Mapping[str, Array],
        expected: Mapping[str, Array],
        labels: Array | None,
        samples: int,
    ) -> None:
        """A batch: what the SNN says, what the ANN says, and what is right of so many samples."""
        first = next(iter(expected))
        found, wanted = classes(outputs[first]), classes(expected[first])
        self._samples += samples
        self._classes = wanted is not None
        self._labelled = labels is not None and self._classes
        if wanted is not None:
            self._agreeing += int(np.count_nonzero(found == wanted))
        if labels is not None:
            self._correct += int(np.count_nonzero(found == labels))
        self._error += squared_error(outputs, expected)
        self._norm += sum(map(squares, expected.values()))

    def measures(self) -> Measures:
        """What came of it."""
        return Measures(
            accuracy=self._correct / self._samples if self._labelled else None,
            agreement=self._agreeing / self._samples if self._classes else None,
            error=relative_error(self._error, self._norm),
        )
