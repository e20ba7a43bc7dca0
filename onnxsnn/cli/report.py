"""The command `report`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from onnxsnn import display
from onnxsnn.cli.options import (
    FILE,
    OUTPUT,
    check_output,
    cost_models,
    cost_options,
    data_option,
    load_ann,
    load_data,
    loading_options,
    timesteps_option,
)
from onnxsnn.files import write_bytes
from onnxsnn.model import SpikingModel
from onnxsnn.report import gather, page

__all__ = ["report_command"]


@click.command("report")
@click.argument("snn", type=FILE)
@click.option("--ann", type=FILE, required=True, help="The trained network, to compare with.")
@data_option
@click.option("-o", "--output", type=OUTPUT, help="Where to write; NAME.snn.html here by default.")
@timesteps_option
@cost_options
@loading_options
def report_command(
    snn: Path, ann: Path, data: Path, output: Path | None, timesteps: int | None, **options: Any
) -> None:
    """What SNN does over time, on one page: a HTML file that needs no network and no script.

    It shows accuracy over timesteps, where each layer's error comes from and what it costs,
    fit curves, firing rates, spikes, samples that flip class, and energy. Its figures are those
    of `evaluate --analyse --energy`.
    """
    output = output or Path(f"{snn.stem}.html")
    models = cost_models(options)
    network = SpikingModel.load(snn)
    source = load_ann(ann, network)
    check_output(output)
    samples = load_data(data, network.inputs, options)
    with display.tasks() as progress:
        found = gather(
            click.format_filename(snn.name),
            network,
            source,
            samples,
            timesteps,
            models=models,
            progress=progress,
        )
    write_bytes(page(found).encode(), output)
    click.echo(f"report: {output}")
