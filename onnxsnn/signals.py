"""What each tensor of a network carries on its way to the neurons.

    CONSTANT   the same for every input
    INPUT      the input, or what is computed from it before any weights
    CURRENT    a linear function of the input through weights: constant in time
    SPIKES     spikes, and their weighted sums where no layer of weights lies between
    ANALOG     anything else: what a nonlinear operator gives, or weights that read spikes

A layer of weights is driven by spikes if it reads SPIKES, and by a constant current if it
reads INPUT or CURRENT: that is computed once, however many timesteps there are.
"""

from __future__ import annotations

from enum import IntEnum

from onnxsnn import functions
from onnxsnn.errors import UnsupportedError
from onnxsnn.graph import Graph, Node, Tensor, channel_axis, constant, describe
from onnxsnn.operators import Role, fate, reduced_axes, values_read

__all__ = [
    "Signal",
    "Signals",
    "analog_nodes",
    "before_neurons",
    "holds_weights",
    "refuse_analog",
    "weighted_input",
]


class Signal(IntEnum):
    """What a tensor carries; a sum carries the greatest of what its terms do."""

    CONSTANT = 0
    INPUT = 1
    CURRENT = 2
    SPIKES = 3
    ANALOG = 4


class Signals:
    """The signal of every tensor of a graph in topological order.

    Indexed by tensor. A tensor that was added to the graph later is CONSTANT.
    """

    def __init__(self, graph: Graph) -> None:
        self._by_tensor: dict[int, Signal] = {id(tensor): Signal.INPUT for tensor in graph.inputs}
        for node in graph.nodes:
            signal = self._after(node)
            self._by_tensor.update((id(tensor), signal) for tensor in node.outputs)

    def __getitem__(self, tensor: Tensor) -> Signal:
        return self._by_tensor.get(id(tensor), Signal.CONSTANT)

    def is_linear(self, node: Node) -> bool:
        """Whether a node is linear in all that it reads and that depends on the input."""
        moving = {id(t) for t in node.inputs if self[t] is not Signal.CONSTANT}
        what = fate(node, moving)
        return what.role in (Role.LINEAR, Role.SHAPE) or node.op == "BatchNormalization"

    def _after(self, node: Node) -> Signal:
        """What a node gives, by what it reads."""
        reads = max((self[tensor] for tensor in values_read(node)), default=Signal.CONSTANT)
        if node.domain == functions.DOMAIN:
            return Signal.SPIKES
        if reads is Signal.CONSTANT:
            return Signal.CONSTANT
        if weighted_input(node) is not None:
            return Signal.ANALOG if reads > Signal.CURRENT else Signal.CURRENT
        if self.is_linear(node) or (reads is Signal.SPIKES and _keeps_spikes(node)):
            return reads
        before_weights = reads is Signal.INPUT and not holds_weights(node)
        return Signal.INPUT if before_weights else Signal.ANALOG


def _keeps_spikes(node: Node) -> bool:
    """Whether a node is a maximum within channels: of running sums of spikes it makes spikes."""
    if node.op != "ReduceMax":
        return node.op in ("MaxPool", "GlobalMaxPool")
    axes = reduced_axes(node)
    return axes is not None and not {0, channel_axis(node.inputs[0])} & {*axes}


_RECURRENT = {"GRU", "LSTM", "RNN"}
_WEIGHTED = {"Conv", "ConvTranspose", "DeformConv", "Einsum", "Gemm", "MatMul"}


def holds_weights(node: Node) -> bool:
    """Whether a node that is no layer of weights holds some all the same."""
    inner = (inner for body in node.subgraphs(recursive=True) for inner in body.nodes)
    return node.op in _RECURRENT or any(one.op in _RECURRENT | _WEIGHTED for one in inner)


def weighted_input(node: Node) -> int | None:
    """The position of what a layer of constant weights reads; None for any other node."""
    if node.op not in _WEIGHTED or len(node.inputs) < 2:  # an Einsum of one operand moves it
        return None
    moving = [p for p, t in enumerate(node.inputs) if constant(t) is None and not t.is_empty()]
    return moving[0] if len(moving) == 1 else None


def analog_nodes(graph: Graph) -> list[Node]:
    """The nodes before the last neuron that would compute on anything but spikes.

    They are nonlinear, and read what weights made; MaxPool of spikes is none of them. The
    graph must be encoded, and in topological order.
    """
    signals, later = Signals(graph), before_neurons(graph)
    return [
        node
        for node in graph.nodes
        if id(node) in later
        and node.outputs
        and signals[node.outputs[0]] is Signal.ANALOG
        and weighted_input(node) is None
        and not signals.is_linear(node)
    ]


def refuse_analog(graph: Graph) -> None:
    """Refuse an encoded graph that is not driven by spikes throughout.

    Raises:
        UnsupportedError: naming the first node that would be compensated.
    """
    signals, nodes = Signals(graph), analog_nodes(graph)
    for node in graph.nodes:
        position = weighted_input(node)
        if position is not None and signals[node.inputs[position]] is Signal.ANALOG:
            nodes.append(node)
    if nodes:
        raise UnsupportedError(
            f"{describe(nodes[0])} and {len(nodes) - 1} more would not be driven by spikes; "
            "without --strict they are compensated"
        )


def before_neurons(graph: Graph) -> set[int]:
    """id() of every node from which a Rate Norm Layer, or a neuron, can be reached."""
    found: set[int] = set()
    for node in reversed(graph.nodes):
        readers = [reader for tensor in node.outputs for reader in tensor.outputs]
        if any(fate(r, ()).role is Role.NEURON or id(r) in found for r in readers):
            found.add(id(node))
    return found
