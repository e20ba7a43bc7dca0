"""The command `bench`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from onnxsnn import display
from onnxsnn.analysis.bench import bench
from onnxsnn.cli.options import (
    FILE,
    json_option,
    load_ann,
    load_optional,
    memory_option,
    print_json,
    unlabelled_loading_options,
)
from onnxsnn.model import SpikingModel

__all__ = ["bench_command"]


@click.command("bench")
@click.argument("snn", type=FILE)
@click.option("--ann", type=FILE, help="The trained network, to compare with.")
@click.option(
    "-B", "--batch", "batches", type=click.IntRange(min=1), multiple=True, default=(1, 16, 64),
    show_default=True, help="Samples at once; may be repeated.",
)  # fmt: skip
@click.option(
    "-T", "--timesteps", type=click.IntRange(min=1), multiple=True, default=(4, 16, 64),
    show_default=True, help="Timesteps; may be repeated.",
)  # fmt: skip
@click.option("--threads", type=click.IntRange(min=1), help="For ONNX Runtime; its choice, else.")
@click.option("--data", type=FILE, help="What to run on; noise, else.")
@memory_option
@unlabelled_loading_options
@json_option
def bench_command(
    snn: Path,
    ann: Path | None,
    batches: tuple[int, ...],
    timesteps: tuple[int, ...],
    threads: int | None,
    data: Path | None,
    memory: int | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Speed and memory of SNN, by batch size and T, beside T passes of the ANN.

    Times are medians; SNN and ANN take turns, so that what else the machine does is in both.
    """
    network = SpikingModel.load(snn)
    source = load_ann(ann, network) if ann else None
    samples = load_optional(data, network.inputs, options)
    with display.progress("measuring") as progress:
        rows = bench(
            network,
            batches,
            timesteps,
            ann=source,
            data=samples,
            threads=threads,
            memory=memory,
            progress=progress,
        )
    if as_json:
        print_json([asdict(row) for row in rows])
    else:
        display.show_bench(rows)
