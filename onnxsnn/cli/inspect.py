"""The command `inspect`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from onnxsnn import display
from onnxsnn.analysis.convertibility import convertibility
from onnxsnn.analysis.inspection import inspect
from onnxsnn.cli.options import (
    FILE,
    json_option,
    print_json,
)

__all__ = ["inspect_command"]


@click.command("inspect")
@click.argument("file", type=FILE)
@click.option("--convertible", is_flag=True, help="Say what `convert` would do with every node.")
@json_option
@click.pass_context
def inspect_command(ctx: click.Context, file: Path, convertible: bool, as_json: bool) -> None:
    """Say what is in FILE: a source model, an intermediate or an SNN.

    With --convertible, say what would become of every node of a source model, and what share
    of its multiply-accumulates spikes would drive; the exit code is 1 if it cannot be converted.
    """
    if convertible:
        report = convertibility(file)
        if as_json:
            print_json({"convertible": report.convertible, **asdict(report)})
        else:
            display.show_convertibility(report)
        ctx.exit(0 if report.convertible else 1)
    inspection = inspect(file)
    if as_json:
        print_json(asdict(inspection))
    else:
        display.show_inspection(inspection)
