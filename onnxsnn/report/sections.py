"""The sections of the page, in order; each says what is to be seen before it shows it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from functools import partial
from html import escape

from onnxsnn.analysis.energy import Energy
from onnxsnn.analysis.error_split import ErrorSplit
from onnxsnn.analysis.layers import Analysis, LayerAnalysis, RateDistribution
from onnxsnn.figures import counted, joules, measure_text, number, percent
from onnxsnn.report.gather import Flip, ReportData
from onnxsnn.report.html import details, figure, plot, section, table
from onnxsnn.report.png import data_url
from onnxsnn.report.svg import Axis, Line, bars, histogram, lines, raster

__all__ = ["SECTIONS"]

Made = tuple[str, str]
"""The heading of a section, and its HTML."""

_PARTS = (
    ("clipping", "accent", "theta is too low"),
    ("quantization", "mid", "T is too small"),
    ("unevenness", "soft", "spikes came too early or too late"),
    ("inherited", "neutral", "from the layers before"),
)

_FOLDED = 40  # rows, above which a table of nodes is folded
_DOTTED = 24  # steps, above which dots would hide their line


def _accuracy(data: ReportData) -> Made:
    result, measure, text = data.evaluation, data.measure, measure_text(data.measure)
    values = [float(getattr(row, measure)) for row in result.rows]
    guide = None
    if measure == "accuracy" and result.ann_accuracy is not None:
        guide = (result.ann_accuracy, "ANN")
    elif measure == "agreement":
        guide = (1.0, "ANN")
    drawn = lines(
        f"{measure.capitalize()} over timesteps",
        f"From {text(values[0])} after the first step to {text(values[-1])} after step "
        f"{len(values)}." + (f" The ANN has {text(guide[0])}." if guide else ""),
        [Line(values, "accent", "SNN", dots=len(values) <= _DOTTED)],
        _axis_of(values, measure),
        guide=guide,
    )
    spikes = [row.spikes for row in result.rows]
    fired = lines(
        "Spikes per sample over timesteps",
        f"{spikes[-1]:,.0f} spikes per sample until step {len(spikes)}.",
        [Line(spikes, "ink", "", dots=False)],
        Axis(0, max(spikes) or 1, _ticks(0, max(spikes) or 1), _short),
        right=24,
    )
    caption = f"{measure.capitalize()} after each of T steps."
    if guide is not None:
        caption += f" Dashed: the ANN, {text(guide[0])}."
    both = (
        f"<div class=two>{plot(drawn, caption)}"
        f"{plot(fired, 'Spikes fired until each step, the mean over samples.')}</div>"
    )
    heading = f"{measure.capitalize()} over time"
    return heading, section("time", heading, _outcome(data, values), both, _rows(data))


def _outcome(data: ReportData, values: list[float]) -> str:
    """What the measure is in the end, or when it is good enough."""
    target, text, steps = data.target, measure_text(data.measure), counted(len(values), "step")
    plainly = f"After {steps} the {data.measure} is {text(values[-1])}."
    if target is None:
        return plainly
    goal = {
        "accuracy": f"A point below the ANN's accuracy, {text(target.level)},",
        "agreement": f"An agreement with the ANN of {text(target.level)}",
        "error": f"A relative error of {text(target.level)}",
    }[target.measure]
    if target.timesteps is None:
        return f"{plainly} {goal} is not reached."
    reached = figure("target.timesteps", target.timesteps)
    return f"{goal} is reached after {reached} of {steps}."


def _rows(data: ReportData) -> str:
    columns: list[tuple[str, str, Callable[[float], str]]] = [
        ("accuracy", "Accuracy", percent),
        ("agreement", "Agreement", percent),
        ("error", "Error", number),
        ("rate", "Firing rate", lambda value: f"{value:.4f}"),
        ("spikes", "Spikes", lambda value: f"{value:,.0f}"),
    ]
    first = data.evaluation.rows[0]
    columns = [column for column in columns if getattr(first, column[0]) is not None]
    rows = [
        [
            str(row.timesteps),
            *(figure(f"rows.{i}.{name}", getattr(row, name), text) for name, _, text in columns),
        ]
        for i, row in enumerate(data.evaluation.rows)
    ]
    heads = [("T", "n"), *((heading, "n") for _, heading, _ in columns)]
    return details("Every step as a table", table("Every step", heads, rows))


def _error_change(analysis: Analysis, layer: LayerAnalysis) -> str:
    """What a layer's being exact does to the error of the outputs, where they have one."""
    before, after = analysis.plain.error, layer.exact.error
    if before is None or after is None:
        return ""
    return f", and the relative error of the outputs from {number(before)} to {number(after)}"


def _errors(data: ReportData) -> Made:
    analysis = data.analysis
    unit = _unit(analysis.measure)
    legend = "".join(
        f"<li><i class={style}></i>{name}: {reason}</li>" for name, style, reason in _PARTS
    )
    splits = [layer.squared for layer in analysis.layers]
    low, high = _span(map(_ends, splits))
    gains = [layer.gain for layer in analysis.layers]
    most = max(map(abs, gains)) or 1.0
    rows = [
        [
            _node(layer.layer),
            bars(_split_words(layer), [(getattr(layer.squared, n), s) for n, s, _ in _PARTS],
                 low, high),
            figure(f"analysis.layers.{i}.squared.error", layer.squared.error, number),
            bars(f"Gain {_gain(analysis.measure, layer.gain)}",
                 [(layer.gain, "ink" if layer.gain > 0 else "neutral")], min(0.0, *gains), most),
            figure(f"analysis.layers.{i}.gain", layer.gain, partial(_gain, analysis.measure)),
        ]
        for i, layer in enumerate(analysis.layers)
    ]  # fmt: skip
    change = "Change" + ("," + unit if unit else "")
    columns = [("Layer", ""), ("Its error, in parts", "w"), ("Error", "n"),
               ("If exact", "wide"), (change, "n")]  # fmt: skip
    names = [layer.layer for layer in analysis.layers]
    marked = [] if analysis.costliest is None else [names.index(analysis.costliest)]
    note = (
        "<p class=note>Error: squared distance of what the layer gives from the ANN's "
        "activation, relative to that. Parts left of the line make up for others. A layer is "
        "exact when it gives the ANN's function of the current that arrives, in every step. On "
        f"{counted(analysis.samples, 'sample')}, T = {analysis.timesteps}"
        + (f"; one sample is {100 / analysis.samples:.2f} points" if unit else "")
        + ".</p>"
    )
    return "Where the error comes from", section(
        "error",
        "Where the error comes from",
        _verdict(analysis),
        f"<ul class=legend>{legend}</ul>",
        table("Error of each layer, and what being exact would gain", columns, rows, marked),
        note,
        details("The parts as numbers", _split_table(analysis.layers)),
    )


def _verdict(analysis: Analysis) -> str:
    """Which layer costs most, and why."""
    if analysis.costliest is None:
        return f"No layer alone costs {analysis.measure}: none of them, made exact, improves it."
    worst = next(layer for layer in analysis.layers if layer.layer == analysis.costliest)
    own = {name: getattr(worst.squared, name) for name, *_ in _PARTS[:3]}
    cause = max(own, key=lambda name: own[name])
    reason = next(reason for name, _, reason in _PARTS if name == cause)
    gain = f"{_gain(analysis.measure, worst.gain)}{_unit(analysis.measure)}"
    return (
        f"<strong>{_node(worst.layer)}</strong> costs most: were it exact, {analysis.measure} "
        f"would change by {gain}{_error_change(analysis, worst)}. Most of its own error is "
        f"{cause}: {reason}."
    )


def _unit(measure: str) -> str:
    """What a change of a measure is in."""
    return "" if measure == "error" else " points"


def _split_table(layers: Iterable[LayerAnalysis]) -> str:
    names = [name for name, *_ in _PARTS]
    rows = [
        [
            _node(layer.layer),
            *(
                figure(f"analysis.layers.{i}.squared.{n}", getattr(layer.squared, n), number)
                for n in names
            ),
        ]
        for i, layer in enumerate(layers)
    ]
    columns = [("Layer", ""), *((name.capitalize(), "n") for name in names)]
    return table("Parts of each layer's error", columns, rows)


def _ends(split: ErrorSplit) -> tuple[float, float]:
    values = [getattr(split, name) for name, *_ in _PARTS]
    return sum(v for v in values if v < 0), sum(v for v in values if v > 0)


def _span(ends: Iterable[tuple[float, float]]) -> tuple[float, float]:
    lows, highs = zip(*ends, strict=True)
    return min(lows), max(highs) or 1.0


def _split_words(layer: LayerAnalysis) -> str:
    return ", ".join(f"{n} {number(getattr(layer.squared, n))}" for n, *_ in _PARTS)


def _gain(measure: str, gain: float) -> str:
    """A change of a measure, in points where that is a share."""
    return f"{-gain:+.3g}" if measure == "error" else f"{100 * gain:+.2f}"


def _node(name: str) -> str:
    """A node's name, which may break behind its slashes."""
    return escape(name).replace("/", "/<wbr>")


def _fit(data: ReportData) -> Made | None:
    curves = [
        (i, layer.curve) for i, layer in enumerate(data.analysis.layers) if layer.curve is not None
    ]
    if not curves:
        return None
    slowest = max(curves, key=lambda pair: pair[1].values[-1])[1]
    values = [v for _, c in curves for v in (*c.values, *c.bound) if v > 0]
    low, high = max(min(values), 1e-6), max(values)
    axis = Axis(low, high, _decades(low, high), lambda v: f"{v:g}", logarithmic=True)
    drawn = []
    for i, curve in curves:
        last = len(curve.values) - 1
        drawing = lines(
            f"Fit curve of {curve.layer}",
            f"K falls from {number(curve.values[0])} to {number(curve.values[-1])}; "
            f"2 Omega / T is {number(curve.bound[-1])}.",
            [Line(curve.values, "accent"), Line(curve.bound, "muted dashed")],
            axis,
            size=(340, 170),
            right=12,
        )
        key = f"analysis.layers.{i}.curve"
        k = figure(f"{key}.values.{last}", curve.values[-1], number)
        omega = figure(f"{key}.omega", curve.omega, number)
        heading = f"<h3>{_node(curve.layer)}</h3>"
        drawn.append(
            f"<div>{heading}{plot(drawing, f'K({last + 1}) = {k}, Omega = {omega}')}</div>"
        )
    lead = (
        "The distance K(t) of each layer's firing rates from those they go to, and dashed the "
        f"bound 2 Omega / t. <strong>{_node(slowest.layer)}</strong> is furthest in the end."
    )
    return "Fit curves", section(
        "fit", "Fit curves", lead, f"<div class=many>{''.join(drawn)}</div>"
    )


def _rates(data: ReportData) -> Made:
    layers, rates = data.analysis.layers, data.evaluation.layer_rates
    dead = sum(layer.distribution.dead for layer in layers)
    saturated = sum(layer.distribution.saturated for layer in layers)
    channels = sum(layer.distribution.channels for layer in layers)
    lead = (
        f"Of {channels:,} channels, {dead:,} never fire and {saturated:,} fire in every step; "
        "both carry nothing. Columns: how many neurons fire at each rate; the silent ones are "
        "counted beside them."
    )
    firing = [_firing(layer.distribution) for layer in layers]
    greatest = max((share for shares in firing for share in shares), default=1.0)
    rows = []
    for i, layer in enumerate(layers):
        found, key = layer.distribution, f"analysis.layers.{i}.distribution"
        low, high = (f"{found.rates[end]:g}" for end in (0, -1))
        words = f"Rates from {low} to {high}; {percent(found.silent)} silent"
        rows.append(
            [
                _node(layer.layer),
                histogram(words, firing[i], greatest),
                figure(f"layer_rates.{layer.layer}", rates[layer.layer], lambda v: f"{v:.3f}"),
                figure(f"{key}.silent", found.silent, percent),
                figure(f"{key}.dead", found.dead),
                figure(f"{key}.saturated", found.saturated),
            ]
        )
    first = layers[0].distribution.rates
    columns = [("Layer", ""), (f"Rate, {first[0]:g} to {first[-1]:g} spikes per step", "w"),
               ("Mean", "n"), ("Silent", "n"), ("Dead", "n wide"),
               ("Saturated", "n wide")]  # fmt: skip
    return "Firing rates", section(
        "rates", "Firing rates", lead, table("Firing rates of each layer", columns, rows)
    )


def _firing(found: RateDistribution) -> list[float]:
    """The shares at each rate, without those of the class in which the silent ones are."""
    none = min(range(len(found.rates)), key=lambda i: abs(found.rates[i]))
    return [0.0 if i == none else share for i, share in enumerate(found.shares)]


def _raster(data: ReportData) -> Made | None:
    groups: dict[str, list[list[float]]] = {}
    for row in data.raster:
        groups.setdefault(row.layer, []).append(row.spikes)
    if not groups:
        return None
    drawn = "".join(
        f"<div><h3>{_node(name)}</h3>"
        + raster(
            f"Spikes in {name}", f"{len(rows)} neurons, {counted(len(rows[0]), 'step')}.", rows
        )
        + "</div>"
        for name, rows in groups.items()
    )
    lead = (
        "Of each layer, neurons that fired for the first sample, from the most active to the "
        "least: a row per neuron, a stroke per spike, grey where it is negative."
    )
    rows = [
        [_node(row.layer), str(row.neuron), " ".join(f"{spike:g}" for spike in row.spikes)]
        for row in data.raster
    ]
    columns = [("Layer", ""), ("Neuron", "n"), ("Spikes, step by step", "")]
    folded = details("The raster as a table", table("Spikes of chosen neurons", columns, rows))
    return "Spikes", section(
        "spikes", "Spikes of one sample", lead, f"<div class=many>{drawn}</div>", folded
    )


def _flips(data: ReportData) -> Made | None:
    flips = data.flips
    if not flips.drawn:
        return None
    lead = (
        f"Of {counted(data.analysis.samples, 'sample')}, {flips.differing:,} end in another class "
        f"than the ANN's, and {flips.late:,} in its class, but not from the first step on. Of "
        f"{len(flips.drawn)} of them, the running estimates of the outputs: the ANN's class is "
        "coloured, the SNN's black or white where it is another."
    )
    drawn = "".join(map(_flip, flips.drawn))
    return "Samples that flip", section(
        "flips", "Samples that flip class", lead, f"<div class=many>{drawn}</div>"
    )


def _flip(flip: Flip) -> str:
    def style(one: int) -> str:
        return "accent" if one == flip.ann else "ink" if one == flip.snn else "faint"

    order = sorted(flip.outputs, key=lambda one: (one != flip.ann, one != flip.snn))
    values = [v for trace in flip.outputs.values() for v in trace]
    low, high = min(values), max(values)
    steps = len(values) // len(flip.outputs)
    ends = ", ".join(f"class {one}: {number(flip.outputs[one][-1])}" for one in order)
    drawing = lines(
        f"Outputs for sample {flip.sample}",
        f"After step {steps}: {ends}.",
        [Line(flip.outputs[one], style(one), str(one)) for one in order],
        Axis(low, high, _ticks(low, high), _short),
        size=(340, 190),
        right=28,
    )
    right = "" if flip.label is None else f", right is {flip.label}"
    words = f"ANN: {flip.ann}, SNN: {flip.snn}{right}; settled after step {flip.settled}."
    image = "" if flip.image is None else f'<img alt="The sample" src="{data_url(flip.image)}">'
    head = f"<div class=flip>{image}<div><h3>Sample {flip.sample}</h3><p>{words}</p></div></div>"
    return f"<div>{head}{drawing}</div>"


def _energy(data: ReportData) -> Made:
    found = data.energy
    first = found.energies[0]
    share = first.snn[-1] / first.ann if first.ann else 1.0
    comparison = f"{share:.2g} times" if share < 1 else f"{share:.3g} times"
    operations = figure(
        f"energy.synaptic_operations.{found.timesteps - 1}",
        found.synaptic_operations[-1],
        lambda v: f"{v:,.0f}",
    )
    macs = figure("energy.ann_macs", found.ann_macs, lambda v: f"{v:,}")
    lead = (
        f"{operations} synaptic operations per sample against {macs} multiply-accumulates of the "
        f"ANN. By the model of {escape(first.model.name)} that is {comparison} the ANN's energy. "
        "These are models, and no measurements."
    )
    if found.uncounted:
        lead += f" Not counted: {escape(', '.join(found.uncounted))}."
    names = "; ".join(f"{e.model.name}: {e.model.source}" for e in found.energies)
    return "Energy", section(
        "energy",
        "Energy, modelled",
        lead,
        _models(found),
        "<p class=note>Each spike counts once for every weight that it meets. "
        f"{escape(names)}.</p>",
        details("Operations node by node", _operations(found)),
    )


def _models(found: Energy) -> str:
    """What each model makes of the operations of ANN and SNN."""
    rows = []
    for i, result in enumerate(found.energies):
        key, model = f"energy.energies.{i}", result.model
        most = max(result.ann, result.snn[-1]) or 1.0
        for who, style, value, path in (
            ("ANN", "neutral", result.ann, f"{key}.ann"),
            ("SNN", "accent", result.snn[-1], f"{key}.snn.{found.timesteps - 1}"),
        ):
            costs = f"{model.mac:g} pJ per MAC, {model.ac:g} pJ per operation"
            rows.append(
                [
                    f"{escape(model.name)}, {who}",
                    bars(f"{who} {joules(value)}", [(value, style)], 0, most),
                    figure(path, value, joules),
                    costs,
                ]
            )
    columns = [("Model", ""), ("Per sample", "w"), ("Energy", "n"), ("Costs", "wide")]
    return table("Energies by model", columns, rows)


def _operations(found: Energy) -> str:
    rows = [
        [
            _node(row.name),
            row.driven,
            figure(f"energy.rows.{i}.macs", row.macs, lambda v: f"{v:,}"),
            figure(f"energy.rows.{i}.operations", row.operations, lambda v: f"{v:,.0f}"),
        ]
        for i, row in enumerate(found.rows)
    ]
    columns = [("Node", ""), ("Driven by", ""), ("MACs of the ANN", "n"), ("Of the SNN", "n")]
    return table("Operations by node", columns, rows)


def _layers(data: ReportData) -> Made:
    found = data.inspection
    rows = [
        [
            _node(row.name),
            escape(row.operator),
            row.role,
            "?" if row.shape is None else escape("x".join(str(s or "?") for s in row.shape)),
            "" if row.neurons is None else f"{row.neurons:,}",
            number(row.threshold),
            number(row.p),
            number(row.omega),
        ]
        for row in found.rows
    ]
    columns = [("Node", ""), ("Operator", ""), ("Role", ""), ("Shape", ""), ("Neurons", "n"),
               ("Threshold", "n"), ("p", "n"), ("Omega", "n")]  # fmt: skip
    lead = (
        f"{len(found.rows)} nodes, {found.neurons:,} neurons per sample and {found.parameters:,} "
        "parameters in one timestep of the SNN, as <code>onnxsnn inspect</code> lists them."
    )
    content = table("Nodes of the step graph", columns, rows)
    if len(rows) > _FOLDED:
        content = details("Every node", content)
    return "Nodes", section("nodes", "The network", lead, content)


SECTIONS: tuple[tuple[str, Callable[[ReportData], Made | None]], ...] = (
    ("time", _accuracy),
    ("error", _errors),
    ("fit", _fit),
    ("rates", _rates),
    ("spikes", _raster),
    ("flips", _flips),
    ("energy", _energy),
    ("nodes", _layers),
)
"""By identity, what makes a section of the data; None where there is nothing to show."""


def _axis_of(values: list[float], measure: str) -> Axis:
    if measure == "error":
        top = max(filter(math.isfinite, values), default=0.0) or 1.0
        return Axis(0, top, _ticks(0, top), _short)
    return Axis(0, 1, [0, 0.25, 0.5, 0.75, 1], lambda v: f"{round(100 * v, 1):g} %")


def _ticks(low: float, high: float) -> list[float]:
    """Three to six round values between two."""
    span = high - low or 1.0
    unit = 10.0 ** (len(f"{int(span / 1e-12)}") - 13)
    step = next(unit * m for m in (0.2, 0.5, 1, 2, 5, 10) if span / (unit * m) <= 5)
    first = -(-low // step)
    count = int((high - first * step) / step + 1e-9) + 1
    return [round((first + k) * step, 12) for k in range(count)]


def _decades(low: float, high: float) -> list[float]:
    ticks = [10.0**k for k in range(-6, 7)]
    return [t for t in ticks if low <= t <= high] or [low, high]


def _short(value: float) -> str:
    """A tick's label."""
    return f"{value / 1000:g}k" if abs(value) >= 1000 else f"{value:g}"
