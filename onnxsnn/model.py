"""The SNN as an object: the step graph, its states and its metadata, loaded and saved.

The file is one ONNX model of one timestep. Its inputs and outputs are the source model's,
followed by one of each per state. A state input has a default initializer, so that the
first call feeds the source model's inputs alone; each later call feeds back the states.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from onnxsnn import functions
from onnxsnn.arrays import Array
from onnxsnn.errors import ModelError, UnsupportedError, UsageError, in_file
from onnxsnn.files import read_model, write_model
from onnxsnn.graph import Graph, from_model, sized_for, to_model, values_per_sample
from onnxsnn.inputs import InputSpec
from onnxsnn.metadata import PREFIX, damaged, fits, read_metadata, write_metadata
from onnxsnn.neurons import NEURONS, RECTIFYING_NEURONS, Neuron
from onnxsnn.passes.spike import State
from onnxsnn.passes.unrounded import unrounded
from onnxsnn.session import fixed_batch
from onnxsnn.value_sizes import comparable_outputs, nothing_to_compare

__all__ = [
    "FORMAT",
    "LOOP",
    "MOST_TIMESTEPS",
    "NO_SNN",
    "STEP",
    "Layer",
    "SpikingModel",
    "checked_timesteps",
    "compared_outputs",
    "input_specs",
    "is_spiking",
    "kind_of",
    "stateful",
    "step_graph",
]

FORMAT = 1
LOOP = "loop"  # metadata of an SNN over all its timesteps: the input that takes their number
STEP = "step"  # metadata of an SNN whose states are plain inputs: the one that counts the steps
MOST_TIMESTEPS = 2**24  # what float32, in which an SNN counts its steps, still counts one by one
NO_SNN = {  # by kind: why a file is not taken for an SNN
    "source": "is no SNN but an ANN; convert it first: onnxsnn convert",
    "intermediate": "is not spiking yet; give what onnxsnn convert wrote",
    "loop": "holds all timesteps at once, and runs in ONNX Runtime as it is; give the SNN "
    "that it was made from",
    "step": "has plain inputs for states, for runtimes that feed no others; give the SNN that it "
    "was made from",
}


@dataclass(frozen=True)
class Layer:
    """One spiking layer, as the metadata describe it.

    Attributes:
        name: the node's name.
        channels: number of thresholds.
        threshold: the mean threshold, in units of the activation; `lowest` and `highest`
            are the extremes over channels.
        p: threshold over the greatest activation seen, mean over channels; None if unseen.
        omega: `||r||_1 / ||r||_2^2` of the layer's rates over the calibration data (Ding et
            al. 2021, theorem 2); the fit curve stays below `2 * omega / t`. None if unseen.
        origin: where the threshold comes from: a method's name, or `trained`.
        neuron: the neuron model, a name in NEURONS.
        bits: bits per spike of that neuron.
        scale: what a spike is worth to those that read it, per channel, in units of the
            activation: the threshold, unless the layer was corrected.
        bias: the current that a correction added to every step, per channel; None for none.
        grid: what 1 is worth in its currents, thresholds and potentials in the step graph, per
            channel, in units of the activation; None where they are in those units.
    """

    name: str
    channels: int
    threshold: float
    lowest: float
    highest: float
    p: float | None
    omega: float | None
    origin: str
    neuron: str
    bits: float
    scale: list[float] | None = None
    bias: list[float] | None = None
    grid: list[float] | None = None

    def summary(self) -> dict[str, Any]:
        """All that is not per channel."""
        return {k: v for k, v in asdict(self).items() if k not in ("scale", "bias", "grid")}


_ENTRIES = {  # of the metadata that are relied on, and their types
    "timesteps": int,
    "threshold": str,
    "correction": str,
    "delay": int,
    "bits_per_spike": float,
    "neuron": dict,
    "states": list,
    "layers": list[Layer],
}


@dataclass
class SpikingModel:
    """An SNN.

    Attributes:
        model: the step graph, complete with functions, default initializers and metadata.
        states: what is carried from step to step.
        metadata: `timesteps`, `threshold`, `statistics`, `neuron`, `source_sha256`, ....
        layers: the spiking layers.
    """

    model: onnx.ModelProto
    states: list[State]
    metadata: dict[str, Any]
    layers: list[Layer]

    @classmethod
    def build(
        cls,
        graph: Graph,
        states: Sequence[State],
        metadata: Mapping[str, Any],
        layers: Sequence[Layer],
    ) -> SpikingModel:
        """Put the step graph together: defaults for the states, and the metadata."""
        model = stateful(graph, states)
        pairs = [{"input": s.input, "output": s.output, "role": s.role} for s in states]
        write_metadata(
            model,
            {
                "format": FORMAT,
                **metadata,
                "states": pairs,
                "layers": [asdict(layer) for layer in layers],
            },
        )
        try:
            onnx.checker.check_model(model)
        except Exception as error:
            raise ModelError(f"the SNN is not valid ONNX: {error}") from error
        return cls(model, list(states), dict(metadata), list(layers))

    @classmethod
    def load(cls, path: str | Path) -> SpikingModel:
        """Read an SNN that `save` wrote.

        Raises:
            ModelError: the file cannot be read, holds no SNN of this format, or is damaged.
        """
        model = read_model(path)
        with in_file(path):
            return cls.of(model)

    @classmethod
    def of(cls, model: onnx.ModelProto) -> SpikingModel:
        """The SNN that a model holds.

        Raises:
            ModelError: it holds no SNN of this format, or its metadata are damaged.
        """
        if not is_spiking(model):
            raise ModelError(NO_SNN[kind_of(model)])
        metadata = read_metadata(model)
        version = metadata.pop("format")
        if version != FORMAT:
            raise ModelError(
                f"is an SNN of format {version}, and this onnxsnn reads {FORMAT}; "
                "convert the model again"
            )
        for entry, kind in _ENTRIES.items():
            if not fits(metadata.get(entry), kind):
                raise damaged(entry)
        defaults = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
        try:
            states = [
                State(**pair, default=defaults[pair["input"]]) for pair in metadata.pop("states")
            ]
        except (KeyError, TypeError) as error:
            raise damaged("states") from error
        layers = [Layer(**layer) for layer in metadata.pop("layers")]
        snn = cls(model, states, metadata, layers)
        snn._check()
        return snn

    def _check(self) -> None:
        """Refuse metadata that do not fit the graph, or each other."""
        settings = dict(self.metadata["neuron"])
        neuron = RECTIFYING_NEURONS.get(str(settings.pop("model", None)))
        sound = {
            "timesteps": 1 <= self.timesteps <= MOST_TIMESTEPS,
            "delay": 0 <= self.delay < self.timesteps,
            "neuron": fits(settings, neuron),
            "states": self._has_all_states(),
            "layers": self._has_all_layers(),
        }
        for entry, is_sound in sound.items():
            if not is_sound:
                raise damaged(entry)

    def _has_all_states(self) -> bool:
        """Whether every state of the graph is known, and no other."""
        graph = self.model.graph
        defaults = {tensor.name for tensor in graph.initializer}
        inputs = [tensor.name for tensor in graph.input if tensor.name in defaults]
        outputs = {tensor.name for tensor in graph.output}
        found = {state.output for state in self.states} & outputs
        return sorted(s.input for s in self.states) == sorted(inputs) and len(found) == len(inputs)

    def _has_all_layers(self) -> bool:
        """Whether every layer of neurons is known, and as many channels as it has."""
        layers = {layer.name: layer for layer in self.layers}
        return all(
            name in layers
            and all(
                values is None or len(values) == theta.size
                for values in (layers[name].scale, layers[name].bias)
            )
            for name, theta in self.thresholds.items()
        )

    def save(self, path: str | Path) -> None:
        """Write the SNN, whole or not at all.

        Raises:
            OutputError: the file cannot be written.
        """
        write_model(self.model, path)

    @property
    def timesteps(self) -> int:
        """The number of timesteps that the thresholds were chosen for."""
        return int(self.metadata["timesteps"])

    @property
    def delay(self) -> int:
        """The steps that the outputs leave out once they are over."""
        return int(self.metadata.get("delay", 0))

    def steps(self, timesteps: int | None) -> int:
        """The number of timesteps to run: as given, or for None that of `timesteps`.

        Raises:
            UsageError: it is below 1, not whole, or over MOST_TIMESTEPS.
        """
        return checked_timesteps(self.timesteps if timesteps is None else timesteps)

    @property
    def inputs(self) -> list[InputSpec]:
        """The source model's inputs."""
        return input_specs(self.model)  # a state has an initializer, and is none

    @property
    def outputs(self) -> list[str]:
        """Names of the source model's outputs."""
        return list(self.output_shapes)

    @property
    def batch(self) -> int | None:
        """How many samples it takes at once, where that is fixed."""
        return fixed_batch([spec.shape for spec in self.inputs])

    @property
    def output_shapes(self) -> dict[str, tuple[int | None, ...]]:
        """Shapes of the source model's outputs, by name; None for a symbolic size."""
        states = {state.output for state in self.states}
        return {t.name: _spec(t).shape for t in self.model.graph.output if t.name not in states}

    @property
    def sample_axes(self) -> dict[str, int]:
        """Where the samples lie in outputs, by name: where they are said to, else in front."""
        sizes = {t.name: _sizes(t) for t in (*self.model.graph.input, *self.model.graph.output)}
        batch = {size for spec in self.inputs for size in sizes[spec.name][:1] if size}
        return {name: _axis_of(batch, sizes[name], self.batch) for name in self.outputs}

    @cached_property
    def comparable_outputs(self) -> list[str]:
        """Names of the outputs that are compared with the ANN's; see value_sizes."""
        graph, names = self.graph(), set(self.outputs)
        graph.outputs = [tensor for tensor in graph.outputs if tensor.name in names]  # no states
        return comparable_outputs(graph)

    def state_size(self, samples: Mapping[str, Array]) -> int:
        """Values that all states hold for one of these samples, [N, ...] by input."""
        states = {state.output for state in self.states}
        graph = sized_for(self.graph(), samples)
        return sum(values_per_sample(tensor) for tensor in graph.outputs if tensor.name in states)

    @property
    def spikes(self) -> dict[str, str]:
        """By layer, the name of the tensor that holds its spikes."""
        return {node.name: node.output[0] for node in _neurons(self.model)}

    @property
    def thresholds(self) -> dict[str, Array]:
        """By layer, its thresholds, broadcastable to its spikes."""
        constants = {t.name: t for t in self.model.graph.initializer}
        return {
            node.name: onnx.numpy_helper.to_array(constants[node.input[1]])
            for node in _neurons(self.model)
        }

    def operator(self, layer: str) -> str:
        """The operator of a layer's neurons, of the onnxsnn domain."""
        return str(self._node(layer).op_type)

    def wire(self, layer: str) -> list[str]:
        """Names of the unit and the zero point of a layer's spikes, where those are bytes."""
        return list(self._node(layer).input[-2:])

    @property
    def scales(self) -> dict[str, Array]:
        """By layer, what a spike is worth, in units of the activation, shaped as its threshold."""
        return self._by_channel("scale", self.thresholds)

    @property
    def biases(self) -> dict[str, Array]:
        """By layer, the current that a correction added, shaped as its threshold."""
        nothing = {name: np.zeros_like(theta) for name, theta in self.thresholds.items()}
        return self._by_channel("bias", nothing)

    def _by_channel(self, attribute: str, defaults: Mapping[str, Array]) -> dict[str, Array]:
        """What the metadata say of each layer's channels, else the default."""
        known = {layer.name: getattr(layer, attribute) for layer in self.layers}
        return {
            name: default
            if known[name] is None
            else np.asarray(known[name], default.dtype).reshape(default.shape)
            for name, default in defaults.items()
        }

    @property
    def neurons(self) -> dict[str, Neuron]:
        """By layer, its neuron model, initial potentials as the metadata state them."""
        settings = dict(self.metadata["neuron"])
        neuron = RECTIFYING_NEURONS[settings.pop("model")](**settings)
        kinds = {layer.name: layer.neuron for layer in self.layers}
        return {
            name: neuron if kinds[name] == neuron.name else neuron.signed for name in self.spikes
        }

    def current(self, layer: str) -> str:
        """The name of the tensor that a layer reads."""
        return str(self._node(layer).input[0])

    def potential(self, layer: str) -> State:
        """The state that holds a layer's membrane potential."""
        potential = self._node(layer).input[2]
        return next(state for state in self.states if state.input == potential)

    def _node(self, layer: str) -> onnx.NodeProto:
        """The neurons of a layer."""
        (node,) = (node for node in _neurons(self.model) if node.name == layer)
        return node

    @property
    def is_integer(self) -> bool:
        """Whether weights and spikes are bytes."""
        return "integer" in self.metadata

    def unrounded(self) -> SpikingModel:
        """The same SNN in float32: an integer SNN's weights as they were rounded, and currents
        that are not rounded; in units of the activation. Any other SNN is its own.
        """
        if not self.is_integer:
            return self
        graph = self.graph()
        defaults = {state.input: state.default for state in self.states}
        grids = {layer.name: np.asarray(layer.grid) for layer in self.layers if layer.grid}
        unrounded(graph, grids, defaults)
        states = [replace(state, default=defaults[state.input]) for state in self.states]
        layers = [replace(layer, grid=None) for layer in self.layers]
        metadata = {key: value for key, value in self.metadata.items() if key != "integer"}
        return SpikingModel.build(graph, states, metadata, layers)

    def graph(self) -> Graph:
        """The step graph for the passes: the states are plain inputs there."""
        return step_graph(self.model, self.states)


def compared_outputs(snn: SpikingModel) -> list[str]:
    """Names of the outputs that an SNN is judged by, at least one.

    Raises:
        DataError: no output can be compared.
    """
    names = snn.comparable_outputs
    if not names:
        raise nothing_to_compare(snn.outputs)
    return names


def checked_timesteps(timesteps: float) -> int:
    """A number of timesteps that can be run.

    Raises:
        UsageError: it is below 1, not whole, or over MOST_TIMESTEPS.
    """
    is_whole = isinstance(timesteps, Real) and timesteps == timesteps // 1
    if not is_whole or not 1 <= timesteps <= MOST_TIMESTEPS:
        raise UsageError(
            f"timesteps must be a whole number, 1 or more, {MOST_TIMESTEPS} at most, "
            f"and is {timesteps}"
        )
    return int(timesteps)


def step_graph(model: onnx.ModelProto, states: Sequence[State]) -> Graph:
    """The graph of an SNN's model, in which the states are plain inputs."""
    return from_model(model, {state.input for state in states})


def input_specs(model: onnx.ModelProto) -> list[InputSpec]:
    """The inputs of a model that have no initializer."""
    known = {tensor.name for tensor in model.graph.initializer}
    knows_nan = any(node.op_type == "IsNaN" for node in model.graph.node)
    return [_spec(tensor, knows_nan) for tensor in model.graph.input if tensor.name not in known]


def _spec(tensor: onnx.ValueInfoProto, knows_nan: bool = False) -> InputSpec:
    if tensor.type.WhichOneof("value") != "tensor_type":
        raise UnsupportedError(
            f"input {tensor.name!r} is a sequence, or may be left out; export the model with a "
            "tensor in its place"
        )
    kind = tensor.type.tensor_type
    shape = tuple(d.dim_value if d.HasField("dim_value") else None for d in kind.shape.dim)
    dtype = onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type)
    return InputSpec(tensor.name, shape, dtype, knows_nan)


def _sizes(tensor: onnx.ValueInfoProto) -> list[int | str]:
    """The size of each axis: a number, or a name."""
    return [d.dim_value or d.dim_param for d in tensor.type.tensor_type.shape.dim]


def _axis_of(batch: Collection[int | str], sizes: list[int | str], fixed: int | None) -> int:
    """The axis of the samples in an output, whose first may have several rows of each."""
    first, *_ = sizes or [0]
    if fixed and isinstance(first, int) and first % fixed == 0:
        return 0
    axes = [axis for axis, size in enumerate(sizes) if size in batch]
    return axes[0] if len(axes) == 1 else 0


def is_spiking(model: onnx.ModelProto) -> bool:
    """Whether a model is an SNN of ours."""
    return kind_of(model) == "snn"


def kind_of(model: onnx.ModelProto) -> str:
    """What a model is.

    `snn`, `loop` (an SNN over all its timesteps), `step` (one whose states are plain inputs),
    `intermediate` or `source`.
    """
    keys = {entry.key for entry in model.metadata_props}
    for key, kind in (("format", "snn"), (LOOP, "loop"), (STEP, "step")):
        if f"{PREFIX}{key}" in keys:
            return kind
    ours = any(node.domain == functions.DOMAIN for node in model.graph.node)
    return "intermediate" if ours else "source"


def _neurons(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    operators = {neuron.operator for neuron in NEURONS.values()}
    operators |= {functions.INTEGER + operator for operator in operators}
    return [
        node
        for node in model.graph.node
        if node.domain == functions.DOMAIN and node.op_type in operators
    ]


def stateful(graph: Graph, states: Sequence[State]) -> onnx.ModelProto:
    """The model of a step graph, with the states' defaults; it is not checked."""
    model = to_model(graph)
    model.graph.initializer.extend(
        onnx.numpy_helper.from_array(np.asarray(state.default, np.float32), state.input)
        for state in states
    )
    return model
