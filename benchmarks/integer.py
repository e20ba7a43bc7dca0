"""What 8 bits cost and bring: the integer SNN beside the SNN that it was made of.

Accuracy at every T, on all test samples; a conversion of its own for each T. Then the time of
a timestep of VGG-16 at full width with random weights, both taking turns; the ratio is the
median of those of each round.

    python benchmarks/integer.py --model fashion-cnn.onnx --scale 1/255 \\
        --calibrate fashion-mnist/train-images-idx3-ubyte.gz \\
        --test fashion-mnist/t10k-images-idx3-ubyte.gz
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path

import numpy as np
import onnx
from convert_vgg16 import vgg16
from rich.console import Console
from rich.table import Table

from onnxsnn import Dataset, Preprocessing, Runner, convert, load_source
from onnxsnn.analysis.bench import interleaved, median_ratio
from onnxsnn.analysis.evaluate import evaluate
from onnxsnn.calibration.integer import integer_network
from onnxsnn.data import load, parse_scale

SAMPLES = 256  # for calibration
REPEATS = 7


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, help="a classifier; without it, speed alone")
    parser.add_argument("--calibrate", type=Path, help="samples; no labels needed")
    parser.add_argument("--test", type=Path, help="samples with labels")
    parser.add_argument("--scale", default="1", help="factor of the values, e.g. 1/255")
    parser.add_argument("--timesteps", type=int, nargs="+", default=[4, 8, 16, 32])
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


def accuracy(chosen: argparse.Namespace) -> Table:
    source = load_source(chosen.model)
    preprocessing = Preprocessing(scale=parse_scale(chosen.scale))
    calibration, test = (
        load(path, source.inputs, preprocessing=preprocessing)
        for path in (chosen.calibrate, chosen.test)
    )
    calibration = calibration.slice(0, SAMPLES)
    table = Table(
        "T", "float32", "integer", "same class, calibration", title=f"{len(test)} samples"
    )
    for timesteps in chosen.timesteps:
        snn = convert(source, calibration, timesteps=timesteps).snn
        rounded = integer_network(snn, source, calibration)
        found = [evaluate(each, test).rows[-1].accuracy for each in (snn, rounded.snn)]
        cells = [*found, rounded.cost.agreement]
        table.add_row(str(timesteps), *(f"{value or 0:.2%}" for value in cells))
    return table


def speed(chosen: argparse.Namespace) -> Table:
    images = np.random.default_rng(1).random((64, 3, 32, 32), np.float32)
    table = Table("Batch", "float32 ms", "integer ms", "float32 / integer", title="ms per step")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "vgg16.onnx"
        onnx.save(vgg16(), path)
        data = Dataset({"image": images})
        snn = convert(path, data, timesteps=16).snn
        rounded = integer_network(snn, load_source(path), data.slice(0, 16)).snn
    runners = {
        "float": Runner(snn, threads=chosen.threads),
        "integer": Runner(rounded, threads=chosen.threads),
    }
    for batch in chosen.batches:
        feeds = np.resize(images, (batch, *images.shape[1:]))
        turns = {
            name: ((lambda runner=runner, feeds=feeds: runner.run(feeds, 16)), 16)
            for name, runner in runners.items()
        }
        seconds = interleaved(turns, REPEATS)
        medians = [1e3 * statistics.median(values) for values in seconds.values()]
        ratio = median_ratio(seconds["float"], seconds["integer"])
        table.add_row(str(batch), *(f"{value:.2f}" for value in [*medians, ratio]))
    return table


def main() -> None:
    chosen = options()
    console = Console(width=100)
    if chosen.model:
        console.print(accuracy(chosen))
    console.print(speed(chosen))


if __name__ == "__main__":
    main()
