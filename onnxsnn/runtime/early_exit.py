"""Early exit: a sample is done as soon as more steps would not change what the SNN says.

After every step each sample has a certainty, and it is done when that reaches a margin:

1. Outputs that are scores of classes: the greatest score minus the second greatest, times the
   number of steps so far, less those that a delay has left out. That is the lead in what the
   steps have added up to, and what is still to come must make up for it.
2. All other outputs: 1 / the relative change of the running estimate, ||y_t|| / ||y_t - y_t-1||,
   the least over the last three steps and over all outputs. So a margin of 100 is a tolerance
   of 1 %. A single step without change says little: spikes may not have arrived yet. The
   fourth step is the first that such a sample can be done after.

The margin is calibrated without labels. A sample that has the same class as after all T steps,
or is within `error` of those outputs, is right; the greatest certainty at which it is not is
the last margin that could fail it. Any margin above that of all samples but a share of
1 - agreement keeps the agreement on them.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from onnxsnn.arrays import Array
from onnxsnn.data import Dataset
from onnxsnn.errors import DataError, UsageError
from onnxsnn.model import compared_outputs
from onnxsnn.runtime.dataset import batches
from onnxsnn.runtime.runner import Runner

__all__ = ["EarlyRun", "Exits", "calibrate_margin", "classes", "run_early"]

_QUIET_STEPS = 3
_LEAST_CHANGE = 2.0**-24  # of the norm: what float32 could not tell from none


@dataclass(frozen=True)
class EarlyRun:
    """What a run with early exit gives.

    Attributes:
        outputs: of each sample at its exit, by name; those of `comparable_outputs`.
        timesteps: the step at which each sample was done, [N].
        spikes: that each sample had fired by then, [N]; 0 where the runner counts no rates.
    """

    outputs: dict[str, Array]
    timesteps: Array
    spikes: Array


def run_early(
    runner: Runner,
    inputs: Array | Mapping[str, Array],
    margin: float,
    timesteps: int | None = None,
) -> EarlyRun:
    """Run until every sample is done, for `timesteps` steps at most.

    Samples that are done leave the batch, so that the time of a step falls with them, where the
    graph is known to treat samples alone; else the batch goes on as a whole until the last one
    is done.

    Args:
        runner: an SNN; reset first.
        inputs: an array, or arrays by name, first axis the sample.
        margin: the certainty to reach, see calibrate_margin; for outputs that are no scores
            of classes, 1 / tolerance.
        timesteps: None for the number that the thresholds were chosen for.

    Raises:
        UsageError: the margin is negative, or timesteps are below 1.
        DataError: the outputs do not have one row per sample.
    """
    exits = Exits(_samples(inputs), margin, runner.model.delay)
    names = compared_outputs(runner.model)
    for outputs in runner.steps(inputs, runner.model.steps(timesteps), lambda: ~exits.done):
        exits.see({name: outputs[name] for name in names}, runner.spikes)
        if exits.done.all():
            break
    return EarlyRun(exits.outputs, exits.timesteps, exits.spikes)


def calibrate_margin(
    runner: Runner,
    data: Dataset,
    timesteps: int | None = None,
    *,
    agreement: float = 0.99,
    error: float = 0.1,
    progress: Callable[[int, int], None] = lambda _done, _all: None,
) -> float:
    """The margin from which on early exit keeps what the SNN says after all steps.

    Args:
        runner: an SNN.
        data: samples; labels are not needed.
        timesteps: None for the number that the thresholds were chosen for.
        agreement: the share of the samples that must keep it.
        error: where outputs are no scores of classes, the relative error that keeps it.
        progress: called with the numbers of samples done and of all.

    Raises:
        UsageError: agreement or error lies outside of (0, 1], or timesteps are below 1.
        DataError: the data do not fit the model, or its outputs do not have one row per sample.
    """
    if not (0 < agreement <= 1 and 0 < error <= 1):
        raise UsageError("agreement and error are shares: more than 0, and 1 at most")
    steps = runner.model.steps(timesteps)
    names = compared_outputs(runner.model)
    failing: list[float] = []
    for feeds, _ in batches(runner.model, data, progress):
        certainty = _Certainty(_samples(feeds), runner.model.delay)
        history = [{name: o[name] for name in names} for o in runner.steps(feeds, steps)]
        failing.extend(_failing(history, certainty, error))
    allowed = len(failing) - math.ceil(agreement * len(failing))
    highest = sorted(failing, reverse=True)[allowed]
    return max(0.0, float(np.nextafter(highest, np.inf)))


class Exits:
    """Follows a batch step by step, and keeps of each sample what it had when it was done.

    Attributes:
        done: which samples are, [N].
        outputs, timesteps, spikes: as in EarlyRun; those of samples that are not done yet are
            of the last step.
    """

    def __init__(self, samples: int, margin: float, delay: int = 0) -> None:
        if not margin >= 0:
            raise UsageError(f"a margin is 0 or more, and not {margin}")
        self._margin = margin
        self._certainty = _Certainty(samples, delay)
        self.done = np.zeros(samples, bool)
        self.outputs: dict[str, Array] = {}
        self.timesteps = np.zeros(samples, np.int64)
        self.spikes = np.zeros(samples)

    def see(self, outputs: Mapping[str, Array], spikes: Mapping[str, Array]) -> None:
        """Take the outputs after one more step, and the spikes by layer until then, [N] each."""
        certainty = self._certainty(outputs)
        for name, values in outputs.items():
            done = self.done.reshape(-1, *[1] * (values.ndim - 1))
            self.outputs[name] = np.where(done, self.outputs.get(name, values), values)
        self.timesteps += ~self.done
        self.spikes = np.where(self.done, self.spikes, sum(spikes.values()))
        self.done = self.done | (certainty >= self._margin)


def classes(values: Array) -> Array | None:
    """The class of each sample [N]; None where the output is not one score per class."""
    scores = values.ndim == 2 and values.shape[1] > 1 and np.issubdtype(values.dtype, np.floating)
    return values.argmax(axis=1) if scores else None


class _Certainty:
    """The certainty of each sample, called with the outputs after every step."""

    def __init__(self, samples: int, delay: int) -> None:
        self._samples = samples
        self._delay = delay
        self._step = 0
        self._before: Mapping[str, Array] = {}
        self._recent = deque([np.zeros(samples)] * _QUIET_STEPS, _QUIET_STEPS)

    def __call__(self, outputs: Mapping[str, Array]) -> Array:
        """Certainties after this step, [N]; -inf where outputs are NaN, or all infinite."""
        with np.errstate(invalid="ignore"):  # two infinities
            certainty = self._certainty(outputs)
        return np.where(np.isnan(certainty), -np.inf, certainty)

    def _certainty(self, outputs: Mapping[str, Array]) -> Array:
        before, self._before = self._before, outputs
        self._step += 1
        for name, values in outputs.items():
            if values.shape != (self._samples, *before.get(name, values).shape[1:]):
                raise DataError(
                    f"early exit needs one row per sample, and output {name!r} has shape "
                    f"{list(values.shape)} for {self._samples} samples"
                )
        first = next(iter(outputs.values()))
        if classes(first) is not None:
            second, best = np.partition(first.astype(np.float64), -2, axis=1)[:, -2:].T
            left_out = self._delay if self._step > self._delay else 0
            return np.asarray((self._step - left_out) * (best - second))
        if before:
            self._recent.append(1 / np.maximum(_distance(outputs, before), _LEAST_CHANGE))
        return np.asarray(np.stack(self._recent).min(axis=0))


def _distance(outputs: Mapping[str, Array], others: Mapping[str, Array]) -> Array:
    """Relative to `outputs`, how far `others` are, the most over all outputs, [N]."""
    distances = []
    for name, values in outputs.items():
        rows = values.reshape(len(values), -1).astype(np.float64)
        change = np.linalg.norm(rows - others[name].reshape(rows.shape), axis=1)
        norm = np.linalg.norm(rows, axis=1)
        distances.append(change / np.maximum(norm, np.finfo(np.float64).tiny))
    return np.asarray(np.stack(distances).max(axis=0))


def _failing(
    history: Sequence[Mapping[str, Array]], certainty: _Certainty, error: float
) -> list[float]:
    """The greatest certainty at which each sample is not right, -inf where it always is, [N]."""
    failing: Array = np.array(-np.inf)
    for outputs in history:
        reached, right = certainty(outputs), _right(outputs, history[-1], error)
        failing = np.maximum(failing, np.where(right, -np.inf, reached))
    return [float(value) for value in failing]


def _right(outputs: Mapping[str, Array], last: Mapping[str, Array], error: float) -> Array:
    """Which samples have the last step's class, or are within `error` of its outputs, [N]."""
    name = next(iter(outputs))
    found = classes(outputs[name])
    return _distance(last, outputs) <= error if found is None else found == classes(last[name])


def _samples(inputs: Array | Mapping[str, Array]) -> int:
    return len(next(iter(inputs.values())) if isinstance(inputs, Mapping) else inputs)
