"""Integrate-and-fire whose threshold is 1 takes fewer operators, and sends the same spikes.

    s = 1 if u >= 1 else 0;    v = u - s

Neither the difference to the threshold nor the product with it has to be computed.
"""

from __future__ import annotations

import numpy as np

from onnxsnn.functions import INTEGER, UNIT
from onnxsnn.graph import Graph, Node, constant
from onnxsnn.neurons import IntegrateAndFire
from onnxsnn.passes.report import Report

__all__ = ["has_unit", "unit_neurons"]

_OPERATORS = {
    IntegrateAndFire.operator: UNIT + IntegrateAndFire.operator,
    INTEGER + IntegrateAndFire.operator: INTEGER + UNIT + IntegrateAndFire.operator,
}


def has_unit(node: Node) -> bool:
    """Whether a node is of neurons that would take fewer operators with a threshold of 1."""
    return node.op in _OPERATORS


def unit_neurons(graph: Graph) -> Report:
    """Give neurons whose threshold is 1 the body that knows.

    Args:
        graph: the step graph, its states plain inputs; it is changed.
    """
    report = Report("unit_neurons")
    for node in graph.nodes:
        if has_unit(node) and np.all(constant(node.inputs[1]) == 1):
            node.op = _OPERATORS[node.op]
            report.actions["thresholds of 1 made use of"] += 1
    return report
