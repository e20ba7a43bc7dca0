"""Rate Norm Layers in a graph: how they are placed there, found again, and read.

    RateNorm(x, theta)       = clip(x, 0, theta) / theta       in [0, 1]
    SignedRateNorm(x, theta) = clip(x, -theta, theta) / theta  in [-1, 1]

Each is the firing rate that a neuron of threshold theta goes to: the first is the founding
paper's (Ding et al., IJCAI 2021, section 3.1), the second that of a neuron that can fire
negative spikes too. The Mul by theta behind it gives back the value.
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
    describe,
    floats,
    insert,
    per_channel,
    rank,
    unique_name,
)

__all__ = [
    "RECTIFYING",
    "SIGNED",
    "UNSET_THRESHOLD",
    "is_rate_norm",
    "limits_of",
    "place",
    "rate_norms",
    "scale_of",
    "set_threshold",
    "threshold_of",
    "untrained",
]

RECTIFYING = "RateNorm"
SIGNED = "SignedRateNorm"
UNSET_THRESHOLD = 2.0**64  # a power of two beyond any activation


def is_rate_norm(node: Node) -> bool:
    """Whether a node is a Rate Norm Layer, of either kind."""
    return node.op in (RECTIFYING, SIGNED)


def rate_norms(graph: Graph) -> list[Node]:
    """The Rate Norm Layers of a graph, in topological order."""
    graph.toposort()
    return [node for node in graph.nodes if is_rate_norm(node)]


def threshold_of(node: Node) -> Array | None:
    """The threshold of a Rate Norm Layer, of broadcastable shape; None where it is not set."""
    values: Array = node.inputs[1].values
    return None if values.max() >= UNSET_THRESHOLD else values


def untrained(graph: Graph) -> list[Node]:
    """The rectifiers without a threshold of their training."""
    layers = rate_norms(graph)
    return [node for node in layers if node.op == RECTIFYING and threshold_of(node) is None]


def limits_of(node: Node) -> tuple[Array, Array]:
    """Between what the layer clips its input: its threshold, nothing where that is not set."""
    threshold = threshold_of(node)
    highest: Array = np.array(np.inf, np.float32) if threshold is None else threshold
    return (-highest if node.op == SIGNED else np.zeros_like(highest)), highest


def scale_of(node: Node) -> Array:
    """What the rate of a Rate Norm Layer is multiplied by, of the threshold's shape."""
    scale: Array = node.outputs[0].outputs[0].inputs[1].values
    return scale


def set_threshold(graph: Graph, node: Node, values: Array, scale: Array | None = None) -> None:
    """Give a Rate Norm Layer another threshold, of the shape that its threshold has.

    The Mul behind it multiplies by `scale`, in the same shape; None for the threshold.
    """
    theta = floats(graph, f"{node.name}.theta", values)
    factor = theta if scale is None else floats(graph, f"{node.name}.scale", scale)
    product = node.outputs[0].outputs[0]
    theta.name, node.inputs[1].name = node.inputs[1].name, theta.name
    node.inputs[1], product.inputs[1] = theta, factor


def place(
    graph: Graph,
    operator: str,
    origin: Node,
    name: str,
    source: Tensor,
    output: Tensor,
    axis: int,
    limit: Array | None = None,
) -> None:
    """Let `output` be `theta * operator(source, theta)`.

    Args:
        graph: the graph.
        operator: RECTIFYING or SIGNED.
        origin: the node that the layer stands for; messages name it.
        name: of the layer.
        source: what it reads.
        output: what it gives; nothing else may write it.
        axis: the axis of `source` that gets one threshold per channel; where its size is not
            known, the layer gets one threshold.
        limit: the threshold that was trained, a scalar or one per channel; None for none.

    Raises:
        UnsupportedError: the values are not float32, their rank is not known, they have no axis
            of samples, or the limit is not one positive number per channel.
    """
    if source.dtype is None or np.dtype(source.dtype) != np.float32:
        raise UnsupportedError(
            f"{describe(origin)} works on {source.dtype and np.dtype(source.dtype)}; "
            "only float32 can be carried by spikes"
        )
    if rank(source, origin) < 2 and _lacks_samples(graph, source.shape):
        raise UnsupportedError(
            f"{describe(origin)} works on shape {source.shape}, without an axis of samples; export "
            "the model for a batch, with the samples along the first axis of every input"
        )
    values = np.array(UNSET_THRESHOLD) if limit is None else limit
    constant = _threshold(source, axis, values, origin)
    theta = gs.Constant(unique_name(graph, f"{name}.theta"), constant)
    rate = gs.Variable(unique_name(graph, f"{output.name}.rate"), np.float32, output.shape)
    insert(graph, operator, [source, theta], rate).name = name
    insert(graph, "Mul", [rate, theta], output)


def _lacks_samples(graph: Graph, shape: list[int | str | None]) -> bool:
    """Whether values of a shape with one axis, or none, are not one of each sample."""
    batches = [tensor.shape[0] for tensor in graph.inputs if tensor.shape]
    return not shape or (isinstance(shape[0], int) and shape[0] not in batches)


def _threshold(source: Tensor, axis: int, limit: Array, origin: Node) -> Array:
    """`limit` as a threshold of shape [1, C, 1, ...], float32."""
    axes = rank(source, origin)
    channels = source.shape[axis] if axes else 1
    shape = [1] * axes
    if channels == 0:
        raise UnsupportedError(f"{describe(origin)} works on no channels; export without it")
    if isinstance(channels, int):
        vector = per_channel(limit, axes, axis, channels)
        if axes:
            shape[axis] = channels
    else:
        vector = limit.reshape(-1) if limit.size == 1 else None
    if vector is None or not np.all(vector > 0):
        raise UnsupportedError(
            f"{describe(origin)}: clips at values that are not positive, or not one per channel"
        )
    return vector.astype(np.float32).reshape(shape)
