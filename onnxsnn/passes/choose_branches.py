"""An If that sizes alone decide takes the branch that it takes for data of these sizes.

Exporters write an If where a size is not known to them: torch's `x.squeeze(1)` becomes "if axis 1
has size 1, Squeeze, else Identity". Where nothing but sizes of the inputs goes into a condition, it
is computed once, and is a constant. Where it asks whether there is one sample, as `x.squeeze(0)`
does, the branch is that of several, if it gives the same numbers for one.
"""

from __future__ import annotations

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
    reads_values,
    to_model,
    unique_name,
)
from onnxsnn.passes.report import Report
from onnxsnn.session import Session, fixed_batch
from onnxsnn.trial import same_but_for_axes
from onnxsnn.value_sizes import decides_sizes

__all__ = ["choose_branches", "decided_by_values"]


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
        found = _conditions(graph, node.inputs[0], data)
        if not found:
            continue
        alone, together = found
        if np.array_equal(alone, together):
            report.actions["branches chosen by the sizes of the data"] += 1
            report.warnings.append(
                f"{describe(node)} depends on the sizes of the inputs; "
                "the SNN is for inputs of the sizes that the data have"
            )
        elif _fits_one(graph, node, together, data):
            report.actions["branches chosen for several samples"] += 1
        else:
            continue
        node.inputs[0] = gs.Constant(unique_name(graph, f"{node.name}.condition"), together)
    return report


def _conditions(graph: Graph, condition: Tensor, data: Dataset) -> list[Array]:
    """What a condition is for one sample and for two; none where values decide.

    Of a fixed number of samples, both are for these. An If behind another is not decided before
    that is.
    """
    if decided_by_values(graph, condition):
        return []
    session = Session(to_model(part_up_to(graph, [condition.name])))
    if not session.inputs:  # it is drawn at random
        return []
    fixed = fixed_batch([tensor.shape for tensor in graph.inputs]) is not None
    copies = (_copies(data, number) for number in ((1, 1) if fixed else (1, 2)))
    found = [session.run({name: feeds[name] for name in session.inputs}) for feeds in copies]
    return [values for outputs in found for values in outputs.values()]


def decided_by_values(graph: Graph, condition: Tensor) -> bool:
    """Whether more than sizes of the graph's inputs goes into a condition.

    How much is found in the inputs is more, and so is what an If, Loop or Scan gives.
    """
    within = any(decides_sizes(node) or has_body(node) for node in nodes_before([condition]))
    return within or reads_values(graph, condition)


def _fits_one(graph: Graph, node: Node, condition: Array, data: Dataset) -> bool:
    """Whether one sample gives the same numbers where a condition is what it is for several."""
    changed = graph.copy()
    (same,) = (n for n in changed.nodes if n.outputs[0].name == node.outputs[0].name)
    same.inputs[0] = gs.Constant(unique_name(changed, "condition"), condition)
    return same_but_for_axes(to_model(graph), to_model(changed), _copies(data, 1))


def _copies(data: Dataset, number: int) -> dict[str, Array]:
    """The first sample, so many times."""
    copies = data.take(np.zeros(number, np.intp))
    return next(copies.batches(number))[0]
