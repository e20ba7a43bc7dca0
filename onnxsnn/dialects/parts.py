"""Nodes that stand for one, as a model comes to be of ONNX's own operators, and where they lie."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from onnxsnn.arrays import Array

__all__ = [
    "Parts",
    "constants_of",
    "graphs_of",
    "read_by",
    "replace_nodes",
    "write_constants_out",
]


class Parts:
    """The nodes that stand for one.

    Attributes:
        nodes: so far.
        inputs: what the node reads.
        outputs: what it gives.
        attributes: of the node; a rule takes out what its parts have not.
    """

    def __init__(self, node: onnx.NodeProto) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.inputs, self.outputs = list(node.input), list(node.output)
        self.attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        self._node = node

    def add(
        self,
        operator: str,
        *inputs: str,
        gives: str = "",
        more: Sequence[str] = (),
        **attributes: Any,
    ) -> str:
        """A node, named after the one that it is a part of; the first tensor that it gives."""
        number, base = len(self.nodes), next(filter(None, self.outputs))
        output = gives or f"{base}.{operator}.{number}"
        name = f"{self._node.name or base}/{operator}.{number}"
        self.nodes.append(helper.make_node(operator, inputs, [output, *more], name, **attributes))
        return output

    def array(self, values: Array) -> str:
        """A constant, of the type that the values have."""
        values = np.asarray(values)  # NumPy makes scalars of arrays without axes
        return self.add("Constant", value=numpy_helper.from_array(values))

    def number(self, value: float) -> str:
        """A constant."""
        return self.array(np.array(value, np.float32))

    def whole(self, *values: int) -> str:
        """A constant vector of whole numbers."""
        return self.array(np.array(values, np.int64))

    def scalar(self, value: int) -> str:
        """A constant whole number."""
        return self.array(np.array(value, np.int64))

    def floats(self, tensor: str) -> str:
        """The same values, as float32."""
        return self.add("Cast", tensor, to=onnx.TensorProto.FLOAT)

    def read(self, position: int) -> str:
        """An input; empty where it is left out."""
        return self.inputs[position] if position < len(self.inputs) else ""

    def give(self, position: int, tensor: str) -> None:
        """Let a tensor be an output of the node, if it has that."""
        if position < len(self.outputs) and self.outputs[position]:
            self.add("Identity", tensor, gives=self.outputs[position])

    def plus(self, tensor: str, other: str) -> str:
        """A sum, or the tensor alone where nothing is added."""
        return self.add("Add", tensor, other) if other else tensor


def constants_of(graph: onnx.GraphProto) -> dict[str, onnx.TensorProto]:
    """The constants of a graph, by name, but for text."""
    found = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        value = _value_of(node)
        if value is not None:
            found[node.output[0]] = value
    return found


def write_constants_out(graph: onnx.GraphProto) -> None:
    """Let every constant be a dense tensor: onnx-graphsurgeon reads no others as what they are."""
    for part in graphs_of(graph):
        for node in part.node:
            value = _value_of(node)
            if value is not None:
                del node.attribute[:]
                node.attribute.append(helper.make_attribute("value", value))
        part.initializer.extend(map(_dense, part.sparse_initializer))
        part.ClearField("sparse_initializer")


def _value_of(node: onnx.NodeProto) -> onnx.TensorProto | None:
    """What a Constant holds; None for text, and for any other node."""
    if node.op_type != "Constant" or not node.attribute:
        return None
    (attribute,) = node.attribute
    if attribute.name == "value":
        value: onnx.TensorProto = attribute.t
        return value
    if attribute.name == "sparse_value":
        return _dense(attribute.sparse_tensor)
    kind = _KINDS.get(attribute.name)
    values = helper.get_attribute_value(attribute)
    return None if kind is None else numpy_helper.from_array(np.array(values, kind))


_KINDS = {
    "value_float": np.float32,
    "value_floats": np.float32,
    "value_int": np.int64,
    "value_ints": np.int64,
}


def _dense(sparse: onnx.SparseTensorProto) -> onnx.TensorProto:
    """A tensor whose values have places in all of it, [n], or along each of its axes, [n, axes]."""
    values, places = map(numpy_helper.to_array, (sparse.values, sparse.indices))
    dense = np.zeros(sparse.dims, values.dtype)
    if places.ndim == 1:
        dense.reshape(-1)[places] = values
    else:
        dense[tuple(places.T)] = values
    return numpy_helper.from_array(dense, sparse.values.name)


def replace_nodes(
    graph: onnx.GraphProto, parts_of: Callable[[onnx.NodeProto], Iterable[onnx.NodeProto]]
) -> None:
    """Put the nodes that stand for each node of a graph in its place."""
    nodes = [part for node in graph.node for part in parts_of(node)]
    graph.ClearField("node")
    graph.node.extend(nodes)


def read_by(node: onnx.NodeProto) -> Iterator[str]:
    """The tensors that a node reads, those of the graphs inside it too."""
    yield from node.input
    for attribute in node.attribute:
        for graph in (attribute.g, *attribute.graphs):
            for inner in graph.node:
                yield from read_by(inner)


def graphs_of(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """A graph, and every one that its nodes hold."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from graphs_of(attribute.g)
