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
from onnxsnn.graph import Graph, Node, Tensor, constant
from onnxsnn.operators import Role, fate, values_read

__all__ = ["Signal", "Signals", "weighted_input"]


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

    def _after(self, node: Node) -> Signal:
        """What a node gives, by what it reads."""
        reads = max((self[tensor] for tensor in values_read(node)), default=Signal.CONSTANT)
        if node.domain == functions.DOMAIN:
            return Signal.SPIKES
        if reads is Signal.CONSTANT:
            return Signal.CONSTANT
        if weighted_input(node) is not None:
            return Signal.ANALOG if reads > Signal.CURRENT else Signal.CURRENT
        if _is_linear(node) or (node.op in _KEEPS_SPIKES and reads is Signal.SPIKES):
            return reads
        return Signal.INPUT if reads is Signal.INPUT else Signal.ANALOG


_KEEPS_SPIKES = {"MaxPool", "GlobalMaxPool"}  # of running sums of spikes they make spikes again
_WEIGHTED = {"Conv", "ConvTranspose", "DeformConv", "Einsum", "Gemm", "MatMul"}


def weighted_input(node: Node) -> int | None:
    """The position of what a layer of constant weights reads; None for any other node."""
    if node.op not in _WEIGHTED:
        return None
    moving = [p for p, t in enumerate(node.inputs) if constant(t) is None and not t.is_empty()]
    return moving[0] if len(moving) == 1 else None


def _is_linear(node: Node) -> bool:
    """Whether a node is linear in all that it reads, constants aside."""
    moving = {id(tensor) for tensor in node.inputs if constant(tensor) is None}
    what = fate(node, moving)
    return what.role in (Role.LINEAR, Role.SHAPE) or node.op == "BatchNormalization"
