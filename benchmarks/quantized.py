"""Networks of 8 bits as SNNs: a model as ONNX Runtime's quantizer writes it, in every way.

Accuracy of each model, and of the SNN that is made of it, at every T, on all test samples; a
conversion of its own for each T. Neurons are those of the default; bits per spike are printed.

    python benchmarks/quantized.py --model fashion-cnn.onnx --scale 1/255 \\
        --calibrate fashion-mnist/train-images-idx3-ubyte.gz \\
        --test fashion-mnist/t10k-images-idx3-ubyte.gz
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    quantize_dynamic,
    quantize_static,
)
from rich.console import Console
from rich.table import Table

from onnxsnn import Dataset, Preprocessing, convert, load_source
from onnxsnn.analysis.evaluate import evaluate
from onnxsnn.data import load, parse_scale
from onnxsnn.session import Session
from onnxsnn.source import Source

BATCH = 64
WAYS = (
    "dynamic",
    "QDQ, per tensor",
    "QDQ, per channel",
    "QOperator, per tensor",
    "QOperator, per channel",
)


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True, help="a classifier, in float32")
    parser.add_argument("--calibrate", type=Path, required=True, help="samples; no labels needed")
    parser.add_argument("--test", type=Path, required=True, help="samples with labels")
    parser.add_argument("--scale", default="1", help="factor of the values, e.g. 1/255")
    parser.add_argument("--samples", type=int, default=512, help="for calibration")
    parser.add_argument("--timesteps", type=int, nargs="+", default=[4, 8, 16])
    return parser.parse_args()


class Samples(CalibrationDataReader):  # type: ignore[misc]
    """What ONNX Runtime's quantizer sees: the samples of the conversion."""

    def __init__(self, data: Dataset) -> None:
        self._batches = data.batches(BATCH)

    def get_next(self) -> dict[str, Any] | None:
        return next((dict(inputs) for inputs, _ in self._batches), None)


def quantize(model: Path, result: Path, way: str, data: Dataset) -> None:
    """Write a model in 8 bits."""
    if way == "dynamic":
        quantize_dynamic(model, result)
        return
    form = QuantFormat.QDQ if "QDQ" in way else QuantFormat.QOperator
    each = "per channel" in way
    quantize_static(model, result, Samples(data), quant_format=form, per_channel=each)


def row(source: Source, calibration: Dataset, test: Dataset, steps: list[int]) -> list[str]:
    """Accuracy of a model, and of its SNN at every T; the most bits per spike."""
    session, right = Session(source.model), 0
    for inputs, labels in test.batches(BATCH):
        (values,) = session.run(inputs).values()
        right += int(np.count_nonzero(values.argmax(axis=1) == labels))
    snns = [convert(source, calibration, timesteps=step).snn for step in steps]
    found = [evaluate(snn, test).rows[-1].accuracy or 0.0 for snn in snns]
    bits = max(snn.metadata["bits_per_spike"] for snn in snns)
    return [f"{right / len(test):.2%}", f"{bits:.3g}", *(f"{value:.2%}" for value in found)]


def main() -> None:
    chosen = options()
    source = load_source(chosen.model)
    preprocessing = Preprocessing(scale=parse_scale(chosen.scale))
    calibration, test = (
        load(path, source.inputs, preprocessing=preprocessing)
        for path in (chosen.calibrate, chosen.test)
    )
    calibration = calibration.slice(0, chosen.samples)
    steps = [f"T = {step}" for step in chosen.timesteps]
    table = Table("Model", "itself", "bits", *steps, title=f"{len(test)} samples")
    table.add_row("float32", *row(source, calibration, test, chosen.timesteps))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "quantized.onnx"
        for way in WAYS:
            quantize(chosen.model, path, way, calibration)
            table.add_row(way, *row(load_source(path), calibration, test, chosen.timesteps))
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
