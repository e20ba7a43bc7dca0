"""Currents in units of their neurons' thresholds, and the thresholds 1.

    u = v + x;    s = [u >= theta];    v = u - theta s

is the same for v / theta, x / theta and a threshold of 1. The factor goes into what makes the
currents:

1. Layers of weights take it into weights and bias, a Mul by a constant into the constant.
2. An Add or Sub passes it on to both sides; constants take it.
3. Where anything else reads a tensor on the way, or another operator makes one, the layer of
   neurons keeps its thresholds; and where weights are whole numbers and thresholds no powers of
   two, as sums would no longer be exact.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from onnxsnn.arrays import Array
from onnxsnn.eight_bits import are_whole
from onnxsnn.graph import Graph, Node, Tensor, constant, floats, per_channel, sole_producer
from onnxsnn.passes.report import Report
from onnxsnn.weights import WeightLayer, weight_layer

__all__ = ["UnitReport", "scale_currents", "unit_thresholds"]


@dataclass
class UnitReport(Report):
    """The report of the pass.

    Attributes:
        grids: by layer whose thresholds became 1, what they were, one per channel [C] or for
            all [1]: what 1 is worth in its currents, in units of the activation.
    """

    grids: dict[str, Array] = field(default_factory=dict)


def unit_thresholds(
    graph: Graph, layers: Collection[str], defaults: dict[str, Array]
) -> UnitReport:
    """Make thresholds 1; spikes stay the same, up to rounding of currents.

    Args:
        graph: the step graph, its states plain inputs; it is changed.
        layers: names of the nodes that are neurons.
        defaults: the states before the first step, by input; potentials are changed.
    """
    report = UnitReport("unit_thresholds")
    for node in graph.nodes:
        if node.name not in layers:
            continue
        theta = node.inputs[1].values
        changes = _changes(graph, node.inputs[0], 1 / theta)
        if changes is None or not (_are_powers_of_two(theta) or _is_rounded(changes)):
            report.actions["thresholds kept"] += 1
            continue
        for change in changes:
            change.make()
        node.inputs[1] = floats(graph, f"{node.name}.threshold", np.ones_like(theta))
        potential = node.inputs[2].name
        defaults[potential] = (defaults[potential] / theta).astype(np.float32)
        report.grids[node.name] = theta.reshape(-1)
        report.actions["thresholds made 1"] += 1
    return report


def scale_currents(graph: Graph, neurons: Node, factor: Array) -> bool:
    """Multiply what a layer of neurons reads, in the constants that make it.

    Args:
        graph: the step graph; it is changed.
        neurons: the layer's node.
        factor: broadcastable to its currents.

    Returns:
        whether that could be done; else nothing has changed.
    """
    changes = _changes(graph, neurons.inputs[0], factor)
    for change in changes or ():
        change.make()
    return changes is not None


@dataclass(frozen=True)
class _Change:
    """What multiplies constants, and the layer whose weights they are, if they are weights."""

    make: Callable[[], None]
    layer: WeightLayer | None = None


def _are_powers_of_two(values: Array) -> bool:
    return bool(np.all(np.frexp(values)[0] == 0.5))


def _is_rounded(changes: list[_Change]) -> bool:
    """Whether weights that take the factor are no whole numbers, so that sums round anyway."""
    layers = [change.layer for change in changes if change.layer is not None]
    return not any(are_whole(layer.rows) for layer in layers)


def _changes(graph: Graph, tensor: Tensor, factor: Array) -> list[_Change] | None:
    """What multiplies a tensor that has one reader; None where nothing can."""
    node = sole_producer(graph, tensor)
    if node is None:
        return None
    layer = weight_layer(graph, node)
    if layer is not None:
        axes = len(tensor.shape or ())
        vector = per_channel(factor, axes, layer.output_axis(axes), layer.outputs)
        if vector is None:
            return None
        return [_Change(partial(layer.scale_output, vector), layer)]
    held = [position for position, given in enumerate(node.inputs) if constant(given) is not None]
    if node.op == "Mul" and held:
        return [_multiplying(graph, node, held[0], factor)]
    if node.op not in ("Add", "Sub"):
        return None
    changes = [_multiplying(graph, node, position, factor) for position in held]
    for given in node.inputs:
        if constant(given) is None:
            more = _changes(graph, given, factor)
            if more is None:
                return None
            changes += more
    return changes


def _multiplying(graph: Graph, node: Node, position: int, factor: Array) -> _Change:
    def multiply() -> None:
        held = node.inputs[position]
        node.inputs[position] = floats(graph, held.name, held.values * factor)

    return _Change(multiply)
