"""From an SNN to its integer SNN, and what that costs, measured on samples without labels."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass, replace

import numpy as np
import onnx

from onnxsnn.analysis.evaluate import relative_error, squares
from onnxsnn.arrays import Array
from onnxsnn.calibration.synthetic import input_noise
from onnxsnn.data import Dataset
from onnxsnn.model import SpikingModel
from onnxsnn.passes.integer import integer, rounded_layers
from onnxsnn.passes.report import Report
from onnxsnn.passes.unit_thresholds import unit_thresholds
from onnxsnn.runtime.dataset import batch_size, batches
from onnxsnn.runtime.early_exit import classes
from onnxsnn.runtime.runner import Runner
from onnxsnn.session import SampleSession, side_by_side
from onnxsnn.source import Source

__all__ = ["Cost", "IntegerNetwork", "integer_network"]

_SAMPLES = 256
_NOISE = 64  # samples, where there are no data
_LOW, _HIGH = "least", "greatest"


@dataclass(frozen=True)
class Cost:
    """The integer SNN beside the SNN that it was made of, after the last step.

    Attributes:
        samples: that both were run on.
        agreement: share of them whose class is the same; None where outputs are no classes.
        error: ||integer - SNN||_2 / ||SNN||_2 over the outputs of all samples; None where none
            holds numbers that can be compared, or where nothing relates to them: `relative_error`.
        ann_agreement: share of the samples whose class is the ANN's, of the integer SNN; and
        snn_agreement: of the SNN.
        random: whether the samples are noise, for want of data.
    """

    samples: int
    agreement: float | None
    error: float | None
    ann_agreement: float | None
    snn_agreement: float | None
    random: bool


@dataclass(frozen=True)
class IntegerNetwork:
    """What comes of it; the cost is in the SNN's metadata, too, as `integer`."""

    snn: SpikingModel
    reports: list[Report]
    cost: Cost


def integer_network(
    snn: SpikingModel,
    ann: Source,
    data: Dataset | None,
    progress: Callable[[int, int], None] = lambda _done, _all: None,
) -> IntegerNetwork:
    """The integer SNN of an SNN.

    It takes two runs of T steps over at most 256 samples.

    Args:
        snn: the SNN, in float32.
        ann: what it was converted from.
        data: samples, without labels; None for noise.
        progress: called with the samples that were run, and how many there are to run.
    """
    samples = _noise(snn) if data is None else data.spread(_SAMPLES)
    total = 2 * len(samples)
    names = snn.comparable_outputs
    measured, made = _in_thresholds(snn)
    seen, expected = _observe(measured, names, samples, lambda done, _: progress(done, total))
    graph = measured.graph()
    report = integer(graph, snn.neurons, seen)
    rounded = SpikingModel.build(graph, measured.states, snn.metadata, measured.layers)
    found = _outputs(rounded, names, samples, lambda done, each: progress(each + done, total))
    analog = _ann_outputs(ann, names, samples, batch_size(snn, samples))
    cost = _cost(expected, found, analog, len(samples), data is None)
    metadata = {**snn.metadata, "integer": asdict(cost)}
    rounded = SpikingModel.build(graph, measured.states, metadata, measured.layers)
    return IntegerNetwork(rounded, [made, report], cost)


def _in_thresholds(snn: SpikingModel) -> tuple[SpikingModel, Report]:
    """The same SNN with thresholds of 1, where it can be had."""
    graph, defaults = snn.graph(), {state.input: state.default for state in snn.states}
    report = unit_thresholds(graph, snn.spikes, defaults)
    states = [replace(state, default=defaults[state.input]) for state in snn.states]
    layers = [
        replace(layer, grid=report.grids[layer.name].tolist())
        if layer.name in report.grids
        else layer
        for layer in snn.layers
    ]
    return SpikingModel.build(graph, states, snn.metadata, layers), report


def _noise(snn: SpikingModel) -> Dataset:
    """Noise for the inputs of an SNN: _NOISE samples, and what fills their last batch."""
    noise = input_noise(snn)
    first = [next(noise)]
    while len(next(iter(first[0].values()))) * len(first) < _NOISE:
        first.append(next(noise))
    return Dataset({name: np.concatenate([b[name] for b in first]) for name in first[0]})


def _observe(
    snn: SpikingModel, names: Sequence[str], data: Dataset, progress: Callable[[int, int], None]
) -> tuple[dict[str, tuple[Array, Array]], dict[str, Array]]:
    """The range of every channel's currents, by convolution, and the SNN's last outputs."""
    model, layers = _with_ranges(snn)
    taps = [f"{layer}.{bound}" for layer in layers for bound in (_LOW, _HIGH)]
    runner = Runner(replace(snn, model=model), taps=taps)
    ranges: dict[str, Array] = {}
    pieces: list[dict[str, Array]] = []
    for feeds, _ in batches(snn, data, progress):
        for outputs in runner.steps(feeds, snn.timesteps):
            for name in taps:
                values = outputs[name].max(axis=0).reshape(-1)
                ranges[name] = np.maximum(ranges.get(name, values), values)
        pieces.append({name: outputs[name] for name in names})
    seen = {name: (-ranges[f"{name}.{_LOW}"], ranges[f"{name}.{_HIGH}"]) for name in layers}
    return seen, side_by_side(pieces)


def _with_ranges(snn: SpikingModel) -> tuple[onnx.ModelProto, list[str]]:
    """The step graph with the greatest current of each channel, and its negated least one."""
    graph = snn.graph()
    graph.toposort()
    layers = [node for node in rounded_layers(graph, snn.neurons) if node.op == "Conv"]
    model = deepcopy(snn.model)
    make = onnx.helper.make_node
    for node in layers:
        current, negated = node.outputs[0].name, f"{node.name}.negated"
        model.graph.node.extend(
            [
                make("GlobalMaxPool", [current], [f"{node.name}.{_HIGH}"]),
                make("Neg", [current], [negated]),
                make("GlobalMaxPool", [negated], [f"{node.name}.{_LOW}"]),
            ]
        )
    return model, [node.name for node in layers]


def _outputs(
    snn: SpikingModel, names: Sequence[str], data: Dataset, progress: Callable[[int, int], None]
) -> dict[str, Array]:
    """An SNN's outputs of these names, after its last step."""
    runner, pieces = Runner(snn), []
    for feeds, _ in batches(snn, data, progress):
        outputs = runner.run(feeds).outputs
        pieces.append({name: outputs[name] for name in names})
    return side_by_side(pieces)


def _ann_outputs(ann: Source, names: Sequence[str], data: Dataset, batch: int) -> dict[str, Array]:
    session = SampleSession(ann.model)
    return side_by_side([session.run(feeds, names) for feeds, _ in data.batches(batch)])


def _cost(
    snn: Mapping[str, Array],
    rounded: Mapping[str, Array],
    ann: Mapping[str, Array],
    samples: int,
    random: bool,
) -> Cost:
    numbers = [name for name in snn if np.issubdtype(snn[name].dtype, np.floating)]
    distance = sum(squares(rounded[name] - snn[name]) for name in numbers)
    norm = sum(squares(snn[name]) for name in numbers)
    return Cost(
        samples=samples,
        agreement=_agreement(snn, rounded),
        error=relative_error(distance, norm) if numbers else None,
        ann_agreement=_agreement(ann, rounded),
        snn_agreement=_agreement(ann, snn),
        random=random,
    )


def _agreement(outputs: Mapping[str, Array], others: Mapping[str, Array]) -> float | None:
    """The share of samples with the same class in both, by the first output; None without any."""
    if not outputs:
        return None
    name = next(iter(outputs))
    left, right = classes(outputs[name]), classes(others[name])
    return None if left is None or right is None else float(np.mean(left == right))
