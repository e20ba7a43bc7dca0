"""NIR: the SNN in the Neuromorphic Intermediate Representation (Pedersen et al. 2024).

What a reader gets is a graph of IF neurons between layers of weights; spikes are 0 or 1.

1. A neuron is an `IF` with r = 1 and a threshold per neuron. NIR's `IF` does not say that the
   reset subtracts the threshold; its metadata do, and its readers have a setting for it.
2. A layer of weights is a `Conv1d`, `Conv2d` or `Affine`. Groups become zeros in a dense
   weight, since NIR checks the shapes of ungrouped ones only; uneven pads become taps of zero.
3. Average pooling is a `SumPool2d`, whose factor 1 / n enters the weights behind: what travels
   stays whole. Where none can take it, it stays as a scale. Uneven pads make it a `Conv2d`, and of
   one axis it is a `Conv1d`. Where pads do not count, a `Scale` behind makes up for them.
4. A sum of tensors is no node: several edges into a node add up. So is Concat, of channels: each
   tensor comes through weights of 1 x 1 that put it in its place.
5. A scale or a shift per channel is a `Conv2d` of 1 x 1, or a `Conv1d` of 1, which more readers
   know than `Scale`. So is a Pad, with pads, and what takes some of the channels.
6. Transposes and Reshapes between channels last and channels first are left out: see
   `onnxsnn.export.reordered`.
7. The running mean in front of the read-out is left to the reader: NIR's output is that of one
   timestep, whose mean over the timesteps is the SNN's output.

Anything else is a loss: it is listed, and nothing is written unless that is allowed. An output that
needs what NIR has nothing for is lost where there is another.
"""

from __future__ import annotations

import io
import re
from collections.abc import Collection
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from onnxsnn.errors import UnsupportedError, UsageError
from onnxsnn.export.network import Network, Operation, read_network, some
from onnxsnn.export.nir_nodes import RULES, TAKES_FACTOR, in_place, neuron, scaling
from onnxsnn.export.reordered import without_moves
from onnxsnn.files import write_bytes
from onnxsnn.graph import free_name
from onnxsnn.model import SpikingModel

__all__ = ["NIR_NOTES", "export_nir", "nir_graph"]

NIR_NOTES = (
    "the reset of every IF subtracts its threshold; a reader that resets to v_reset must be told",
    "a neuron fires once a step at most, at v >= v_threshold, and its potential has no minimum",
    "the mean of the outputs over the timesteps is the network's output",
)
"""What a reader of the file must know, and NIR cannot say."""


def export_nir(snn: SpikingModel, path: str | Path, *, allow_loss: bool = False) -> list[str]:
    """Write an SNN as NIR; see `nir_graph`. Gives what was lost.

    Raises:
        OutputError: the file cannot be written.
        UsageError, UnsupportedError: as `nir_graph`.
    """
    nir = _nir()
    graph, losses = nir_graph(snn, allow_loss=allow_loss)
    buffer = io.BytesIO()
    nir.write(buffer, graph)
    write_bytes(buffer.getvalue(), path)
    return losses


def nir_graph(snn: SpikingModel, *, allow_loss: bool = False) -> tuple[Any, list[str]]:
    """An SNN as a `nir.NIRGraph`, and what NIR cannot say of it.

    Args:
        snn: the SNN.
        allow_loss: leave out what NIR cannot say, where the rest holds together without it.

    Raises:
        UsageError: the package nir is not installed.
        UnsupportedError: NIR cannot say something, and it may not, or cannot, be left out.
    """
    writer = _Writer(_nir(), without_moves(read_network(snn)))
    writer.write()
    if not writer.given:
        raise UnsupportedError(
            f"NIR has nothing for {some(writer.needed)}, "
            "and what is behind would not fit if that were left out"
        )
    losses = [f"{why} ({some(where)})" for why, where in writer.losses.items()]
    if losses and not allow_loss:
        raise UnsupportedError(
            f"NIR cannot say: {'; '.join(losses)}; --allow-loss writes the file without"
        )
    return writer.graph(), writer.network.losses + losses


def _nir() -> ModuleType:
    try:
        import nir
    except ImportError as error:
        raise UsageError(
            "NIR files need the package nir; install it with: pip install 'onnxsnn[nir]'"
        ) from error
    module: ModuleType = nir
    return module


class _Writer:
    """Translates operation by operation.

    `sources` are the nodes whose sum a tensor is, and `factors` what it must still be
    multiplied by. What needs an operation that NIR has nothing for is `missing`; the outputs that
    are not are `given`.
    """

    def __init__(self, nir: ModuleType, network: Network) -> None:
        self.nir = nir
        self.network = network
        self.shapes = network.shapes
        self.nodes: dict[str, Any] = {}
        self.edges: list[tuple[str, str]] = []
        self.sources: dict[str, list[str]] = {}
        self.factors: dict[str, float] = {}
        self.losses: dict[str, list[str]] = {}
        self.needed: list[str] = []
        self.missing: set[str] = set()

    @property
    def given(self) -> list[str]:
        """The outputs that the file has."""
        return [name for name in self.network.outputs if name not in self.missing]

    def write(self) -> None:
        for name, shape in self.network.inputs.items():
            node = self.nir.Input(np.array(shape))
            self.sources[name] = [self._add(_end("input", name, self.network.inputs), node, [])]
        for operation in self.network.operations:
            if self.missing.isdisjoint(operation.inputs):
                self._write(operation)
            else:
                self.missing.update(operation.outputs)
        for name in self.given:
            node = self.nir.Output(np.array(self.shapes[name]))
            self._add(_end("output", name, self.given), node, self._settled(name))
        lost = [name for name in self.network.outputs if name in self.missing]
        if lost:
            self.losses[f"outputs behind {some(self.needed)}, for which it has nothing"] = lost

    def graph(self) -> Any:
        """The nodes that an output is behind, and the edges between them."""
        used = {name for name, node in self.nodes.items() if isinstance(node, self.nir.Output)}
        for source, target in reversed(self.edges):  # in the order in which targets were added
            used |= {source} if target in used else set()
        return self.nir.NIRGraph(
            {name: node for name, node in self.nodes.items() if name in used},
            [edge for edge in self.edges if edge[1] in used],
            metadata={"timesteps": self.network.timesteps, "notes": ". ".join(NIR_NOTES)},
        )

    def _write(self, operation: Operation) -> None:
        if operation.operator in _LEFT_TO_THE_READER:
            if operation.operator == "DelayedMean":
                self._lose(_DELAY, operation)
            self._pass(operation)
        elif operation.fires:
            self._neuron(operation)
        elif operation.operator in ("Add", "Subtract") and self._fits(operation):
            self._sum(operation)
        elif not (self._joined(operation) or self._by_rule(operation)):
            self._leave_out(operation)

    def _neuron(self, operation: Operation) -> None:
        if operation.operator != "IntegrateAndFire":
            self._lose(f"{operation.operator}, whose spikes are not 0 and 1", operation)
        if np.any(operation.arrays["v0"]):
            self._lose(_POTENTIAL, operation)
        before = self._settled(operation.inputs[0])
        node = neuron(self.nir, operation)
        self.sources[operation.output] = [self._add(operation.name, node, before)]

    def _by_rule(self, operation: Operation) -> bool:
        """Add the nodes that NIR has for an operation; False if it has none."""
        rule = RULES.get(operation.operator) if operation.canonical else None
        if rule is None:
            return False
        (read,) = operation.inputs
        takes = operation.operator in TAKES_FACTOR
        factor = self.factors.get(read, 1.0) if takes else 1.0
        found = rule(self.nir, operation, self.shapes[read], factor)
        if found is None:
            return False
        nodes, self.factors[operation.output] = found
        before = self.sources[read] if takes else self._settled(read)
        for node in nodes:
            before = [self._add(operation.name, node, before)]
        self.sources[operation.output] = before
        return True

    def _pass(self, operation: Operation) -> None:
        """What an operation gives is what it reads."""
        (read,) = operation.inputs
        self.sources[operation.output] = self.sources[read]
        self.factors[operation.output] = self.factors.get(read, 1.0)

    def _fits(self, operation: Operation) -> bool:
        """Whether all terms of a sum have its shape; edges do not broadcast."""
        return all(self.shapes[name] == operation.shape for name in operation.inputs)

    def _sum(self, operation: Operation) -> None:
        """The sources of all terms; one that is there already comes through a node of its own."""
        sources: list[str] = []
        for index, name in enumerate(operation.inputs):
            sign = -1.0 if index and operation.operator == "Subtract" else 1.0
            for source in self._settled(name, sign):
                if source in sources:
                    again = scaling(self.nir, self.shapes[name], 1.0)
                    source = self._add(operation.name, again, [source])
                sources.append(source)
        self.sources[operation.output] = sources

    def _joined(self, operation: Operation) -> bool:
        """Add the nodes that put tensors beside each other; False if they are no channels."""
        if not operation.canonical or operation.operator != "Concat" or operation.settings["axis"]:
            return False
        sources: list[str] = []
        first = 0
        for name in operation.inputs:
            shape = self.shapes[name]
            factor = self.factors.get(name, 1.0)
            node = in_place(self.nir, shape, operation.shape[0], first, factor)
            if node is None:
                return False
            sources.append(self._add(operation.name, node, self.sources[name]))
            first += shape[0]
        self.sources[operation.output] = sources
        return True

    def _settled(self, name: str, sign: float = 1.0) -> list[str]:
        """The sources of a tensor, multiplied by what no weights have taken, and by a sign."""
        factor = sign * self.factors.get(name, 1.0)
        if factor == 1.0:
            return self.sources[name]
        node = scaling(self.nir, self.shapes[name], factor)
        return [self._add(f"{name}_scale", node, self.sources[name])]

    def _leave_out(self, operation: Operation) -> None:
        one = len(operation.inputs) == 1 and len(operation.outputs) == 1
        stays = operation.operator not in _MOVES
        if one and stays and self.shapes[operation.inputs[0]] == operation.shape:
            self._lose(f"{operation.operator}, for which it has no node", operation)
            self._pass(operation)
            return
        self.needed.append(str(operation))
        self.missing.update(operation.outputs)

    def _lose(self, what: str, operation: Operation) -> None:
        self.losses.setdefault(what, []).append(operation.name)

    def _add(self, name: str, node: Any, before: list[str]) -> str:
        """Add a node behind others, under a name of letters and digits; gives the name."""
        base = re.sub(r"\W", "_", name).strip("_") or "node"
        free = free_name(self.nodes.keys(), base)
        self.nodes[free] = node
        self.edges += [(source, free) for source in before]
        return free


def _end(role: str, name: str, names: Collection[str]) -> str:
    """The name of an input or output node: its role, where there is but one."""
    return role if len(names) == 1 else name


_POTENTIAL = "the potential before the first step; `convert --initial-potential 0` has none"
_DELAY = "the steps that the outputs leave out; `convert --delay 0` leaves out none"
_MOVES = frozenset({"Transpose", "Slice", "Take"})
"""What changes places alone: what is behind, left with others, would compute something else."""

_LEFT_TO_THE_READER = {
    "RunningMean",
    "DelayedMean",
    "RunningSum",
    "SumIncrement",
    "MeanIncrement",
    "SumToMean",
}
