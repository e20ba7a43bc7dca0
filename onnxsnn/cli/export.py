"""The command `export`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import click

from onnxsnn import display
from onnxsnn.cli.options import FILE, OUTPUT, check_output
from onnxsnn.errors import UsageError
from onnxsnn.export import NIR_NOTES, export_loop, export_nir, export_npz, export_step
from onnxsnn.model import SpikingModel

__all__ = ["export_command"]


@click.command("export")
@click.argument("snn", type=FILE)
@click.option("--loop", is_flag=True, help="One ONNX file of all timesteps, no states outside.")
@click.option("--step", is_flag=True, help="One ONNX file of one timestep, states as plain inputs.")
@click.option("--nir", is_flag=True, help="NIR, for other simulators and chips.")
@click.option("--npz", is_flag=True, help="Arrays, for FPGA and simulators of your own.")
@click.option(
    "-o",
    "--output",
    type=OUTPUT,
    help="Where to write; NAME.loop.onnx, .step.onnx, .nir or .npz here.",
)
@click.option("--allow-loss", is_flag=True, help="Leave out what the format cannot say.")
def export_command(snn: Path, output: Path | None, allow_loss: bool, **asked: bool) -> None:
    """Write SNN in another form: with --loop, --step, --nir or --npz."""
    kinds = [kind for kind, given in asked.items() if given]
    if len(kinds) != 1:
        raise UsageError("give one of --loop, --step, --nir and --npz")
    (kind,) = kinds
    if kind in _LOSSLESS and allow_loss:
        raise UsageError(f"--{kind} loses nothing; leave out --allow-loss")
    suffix = f".{kind}.onnx" if kind in _LOSSLESS else f".{kind}"
    output = output or Path(snn.name.removesuffix(".onnx").removesuffix(".snn") + suffix)
    check_output(output)
    network = SpikingModel.load(snn)
    display.warn([f"lost: {loss}" for loss in _write(kind, network, output, allow_loss)])
    display.show_export(str(output), _NOTES[kind])


def _write(kind: str, snn: SpikingModel, output: Path, allow_loss: bool) -> list[str]:
    """Write one form, and say what it loses."""
    if kind in _LOSSY:
        return _LOSSY[kind](snn, output, allow_loss=allow_loss)
    _LOSSLESS[kind](snn, output)
    return []


_LOSSLESS = {"loop": export_loop, "step": export_step}
_LOSSY: dict[str, Callable[..., list[str]]] = {"nir": export_nir, "npz": export_npz}
_NOTES = {
    "loop": ("its input timesteps is an int64 scalar",),
    "step": ("its states are zeros before the first step, then the outputs NAME.next",),
    "nir": NIR_NOTES,
    "npz": ("how to read it is in its entry README",),
}
