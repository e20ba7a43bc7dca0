"""What a report shows: the figures of `evaluate`, a raster, and samples that flip class."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from onnxsnn.analysis.energy import MODELS, CostModel, Energy, energy
from onnxsnn.analysis.evaluate import Evaluation, evaluate, measure_of
from onnxsnn.analysis.inspection import Inspection, inspect_model
from onnxsnn.analysis.layers import SAMPLES, Analysis, analyse
from onnxsnn.analysis.target import Target, target_of
from onnxsnn.arrays import Array
from onnxsnn.data import Dataset
from onnxsnn.model import SpikingModel, compared_outputs
from onnxsnn.readers import spread
from onnxsnn.runtime.dataset import batch_size
from onnxsnn.runtime.early_exit import classes
from onnxsnn.runtime.runner import Runner
from onnxsnn.session import SampleSession
from onnxsnn.source import Source

__all__ = ["Flip", "Flips", "Progress", "RasterRow", "ReportData", "gather"]

_RASTER_ROWS = 96  # in all
_ROWS_PER_LAYER = 8
_FLIPS = 6
_CLASSES = 5  # whose outputs are drawn for a sample

Progress = Callable[[str], Callable[[int, int], None]]
"""Gives, by the name of a task, what is called with the samples done and all."""


@dataclass(frozen=True)
class RasterRow:
    """A neuron's spikes.

    Attributes:
        layer: its layer.
        neuron: its index in the layer, flattened.
        spikes: in each step, [T].
    """

    layer: str
    neuron: int
    spikes: list[float]


@dataclass(frozen=True)
class Flip:
    """A sample whose class is not the ANN's in the end, or was another before.

    Attributes:
        sample: its index in the data.
        ann: the ANN's class.
        snn: the SNN's class after the last step.
        label: the right one, where it is known.
        settled: the step from which on the SNN's class stayed the same.
        outputs: by class, the running estimate after each step, [T].
        image: the first input, where it is an image: [H, W] or [H, W, 3].
    """

    sample: int
    ann: int
    snn: int
    label: int | None
    settled: int
    outputs: dict[int, list[float]]
    image: Array | None


@dataclass(frozen=True)
class Flips:
    """The samples that flip class.

    Attributes:
        drawn: some of them: those whose class is not the ANN's, then those that settled last.
        differing: how many end in another class than the ANN's.
        late: how many end in the ANN's class, but were in another after some step.
    """

    drawn: list[Flip]
    differing: int
    late: int


@dataclass(frozen=True)
class ReportData:
    """All that the page says.

    Attributes:
        title: what is reported on.
        snn: the SNN.
        evaluation, analysis, energy: as `evaluate --analyse --energy` gives them.
        measure: what the SNN is judged by: `accuracy`, `agreement` or `error`.
        target: when the SNN is good enough.
        inspection: of the SNN.
        raster: of the first sample.
        flips: samples that flip class.
    """

    title: str
    snn: SpikingModel
    evaluation: Evaluation
    measure: str
    analysis: Analysis
    energy: Energy
    target: Target | None
    inspection: Inspection
    raster: list[RasterRow]
    flips: Flips


def gather(
    title: str,
    snn: SpikingModel,
    ann: Source,
    data: Dataset,
    timesteps: int | None = None,
    *,
    models: Sequence[CostModel] = MODELS,
    progress: Progress = lambda _task: lambda _done, _all: None,
) -> ReportData:
    """Run all that a report needs.

    Args:
        title: what is reported on.
        snn: the SNN.
        ann: the network that it was converted from.
        data: samples; labels are not needed.
        timesteps: T; None for the number that the thresholds were chosen for.
        models: of energy.
        progress: see Progress.

    Raises:
        UsageError: timesteps below 1.
        DataError: the data or the ANN do not fit the SNN, or no error relates to its outputs.
    """
    steps = snn.steps(timesteps)
    evaluation = evaluate(snn, data, ann=ann, timesteps=steps, progress=progress("evaluating"))
    return ReportData(
        title=title,
        snn=snn,
        evaluation=evaluation,
        measure=measure_of(evaluation.rows),
        analysis=analyse(snn, data, ann, steps, progress=progress("analysing")),
        energy=energy(snn, data, steps, models=models, progress=progress("counting operations")),
        target=target_of(evaluation),
        inspection=inspect_model(snn.model),
        raster=_raster(snn, next(data.batches(1))[0], steps),
        flips=_flips(snn, ann, data, steps),
    )


def _raster(snn: SpikingModel, feeds: Mapping[str, Array], steps: int) -> list[RasterRow]:
    """Of each layer, neurons from the most active to the least active that fired at all."""
    snn = snn.unrounded()
    names = snn.spikes
    per_layer = max(1, min(_ROWS_PER_LAYER, _RASTER_ROWS // len(names)))
    runner = Runner(snn, taps=list(names.values()))
    history = list(runner.steps(feeds, steps))
    rows = []
    for layer, name in names.items():
        spikes = np.stack([outputs[name][0].reshape(-1) for outputs in history])  # [T, neurons]
        fired = np.abs(spikes).sum(axis=0)
        order = np.argsort(-fired, kind="stable")[: np.count_nonzero(fired)]
        if len(order):
            places = np.unique(np.linspace(0, len(order) - 1, per_layer).astype(int))
            rows += [RasterRow(layer, int(i), spikes[:, i].tolist()) for i in order[places]]
    return rows


def _flips(snn: SpikingModel, ann: Source, data: Dataset, steps: int) -> Flips:
    """The samples that flip class; of those that are not drawn, the number alone is kept."""
    drawn: list[Flip] = []
    flipping = differing = 0
    rows = spread(SAMPLES, len(data))
    for flip in _candidates(snn, ann, data.take(rows), steps):
        flip = replace(flip, sample=int(rows[flip.sample]))
        flipping, differing = flipping + 1, differing + (flip.snn != flip.ann)
        drawn.append(flip)
        drawn.sort(key=lambda f: (f.snn == f.ann, -f.settled, f.sample))
        del drawn[_FLIPS:]
    return Flips(drawn, differing, flipping - differing)


def _candidates(snn: SpikingModel, ann: Source, data: Dataset, steps: int) -> Iterator[Flip]:
    """Samples whose class changed, or is not the ANN's, and whose outputs can be drawn."""
    name, session, runner = compared_outputs(snn)[0], SampleSession(ann.model), Runner(snn)
    start = 0
    for feeds, labels in data.batches(batch_size(snn, data)):
        wanted = classes(session.run(feeds, [name])[name])
        if wanted is None:
            return
        history = np.stack([o[name] for o in runner.steps(feeds, steps)])  # [T, samples, classes]
        guesses = history.argmax(axis=2)
        changes = guesses != guesses[-1]
        settled = np.where(changes.any(axis=0), steps - changes[::-1].argmax(axis=0) + 1, 1)
        drawable = np.isfinite(history).all(axis=(0, 2))
        for i in np.flatnonzero(drawable & ((guesses[-1] != wanted) | (settled > 1))):
            label = None if labels is None else int(labels[i])
            ours, its = int(guesses[-1, i]), int(wanted[i])
            yield Flip(
                start + int(i), its, ours, label, int(settled[i]),
                _traces(history[:, i], {ours, its, *([label] if label is not None else [])}),
                _image(next(iter(feeds.values()))[i]),
            )  # fmt: skip
        start += len(wanted)


def _traces(history: Array, named: set[int]) -> dict[int, list[float]]:
    """The outputs of the classes that matter, and of the strongest others."""
    strongest = np.argsort(-history[-1]).tolist()
    others = [c for c in strongest if c not in named][: max(0, _CLASSES - len(named))]
    return {c: history[:, c].astype(float).tolist() for c in [*sorted(named), *others]}


def _image(values: Array) -> Array | None:
    """A sample as an image, its greatest value white; None where it is none."""
    if values.ndim == 3 and values.shape[0] in (1, 3):
        values = np.moveaxis(values, 0, 2)
    if values.ndim != 3 or values.shape[2] not in (1, 3) or max(values.shape) > 256:
        return None
    low, high = float(values.min()), float(values.max())
    scaled = ((values - low) / max(high - low, 1e-12) * 255).astype(np.uint8)
    return np.asarray(scaled[..., 0] if scaled.shape[2] == 1 else scaled)
