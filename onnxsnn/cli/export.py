"""The command `export`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import click

from onnxsnn import display
from onnxsnn.cli.options import FILE, OUTPUT, check_output
from onnxsnn.errors import UsageError
from onnxsnn.export import NIR_NOTES, export_loop, export_nir, export_npz
from onnxsnn.model import SpikingModel

__all__ = ["export_command"]


@click.command("export")
@click.argument("snn", type=FILE)
@click.option("--loop", is_flag=True, help="One ONNX file of all timesteps, no states outside.")
@click.option("--nir", is_flag=True, help="NIR, for other simulators and chips.")
@click.option("--npz", is_flag=True, help="Arrays, for FPGA and simulators of your own.")
@click.option(
    "-o", "--output", type=OUTPUT, help="Where to write; NAME.loop.onnx, .nir or .npz here."
)
@click.option("--allow-loss", is_flag=True, help="Leave out what the format cannot say.")
def export_command(
    snn: Path, loop: bool, nir: bool, npz: bool, output: Path | None, allow_loss: bool
) -> None:
    """Write SNN in another form: with --loop, --nir or --npz."""
    asked = [kind for kind, given in (("loop", loop), ("nir", nir), ("npz", npz)) if given]
    if len(asked) != 1:
        raise UsageError("give one of --loop, --nir and --npz")
    if loop and allow_loss:
        raise UsageError("--loop loses nothing; leave out --allow-loss")
    suffix, write, notes = _KINDS[asked[0]]
    output = output or Path(snn.name.removesuffix(".onnx").removesuffix(".snn") + suffix)
    check_output(output)
    network = SpikingModel.load(snn)
    losses = write(network, output, allow_loss=allow_loss)
    display.warn([f"lost: {loss}" for loss in losses])
    display.show_export(str(output), notes)


def _loop(snn: SpikingModel, output: Path, allow_loss: bool) -> list[str]:  # noqa: ARG001
    export_loop(snn, output)
    return []


_KINDS: dict[str, tuple[str, Callable[..., list[str]], tuple[str, ...]]] = {
    "loop": (".loop.onnx", _loop, ("its input timesteps is an int64 scalar",)),
    "nir": (".nir", export_nir, NIR_NOTES),
    "npz": (".npz", export_npz, ("how to read it is in its entry README",)),
}
