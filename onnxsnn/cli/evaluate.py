"""The command `evaluate`."""

from __future__ import annotations

import csv
import io
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import click

from onnxsnn import display
from onnxsnn.analysis.energy import energy
from onnxsnn.analysis.evaluate import Evaluation, evaluate
from onnxsnn.analysis.layers import analyse as analyse_layers
from onnxsnn.analysis.summary import evaluation_as_dict
from onnxsnn.analysis.target import spike_ratio
from onnxsnn.cli.options import (
    FILE,
    OUTPUT,
    calibration_and_test,
    check_output,
    cost_models,
    data_option,
    energy_options,
    json_option,
    load_ann,
    load_data,
    loading_options,
    memory_option,
    print_json,
    refuse_idle,
    timesteps_option,
)
from onnxsnn.errors import UsageError
from onnxsnn.figures import counted
from onnxsnn.files import write_bytes
from onnxsnn.model import SpikingModel
from onnxsnn.runtime import BACKENDS, Runner
from onnxsnn.runtime.early_exit import calibrate_margin
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
@click.option("--csv", "csv_file", type=OUTPUT, help="Write the table as CSV.")
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
@click.option(
    "--analyse", is_flag=True,
    help="Also say where each layer's error comes from, and what it costs; needs --ann.",
)  # fmt: skip
@energy_options
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
    analyse: bool,
    with_energy: bool,
    reference: Path | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Accuracy of SNN at each timestep, and its agreement with the ANN.

    With --early-exit, each sample also stops once the margin of its greatest output says that
    more steps would not change it. Without --calibrate, a quarter of the data, 256 samples at
    most, calibrates that margin, and the rest is run.

    With --analyse, each layer's error is split into clipping, quantization, unevenness and what
    it inherits, on 512 of the samples at most, and each layer in turn is made exact. With --energy,
    synaptic operations are counted by their true fan-out, and energies modelled.
    """
    refuse_idle("--early-exit", early_exit, "calibrate", "agreement")
    refuse_idle("--energy", with_energy, "reference", "mac_energy", "ac_energy")
    if analyse and ann is None:
        raise UsageError("--analyse compares layers with the ANN's; give it with --ann")
    models = cost_models(options) if with_energy else []
    if reference is not None and ann is None:
        raise UsageError("--reference counts spikes until an SNN is as good as its ANN; give --ann")
    network = SpikingModel.load(snn)
    other = SpikingModel.load(reference) if reference is not None else None
    source = load_ann(ann, network) if ann else None
    if csv_file is not None:
        check_output(csv_file)
    margin, calibrated_on = None, ""
    if not early_exit:
        samples = load_data(data, network.inputs, options)
    else:
        known, samples = calibration_and_test(data, calibrate, network.inputs, options)
        calibrated_on = (
            f"{counted(len(known), 'sample')} of {calibrate or f'{data}, the rest of which ran'}"
        )
        with display.progress("calibrating") as progress:
            runner = Runner(network, backend, memory=memory)
            margin = calibrate_margin(
                runner, known, timesteps, agreement=agreement, progress=progress
            )
    run = partial(evaluate, ann=source, timesteps=timesteps, backend=backend, memory=memory)
    with display.progress("evaluating") as progress:
        result = run(network, samples, margin=margin, progress=progress)
    display.warn(result.warnings)
    analysis = costs = ratio = None
    if analyse and source is not None:
        with display.progress("analysing") as progress:
            analysis = analyse_layers(network, samples, source, timesteps, progress=progress)
    if with_energy:
        with display.progress("counting operations") as progress:
            costs = energy(network, samples, timesteps, models=models, progress=progress)
    if other is not None:
        with display.progress("running the reference") as progress:
            beside = run(other, samples, progress=progress)
        ratio = spike_ratio(result, beside)
    if csv_file is not None:
        write_bytes(_as_csv(result).encode(), csv_file)
    if as_json:
        print_json(evaluation_as_dict(result, analysis, costs, ratio))
        return
    display.show_evaluation(result, calibrated_on)
    if analysis is not None:
        display.show_analysis(analysis)
    if costs is not None:
        display.show_energy(costs, ratio)


def _as_csv(result: Evaluation) -> str:
    """A row for each timestep, and one with a margin where samples stopped early."""
    text = io.StringIO()
    rows = [asdict(row) for row in result.rows]
    early = [asdict(result.early_exit)] if result.early_exit else []
    columns = [*rows[0], *(["margin"] if early else [])]
    writer = csv.DictWriter(text, columns, extrasaction="ignore")
    writer.writeheader()
    writer.writerows([*rows, *early])
    return text.getvalue()
