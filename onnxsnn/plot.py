"""A plot of a comparison, by matplotlib, which is an extra."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from onnxsnn.analysis.comparison import Comparison
from onnxsnn.errors import UsageError
from onnxsnn.files import write_bytes

__all__ = ["check_plot", "draw"]

_FORMATS = (".svg", ".png", ".pdf")
_INK = "#808080"  # readable on light and on dark


def check_plot(path: Path) -> None:
    """Say before the work whether a plot can be drawn.

    Raises:
        UsageError: matplotlib is missing, or the file is of no format that it draws.
    """
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise UsageError(
            f"{path}: plots need matplotlib; install it with: pip install 'onnxsnn[plot]'"
        ) from error
    if path.suffix not in _FORMATS:
        raise UsageError(f"{path}: a plot is one of {', '.join(_FORMATS)}")


def draw(comparison: Comparison, path: Path) -> None:
    """One line per way over timesteps, and the ANN's level, without a background."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    ink = ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color")
    settings: dict[Any, Any] = {"svg.fonttype": "none", "svg.hashsalt": "onnxsnn"}
    with mpl.rc_context(settings | dict.fromkeys(ink, _INK)):
        figure = Figure(figsize=(7, 3.6))
        axes = figure.subplots()
        scale = 1.0 if comparison.measure == "error" else 100.0
        for way, rows in comparison.rows.items():
            values = [scale * comparison.value(row) for row in rows]
            axes.plot([r.timesteps for r in rows], values, marker="o", ms=4, label=str(way))
        if comparison.ann_accuracy is not None:
            level = scale * comparison.ann_accuracy
            axes.axhline(level, color=_INK, ls="--", lw=1, label=f"ANN, {level:.1f} %")
        ticks = [row.timesteps for row in next(iter(comparison.rows.values()))]
        axes.set_xscale("log", base=2)
        axes.set_xticks(ticks, [str(steps) for steps in ticks])
        unit = "relative error" if scale == 1.0 else f"{comparison.measure}, %"
        axes.set(xlabel="timesteps T, each converted for", ylabel=unit)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, fontsize="small")
        figure.tight_layout()
        picture = io.BytesIO()
        metadata = {"Date": None} if path.suffix == ".svg" else None
        figure.savefig(picture, format=path.suffix[1:], transparent=True, metadata=metadata)
    write_bytes(picture.getvalue(), path)
