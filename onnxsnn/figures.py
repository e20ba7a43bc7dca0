"""Numbers as people read them, in tables and reports alike."""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["counted", "joules", "measure_text", "number", "percent"]


def counted(count: int, noun: str) -> str:
    """So many of what a noun names: `1 sample`, `2,000 samples`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def number(value: float | None) -> str:
    """Four significant digits; nothing for None."""
    return "" if value is None else f"{value:.4g}"


def percent(value: float | None) -> str:
    """A share as a percentage; nothing for None."""
    return "" if value is None else f"{100 * value:.2f} %"


def measure_text(measure: str) -> Callable[[float], str]:
    """How values of a measure are written."""
    return number if measure == "error" else percent


def joules(picojoules: float) -> str:
    """An energy in the unit that suits it."""
    for factor, unit in ((1e9, "mJ"), (1e6, "µJ"), (1e3, "nJ")):
        if picojoules >= factor:
            return f"{picojoules / factor:.3g} {unit}"
    return f"{picojoules:.3g} pJ"
