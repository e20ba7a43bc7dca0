"""Ways of converting, beside each other."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from onnxsnn.analysis.comparison import Comparison
from onnxsnn.convert import takes_data
from onnxsnn.display.base import new_table, percent, stdout
from onnxsnn.figures import counted, measure_text

__all__ = ["show_best", "show_comparison"]


def show_comparison(comparison: Comparison) -> None:
    """The measure by way and T, with bits and spikes."""
    console = stdout()
    first, *_ = comparison.rows.values()
    columns = [f"T = {row.timesteps}" for row in first]
    table = new_table("Way", *columns, "Bits per spike", f"Spikes per sample, {columns[-1]}")
    for way, rows in comparison.rows.items():
        shown = map(measure_text(comparison.measure), map(comparison.value, rows))
        table.add_row(str(way), *shown, f"{comparison.bits[way]:.3g}", f"{rows[-1].spikes:,.0f}")
    console.print(table)
    ann = "" if comparison.ann_accuracy is None else f", ANN {percent(comparison.ann_accuracy)}"
    console.print(
        f"{comparison.measure} on {counted(comparison.samples, 'sample')}{ann}; "
        "each cell converted for its T and run for it",
        soft_wrap=True,
    )


def show_best(comparison: Comparison, model: str, data: Sequence[str]) -> None:
    """The command that converts in the best way; `data` are the options that give the samples."""
    way, timesteps = comparison.best
    console = stdout()
    console.print(f"best: {way}, T = {timesteps}, {comparison.rule}", soft_wrap=True)
    given = data if takes_data(way.threshold, way.correct) else ()
    files = shlex.join(["onnxsnn", "convert", model, *given])
    console.print(f"{files} --timesteps {timesteps} {way.options}", soft_wrap=True, markup=False)
