"""The command `run`."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import click
import numpy as np

from onnxsnn import display
from onnxsnn.arrays import Array
from onnxsnn.cli.options import (
    FILE,
    OUTPUT,
    check_output,
    data_option,
    json_option,
    load_data,
    memory_option,
    print_json,
    refuse_idle,
    timesteps_option,
    unlabelled_loading_options,
)
from onnxsnn.errors import UsageError
from onnxsnn.files import write_arrays, write_bytes
from onnxsnn.model import SpikingModel
from onnxsnn.runtime import BACKENDS, Runner
from onnxsnn.runtime.dataset import run_dataset

__all__ = ["run_command"]


@click.command("run")
@click.argument("snn", type=FILE)
@data_option
@timesteps_option
@click.option(
    "-o", "--output", type=OUTPUT, help="Write the outputs: .npz, or .npy for one output."
)
@click.option("--every-step", is_flag=True, help="Write the outputs after each step, [T, N, ...].")
@click.option(
    "--backend", type=click.Choice(list(BACKENDS)), default="onnxruntime", show_default=True
)
@memory_option
@unlabelled_loading_options
@json_option
def run_command(
    snn: Path,
    data: Path,
    timesteps: int | None,
    output: Path | None,
    every_step: bool,
    backend: str,
    memory: int | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Run SNN on data, and write its outputs after the last timestep."""
    refuse_idle("-o", output is not None, "every_step")
    network = SpikingModel.load(snn)
    samples = load_data(data, network.inputs, options, labelled=False)
    if output is not None:
        _check_format(output, network)
        check_output(output)
    runner = Runner(network, backend, memory=memory, rates=True)
    with display.progress("running") as progress:
        result = run_dataset(
            runner,
            samples,
            timesteps,
            every_step=every_step,
            progress=progress,
        )
    display.warn(runner.warnings)
    if output is not None:
        _write_outputs(result.outputs, output)
    if as_json:
        shapes = {name: list(values.shape) for name, values in result.outputs.items()}
        print_json({**vars(result), "outputs": shapes})
    else:
        display.show_run(result)


def _check_format(output: Path, network: SpikingModel) -> None:
    if output.suffix not in (".npy", ".npz"):
        raise UsageError(f"{output}: the outputs are written as .npy or .npz")
    if output.suffix == ".npy" and len(network.outputs) > 1:
        raise UsageError(f"{output}: the SNN has {len(network.outputs)} outputs; write an .npz")


def _write_outputs(outputs: dict[str, Array], path: Path) -> None:
    if path.suffix == ".npz":
        write_arrays(outputs, path)
        return
    content = io.BytesIO()
    np.save(content, next(iter(outputs.values())))
    write_bytes(content.getvalue(), path)
