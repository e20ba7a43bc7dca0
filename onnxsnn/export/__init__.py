"""Taking an SNN elsewhere: as ONNX files of all timesteps or of one, as NIR, as arrays."""

from onnxsnn.export.loop import export_loop, loop_model
from onnxsnn.export.nir import NIR_NOTES, export_nir, nir_graph
from onnxsnn.export.npz import export_npz
from onnxsnn.export.step import export_step, step_model

__all__ = [
    "NIR_NOTES",
    "export_loop",
    "export_nir",
    "export_npz",
    "export_step",
    "loop_model",
    "nir_graph",
    "step_model",
]
