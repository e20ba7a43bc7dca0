"""The command line: onnxsnn convert, inspect, run, evaluate, fit-curve, compare, demo."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np
import onnx

from onnxsnn import display
from onnxsnn.analysis.comparison import TIMESTEPS, Comparison, compare
from onnxsnn.analysis.convertibility import convertibility
from onnxsnn.analysis.evaluate import Evaluation, evaluate
from onnxsnn.analysis.fit_curve import fit_curves
from onnxsnn.analysis.inspection import inspect
from onnxsnn.arrays import Array
from onnxsnn.convert import DEFAULT_TIMESTEPS, THRESHOLDS, Conversion, convert
from onnxsnn.data import Dataset
from onnxsnn.demo import compare_demo
from onnxsnn.errors import OnnxSnnError, UsageError
from onnxsnn.files import check_writable, write_bytes, write_model
from onnxsnn.model import SpikingModel
from onnxsnn.neurons import RECTIFYING_NEURONS
from onnxsnn.options import (
    FILE,
    calibration_and_test,
    data_option,
    json_option,
    load_data,
    loading_options,
    neuron_of,
    number_or_auto,
    timesteps_option,
)
from onnxsnn.plot import check_plot, draw
from onnxsnn.runtime import BACKENDS, Runner
from onnxsnn.runtime.dataset import run_dataset
from onnxsnn.runtime.early_exit import calibrate_margin
from onnxsnn.source import Source, load_source
from onnxsnn.timesteps import AGREEMENT, ERROR, LIMIT, fewest_timesteps

__all__ = ["main"]


class _Group(click.Group):
    """Turns our errors into one line on standard error, and an exit code."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except OnnxSnnError as error:
            raise _Failure(error) from error


class _Failure(click.ClickException):
    """How click shows one of our errors."""

    def __init__(self, error: OnnxSnnError) -> None:
        super().__init__(str(error))
        self.exit_code = error.exit_code  # type: ignore[misc]  # click reads the instance's


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="onnxsnn")
def main() -> None:
    """Turn a trained ONNX network into a spiking neural network, as ONNX, and run it."""


@main.command("convert")
@click.argument("model", type=FILE)
@click.option("-o", "--output", type=FILE, help="Where to write; NAME.snn.onnx here by default.")
@click.option("--data", type=FILE, help="Samples to calibrate on; labels are not needed.")
@click.option(
    "-T", "--timesteps", default=str(DEFAULT_TIMESTEPS), show_default=True, metavar="NUMBER|auto",
    callback=number_or_auto,
    help="Number of timesteps that will be run; `auto` finds the smallest that will do.",
)  # fmt: skip
@click.option(
    "--agreement", type=float, default=AGREEMENT, show_default=True,
    help="For `-T auto`: the share of the samples that must keep the ANN's class.",
)  # fmt: skip
@click.option(
    "--error", type=float, default=ERROR, show_default=True,
    help="For `-T auto`, where outputs are no classes: the relative error that is allowed.",
)  # fmt: skip
@click.option("--threshold", type=click.Choice(THRESHOLDS), help="Threshold method.")
@click.option(
    "--neuron", type=click.Choice(list(RECTIFYING_NEURONS)), default="if", show_default=True,
    help="Neuron model; where values can be negative, its signed counterpart.",
)  # fmt: skip
@click.option(
    "--levels", type=click.IntRange(1, 16),
    help="Spikes in a burst, or sizes of a multi-threshold neuron's spike.",
)  # fmt: skip
@click.option(
    "--initial-potential", type=click.FloatRange(0.0, 1.0),
    help="Membrane potential before the first step, in thresholds; as trained, or 0.5, by default.",
)  # fmt: skip
@click.option("--per-layer", is_flag=True, help="One threshold per layer, not one per channel.")
@click.option(
    "--correct", is_flag=True, help="Fit each layer to what really arrives there; needs data."
)
@click.option("--strict", is_flag=True, help="Refuse what would not be driven by spikes.")
@click.option("--keep-intermediate", is_flag=True, help="Write the graph after every pass.")
@click.option("--verify", is_flag=True, help="Compare outputs before and after every pass.")
@loading_options
@json_option
def _convert(
    model: Path,
    output: Path | None,
    data: Path | None,
    timesteps: int | None,
    agreement: float,
    error: float,
    threshold: str | None,
    neuron: str,
    levels: int | None,
    initial_potential: float | None,
    per_layer: bool,
    correct: bool,
    strict: bool,
    keep_intermediate: bool,
    verify: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Convert MODEL, a trained network, into an SNN.

    Without data, thresholds come from training where the graph has them, else from its
    BatchNormalizations, else from random input.
    """
    output = output or Path(f"{model.stem}.snn.onnx")
    if output.resolve() == model.resolve():
        raise UsageError(f"{output}: is the model itself; choose another --output")
    source = load_source(model)
    check_writable(output)
    samples = load_data(data, source.inputs, options, labelled=False) if data else None
    ways: dict[str, Any] = {
        "threshold": threshold,
        "neuron": neuron_of(neuron, levels, initial_potential),
        "per_layer": per_layer,
        "correct": correct,
        "strict": strict,
    }
    with display.progress("calibrating") as progress:
        found = timesteps
        if found is None:
            found = _fewest(source, samples, ways, agreement, error)
        conversion = convert(
            source,
            samples,
            timesteps=LIMIT if found is None else found,
            **ways,
            verify=verify,
            keep=_Keeper(output) if keep_intermediate else None,
            progress=progress,
        )
    conversion.snn.save(output)
    display.warn(conversion.warnings)
    if found is None:
        display.warn([f"even {LIMIT} timesteps do not meet the target on these data"])
    if as_json:
        _print_json(
            {
                "output": str(output),
                "passes": {report.name: dict(report.actions) for report in conversion.reports},
                "differences": conversion.differences,
                "layers": [asdict(layer) for layer in conversion.snn.layers],
                **conversion.snn.metadata,
            }
        )
    else:
        display.show_conversion(conversion, str(output))


def _fewest(
    source: Source,
    samples: Dataset | None,
    ways: Mapping[str, Any],
    agreement: float,
    error: float,
) -> int | None:
    """The smallest number of timesteps that will do."""
    if samples is None:
        raise UsageError("timesteps are found on data; give some with --data, or a number with -T")
    conversion_for = partial(_converted, source, samples, ways)
    return fewest_timesteps(source, samples, conversion_for, agreement, error)


def _converted(
    source: Source, samples: Dataset, ways: Mapping[str, Any], timesteps: int
) -> Conversion:
    return convert(source, samples, timesteps=timesteps, **ways)


class _Keeper:
    """Writes every intermediate model into a folder beside the SNN."""

    def __init__(self, output: Path) -> None:
        self._folder = output.with_suffix(".passes")
        self._count = 0

    def __call__(self, name: str, model: onnx.ModelProto) -> None:
        self._count += 1
        self._folder.mkdir(exist_ok=True)
        write_model(model, self._folder / f"{self._count}-{name}.onnx")


@main.command("inspect")
@click.argument("file", type=FILE)
@click.option("--convertible", is_flag=True, help="Say what `convert` would do with every node.")
@json_option
@click.pass_context
def _inspect(ctx: click.Context, file: Path, convertible: bool, as_json: bool) -> None:
    """Say what is in FILE: a source model, an intermediate or an SNN.

    With --convertible, say what would become of every node of a source model, and what share
    of its multiply-accumulates spikes would drive; the exit code is 1 if it cannot be converted.
    """
    if convertible:
        report = convertibility(file)
        if as_json:
            _print_json({"convertible": report.convertible, **asdict(report)})
        else:
            display.show_convertibility(report)
        ctx.exit(0 if report.convertible else 1)
    inspection = inspect(file)
    if as_json:
        _print_json(asdict(inspection))
    else:
        display.show_inspection(inspection)


@main.command("run")
@click.argument("snn", type=FILE)
@data_option
@timesteps_option
@click.option("-o", "--output", type=FILE, help="Write the outputs: .npz, or .npy for one output.")
@click.option("--every-step", is_flag=True, help="Write the outputs after each step, [T, N, ...].")
@click.option(
    "--backend", type=click.Choice(list(BACKENDS)), default="onnxruntime", show_default=True
)
@loading_options
@json_option
def _run(
    snn: Path,
    data: Path,
    timesteps: int | None,
    output: Path | None,
    every_step: bool,
    backend: str,
    as_json: bool,
    **options: Any,
) -> None:
    """Run SNN on data, and write its outputs after the last timestep."""
    network = SpikingModel.load(snn)
    samples = load_data(data, network.inputs, options)
    if output is not None:
        _check_output(output, network)
    with display.progress("running") as progress:
        result = run_dataset(
            Runner(network, backend, rates=True),
            samples,
            timesteps,
            every_step=every_step,
            progress=progress,
        )
    if output is not None:
        _write_arrays(result.outputs, output)
    if as_json:
        shapes = {name: list(values.shape) for name, values in result.outputs.items()}
        _print_json({**vars(result), "outputs": shapes})
    else:
        display.show_run(result)


@main.command("evaluate")
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
@loading_options
@json_option
def _evaluate(
    snn: Path,
    data: Path,
    ann: Path | None,
    timesteps: int | None,
    backend: str,
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
            margin = calibrate_margin(
                Runner(network, backend), known, timesteps, agreement=agreement, progress=progress
            )
    with display.progress("evaluating") as progress:
        result = evaluate(
            network,
            samples,
            ann=source,
            timesteps=timesteps,
            margin=margin,
            backend=backend,
            progress=progress,
        )
    if csv_file is not None:
        write_bytes(_as_csv(result).encode(), csv_file)
    if as_json:
        _print_json(asdict(result))
    else:
        display.show_evaluation(result, calibrated_on)


@main.command("fit-curve")
@click.argument("snn", type=FILE)
@data_option
@timesteps_option
@loading_options
@json_option
def _fit_curve(snn: Path, data: Path, timesteps: int | None, as_json: bool, **options: Any) -> None:
    """How fast each layer's firing rates converge, and the bound 2 * Omega / t on it."""
    network = SpikingModel.load(snn)
    samples = load_data(data, network.inputs, options, labelled=False)
    with display.progress("running") as progress:
        curves = fit_curves(network, samples, timesteps, progress)
    if as_json:
        _print_json([{**asdict(curve), "bound": curve.bound} for curve in curves])
    else:
        display.show_fit_curves(curves)


@main.command("compare")
@click.argument("model", type=FILE)
@data_option
@click.option("--calibrate", type=FILE, help="Samples to calibrate on; a part of the data, else.")
@click.option(
    "-T", "--timesteps", type=click.IntRange(min=1), multiple=True, default=TIMESTEPS,
    show_default=True, help="A number of timesteps; repeat for several.",
)  # fmt: skip
@click.option("--plot", type=FILE, help="Write a plot: .svg, .png or .pdf.")
@loading_options
@json_option
def _compare(
    model: Path,
    data: Path,
    calibrate: Path | None,
    timesteps: tuple[int, ...],
    plot: Path | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Convert MODEL in every way, and say which is best on these data.

    Without --calibrate, a quarter of the data, 256 samples at most, calibrates, and the rest
    is run.
    """
    source = load_source(model)
    if plot is not None:
        check_plot(plot)
        check_writable(plot)
    test = load_data(data, source.inputs, options)
    samples, test = calibration_and_test(test, calibrate, source.inputs, options)
    with display.progress("comparing") as progress:
        comparison = compare(source, samples, test, timesteps=timesteps, progress=progress)
    if plot is not None:
        draw(comparison, plot)
    if as_json:
        _print_json(_as_dict(comparison))
    else:
        display.show_comparison(comparison)
        display.show_best(comparison, str(model), str(calibrate or data))


def _as_dict(comparison: Comparison) -> dict[str, Any]:
    way, steps = comparison.best
    return {
        "measure": comparison.measure,
        "samples": comparison.samples,
        "ann_accuracy": comparison.ann_accuracy,
        "ways": [
            {**asdict(way), "bits_per_spike": comparison.bits[way], "rows": [*map(asdict, rows)]}
            for way, rows in comparison.rows.items()
        ],
        "best": {**asdict(way), "timesteps": steps},
    }


@main.command("demo")
@json_option
def _demo(as_json: bool) -> None:
    """Convert the network that comes with the package, and show its accuracy over timesteps."""
    with display.progress("converting and running") as progress:
        comparison = compare_demo(progress)
    if as_json:
        _print_json(_as_dict(comparison))
    else:
        display.show_comparison(comparison)


def _check_output(output: Path, network: SpikingModel) -> None:
    if output.suffix not in (".npy", ".npz"):
        raise UsageError(f"{output}: the outputs are written as .npy or .npz")
    if output.suffix == ".npy" and len(network.outputs) > 1:
        raise UsageError(f"{output}: the SNN has {len(network.outputs)} outputs; write an .npz")
    check_writable(output)


def _write_arrays(outputs: dict[str, Array], path: Path) -> None:
    buffer = io.BytesIO()
    if path.suffix == ".npy":
        np.save(buffer, next(iter(outputs.values())))
    else:
        np.savez(buffer, **outputs)  # type: ignore[arg-type]
    write_bytes(buffer.getvalue(), path)


def _as_csv(result: Evaluation) -> str:
    text = io.StringIO()
    rows = [asdict(row) for row in result.rows]
    writer = csv.DictWriter(text, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _print_json(value: Any) -> None:
    click.echo(json.dumps(value, indent=2))
