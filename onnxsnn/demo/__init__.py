"""The demo: a small trained network and its data, and methods beside each other over timesteps."""

from __future__ import annotations

from collections.abc import Callable
from importlib.resources import as_file, files

import numpy as np

from onnxsnn.analysis.comparison import Comparison, Way, compare
from onnxsnn.data import Dataset
from onnxsnn.report import ReportData, gather
from onnxsnn.report.gather import Progress
from onnxsnn.source import Source, load_source

__all__ = [
    "DEMO_TIMESTEPS",
    "DEMO_WAYS",
    "compare_demo",
    "demo_data",
    "demo_source",
    "report_demo",
]

DEMO_WAYS = (
    Way("max"), Way("percentile"), Way("bound"), Way("fit"), Way("fit", correct=True),
    Way("fit", "signed", correct=True),
)  # fmt: skip
DEMO_TIMESTEPS = (1, 2, 4, 8, 16)


REPORTED = Way("fit", correct=True)
REPORTED_TIMESTEPS = 8


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


def compare_demo(progress: Callable[[int, int], None] = lambda _done, _all: None) -> Comparison:
    """The demo network, converted in every way for every T, on its test images."""
    calibration, test = demo_data()
    return compare(demo_source(), calibration, test, DEMO_WAYS, DEMO_TIMESTEPS, progress)


def report_demo(progress: Progress) -> ReportData:
    """What a report shows of the demo network, corrected for 8 timesteps, on its test images."""
    calibration, test = demo_data()
    source = demo_source()
    snn = REPORTED.convert(source, calibration, REPORTED_TIMESTEPS)
    return gather("The demo network", snn, source, test, progress=progress)
