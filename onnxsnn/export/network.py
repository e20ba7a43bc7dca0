"""The step graph as a list of operations in one canonical form, for files that are not ONNX.

Each operation says what it reads, what it gives, its settings and its arrays; shapes and axes
are those of one sample, without the batch. What ONNX writes in several ways is written in one:
`onnxsnn.export.canonical` has them all. Any other operator keeps its ONNX name, attributes and
constants, whose axes count the batch, and is marked as not canonical.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import accumulate, chain
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs

from onnxsnn.arrays import Array
from onnxsnn.errors import UnsupportedError, checked
from onnxsnn.export.canonical import RULES, Context, Form, as_in_onnx, sizes_of
from onnxsnn.graph import (
    Graph,
    Node,
    constant,
    describe,
    insert,
    unique_name,
)
from onnxsnn.model import SpikingModel
from onnxsnn.neurons import NEURONS
from onnxsnn.operators import Role, fate
from onnxsnn.passes.integer import rounding_layers

__all__ = ["Network", "Operation", "read_network", "some"]

_FIRING = frozenset(neuron.operator for neuron in NEURONS.values())


@dataclass(frozen=True)
class Operation:
    """One operation of a timestep.

    Attributes:
        name: the node's.
        operator: a canonical name, or else ONNX's.
        inputs: names of the tensors that it reads; constants and states are none of them.
        outputs: the shape of each tensor that it gives, by name.
        settings: numbers, lists and strings.
        arrays: weights, thresholds and the like.
        canonical: whether the operator is one of `onnxsnn.export.canonical`.
        static: whether it depends on no state, and gives the same in every timestep.
    """

    name: str
    operator: str
    inputs: list[str]
    outputs: dict[str, list[int]]
    settings: dict[str, Any]
    arrays: dict[str, Array]
    canonical: bool = True
    static: bool = False

    @property
    def output(self) -> str:
        """The first tensor that it gives."""
        return next(iter(self.outputs))

    @property
    def shape(self) -> list[int]:
        """The shape of that."""
        return self.outputs[self.output]

    @property
    def fires(self) -> bool:
        """Whether it is a layer of neurons."""
        return self.operator in _FIRING

    def __str__(self) -> str:
        return f"node {self.name!r} ({self.operator})"


@dataclass(frozen=True)
class Network:
    """One timestep of an SNN.

    Attributes:
        inputs: shapes by name.
        operations: in topological order; those alone that the outputs depend on.
        outputs: names of the tensors that hold the running estimates.
        timesteps: what the thresholds were chosen for.
        losses: what of the SNN no operation says.
    """

    inputs: dict[str, list[int]]
    operations: list[Operation]
    outputs: list[str]
    timesteps: int
    losses: list[str]

    @property
    def shapes(self) -> dict[str, list[int]]:
        """The shape of every tensor."""
        shapes = dict(self.inputs)
        for operation in self.operations:
            shapes |= operation.outputs
        return shapes

    def readers(self, name: str) -> list[Operation]:
        """The operations that read a tensor."""
        return [operation for operation in self.operations if name in operation.inputs]

    def replaced(self, instead: dict[str, list[Operation]]) -> Network:
        """The network with others instead of the operations that give some tensors."""
        others = (instead.get(other.output, [other]) for other in self.operations)
        return replace(self, operations=[*chain(*others)])


def read_network(snn: SpikingModel) -> Network:
    """The operations of an SNN's timestep; of an integer SNN, with its weights in float32.

    Raises:
        UnsupportedError: the size of an axis other than the batch is not known, or an output is a
            constant.
        UsageError: what came is no SNN.
    """
    plain = checked(snn, SpikingModel, "snn").unrounded()
    graph = plain.graph()
    _write_slices(graph)
    graph.toposort()
    losses = _losses(snn, graph) if snn.is_integer else []
    context = Context(
        graph=graph,
        defaults={state.input: state.default for state in plain.states},
        steps={state.output for state in plain.states if state.role == "step"},
    )
    inputs = {
        tensor.name: sizes_of(tensor, "the model")
        for tensor in graph.inputs
        if tensor.name not in context.defaults
    }
    operations = []
    varying: set[str] = set()
    for node in _needed(graph.nodes, snn.outputs, context):
        moves = fate(node, ()).role in (Role.NEURON, Role.STATE)
        moves = moves or any(tensor.name in varying for tensor in node.inputs)
        operations.append(_operation(node, context, static=not moves))
        varying.update(tensor.name for tensor in node.outputs if moves)
    network = Network(inputs, operations, snn.outputs, snn.timesteps, losses)
    for name in set(snn.outputs) - network.shapes.keys():
        raise UnsupportedError(
            f"output {name!r} is a constant, which files other than ONNX have no place for; "
            "convert the source model without it"
        )
    return network


def some(names: list[str]) -> str:
    """The first few names, and how many more there are."""
    more = f", and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more


def _write_slices(graph: Graph) -> None:
    """Write a Split as a Slice for each of its parts."""
    for node in [node for node in graph.nodes if node.op == "Split"]:
        axis = node.attrs.get("axis", 0)
        found = [part.shape[axis] if part.shape else None for part in node.outputs]
        sizes = [size for size in found if isinstance(size, int)]
        if len(sizes) < len(found):
            continue
        parts, node.outputs = list(node.outputs), []
        for part, size, end in zip(parts, sizes, accumulate(sizes), strict=True):
            bounds = {"start": end - size, "end": end, "axis": axis}
            constants = [
                gs.Constant(unique_name(graph, f"{part.name}.{role}"), np.array([number], np.int64))
                for role, number in bounds.items()
            ]
            insert(graph, "Slice", [node.inputs[0], *constants], part)
        graph.nodes.remove(node)


def _losses(snn: SpikingModel, unrounded: Graph) -> list[str]:
    """What an integer SNN does to currents, and its graph in float32 does not."""
    layers = rounding_layers(snn.graph(), unrounded, snn.neurons)
    why = "the rounding of currents to bytes, without which neurons may fire at other times"
    return [f"{why} ({some(layers)})"] if layers else []


def _needed(nodes: list[Node], outputs: list[str], context: Context) -> list[Node]:
    """The nodes that an output depends on, but for the step counter."""
    needed, kept = set(outputs), []
    for node in reversed(nodes):
        names = {tensor.name for tensor in node.outputs}
        if needed & names and not context.steps & names:
            kept.append(node)
            form = _form(node, context)
            read = form.inputs if form else node.inputs
            needed.update(tensor.name for tensor in read if tensor.name)
    return kept[::-1]


def _form(node: Node, context: Context) -> Form | None:
    """A node's canonical form, None where it has none; the sizes that rules rely on are known."""
    for tensor in (*node.inputs[:1], *node.outputs[:1]):
        if constant(tensor) is None and not tensor.is_empty():
            sizes_of(tensor, describe(node))
    rule = RULES.get(node.op)
    return rule(node, context) if rule else None


def _operation(node: Node, context: Context, *, static: bool) -> Operation:
    form = _form(node, context)
    canonical = form is not None
    form = form or as_in_onnx(node, context)
    used = node.outputs[:1] if canonical else [t for t in node.outputs if t.name]
    return Operation(
        node.name,
        form.operator,
        [tensor.name for tensor in form.inputs],
        {tensor.name: sizes_of(tensor, describe(node)) for tensor in used},
        form.settings,
        form.arrays,
        canonical,
        static,
    )
