"""The command `fix-inputs`."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import click

from onnxsnn.cli.options import FILE, OUTPUT, check_output
from onnxsnn.errors import UsageError
from onnxsnn.files import write_model
from onnxsnn.fixed_inputs import fix_inputs
from onnxsnn.source import read_trained

__all__ = ["fix_inputs_command"]


@click.command("fix-inputs")
@click.argument("model", type=FILE)
@click.argument("settings", nargs=-1, required=True, metavar="NAME=NUMBER...")
@click.option(
    "-o", "--output", type=OUTPUT, help="Where to write; NAME.fixed.onnx here by default."
)
def fix_inputs_command(model: Path, settings: tuple[str, ...], output: Path | None) -> None:
    """Make constants of inputs of MODEL that are settings, and no samples.

    A sampling rate, or the first state of a recurrent network, comes with no sample of its own:
    `fix-inputs vad.onnx sr=16000 state=0`. Convert, and compare with, what this writes.
    """
    output = output or Path(f"{model.stem}.fixed.onnx")
    check_output(output)
    pairs = list(map(_setting, settings))
    values = dict(pairs)
    if len(values) < len(pairs):
        raise UsageError("an input is named more than once; give one number for each")
    fixed = fix_inputs(read_trained(model), values)
    write_model(fixed, output)
    click.echo(f"{output}: constants: {', '.join(values)}")


def _setting(text: str) -> tuple[str, float]:
    """NAME=NUMBER; a name may hold = itself."""
    name, _, number = text.rpartition("=")
    for kind in (int, float):  # a float would round large whole numbers
        with suppress(ValueError):
            return name, kind(number)
    raise UsageError(f"{text!r} is not of the form NAME=NUMBER")
