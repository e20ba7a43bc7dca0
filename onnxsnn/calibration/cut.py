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
        self._records: dict[str, _Record] = {}

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
        if self._records.keys() >= set(names):
            yield from self._recorded([self._records[name] for name in names])
            return
        snn, ann = self._spiking(names), self._analog(names)
        for batch, feeds in enumerate(self.batches):
            known = self._known(ann.inputs)
            values = {name: _full(record.values[batch]) for name, record in known.items()}
            given = ann.run({name: (feeds | values)[name] for name in ann.inputs})
            yield self._steps(snn, batch), list(given.values())

    def _recorded(self, records: Sequence[_Record]) -> Iterator[tuple[Steps, list[Array]]]:
        """What `observe` gives, where all of it is recorded."""
        for batch in range(len(self.batches)):
            steps = zip(*(record.currents[batch] for record in records), strict=True)
            yield (
                ([_full(current) for current in currents] for currents in steps),
                [_full(record.values[batch]) for record in records],
            )

    def record(self, name: str, later: Sequence[Node]) -> None:
        """Keep a tensor of both networks, as far as there is room for it.

        Args:
            name: of the tensor.
            later: the nodes of the graph that will be observed; what they do not need is
                forgotten.
        """
        if name not in self._records and name not in {t.name for t in self.graph.inputs}:
            record = self._recording(name)
            if record is not None:
                self._records[name] = record
        self._forget(later)

    def _recording(self, name: str) -> _Record | None:
        """The record of a tensor; None where there is no room."""
        room = _RECORDED - sum(record.bytes for record in self._records.values())
        record = _Record([], [])
        for steps, (given,) in self.observe([name]):
            record.values.append(_compact(given))
            record.currents.append([])
            for (current,) in steps:
                record.currents[-1].append(_compact(current))
                left = len(self.batches) * self.timesteps - record.steps  # as large as this one
                if record.bytes + left * record.currents[-1][-1].nbytes > room:
                    return None
        return record

    def shift(self, name: str, bias: Array) -> None:
        """Add a current to the record of the SNN's tensor, which now has it."""
        if name in self._records:
            record = self._records[name]
            record.currents = [[current + bias for current in steps] for steps in record.currents]

    def _forget(self, later: Sequence[Node]) -> None:
        """Forget the records that these nodes of the graph are not computed from."""
        read = [tensor for node in later for tensor in node.inputs]
        read += [t for node in nodes_before(read, self._records) for t in node.inputs]
        for name in self._records.keys() - {tensor.name for tensor in read}:
            del self._records[name]

    def _known(self, names: Sequence[str]) -> dict[str, _Record]:
        """Those of the tensors that are recorded."""
        return {name: self._records[name] for name in names if name in self._records}

    def _steps(self, snn: _Part, batch: int) -> Steps:
        """The currents of a part's outputs in every step."""
        state: Values = {}
        known = self._known(snn.inputs)
        for step in range(self.timesteps):
            currents = {n: _full(record.currents[batch][step]) for n, record in known.items()}
            feeds = {name: (self.batches[batch] | currents)[name] for name in snn.inputs}
            outputs, state = snn.graph.step(snn.graph.prepare(feeds), state)
            yield list(outputs.values())

    def _analog(self, names: Sequence[str]) -> Session:
        """The ANN up to these tensors."""
        return Session(to_model(part_up_to(self.reference, names, self._records)))

    def _spiking(self, names: Sequence[str]) -> _Part:
        """The SNN up to these tensors, as the currents of each step.

        A neuron behind each asks for its current, and is taken away again.
        """
        part = part_up_to(self.graph, names, self._records)
        probes = [_probe(part, tensor) for tensor in part.outputs]
        part.outputs = []
        states = spike(part, self.neuron, self.potentials, currents=self._records).states
        probed = {tensor.name for probe in probes for tensor in probe.outputs}
        states = [state for state in states if state.output not in probed]
        tensors = part.tensors()
        currents = [probe.inputs[0] for probe in probes]
        part.outputs = [*currents, *(tensors[state.output] for state in states)]
        part.cleanup(remove_unused_graph_inputs=True)
        snn = SpikingModel.build(part, states, {}, [])
        graph = StepGraph(snn.model, states, [tensor.name for tensor in currents])
        return _Part(graph, [spec.name for spec in snn.inputs])


@dataclass
class _Record:
    """A tensor over the data.

    Attributes:
        currents: of the SNN, by batch and step.
        values: of the ANN, by batch.
    """

    currents: list[list[Array]]
    values: list[Array]

    @property
    def steps(self) -> int:
        """The steps that it holds, of all batches."""
        return sum(map(len, self.currents))

    @property
    def bytes(self) -> int:
        """What it takes."""
        arrays = [*self.values, *(current for steps in self.currents for current in steps)]
        return sum(array.nbytes for array in arrays)


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
