"""The conversion, from a trained network to a spiking one: the passes by name, in order."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from onnxsnn.analysis.omega import omega, threshold_ratio
from onnxsnn.arrays import Array
from onnxsnn.calibration.correct import CorrectionReport, correct_network
from onnxsnn.calibration.delay import read_out_delay
from onnxsnn.calibration.integer import integer_network
from onnxsnn.calibration.observe import Statistics, calibrate
from onnxsnn.calibration.synthetic import cut_at_normalized, noise, noise_samples
from onnxsnn.data import Dataset
from onnxsnn.errors import DataError, UnsupportedError, UsageError, checked
from onnxsnn.graph import Graph, sized_for, values_per_sample
from onnxsnn.model import Layer, SpikingModel, checked_timesteps, input_specs
from onnxsnn.neurons import IntegrateAndFire, Neuron, check_neuron
from onnxsnn.passes.absorb_scales import absorb_scales
from onnxsnn.passes.fold_normalization import Moments
from onnxsnn.passes.report import Report
from onnxsnn.passes.samples_first import samples_first
from onnxsnn.passes.set_thresholds import set_thresholds
from onnxsnn.passes.spike import spike
from onnxsnn.pipeline import Keep, Pipeline, prepare
from onnxsnn.ratenorm import SIGNED, rate_norms, scale_of, threshold_of, untrained
from onnxsnn.session import fixed_batch, whole_batches
from onnxsnn.signals import refuse_analog
from onnxsnn.source import Source, load_source
from onnxsnn.thresholds import METHODS
from onnxsnn.thresholds.ril import fit_rate_inference

__all__ = [
    "DEFAULT_TIMESTEPS",
    "THRESHOLDS",
    "Conversion",
    "Progress",
    "convert",
    "takes_data",
]

DEFAULT_TIMESTEPS = 16
THRESHOLDS = (*METHODS, "ril", "trained")
_ACTIVATIONS = 2**25  # values per calibration batch: 128 MiB
_LARGEST_BATCH = 32

Progress = Callable[[int, int], None]
"""Called during calibration with the samples, or layers, done, and how many there are."""


@dataclass
class Conversion:
    """What a conversion gives.

    Attributes:
        snn: the spiking network.
        reports: what each pass did, in order.
        warnings: what the user should know, each once.
        differences: with `verify`, by pass, the greatest difference of outputs that it made,
            relative to the greatest output.
    """

    snn: SpikingModel
    reports: list[Report]
    warnings: list[str]
    differences: dict[str, float] = field(default_factory=dict)


def convert(
    model: str | Path | Source,
    data: Dataset | None = None,
    *,
    timesteps: int = DEFAULT_TIMESTEPS,
    threshold: str | None = None,
    neuron: Neuron | None = None,
    start_as_trained: bool = True,
    per_layer: bool = False,
    correct: bool | None = None,
    anytime: bool = False,
    delay: int | None = 0,
    strict: bool = False,
    integer: bool = False,
    verify: bool = False,
    keep: Keep | None = None,
    progress: Progress = lambda _done, _all: None,
) -> Conversion:
    """Turn a trained network into a spiking one.

    Args:
        model: an ONNX file, or what `load_source` made of one.
        data: samples to calibrate on; without any, thresholds come from training where the
            graph has them, else from its BatchNorms, else from random input. With threshold
            `trained`, for `correct` alone.
        timesteps: the number T of steps that will be run.
        threshold: a name in THRESHOLDS; None chooses: `fit` where there are data.
        neuron: the neuron model; None for integrate-and-fire that starts at theta / 2, or
            where the graph was trained to start, as one of another kind does that starts at
            theta / 2 by default.
        start_as_trained: False for a neuron that starts where it says, wherever the graph was
            trained to start.
        per_layer: one threshold per layer instead of one per channel.
        correct: fit each layer's weights, thresholds, initial potentials and biases to what the
            SNN really emits, layer by layer; it takes about as long as three runs over the data,
            and the fits, and as much again with neurons of less than two bits in large maps. None
            for a quick fit on up to 256 of the samples, where thresholds are those of `fit`, there
            is no delay, and the neuron starts where its kind does; False for thresholds alone.
            Neurons of fewer than 16 values per channel in those samples keep what they have.
        anytime: let the correction make neurons fire early, so that the outputs are near the ANN's
            after few steps too, for early exit; it costs spikes, and a little of what the outputs
            are after T steps.
        delay: steps that the outputs leave out once they are over: from then on they are those of
            the mean over the later ones. None for as many as spikes are estimated to take, T / 2
            at most. Not with `correct`, which fits all steps together.
        strict: refuse what would not be driven by spikes, instead of compensating it.
        integer: give weights and spikes 8 bits, in quantized operators; what that costs is
            measured on up to 256 of the samples, and in the SNN's metadata as `integer`.
        verify: compare the outputs before and after every pass that should keep them.
        keep: called with every intermediate model, and the name of the pass that made it.
        progress: called during calibration.

    Raises:
        UsageError: an argument makes no sense.
        ModelError: the model cannot be read, or a pass failed its verification.
        UnsupportedError: the model holds something that cannot be converted.
        DataError: the data do not fit the model.

    Example:
        >>> from onnxsnn.demo import demo_data, demo_source
        >>> calibration, _ = demo_data()
        >>> conversion = convert(demo_source(), calibration, timesteps=8)
        >>> conversion.snn.timesteps, [layer.neuron for layer in conversion.snn.layers]
        (8, ['if', 'if', 'if', 'if'])
    """
    timesteps = checked_timesteps(timesteps)
    _check_arguments(timesteps, threshold, data, correct, delay)
    delay = None if delay is None else int(delay)
    asked, neuron = neuron, neuron or IntegrateAndFire()
    check_neuron(neuron)
    start_as_trained = start_as_trained and _starts_as_trained(asked)
    source = model if isinstance(model, Source) else load_source(model)
    if data is not None:
        data = checked(data, Dataset, "data").fitted(input_specs(source.model))
    line = Pipeline(keep)
    prepared = prepare(source, line, data, verify)
    graph, moments = prepared.graph, prepared.moments
    if strict:
        refuse_analog(graph)
    method = _method(threshold, data, graph, moments)
    plan = _Plan(
        timesteps=timesteps,
        threshold=threshold,
        method=method,
        neuron=neuron,
        per_layer=per_layer,
        correction=_correction(correct, data, method, delay, neuron),
        anytime=anytime,
        potentials=prepared.potentials if start_as_trained else {},
    )
    if anytime and plan.correction == "none":
        raise UsageError("--anytime is a way to correct neurons, and none are; give --correct")

    _warn_of_levels(source.few_levels, plan, line)
    statistics, origin = _observe(graph, data, moments, line, progress)
    reference = graph.copy()
    origins = _set_thresholds(graph, statistics, plan, data, line, progress)
    if delay is None:
        delay = read_out_delay(graph, statistics, plan.neuron, plan.potentials, timesteps)
    potentials: Mapping[str, Array | float] = plan.potentials
    if plan.correction != "none" and data is not None:
        graph, corrected = _correct(graph, reference, plan, data, statistics, progress)
        potentials = corrected.potentials
        line.layers = _layers(graph, statistics, origins, plan.neuron, corrected.biases)
        line.did(graph, corrected)
    graph = line.did(graph, absorb_scales(graph))
    spiking = spike(graph, plan.neuron, potentials, delay)
    samples_first(graph, spiking)
    line.did(graph, spiking)

    metadata = _metadata(plan, line) | {
        "delay": delay,
        "statistics": origin,
        "limits_left_out": list(prepared.left_out),
        "source_sha256": source.digest,
    }
    snn = SpikingModel.build(graph, spiking.states, metadata, line.layers)
    if integer:
        rounded = integer_network(snn, source, data, progress)
        snn = rounded.snn
        line.reports.extend(rounded.reports)
    return Conversion(snn, line.reports, line.warnings, line.differences)


def _starts_as_trained(neuron: Neuron | None) -> bool:
    """Whether nobody asked where neurons start, and they round where the graph was trained to."""
    usual = IntegrateAndFire()
    return neuron is None or (
        neuron.name != usual.name and neuron.initial_potential == usual.initial_potential
    )


@dataclass(frozen=True)
class _Plan:
    """How a graph becomes spiking.

    Attributes:
        timesteps: that will be run.
        threshold: the method that was asked for, if any,
        method: and the one for every threshold that is not kept as it was trained.
        neuron: the neuron model.
        per_layer: whether a layer has one threshold.
        correction: `none`, `quick` or `whole`.
        anytime: whether neurons are made to fire early.
        potentials: initial potentials that were trained, by layer, as fractions of the threshold.
    """

    timesteps: int
    threshold: str | None
    method: str
    neuron: Neuron
    per_layer: bool
    correction: str
    anytime: bool
    potentials: Mapping[str, float]


def _warn_of_levels(levels: int | None, plan: _Plan, line: Pipeline) -> None:
    """Say how a network that was trained with few levels keeps them."""
    kept = plan.threshold == "trained" and plan.timesteps == levels
    if levels is not None and not kept:
        line.warnings.append(
            f"the network rounds values to {levels} steps, and the SNN does not, which may cost "
            f"much; --threshold trained --neuron signed --timesteps {levels} keeps to them"
        )


def _set_thresholds(
    graph: Graph,
    statistics: Statistics,
    plan: _Plan,
    data: Dataset | None,
    line: Pipeline,
    progress: Progress,
) -> Mapping[str, str]:
    """Set every layer's threshold; where each comes from, by layer."""
    thresholds = set_thresholds(
        graph,
        statistics,
        (plan.method, METHODS["max" if plan.method == "ril" else plan.method]),
        plan.neuron,
        plan.timesteps,
        per_layer=plan.per_layer,
        keep_trained=plan.threshold == "trained" or (plan.threshold is None and data is None),
    )
    if plan.method == "ril" and data is not None:
        fit_rate_inference(graph, statistics, data, progress)
    line.layers = _layers(graph, statistics, thresholds.origins, plan.neuron, {})
    line.did(graph, thresholds)
    return thresholds.origins


def _correct(
    graph: Graph,
    reference: Graph,
    plan: _Plan,
    data: Dataset,
    statistics: Statistics,
    progress: Progress,
) -> tuple[Graph, CorrectionReport]:
    return correct_network(
        graph,
        reference,
        data,
        statistics,
        plan.neuron,
        plan.timesteps,
        plan.potentials,
        quick=plan.correction == "quick",
        thresholds=not plan.per_layer,
        anytime=plan.anytime,
        progress=progress,
    )


def _metadata(plan: _Plan, line: Pipeline) -> dict[str, Any]:
    """What the SNN's file says of its conversion."""
    return {
        "timesteps": plan.timesteps,
        "threshold": plan.threshold or plan.method,
        "per_layer": plan.per_layer,
        "correction": plan.correction,
        "anytime": plan.anytime,
        "neuron": {"model": plan.neuron.name, **vars(plan.neuron)},
        "bits_per_spike": max(layer.bits for layer in line.layers),
        "warnings": line.warnings,
    }


def takes_data(threshold: str | None, correct: bool | None) -> bool:
    """Whether data may be given; where thresholds are those of training, for correction alone."""
    return threshold != "gaussian" and (threshold != "trained" or bool(correct))


def _correction(
    correct: bool | None, data: Dataset | None, method: str, delay: int | None, neuron: Neuron
) -> str:
    """How what the SNN really emits is corrected: `none`, `quick` or `whole`."""
    if correct is not None:
        return "whole" if correct else "none"
    usual = neuron.initial_potential == type(neuron)().initial_potential
    quick = data is not None and method == "fit" and delay == 0 and usual
    return "quick" if quick else "none"


def _check_arguments(
    timesteps: int,
    threshold: str | None,
    data: Dataset | None,
    correct: bool | None,
    delay: int | None,
) -> None:
    if threshold is not None and threshold not in THRESHOLDS:
        raise UsageError(f"threshold {threshold!r} is none of {', '.join(THRESHOLDS)}")
    if data is not None and not takes_data(threshold, correct):
        wants = "data for --correct alone" if threshold == "trained" else "no data"
        raise UsageError(
            f"threshold {threshold!r} takes {wants}; leave the data out, or choose another "
            "threshold"
        )
    if threshold == "ril" and data is None:
        raise UsageError("threshold 'ril' compares outputs on data; give some with --data")
    if correct and data is None:
        raise UsageError("neurons are corrected on data; give some with --data")
    if delay is not None and (not 0 <= delay < timesteps or delay != int(delay)):
        raise UsageError(
            f"delay must be a whole number from 0 to {timesteps - 1}, below the number of "
            f"timesteps, and is {delay}"
        )
    if correct and delay != 0:
        raise UsageError(
            "--correct fits all timesteps together, and --delay leaves some out; give one of them"
        )


def _method(
    threshold: str | None, data: Dataset | None, graph: Graph, moments: Mapping[str, Moments]
) -> str:
    """The method for every threshold that is not kept as it was trained."""
    if threshold == "gaussian" and not moments:
        raise UnsupportedError(
            "threshold 'gaussian' needs a BatchNormalization, and the model has none; "
            "choose another threshold"
        )
    if threshold == "trained":
        unset = [node.name for node in untrained(graph)]
        if unset:
            raise UnsupportedError(
                f"threshold 'trained' needs every rectifier clipped, and {len(unset)} are not, "
                f"node {unset[0]!r} the first; choose another threshold"
            )
        return "fit"
    if threshold is not None:
        return threshold
    return "gaussian" if data is None and moments else "fit"


def _observe(
    graph: Graph,
    data: Dataset | None,
    moments: Mapping[str, Moments],
    line: Pipeline,
    progress: Progress,
) -> tuple[Statistics, str]:
    """Statistics of every RateNorm's input, and what they come from."""
    if data is not None:
        return _observe_data(graph, data, progress), "data"
    cut = cut_at_normalized(graph, moments)
    names = {tensor.name for tensor in graph.inputs} & {tensor.name for tensor in cut.inputs}
    untrained = any(threshold_of(node) is None for node in rate_norms(graph))
    if names and untrained:
        line.warnings.append(
            f"thresholds come from random input ({', '.join(sorted(names))}), which says little "
            "of real data; accuracy wants data: give some with --data"
        )
    total = noise_samples(cut)
    statistics = calibrate(cut, noise(cut, moments), lambda seen: progress(seen, total))
    return statistics, "batchnorm" if moments else "random input"


def _observe_data(graph: Graph, data: Dataset, progress: Progress) -> Statistics:
    """The statistics on data.

    Raises:
        DataError: the model takes all of them at once alone, or does not take them.
    """
    batch = _batch_size(graph, data)
    feeds = (inputs for inputs, _ in data.batches(batch))
    try:
        return calibrate(graph, feeds, lambda seen: progress(seen, len(data)))
    except DataError as error:
        if batch < len(data) <= _most_samples(graph, data) and _takes_whole(graph, data):
            raise data.error(
                f"the model takes these {len(data)} rows at once, and not {batch} of them: they "
                "are no samples, but parts of one, as the nodes of a graph are; give its first "
                f"axis the size {len(data)} (onnxruntime.tools.make_dynamic_shape_fixed does)"
            ) from error
        raise


def _takes_whole(graph: Graph, data: Dataset) -> bool:
    """Whether it runs on all samples at once."""
    feeds, _ = next(data.batches(len(data)))
    try:
        calibrate(graph, [feeds])
    except DataError:
        return False
    return True


def _batch_size(graph: Graph, data: Dataset) -> int:
    """Of a calibration batch; whole batches, if their size is fixed."""
    most = min(_LARGEST_BATCH, _most_samples(graph, data))
    return whole_batches(most, fixed_batch([tensor.shape for tensor in graph.inputs]))


def _most_samples(graph: Graph, data: Dataset) -> int:
    """As many as keep the activations of a batch within bounds."""
    sized = sized_for(graph, data.inputs)
    values = sum(values_per_sample(node.inputs[0]) for node in rate_norms(sized))
    return _ACTIVATIONS // max(values, 1)


def _layers(
    graph: Graph,
    statistics: Statistics,
    origins: Mapping[str, str],
    neuron: Neuron,
    biases: Mapping[str, Array],
) -> list[Layer]:
    layers = []
    for node in rate_norms(graph):
        theta, seen = node.inputs[1].values, statistics[node.name]
        model = neuron.signed if node.op == SIGNED else neuron
        layers.append(
            Layer(
                name=node.name,
                channels=theta.size,
                threshold=float(theta.mean()),
                lowest=float(theta.min()),
                highest=float(theta.max()),
                p=threshold_ratio(seen, theta),
                omega=omega(seen, theta * model.greatest_spike),
                origin=origins[node.name],
                neuron=model.name,
                bits=model.bits_per_spike,
                scale=scale_of(node).reshape(-1).tolist(),
                bias=biases[node.name].tolist() if node.name in biases else None,
            )
        )
    return layers
