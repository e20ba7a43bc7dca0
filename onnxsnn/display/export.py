"""Where an export is, and what its readers must know."""

from __future__ import annotations

from collections.abc import Sequence

from rich.markup import escape

from onnxsnn.display.base import stdout

__all__ = ["show_export"]


def show_export(target: str, notes: Sequence[str]) -> None:
    """The file, and a line per note."""
    console = stdout()
    console.print(f"{escape(target)}:", soft_wrap=True)
    for note in notes:
        console.print(f"  {escape(note)}", soft_wrap=True)
