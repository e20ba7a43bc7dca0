"""What each layer does and costs, and energy."""

from __future__ import annotations

from rich.markup import escape
from rich.table import Table

from onnxsnn.analysis.energy import Energy
from onnxsnn.analysis.layers import Analysis
from onnxsnn.analysis.target import SpikeRatio
from onnxsnn.display.base import new_table, number, percent, stdout
from onnxsnn.figures import counted, joules, measure_text

__all__ = ["show_analysis", "show_energy"]


def show_analysis(analysis: Analysis) -> None:
    """Each layer's fit curve and rates, where its error comes from, and what being exact gains."""
    console = stdout()
    console.print(_rates(analysis))
    console.print(
        "error of each layer, ||SNN - ANN||^2 / ||ANN||^2, and its parts, which add up",
        soft_wrap=True,
    )
    console.print(_errors(analysis))
    verdict = f"no layer alone costs {analysis.measure}"
    if analysis.costliest is not None:
        verdict = f"costs most: {escape(analysis.costliest)}"
    plainly = measure_text(analysis.measure)(getattr(analysis.plain, analysis.measure))
    console.print(
        f"{verdict}; {analysis.measure} {plainly} at T = {analysis.timesteps} on "
        f"{counted(analysis.samples, 'sample')}, and above with one layer exact at a time",
        soft_wrap=True,
    )


def _rates(analysis: Analysis) -> Table:
    """How far the rates of each layer are from what they go to, and which say nothing."""
    table = new_table(
        "Layer", f"K({analysis.timesteps})", "2 Omega / T", "Silent", "Dead", "Saturated"
    )
    for layer in analysis.layers:
        curve, rates = layer.curve, layer.distribution
        table.add_row(
            escape(layer.layer),
            number(None if curve is None else curve.values[-1]),
            number(None if curve is None else curve.bound[-1]),
            percent(rates.silent),
            f"{rates.dead} of {rates.channels}",
            str(rates.saturated),
        )
    return table


def _errors(analysis: Analysis) -> Table:
    """The error of each layer in parts, and what the network is if the layer is exact."""
    table = new_table(
        "Layer", "Error", "Clipping", "Quantization", "Unevenness", "Inherited",
        f"Exact: {analysis.measure}", "Gain",
    )  # fmt: skip
    show = measure_text(analysis.measure)
    for layer in analysis.layers:
        split = layer.squared
        parts = (split.clipping, split.quantization, split.unevenness, split.inherited)
        table.add_row(
            escape(layer.layer),
            number(split.error),
            *map(number, parts),
            show(getattr(layer.exact, analysis.measure)),
            show(layer.gain),
        )
    return table


def show_energy(energy: Energy, ratio: SpikeRatio | None = None) -> None:
    """Operations per sample, and what models make of them."""
    console = stdout()
    table = new_table("Node", "Driven by", "MACs of the ANN", "Operations of the SNN")
    for row in energy.rows:
        table.add_row(escape(row.name), row.driven, f"{row.macs:,}", f"{row.operations:,.0f}")
    console.print(table)
    models = new_table("Model, not a measurement", "pJ per MAC", "pJ per AC", "ANN", "SNN", "Ratio")
    for found in energy.energies:
        model, snn = found.model, found.snn[-1]
        share = f"{snn / found.ann:.3f}" if found.ann else ""
        models.add_row(
            model.name, f"{model.mac:g}", f"{model.ac:g}", joules(found.ann), joules(snn), share
        )
    console.print(models)
    console.print(
        f"per sample: {energy.ann_macs:,} MACs in the ANN; at T = {energy.timesteps}, "
        f"{energy.synaptic_operations[-1]:,.0f} synaptic operations, {energy.input_macs:,} MACs "
        f"of a constant input and {energy.analog_macs[-1]:,} analog ones in the SNN",
        soft_wrap=True,
    )
    if energy.uncounted:
        console.print(f"not counted: {escape(', '.join(energy.uncounted))}", soft_wrap=True)
    if ratio is not None:
        shown = "not reached" if ratio.ratio is None else f"{ratio.ratio:.3f}"
        console.print(
            f"spikes relative to the reference, until {ratio.target.measure} "
            f"{number(ratio.target.level)}: {shown}",
            soft_wrap=True,
        )
