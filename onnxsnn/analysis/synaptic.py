"""Synaptic operations: nodes beside a step graph that count what its spikes meet.

A spike is followed from its neuron to every layer of weights that it reaches, and counted
there once for each weight that it meets (`fan_out.py`):

1. What adds, moves or scales values passes spikes on; where two tensors are added, the spikes
   of both go on. A mean over a window is a sum of spikes, each with its own weights behind.
2. MaxPool passes on the spikes that it makes: what its maximum of all sums has more than a step
   before, a burst as several.
3. A running sum or mean, in front of the read-out, passes on the spikes of this step.
4. A spike that reaches a neuron past all weights, by a shortcut, is one operation.
5. What reads neither spikes nor a constant current computes on analog values, and its
   multiply-accumulates are counted instead.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs

from onnxsnn.analysis.fan_out import fan_out
from onnxsnn.analysis.macs import macs
from onnxsnn.arrays import Array
from onnxsnn.graph import Graph, Node, Tensor, computed, constant, has_body, insert, unique_name
from onnxsnn.model import SpikingModel
from onnxsnn.operators import Role, fate, varying_tensors
from onnxsnn.runtime.runner import Runner
from onnxsnn.signals import before_neurons, weighted_input

__all__ = ["Instrumented", "instrument"]

_ROLE = "events"
_KEEPS_SIZES = {
    *("Flatten", "GlobalMaxPool", "Identity", "MaxPool"),
    *("ReduceMax", "Reshape", "RunningSum"),
}


@dataclass
class Instrumented:
    """An SNN with counters.

    Attributes:
        snn: it gives what it gave; the counters are tensors of it.
        counters: by node, the tensor of its synaptic operations in a step, per sample [N].
        macs: by node with products, its multiply-accumulates per sample.
        static: nodes that a constant current drives: they are computed once.
        analog: nodes that analog values drive; those in front of a neuron in every step,
            which is True, those of the read-out once.
        uncounted: nodes that run a body of their own, whose products are not known.
    """

    snn: SpikingModel
    counters: dict[str, str] = field(default_factory=dict)
    macs: dict[str, int] = field(default_factory=dict)
    static: set[str] = field(default_factory=set)
    analog: dict[str, bool] = field(default_factory=dict)
    uncounted: list[str] = field(default_factory=list)


def instrument(snn: SpikingModel, feeds: Mapping[str, Array]) -> Instrumented:
    """Add the counters; `feeds` are inputs by name, of which one sample is run for its sizes."""
    graph = snn.graph()
    graph.toposort()
    sized = _sized(graph, snn, {name: values[:1] for name, values in feeds.items()})
    varying = varying_tensors(graph)
    events, later = _Events(graph, snn, varying), before_neurons(graph)
    found = Instrumented(snn)
    for node, sizes in zip(list(graph.nodes), sized, strict=True):
        if fate(node, ()).role is Role.NEURON:
            arriving = events[node.inputs[0]]
            if arriving is not None:
                found.counters[node.name] = _counter(graph, node, arriving, np.ones(()))
            continue
        if has_body(node):
            found.uncounted.append(node.name)
        products = macs(sizes)
        if not products:
            continue
        found.macs[node.name] = products
        position = weighted_input(node)
        arriving = None if position is None else events[node.inputs[position]]
        if not any(id(tensor) in varying for tensor in node.inputs):
            found.static.add(node.name)
        elif position is None or arriving is None:
            found.analog[node.name] = id(node) in later
        else:
            weights = fan_out(sizes, position, products)
            found.counters[node.name] = _counter(graph, node, arriving, weights)
    found.snn = SpikingModel.build(graph, snn.states, snn.metadata, snn.layers)
    return found


def _sized(graph: Graph, snn: SpikingModel, feeds: Mapping[str, Array]) -> list[Node]:
    """The nodes, copied, with the shapes of what those with products read and write."""
    nodes = [node for node in graph.nodes if macs(node) != 0 and not has_body(node)]
    around = [t for node in nodes for t in [*node.inputs, *node.outputs] if not t.is_empty()]
    inner = {tensor.name for tensor in around if tensor.inputs}
    (values,) = Runner(snn, taps=sorted(inner)).steps(feeds, 1)
    copied = graph.copy()
    for name, tensor in copied.tensors().items():
        found = {**feeds, **values}.get(name)
        if found is not None and constant(tensor) is None:
            tensor.shape = list(found.shape)
    return list(copied.nodes)


def _counter(graph: Graph, node: Node, arriving: Tensor, weights: Array) -> str:
    """A tensor [N]: the sum of what arrives, each value times its weights."""
    name = f"{node.name}.operations"
    flat, total = (gs.Variable(unique_name(graph, f"{name}.{part}")) for part in ("all", "sum"))
    scale = gs.Constant(unique_name(graph, f"{name}.fan_out"), np.asarray(weights, np.float32))
    axes = gs.Constant(unique_name(graph, f"{name}.axis"), np.array([1]))
    weighted = computed(graph, "Mul", [arriving, scale], _ROLE)
    insert(graph, "Flatten", [weighted], flat)
    insert(graph, "ReduceSum", [flat, axes], total, attrs={"keepdims": 0})
    return str(total.name)


class _Events:
    """By tensor, how many spikes of this step each of its values comes from; None for none."""

    def __init__(self, graph: Graph, snn: SpikingModel, varying: set[int]) -> None:
        self.graph = graph
        self._spikes = set(snn.spikes.values())
        self._varying = varying
        self._known: dict[int, Tensor | None] = {}
        self._numbers = itertools.count()

    def __getitem__(self, tensor: Tensor) -> Tensor | None:
        if id(tensor) not in self._known:
            self._known[id(tensor)] = self._find(tensor)
        return self._known[id(tensor)]

    def _find(self, tensor: Tensor) -> Tensor | None:
        if id(tensor) not in self._varying or not tensor.inputs:
            return None
        node = tensor.inputs[0]
        if tensor.name in self._spikes:
            return self.make("Ceil", [self.make("Abs", [tensor])])
        if node.op == "Split":
            return self._part(node, node.outputs.index(tensor))
        if weighted_input(node) is not None or len(node.outputs) > 1 + (node.domain is not None):
            return None
        rule = _RULES.get(node.op)
        return None if rule is None else rule(self, node)

    def _part(self, node: Node, number: int) -> Tensor | None:
        """The counts of one output of a Split."""
        arriving = self[node.inputs[0]]
        if arriving is None:
            return None
        parts = [gs.Variable(unique_name(self.graph, f"{t.name}.{_ROLE}")) for t in node.outputs]
        insert(self.graph, "Split", [arriving, *node.inputs[1:]], *parts, attrs=dict(node.attrs))
        self._known |= {id(t): part for t, part in zip(node.outputs, parts, strict=True)}
        return parts[number]

    def holds_spikes(self, tensor: Tensor) -> bool:
        """Whether a tensor holds spikes, or sums of them, as the neurons sent them: unscaled."""
        while tensor.name not in self._spikes:
            if not tensor.inputs or tensor.inputs[0].op not in _KEEPS_SIZES:
                return False
            tensor = tensor.inputs[0].inputs[0]
        return True

    def make(
        self, operator: str, inputs: list[Tensor], attrs: Mapping[str, Any] | None = None
    ) -> Tensor:
        """The output of a new node."""
        return computed(self.graph, operator, inputs, _ROLE, attrs)

    def shape(self, tensor: Tensor) -> Tensor:
        """The sizes of a tensor."""
        sizes = gs.Variable(unique_name(self.graph, f"{tensor.name}.sizes"), np.int64)
        insert(self.graph, "Shape", [tensor], sizes)
        return sizes

    def constant(self, values: object) -> Tensor:
        """A constant tensor."""
        name = f"events.constant.{next(self._numbers)}"
        return gs.Constant(unique_name(self.graph, name), np.asarray(values))


def _same(events: _Events, node: Node) -> Tensor | None:
    """Of this step, whatever was summed up before."""
    return events[node.inputs[0]]


def _increment(events: _Events, node: Node) -> Tensor | None:
    """What a maximum of sums of spikes, say, has more than a step before."""
    (summed,) = node.inputs[0].inputs
    if all(events[tensor] is None for tensor in summed.inputs):
        return None
    return _spikes_in(events, node.outputs[0], node.inputs[0])


def _maximum(events: _Events, node: Node) -> Tensor | None:
    """The spikes that MaxPool makes in this step; in front of the read-out it reads means."""
    source = node.inputs[0]
    summing = source.inputs[0] if source.inputs else node
    if summing.op not in ("RunningMean", "DelayedMean") or events[source] is None:
        return _moved(events, node)
    sums, current = summing.outputs[1], summing.inputs[0]
    before = events.make("Sub", [sums, current])
    more = node.inputs[1:]  # axes
    now, last = (events.make(node.op, [read, *more], node.attrs) for read in (sums, before))
    return _spikes_in(events, events.make("Sub", [now, last]), current)


def _spikes_in(events: _Events, current: Tensor, made_of: Tensor) -> Tensor:
    """One for each value of a current that is not 0, and more for a burst whose size is known."""
    count = "Ceil" if events.holds_spikes(made_of) else "Sign"
    return events.make(count, [events.make("Abs", [current])])


def _moved(events: _Events, node: Node) -> Tensor | None:
    """The same operator on the counts, its other inputs as they are."""
    arriving = events[node.inputs[0]]
    if arriving is None:
        return None
    return events.make(node.op, [arriving, *node.inputs[1:]], node.attrs)


def _padded(events: _Events, node: Node) -> Tensor | None:
    """Nothing comes from padding."""
    arriving = events[node.inputs[0]]
    if arriving is None or node.attrs.get("mode", "constant") != "constant":
        return _moved(events, node)
    nothing, axes = gs.Variable.empty(), node.inputs[3:]
    return events.make("Pad", [arriving, node.inputs[1], *([nothing, *axes] if axes else [])])


def _together(events: _Events, node: Node) -> Tensor | None:
    """The spikes of all that is added."""
    found = [arriving for t in node.inputs if (arriving := events[t]) is not None]
    return _repeated(events, node, events.make("Sum", found)) if found else None


def _repeated(events: _Events, node: Node, arriving: Tensor) -> Tensor:
    """Once for each value of the output that a spike is in, where some inputs are smaller."""
    output = node.outputs[0]
    if all(tensor.shape == output.shape for tensor in node.inputs if constant(tensor) is None):
        return arriving
    return events.make("Expand", [arriving, events.shape(output)])


def _chosen(events: _Events, node: Node) -> Tensor | None:
    """From where each value is taken."""
    nothing = events.constant(np.zeros(1, np.float32))
    found = [events[tensor] for tensor in node.inputs[1:]]
    if all(arriving is None for arriving in found):
        return None
    parts = [nothing if arriving is None else arriving for arriving in found]
    return _repeated(events, node, events.make("Where", [node.inputs[0], *parts]))


def _side_by_side(events: _Events, node: Node) -> Tensor | None:
    found = [events[tensor] for tensor in node.inputs]
    if all(arriving is None for arriving in found):
        return None
    parts = [
        events.make("Sub", [tensor, tensor]) if arriving is None else arriving
        for tensor, arriving in zip(node.inputs, found, strict=True)
    ]
    return events.make("Concat", parts, node.attrs)


def _scaled(events: _Events, node: Node) -> Tensor | None:
    """Through a factor, unless that is zero."""
    found = [arriving for t in node.inputs if (arriving := events[t]) is not None]
    if len(found) != 1:
        return None
    factors = [values for values in map(constant, node.inputs) if values is not None]
    if not factors:
        return _repeated(events, node, found[0])
    return events.make("Mul", [found[0], events.constant((factors[0] != 0).astype(np.float32))])


def _window(events: _Events, node: Node) -> Tensor | None:
    """An average is a sum, times a factor."""
    arriving = events[node.inputs[0]]
    if arriving is None:
        return None
    attrs = {**node.attrs, "count_include_pad": 1}
    overhangs = attrs.pop("ceil_mode", 0)
    if overhangs:
        arriving = _filled(events, arriving, attrs)
    mean = events.make("AveragePool", [arriving], attrs)
    volume = np.float32(math.prod(node.attrs["kernel_shape"]))
    total = events.make("Mul", [mean, events.constant(volume)])
    if not overhangs:
        return total
    none = events.constant(np.zeros(2 + len(node.attrs["kernel_shape"]), np.int64))
    return events.make("Slice", [total, none, events.shape(node.outputs[0])])


def _filled(events: _Events, arriving: Tensor, attrs: dict[str, Any]) -> Tensor:
    """What is pooled, with room behind it for the last window; takes the padding out of `attrs`."""
    axes = len(attrs["kernel_shape"])
    pads = np.array(attrs.pop("pads", [0] * 2 * axes)).reshape(2, axes)
    pads[1] += np.array(attrs.get("strides", [1] * axes)) - 1
    whole = np.pad(pads, ((0, 0), (2, 0))).ravel()
    return events.make("Pad", [arriving, events.constant(whole)])


def _summed(events: _Events, node: Node) -> Tensor | None:
    """A mean or sum over whole axes."""
    arriving = events[node.inputs[0]]
    if arriving is None:
        return None
    if node.op == "GlobalAveragePool":
        rank = len(node.outputs[0].shape)
        return events.make("ReduceSum", [arriving, events.constant(np.arange(2, rank))])
    axes = [events.constant(node.attrs["axes"])] if "axes" in node.attrs else node.inputs[1:]
    kept = {key: value for key, value in node.attrs.items() if key != "axes"}
    return events.make("ReduceSum", [arriving, *axes], kept)


_RULES: dict[str, Callable[[_Events, Node], Tensor | None]] = {
    **dict.fromkeys(["RunningSum", "RunningMean", "DelayedMean"], _same),
    **dict.fromkeys(["Neg", "Cast", "Identity"], _same),
    "SumIncrement": _increment,
    **dict.fromkeys(["GlobalMaxPool", "MaxPool", "ReduceMax"], _maximum),
    **dict.fromkeys(["DepthToSpace", "Expand", "Flatten", "Gather", "Reshape"], _moved),
    **dict.fromkeys(["Resize", "Slice", "SpaceToDepth"], _moved),
    **dict.fromkeys(["Squeeze", "Tile", "Transpose", "Unsqueeze"], _moved),
    **dict.fromkeys(["Add", "Mean", "Sub", "Sum"], _together),
    **dict.fromkeys(["Div", "Mul"], _scaled),
    **dict.fromkeys(["ReduceMean", "ReduceSum"], _summed),
    "AveragePool": _window,
    "Concat": _side_by_side,
    "GlobalAveragePool": _summed,
    "Pad": _padded,
    "Where": _chosen,
}
