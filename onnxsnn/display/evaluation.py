"""What a run gave: accuracy, firing rates, fit curves."""

from __future__ import annotations

from collections.abc import Sequence

from rich.markup import escape

from onnxsnn.analysis.evaluate import EarlyExit, Evaluation, Row
from onnxsnn.analysis.fit_curve import FitCurve
from onnxsnn.display.base import new_table, number, percent, show_bits, stdout
from onnxsnn.figures import counted
from onnxsnn.runtime.dataset import DatasetRun

__all__ = ["show_evaluation", "show_fit_curves", "show_run"]


def show_evaluation(evaluation: Evaluation, calibrated_on: str = "") -> None:
    """Accuracy over timesteps and with early exit, and the firing rates of the layers."""
    console = stdout()
    table = new_table("T", "Accuracy", "Agreement", "Error", "Firing rate", "Spikes per sample")
    early = evaluation.early_exit
    rows: list[Row | EarlyExit] = [*evaluation.rows, *([early] if early else [])]
    for row in rows:
        table.add_row(
            f"{row.timesteps:.2f}, early exit" if row is early else str(row.timesteps),
            percent(row.accuracy),
            percent(row.agreement),
            number(row.error),
            f"{row.rate:.4f}",
            f"{row.spikes:,.0f}",
        )
    console.print(table)
    _show_rates(evaluation.layer_rates)
    ann = "" if evaluation.ann_accuracy is None else f", ANN {percent(evaluation.ann_accuracy)}"
    samples = counted(evaluation.samples, "sample")
    console.print(f"{samples}{ann}, {show_bits(evaluation.bits_per_spike)}")
    if early is not None:
        console.print(
            f"early exit: mean T = {early.timesteps:.2f}, {percent(early.saved)} of the spikes "
            f"saved, {early.speedup:.2f} times as fast; margin {early.margin:.4g}, "
            f"calibrated on {escape(calibrated_on)}",
            soft_wrap=True,
        )


def show_run(run: DatasetRun) -> None:
    """Firing rates, and the shapes of the outputs."""
    _show_rates(run.rates)
    for name, values in run.outputs.items():
        stdout().print(f"{name}: {list(values.shape)} {values.dtype}", markup=False)
    stdout().print(
        f"{counted(run.samples, 'sample')}, T = {run.timesteps}, "
        f"{run.spikes:,.0f} spikes per sample"
    )


def _show_rates(rates: dict[str, float]) -> None:
    """Firing rates per layer."""
    table = new_table("Spiking layer", "Firing rate")
    for layer, rate in rates.items():
        table.add_row(escape(layer), f"{rate:.4f}")
    stdout().print(table)


def show_fit_curves(curves: Sequence[FitCurve]) -> None:
    """One row per layer: the fit curve after 1, 2, 4, ... steps and the last, and its bound."""
    if not curves:
        stdout().print("no layer was active on these data, so that none has a fit curve")
        return
    steps = len(curves[0].values)
    shown = sorted({2**power for power in range(steps.bit_length())} | {steps})
    table = new_table("Layer", "Omega", *(f"K({t})" for t in shown), f"2 Omega / {steps}")
    for curve in curves:
        values = (f"{curve.values[t - 1]:.4f}" for t in shown)
        table.add_row(escape(curve.layer), number(curve.omega), *values, f"{curve.bound[-1]:.4f}")
    stdout().print(table)
