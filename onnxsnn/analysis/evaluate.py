"""Accuracy over timesteps: the SNN beside the ANN, with firing rates and spikes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from onnxsnn.arrays import Array
from onnxsnn.data import Dataset
from onnxsnn.errors import DataError, UsageError, checked
from onnxsnn.figures import counted
from onnxsnn.model import SpikingModel, compared_outputs
from onnxsnn.runtime.dataset import batch_size, batches
from onnxsnn.runtime.early_exit import classes, run_early
from onnxsnn.runtime.runner import Runner
from onnxsnn.session import SampleSession, Session
from onnxsnn.source import Source
from onnxsnn.value_sizes import sized_by_values

__all__ = [
    "EarlyExit",
    "Evaluation",
    "Measured",
    "Row",
    "evaluate",
    "measure_of",
    "relative_error",
    "squared_error",
    "squares",
]


class Measured:
    """What is judged by its accuracy, else its agreement with the ANN, else its error."""

    accuracy: float | None
    agreement: float | None
    error: float | None

    @property
    def measure(self) -> str:
        """The name of the first of them that there is.

        Raises:
            DataError: there is none.
        """
        for name in ("accuracy", "agreement", "error"):
            if getattr(self, name) is not None:
                return name
        raise DataError(
            "the ANN's outputs are all 0, or infinite, on these data, so that no error relates to "
            "them; give others"
        )


def measure_of(results: Iterable[Measured]) -> str:
    """The measure of results that are compared with each other; all have the same.

    Raises:
        DataError: one has none, be it that others have an error of 0 (see `relative_error`).
    """
    (measure,) = {result.measure for result in results}
    return measure


@dataclass
class Row(Measured):
    """What holds after `timesteps` steps; a field is None where it was not to be had.

    Attributes:
        accuracy: share of samples whose class is the label.
        agreement: share of samples whose class is the ANN's.
        error: ||SNN - ANN||_2 / ||ANN||_2 over the samples of all outputs, the root mean
            square of the difference relative to that of the ANN; see `relative_error`.
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
class EarlyExit:
    """What holds where each sample stops as soon as it is certain (`runtime/early_exit.py`).

    Attributes:
        margin: the certainty that it stops at.
        timesteps: mean over the samples.
        accuracy, agreement, error, rate, spikes: as in Row.
        saved: share of the spikes of all steps that were not fired.
        speedup: time that all steps took over that with early exit.
    """

    margin: float
    timesteps: float
    saved: float
    speedup: float
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
        bits_per_spike: the most of any layer.
        early_exit: the same with early exit, where a margin was given.
        warnings: what the user should know of how the SNN was run.
    """

    rows: list[Row]
    samples: int
    ann_accuracy: float | None
    layer_rates: dict[str, float]
    bits_per_spike: float
    early_exit: EarlyExit | None = None
    warnings: list[str] = field(default_factory=list)


@dataclass
class _Totals:
    """Sums over samples, per timestep and then at the samples' exits, [T + 1]."""

    timesteps: int
    margin: float | None
    correct: Array = field(init=False)
    agreeing: Array = field(init=False)
    squared_error: Array = field(init=False)
    spikes: Array = field(init=False)
    layer_spikes: dict[str, float] = field(default_factory=dict)
    squared_norm: float = 0.0
    ann_correct: int = 0
    has_classes: bool = True
    exit_timesteps: int = 0
    seconds: float = 0.0
    exit_seconds: float = 0.0

    def __post_init__(self) -> None:
        rows = self.timesteps + 1
        self.correct, self.agreeing = np.zeros(rows), np.zeros(rows)
        self.squared_error, self.spikes = np.zeros(rows), np.zeros(rows)


def evaluate(
    snn: SpikingModel,
    data: Dataset,
    *,
    ann: Source | None = None,
    timesteps: int | None = None,
    margin: float | None = None,
    backend: str = "onnxruntime",
    memory: int | None = None,
    progress: Callable[[int, int], None] = lambda _done, _all: None,
) -> Evaluation:
    """Run an SNN on data, beside its ANN where that is given.

    A class is the greatest value along axis 1 of the first output that is compared, where that
    has two axes of floats; other outputs have an error, and no class. Outputs whose size the values
    decide, and whole numbers beside floats, are left out, which is said. With a margin, what early
    exit at that margin gives is measured too.

    Raises:
        UsageError: timesteps below 1, a negative margin, an argument of another type, or neither
            labels nor an ANN to compare with.
        DataError: a label is no class of the model, no output can be compared, or ANN and SNN
            have other outputs.
    """
    steps = checked(snn, SpikingModel, "snn").steps(timesteps)
    data = checked(data, Dataset, "data").fitted(snn.inputs)
    if ann is None and data.labels is None:
        raise UsageError("there is nothing to compare with: give labels, or the ANN with --ann")
    runner = Runner(snn, backend, memory=memory, rates=True)
    session = None if ann is None else _ann_session(checked(ann, Source, "ann"), snn)
    names = compared_outputs(snn)
    totals = _Totals(steps, margin)
    if margin is not None:
        _warm_up(runner, next(data.batches(batch_size(snn, data)))[0], steps, margin)
    for feeds, labels in batches(snn, data, progress):
        expected = session.run(feeds, names) if session is not None else None
        _add(totals, runner, names[0], feeds, labels, expected)
    result = _summary(totals, runner, len(data), data.labels is not None, ann is not None)
    result.warnings += _uncompared(snn, names)
    if not np.isfinite(totals.squared_norm):
        result.warnings.append("the ANN gives what is no number on these data: there is no error")
    return result


def _uncompared(snn: SpikingModel, compared: Sequence[str]) -> list[str]:
    """Why the other outputs are not compared."""
    others = [name for name in snn.outputs if name not in compared]
    varying = sized_by_values(snn.graph()) if others else ()
    return [
        f"how much output {name!r} holds, the values decide, so that it is not compared"
        if name in varying
        else f"output {name!r} is of whole numbers, and not compared where others are of scores"
        for name in others
    ]


def _warm_up(runner: Runner, feeds: dict[str, Array], timesteps: int, margin: float) -> None:
    """Make the sessions that all steps and early exit take, before either is timed."""
    for _ in runner.steps(feeds, timesteps):
        pass
    run_early(runner, feeds, margin, timesteps)


def _ann_session(ann: Source, snn: SpikingModel) -> Session:
    theirs, ours = ([spec.name for spec in model.inputs] for model in (ann, snn))
    if not set(theirs) <= set(ours):
        raise DataError(
            f"the SNN's inputs are {ours}, and the ANN's {theirs}: give the ANN that it was "
            "converted from"
        )
    session = SampleSession(ann.model)
    if not set(snn.outputs) <= set(session.outputs):
        raise DataError(
            f"the SNN's outputs are {snn.outputs}, and the ANN's {session.outputs}: "
            "give the ANN that it was converted from"
        )
    return session


def _add(
    totals: _Totals,
    runner: Runner,
    name: str,
    feeds: dict[str, Array],
    labels: Array | None,
    expected: dict[str, Array] | None,
) -> None:
    """Run one batch, and add what came of it; the output of that name holds classes, if any."""
    samples = len(next(iter(feeds.values())))
    wanted = None if expected is None else _classes(expected[name], name, samples)
    totals.has_classes = wanted is not None
    if labels is not None and wanted is not None:
        totals.ann_correct += int(np.count_nonzero(wanted == labels))
    if expected is not None:
        totals.squared_norm += sum(map(squares, expected.values()))
    for row, (outputs, spikes) in enumerate(_rows(totals, runner, feeds)):
        if expected is not None:
            totals.squared_error[row] += squared_error(outputs, expected)
        found = _classes(outputs[name], name, samples)
        if labels is not None:
            _check_labels(labels, outputs[name])
            totals.correct[row] += np.count_nonzero(found == labels)
        if wanted is not None:
            totals.agreeing[row] += np.count_nonzero(found == wanted)
        totals.spikes[row] += spikes
    for layer, counts in runner.spikes.items():
        totals.layer_spikes[layer] = totals.layer_spikes.get(layer, 0.0) + float(counts.sum())


def _classes(values: Array, name: str, samples: int) -> Array | None:
    """The class of each sample, if the output holds any."""
    found = classes(values)
    if found is not None and len(found) not in (1, samples):
        raise DataError(
            f"output {name!r} holds {counted(len(found), 'row')} for "
            f"{counted(samples, 'sample')}; export the model for any batch, with the samples along "
            "the first axis of every output"
        )
    return found


def _rows(
    totals: _Totals, runner: Runner, feeds: dict[str, Array]
) -> Iterator[tuple[dict[str, Array], float]]:
    """Outputs and spikes of a batch after each step, and then at the exits of its samples."""
    start = time.perf_counter()
    for outputs in runner.steps(feeds, totals.timesteps):
        totals.seconds += time.perf_counter() - start
        yield outputs, sum(float(counts.sum()) for counts in runner.spikes.values())
        start = time.perf_counter()
    if totals.margin is not None:
        spikes, start = dict(runner.spikes), time.perf_counter()
        early = run_early(runner, feeds, totals.margin, totals.timesteps)
        totals.exit_seconds += time.perf_counter() - start
        totals.exit_timesteps += int(early.timesteps.sum())
        runner.spikes = spikes
        yield early.outputs, float(early.spikes.sum())


def _check_labels(labels: Array, values: Array) -> None:
    if classes(values) is None:
        raise DataError(
            f"labels need an output of one score per class, and the model's has shape "
            f"{list(values.shape)}; leave the labels out (--no-labels), and compare with the ANN"
        )
    if labels.max() >= values.shape[1]:
        raise DataError(
            f"label {labels.max()} is no class of the model, which has {values.shape[1]}"
        )


def squared_error(outputs: Mapping[str, Array], expected: Mapping[str, Array]) -> float:
    """The sum of the squares of what an SNN's outputs differ from an ANN's by.

    Raises:
        DataError: they have other shapes.
    """
    alike = {name: _laid_out_as(outputs[name], values) for name, values in expected.items()}
    for name, values in alike.items():
        if outputs[name].shape != values.shape:
            raise DataError(
                f"output {name!r} has shape {list(outputs[name].shape)} in the SNN, and "
                f"{list(values.shape)} in the ANN: give the ANN that it was converted from"
            )
    with np.errstate(invalid="ignore"):  # two infinities
        return sum(squares(outputs[n].astype(np.float64) - v) for n, v in alike.items())


def _laid_out_as(outputs: Array, expected: Array) -> Array:
    """What an ANN gave of samples one by one, put together as the SNN's outputs are.

    These may have samples in front where the ANN's rows follow each other, or along another axis
    of size 1 where it gives one of each.
    """
    if outputs.ndim > expected.ndim and outputs.shape[2:] == expected.shape[1:]:
        return expected.reshape(outputs.shape) if expected.size == outputs.size else expected
    for axis in range(1, expected.ndim) if expected.ndim > outputs.ndim else ():
        if expected.shape[axis] == 1:
            together = np.moveaxis(expected.squeeze(axis), 0, axis - 1)
            if together.shape == outputs.shape:
                return together
    return expected


def squares(values: Array) -> float:
    """The sum of the squares of numbers, or of truths."""
    return float(np.square(values, dtype=np.float64).sum())


def relative_error(squared: float, norm: float) -> float | None:
    """`sqrt(squared / norm)` of a squared error, relative to the sum of what should be, squared.

    None where that is 0 and the error is not, or where it is no finite number.
    """
    if squared == 0:
        return 0.0
    return float(np.sqrt(squared / norm)) if 0 < norm < np.inf else None


def _summary(
    totals: _Totals, runner: Runner, samples: int, labelled: bool, compared: bool
) -> Evaluation:
    """The totals as means."""
    neurons = sum(runner.neurons.values())

    def measures(row: int, timesteps: float) -> dict[str, Any]:
        spikes = float(totals.spikes[row]) / samples
        norm = totals.squared_norm
        return {
            "accuracy": float(totals.correct[row] / samples) if labelled else None,
            "agreement": float(totals.agreeing[row] / samples) if totals.has_classes else None,
            "error": relative_error(float(totals.squared_error[row]), norm) if compared else None,
            "rate": spikes / (neurons * timesteps),
            "spikes": spikes,
        }

    rows = [Row(step + 1, **measures(step, step + 1)) for step in range(totals.timesteps)]
    early_exit = None
    if totals.margin is not None:
        mean = totals.exit_timesteps / samples
        early = measures(totals.timesteps, mean)
        saved = 1 - early["spikes"] / rows[-1].spikes if rows[-1].spikes else 0.0
        speedup = totals.seconds / totals.exit_seconds
        early_exit = EarlyExit(totals.margin, mean, saved, speedup, **early)
    return Evaluation(
        rows=rows,
        samples=samples,
        ann_accuracy=totals.ann_correct / samples if compared and labelled else None,
        layer_rates={
            layer: count / (samples * runner.neurons[layer] * totals.timesteps)
            for layer, count in totals.layer_spikes.items()
        },
        bits_per_spike=float(runner.model.metadata["bits_per_spike"]),
        early_exit=early_exit,
        warnings=list(runner.warnings),
    )
