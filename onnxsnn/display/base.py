"""What the tables share: the console, cells, progress bars, warnings."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from onnxsnn.convert import Progress as Report
from onnxsnn.figures import number, percent

__all__ = [
    "new_table",
    "number",
    "percent",
    "progress",
    "show_bits",
    "stdout",
    "tasks",
    "warn",
]

_WIDE = 160  # for pipes and files, where rich would take 80 and cut names
_LEFT = {  # columns of words, not numbers
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
    "Layer",
    "Model, not a measurement",
}


def stdout() -> Console:
    """Where tables go."""
    console = Console(highlight=False)
    if not console.file.isatty():
        console.width = _WIDE
    return console


def warn(warnings: Sequence[str]) -> None:
    """Print each warning once, on standard error."""
    console = Console(stderr=True, soft_wrap=True, highlight=False)
    for warning in dict.fromkeys(warnings):
        console.print(f"[yellow]warning:[/] {escape(warning)}")


@contextmanager
def progress(task: str) -> Iterator[Report]:
    """A progress bar on standard error; nothing where that is no terminal."""
    with _bar() as bar:
        yield _counter(bar, task)


def _bar() -> Progress:
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    return Progress(
        *columns, TimeRemainingColumn(), console=console, disable=not console.is_terminal,
        transient=True,
    )  # fmt: skip


def _counter(bar: Progress, task: str) -> Report:
    identity = bar.add_task(task, total=None)
    return lambda done, total: bar.update(identity, completed=done, total=total)


@contextmanager
def tasks() -> Iterator[Callable[[str], Report]]:
    """As `progress`, for several tasks one after the other, each by its name."""
    with _bar() as bar:
        yield lambda task: _counter(bar, task)


def new_table(*columns: str) -> Table:
    """A table with these columns; words to the left, numbers to the right."""
    table = Table(header_style="bold")
    for column in columns:
        left = column in _LEFT
        table.add_column(column, justify="left" if left else "right", overflow="fold")
    return table


def show_bits(bits: float) -> str:
    """How much a spike carries."""
    return f"{bits:.3g} bit{'' if bits == 1 else 's'} per spike"
