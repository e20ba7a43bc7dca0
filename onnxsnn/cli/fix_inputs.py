"""The command `fix-inputs`."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import click

from onnxsnn.arrays import Array
from onnxsnn.cli.options import FILE, OUTPUT, check_output, refuse_read
from onnxsnn.errors import UsageError
from onnxsnn.files import write_model
from onnxsnn.fixed_inputs import fix_inputs
from onnxsnn.readers import read_array
from onnxsnn.source import read_trained

__all__ = ["fix_inputs_command"]


@click.command("fix-inputs")
@click.argument("model", type=FILE)
@click.argument("settings", nargs=-1, required=True, metavar="NAME=VALUE...")
@click.option(
    "-o", "--output", type=OUTPUT, help="Where to write; NAME.fixed.onnx here by default."
)
def fix_inputs_command(model: Path, settings: tuple[str, ...], output: Path | None) -> None:
    """Make constants of inputs of MODEL that are settings, and no samples.

    A sampling rate, means, or the first state of a recurrent network come with no sample of their
    own. VALUE is a number, which fills the input, or an array as .npy, in the input's shape:
    `fix-inputs vad.onnx sr=16000 state=0`, `fix-inputs m.onnx mean=mean.npy`. Convert, and compare
    with, what this writes.
    """
    output = output or Path(f"{model.stem}.fixed.onnx")
    check_output(output)
    source = read_trained(model)
    inputs = [tensor.name for tensor in source.graph.input]
    pairs = [_setting(text, inputs, output) for text in settings]
    values = dict(pairs)
    if len(values) < len(pairs):
        raise UsageError("an input is named more than once; give one value for each")
    write_model(fix_inputs(source, values), output)
    click.echo(f"{output}: constants: {', '.join(values)}")


def _setting(text: str, inputs: Sequence[str], output: Path) -> tuple[str, float | Array]:
    """NAME=NUMBER or NAME=FILE.npy; a name, or a file's, may hold = itself.

    The file is not the one to write.
    """
    known = [name for name in inputs if text.startswith(f"{name}=")]
    name = max(known, key=len, default=text.rpartition("=")[0])
    value = text.removeprefix(f"{name}=")
    for kind in (int, float):  # a float would round large whole numbers
        with suppress(ValueError):
            return name, kind(value)
    file = Path(value)
    if not name or file.suffix.lower() != ".npy":
        raise UsageError(f"{text!r} is not of the form NAME=NUMBER or NAME=FILE.npy")
    values = read_array(file)
    refuse_read(output, [file])
    return name, values
