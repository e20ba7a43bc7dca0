"""The page: one HTML file with its style, its plots and its figures, and no script."""

from __future__ import annotations

from html import escape
from importlib.metadata import version
from importlib.resources import files

from onnxsnn.analysis.summary import evaluation_as_dict
from onnxsnn.analysis.target import Target
from onnxsnn.figures import counted, joules, measure_text, percent
from onnxsnn.report.gather import ReportData
from onnxsnn.report.html import figure
from onnxsnn.report.sections import SECTIONS
from onnxsnn.strict_json import to_json

__all__ = ["page"]


def page(data: ReportData) -> str:
    """The report as HTML. It holds what `evaluate --analyse --energy --json` prints, as JSON."""
    shown = [(name, *made) for name, make in SECTIONS if (made := make(data)) is not None]
    links = "".join(f'<li><a href="#{name}">{heading}</a></li>' for name, heading, _ in shown)
    sections = "".join(content for _, _, content in shown)
    style = (files(__package__) / "style.css").read_text(encoding="utf-8")
    summary = to_json(evaluation_as_dict(data.evaluation, data.analysis, data.energy))
    title = escape(data.title)
    return (
        "<!doctype html>\n"
        '<html lang=en><head><meta charset=utf-8><meta name=viewport content="width=device-width">'
        '<meta name=color-scheme content="light dark"><link rel=icon href="data:,">'
        f"<title>{title}, an SNN over timesteps</title><style>{style}</style></head><body>"
        '<a class=skip href="#main">To the content</a>'
        f"<header><p class=kicker>A spiking network, over time</p><h1>{title}</h1>"
        f"<p class=about>{_about(data)}</p></header><main id=main>{_headline(data)}"
        f"<nav aria-label=Contents><ul>{links}</ul></nav>{sections}</main>{_footer()}"
        f'<script type="application/json" id=data>{_embedded(summary)}</script></body></html>\n'
    )


def _embedded(text: str) -> str:
    """JSON that cannot end the element that holds it."""
    return text.replace("<", "\\u003c")


def _about(data: ReportData) -> str:
    """How the SNN was made, and on what it was run."""
    metadata, result = data.snn.metadata, data.evaluation
    neurons = ", ".join(dict.fromkeys(layer.neuron for layer in data.snn.layers))
    bits = figure("bits_per_spike", result.bits_per_spike, lambda value: f"{value:.3g}")
    correction = metadata.get("correction", "none")
    corrected = {
        "none": "",
        "quick": ", quickly corrected layer by layer",
    }.get(correction, ", corrected layer by layer")
    early = ", to fire early" if metadata.get("anytime") else ""
    late = f", outputs averaged from step {data.snn.delay + 1} on" if data.snn.delay else ""
    samples = figure("samples", result.samples, lambda value: f"{value:,}")
    return (
        f"Neurons: {escape(neurons)}, {bits} bit{'' if result.bits_per_spike == 1 else 's'} per "
        f"spike. Thresholds: {escape(metadata['threshold'])}{corrected}{early}, "
        f"for T = {data.snn.timesteps}{late}. Run here for {counted(len(result.rows), 'step')} "
        f"on {samples} sample{'' if result.samples == 1 else 's'}, beside the ANN."
    )


def _headline(data: ReportData) -> str:
    entries = (_reached(data), _speed(data.target), _energy(data), _spikes(data))
    return (
        "<dl class=headline>"
        + "".join(
            f"<div><dt>{name}</dt><dd><span class=big>{value}</span>"
            f"<small>{note}</small></dd></div>"
            for name, value, note in entries
        )
        + "</dl>"
    )


def _reached(data: ReportData) -> tuple[str, str, str]:
    rows, kind = data.evaluation.rows, data.measure
    index = len(rows) - 1
    name = {"accuracy": "Accuracy", "agreement": "Agreement with the ANN", "error": "Error"}[kind]
    value = figure(f"rows.{index}.{kind}", getattr(rows[-1], kind), measure_text(kind))
    ann = figure("ann_accuracy", data.evaluation.ann_accuracy, percent)
    note = f"The ANN has {ann}." if ann else "Relative to the ANN's outputs."
    return f"{name} at T = {len(rows)}", value, note


def _speed(target: Target | None) -> tuple[str, str, str]:
    if target is None:
        return "Steps that are enough", "?", "Labels and the ANN say."
    name = {
        "accuracy": "Steps to the ANN less a point",
        "agreement": "Steps to 99 % agreement",
        "error": "Steps to an error of 10 %",
    }[target.measure]
    level = figure("target.level", target.level, measure_text(target.measure))
    if target.timesteps is None:
        return name, "not yet", f"{target.measure.capitalize()} {level} is not reached."
    return name, figure("target.timesteps", target.timesteps), f"To {target.measure} {level}."


def _energy(data: ReportData) -> tuple[str, str, str]:
    found = data.energy.energies[0]
    last = len(found.snn) - 1
    snn = figure(f"energy.energies.0.snn.{last}", found.snn[-1], joules)
    ann = figure("energy.energies.0.ann", found.ann, joules)
    note = f"per sample; the ANN {ann}. A model of {escape(found.model.name)}, no measurement."
    return "Energy, modelled", snn, note


def _spikes(data: ReportData) -> tuple[str, str, str]:
    rows = data.evaluation.rows
    key = f"rows.{len(rows) - 1}"
    spikes = figure(f"{key}.spikes", rows[-1].spikes, lambda value: f"{value:,.0f}")
    rate = figure(f"{key}.rate", rows[-1].rate, lambda value: f"{value:.3f}")
    return "Spikes per sample", spikes, f"{rate} per neuron and step."


def _footer() -> str:
    return (
        "<footer><p>Energies are models, and no measurements: they count operations, and leave "
        "out memory, communication and leakage.</p><p>All figures are in this file as JSON, in "
        "its element <code>#data</code>, as <code>onnxsnn evaluate --analyse --energy --json"
        f"</code> prints them. Made by onnxsnn {escape(version('onnxsnn'))}.</p></footer>"
    )
