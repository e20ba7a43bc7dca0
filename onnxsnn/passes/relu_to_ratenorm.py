"""Write every rectifier as a Rate Norm Layer: `theta * RateNorm(x, theta)`.

RateNorm(x, theta) = clip(x, 0, theta) / theta is the firing rate, in [0, 1], that a neuron
of threshold theta goes to (Ding et al., IJCAI 2021, section 3.1); the Mul behind it gives
back the activation.

1. Relu, or Max with 0: theta is not set yet; it is a power of two beyond any activation,
   so that dividing and multiplying by it is exact.
2. Clip from 0 to c (ReLU6, a clipped ReLU, an RNL): theta = c, which the graph was trained
   with. Min(., c) and Max(., 0) in either order are the same, and so are several rectifiers one
   behind the other, with whatever clips between, before and behind.
3. A clipped rectifier whose output is rounded to L levels by Floor(L * r + c) / L, as QCFS
   does with c = 1/2 (Bu et al., ICLR 2022), or by Round: as 2, and the rounding goes, since a
   neuron that starts at c * theta rounds so itself. The fraction c is reported.
4. A rectifier of what was rectified before it was pooled, moved or put together goes, unless it
   clips lower: neurons there would but round again.
5. A rectifier that is only a gate (see `operators.rectifier_limit`) stays.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from onnxsnn.arrays import Array
from onnxsnn.graph import (
    Graph,
    Node,
    Tensor,
    bypass,
    channel_axis,
    data_input,
    per_channel,
    producer,
    remove,
    replace_everywhere,
    sole_consumer,
    sole_producer,
)
from onnxsnn.operators import clipped_between, constant_operand, rectifier_limit
from onnxsnn.passes.report import Report
from onnxsnn.ratenorm import RECTIFYING, UNSET_THRESHOLD, limits_of, place, rate_norms, threshold_of

__all__ = ["RectifierReport", "relu_to_ratenorm"]


@dataclass
class RectifierReport(Report):
    """The report of the pass; `potentials` holds what initial potentials were trained.

    They are by node name, and fractions of the threshold.
    """

    potentials: dict[str, float] = field(default_factory=dict)


def relu_to_ratenorm(graph: Graph) -> RectifierReport:
    """Rewrite every rectifier; value-preserving, where no rounding is dropped.

    Raises:
        UnsupportedError: the rank of what a rectifier reads is not known, or it works on
            another type than float32.
    """
    report = RectifierReport("relu_to_ratenorm")
    graph.toposort()
    for node in list(graph.nodes):
        limit = rectifier_limit(node)
        if limit is None:
            continue
        if _is_rectified(data_input(node), limit):
            bypass(graph, node, data_input(node))
            report.actions[f"{node.op} of what is rectified left out"] += 1
        else:
            _rewrite(graph, node, limit)
            report.actions[f"{node.op} written as RateNorm"] += 1
    for norm in rate_norms(graph):
        potential = _drop_rounding(graph, norm)
        if potential is not None:
            report.potentials[norm.name] = potential
            report.actions["trained rounding dropped"] += 1
            report.preserves_values = False
    graph.cleanup()
    return report


_KEEPS_BOUNDS = {
    "AveragePool", "Concat", "Flatten", "GlobalAveragePool", "GlobalMaxPool", "MaxPool", "Reshape",
    "Slice", "Squeeze", "Transpose", "Unsqueeze",
}  # fmt: skip


def _is_rectified(tensor: Tensor, limit: Array) -> bool:
    """Whether all that a tensor holds comes from Rate Norm Layers that clip no higher than this."""
    todo, seen = [tensor], set()
    while todo:
        maker = producer(todo.pop())
        if maker is None:
            return False
        if id(maker) in seen:
            continue
        seen.add(id(maker))
        if maker.op in _KEEPS_BOUNDS:
            todo += maker.inputs if maker.op == "Concat" else maker.inputs[:1]
            continue
        norm = producer(maker.inputs[0]) if maker.op == "Mul" else None
        if norm is None or norm.op != RECTIFYING:
            return False
        if np.min(limit) < UNSET_THRESHOLD and np.min(limit) < np.max(limits_of(norm)[1]):
            return False
    return True


def _rewrite(graph: Graph, node: Node, limit: Array) -> None:
    source, output = data_input(node), node.outputs[0]
    before = sole_producer(graph, source)
    while before is not None and (bound := _upper_bound(before)) is not None:
        source, limit = data_input(before), np.minimum(limit, bound)
        before = sole_producer(graph, source)
    after = sole_consumer(graph, output)
    while after is not None and (bound := _upper_bound(after)) is not None:
        output, limit = after.outputs[0], np.minimum(limit, bound)
        remove(graph, after)
        after = sole_consumer(graph, output)
    remove(graph, node)
    place(graph, RECTIFYING, node, node.name, source, output, channel_axis(source), limit)


def _upper_bound(node: Node) -> Array | None:
    """Where a node clips what is above 0, one bound for all or per channel.

    None where it does anything else to that.
    """
    bounds = clipped_between(node)
    if bounds is None or not (np.all(bounds[0] <= 0) and np.all(bounds[1] > 0)):
        return None
    high = bounds[1]
    return high if high.size == 1 or _is_per_channel(high, data_input(node)) else None


def _is_per_channel(values: Array, tensor: Tensor) -> bool:
    axis, shape = channel_axis(tensor), tensor.shape
    known = shape is not None and isinstance(shape[axis], int)
    return known and per_channel(values, len(shape), axis, shape[axis]) is not None


def _drop_rounding(graph: Graph, norm: Node) -> float | None:
    """Remove `Floor(x + c)` from beside a clipped rectifier; c, or None where it is not there."""
    threshold = threshold_of(norm)
    if threshold is None:
        return None
    before = _rounding_before(norm, threshold)
    return _rounding_after(graph, norm) if before is None else before


def _rounding_before(norm: Node, threshold: Array) -> float | None:
    """floor(z * L / theta + c), then clipped from 0 to L: levels are whole numbers."""
    rounding = producer(norm.inputs[0])
    if not _whole(threshold) or rounding is None or rounding.op not in _ROUNDING:
        return None
    add = producer(rounding.inputs[0])
    shift = _shift(add) if rounding.op == "Floor" else None
    norm.inputs[0] = rounding.inputs[0] if shift is None else data_input(add)
    return _ROUNDING[rounding.op] if shift is None else shift


def _rounding_after(graph: Graph, norm: Node) -> float | None:
    """RateNorm, [scales], Add c, Floor: the scales stay, Add and Floor go."""
    tensor, levels = norm.outputs[0], np.ones(1)
    reader = sole_consumer(graph, tensor)
    while reader is not None and reader.op in ("Mul", "Div"):
        factor = constant_operand(reader)
        if factor is None:
            return None
        levels = levels / factor if reader.op == "Div" else levels * factor
        tensor = reader.outputs[0]
        reader = sole_consumer(graph, tensor)
    rounded = _rounded(graph, reader)
    if rounded is None or not _whole(levels):
        return None
    shift, rounding, add = rounded
    output = rounding.outputs[0]
    remove(graph, rounding)
    if add is not None:
        remove(graph, add)
    replace_everywhere(graph, output, tensor)
    return shift


def _rounded(graph: Graph, node: Node | None) -> tuple[float, Node, Node | None] | None:
    """What rounding starts at a node: its shift, the node that rounds, the Add before it."""
    shift = _shift(node)
    if node is not None and shift is not None:
        after = sole_consumer(graph, node.outputs[0])
        return (shift, after, node) if after is not None and after.op == "Floor" else None
    if node is None or node.op not in _ROUNDING:
        return None
    return _ROUNDING[node.op], node, None


_ROUNDING = {"Floor": 0.0, "Round": 0.5}


def _whole(values: Array) -> bool:
    """Whether values are whole numbers, up to the rounding of float32 products."""
    return bool(np.all(values >= 0.5) and np.allclose(values, np.round(values), rtol=1e-5))


def _shift(node: Node | None) -> float | None:
    """The constant between 0 and 1 that a node adds; None where it adds none."""
    operand = constant_operand(node) if node is not None and node.op == "Add" else None
    if operand is None or not np.all((operand == operand.flat[0]) & (operand > 0) & (operand < 1)):
        return None
    return float(operand.flat[0])
