"""Accuracy over timesteps: the SNN beside the ANN, with firing rates and spikes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from onnxsnn.arrays import Array
from onnxsnn.data import Dataset
from onnxsnn.errors import DataError, UsageError
from onnxsnn.model import SpikingModel
from onnxsnn.runtime.dataset import batch_size
from onnxsnn.runtime.runner import Runner
from onnxsnn.session import Session
from onnxsnn.source import Source

__all__ = ["Evaluation", "Row", "evaluate"]


@dataclass
class Row:
    """What holds after `timesteps` steps; a field is None where it was not to be had.

    Attributes:
        accuracy: share of samples whose class is the label.
        agreement: share of samples whose class is the ANN's.
        error: ||SNN - ANN||_2 / ||ANN||_2 over the samples of all outputs, the root mean
            square of the difference relative to that of the ANN.
        rate: mean spikes per neuron and step, over all spiking layers.
        spikes: mean spikes per sample until here.
    """

    timesteps: int
    accuracy: float | None = None
    agreement: float | None = None
    error: float | None = None
    rate: float = 0.0
    spikes: float = 0.0


@dataclass
class Evaluation:
    """An SNN on data.

    Attributes:
        rows: one per timestep.
        samples: number of samples.
        ann_accuracy: the ANN's accuracy, where the ANN and labels were given.
        layer_rates: by layer, mean spikes per neuron and step over the whole run.
        bits_per_spike: of the neuron that ran.
    """

    rows: list[Row]
    samples: int
    ann_accuracy: float | None
    layer_rates: dict[str, float]
    bits_per_spike: float


@dataclass
class _Totals:
    """Sums over samples, per timestep, [T]."""

    timesteps: int
    correct: Array = field(init=False)
    agreeing: Array = field(init=False)
    squared_error: Array = field(init=False)
    spikes: Array = field(init=False)
    layer_spikes: dict[str, float] = field(default_factory=dict)
    squared_norm: float = 0.0
    ann_correct: int = 0
    has_classes: bool = True

    def __post_init__(self) -> None:
        self.correct, self.agreeing = np.zeros(self.timesteps), np.zeros(self.timesteps)
        self.squared_error, self.spikes = np.zeros(self.timesteps), np.zeros(self.timesteps)


def evaluate(
    snn: SpikingModel,
    data: Dataset,
    *,
    ann: Source | None = None,
    timesteps: int | None = None,
    backend: str = "onnxruntime",
    progress: Callable[[int, int], None] = lambda _done, _all: None,
) -> Evaluation:
    """Run an SNN on data, beside its ANN where that is given.

    A class is the greatest value along axis 1 of the first output, where that output has
    two axes of floats; other outputs have an error, and no class.

    Raises:
        UsageError: timesteps below 1, or neither labels nor an ANN to compare with.
        DataError: a label is no class of the model, or ANN and SNN have other outputs.
    """
    steps = snn.timesteps if timesteps is None else timesteps
    if steps < 1:
        raise UsageError(f"timesteps must be 1 or more, and is {steps}")
    if ann is None and data.labels is None:
        raise UsageError("there is nothing to compare with: give labels, or the ANN with --ann")
    runner = Runner(snn, backend, rates=True)
    session = _ann_session(ann, snn) if ann is not None else None
    totals = _Totals(steps)
    done = 0
    for feeds, labels in data.batches(batch_size(snn)):
        expected = session.run(feeds, snn.outputs) if session is not None else None
        _add(totals, runner, feeds, labels, expected)
        done += len(next(iter(feeds.values())))
        progress(done, len(data))
    return _summary(totals, runner, len(data), data.labels is not None, ann is not None)


def _ann_session(ann: Source, snn: SpikingModel) -> Session:
    session = Session(ann.model)
    if not set(snn.outputs) <= set(session.outputs):
        raise DataError(
            f"the SNN's outputs are {snn.outputs}, and the ANN's {session.outputs}: "
            "give the ANN that it was converted from"
        )
    return session


def _add(
    totals: _Totals,
    runner: Runner,
    feeds: dict[str, Array],
    labels: Array | None,
    expected: dict[str, Array] | None,
) -> None:
    """Run one batch, and add what came of it."""
    name = runner.model.outputs[0]
    classes = None if expected is None else _classes(expected[name])
    totals.has_classes = classes is not None
    if labels is not None and classes is not None:
        totals.ann_correct += int(np.count_nonzero(classes == labels))
    if expected is not None:
        totals.squared_norm += sum(_squares(values) for values in expected.values())
    for step, outputs in enumerate(runner.steps(feeds, totals.timesteps)):
        found = _classes(outputs[name])
        if labels is not None:
            _check_labels(labels, outputs[name])
            totals.correct[step] += np.count_nonzero(found == labels)
        if classes is not None:
            totals.agreeing[step] += np.count_nonzero(found == classes)
        if expected is not None:
            totals.squared_error[step] += sum(
                _squares(outputs[name] - values) for name, values in expected.items()
            )
        totals.spikes[step] += sum(float(counts.sum()) for counts in runner.spikes.values())
    for layer, counts in runner.spikes.items():
        totals.layer_spikes[layer] = totals.layer_spikes.get(layer, 0.0) + float(counts.sum())


def _classes(values: Array) -> Array | None:
    """The class of each sample [N]; None where the output is not one score per class."""
    scores = values.ndim == 2 and values.shape[1] > 1 and np.issubdtype(values.dtype, np.floating)
    return values.argmax(axis=1) if scores else None


def _check_labels(labels: Array, values: Array) -> None:
    if _classes(values) is None:
        raise DataError(
            f"labels need an output of one score per class, and the model's has shape "
            f"{list(values.shape)}; leave the labels out and give the ANN"
        )
    if labels.max() >= values.shape[1]:
        raise DataError(
            f"label {labels.max()} is no class of the model, which has {values.shape[1]}"
        )


def _squares(values: Array) -> float:
    return float(np.square(values, dtype=np.float64).sum())


def _summary(
    totals: _Totals, runner: Runner, samples: int, labelled: bool, compared: bool
) -> Evaluation:
    """The totals as means."""
    neurons = sum(runner.neurons.values())
    rows = []
    for step in range(totals.timesteps):
        spikes = float(totals.spikes[step]) / samples
        norm = totals.squared_norm
        rows.append(
            Row(
                timesteps=step + 1,
                accuracy=float(totals.correct[step] / samples) if labelled else None,
                agreement=float(totals.agreeing[step] / samples) if totals.has_classes else None,
                error=float(np.sqrt(totals.squared_error[step] / norm)) if norm else None,
                rate=spikes / (neurons * (step + 1)),
                spikes=spikes,
            )
        )
    return Evaluation(
        rows=rows,
        samples=samples,
        ann_accuracy=totals.ann_correct / samples if compared and labelled else None,
        layer_rates={
            layer: count / (samples * runner.neurons[layer] * totals.timesteps)
            for layer, count in totals.layer_spikes.items()
        },
        bits_per_spike=float(runner.model.metadata["bits_per_spike"]),
    )
