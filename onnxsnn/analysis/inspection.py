"""What is in a file: every node with its role, for source, intermediate and SNN models alike."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from onnxsnn import functions
from onnxsnn.dialects.classical import without_classical
from onnxsnn.errors import ModelError, in_file
from onnxsnn.files import read_model
from onnxsnn.graph import Graph, Node, constant, from_model, is_static_shape, values_per_sample
from onnxsnn.metadata import damaged, fits, read_metadata
from onnxsnn.model import LOOP, NO_SNN, STEP, Layer, SpikingModel, kind_of
from onnxsnn.operators import QUANTIZED, RECTIFIER, Role, fate, varying_tensors
from onnxsnn.ratenorm import threshold_of
from onnxsnn.signals import Signal, Signals, weighted_input
from onnxsnn.source import Source

__all__ = ["Inspection", "InspectionRow", "inspect", "inspect_model", "role_of"]


@dataclass(frozen=True)
class InspectionRow:
    """One node.

    Attributes:
        role: a `Role` by name; `constant` for what is computed once, before the conversion.
        reason: why, where the operator alone does not say.
        shape: of its first output.
        neurons: per sample, for what fires; None where a size is not known.
        threshold: mean over channels, once set.
        p: threshold over the greatest activation seen, mean over channels.
        omega: of the layer's rates; see `analysis.omega`.
    """

    name: str
    operator: str
    role: str
    reason: str
    shape: list[int | str | None] | None
    neurons: int | None = None
    threshold: float | None = None
    p: float | None = None
    omega: float | None = None


@dataclass(frozen=True)
class Inspection:
    """A file.

    Attributes:
        kind: `source`, `intermediate` or `snn`.
        rows: one per node, in topological order.
        roles: nodes by role.
        neurons: per sample, where all sizes are known.
        parameters: values in constant tensors of floats, and in weights of 8 bits.
        metadata: of an intermediate or an SNN.
        unsized: layers of neurons whose sizes are not all known.
        encodes: of a source in which nothing is refused, or rectifies before its constants are
            folded, whether weights read what is analog: `convert` puts neurons there.
    """

    kind: str
    rows: list[InspectionRow]
    roles: dict[str, int]
    neurons: int
    parameters: int
    metadata: dict[str, Any]
    unsized: int = 0
    encodes: bool = False


def inspect(path: str | Path) -> Inspection:
    """Read an ONNX file and say what is in it.

    Raises:
        ModelError: the file cannot be read, is not valid ONNX, or is damaged.
    """
    model = read_model(path)
    with in_file(path):
        return inspect_model(without_classical(model)[0])


def inspect_model(model: onnx.ModelProto) -> Inspection:
    """Say what is in a model.

    Raises:
        ModelError: it is an SNN in another form, or its metadata are damaged.
    """
    kind = kind_of(model)
    if kind in (LOOP, STEP):
        raise ModelError(NO_SNN[kind])
    states = {state.input for state in SpikingModel.of(model).states} if kind == "snn" else set()
    metadata = read_metadata(model)
    described = metadata.pop("layers", [])
    if not fits(described, list[Layer]):
        raise damaged("layers")
    layers = {layer["name"]: layer for layer in described}
    graph = _graph(model, kind, states)
    graph.toposort()
    varying = varying_tensors(graph)
    rows = [_row(n, varying, states, layers) for n in graph.nodes if n.op != "Constant"]
    roles = Counter(row.role for row in rows)
    firing = [row for row in rows if _fires(row.role, row.reason)]
    return Inspection(
        kind=kind,
        rows=rows,
        roles=dict(roles),
        neurons=sum(row.neurons or 0 for row in rows),
        parameters=_parameters(graph),
        metadata=metadata,
        unsized=sum(row.neurons is None for row in firing),
        encodes=kind == "source" and not (firing or roles["refused"]) and _encodes(graph),
    )


def _fires(role: str, reason: str) -> bool:
    return role == Role.NEURON or reason == RECTIFIER


def _encodes(graph: Graph) -> bool:
    """Whether weights read what is analog, in a graph in which nothing rectifies."""
    signals = Signals(graph)
    read = [node.inputs[at] for node in graph.nodes if (at := weighted_input(node)) is not None]
    return any(signals[tensor] is Signal.ANALOG for tensor in read)


def _graph(model: onnx.ModelProto, kind: str, states: set[str]) -> Graph:
    """The graph as it stands: nothing cleaned, but in an opset whose operators are known."""
    if kind == "source":
        return Source(model, "", []).graph()
    return from_model(model, states)  # with their defaults, the states would be constants


def _row(
    node: Node, varying: set[int], states: set[str], layers: Mapping[str, Any]
) -> InspectionRow:
    role, reason = role_of(node, varying, states)
    layer = layers.get(node.name, {})
    output = node.outputs[0]
    is_known = _fires(role.value, reason) and is_static_shape(output.shape)
    return InspectionRow(
        name=node.name,
        operator=node.op,
        role=role.value,
        reason=reason,
        shape=None if output.shape is None else list(output.shape),
        neurons=values_per_sample(output) if is_known else None,
        threshold=layer["threshold"] if layer.get("grid") else _threshold(node, role),
        p=layer.get("p"),
        omega=layer.get("omega"),
    )


def role_of(node: Node, varying: set[int], states: set[str]) -> tuple[Role, str]:
    """The role of a node and why; `states` are the names of state inputs."""
    if node.inputs and all(constant(t) is not None or t.is_empty() for t in node.inputs):
        return Role.CONSTANT, "it depends on constants only"
    what = fate(node, varying)
    if states and node.op in _EIGHT_BITS:  # of an integer SNN; in a source, it is refused
        return Role.LINEAR, "in 8 bits"
    if what.role is not Role.NEURON and any(tensor.name in states for tensor in node.inputs):
        return Role.STATE, ""
    if what.role is Role.COMPENSATED and not any(id(t) in varying for t in node.inputs):
        return Role.STATIC, "no neuron is before it"
    return what.role, what.reason


_EIGHT_BITS = frozenset(QUANTIZED.split())


def _threshold(node: Node, role: Role) -> float | None:
    if role is not Role.NEURON or constant(node.inputs[1]) is None:
        return None
    values = threshold_of(node)
    return None if values is None else float(values.mean())


def _parameters(graph: Graph) -> int:
    tensors = {
        id(tensor): tensor.values
        for node in graph.nodes
        for tensor in node.inputs
        if constant(tensor) is not None and node.domain != functions.DOMAIN
        if node.op not in _EIGHT_BITS or tensor.values.ndim > 1
    }
    return sum(v.size for v in tensors.values() if v.dtype.kind == "f" or v.dtype == np.int8)
