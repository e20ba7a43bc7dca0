"""Tensors of a network as an ANN and as an SNN, beside each other, over the calibration data.

What is known for good can be recorded: what comes behind it is then computed from there on, and
not from the input, so that going through a network from front to back takes a time that grows
with its depth, and not with its square. Where there is no room for records of all samples, some are
left out.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field

import numpy as np
import onnx_graphsurgeon as gs

from onnxsnn.arrays import Array
from onnxsnn.calibration.records import Record
from onnxsnn.data import Dataset
from onnxsnn.graph import (
    Graph,
    Node,
    Tensor,
    drop_unused,
    floats,
    insert,
    is_float,
    nodes_before,
    nodes_behind,
    part_up_to,
    sized_for,
    to_model,
    unique_name,
    values_per_sample,
)
from onnxsnn.model import input_specs, stateful
from onnxsnn.neurons import Neuron
from onnxsnn.passes.spike import spike
from onnxsnn.ratenorm import RECTIFYING, is_rate_norm
from onnxsnn.readers import spread
from onnxsnn.runtime.dataset import BATCH
from onnxsnn.runtime.ort_values import Values
from onnxsnn.runtime.step_graph import StepGraph
from onnxsnn.session import Session, fixed_batch

__all__ = ["Bench", "Steps", "mean_currents"]

_RECORDED = 2**31  # bytes that records may take
_SPARE = 0.25  # of what is free, for a sum; the layers on its way take about as much each
_FEWEST = 4  # samples that are left, or run at once, at least,
_VALUES = 2**22, 2**24  # but of a tensor, values of those run at once; more of so few samples
_SLACK = 0.9  # of the room: batches differ

Steps = Iterator[list[Array]]
"""In each timestep, the currents of some tensors."""


def mean_currents(steps: Steps) -> list[Array]:
    """The means over time of some tensors' currents."""
    totals = [current.copy() for current in next(steps)]
    count = 1
    for currents in steps:
        for total, current in zip(totals, currents, strict=True):
            total += current
        count += 1
    return [total / np.float32(count) for total in totals]


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
        self._records: dict[str, Record] = {}
        self._tried: set[str] = set()

    @property
    def samples(self) -> int:
        """Of all batches together."""
        return sum(map(len, self.batches))

    def some(self, samples: int) -> Bench:
        """A bench of the same networks, and of about so many samples, spread evenly."""
        few = copy(self)
        few._keep(spread(-(-len(self.batches) * samples // self.samples), len(self.batches)))
        return few

    def _batches(self) -> list[Array]:
        """The numbers of the samples of each batch.

        Where the batch is fixed, samples that do not fill one are left out, or fill the only one
        in turns.
        """
        fixed, count = fixed_batch([t.shape for t in self.graph.inputs]), len(self.data)
        if fixed is None:
            size = _batch_size(self.graph, self.data)
            return [np.arange(i, min(i + size, count)) for i in range(0, count, size)]
        return [np.arange(i, i + fixed) % count for i in range(0, max(count - fixed, 0) + 1, fixed)]

    def _feeds(self, batch: int) -> dict[str, Array]:
        """What the networks are fed."""
        rows = self.batches[batch]
        feeds, _ = next(self.data.take(rows).batches(len(rows)))
        return feeds

    def observe(
        self, names: Sequence[str], wanted: Sequence[str] | None = None
    ) -> Iterator[tuple[Steps, list[Array]]]:
        """Tensors of both networks, batch by batch: the SNN's in every step, and the ANN's.

        Args:
            names: of the SNN's tensors.
            wanted: of the ANN's; None for the same.
        """
        snn = self._spiking(names)
        for batch, feeds, values in self._fed(snn, names if wanted is None else wanted):
            yield self._steps(snn, names, batch, feeds), values

    def observe_means(
        self, names: Sequence[str], wanted: Sequence[str]
    ) -> Iterator[tuple[list[Array], list[Array]]]:
        """The same of the SNN's means over time.

        Where no state comes between them and what is recorded, they are computed from means.
        """
        snn = self._spiking(names)
        for batch, feeds, values in self._fed(snn, wanted):
            yield self._means(snn, names, batch, feeds), values

    def _fed(
        self, snn: _Part | None, wanted: Sequence[str]
    ) -> Iterator[tuple[int, dict[str, Array], list[Array]]]:
        """Batch by batch, what the networks are fed, and the ANN's tensors."""
        ann = None if self._records.keys() >= set(wanted) else self._analog(wanted)
        for batch in range(len(self.batches)):
            feeds = self._feeds(batch) if snn or ann else {}
            yield batch, feeds, self._values(ann, wanted, batch, feeds)

    def _recorded_steps(self, names: Sequence[str], batch: int) -> Steps:
        """The currents of tensors that are recorded, in every step."""
        currents = [self._records[name].currents[batch] for name in names]
        return ([current.full() for current in step] for step in zip(*currents, strict=True))

    def _values(
        self, ann: Session | None, wanted: Sequence[str], batch: int, feeds: dict[str, Array]
    ) -> list[Array]:
        """The ANN's tensors; all of them are recorded where no part of it is given."""
        if ann is None:
            return [self._records[name].values[batch].full() for name in wanted]
        known = self._known(ann.inputs)
        values = {name: record.values[batch].full() for name, record in known.items()}
        return list(ann.run({name: (feeds | values)[name] for name in ann.inputs}).values())

    def record(self, tensor: Tensor, later: Sequence[Node], spare: float | None = None) -> None:
        """Keep a tensor of both networks for later use.

        Where there is no room for all samples, some are left out, from now on and of all records:
        what is not recorded would be computed again for every layer behind it, and maps that take
        so much room show much in each sample.

        Args:
            tensor: of the graph.
            later: the nodes of the graph that are still to be observed, and changed; a tensor that
                depends on one is not kept, and what none of them needs is forgotten.
            spare: the share of what is free that it may take, or else is not kept; None where
                samples may be left out for it.
        """
        changed = {id(node) for node in later}
        final = not any(id(node) in changed for node in nodes_before([tensor]))
        given = any(tensor is entry for entry in self.graph.inputs)
        read = self._needed(later, {*self._records, tensor.name})
        if final and not given and tensor.name in read - self._records.keys():
            record = self._recording(tensor.name, spare)
            if record is not None:
                self._records[tensor.name] = record
        for name in self._records.keys() - self._needed(later, self._records):
            del self._records[name]

    def record_settled(self, later: Sequence[Node]) -> None:
        """Keep what will not change and enters what will, if there is much room for it.

        Those are sums of shortcuts above all, which would be computed anew from all layers that
        have added to them. Arguments are those of `record`.
        """
        changing = {id(node): node for node in nodes_behind(later)}
        waiting = {id(node) for node in later}
        read = [t for key, node in changing.items() if key not in waiting for t in node.inputs]
        for tensor in read:
            settled = bool(tensor.inputs) and id(tensor.inputs[0]) not in changing
            if settled and tensor.name not in self._tried:
                self._tried.add(tensor.name)
                if is_float(tensor) and any(map(is_rate_norm, nodes_before([tensor]))):
                    self.record(tensor, later, spare=_SPARE)

    def _recording(self, name: str, spare: float | None) -> Record | None:
        """The record of a tensor; None where there is no room."""
        held = sum(record.bytes for record in self._records.values())
        room = (_RECORDED - held) * (1 if spare is None else spare)
        record = Record([], [])
        for steps, (given,) in self.observe([name]):
            record.add(given, (current for (current,) in steps))
            whole = record.bytes * len(self.batches) // len(record.values)
            if whole > room:
                fits = spare is None and self._leave_out(_RECORDED / (held + whole))
                return self._recording(name, spare) if fits else None
        return record

    def _leave_out(self, share: float) -> bool:
        """Keep no more than a share of the batches, if that is enough to go on with."""
        kept = spread(int(len(self.batches) * share * _SLACK), len(self.batches))
        if sum(len(self.batches[batch]) for batch in kept) < _FEWEST:
            return False
        self._keep(kept)
        return True

    def _keep(self, batches: Array) -> None:
        """Forget all batches but these."""
        self.batches = [self.batches[batch] for batch in batches]
        self._records = {name: record.of(batches) for name, record in self._records.items()}

    def shift(self, name: str, bias: Array) -> None:
        """Add a current to the record of the SNN's tensor, which now has it."""
        if name in self._records:
            self._records[name].shift(bias)

    def _needed(self, later: Sequence[Node], known: Collection[str]) -> set[str]:
        """Which of the tensors that are known these nodes of the graph are computed from."""
        read = [tensor for node in later for tensor in node.inputs]
        read += [tensor for node in nodes_before(read, known) for tensor in node.inputs]
        return {tensor.name for tensor in read if tensor.name in known}

    def _known(self, names: Sequence[str]) -> dict[str, Record]:
        """Those of the tensors that are recorded."""
        return {name: self._records[name] for name in names if name in self._records}

    def _means(
        self, snn: _Part | None, names: Sequence[str], batch: int, feeds: dict[str, Array]
    ) -> list[Array]:
        """The means over time of the currents of tensors."""
        if snn is None or not snn.is_linear:
            return mean_currents(self._steps(snn, names, batch, feeds))
        known = list(self._known(snn.inputs))
        means = mean_currents(self._recorded_steps(known, batch)) if known else []
        return snn.run(feeds | dict(zip(known, means, strict=True)), {})[0]

    def _steps(
        self, snn: _Part | None, names: Sequence[str], batch: int, feeds: dict[str, Array]
    ) -> Steps:
        """The currents of tensors in every step: of a part's outputs, or what is recorded."""
        if snn is None:
            yield from self._recorded_steps(names, batch)
            return
        state: Values = {}
        known = self._known(snn.inputs)
        for step in range(self.timesteps):
            currents = {n: record.currents[batch][step].full() for n, record in known.items()}
            outputs, state = snn.run(feeds | currents, state)
            yield outputs

    def _analog(self, names: Sequence[str]) -> Session:
        """The ANN up to these tensors."""
        part = part_up_to(self.reference, names, self._records)
        return Session(to_model(part), spinning=False)

    def _spiking(self, names: Sequence[str]) -> _Part | None:
        """The SNN up to these tensors, as the currents of each step; None where all are recorded.

        A neuron behind each asks for its current, and is taken away again.
        """
        if self._records.keys() >= set(names):
            return None
        part = part_up_to(self.graph, names, self._records)
        probes = [_probe(part, tensor) for tensor in part.outputs]
        part.outputs = []
        states = spike(part, self.neuron, self.potentials, currents=self._records).states
        probed = {tensor.name for probe in probes for tensor in probe.outputs}
        states = [state for state in states if state.output not in probed]
        tensors = part.tensors()
        currents = [probe.inputs[0] for probe in probes]
        part.outputs = [*currents, *(tensors[state.output] for state in states)]
        drop_unused(part)
        model = stateful(part, states)
        graph = StepGraph(model, states, [tensor.name for tensor in currents], spinning=False)
        return _Part(graph, [spec.name for spec in input_specs(model)], not states)


@dataclass(frozen=True)
class _Part:
    """A part of the SNN.

    Attributes:
        graph: its step graph.
        inputs: the names of what it is fed in every step.
        is_linear: whether it has no states, and so gives of means the means of what it gives.
    """

    graph: StepGraph
    inputs: list[str]
    is_linear: bool

    def run(self, values: Mapping[str, Array], state: Values) -> tuple[list[Array], Values]:
        """The currents of a step, of values that it is fed among others, and the state after it."""
        fed = self.graph.prepare({name: values[name] for name in self.inputs})
        outputs, state = self.graph.step(fed, state)
        return list(outputs.values()), state


def _batch_size(graph: Graph, data: Dataset) -> int:
    """How many samples to run at once: a part that is run holds few tensors at a time."""
    sized = sized_for(graph, data.inputs)
    widest = max(values_per_sample(tensor) for node in sized.nodes for tensor in node.outputs)
    many, few = (values // max(widest, 1) for values in _VALUES)
    return int(np.clip(many, min(max(few, 1), _FEWEST), BATCH))


def _probe(graph: Graph, tensor: Tensor) -> Node:
    """A Rate Norm Layer that reads a tensor."""
    theta = floats(graph, "probe.theta", np.ones(()))
    rate = gs.Variable(unique_name(graph, "probe.rate"), np.float32)
    return insert(graph, RECTIFYING, [tensor, theta], rate)
