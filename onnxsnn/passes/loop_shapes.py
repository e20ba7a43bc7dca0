"""The shapes of what Loops and Scans give, which no inference knows: they are run, on zeros."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from onnxsnn.arrays import Array
from onnxsnn.errors import OnnxSnnError
from onnxsnn.graph import Graph, is_static_shape, part_up_to, to_model, zeros
from onnxsnn.session import Session

__all__ = ["loop_shapes"]


def loop_shapes(graph: Graph, *numbers: int) -> list[dict[str, list[int]]]:
    """For each number of samples the shapes, by name; none where sizes of inputs are not known."""
    loops = [node for node in graph.nodes if node.op in ("Loop", "Scan")]
    names = [tensor.name for node in loops for tensor in node.outputs if tensor.outputs]
    if not names or not all(is_static_shape(tensor.shape) for tensor in graph.inputs):
        return [{} for _ in numbers]
    try:
        session = Session(to_model(part_up_to(graph, names)))
        return [_shapes(session, names, zeros(graph, samples)) for samples in numbers]
    except OnnxSnnError:
        return [{} for _ in numbers]


def _shapes(
    session: Session, names: Sequence[str], feeds: Mapping[str, Array]
) -> dict[str, list[int]]:
    values = session.run({name: feeds[name] for name in session.inputs}).values()
    return {name: list(value.shape) for name, value in zip(names, values, strict=True)}
