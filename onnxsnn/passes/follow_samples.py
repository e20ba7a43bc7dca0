"""Where the samples lie in the tensors of a graph that was exported for a batch of a fixed size.

Shapes are inferred for a number of samples that is a factor of no other size, node after node, so
that a node can be changed to take as many before the next ones are looked at.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

import onnx_graphsurgeon as gs

from onnxsnn.errors import ModelError
from onnxsnn.graph import Graph, Node, Tensor, constant, from_model, to_model

__all__ = ["SAMPLES", "FollowedSamples", "Place", "place_among"]

# A prime: what has it as a factor has the samples in it. Where onnx infers shapes, it notes each
# value of a vector of whole numbers, so that a larger one would take memory without end.
SAMPLES = 1009
_SIZES = 64  # a constant of no more values may say a shape


@dataclass(frozen=True)
class Place:
    """Where the samples lie in a tensor.

    Attributes:
        axis: alone, or with others, as heads beside them.
        inner: how many values of that axis are of one sample before the next one's: 1 where it
            is alone.
    """

    axis: int
    inner: int = 1


class FollowedSamples:
    """The shapes of the tensors of a graph, as far as it has been followed.

    Args:
        graph: whose inputs have their samples in front.
        batch: how many it was exported for.
    """

    def __init__(self, graph: Graph, batch: int) -> None:
        self.batch = batch
        self._graph = graph
        self._shapes: dict[str, list[int]] = {}
        self._inner: dict[str, int] = {}
        for tensor in graph.inputs:
            self.set(tensor, Place(0))

    def place(self, tensor: Tensor) -> Place | None:
        """Where the samples lie; None where that is nowhere, or not known."""
        shape = self._shapes.get(tensor.name, [])
        axes = [axis for axis, size in enumerate(shape) if size % SAMPLES == 0]
        if len(axes) != 1:
            return None
        inner = 1 if shape[axes[0]] == SAMPLES else self._inner.get(tensor.name)
        return None if inner is None else Place(axes[0], inner)

    def set(self, tensor: Tensor, place: Place) -> None:
        """Samples lie in a tensor so, whose shape is that of the batch."""
        shape = list(tensor.shape)
        shape[place.axis] = shape[place.axis] // self.batch * SAMPLES
        self._shapes[tensor.name] = shape
        self._inner[tensor.name] = place.inner

    def follow(self, node: Node) -> None:
        """Infer the shapes of what a node gives; what onnx cannot say has samples in front."""
        found = self._inferred(node)
        for tensor in node.outputs:
            shape = _known(found.get(tensor.name))
            if shape:
                self._shapes[tensor.name] = shape
                self._inherit(tensor, node)
            elif _known(tensor.shape)[:1] == [self.batch]:
                self.set(tensor, Place(0))

    def _inferred(self, node: Node) -> dict[str, Any]:
        """The shapes of what a node gives, by name, as far as onnx can say."""
        tensors = {tensor.name: self._alone(tensor) for tensor in node.inputs}
        results = [gs.Variable(tensor.name, tensor.dtype) for tensor in node.outputs]
        read = [tensors[tensor.name] for tensor in node.inputs]
        alone = gs.Node(node.op, node.name, dict(node.attrs), read, results, domain=node.domain)
        inputs = [t for t in tensors.values() if isinstance(t, gs.Variable) and not t.is_empty()]
        outputs = [tensor for tensor in results if not tensor.is_empty()]
        part = gs.Graph([alone], inputs, outputs, opset=self._graph.opset)
        part.import_domains = self._graph.import_domains
        try:
            found = from_model(to_model(part)).tensors()
        except ModelError:  # a contradiction: the samples do not fit in here
            return {}
        return {name: tensor.shape for name, tensor in found.items()}

    def _alone(self, tensor: Tensor) -> Tensor:
        """A tensor as it is for these samples, outside of the graph."""
        values = constant(tensor)
        if values is not None and values.size <= _SIZES:
            return gs.Constant(tensor.name, values)
        return gs.Variable(tensor.name, tensor.dtype, self._shapes.get(tensor.name, tensor.shape))

    def _inherit(self, tensor: Tensor, node: Node) -> None:
        """Samples that share an axis share it as in what the node reads."""
        merged = {size for size in self._shapes[tensor.name] if size % SAMPLES == 0}
        for source in node.inputs:
            if source.name in self._inner and merged & set(self._shapes[source.name]):
                self._inner[tensor.name] = self._inner[source.name]
                return


def _known(shape: Any) -> list[int]:
    """A shape, if it has numbers alone."""
    return list(shape) if shape and all(isinstance(size, int) for size in shape) else []


def place_among(sizes: list[int], behind: int, likely: int, batch: int = 1) -> Place | None:
    """Where samples go in a Reshape, which keeps the order of all values.

    On an axis of their own, if there is any; else beside what follows them, but not on the last
    axis, whose values are channels.

    Args:
        sizes: of the batch, none of them 0.
        behind: how many values of one sample follow before the next one's.
        likely: the axis, if there are several.
        batch: how many samples there are.
    """
    after = [prod(sizes[axis + 1 :]) for axis in range(len(sizes))]
    alone = [axis for axis, size in enumerate(sizes) if size == batch and after[axis] == behind]
    if alone:
        return Place(likely if likely in alone else alone[0])
    inner = {axis: behind // after[axis] for axis in range(len(sizes)) if after[axis] <= behind}
    shared = [
        axis
        for axis, values in inner.items()
        if values * after[axis] == behind and sizes[axis] % (values * batch) == 0
    ]
    if not shared:
        return None
    axis = shared[0] if shared[-1] == len(sizes) - 1 else shared[-1]
    return Place(axis, inner[axis])
