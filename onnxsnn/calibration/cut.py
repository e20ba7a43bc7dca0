"""Tensors of a network as an ANN and as an SNN, beside each other, over the calibration data.

What is known for good can be recorded: what comes behind it is then computed from there on, and
not from the input, so that going through a network from front to back takes a time that grows
with its depth, and not with its square.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx_graphsurgeon as gs

from onnxsnn.arrays import Array
from onnxsnn.data import Dataset
from onnxsnn.graph import (
    Graph,
    Node,
    Tensor,
    insert,
    nodes_before,
    part_up_to,
    to_model,
    unique_name,
)
from onnxsnn.model import SpikingModel
from onnxsnn.neurons import Neuron
from onnxsnn.passes.spike import spike
from onnxsnn.ratenorm import RECTIFYING
from onnxsnn.runtime.dataset import batch_size
from onnxsnn.runtime.ort_values import Values
from onnxsnn.runtime.step_graph import StepGraph
from onnxsnn.session import Session, fixed_batch, split

__all__ = ["Bench", "Steps"]

_RECORDED = 2**30  # bytes that records may take; what is beyond is computed again

Steps = Iterator[list[Array]]
"""In each timestep, the currents of some tensors."""


@dataclass
class Bench:
    """The two networks, what both are fed, and what of them is recorded.

    Attributes:
        graph: Rate Norm Layers with the thresholds that there are so far.
        reference: the same graph, whose thresholds are not set: the ANN.
        data: unlabelled samples.
        neuron: the neuron that will run; its signed counterpart where values can be negative.
        timesteps: the number of steps that will be run.
        potentials: initial potentials by layer, as fractions of the threshold, other than the
            neuron's.
    """

    graph: Graph
    reference: Graph
    data: Dataset
    neuron: Neuron
    timesteps: int
    potentials: dict[str, Array | float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.batches = self._batches()
        self._currents: dict[str, list[Array]] = {}  # by tensor and batch, [T, ...]
        self._values: dict[str, list[Array]] = {}  # by tensor and batch, of the ANN

    def _batches(self) -> list[dict[str, Array]]:
        """All samples, in the batches in which they are run.

        Where the batch is fixed, samples that do not fill one are left out, or fill the only
        one several times.
        """
        whole = self.graph.copy()
        states = spike(whole, self.neuron, self.potentials).states
        snn = SpikingModel.build(whole, states, {}, [])
        fixed = fixed_batch([spec.shape for spec in snn.inputs])
        if fixed is None:
            return [feeds for feeds, _ in self.data.batches(batch_size(snn))]
        pieces = [split(feeds, fixed)[0] for feeds, _ in self.data.batches(fixed)]
        return pieces[: max(1, len(self.data) // fixed)]

    def observe(self, names: Sequence[str]) -> Iterator[tuple[Steps, list[Array]]]:
        """Tensors of both networks, batch by batch: the SNN's in every step, and the ANN's."""
        if self._currents.keys() >= set(names):
            yield from self._recorded(names)
            return
        snn, ann = self._spiking(names), self._analog(names)
        for batch, feeds in enumerate(self.batches):
            known = {n: _full(self._values[n][batch]) for n in ann.inputs if n in self._values}
            given = ann.run({name: (feeds | known)[name] for name in ann.inputs})
            yield self._steps(snn, batch), list(given.values())

    def _recorded(self, names: Sequence[str]) -> Iterator[tuple[Steps, list[Array]]]:
        for batch in range(len(self.batches)):
            steps = zip(*(_full(self._currents[name][batch]) for name in names), strict=True)
            yield map(list, steps), [_full(self._values[name][batch]) for name in names]

    def record(self, name: str, later: Sequence[Node]) -> None:
        """Keep a tensor of both networks, as far as there is room for it.

        Args:
            name: of the tensor.
            later: the nodes of the graph that will be observed; what they do not need is
                forgotten.
        """
        known = {tensor.name for tensor in self.graph.inputs} | self._currents.keys()
        record = None if name in known else self._recording(name)
        if record is not None:
            self._currents[name], self._values[name] = record
        self._forget(later)

    def _recording(self, name: str) -> tuple[list[Array], list[Array]] | None:
        """What there is to record of a tensor; None where there is no room."""
        room = _RECORDED - sum(map(_bytes, [*self._currents.values(), *self._values.values()]))
        currents, values = [], []
        for steps, (given,) in self.observe([name]):
            currents.append(_compact(np.stack([current for (current,) in steps])))
            values.append(_compact(given))
            if _bytes(currents) + _bytes(values) > room:
                return None
        return currents, values

    def shift(self, name: str, bias: Array) -> None:
        """Add a current to the record of the SNN's tensor, which now has it."""
        if name in self._currents:
            self._currents[name] = [currents + bias for currents in self._currents[name]]

    def _forget(self, later: Sequence[Node]) -> None:
        """Forget the records that these nodes of the graph are not computed from."""
        read = [tensor for node in later for tensor in node.inputs]
        read += [t for node in nodes_before(read, self._currents) for t in node.inputs]
        for name in self._currents.keys() - {tensor.name for tensor in read}:
            del self._currents[name], self._values[name]

    def _steps(self, snn: _Part, batch: int) -> Steps:
        """The currents of a part's outputs in every step."""
        state: Values = {}
        recorded = {n: self._currents[n][batch] for n in snn.inputs if n in self._currents}
        for step in range(self.timesteps):
            known = {name: _full(currents[step]) for name, currents in recorded.items()}
            feeds = {name: (self.batches[batch] | known)[name] for name in snn.inputs}
            outputs, state = snn.graph.step(snn.graph.prepare(feeds), state)
            yield list(outputs.values())

    def _analog(self, names: Sequence[str]) -> Session:
        """The ANN up to these tensors."""
        return Session(to_model(part_up_to(self.reference, names, self._values)))

    def _spiking(self, names: Sequence[str]) -> _Part:
        """The SNN up to these tensors, as the currents of each step.

        A neuron behind each asks for its current, and is taken away again.
        """
        part = part_up_to(self.graph, names, self._currents)
        probes = [_probe(part, tensor) for tensor in part.outputs]
        part.outputs = []
        states = spike(part, self.neuron, self.potentials, currents=self._currents).states
        probed = {tensor.name for probe in probes for tensor in probe.outputs}
        states = [state for state in states if state.output not in probed]
        tensors = part.tensors()
        currents = [probe.inputs[0] for probe in probes]
        part.outputs = [*currents, *(tensors[state.output] for state in states)]
        part.cleanup(remove_unused_graph_inputs=True)
        snn = SpikingModel.build(part, states, {}, [])
        graph = StepGraph(snn.model, states, [tensor.name for tensor in currents])
        return _Part(graph, [spec.name for spec in snn.inputs])


@dataclass(frozen=True)
class _Part:
    """A part of the SNN, and the names of what it is fed in every step."""

    graph: StepGraph
    inputs: list[str]


def _probe(graph: Graph, tensor: Tensor) -> Node:
    """A Rate Norm Layer that reads a tensor."""
    theta = gs.Constant(unique_name(graph, "probe.theta"), np.ones((), np.float32))
    rate = gs.Variable(unique_name(graph, "probe.rate"), np.float32)
    return insert(graph, RECTIFYING, [tensor, theta], rate)


def _compact(values: Array) -> Array:
    """The values in a quarter of the bytes, where they are small whole numbers, as spikes are."""
    with np.errstate(invalid="ignore"):
        small = values.astype(np.int8)
    return small if np.array_equal(small, values) else values


def _full(values: Array) -> Array:
    """What may have been made compact as it was."""
    return values.astype(np.float32, copy=False)


def _bytes(arrays: Sequence[Array]) -> int:
    return sum(array.nbytes for array in arrays)
