"""The command `fit-curve`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from onnxsnn import display
from onnxsnn.analysis.fit_curve import fit_curves
from onnxsnn.cli.options import (
    FILE,
    data_option,
    json_option,
    load_data,
    print_json,
    timesteps_option,
    unlabelled_loading_options,
)
from onnxsnn.model import SpikingModel

__all__ = ["fit_curve_command"]


@click.command("fit-curve")
@click.argument("snn", type=FILE)
@data_option
@timesteps_option
@unlabelled_loading_options
@json_option
def fit_curve_command(
    snn: Path, data: Path, timesteps: int | None, as_json: bool, **options: Any
) -> None:
    """How fast each layer's firing rates converge, and the bound 2 * Omega / t on it."""
    network = SpikingModel.load(snn)
    samples = load_data(data, network.inputs, options, labelled=False)
    with display.progress("running") as progress:
        curves = fit_curves(network, samples, timesteps, progress)
    if as_json:
        print_json([{**asdict(curve), "bound": curve.bound} for curve in curves])
    else:
        display.show_fit_curves(curves)
