"""An If that sizes alone decide takes the branch that it takes for data of these sizes.

Exporters write an If where a size is not known to them: torch's `x.squeeze(1)` becomes "if axis 1
has size 1, Squeeze, else Identity". Where nothing but sizes of the inputs goes into a condition,
and the number of samples makes no difference, it is computed once, and is a constant.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import onnx_graphsurgeon as gs

from onnxsnn.arrays import Array
from onnxsnn.data import Dataset
from onnxsnn.graph import (
    Graph,
    Node,
    Tensor,
    constant,
    describe,
    has_body,
    nodes_before,
    part_up_to,
    to_model,
    unique_name,
)
from onnxsnn.passes.report import Report
from onnxsnn.session import Session, fixed_batch

__all__ = ["choose_branches"]

_SIZES_OF = {"Shape", "Size"}


def choose_branches(graph: Graph, data: Dataset) -> Report:
    """Make constants of the conditions that sizes decide; folding constants does the rest.

    Args:
        graph: it is changed.
        data: samples, of which the first is taken for all.
    """
    report = Report("choose_branches")
    for node in graph.nodes:
        if node.op != "If" or constant(node.inputs[0]) is not None:
            continue
        condition = _decided(graph, node.inputs[0], data)
        if condition is not None:
            name = unique_name(graph, f"{node.name}.condition")
            node.inputs[0] = gs.Constant(name, condition)
            report.actions["branches chosen by the sizes of the data"] += 1
            report.warnings.append(
                f"{describe(node)} depends on the sizes of the inputs; "
                "the SNN is for inputs of the sizes that the data have"
            )
    return report


def _decided(graph: Graph, condition: Tensor, data: Dataset) -> Array | None:
    """What a condition is for one sample and for two; None where values or their number decide.

    An If behind another is not decided before that is.
    """
    before = nodes_before([condition])
    if any(map(has_body, before)) or _reads_values(graph, condition, before):
        return None
    session = Session(to_model(part_up_to(graph, [condition.name])))
    if not session.inputs:  # it is drawn at random
        return None
    numbers = (1,) if fixed_batch([tensor.shape for tensor in graph.inputs]) else (1, 2)
    copies = (data.take(np.zeros(number, np.intp)) for number in numbers)
    batches = (next(alike.batches(len(alike)))[0] for alike in copies)
    found = [session.run({name: feeds[name] for name in session.inputs}) for feeds in batches]
    first, *others = (values for outputs in found for values in outputs.values())
    return first if all(np.array_equal(first, other) for other in others) else None


def _reads_values(graph: Graph, tensor: Tensor, before: Iterable[Node]) -> bool:
    """Whether more than sizes of the graph's inputs goes into a tensor."""
    sizes = {size.name for node in before if node.op in _SIZES_OF for size in node.outputs}
    inputs = {id(given) for given in graph.inputs}
    read = [tensor, *(given for node in nodes_before([tensor], sizes) for given in node.inputs)]
    return any(id(given) in inputs for given in read if given.name not in sizes)
