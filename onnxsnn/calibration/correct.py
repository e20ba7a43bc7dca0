"""Correction of a converted network, front to back, on what the SNN really emits.

Thresholds answer rounding and clipping; they do not answer that spikes arrive unevenly, nor
that the layers before have errors of their own. Layer by layer, this runs the SNN that there
is so far beside the ANN, fits the layer's weights to the spikes that arrive and its neurons to
the currents: sequential calibration (compare Li et al., ICML 2021, section 4). What comes of
it stays plain: weights, thresholds, initial potentials, and factors and biases that enter the
weights.

Initial potentials alternate between neighbours that are alike, where what the next neurons emit
comes nearer to the ANN's by that.

A quick correction does the same on few samples, with few values of each channel, and lets
potentials alternate in few timesteps alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import onnx_graphsurgeon as gs

from onnxsnn.arrays import Array, Floats
from onnxsnn.calibration.clipping import Clipping
from onnxsnn.calibration.cut import Bench, mean_currents
from onnxsnn.calibration.dither import alternates, alternations, are_alike, are_mixed, behind
from onnxsnn.calibration.fitting import Fit, fit_neurons
from onnxsnn.calibration.observe import Statistics, by_channel
from onnxsnn.calibration.patches import fan_in
from onnxsnn.calibration.reconstruct import fitted_tensor, reconstruct_weights
from onnxsnn.calibration.statistics import ChannelStatistics
from onnxsnn.data import Dataset
from onnxsnn.graph import (
    Graph,
    Node,
    Tensor,
    data_input,
    insert,
    per_channel,
    same_rank,
    sized_for,
    sole_producer,
    unique_name,
    values_per_sample,
)
from onnxsnn.neurons import Neuron
from onnxsnn.operators import constant_operand, varying_tensors
from onnxsnn.passes.report import Report
from onnxsnn.ratenorm import RECTIFYING, SIGNED, is_rate_norm, limits_of, rate_norms, set_threshold
from onnxsnn.value_sizes import sized_by_values
from onnxsnn.weights import weight_layer

__all__ = ["CorrectionReport", "correct_network"]


@dataclass(frozen=True)
class _Effort:
    """What a correction takes.

    Attributes:
        reaches: of the rounds of the search for what neurons are given.
        samples: values per channel that the neurons of a layer are fitted to,
        values: and of all channels and steps together, at most.
        observations: positions that weights are fitted to, at most,
        equations: and where more inputs than these meet there.
        thresholds: whether thresholds may change.
        anytime: whether what is emitted in the first steps counts too.
        alternate: the most timesteps for which it is tried whether potentials alternate.
    """

    reaches: Sequence[float]
    samples: int
    values: int
    observations: int
    equations: int
    thresholds: bool = True
    anytime: bool = False
    alternate: float = np.inf


_WHOLE = _Effort((1.0, 0.4, 0.1), 2**13, 2**23, observations=2**15, equations=2**13)
_QUICK = _Effort((0.5,), 2**9, 2**21, observations=2**12, equations=2**9, alternate=8)
_STEPS = 2**9  # of all samples together, that a quick correction runs
_QUICK_SAMPLES = 32, 64  # at least, and at most,
_PRODUCTS = 2**37  # but more in a network that has no more products in all steps of them,
_CHEAP_SAMPLES = 256  # as many as these;
_WIDE_SAMPLES = 16  # and where maps are wide, as few as these:
_WIDE_VALUES = 2**24  # those samples of which a layer has so many values
_FEWEST = 16  # values per channel: from fewer, nothing is learnt
_SPARE = 0.5  # of what is free, for currents: the spikes that they bring need room too
_COARSE = 2  # bits per spike, below which neighbours round alike often enough to alternate
_SEEN = 2**22  # values of a layer, by which neighbours are compared
_JUDGED = 4, 64  # samples at least, and at most, by which potentials alternate or not: as many as
_VALUES = 2**22  # have so many values together
_GAIN = 0.99  # of that error; less of a gain may be chance


@dataclass
class CorrectionReport(Report):
    """The report; `potentials` holds initial potentials as fractions of the threshold.

    They are by node name, and broadcast against the output; `biases` are the currents that were
    added, [C] in units of the activation, by node name too.
    """

    potentials: dict[str, Array | float] = field(default_factory=dict)
    biases: dict[str, Array] = field(default_factory=dict)


def correct_network(
    graph: Graph,
    reference: Graph,
    data: Dataset,
    statistics: Statistics,
    neuron: Neuron,
    timesteps: int,
    potentials: Mapping[str, Array | float],
    *,
    quick: bool,
    thresholds: bool,
    anytime: bool,
    progress: Callable[[int, int], None],
) -> tuple[Graph, CorrectionReport]:
    """Fit the weights of every layer to its spikes, and its neurons to their currents, in order.

    It costs about three runs of T steps over the data, as layers that are fitted are recorded. A
    quick correction takes few samples.

    Args:
        graph: Rate Norm Layers with their thresholds; it stays as it is.
        reference: the same graph, whose thresholds are not set: the ANN.
        data: unlabelled samples.
        statistics: of them all, by node name, from `calibrate`.
        neuron: the neuron that will run; its signed counterpart where values can be negative.
        timesteps: the number of steps that will be run.
        potentials: initial potentials other than the neuron's, by layer, as fractions of
            the threshold.
        quick: whether a few samples and a coarse search will do.
        thresholds: whether thresholds may change too.
        anytime: whether the outputs should be near the ANN's after fewer steps too.
        progress: called with the layers done and the layers in all.

    Returns:
        the graph with its fits, and what was done.

    Raises:
        DataError: the data do not fit the model.
    """
    effort = replace(_QUICK if quick else _WHOLE, thresholds=thresholds, anytime=anytime)
    enough: dict[str, int] = {}
    if quick:
        sized = sized_for(graph, data.inputs)
        enough = _enough(sized)
        data = data.spread(_few(sized, timesteps, enough))
    bench = Bench(graph.copy(), reference, data, neuron, timesteps, dict(potentials))
    return bench.graph, _correct(bench, statistics, effort, enough, progress)


def _correct(
    bench: Bench,
    statistics: Statistics,
    effort: _Effort,
    enough: Mapping[str, int],
    progress: Callable[[int, int], None],
) -> CorrectionReport:
    """Correct the graph of a bench, front to back; with as many samples as are enough, by name."""
    report = CorrectionReport("correct", preserves_values=False)
    graph, samples = bench.graph, bench.samples
    stages = _stages(graph)
    originals = {node.name: node for node in rate_norms(bench.reference)}
    for done, node in enumerate(stages, start=1):
        layer, few = weight_layer(graph, node), enough.get(node.name, bench.samples)
        if layer is None:
            bench.record(node.inputs[0], stages[done - 1 :], spare=_SPARE)
            seen = statistics[node.name]
            fit = _fitted(bench.some(few), node, originals[node.name], seen, effort)
            if fit is not None:
                report.biases[node.name] = fit.bias
                bench.potentials[node.name] = _apply(bench, node, fit)
                report.actions["layers fitted to their currents"] += 1
                tried = bench.timesteps <= effort.alternate
                if tried and _alternate(bench, node, originals[node.name], stages[done:]):
                    report.actions["layers whose potentials alternate"] += 1
            result = node.outputs[0]
        else:
            waiting = {id(later) for later in stages[done:] if not is_rate_norm(later)}
            result = fitted_tensor(graph, node, waiting)
            room = effort.observations, effort.equations
            if reconstruct_weights(bench.some(few), layer, result, *room):
                report.actions["layers of weights fitted to their spikes"] += 1
        bench.record(result, stages[done:], spare=None if layer is None else _SPARE)
        bench.record_settled(stages[done:])
        progress(done, len(stages))
    if bench.samples < samples:
        report.actions["samples left out, for want of room"] = samples - bench.samples
    report.potentials = bench.potentials
    return report


def _few(graph: Graph, timesteps: int, enough: Mapping[str, int]) -> int:
    """Samples for a quick correction: no more than are enough for each layer of neurons.

    Where all steps of more take little time, more are taken.
    """
    least, most = _QUICK_SAMPLES
    cheap = _PRODUCTS // max(_products(graph) * timesteps, 1)
    usual = max(min(max(_STEPS // timesteps, least), most), min(cheap, _CHEAP_SAMPLES))
    return min(usual, max(enough[layer.name] for layer in rate_norms(graph)))


def _enough(graph: Graph) -> dict[str, int]:
    """Samples in which what is fitted finds the values that it takes, by name.

    A sample of a wide map shows much, and takes long: as many as the widest has room for will do.
    """
    widest = max(values_per_sample(layer.outputs[0]) for layer in rate_norms(graph))
    least = max(_WIDE_VALUES // max(widest, 1), _WIDE_SAMPLES)
    return {
        node.name: max(-(-_QUICK.samples // max(_positions(graph, node), 1)), least)
        for node in _stages(graph)
    }


def _positions(graph: Graph, node: Node) -> int:
    """Values of each channel that a stage gives of a sample."""
    layer = weight_layer(graph, node)
    channels = node.inputs[1].values.size if layer is None else layer.outputs
    return values_per_sample(node.outputs[0]) // channels


def _products(graph: Graph) -> int:
    """Multiply-accumulates of the layers of weights, of one sample in one step."""
    layers = filter(None, (weight_layer(graph, node) for node in graph.nodes))
    return sum(values_per_sample(layer.node.outputs[0]) * fan_in(layer) for layer in layers)


def _stages(graph: Graph) -> list[Node]:
    """What is fitted, in order: neurons, and the layers of weights behind any.

    Layers that read as much as the values decide are none of them.
    """
    graph.toposort()
    varying, open_ = varying_tensors(graph), sized_by_values(graph)
    return [
        node
        for node in graph.nodes
        if is_rate_norm(node)
        or (
            weight_layer(graph, node) is not None
            and id(node.inputs[0]) in varying
            and node.inputs[0].name not in open_
        )
    ]


def _fitted(
    bench: Bench, node: Node, original: Node, statistics: ChannelStatistics, effort: _Effort
) -> Fit | None:
    """The fit of a layer's neurons; None where there is too little to learn from."""
    neuron = bench.neuron.signed if node.op == SIGNED else bench.neuron
    start = _start(node, bench.potentials.get(node.name, neuron.initial_potential))
    currents, target = _observe(bench, node, original, effort)
    if target.shape[1] < _FEWEST:
        return None
    return fit_neurons(
        currents,
        target,
        Clipping.of(statistics, limits_of(original)[1]),
        start,
        neuron,
        effort.reaches,
        thresholds=effort.thresholds,
        anytime=effort.anytime,
    )


def _observe(bench: Bench, node: Node, original: Node, effort: _Effort) -> tuple[Floats, Floats]:
    """Samples of a layer's currents [T, C, any] and of the ANN's activation there [C, any]."""
    limits = limits_of(original)
    channels = node.inputs[1].values.size
    wanted = min(effort.samples, max(effort.values // (channels * bench.timesteps), 256))
    random = np.random.default_rng(0)
    pieces = []
    observed = bench.observe([node.inputs[0].name])
    for rows, (steps, (analog,)) in zip(bench.batches, observed, strict=True):
        target = by_channel(node, np.clip(analog, *limits))
        share = -(-wanted * len(rows) // bench.samples)
        chosen = random.permutation(target.shape[1])[:share]
        currents = [by_channel(node, current).take(chosen, axis=1) for (current,) in steps]
        pieces.append((np.stack(currents), target.take(chosen, axis=1)))
    return np.concatenate([p[0] for p in pieces], 2), np.concatenate([p[1] for p in pieces], 1)


def _start(node: Node, potential: Array | float) -> Fit:
    """The fit that a layer has: its threshold is its scale."""
    threshold = node.inputs[1].values.reshape(-1)
    start = np.broadcast_to(np.asarray(potential, np.float32).reshape(-1), threshold.shape)
    return Fit(threshold, start * threshold, np.zeros_like(threshold), threshold)


def _apply(bench: Bench, node: Node, fit: Fit) -> Array:
    """Give a layer its fit; the initial potentials, as fractions, are given back."""
    shape = node.inputs[1].values.shape
    set_threshold(bench.graph, node, fit.threshold.reshape(shape), fit.scale.reshape(shape))
    if np.any(fit.bias):
        _add_bias(bench, node, fit.bias.reshape(shape).astype(np.float32))
    fractions: Array = (fit.potential / fit.threshold).reshape(shape).astype(np.float32)
    return fractions


def _alternate(bench: Bench, node: Node, original: Node, later: Sequence[Node]) -> bool:
    """Let the potentials of a layer alternate, by as much as brings the next neurons nearest."""
    spikes = node.outputs[0]
    if bench.neuron.bits_per_spike >= _COARSE or node.op != RECTIFYING:
        return False
    wanted = alternates(spikes.shape) and are_mixed(spikes)
    names = behind(bench.graph, spikes, later) if wanted else []
    if not names or not are_alike(_activations(bench, original)):
        return False
    judged = int(np.clip(_VALUES // values_per_sample(spikes), *_JUDGED))
    start, least = bench.potentials[node.name], _GAIN * _error(bench, names, judged)
    best = start
    for potentials in (start + alternation for alternation in alternations(spikes.shape)):
        bench.potentials[node.name] = potentials
        error = _error(bench, names, judged)
        if not error < least:  # it may be NaN, too
            break
        best, least = potentials, error
    bench.potentials[node.name] = best
    return best is not start


def _error(bench: Bench, names: Sequence[str], samples: int) -> float:
    """The squared error of the means of some tensors over time, each relative to its power.

    It is that of so many samples, about, or of all there are.
    What errs alike all over a channel does not count: biases behind are still to be fitted.
    """
    errors, powers = np.zeros((2, len(names)))
    seen = 0
    for rows, (steps, analog) in zip(bench.batches, bench.observe(names), strict=True):
        for i, (mean, wanted) in enumerate(zip(mean_currents(steps), analog, strict=True)):
            others = tuple(axis for axis in range(wanted.ndim) if axis != 1)
            errors[i] += (mean - wanted).var(others).sum()
            powers[i] += np.square(wanted).mean(others).sum()
        seen += len(rows)
        if seen >= samples:
            break
    return float((errors / np.maximum(powers, np.finfo(np.float32).tiny)).sum())


def _activations(bench: Bench, node: Node) -> Array:
    """The ANN's in a layer, of as many samples as say how alike neighbours are."""
    _, (analog,) = next(bench.observe([], [node.inputs[0].name]))
    return np.maximum(analog[: -(-_SEEN * len(analog) // analog.size)], 0)


def _add_bias(bench: Bench, node: Node, bias: Array) -> None:
    """Add a current to what a layer reads: in the constants that make it, or by an Add."""
    graph, source = bench.graph, node.inputs[0]
    if _takes_bias(bench, source, bias):
        return
    shift = gs.Constant(unique_name(graph, f"{node.name}.bias"), bias)
    current = gs.Variable(unique_name(graph, f"{source.name}.biased"), source.dtype, source.shape)
    node.inputs[0] = current
    insert(graph, "Add", [source, shift], current)


def _takes_bias(bench: Bench, tensor: Tensor, bias: Array) -> bool:
    """Add a current to a tensor, where a layer of weights gives it, or an Add of what takes it."""
    producer = sole_producer(bench.graph, tensor)
    if producer is None:
        return False
    taken = (
        _weights_take(bench.graph, producer, bias)
        or _constant_takes(bench.graph, producer, bias)
        or _side_takes(bench, producer, bias)
    )
    if taken:
        bench.shift(tensor.name, bias)
    return taken


def _weights_take(graph: Graph, node: Node, bias: Array) -> bool:
    layer = weight_layer(graph, node)
    if layer is None or not layer.takes_bias:
        return False
    vector = per_channel(bias, bias.ndim, layer.output_axis(bias.ndim), layer.outputs)
    if vector is not None:
        layer.shift_output(vector)
    return vector is not None


def _constant_takes(graph: Graph, node: Node, bias: Array) -> bool:
    shift = constant_operand(node) if node.op == "Add" else None
    if shift is None:
        return False
    name = unique_name(graph, f"{node.name}.shift")
    node.inputs = [data_input(node), gs.Constant(name, shift + bias)]
    return True


def _side_takes(bench: Bench, node: Node, bias: Array) -> bool:
    """One side of an Add takes it, be it of the sum's rank."""
    return node.op == "Add" and any(
        same_rank(given, node.outputs[0]) and _takes_bias(bench, given, bias)
        for given in node.inputs
    )
