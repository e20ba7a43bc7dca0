"""The demo: a small trained network and its data, and methods beside each other over timesteps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.resources import as_file, files
from itertools import product

import numpy as np

from onnxsnn.analysis.evaluate import Evaluation, Row, evaluate
from onnxsnn.convert import convert
from onnxsnn.data import Dataset
from onnxsnn.source import Source, load_source

__all__ = ["DEMO_METHODS", "DEMO_TIMESTEPS", "Comparison", "compare", "demo_data", "demo_source"]

DEMO_METHODS = ("max", "percentile", "bound", "fit", "fit, corrected")
DEMO_TIMESTEPS = (1, 2, 4, 8, 16)


@dataclass(frozen=True)
class Comparison:
    """The demo's result: by method, one row per number of timesteps converted for and run."""

    ann_accuracy: float
    samples: int
    rows: dict[str, list[Row]]
    bits_per_spike: float


def demo_source() -> Source:
    """The trained network: convolutions with BatchNorm, a residual Add, pooling."""
    with as_file(files(__package__) / "model.onnx") as path:
        return load_source(path)


def demo_data() -> tuple[Dataset, Dataset]:
    """256 calibration images without labels, and 1,000 test images, of Fashion-MNIST."""
    with as_file(files(__package__) / "data.npz") as path, np.load(path) as arrays:
        name = demo_source().inputs[0].name
        scaled = {key: arrays[key].astype(np.float32) / 255 for key in arrays if "images" in key}
        labels = arrays["test_labels"].astype(np.int64)
    calibration = Dataset({name: scaled["calibration_images"]}, None)
    return calibration, Dataset({name: scaled["test_images"]}, labels)


def compare(
    methods: Sequence[str] = DEMO_METHODS,
    timesteps: Sequence[int] = DEMO_TIMESTEPS,
    progress: Callable[[int, int], None] = lambda _done, _all: None,
) -> Comparison:
    """Convert the demo network for every method and T, and run each for its T steps."""
    source, (calibration, test) = demo_source(), demo_data()
    rows: dict[str, list[Row]] = {method: [] for method in methods}
    results: dict[bytes, Evaluation] = {}  # by graph: what is the same for every T runs once
    for done, (method, steps) in enumerate(product(methods, sorted(timesteps, reverse=True))):
        threshold, corrected, _ = method.partition(", corrected")
        snn = convert(
            source, calibration, timesteps=steps, threshold=threshold, correct=bool(corrected)
        ).snn
        graph = snn.model.graph.SerializeToString()
        if graph not in results:
            results[graph] = evaluate(snn, test, ann=source, timesteps=steps)
        rows[method].insert(0, results[graph].rows[steps - 1])
        progress(done + 1, len(methods) * len(timesteps))
    last = results[graph]
    assert last.ann_accuracy is not None
    return Comparison(last.ann_accuracy, len(test), rows, last.bits_per_spike)
