"""The Runner: an SNN over timesteps, with its state."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from onnxsnn.arrays import Array, holds
from onnxsnn.errors import OVERFLOW, DataError, UsageError
from onnxsnn.functions import INTEGER
from onnxsnn.inputs import InputSpec
from onnxsnn.model import SpikingModel
from onnxsnn.neurons import IntegrateAndFire
from onnxsnn.runtime.backend import Backend, Tile
from onnxsnn.runtime.numpy_backend import NumpyBackend
from onnxsnn.runtime.onnxruntime_backend import OnnxRuntimeBackend
from onnxsnn.session import (
    join,
    lacking_samples,
    pieces_of,
    same_for_any,
    split,
    with_samples,
)

__all__ = ["BACKENDS", "Result", "Runner"]

BACKENDS: dict[str, Callable[..., Backend]] = {
    "onnxruntime": OnnxRuntimeBackend,
    "numpy": NumpyBackend,
}


@dataclass
class Result:
    """What a run gives.

    Attributes:
        outputs: after the last step, by name, of the shapes and types that the ANN gives.
        every_step: the same after each step, [T] of them, where that was asked for.
        spikes: by layer, spikes fired per sample over the run, [N]; where `rates` was asked.
        rates: by layer, mean firing rate over the run, in spikes per neuron and step.
    """

    outputs: dict[str, Array]
    every_step: list[dict[str, Array]]
    spikes: dict[str, Array]
    rates: dict[str, float]


class Runner:
    """Runs an SNN step by step; any batch size.

    Args:
        model: an SNN, or its file.
        backend: a name in BACKENDS.
        threads: for ONNX Runtime; None lets it choose.
        memory: bytes that the tensors of one run may take, as many timesteps of as many samples
            as go in; None for 512 MiB.
        rates: count spikes per layer and sample while running.
        taps: names of further tensors that every step gives among its outputs.

    Raises:
        ModelError: the file holds no SNN, or the backend does not take it.
        UsageError: there is no such backend or tensor, or `threads` or `memory` is no whole
            number, or below 1.

    Example:
        >>> from onnxsnn.convert import convert
        >>> from onnxsnn.demo import demo_data, demo_source
        >>> calibration, test = demo_data()
        >>> runner = Runner(convert(demo_source(), calibration, timesteps=4).snn, rates=True)
        >>> result = runner.run(next(test.batches(16))[0], 2)
        >>> result.outputs["logits"].shape, runner.steps_done, len(result.rates)
        ((16, 10), 2, 4)
    """

    def __init__(
        self,
        model: SpikingModel | str | Path,
        backend: str = "onnxruntime",
        *,
        threads: int | None = None,
        memory: int | None = None,
        rates: bool = False,
        taps: Sequence[str] = (),
    ) -> None:
        self.model = model if isinstance(model, SpikingModel) else SpikingModel.load(model)
        if backend not in BACKENDS:
            raise UsageError(f"backend {backend!r} is none of {', '.join(BACKENDS)}")
        for name, given in (("threads", threads), ("memory", memory)):
            if given is not None and not (isinstance(given, Integral) and given >= 1):
                raise UsageError(f"{name} must be a whole number, 1 or more, and is {given!r}")
        self._specs = self.model.inputs
        self._layers = list(self.model.spikes) if rates else []
        taps = [name for name in dict.fromkeys(taps) if name not in self.model.outputs]
        counters = [_counter(layer) for layer in self._layers]
        self._backend = BACKENDS[backend](
            _instrument(self.model, self._layers, taps),
            self.model.states,
            [*self.model.outputs, *taps, *counters],
            threads,
            counted=counters,
            memory=memory,
        )
        self._potentials = {layer: self.model.potential(layer).input for layer in self._layers}
        self._batch = self.model.batch
        self._axes = self.model.sample_axes
        self._shared = same_for_any(self.model.output_shapes, self._batch)
        self._lacking = lacking_samples(self.model.output_shapes, self._batch)
        self.reset()

    @property
    def warnings(self) -> list[str]:
        """What the user should know of how the SNN is run, each once."""
        return self._backend.warnings

    def reset(self) -> None:
        """Forget all states: the next step is the first."""
        self._state: list[Any] = []
        self._samples = 0
        self._rows: Array = np.arange(0)  # of the samples that are still in the batch
        self._last: dict[str, Array] | None = None  # outputs, where samples may leave
        self._ahead: tuple[list[Any], list[Any], int] | None = None
        self.steps_done = 0
        self.spikes: dict[str, Array] = {}
        self.neurons: dict[str, int] = {}

    def step(self, inputs: Array | Mapping[str, Array]) -> dict[str, Array]:
        """One timestep; the outputs are the running estimate after it.

        Raises:
            DataError: the inputs do not fit the model, or the batch is another than before.
        """
        if len(self._rows) < self._samples:
            raise DataError("samples have left the batch; reset first")
        self._fall_back()
        feeds = self._checked(inputs)
        size = self._batch or (len(self._state) and self._size) or self._tile(feeds, 1)[0]
        return next(self._advance(self._prepare(feeds, size), 1, every_step=True))

    def steps(
        self,
        inputs: Array | Mapping[str, Array],
        timesteps: int,
        needed: Callable[[], Array] | None = None,
    ) -> Iterator[dict[str, Array]]:
        """Reset, then the outputs after each of `timesteps` steps of the same inputs.

        Args:
            inputs: an array, or arrays by name, first axis the sample.
            timesteps: to run.
            needed: asked now and then which samples are still needed, [N] of bool; the others
                may leave the batch, and then their outputs and spikes stay what they were.

        Raises:
            UsageError: timesteps below 1, or not whole.
            DataError: as `run`.
        """
        return self._chunks(inputs, timesteps, every_step=True, needed=needed)

    def _chunks(
        self,
        inputs: Array | Mapping[str, Array],
        timesteps: int | None,
        every_step: bool,
        needed: Callable[[], Array] | None = None,
    ) -> Iterator[dict[str, Array]]:
        """The outputs after each step, or after each chunk of steps."""
        steps = self.model.steps(timesteps)
        self.reset()
        feeds = self._checked(inputs)
        ahead = steps if needed is None else min(steps, _AHEAD)
        size, chunk = self._tile(feeds, ahead)
        prepared = self._prepare(feeds, size)
        self._last = None if needed is None else {}
        for start in range(0, steps, chunk):
            if start and needed is not None:
                prepared = self._without(prepared, ~needed())
            if not prepared:
                return
            yield from self._advance(prepared, min(chunk, steps - start), every_step)

    def _without(self, prepared: list[Any], done: Array) -> list[Any]:
        """The inputs without the samples that are done; the states too."""
        if not done[self._rows].any():
            return prepared
        pieces = [~done[rows] for rows in np.split(self._rows, self._bounds())]
        inputs = self._backend.gather(prepared, pieces, self._size)
        states = self._backend.gather(self._state, pieces, self._size)
        if inputs is None or states is None:
            return prepared
        self._rows = self._rows[~done[self._rows]]
        self._state = states
        return inputs if len(self._rows) else []

    def _bounds(self) -> list[int]:
        """Where the pieces begin, all but the first."""
        return list(range(self._size, len(self._rows), self._size))

    def run(
        self,
        inputs: Array | Mapping[str, Array],
        timesteps: int | None = None,
        *,
        every_step: bool = False,
    ) -> Result:
        """Reset, run, and give the outputs after the last step.

        Args:
            inputs: an array, or arrays by name, first axis the sample.
            timesteps: None for the number that the thresholds were chosen for.
            every_step: keep the outputs after each step too.

        Raises:
            UsageError: timesteps below 1, or not whole.
            DataError: the inputs do not fit the model, or overflow in a layer whose rates are
                counted.
        """
        history: list[dict[str, Array]] = []
        outputs: dict[str, Array] = {}
        for outputs in self._chunks(inputs, timesteps, every_step):
            if every_step:
                history.append(outputs)
        return Result(outputs, history, dict(self.spikes), self.rates())

    def rates(self) -> dict[str, float]:
        """Mean firing rate per layer since the last reset, in spikes per neuron and step."""
        return {
            layer: float(count.mean()) / (self.neurons[layer] * self.steps_done)
            for layer, count in self.spikes.items()
        }

    def _checked(self, inputs: Array | Mapping[str, Array]) -> dict[str, Array]:
        """The inputs by name, as many samples as before."""
        feeds = self._named(inputs)
        samples = {len(values) for values in feeds.values()}
        if len(samples) != 1 or not min(samples):
            raise DataError(f"the inputs hold {sorted(samples)} samples; give the same, not none")
        count = samples.pop()
        if self._state and count != self._samples:
            raise DataError(
                f"the state is that of {self._samples} samples, and {count} came; reset first"
            )
        self._samples = count
        if not self._state:
            self._rows = np.arange(count)
        return feeds

    def _tile(self, feeds: dict[str, Array], timesteps: int) -> Tile:
        """Samples and timesteps to run at once."""
        samples, chunk = self._backend.tile(feeds, timesteps)
        return self._batch or samples, chunk

    def _prepare(self, feeds: dict[str, Array], size: int) -> list[Any]:
        """The inputs in the backend's form, in pieces of `size` samples."""
        self._size = size
        pieces = pieces_of(feeds, size) if self._batch is None else split(feeds, size)
        return [self._backend.prepare(piece) for piece in pieces]

    def _advance(
        self, prepared: list[Any], timesteps: int, every_step: bool
    ) -> Iterator[dict[str, Array]]:
        """The outputs after each of the next steps, or after the last one only.

        All steps are computed at once, and told one by one.
        """
        before = self._state or [self._backend.initial_state() for _ in prepared]
        states = deque(before)
        if not every_step:  # nobody returns to them: each is let go before the next piece runs
            before = self._state = []
        results = [
            self._backend.advance(inputs, states.popleft(), timesteps, every_step)
            for inputs in prepared
        ]
        self._state = [state for _, state in results]
        count = len(self._rows)
        pieces = [with_samples(values, self._lacking, axis=1) for values, _ in results]
        axes = {name: self._axes.get(name, 0) + 1 for name in pieces[0]}
        outputs = join(pieces, count, axis=axes, batch=self._batch, shared=self._shared)
        counts = {layer: outputs.pop(_counter(layer)) for layer in self._layers}  # [steps, N]
        if not every_step:
            self._count(counts, 0, timesteps)
            yield self._told({name: values[-1, ...] for name, values in outputs.items()})
            return
        for step in range(timesteps):
            self._ahead = (prepared, before, step + 1) if step + 1 < timesteps else None
            self._count(counts, step, step + 1)
            yield self._told({name: values[step, ...] for name, values in outputs.items()})

    def _told(self, outputs: dict[str, Array]) -> dict[str, Array]:
        """Outputs of all samples, of those that have left the batch as they were last."""
        if self._last is None:
            return outputs
        if len(self._rows) < self._samples:
            outputs = {
                name: self._beside(values, self._last[name], self._axes.get(name, 0))
                for name, values in outputs.items()
            }
        self._last = outputs
        return {name: values.copy() for name, values in outputs.items()}

    def _beside(self, values: Array, last: Array, axis: int) -> Array:
        """An output of those in the batch beside what it was last for the others."""
        if values.shape[axis : axis + 1] != (len(self._rows),):
            return values  # it is the same for any
        whole = last.copy()
        whole[(slice(None),) * axis + (self._rows,)] = values
        return whole

    def _fall_back(self) -> None:
        """Return to the last step that was told, where more have been computed."""
        if self._ahead is not None:
            prepared, before, steps = self._ahead
            self._ahead = None
            self._state = [
                self._backend.advance(inputs, state, steps, every_step=False)[1]
                for inputs, state in zip(prepared, before, strict=True)
            ]

    def _count(self, counts: dict[str, Array], start: int, stop: int) -> None:
        """Add up the spikes of some of the steps that were computed.

        Where a layer's first axis is not the sample, its spikes are shared out evenly.
        """
        self.steps_done += stop - start
        samples = self._batch or min(self._size, len(self._rows))  # of the first piece
        for layer, values in counts.items():
            fired = values[start:stop].sum(axis=0, dtype=np.float64)
            if not np.isfinite(fired).all():
                raise DataError(f"{OVERFLOW} (in layer {layer!r})")
            total = np.zeros(self._samples)
            whole = len(fired) == len(self._rows)
            total[self._rows] = fired if whole else fired.sum() / len(self._rows)
            self.spikes[layer] = self.spikes.get(layer, 0.0) + total
            shape = self._backend.shape(self._state[0], self._potentials[layer])
            self.neurons[layer] = math.prod(shape) // samples

    def _named(self, inputs: Array | Mapping[str, Array]) -> dict[str, Array]:
        """The inputs by name, checked against the model's."""
        if not isinstance(inputs, Mapping):
            if len(self._specs) != 1:
                names = ", ".join(spec.name for spec in self._specs)
                raise DataError(f"the model has several inputs; give arrays by name: {names}")
            inputs = {self._specs[0].name: inputs}
        missing = [spec.name for spec in self._specs if spec.name not in inputs]
        if missing or len(inputs) != len(self._specs):
            raise DataError(
                f"the model's inputs are {[spec.name for spec in self._specs]}, "
                f"and {sorted(inputs)} came"
            )
        return {spec.name: _fitting(inputs[spec.name], spec) for spec in self._specs}


def _fitting(values: Array, spec: InputSpec) -> Array:
    try:
        values = np.asarray(values, order="C")
    except (RuntimeError, TypeError, ValueError) as error:  # a tensor that is trained, say
        raise DataError(f"input {spec.name!r} is no array: {error}") from error
    if not values.ndim:
        raise DataError(f"input {spec.name!r} is a single number; give it an axis of samples")
    if not spec.fits(values):
        raise DataError(
            f"input {spec.name!r} takes shape {spec.shape}, and an array of {values.shape} came"
        )
    if not np.can_cast(values.dtype, spec.dtype, "same_kind"):
        raise DataError(f"input {spec.name!r} takes {spec.dtype}, and {values.dtype} came")
    if not spec.takes_floats and not holds(spec.dtype, values):
        raise DataError(f"input {spec.name!r} takes {spec.dtype}, and larger numbers came")
    return values.astype(spec.dtype, copy=False)


_AHEAD = 2  # steps between asking which samples are still needed


def _counter(layer: str) -> str:
    """Name of the tensor that holds a layer's spikes per sample."""
    return f"{layer}.runner.count"


def _instrument(snn: SpikingModel, layers: Sequence[str], taps: Sequence[str]) -> onnx.ModelProto:
    """The step graph with tapped tensors, and spikes per layer and sample, as outputs."""
    model = deepcopy(snn.model)
    known = {name for node in model.graph.node for name in node.output}
    known -= {state.output for state in snn.states}
    unknown = [name for name in taps if name not in known]
    if unknown:
        raise UsageError(f"the SNN has no tensor {unknown[0]!r} to tap")
    model.graph.node.extend(node for layer in layers for node in _counting(snn, layer))
    axis = onnx.numpy_helper.from_array(np.array([1]), _AXIS)
    model.graph.initializer.append(axis)
    extra = [*map(_counter, layers), *taps]
    model.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in extra)
    return model


_AXIS = "onnxsnn.runner.axis"


def _counting(snn: SpikingModel, layer: str) -> list[onnx.NodeProto]:
    """Nodes that count a layer's spikes: negative and small ones too, a burst as several."""
    make = onnx.helper.make_node
    last, nodes = snn.spikes[layer], []
    fires = snn.operator(layer)
    if fires.startswith(INTEGER):
        scale = snn.wire(layer)
        nodes.append(make("DequantizeLinear", [last, *scale], [f"{layer}.runner.spikes"]))
        last = nodes[-1].output[0]
    is_count = fires.removeprefix(INTEGER) == IntegrateAndFire.operator
    for operator in ("Flatten",) if is_count else ("Flatten", "Abs", "Ceil"):
        nodes.append(make(operator, [last], [f"{layer}.runner.{operator}"]))
        last = nodes[-1].output[0]
    return [*nodes, make("ReduceSum", [last, _AXIS], [_counter(layer)], keepdims=0)]
