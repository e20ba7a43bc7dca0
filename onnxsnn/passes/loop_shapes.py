"""The shapes of what Loops and Scans give, which no inference knows: they are run, on zeros."""

from __future__ import annotations

from onnxsnn.errors import OnnxSnnError
from onnxsnn.graph import Graph, is_static_shape, part_up_to, to_model, zeros
from onnxsnn.session import Session

__all__ = ["loop_shapes"]


def loop_shapes(graph: Graph, samples: int) -> dict[str, list[int]]:
    """The shapes for so many samples, by name; none where the inputs' sizes are not known."""
    loops = [node for node in graph.nodes if node.op in ("Loop", "Scan")]
    names = [tensor.name for node in loops for tensor in node.outputs if tensor.outputs]
    if not names or not all(is_static_shape(tensor.shape) for tensor in graph.inputs):
        return {}
    feeds = zeros(graph, samples)
    try:
        session = Session(to_model(part_up_to(graph, names)))
        values = session.run({name: feeds[name] for name in session.inputs})
    except OnnxSnnError:
        return {}
    return {n: list(v.shape) for n, v in zip(names, values.values(), strict=True)}
