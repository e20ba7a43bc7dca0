"""Taking an SNN elsewhere: as one ONNX file without states, as NIR, as arrays."""

from onnxsnn.export.loop import export_loop, loop_model

__all__ = ["export_loop", "loop_model"]
