"""Accuracy over T of any trained model, ways of converting it beside each other and the ANN.

A way is a threshold method, a neuron where that is not integrate-and-fire, its levels, and
whether initial potentials are corrected: `fit`, `percentile`, `fit+correct`, `fit@signed`,
`fit@burst:4+correct`, `fit@multi-threshold:8`. Each cell is converted for its own T and run
for it; thresholds are per channel. For Fashion-MNIST's idx files:

    python benchmarks/accuracy.py --model fashion-cnn.onnx --scale 1/255 \\
        --calibrate fashion-mnist/train-images-idx3-ubyte.gz \\
        --test fashion-mnist/t10k-images-idx3-ubyte.gz
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

from onnxsnn import Dataset, Preprocessing, convert, evaluate, load_source
from onnxsnn.analysis.evaluate import Evaluation
from onnxsnn.data import load, parse_scale
from onnxsnn.neurons import RECTIFYING_NEURONS, Neuron
from onnxsnn.source import Source

WAYS = ["max", "percentile", "bound", "fit", "fit+correct"]


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--calibrate", type=Path, required=True, help="samples; no labels needed")
    parser.add_argument("--test", type=Path, required=True, help="samples with labels")
    parser.add_argument("--scale", default="1", help="factor of the values, e.g. 1/255")
    parser.add_argument("--samples", type=int, default=256, help="calibration samples")
    parser.add_argument("--skip", type=int, default=0, help="calibration samples to skip")
    parser.add_argument("--limit", type=int, help="test samples; all by default")
    parser.add_argument("--ways", nargs="+", default=WAYS)
    parser.add_argument("--timesteps", type=int, nargs="+", default=[4, 8, 16, 32])
    return parser.parse_args()


def neuron_of(name: str) -> Neuron | None:
    """A neuron by its name and levels, as in `burst:4`; None for the default one."""
    model, _, levels = name.partition(":")
    if not model:
        return None
    return RECTIFYING_NEURONS[model](**({"levels": int(levels)} if levels else {}))


def measure(
    source: Source, way: str, timesteps: int, calibration: Dataset, test: Dataset
) -> Evaluation:
    """Convert for T in one way, and run for T."""
    method, _, correct = way.partition("+")
    threshold, _, neuron = method.partition("@")
    snn = convert(
        source,
        calibration,
        timesteps=timesteps,
        threshold=threshold,
        neuron=neuron_of(neuron),
        correct=bool(correct),
    ).snn
    return evaluate(snn, test, ann=source, timesteps=timesteps)


def main() -> None:
    chosen = options()
    source = load_source(chosen.model)
    preprocessing = Preprocessing(scale=parse_scale(chosen.scale))
    calibration = load(chosen.calibrate, source.inputs, preprocessing=preprocessing)
    calibration = calibration.slice(chosen.skip, chosen.skip + chosen.samples)
    test = load(chosen.test, source.inputs, preprocessing=preprocessing)
    test = test.slice(0, chosen.limit)
    columns = [f"T = {steps}" for steps in chosen.timesteps]
    table = Table("", *columns, "bits per spike", "spikes per sample (last T)")
    for way in chosen.ways:
        results = [measure(source, way, T, calibration, test) for T in chosen.timesteps]
        cells = [f"{100 * result.rows[-1].accuracy:.2f} %" for result in results]
        *_, last = results
        table.add_row(way, *cells, f"{last.bits_per_spike:.3g}", f"{last.rows[-1].spikes:,.0f}")
        print(way, *cells, file=sys.stderr, flush=True)
    console = Console(width=120)
    console.print(table)
    console.print(
        f"{chosen.model.name}: {len(test):,} test samples, {len(calibration)} calibration samples "
        f"without labels, ANN {100 * last.ann_accuracy:.2f} %"
    )


if __name__ == "__main__":
    main()
