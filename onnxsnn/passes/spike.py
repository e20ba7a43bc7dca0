"""From rates to spikes: Rate Norm Layers become neurons, every tensor gets its form in time.

A tensor of the ANN that varies over time takes one of four forms in the SNN, after step t:

    current   x_t, what arrives in this step
    sum       x_1 + ... + x_t
    mean      (x_1 + ... + x_t) / t, the running estimate of the ANN's tensor
    delayed   the mean, up to step t0; from then on (x_(t0 + 1) + ... + x_t) / (t - t0)

A *static* tensor, which depends on the input current and constants only, is the same in
every step, and is current and mean at once.

1. A neuron reads a current and writes one (its spikes).
2. A linear node works on currents; on means, if all that it reads are means, if no neuron
   follows (the read-out is applied to the running mean), or if nothing that reads it needs a
   current and some of what it reads are means, or it moves the samples to another axis: states
   have them in front.
3. A compensated node f works on means; the current that it gives is the increment
   `t f(mean_t) - (t-1) f(mean_(t-1))`, whose running mean is exactly f of the mean
   (expectation compensation; ECMT, Huang et al. 2024). A positively homogeneous f of one input
   that is no mean, MaxPool above all, works on sums, so that of 0/1 spikes it gives 0/1 again.
4. A graph output is a mean: the running estimate of the ANN's output.
5. With a delay t0, every mean of the read-out, which is what no neuron follows, and of the graph
   outputs is a delayed one (Bu, Li and Yu, CVPR 2025); means that neurons follow are not.

Each change of form is a node of the onnxsnn domain, with a state where it needs one.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from enum import Enum, auto

import numpy as np
import onnx_graphsurgeon as gs

from onnxsnn.arrays import Array
from onnxsnn.errors import UnsupportedError
from onnxsnn.graph import Graph, Node, Tensor, describe, floats, insert, is_float, rank, unique_name
from onnxsnn.neurons import Neuron
from onnxsnn.operators import (
    Fate,
    Role,
    fate,
    rectifier_limit,
    refuse_unsupported,
    values_read,
    varying_tensors,
)
from onnxsnn.passes.name_batch import batch_names
from onnxsnn.passes.report import Report
from onnxsnn.ratenorm import SIGNED, is_rate_norm
from onnxsnn.signals import before_neurons, weighted_input

__all__ = ["SpikeReport", "State", "spike"]


@dataclass(frozen=True)
class State:
    """What the SNN carries from one timestep to the next.

    Attributes:
        input: name of the graph input that takes it.
        output: name of the graph output that gives it.
        role: `potential`, `sum`, `last` or `step`.
        default: its value before the first step, broadcastable to its shape.
    """

    input: str
    output: str
    role: str
    default: Array


@dataclass
class SpikeReport(Report):
    """The report of the pass, and the states that it made, in the order of the graph's inputs."""

    states: list[State] = field(default_factory=list)


class _Form(Enum):
    STATIC = auto()
    CURRENT = auto()
    SUM = auto()
    MEAN = auto()
    DELAYED = auto()


def spike(
    graph: Graph,
    neuron: Neuron,
    potentials: Mapping[str, Array | float] | None = None,
    delay: int = 0,
    currents: Collection[str] = (),
) -> SpikeReport:
    """Turn a graph of Rate Norm Layers into the step graph: one timestep of the SNN.

    Args:
        graph: the graph; it becomes the step graph.
        neuron: the neuron model; its signed counterpart stands for SignedRateNorm.
        potentials: initial potentials other than the neuron's, by layer, as fractions of
            the threshold.
        delay: t0, the steps that the outputs leave out once they are over.
        currents: names of graph inputs that are currents, fed anew in every step.

    Raises:
        UnsupportedError: an operator cannot be converted, or works on another type than
            float32 where it would have to spike.
    """
    graph.toposort()
    refuse_unsupported(graph)
    return _Spiker(graph, neuron, potentials or {}, delay, currents).run()


class _Spiker:
    """The pass at work: the form of each tensor, and the conversions made so far."""

    def __init__(
        self,
        graph: Graph,
        neuron: Neuron,
        potentials: Mapping[str, Array | float],
        delay: int,
        currents: Collection[str],
    ) -> None:
        self.graph = graph
        self.neuron = neuron
        self.potentials = potentials
        self.delay = delay
        self.batch = batch_names(graph)
        self.estimate = _Form.DELAYED if delay else _Form.MEAN  # the read-out's form
        self.report = SpikeReport("spike")
        self.forms = {id(t): _Form.CURRENT for t in graph.inputs if t.name in currents}
        self.converted: dict[tuple[int, _Form], Tensor] = {}
        varying = varying_tensors(graph, currents)
        self.fates = {id(node): _fate(node, varying) for node in graph.nodes}
        self.before_neuron = before_neurons(graph)
        self.before_current = _before_currents(graph, self.fates)
        self.step: Tensor | None = None
        self.state_outputs: list[Tensor] = []

    def run(self) -> SpikeReport:
        for node in list(self.graph.nodes):
            self._place(node, self.fates[id(node)])
        for position, output in enumerate(self.graph.outputs[:]):
            self._place_output(position, output)
        self.graph.outputs.extend(self.state_outputs)
        self.graph.toposort()
        return self.report

    def _form(self, tensor: Tensor) -> _Form:
        return self.forms.get(id(tensor), _Form.STATIC)

    def _place(self, node: Node, what: Fate) -> None:
        """Choose the form in which a node works, and bring its inputs into it."""
        if is_rate_norm(node):
            self._place_neuron(node)
            return
        moving = [tensor for tensor in values_read(node) if self._form(tensor) is not _Form.STATIC]
        if not moving:
            return
        form = self._working_form(node, what, moving)
        self._bring_inputs(node, form)
        self.forms.update((id(tensor), form) for tensor in node.outputs)
        if what.role is Role.COMPENSATED and id(node) in self.before_neuron:
            self.report.actions[f"{node.op} compensated"] += 1

    def _working_form(self, node: Node, what: Fate, moving: list[Tensor]) -> _Form:
        if id(node) not in self.before_neuron:
            return self.estimate
        means = sum(self._form(tensor) is _Form.MEAN for tensor in moving)
        if what.role is Role.COMPENSATED:
            on_sums = what.homogeneous and self._one_value(node) and not means
            return _Form.SUM if on_sums else _Form.MEAN
        if any(t.dtype is not None and not is_float(t) for t in moving):  # indices: no currents
            return _Form.MEAN
        can = id(node) not in self.before_current
        on_means = means == len(moving) or (can and (means or self._moves_samples(node)))
        return _Form.MEAN if on_means else _Form.CURRENT

    def _moves_samples(self, node: Node) -> bool:
        """Whether a state in front has its samples where they are found, and one behind has not."""
        if node.op == "Reshape":
            before, after = (set(t.shape or []) for t in (node.inputs[0], node.outputs[0]))
            return bool(before & self.batch) and not after & self.batch
        order = node.attrs.get("perm", [-1])
        return node.op == "Transpose" and bool(order[0] != 0)

    def _one_value(self, node: Node) -> bool:
        """Whether at most the first output of a node is used; others hold indices."""
        results = {id(tensor) for tensor in self.graph.outputs}
        return not any(t.outputs or id(t) in results for t in node.outputs[1:])

    def _bring_inputs(self, node: Node, form: _Form) -> None:
        for position, tensor in enumerate(node.inputs):
            if self._form(tensor) not in (_Form.STATIC, form):
                node.inputs[position] = self._convert(tensor, form, node)

    def _place_neuron(self, node: Node) -> None:
        self._bring_inputs(node, _Form.CURRENT)
        neuron = self.neuron.signed if node.op == SIGNED else self.neuron
        fraction = self.potentials.get(node.name, neuron.initial_potential)
        theta, shape = node.inputs[1].values, node.outputs[0].shape
        for role in neuron.states:
            start = theta * fraction if role == "potential" else np.zeros_like(theta)
            before, after = self._state(node.name, role, start.astype(np.float32), shape)
            node.inputs.append(before)
            node.outputs.append(after)
        self.report.actions[f"{node.op} turned into {neuron.operator}"] += 1
        node.op, node.attrs = neuron.operator, dict(neuron.attributes)
        self.forms[id(node.outputs[0])] = _Form.CURRENT

    def _place_output(self, position: int, output: Tensor) -> None:
        """Let a graph output be an estimate under its own name."""
        if self._form(output) in (_Form.STATIC, self.estimate):
            return
        name = output.name
        output.name = unique_name(self.graph, f"{name}.spiking")
        mean = self._convert(output, self.estimate, output.inputs[0])
        mean.name = name
        self.graph.outputs[position] = mean

    def _convert(self, tensor: Tensor, form: _Form, node: Node) -> Tensor:
        """`tensor` in another form; each is made once."""
        key = (id(tensor), form)
        if key not in self.converted:
            if tensor.dtype is not None and np.dtype(tensor.dtype) != np.float32:
                raise UnsupportedError(
                    f"{describe(node)} reads {tensor.name!r}, which varies over time and is of "
                    f"type {np.dtype(tensor.dtype)}; only float32 can be carried by spikes"
                )
            self.converted[key] = _CONVERSIONS[self._form(tensor), form](self, tensor, node)
            self.forms[id(self.converted[key])] = form
        return self.converted[key]

    def _running_sum(self, tensor: Tensor, node: Node) -> Tensor:
        before, after = self._zero_state(tensor, "sum", node)
        insert(self.graph, "RunningSum", [tensor, before], after)
        return after

    def _running_mean(self, tensor: Tensor, node: Node) -> Tensor:
        before, after = self._zero_state(tensor, "sum", node)
        mean = self._like(tensor, "mean")
        insert(self.graph, "RunningMean", [tensor, before, self._steps()], mean, after)
        return mean

    def _delayed_mean(self, tensor: Tensor, node: Node) -> Tensor:
        if self._form(tensor) is not _Form.CURRENT:
            tensor = self._convert(tensor, _Form.CURRENT, node)
        before, after = self._zero_state(tensor, "sum", node)
        mean = self._like(tensor, "mean")
        reads, attrs = [tensor, before, self._steps()], {"delay": float(self.delay)}
        insert(self.graph, "DelayedMean", reads, mean, after, attrs=attrs)
        self.report.actions[f"read-out averaged from step {self.delay + 1} on"] += 1
        return mean

    def _sum_increment(self, tensor: Tensor, node: Node) -> Tensor:
        before, after = self._zero_state(tensor, "last", node)
        current = self._like(tensor, "current")
        insert(self.graph, "SumIncrement", [tensor, before], current, after)
        return current

    def _mean_increment(self, tensor: Tensor, node: Node) -> Tensor:
        before, after = self._zero_state(tensor, "last", node)
        current = self._like(tensor, "current")
        insert(self.graph, "MeanIncrement", [tensor, before, self._steps()], current, after)
        return current

    def _sum_to_mean(self, tensor: Tensor, node: Node) -> Tensor:  # noqa: ARG002
        mean = self._like(tensor, "mean")
        insert(self.graph, "Div", [tensor, self._steps()], mean)
        return mean

    def _like(self, tensor: Tensor, role: str) -> Tensor:
        name = unique_name(self.graph, f"{tensor.name}.{role}")
        return gs.Variable(name, np.float32, tensor.shape)

    def _steps(self) -> Tensor:
        """The number of steps so far, this one counted: a scalar."""
        if self.step is None:
            before, self.step = self._state("step", "step", np.zeros((), np.float32), [])
            one = floats(self.graph, "one", np.ones(()))
            insert(self.graph, "Add", [before, one], self.step)
        return self.step

    def _zero_state(self, tensor: Tensor, role: str, node: Node) -> tuple[Tensor, Tensor]:
        default = np.zeros((1,) * rank(tensor, node), np.float32)
        return self._state(tensor.name, role, default, tensor.shape)

    def _state(
        self, base: str, role: str, default: Array, shape: list[int | str] | None
    ) -> tuple[Tensor, Tensor]:
        """The input and the output of a new state.

        The input's sizes are left open where the default's and the state's differ.
        """
        name = unique_name(self.graph, base if base == role else f"{base}.{role}", ending=".next")
        sizes = shape if shape is not None else [None] * default.ndim
        open_sizes = [
            mine if mine == its else None for mine, its in zip(default.shape, sizes, strict=True)
        ]
        before = gs.Variable(name, np.float32, open_sizes)
        after = gs.Variable(f"{name}.next", np.float32, sizes)
        self.graph.inputs.append(before)
        self.report.states.append(State(name, after.name, role, default))
        self.state_outputs.append(after)
        return before, after


_CONVERSIONS = {
    (_Form.CURRENT, _Form.SUM): _Spiker._running_sum,
    (_Form.CURRENT, _Form.MEAN): _Spiker._running_mean,
    (_Form.SUM, _Form.CURRENT): _Spiker._sum_increment,
    (_Form.MEAN, _Form.CURRENT): _Spiker._mean_increment,
    (_Form.SUM, _Form.MEAN): _Spiker._sum_to_mean,
    (_Form.CURRENT, _Form.DELAYED): _Spiker._delayed_mean,
    (_Form.SUM, _Form.DELAYED): _Spiker._delayed_mean,
    (_Form.MEAN, _Form.DELAYED): _Spiker._delayed_mean,
}


def _fate(node: Node, varying: Collection[int]) -> Fate:
    """What becomes of a node; a rectifier that is no Rate Norm Layer is a gate.

    In a part of a graph, what it gates may be cut off.
    """
    return fate(node, varying) if rectifier_limit(node) is None else Fate(Role.COMPENSATED)


def _before_currents(graph: Graph, fates: Mapping[int, Fate]) -> set[int]:
    """id() of every node whose output is needed as a current.

    A neuron needs one, a layer of weights too, and a linear node whose own output is needed so.
    """
    found: set[int] = set()
    for node in reversed(graph.nodes):
        readers = [reader for tensor in node.outputs for reader in tensor.outputs]
        if any(
            is_rate_norm(reader)
            or weighted_input(reader) is not None
            or (id(reader) in found and fates[id(reader)].role is not Role.COMPENSATED)
            for reader in readers
        ):
            found.add(id(node))
    return found
