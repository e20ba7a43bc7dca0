"""Turn a trained ONNX network into a spiking neural network, as ONNX, and run it."""

from onnxsnn.analysis.evaluate import evaluate
from onnxsnn.analysis.inspection import inspect
from onnxsnn.convert import Conversion, convert
from onnxsnn.data import Dataset, Preprocessing
from onnxsnn.errors import OnnxSnnError
from onnxsnn.model import SpikingModel
from onnxsnn.neurons import IntegrateAndFire
from onnxsnn.runtime import Runner
from onnxsnn.source import load_source

__all__ = [
    "Conversion",
    "Dataset",
    "IntegrateAndFire",
    "OnnxSnnError",
    "Preprocessing",
    "Runner",
    "SpikingModel",
    "convert",
    "evaluate",
    "inspect",
    "load_source",
]
