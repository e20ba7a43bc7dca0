"""Tables for people, and progress bars, on the command line."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from onnxsnn.analysis.comparison import Comparison
from onnxsnn.analysis.convertibility import Convertibility
from onnxsnn.analysis.evaluate import EarlyExit, Evaluation, Row
from onnxsnn.analysis.fit_curve import FitCurve
from onnxsnn.analysis.inspection import Inspection
from onnxsnn.convert import Conversion
from onnxsnn.convert import Progress as Report
from onnxsnn.runtime.dataset import DatasetRun

__all__ = [
    "progress",
    "show_best",
    "show_comparison",
    "show_conversion",
    "show_convertibility",
    "show_evaluation",
    "show_inspection",
    "show_run",
    "warn",
]

_WIDE = 160  # for pipes and files, where rich would take 80 and cut names


def _console() -> Console:
    return Console(width=None if sys.stdout.isatty() else _WIDE, highlight=False)


def warn(warnings: Sequence[str]) -> None:
    """Print each warning once, on standard error."""
    console = Console(stderr=True, soft_wrap=True, highlight=False)
    for warning in dict.fromkeys(warnings):
        console.print(f"[yellow]warning:[/] {_plain(warning)}")


@contextmanager
def progress(task: str) -> Iterator[Report]:
    """A progress bar on standard error; nothing where that is no terminal."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(
        *columns, TimeRemainingColumn(), console=console, disable=not console.is_terminal,
        transient=True,
    ) as bar:  # fmt: skip
        identity = bar.add_task(task, total=None)
        yield lambda done, total: bar.update(identity, completed=done, total=total)


def show_conversion(conversion: Conversion, target: str) -> None:
    """What each pass did, the layers, and where the SNN is."""
    console = _console()
    passes = _table("Pass", "What it did", "Verified")
    for report in conversion.reports:
        done = ", ".join(f"{action} ({count})" for action, count in report.actions.items())
        difference = conversion.differences.get(report.name)
        verified = "" if difference is None else f"{difference:.1e}"
        passes.add_row(report.name, done or "nothing to do", verified)
    if not conversion.differences:
        passes.columns.pop()
    console.print(passes)
    layers = _table("Spiking layer", "Neuron", "Channels", "Threshold", "p", "Omega", "From")
    for layer in conversion.snn.layers:
        layers.add_row(
            _plain(layer.name),
            layer.neuron,
            str(layer.channels),
            f"{layer.threshold:.4g}",
            _number(layer.p),
            _number(layer.omega),
            layer.origin,
        )
    console.print(layers)
    snn = conversion.snn
    bits = snn.metadata["bits_per_spike"]
    console.print(
        f"{_plain(target)}: thresholds for T = {snn.timesteps}, {_bits(bits)}", soft_wrap=True
    )


def show_inspection(inspection: Inspection) -> None:
    """One row per node, and the totals."""
    console = _console()
    table = _table("Node", "Operator", "Role", "Shape", "Neurons", "Threshold", "p", "Omega")
    for row in inspection.rows:
        shape = (
            "?" if row.shape is None else "x".join("?" if s is None else str(s) for s in row.shape)
        )
        table.add_row(
            _plain(row.name),
            row.operator,
            row.role,
            shape,
            "" if row.neurons is None else f"{row.neurons:,}",
            _number(row.threshold),
            _number(row.p),
            _number(row.omega),
        )
    console.print(table)
    roles = ", ".join(f"{role} {count}" for role, count in inspection.roles.items())
    console.print(f"{inspection.kind}: {len(inspection.rows)} nodes ({roles})", soft_wrap=True)
    console.print(
        f"{inspection.neurons:,} neurons per sample, {inspection.parameters:,} parameters"
    )
    for row in inspection.rows:
        if row.role == "refused":
            console.print(
                f"refused: {_plain(row.name)} ({row.operator}): {_plain(row.reason)}",
                soft_wrap=True,
            )
    for key, value in inspection.metadata.items():
        if key not in ("states", "format"):
            console.print(f"{key}: {_plain(str(value))}", soft_wrap=True)


def show_convertibility(report: Convertibility) -> None:
    """The fate of every node, and what the multiply-accumulates would be driven by."""
    console = _console()
    table = _table("Node", "Operator", "Fate", "Why", "MACs", "Driven by")
    for row in report.rows:
        count = "?" if row.macs is None else f"{row.macs:,}" if row.driven else ""
        table.add_row(
            _plain(row.name), row.operator, row.fate, _plain(row.reason), count, row.driven
        )
    console.print(table)
    fates = ", ".join(f"{fate} {count}" for fate, count in report.fates.items())
    console.print(f"{len(report.rows)} nodes: {fates}", soft_wrap=True)
    if report.problem is not None:
        console.print(f"cannot be converted: {_plain(report.problem)}", soft_wrap=True)
        return
    shares = ", ".join(
        f"{_percent(report.share(key))} {driven}"
        for key, driven in _DRIVERS.items()
        if report.macs.get(key)
    )
    sized = "" if report.assumed is None else f" (open sizes taken as {report.assumed})"
    total = sum(report.macs.values())
    console.print(f"{total:,} multiply-accumulates per sample{sized}: {shares}", soft_wrap=True)
    if report.unsized:
        console.print(f"{report.unsized} more layers, whose sizes are not known")
    console.print(
        f"{report.rectifiers} layers of neurons for rectifiers, {report.encoders} that encode "
        "what is analog"
    )
    analog = ", ".join(f"{operator} {count}" for operator, count in report.compensated.items())
    console.print(f"stays analog, compensated: {analog or 'nothing'}", soft_wrap=True)


_DRIVERS = {
    "spikes": "driven by spikes",
    "input": "by the constant input, once",
    "analog": "analog",
}


def show_evaluation(evaluation: Evaluation, calibrated_on: str = "") -> None:
    """Accuracy over timesteps and with early exit, and the firing rates of the layers."""
    console = _console()
    table = _table("T", "Accuracy", "Agreement", "Error", "Firing rate", "Spikes per sample")
    early = evaluation.early_exit
    rows: list[Row | EarlyExit] = [*evaluation.rows, *([early] if early else [])]
    for row in rows:
        table.add_row(
            f"{row.timesteps:.2f}, early exit" if row is early else str(row.timesteps),
            _percent(row.accuracy),
            _percent(row.agreement),
            _number(row.error),
            f"{row.rate:.4f}",
            f"{row.spikes:,.0f}",
        )
    console.print(table)
    _show_rates(evaluation.layer_rates)
    ann = "" if evaluation.ann_accuracy is None else f", ANN {_percent(evaluation.ann_accuracy)}"
    console.print(f"{evaluation.samples:,} samples{ann}, {_bits(evaluation.bits_per_spike)}")
    if early is not None:
        console.print(
            f"early exit: mean T = {early.timesteps:.2f}, {_percent(early.saved)} of the spikes "
            f"saved; margin {early.margin:.4g}, calibrated on {_plain(calibrated_on)}",
            soft_wrap=True,
        )


def show_run(run: DatasetRun) -> None:
    """Firing rates, and the shapes of the outputs."""
    _show_rates(run.rates)
    for name, values in run.outputs.items():
        _console().print(f"{name}: {list(values.shape)} {values.dtype}", markup=False)
    _console().print(
        f"{run.samples:,} samples, T = {run.timesteps}, {run.spikes:,.0f} spikes per sample"
    )


def _show_rates(rates: dict[str, float]) -> None:
    """Firing rates per layer."""
    table = _table("Spiking layer", "Firing rate")
    for layer, rate in rates.items():
        table.add_row(_plain(layer), f"{rate:.4f}")
    _console().print(table)


def show_fit_curves(curves: Sequence[FitCurve]) -> None:
    """One row per layer: the fit curve after 1, 2, 4, ... steps and the last, and its bound."""
    steps = len(curves[0].values) if curves else 0
    shown = sorted({2**power for power in range(steps.bit_length())} | {steps} - {0})
    table = _table("Layer", "Omega", *(f"K({t})" for t in shown), f"2 Omega / {steps}")
    for curve in curves:
        values = (f"{curve.values[t - 1]:.4f}" for t in shown)
        table.add_row(_plain(curve.layer), _number(curve.omega), *values, f"{curve.bound[-1]:.4f}")
    _console().print(table)


def show_comparison(comparison: Comparison) -> None:
    """The measure by way and T, with bits and spikes."""
    console = _console()
    first, *_ = comparison.rows.values()
    columns = [f"T = {row.timesteps}" for row in first]
    table = _table("Way", *columns, "Bits per spike", f"Spikes per sample, {columns[-1]}")
    for way, rows in comparison.rows.items():
        values = [comparison.value(row) for row in rows]
        shown = map(_number if comparison.measure == "error" else _percent, values)
        table.add_row(str(way), *shown, f"{comparison.bits[way]:.3g}", f"{rows[-1].spikes:,.0f}")
    console.print(table)
    ann = "" if comparison.ann_accuracy is None else f", ANN {_percent(comparison.ann_accuracy)}"
    console.print(
        f"{comparison.measure} on {comparison.samples:,} samples{ann}; "
        "each cell converted for its T and run for it",
        soft_wrap=True,
    )


def show_best(comparison: Comparison, model: str, data: str) -> None:
    """The command that converts in the best way."""
    way, timesteps = comparison.best
    console = _console()
    console.print(f"best: {way}, T = {timesteps}")
    command = f"onnxsnn convert {model} --data {data} --timesteps {timesteps} {way.options}"
    console.print(command, soft_wrap=True, markup=False)


def _table(*columns: str) -> Table:
    table = Table(header_style="bold")
    for column in columns:
        left = column in _WORDS
        table.add_column(column, justify="left" if left else "right", overflow="fold")
    return table


_WORDS = {
    "Neuron",
    "Way",
    "Node",
    "Operator",
    "Role",
    "Pass",
    "What it did",
    "Spiking layer",
    "From",
    "Shape",
    "Fate",
    "Why",
    "Driven by",
}


def _bits(bits: float) -> str:
    return f"{bits:.3g} bit{'' if bits == 1 else 's'} per spike"


def _plain(text: str) -> str:
    """Text in which brackets are no markup."""
    return text.replace("[", r"\[")


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.2f} %"
