"""The commands `compare` and `demo`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from onnxsnn import display
from onnxsnn.analysis.comparison import TIMESTEPS, Comparison, compare, timesteps_for, ways_for
from onnxsnn.cli.options import (
    FILE,
    OUTPUT,
    calibration_and_test,
    check_output,
    data_option,
    json_option,
    loading_arguments,
    loading_options,
    print_json,
)
from onnxsnn.demo import compare_demo, report_demo
from onnxsnn.files import write_bytes
from onnxsnn.plot import check_plot, draw
from onnxsnn.report import page
from onnxsnn.source import load_source

__all__ = ["compare_command", "demo_command"]


@click.command("compare")
@click.argument("model", type=FILE)
@data_option
@click.option("--calibrate", type=FILE, help="Samples to calibrate on; a part of the data, else.")
@click.option(
    "-T", "--timesteps", type=click.IntRange(min=1), multiple=True,
    show_default=", ".join(map(str, TIMESTEPS)),
    help="A number of timesteps; repeat for several. A network of few levels is also run for "
    "as many, by default.",
)  # fmt: skip
@click.option("--plot", type=OUTPUT, help="Write a plot: .svg, .png or .pdf.")
@loading_options
@json_option
def compare_command(
    model: Path,
    data: Path,
    calibrate: Path | None,
    timesteps: tuple[int, ...],
    plot: Path | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Convert MODEL in several ways, and say which is best on these data.

    The ways are max, percentile and fit, fit with --correct and with every neuron, and thresholds
    of training where all rectifiers have one. The best is the way of fewest timesteps, then bits
    per spike, then spikes, of those within half a point of the ANN, or of the top where none
    comes near it.

    Without --calibrate, a quarter of the data, 256 samples at most, calibrates, and the rest
    is run.
    """
    source = load_source(model)
    if plot is not None:
        check_plot(plot)
        check_output(plot)
    samples, test = calibration_and_test(data, calibrate, source.inputs, options)
    with display.progress("comparing") as progress:
        ways = ways_for(source, samples)
        steps = sorted({*timesteps}) or timesteps_for(source)
        comparison = compare(source, samples, test, ways, steps, progress)
    if plot is not None:
        draw(comparison, plot)
    if as_json:
        print_json(_as_dict(comparison))
    else:
        display.show_comparison(comparison)
        given = loading_arguments(options | {"limit": len(samples)})
        display.show_best(comparison, str(model), ["--data", str(calibrate or data), *given])


@click.command("demo")
@click.option(
    "--report", type=OUTPUT, default="demo-report.html", show_default=True,
    help="Where to write the report.",
)  # fmt: skip
@json_option
def demo_command(report: Path, as_json: bool) -> None:
    """Convert the network that comes with the package, and show its accuracy over timesteps.

    It ends by writing a report on it: one HTML file.
    """
    check_output(report)
    with display.tasks() as progress:
        comparison = compare_demo(progress("converting and running"))
        found = report_demo(progress)
    write_bytes(page(found).encode(), report)
    if as_json:
        print_json({**_as_dict(comparison), "report": str(report)})
    else:
        display.show_comparison(comparison)
        click.echo(f"report: {report}")


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
