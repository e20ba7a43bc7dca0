"""The Runner: an SNN over timesteps, with its state."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from onnxsnn.arrays import Array
from onnxsnn.errors import DataError, UsageError
from onnxsnn.inputs import InputSpec
from onnxsnn.model import SpikingModel
from onnxsnn.runtime.backend import Backend
from onnxsnn.runtime.numpy_backend import NumpyBackend
from onnxsnn.runtime.onnxruntime_backend import OnnxRuntimeBackend
from onnxsnn.session import fixed_batch, join, split

__all__ = ["BACKENDS", "Result", "Runner"]

BACKENDS: dict[str, Callable[..., Backend]] = {
    "onnxruntime": OnnxRuntimeBackend,
    "numpy": NumpyBackend,
}


@dataclass
class Result:
    """What a run gives.

    Attributes:
        outputs: after the last step, by name.
        every_step: after each step, where that was asked for.
        spikes: by layer, spikes fired per sample over the run, [N]; where `rates` was asked.
        rates: by layer, mean firing rate over the run, in spikes per neuron and step.
    """

    outputs: dict[str, Array]
    every_step: list[dict[str, Array]] = field(default_factory=list)
    spikes: dict[str, Array] = field(default_factory=dict)
    rates: dict[str, float] = field(default_factory=dict)


class Runner:
    """Runs an SNN step by step; any batch size.

    Args:
        model: an SNN, or its file.
        backend: a name in BACKENDS.
        threads: for ONNX Runtime; None lets it choose.
        rates: count spikes per layer and sample while running.
        taps: names of further tensors that every step gives among its outputs.

    Raises:
        ModelError: the file holds no SNN, or the backend does not take it.
        UsageError: there is no such backend or tensor.

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
        rates: bool = False,
        taps: Sequence[str] = (),
    ) -> None:
        self.model = model if isinstance(model, SpikingModel) else SpikingModel.load(model)
        if backend not in BACKENDS:
            raise UsageError(f"backend {backend!r} is none of {', '.join(BACKENDS)}")
        self._specs = self.model.inputs
        self._layers = list(self.model.spikes) if rates else []
        counters = [name for layer in self._layers for name in _counters(layer)]
        self._backend = BACKENDS[backend](
            _instrument(self.model, self._layers, taps),
            self.model.states,
            [*self.model.outputs, *taps, *counters],
            threads,
        )
        self._batch = fixed_batch([spec.shape for spec in self._specs])
        self.reset()

    def reset(self) -> None:
        """Forget all states: the next step is the first."""
        self._state: list[Any] = []
        self._samples = 0
        self.steps_done = 0
        self.spikes: dict[str, Array] = {}
        self.neurons: dict[str, int] = {}

    def step(self, inputs: Array | Mapping[str, Array]) -> dict[str, Array]:
        """One timestep; the outputs are the running estimate after it.

        Raises:
            DataError: the inputs do not fit the model, or the batch is another than before.
        """
        return self._step(self._prepare(inputs))

    def steps(
        self, inputs: Array | Mapping[str, Array], timesteps: int
    ) -> Iterator[dict[str, Array]]:
        """Reset, then the outputs after each of `timesteps` steps of the same inputs."""
        if timesteps < 1:
            raise UsageError(f"timesteps must be 1 or more, and is {timesteps}")
        self.reset()
        prepared = self._prepare(inputs)
        for _ in range(timesteps):
            yield self._step(prepared)

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
        """
        count = self.model.timesteps if timesteps is None else timesteps
        history: list[dict[str, Array]] = []
        outputs: dict[str, Array] = {}
        for outputs in self.steps(inputs, count):
            if every_step:
                history.append(outputs)
        return Result(outputs, history, dict(self.spikes), self.rates())

    def rates(self) -> dict[str, float]:
        """Mean firing rate per layer since the last reset, in spikes per neuron and step."""
        return {
            layer: float(count.mean()) / (self.neurons[layer] * self.steps_done)
            for layer, count in self.spikes.items()
        }

    def _prepare(self, inputs: Array | Mapping[str, Array]) -> list[Any]:
        """The inputs in the backend's form, in batches of the model's size."""
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
        return [self._backend.prepare(piece) for piece in split(feeds, self._batch)]

    def _step(self, prepared: list[Any]) -> dict[str, Array]:
        states = self._state or [self._backend.initial_state() for _ in prepared]
        results = [self._backend.step(*pair) for pair in zip(prepared, states, strict=True)]
        self._state = [state for _, state in results]
        self.steps_done += 1
        for layer in self._layers:
            self._count(layer, [outputs for outputs, _ in results])
        return join([outputs for outputs, _ in results], self._samples)

    def _count(self, layer: str, results: list[dict[str, Array]]) -> None:
        """Take a layer's counters out of the outputs of a step, and add them up."""
        count, shape = _counters(layer)
        counts = np.concatenate([values.pop(count) for values in results])[: self._samples]
        first, *_ = [values.pop(shape) for values in results]
        self.neurons[layer] = int(first[1])
        self.spikes[layer] = self.spikes.get(layer, 0.0) + counts.astype(np.float64)

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
    values = np.ascontiguousarray(values)
    wanted = spec.shape
    same_rank = values.ndim == len(wanted)
    if not same_rank or any(
        w not in (None, v) for w, v in zip(wanted[1:], values.shape[1:], strict=False)
    ):
        raise DataError(
            f"input {spec.name!r} takes shape {wanted}, and an array of {values.shape} came"
        )
    if not np.can_cast(values.dtype, spec.dtype, "same_kind"):
        raise DataError(f"input {spec.name!r} takes {spec.dtype}, and {values.dtype} came")
    return values.astype(spec.dtype, copy=False)


def _counters(layer: str) -> tuple[str, str]:
    """Names of the tensors that hold a layer's spikes per sample, and [samples, neurons]."""
    return f"{layer}.runner.count", f"{layer}.runner.size"


def _instrument(snn: SpikingModel, layers: Sequence[str], taps: Sequence[str]) -> onnx.ModelProto:
    """The step graph with tapped tensors, and spikes per layer and sample, as outputs."""
    model = onnx.ModelProto()
    model.CopyFrom(snn.model)
    known = {name for node in model.graph.node for name in node.output}
    unknown = [name for name in taps if name not in known]
    if unknown:
        raise UsageError(f"the SNN has no tensor {unknown[0]!r} to tap")
    for layer in layers:
        model.graph.node.extend(_counting(layer, snn.spikes[layer]))
    axis = onnx.numpy_helper.from_array(np.array([1]), _AXIS)
    model.graph.initializer.append(axis)
    extra = [name for layer in layers for name in _counters(layer)]
    extra += [name for name in taps if name not in snn.outputs]
    model.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in extra)
    return model


_AXIS = "onnxsnn.runner.axis"


def _counting(layer: str, spikes: str) -> list[onnx.NodeProto]:
    """Nodes that count a layer's spikes: negative and small ones too, a burst as several."""
    count, shape = _counters(layer)
    flat, sizes, whole = (f"{layer}.runner.{part}" for part in ("flat", "sizes", "whole"))
    return [
        onnx.helper.make_node("Flatten", [spikes], [flat]),
        onnx.helper.make_node("Shape", [flat], [shape]),
        onnx.helper.make_node("Abs", [flat], [sizes]),
        onnx.helper.make_node("Ceil", [sizes], [whole]),
        onnx.helper.make_node("ReduceSum", [whole, _AXIS], [count], keepdims=0),
    ]
