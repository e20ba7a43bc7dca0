"""Turn a trained ONNX network into a spiking neural network, as ONNX, and run it.

>>> import onnxsnn
>>> from onnxsnn.demo import demo_data, demo_source
>>> calibration, test = demo_data()
>>> snn = onnxsnn.convert(demo_source(), calibration, timesteps=4).snn
>>> inputs, labels = next(test.batches(100))
>>> classes = onnxsnn.Runner(snn).run(inputs).outputs["logits"].argmax(1)
>>> bool((classes == labels).mean() > 0.8)
True
"""

from onnxsnn.analysis.energy import energy
from onnxsnn.analysis.evaluate import evaluate
from onnxsnn.analysis.fit_curve import fit_curves
from onnxsnn.analysis.inspection import inspect
from onnxsnn.analysis.layers import analyse
from onnxsnn.convert import Conversion, convert
from onnxsnn.data import Dataset, Preprocessing
from onnxsnn.errors import OnnxSnnError
from onnxsnn.export import export_loop, export_nir, export_npz, export_step
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
    "analyse",
    "convert",
    "energy",
    "evaluate",
    "export_loop",
    "export_nir",
    "export_npz",
    "export_step",
    "fit_curves",
    "inspect",
    "load_source",
]
