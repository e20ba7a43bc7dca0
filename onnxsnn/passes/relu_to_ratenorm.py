"""Write every rectifier as a Rate Norm Layer: `theta * RateNorm(x, theta)`.

RateNorm(x, theta) = clip(x, 0, theta) / theta is the firing rate, in [0, 1], that a neuron
of threshold theta goes to (Ding et al., IJCAI 2021, section 3.1); the Mul behind it gives
back the activation.

1. Relu, or Max with 0: theta is not set yet; it is a power of two beyond any activation,
   so that dividing and multiplying by it is exact.
2. Clip from 0 to c (ReLU6, a clipped ReLU, an RNL): theta = c, which the graph was trained
   with. Min(., c) and Max(., 0) in either order are the same.
3. A rectifier whose output is rounded to levels by Floor(L * r + 1/2) / L, as QCFS does
   (Bu et al., ICLR 2022): as 2, and the rounding goes, since a neuron that starts at
   theta / 2 rounds so itself.
"""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs

from onnxsnn.arrays import Array
from onnxsnn.errors import UnsupportedError
from onnxsnn.graph import (
    Graph,
    Node,
    Tensor,
    channel_axis,
    data_input,
    describe,
    insert,
    per_channel,
    rank,
    remove,
    replace_everywhere,
    sole_consumer,
    unique_name,
)
from onnxsnn.operators import UNSET_THRESHOLD, constant_operand, rectifier_limit
from onnxsnn.passes.report import Report

__all__ = ["rate_norms", "relu_to_ratenorm", "threshold_of"]


def relu_to_ratenorm(graph: Graph) -> Report:
    """Rewrite every rectifier; value-preserving, where no rounding is dropped.

    Raises:
        UnsupportedError: where the channels of a rectifier cannot be told, or it works on
            another type than float32.
    """
    report = Report("relu_to_ratenorm")
    graph.toposort()
    for node in list(graph.nodes):
        limit = rectifier_limit(node)
        if limit is None:
            continue
        _rewrite(graph, node, limit)
        report.actions[f"{node.op} written as RateNorm"] += 1
    for node in rate_norms(graph):
        if _drop_rounding(graph, node):
            report.actions["trained rounding dropped"] += 1
            report.preserves_values = False
    graph.cleanup()
    return report


def rate_norms(graph: Graph) -> list[Node]:
    """The RateNorm nodes of a graph, in topological order."""
    graph.toposort()
    return [node for node in graph.nodes if node.op == "RateNorm"]


def threshold_of(node: Node) -> Array | None:
    """The threshold of a RateNorm, of broadcastable shape; None where it is not set."""
    values: Array = node.inputs[1].values
    return None if values.max() >= UNSET_THRESHOLD else values


def _rewrite(graph: Graph, node: Node, limit: Array) -> None:
    source, output = data_input(node), node.outputs[0]
    if np.dtype(source.dtype) != np.float32:
        raise UnsupportedError(
            f"{describe(node)} works on {np.dtype(source.dtype)}; convert the model to float32"
        )
    before = source.inputs[0] if source.inputs else None
    bound = _upper_bound(before)
    if before is not None and bound is not None and sole_consumer(graph, source) is node:
        source, limit = data_input(before), np.minimum(limit, bound)
    after = sole_consumer(graph, output)
    bound = _upper_bound(after)
    if after is not None and bound is not None and np.all(bound > 0):
        output, limit = after.outputs[0], np.minimum(limit, bound)
        remove(graph, after)
    theta = gs.Constant(
        unique_name(graph, f"{node.name}.theta"), _threshold_array(node, source, limit)
    )
    remove(graph, node)
    rate = gs.Variable(unique_name(graph, f"{output.name}.rate"), np.float32, output.shape)
    insert(graph, "RateNorm", [source, theta], rate).name = node.name
    insert(graph, "Mul", [rate, theta], output)


def _upper_bound(node: Node | None) -> Array | None:
    """What a Min clips at; None where the node is no Min by a constant."""
    return constant_operand(node) if node is not None and node.op == "Min" else None


def _threshold_array(node: Node, source: Tensor, limit: Array) -> Array:
    """`limit` as a threshold of shape [1, C, 1, ...], float32."""
    axes, axis = rank(source, node), channel_axis(source)
    channels = source.shape[axis] if axes else None
    if not isinstance(channels, int):
        raise UnsupportedError(
            f"{describe(node)}: the number of channels of {source.name!r} "
            f"(shape {source.shape}) cannot be resolved; export the model with that axis fixed"
        )
    vector = per_channel(limit, axes, axis, channels)
    if vector is None or not np.all(vector > 0):
        raise UnsupportedError(
            f"{describe(node)}: clips at values that are not positive, or not one per channel"
        )
    shape = [1] * axes
    shape[axis] = channels
    return vector.astype(np.float32).reshape(shape)


def _drop_rounding(graph: Graph, norm: Node) -> bool:
    """Remove `Floor(L * x + 1/2) [/ L]` from around a rectifier; whether it was there."""
    return _drop_rounding_before(graph, norm) or _drop_rounding_after(graph, norm)


def _drop_rounding_before(graph: Graph, norm: Node) -> bool:
    """floor(z * L / theta + 1/2), then clipped from 0 to L: levels are whole numbers."""
    floor = norm.inputs[0].inputs[0] if norm.inputs[0].inputs else None
    threshold = threshold_of(norm)
    if floor is None or floor.op != "Floor" or threshold is None:
        return False
    if np.any(threshold != np.round(threshold)) or len(floor.outputs[0].outputs) != 1:
        return False
    add = floor.inputs[0].inputs[0] if floor.inputs[0].inputs else None
    if not _adds_half(add) or sole_consumer(graph, floor.inputs[0]) is not floor:
        return False
    norm.inputs[0] = data_input(add)
    return True


def _drop_rounding_after(graph: Graph, norm: Node) -> bool:
    """RateNorm, [scales], Add 1/2, Floor: the scales stay, Add and Floor go."""
    tensor = norm.outputs[0]
    reader = sole_consumer(graph, tensor)
    while (
        reader is not None and reader.op in ("Mul", "Div") and constant_operand(reader) is not None
    ):
        tensor = reader.outputs[0]
        reader = sole_consumer(graph, tensor)
    if reader is None or not _adds_half(reader):
        return False
    floor = sole_consumer(graph, reader.outputs[0])
    if floor is None or floor.op != "Floor":
        return False
    rounded = floor.outputs[0]
    remove(graph, floor)
    remove(graph, reader)
    replace_everywhere(graph, rounded, tensor)
    return True


def _adds_half(node: Node | None) -> bool:
    if node is None or node.op != "Add":
        return False
    operand = constant_operand(node)
    return operand is not None and bool(np.all(operand == 0.5))
