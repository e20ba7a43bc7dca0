"""The command `evaluate`."""

from __future__ import annotations

import csv
import io
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from onnxsnn import display
from onnxsnn.analysis.evaluate import Evaluation, evaluate
from onnxsnn.cli.options import (
    FILE,
    calibration_and_test,
    data_option,
    json_option,
    load_data,
    loading_options,
    memory_option,
    print_json,
    timesteps_option,
)
from onnxsnn.errors import UsageError
from onnxsnn.files import check_writable, write_bytes
from onnxsnn.model import SpikingModel
from onnxsnn.runtime import BACKENDS, Runner
from onnxsnn.runtime.early_exit import calibrate_margin
from onnxsnn.source import load_source
from onnxsnn.timesteps import AGREEMENT

__all__ = ["evaluate_command"]


@click.command("evaluate")
@click.argument("snn", type=FILE)
@data_option
@click.option("--ann", type=FILE, help="The trained network, to compare with.")
@timesteps_option
@click.option(
    "--backend", type=click.Choice(list(BACKENDS)), default="onnxruntime", show_default=True
)
@click.option("--csv", "csv_file", type=FILE, help="Write the table as CSV.")
@click.option("--early-exit", is_flag=True, help="Also stop each sample once it is certain.")
@click.option(
    "--calibrate", type=FILE,
    help="For --early-exit: samples that say when; a part of the data, else.",
)  # fmt: skip
@click.option(
    "--agreement", type=float, default=AGREEMENT, show_default=True,
    help="For --early-exit: the share of the samples that must keep what all steps give.",
)  # fmt: skip
@memory_option
@loading_options
@json_option
def evaluate_command(
    snn: Path,
    data: Path,
    ann: Path | None,
    timesteps: int | None,
    backend: str,
    memory: int | None,
    csv_file: Path | None,
    early_exit: bool,
    calibrate: Path | None,
    agreement: float,
    as_json: bool,
    **options: Any,
) -> None:
    """Accuracy of SNN at each timestep, and its agreement with the ANN.

    With --early-exit, each sample also stops once the margin of its greatest output says that
    more steps would not change it. Without --calibrate, a quarter of the data, 256 samples at
    most, calibrates that margin, and the rest is run.
    """
    if calibrate is not None and not early_exit:
        raise UsageError("--calibrate is for --early-exit; give both, or neither")
    network = SpikingModel.load(snn)
    source = load_source(ann) if ann else None
    if csv_file is not None:
        check_writable(csv_file)
    samples = load_data(data, network.inputs, options)
    margin, calibrated_on = None, ""
    if early_exit:
        known, samples = calibration_and_test(samples, calibrate, network.inputs, options)
        calibrated_on = f"{len(known)} samples of {calibrate or f'{data}, the rest of which ran'}"
        with display.progress("calibrating") as progress:
            runner = Runner(network, backend, memory=memory)
            margin = calibrate_margin(
                runner, known, timesteps, agreement=agreement, progress=progress
            )
    with display.progress("evaluating") as progress:
        result = evaluate(
            network,
            samples,
            ann=source,
            timesteps=timesteps,
            margin=margin,
            backend=backend,
            memory=memory,
            progress=progress,
        )
    display.warn(result.warnings)
    if csv_file is not None:
        write_bytes(_as_csv(result).encode(), csv_file)
    if as_json:
        print_json(asdict(result))
    else:
        display.show_evaluation(result, calibrated_on)


def _as_csv(result: Evaluation) -> str:
    text = io.StringIO()
    rows = [asdict(row) for row in result.rows]
    writer = csv.DictWriter(text, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
