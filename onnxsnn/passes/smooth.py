"""Neurons without a step at their threshold, to tell what a graph does from what rounding does.

    u = v + x;    s = clip(u / theta, 0, 1);    v = u - theta * s

A spike may come or not by the last bit of a sum, and in a deep network of many neurons one of
them changes much. Of such neurons, outputs differ by no more than what went in.
"""

from __future__ import annotations

from onnxsnn.functions import SMOOTH
from onnxsnn.graph import Graph
from onnxsnn.neurons import NEURONS
from onnxsnn.passes.report import Report

__all__ = ["smooth"]

_OPERATORS = {neuron.operator for neuron in NEURONS.values()}


def smooth(graph: Graph) -> Report:
    """Make neurons smooth, but for those whose spikes are bytes; other states than potentials rest.

    Args:
        graph: the step graph, its states plain inputs; it is changed.
    """
    report = Report("smooth", preserves_values=False)
    for node in graph.nodes:
        if node.op in _OPERATORS:
            report.actions[f"{node.op} made smooth"] += 1
            node.op, node.attrs = SMOOTH + node.op, {}
    return report
