"""Accuracy over T of any trained model, threshold methods beside each other and the ANN.

Each cell is converted for its own T and run for it: integrate-and-fire, binary spikes,
thresholds per channel, initial potential theta/2; `fit+correct` also corrects the initial
potentials. For Fashion-MNIST's idx files:

    python benchmarks/accuracy.py --model fashion-cnn.onnx --scale 1/255 \\
        --calibrate fashion-mnist/train-images-idx3-ubyte.gz \\
        --test fashion-mnist/t10k-images-idx3-ubyte.gz
"""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console
from rich.table import Table

from onnxsnn import Preprocessing, convert, evaluate, load_source
from onnxsnn.data import load, parse_scale

METHODS = ["max", "percentile", "bound", "fit", "fit+correct"]


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--calibrate", type=Path, required=True, help="samples; no labels needed")
    parser.add_argument("--test", type=Path, required=True, help="samples with labels")
    parser.add_argument("--scale", default="1", help="factor of the values, e.g. 1/255")
    parser.add_argument("--samples", type=int, default=256, help="calibration samples")
    parser.add_argument("--skip", type=int, default=0, help="calibration samples to skip")
    parser.add_argument("--limit", type=int, help="test samples; all by default")
    parser.add_argument("--methods", nargs="+", default=METHODS)
    parser.add_argument("--timesteps", type=int, nargs="+", default=[4, 8, 16, 32])
    return parser.parse_args()


def main() -> None:
    chosen = options()
    source = load_source(chosen.model)
    preprocessing = Preprocessing(scale=parse_scale(chosen.scale))
    calibration = load(chosen.calibrate, source.inputs, preprocessing=preprocessing)
    calibration = calibration.slice(chosen.skip, chosen.skip + chosen.samples)
    test = load(chosen.test, source.inputs, preprocessing=preprocessing)
    test = test.slice(0, chosen.limit)
    table = Table("T", *chosen.methods, "spikes per sample (last)", "ANN")
    for steps in chosen.timesteps:
        cells = []
        for method in chosen.methods:
            threshold, _, correct = method.partition("+")
            snn = convert(
                source, calibration, timesteps=steps, threshold=threshold, correct=bool(correct)
            ).snn
            result = evaluate(snn, test, ann=source, timesteps=steps)
            cells.append(f"{100 * result.rows[-1].accuracy:.2f} %")
        spikes = f"{result.rows[-1].spikes:,.0f}"
        table.add_row(str(steps), *cells, spikes, f"{100 * result.ann_accuracy:.2f} %")
    console = Console(width=100)
    console.print(table)
    console.print(
        f"{chosen.model.name}: {len(test):,} test samples, {len(calibration)} calibration samples "
        "without labels; integrate-and-fire, 1 bit per spike, v0 = theta/2"
    )


if __name__ == "__main__":
    main()
