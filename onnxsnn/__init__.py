"""Turn a trained ONNX network into a spiking neural network, as ONNX, and run it."""

from onnxsnn.analysis.evaluate import evaluate
from onnxsnn.analysis.inspection import inspect
from onnxsnn.convert import Conversion, convert
from onnxsnn.data import Dataset, Preprocessing
from onnxsnn.errors import OnnxSnnError
from onnxsnn.model import SpikingModel
from onnxsnn.neurons import (
    BurstIntegrateAndFire,
    IntegrateAndFire,
    MultiThreshold,
    SignedIntegrateAndFire,
)
from onnxsnn.runtime import Runner
from onnxsnn.source import load_source

__all__ = [
    "BurstIntegrateAndFire",
    "Conversion",
    "Dataset",
    "IntegrateAndFire",
    "MultiThreshold",
    "OnnxSnnError",
    "Preprocessing",
    "Runner",
    "SignedIntegrateAndFire",
    "SpikingModel",
    "convert",
    "evaluate",
    "inspect",
    "load_source",
]
