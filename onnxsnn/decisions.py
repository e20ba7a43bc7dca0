"""Whether samples that are run together decide on something together, and not each for itself.

A network that takes one way or another by the mean of a score, and was written for one sample,
would take the same way for all samples of a batch. What it gives of a few may not show that, as
these may all go the same way. What comparisons read does: where one of three samples is another,
no more than a third of it may change.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx

from onnxsnn.arrays import Array
from onnxsnn.graph import Graph, Node, constant, is_float, part_up_to
from onnxsnn.session import Session

__all__ = ["decide_together", "deciding_part"]

_DECIDE = {
    *("ArgMax", "ArgMin", "Hardmax", "If", "TopK"),
    *("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"),
    *("Ceil", "Floor", "Round", "Sign"),
}
_CASTS = {"Cast", "CastLike"}
_SAMPLES = 3


def deciding_part(graph: Graph) -> Graph | None:
    """The part that gives what comparisons, and their like, read; None where there are none."""
    read = [tensor for node in graph.nodes if _decides(node) for tensor in node.inputs]
    names = [t.name for t in read if constant(t) is None]
    return part_up_to(graph, list(dict.fromkeys(names))) if names else None


def _decides(node: Node) -> bool:
    """Whether a node may jump where what it reads hardly changes, and something reads that."""
    jumps = node.op in _DECIDE or (node.op in _CASTS and not is_float(node.outputs[0]))
    return jumps and any(tensor.outputs for tensor in node.outputs)


def decide_together(model: onnx.ModelProto, pair: Mapping[str, Array]) -> bool:
    """Whether one of three samples changes more than its share of what decides.

    Args:
        model: of the `deciding_part`; an output of another size for other samples is not looked at.
        pair: two samples that differ, [2, ...] by input name.
    """
    session, rows = Session(model), np.arange(_SAMPLES) % 2
    read = {name: pair[name] for name in session.inputs}
    if not read:
        return False
    before = session.run({name: values[rows] for name, values in read.items()})
    for sample in range(_SAMPLES):
        others = np.where(np.arange(_SAMPLES) == sample, 1 - rows, rows)
        after = session.run({name: values[others] for name, values in read.items()})
        if any(_changes_more(values, after[name]) for name, values in before.items()):
            return True
    return False


def _changes_more(before: Array, after: Array) -> bool:
    """Whether more than the share of a sample changes."""
    if before.shape != after.shape:
        return False
    changed = int(before.size - np.isclose(before, after, rtol=0, atol=0, equal_nan=True).sum())
    return _SAMPLES * changed > before.size
