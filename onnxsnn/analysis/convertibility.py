"""The compatibility report: what would become of every node, before anything is converted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from onnxsnn.analysis.inspection import role_of
from onnxsnn.analysis.macs import OPEN_SIZE, macs, with_sizes
from onnxsnn.errors import UnsupportedError
from onnxsnn.graph import Graph, Node, constant, is_static_shape
from onnxsnn.operators import RECTIFIER, Role, varying_tensors
from onnxsnn.passes.clean import name_nodes
from onnxsnn.pipeline import Pipeline, prepare
from onnxsnn.ratenorm import RECTIFYING, SIGNED
from onnxsnn.session import fixed_batch
from onnxsnn.signals import Signal, Signals, analog_nodes, weighted_input
from onnxsnn.source import Source, load_source

__all__ = ["Convertibility", "FateRow", "convertibility"]

_SPIKES, _INPUT, _ANALOG = "spikes", "input", "analog"
_DRIVEN = {Signal.SPIKES: _SPIKES, Signal.INPUT: _INPUT, Signal.CURRENT: _INPUT}


@dataclass(frozen=True)
class FateRow:
    """One node of the source model.

    Attributes:
        fate: a `Role` by name; `rewritten` for what another pass takes away too.
        reason: why, or into what.
        macs: multiply-accumulates per sample; None where a size is not known.
        driven: what drives these: `spikes`, `input` (a constant current, computed once), or
            `analog`; empty where there are none.
    """

    name: str
    operator: str
    fate: str
    reason: str
    macs: int | None = 0
    driven: str = ""


@dataclass
class Convertibility:
    """A model's prospects.

    Attributes:
        rows: one per node of the source model, in topological order.
        fates: nodes by fate.
        macs: multiply-accumulates per sample by what drives them.
        unsized: nodes whose products of weights are not known, Loops among them; not in `macs`.
        assumed: the size that was taken for what the inputs leave open; None where nothing is.
        rectifiers: layers of neurons in the place of rectifiers.
        encoders: layers of neurons that encode what is analog.
        compensated: nodes between neurons that compute on running means, by operator.
        problem: why the model cannot be converted; None where it can.
    """

    rows: list[FateRow]
    problem: str | None = None
    fates: dict[str, int] = field(default_factory=dict)
    macs: dict[str, int] = field(default_factory=dict)
    unsized: int = 0
    assumed: int | None = None
    rectifiers: int = 0
    encoders: int = 0
    compensated: dict[str, int] = field(default_factory=dict)

    @property
    def convertible(self) -> bool:
        """Whether nothing refuses."""
        return self.problem is None

    def share(self, driven: str) -> float | None:
        """The share of multiply-accumulates that is driven so; None where there are none."""
        total = sum(self.macs.values())
        return self.macs.get(driven, 0) / total if total else None


def convertibility(path: str | Path) -> Convertibility:
    """Say what `convert` would do with a model, and what it would refuse.

    Raises:
        ModelError: the file cannot be read or is not a valid model.
    """
    source = load_source(path)
    graph = source.graph()
    name_nodes(graph)
    graph.toposort()
    try:
        prepared = prepare(source, Pipeline(None)).graph
    except UnsupportedError as error:
        return _counted(Convertibility(_plain_rows(graph), problem=str(error)))
    return _counted(_prospects(source, graph, prepared))


def _counted(report: Convertibility) -> Convertibility:
    report.fates = dict(Counter(row.fate for row in report.rows))
    for row in report.rows:
        if row.macs and row.driven:
            report.macs[row.driven] = report.macs.get(row.driven, 0) + row.macs
    report.unsized = sum(row.macs is None for row in report.rows)
    return report


def _plain_rows(graph: Graph) -> list[FateRow]:
    varying = varying_tensors(graph)
    return [FateRow(node.name, node.op, *_role(node, varying)) for node in _shown(graph)]


def _shown(graph: Graph) -> list[Node]:
    return [node for node in graph.nodes if node.op != "Constant"]


def _role(node: Node, varying: set[int]) -> tuple[str, str]:
    role, reason = role_of(node, varying, set())
    return role.value, reason


def _prospects(source: Source, graph: Graph, prepared: Graph) -> Convertibility:
    """The report of a graph that can be converted, `prepared` being what the passes made of it."""
    varying = varying_tensors(prepared)
    driven = _driven(prepared, varying)
    counts = _counts(prepared)
    there = {node.name: node for node in prepared.nodes}
    rows = []
    for node in _shown(graph):
        fate, reason = _fate(node, there.get(node.name), varying)
        if node.name in driven:
            rows.append(
                FateRow(node.name, node.op, fate, reason, counts.get(node.name), driven[node.name])
            )
        else:
            rows.append(FateRow(node.name, node.op, fate, reason))
    kinds = Counter(node.op for node in prepared.nodes)
    sized = all(is_static_shape(spec.shape) for spec in source.inputs)
    return Convertibility(
        rows,
        assumed=None if sized else OPEN_SIZE,
        rectifiers=kinds[RECTIFYING],
        encoders=kinds[SIGNED],
        compensated=dict(
            Counter(node.op for node in analog_nodes(prepared) if _varies(node, varying))
        ),
    )


def _counts(prepared: Graph) -> dict[str, int | None]:
    """Multiply-accumulates per sample, by node: those of a fixed batch are shared out evenly."""
    batch = fixed_batch([tensor.shape or () for tensor in prepared.inputs]) or 1
    counts = {node.name: macs(node) for node in with_sizes(prepared).nodes}
    return {name: None if n is None else round(n / batch) for name, n in counts.items()}


def _fate(node: Node, prepared: Node | None, varying: set[int]) -> tuple[str, str]:
    """What became of a node of the source model."""
    if prepared is not None and prepared.op == RECTIFYING:
        return Role.REWRITTEN.value, RECTIFIER
    if prepared is not None:
        return _role(prepared, varying)
    if all(constant(tensor) is not None for tensor in node.inputs):
        return _role(node, varying)
    return Role.REWRITTEN.value, "folded into constants, or into a node beside it"


def _driven(prepared: Graph, varying: set[int]) -> Mapping[str, str]:
    """By name of a node with products, what drives them."""
    signals = Signals(prepared)
    return {
        node.name: _driver(node, signals, varying) for node in prepared.nodes if macs(node) != 0
    }


def _varies(node: Node, varying: set[int]) -> bool:
    """Whether a node is computed in each step, and not once."""
    return any(id(tensor) in varying for tensor in node.inputs)


def _driver(node: Node, signals: Signals, varying: set[int]) -> str:
    position = weighted_input(node)
    if not _varies(node, varying):
        return _INPUT
    return _ANALOG if position is None else _DRIVEN.get(signals[node.inputs[position]], _ANALOG)
