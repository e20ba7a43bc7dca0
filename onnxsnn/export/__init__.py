"""Taking an SNN elsewhere: as one ONNX file without states, as NIR, as arrays."""

from onnxsnn.export.loop import export_loop, loop_model
from onnxsnn.export.nir import NIR_NOTES, export_nir, nir_graph
from onnxsnn.export.npz import export_npz

__all__ = ["NIR_NOTES", "export_loop", "export_nir", "export_npz", "loop_model", "nir_graph"]
