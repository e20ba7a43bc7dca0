"""The command `convert`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
import onnx

from onnxsnn import display
from onnxsnn.analysis.evaluate import Evaluation, evaluate
from onnxsnn.cli.options import (
    FILE,
    OUTPUT,
    check_output,
    files_read,
    is_read,
    json_option,
    load_optional,
    number_or_auto,
    print_json,
    refuse_idle,
    refuse_read,
    unlabelled_loading_options,
)
from onnxsnn.convert import DEFAULT_TIMESTEPS, THRESHOLDS, Conversion, convert, takes_data
from onnxsnn.data import Dataset
from onnxsnn.errors import OnnxSnnError, UsageError
from onnxsnn.files import write_model
from onnxsnn.neurons import MOST_DIGITS, MOST_LEVELS, RECTIFYING_NEURONS, neuron_of
from onnxsnn.source import Source, load_source
from onnxsnn.timesteps import AGREEMENT, ERROR, LIMIT, Found, fewest_timesteps

__all__ = ["convert_command"]

_MEASURED_STEPS = 512  # of all samples together, by which one sees whether the network survived,
_MEASURED = 16, 64  # samples at least, and at most


@click.command("convert")
@click.argument("model", type=FILE)
@click.option("-o", "--output", type=OUTPUT, help="Where to write; NAME.snn.onnx here by default.")
@click.option("--data", type=FILE, help="Samples to calibrate on; labels are not needed.")
@click.option(
    "-T", "--timesteps", default=str(DEFAULT_TIMESTEPS), show_default=True, metavar="NUMBER|auto",
    callback=number_or_auto,
    help="Number of timesteps that will be run; `auto` looks for the smallest that will do.",
)  # fmt: skip
@click.option(
    "--agreement", type=float, default=AGREEMENT, show_default=True,
    help="For `-T auto`: the share of the samples that must keep the ANN's class. Those that "
    "thresholds are fitted to do so more than others.",
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
    "--levels", type=click.IntRange(1, MOST_LEVELS),
    help="Spikes in a burst, or sizes of a multi-threshold neuron's spike.",
)  # fmt: skip
@click.option(
    "--digits", type=click.IntRange(1, MOST_DIGITS),
    help="Binary digits of these sizes: 1 for powers of two, 2 by default.",
)  # fmt: skip
@click.option(
    "--initial-potential", type=float,
    help="Membrane potential before the first step, in thresholds; by default as trained, or 0.5, "
    "and 0 for multi-threshold neurons, which round to the nearest size.",
)  # fmt: skip
@click.option("--per-layer", is_flag=True, help="One threshold per layer, not one per channel.")
@click.option(
    "--correct/--no-correct", default=None,
    help="Fit each layer's weights and neurons to what really arrives there, on all data; or "
    "nothing but thresholds. By default, `fit` does it quickly, on few samples.",
)  # fmt: skip
@click.option(
    "--anytime", is_flag=True,
    help="Let the correction make neurons fire early, for outputs that say much after few steps, "
    "as early exit wants; costs spikes.",
)  # fmt: skip
@click.option(
    "--delay", default="0", show_default=True, metavar="NUMBER|auto", callback=number_or_auto,
    help="Steps that the outputs leave out; `auto` estimates how long spikes take to arrive.",
)  # fmt: skip
@click.option("--strict", is_flag=True, help="Refuse what would not be driven by spikes.")
@click.option(
    "--integer", is_flag=True,
    help="Weights and spikes of 8 bits, in quantized operators; says what that costs.",
)  # fmt: skip
@click.option(
    "--keep-intermediate", is_flag=True,
    help="Write the graph after every pass before it has neurons, into a folder beside the SNN: "
    "NAME.snn.passes.",
)  # fmt: skip
@click.option(
    "--verify", is_flag=True,
    help="Compare the file's outputs with those of the graph as it is read, and outputs before and "
    "after every pass that should keep them.",
)  # fmt: skip
@unlabelled_loading_options
@json_option
def convert_command(
    model: Path,
    output: Path | None,
    data: Path | None,
    timesteps: int | None,
    agreement: float,
    error: float,
    threshold: str | None,
    neuron: str,
    levels: int | None,
    digits: int | None,
    initial_potential: float | None,
    per_layer: bool,
    correct: bool | None,
    anytime: bool,
    delay: int | None,
    strict: bool,
    integer: bool,
    keep_intermediate: bool,
    verify: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Convert MODEL, a trained network, into an SNN.

    Without data, thresholds come from training where the graph has them, else from its
    BatchNormalizations, else from random input. With data, what the SNN keeps of MODEL's outputs
    is measured on up to 64 of the samples.
    """
    output = output or Path(f"{model.stem}.snn.onnx")
    check_output(output)
    if timesteps is None and delay:
        raise UsageError("-T auto tries each T from 1 on, below --delay too; give --delay auto")
    refuse_idle("-T auto", timesteps is None, "agreement", "error")
    source = load_source(model)
    samples = load_optional(data, source.inputs, options)
    ways: Mapping[str, Any] = {
        "threshold": threshold,
        "neuron": neuron_of(
            neuron, levels=levels, digits=digits, initial_potential=initial_potential
        ),
        "start_as_trained": initial_potential is None,
        "per_layer": per_layer,
        "correct": correct,
        "anytime": anytime,
        "delay": delay,
        "strict": strict,
        "integer": integer,
    }
    keeper = _Keeper(output) if keep_intermediate else None
    with display.progress("calibrating") as progress:
        found, fitted_to = None, samples
        if timesteps is None:
            fitted_to = samples if takes_data(threshold, correct) else None
            found = _fewest(source, samples, fitted_to, ways, agreement, error)
            timesteps = found.conversion.snn.timesteps
        if found is not None and not (verify or keep_intermediate):
            conversion = found.conversion
        else:
            conversion = convert(
                source,
                fitted_to,
                timesteps=timesteps,
                **ways,
                verify=verify,
                keep=keeper,
                progress=progress,
            )
    conversion.snn.save(output)
    if keeper is not None:
        keeper.remove_older()
    measured = None if samples is None else _measured(conversion, source, samples)
    if found is not None and not found.is_enough:
        conversion.warnings.append(f"even {LIMIT} timesteps do not meet the target on these data")
    display.warn(conversion.warnings)
    if as_json:
        print_json(
            {
                "output": str(output),
                "passes": {report.name: dict(report.actions) for report in conversion.reports},
                "differences": conversion.differences,
                "layers": [layer.summary() for layer in conversion.snn.layers],
                **conversion.snn.metadata,
                "measured": measured and _summary(measured),
                "warnings": conversion.warnings,
            }
        )
    else:
        display.show_conversion(conversion, str(output), measured)


def _fewest(
    source: Source,
    samples: Dataset | None,
    fitted_to: Dataset | None,
    ways: Mapping[str, Any],
    agreement: float,
    error: float,
) -> Found:
    """The conversion for the smallest number of timesteps that will do."""
    if samples is None:
        raise UsageError("timesteps are found on data; give some with --data, or a number with -T")

    def conversion_for(timesteps: int) -> Conversion:
        return convert(source, fitted_to, timesteps=timesteps, **ways)

    return fewest_timesteps(source, samples, conversion_for, agreement, error)


def _measured(conversion: Conversion, source: Source, samples: Dataset) -> Evaluation | None:
    """The SNN beside its ANN, on some of the samples; None where they cannot be compared."""
    if not conversion.snn.comparable_outputs:
        return None
    least, most = _MEASURED
    some = samples.spread(max(min(_MEASURED_STEPS // conversion.snn.timesteps, most), least))
    try:
        with display.progress("measuring") as progress:
            return evaluate(conversion.snn, some, ann=source, progress=progress)
    except OnnxSnnError as error:
        conversion.warnings.append(f"what the SNN keeps of the ANN could not be measured: {error}")
        return None


def _summary(measured: Evaluation) -> dict[str, Any]:
    """What holds after all timesteps, and of how many samples."""
    last = measured.rows[-1]
    return {
        "samples": measured.samples,
        "agreement": last.agreement,
        "error": last.error,
        "spikes": last.spikes,
    }


class _Keeper:
    """Writes every intermediate model into a folder beside the SNN, in the place of older ones."""

    def __init__(self, output: Path) -> None:
        self._folder = output.with_suffix(".passes")
        if self._folder == output:
            raise UsageError(f"{output}: --keep-intermediate writes there; choose another output")
        self._read = files_read()
        self._written: set[Path] = set()
        self._folder.mkdir(exist_ok=True)

    def __call__(self, name: str, model: onnx.ModelProto) -> None:
        path = self._folder / f"{len(self._written) + 1}-{name}.onnx"
        refuse_read(path, self._read)
        write_model(model, path)
        self._written.add(path)

    def remove_older(self) -> None:
        """Remove what an earlier conversion wrote there, and this one did not."""
        for path in {*self._folder.iterdir()} - self._written:
            named_so = re.fullmatch(r"\d+-\w+\.onnx", path.name)
            if named_so and not is_read(path, self._read):
                path.unlink()
