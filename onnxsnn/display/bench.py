"""How fast an SNN runs."""

from __future__ import annotations

from collections.abc import Sequence

from onnxsnn.analysis.bench import BenchRow
from onnxsnn.display.base import new_table, number, stdout

__all__ = ["show_bench"]


def show_bench(rows: Sequence[BenchRow]) -> None:
    """One row per batch size and T."""
    table = new_table(
        "Batch",
        "T",
        "Samples/s",
        "ms per step",
        "ANN ms per pass",
        "T steps / T passes",
        "Peak MiB",
    )
    for row in rows:
        table.add_row(
            str(row.batch),
            str(row.timesteps),
            number(row.throughput),
            number(row.step_ms),
            number(row.ann_ms),
            "" if row.ratio is None else f"{row.ratio:.2f}",
            "" if row.memory is None else f"{row.memory / 2**20:,.0f}",
        )
    stdout().print(table)
