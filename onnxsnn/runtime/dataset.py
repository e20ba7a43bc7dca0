"""Running an SNN over a whole data set, batch by batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from onnxsnn.arrays import Array
from onnxsnn.data import Dataset
from onnxsnn.errors import DataError
from onnxsnn.model import SpikingModel
from onnxsnn.runtime.runner import Runner
from onnxsnn.session import join, same_for_any, whole_batches

__all__ = ["BATCH", "DatasetRun", "batch_size", "batches", "run_dataset"]

BATCH = 50
_STATE_VALUES = 2**26  # of a batch: 256 MiB, held twice, before and after a step


@dataclass(frozen=True)
class DatasetRun:
    """What a run over a data set gives.

    Attributes:
        outputs: by name, [samples, ...], or [T, samples, ...] of every step.
        samples: number of samples.
        timesteps: number of steps that were run.
        spikes: mean spikes per sample, over all layers.
        rates: by layer, mean spikes per neuron and step.
    """

    outputs: dict[str, Array]
    samples: int
    timesteps: int
    spikes: float
    rates: dict[str, float]


def batch_size(snn: SpikingModel, data: Dataset) -> int:
    """How many samples to run at once: BATCH, or fewer where their states would be large.

    Where the batch is fixed, they fill whole ones.
    """
    most = min(BATCH, _STATE_VALUES // max(snn.state_size(data.inputs), 1))
    return whole_batches(most, snn.batch)


def batches(
    snn: SpikingModel, data: Dataset, progress: Callable[[int, int], None]
) -> Iterator[tuple[dict[str, Array], Array | None]]:
    """Feeds and labels of `batch_size` samples; `progress` is told of those done, and of all."""
    done = 0
    for feeds, labels in data.batches(batch_size(snn, data)):
        yield feeds, labels
        done += len(next(iter(feeds.values())))
        progress(done, len(data))


def run_dataset(
    runner: Runner,
    data: Dataset,
    timesteps: int | None = None,
    *,
    every_step: bool = False,
    progress: Callable[[int, int], None] = lambda _done, _all: None,
) -> DatasetRun:
    """Run all samples; the runner must count rates.

    Raises:
        UsageError: timesteps below 1.
        DataError: the data do not fit the model, or there are several batches, and an output is one
            number for each, or of another size in each.
    """
    steps = runner.model.steps(timesteps)
    pieces: list[dict[str, Array]] = []
    spikes: dict[str, float] = {}
    for feeds, _ in batches(runner.model, data, progress):
        result = runner.run(feeds, steps, every_step=every_step)
        pieces.append(_stacked(result.every_step) if every_step else result.outputs)
        for layer, counts in result.spikes.items():
            spikes[layer] = spikes.get(layer, 0.0) + float(counts.sum())
    samples = len(data)
    axes = {name: axis + every_step for name, axis in runner.model.sample_axes.items()}
    shared = same_for_any(runner.model.output_shapes, runner.model.batch)
    return DatasetRun(
        outputs=join(pieces, samples, axis=axes, shared=shared),
        samples=samples,
        timesteps=steps,
        spikes=sum(spikes.values()) / samples,
        rates={
            layer: total / (samples * steps * runner.neurons[layer])
            for layer, total in spikes.items()
        },
    )


def _stacked(steps: list[dict[str, Array]]) -> dict[str, Array]:
    """Outputs of every step, [T, ...].

    Raises:
        DataError: a step gave more than another.
    """
    stacked = {}
    for name in steps[0]:
        values = [outputs[name] for outputs in steps]
        if len({array.shape for array in values}) > 1:
            raise DataError(
                f"how much output {name!r} holds, the values decide, and it is another number "
                "after each step; leave --every-step out"
            )
        stacked[name] = np.stack(values)
    return stacked
