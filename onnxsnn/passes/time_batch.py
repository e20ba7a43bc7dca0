"""The time-batched graph: K timesteps in one run, with time folded into the batch axis.

From the step graph it makes two models:

    static   the source's inputs -> every tensor before the first neuron that a moving node
             reads; it is run once, however many timesteps there are
    chunk    these, the states, and `time` = 1, 2, ..., K -> the outputs, the states after K steps

1. A tensor that varies over time is [K * N, ...] in the chunk, step by step; an operator that
   treats samples alone needs no change, and reads the weights once for all steps. A batch axis may
   be moved, and is known by its name then, but what is done step by step must have it in front.
2. A node that carries a state, or reads the step counter, becomes a Scan over the K slices,
   [N, ...] each, whose body is the node itself: spikes are the step graph's, bit for bit.
   Behind constants added or multiplied, and bytes made numbers, for this node alone, the body
   does that too, while a slice is in the caches.
3. A static tensor is read by a Scan as it is; any other node that varies reads it K times over,
   and sizes that are computed from its shape with K times the batch.
4. Where the last step's outputs will do, what no state depends on is computed for the last
   step only, and a running mean that nothing but outputs reads is one sum over the slices. A
   delayed mean, which starts over on the way, is a Scan.

K and N are sizes at run time. Whether the operators treat samples alone is not decided here:
`runtime/time_batched.py` tries it. Only what names rows of the batch is refused, as a trial of few
samples cannot tell whether it takes all of many.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs

from onnxsnn import functions
from onnxsnn.errors import UnsupportedError
from onnxsnn.graph import (
    Graph,
    Node,
    Tensor,
    constant,
    describe,
    drop_unused,
    insert,
    is_float,
    is_static_shape,
    part_of,
    producer,
    rank,
    remove,
    replace_reads,
    sole_producer,
    unique_name,
)
from onnxsnn.operators import LONGEST
from onnxsnn.passes.spike import State

__all__ = ["TIME", "TimeBatched", "is_drawn_in", "time_batch"]

TIME = "onnxsnn.time"
_FEW = 64  # values per constant that are quicker to read than to repeat
_VALUE_BY_VALUE = {"Add", "Cast", "DequantizeLinear", "Mul", "Sub"}
_SUMS = {"RunningSum", "RunningMean"}
_SIZES = {
    "Add", "Cast", "Concat", "Div", "Equal", "Gather", "Identity", "Mul", "Reshape", "Shape",
    "Slice", "Squeeze", "Sub", "Unsqueeze", "Where",
}  # fmt: skip
_TIMES = "K * "
_ROWS = f"{_TIMES}N"


@dataclass
class _Body:
    """Of a Scan, as it comes to be.

    Attributes:
        inner: what the node that it is made for reads.
        nodes: what comes before that node.
        loop: the states, and what stands for them in the body.
        scanned: what comes in slices, and what stands for one.
    """

    inner: list[Tensor] = field(default_factory=list)
    nodes: list[Node] = field(default_factory=list)
    loop: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    scanned: list[tuple[Tensor, Tensor]] = field(default_factory=list)


@dataclass
class TimeBatched:
    """The two graphs.

    Attributes:
        static: None where nothing is computed before the first neuron.
        chunk: K timesteps.
        constant_inputs: the inputs of `chunk` that are no state: the source's, or `static`'s
            outputs, each with the axis of its samples, or None if it has none. TIME is one more.
        every_step: the outputs of `chunk` with K * N samples, and the axis of these; the others
            have N.
    """

    static: Graph | None
    chunk: Graph
    constant_inputs: dict[str, int | None]
    every_step: dict[str, int]


def time_batch(
    graph: Graph, states: Sequence[State], every_step: Collection[str] | None = None
) -> TimeBatched:
    """Fold time into the batch axis of a step graph.

    Args:
        graph: the step graph, its states plain inputs; it is changed.
        states: what it carries.
        every_step: the outputs to give after each step, the others only after the last;
            None for all.

    Raises:
        UnsupportedError: the batch is fixed, something that varies has no batch axis, an output is
            a single number or an input, or a node takes some rows of the batch.
    """
    return _TimeBatcher(graph, states, every_step).run()


class _TimeBatcher:
    """The pass at work: which tensors vary over time, and what has been made of them."""

    def __init__(
        self, graph: Graph, states: Sequence[State], every_step: Collection[str] | None
    ) -> None:
        graph.toposort()
        self.graph = graph
        self.before = {state.input: state for state in states}
        self.after = {state.output for state in states}
        self.sources = [t for t in graph.inputs if t.name not in self.before]
        self.outputs = [t for t in graph.outputs if t.name not in self.after]
        self.counter = next((s for s in states if s.role == "step"), None)
        names = {t.shape[0] for t in self.sources if t.shape}
        self.batch = {size for size in names if isinstance(size, str)} | {_ROWS}
        self.moving = self._moving()
        kept = {t.name for t in self.outputs} if every_step is None else set(every_step)
        self.early = self._early(kept)
        self.made: dict[tuple[int, str], Tensor] = {}
        self.number = 0
        self.static_nodes = [
            node for node in graph.nodes if not any(id(t) in self.moving for t in node.outputs)
        ]
        self.last: set[int] = set()
        self.time = gs.Variable(TIME, np.float32, ["K"])
        self.counts: Tensor = self.time
        self._last_index = gs.Constant(unique_name(graph, "last"), np.array(-1))

    def run(self) -> TimeBatched:
        if any(not t.shape or isinstance(t.shape[0], int) for t in self.sources):
            raise UnsupportedError("the batch axis of an input is fixed")
        if any(t is source for t in self.outputs for source in self.sources):
            raise UnsupportedError("an output is an input, by the same name")
        if any(t.shape is not None and not t.shape for t in self.outputs):
            raise UnsupportedError("an output is a single number for all samples")
        self.steps = self._op("Shape", [self.time], np.int64, [1])
        for node in list(self.graph.nodes):
            if any(id(tensor) in self.moving for tensor in node.outputs):
                self._fold(node)
        self._pass_on()
        return self._split()

    def _moving(self) -> set[int]:
        """id() of every tensor that varies over time."""
        moving = {id(t) for t in self.graph.inputs if t.name in self.before}
        for node in self.graph.nodes:
            if any(id(tensor) in moving for tensor in node.inputs):
                moving.update(id(tensor) for tensor in node.outputs)
        return moving

    def _early(self, kept: set[str]) -> set[int]:
        """id() of every node that is needed at each step.

        A node that carries a state is, and whatever reaches it or an output of every step;
        a running sum or mean is not, where only outputs of the last step read it, but what it
        sums is.
        """
        early: set[int] = set()
        for node in reversed(self.graph.nodes):
            carries = any(tensor.name in self.after for tensor in node.outputs)
            readers = [reader for tensor in node.outputs for reader in tensor.outputs]
            reaches = any(id(r) in early or r.op in _SUMS for r in readers) or any(
                t is output and t.name in kept for t in node.outputs for output in self.outputs
            )
            if reaches or (carries and node.op not in _SUMS and not self._counts(node)):
                early.add(id(node))
        return early

    def _counts(self, node: Node) -> bool:
        """Whether a node is the step counter."""
        return self.counter is not None and node.outputs[0].name == self.counter.output

    def _fold(self, node: Node) -> None:
        """Let a node work on all steps at once, or on the last one."""
        for tensor in node.outputs if id(node) in self.early else []:
            if self._batched(tensor) and tensor.shape and tensor.name not in self.after:
                tensor.shape = self._rows(tensor)
        if self._counts(node):
            self._fold_counter(node)
        elif id(node) not in self.early:
            self._fold_late(node)
        elif any(t.name in self.before or self._is_count(t) for t in node.inputs):
            self._scan(node)
        elif _names_rows(node):
            raise UnsupportedError(f"{describe(node)} takes some rows of the batch")
        else:
            node.inputs = [self._spread(tensor, node) for tensor in node.inputs]

    def _is_count(self, tensor: Tensor) -> bool:
        return self.counter is not None and tensor.name == self.counter.output

    def _fold_counter(self, node: Node) -> None:
        """The step counter is a vector [K]; the state after it is its last element."""
        before, after = node.inputs[0], node.outputs[0]
        remove(self.graph, node)
        self.counts = self._op("Add", [before, self.time], np.float32, ["K"])
        insert(self.graph, "Gather", [self.counts, self._last_index], after, attrs={"axis": 0})

    def _fold_late(self, node: Node) -> None:
        """Let a node work on what there is after the last step."""
        if node.op in _SUMS and node.domain == functions.DOMAIN:
            node.inputs = [self._total(node.inputs[0], node), *node.inputs[1:]]
        else:
            node.inputs = [self._after_last(tensor, node) for tensor in node.inputs]
        self.last.update(id(tensor) for tensor in node.outputs)

    def _total(self, tensor: Tensor, node: Node) -> Tensor:
        """The sum of a tensor over the steps, [N, ...]; a static one arrives in each of them."""
        if id(tensor) not in self.moving:
            steps = self._op("Gather", [self.time, self._last_index], np.float32, [], {"axis": 0})
            return self._op("Mul", [tensor, steps], tensor.dtype, tensor.shape)
        slices, attrs = self._slices(tensor, node), {"keepdims": 0}
        inputs = [slices, self._vector(0)]
        return self._op("ReduceSum", inputs, tensor.dtype, slices.shape[1:], attrs)

    def _after_last(self, tensor: Tensor, node: Node) -> Tensor:
        """What a tensor is after the last step, [N, ...]."""
        if id(tensor) not in self.moving or id(tensor) in self.last or self._is_count(tensor):
            return tensor
        key = (id(tensor), "last")
        if key not in self.made:
            slices, attrs = self._slices(tensor, node), {"axis": 0}
            inputs = [slices, self._last_index]
            self.made[key] = self._op("Gather", inputs, tensor.dtype, slices.shape[1:], attrs)
        return self.made[key]

    def _spread(self, tensor: Tensor, node: Node) -> Tensor:
        """A static tensor that has a batch axis, K times over; sizes with K times the batch."""
        if id(tensor) in self.moving or constant(tensor) is not None:
            return tensor
        if not self._batched(tensor):
            return self._scaled(tensor)
        key = (id(tensor), "spread")
        if key not in self.made:
            repeats = self._ones_but_steps(self._axis(tensor), rank(tensor, node))
            self.made[key] = self._op("Tile", [tensor, repeats], tensor.dtype, self._rows(tensor))
        return self.made[key]

    def _scaled(self, tensor: Tensor) -> Tensor:
        """Sizes with K times the batch; the tensor itself where it holds no size of a batch."""
        key = (id(tensor), "scaled")
        if key not in self.made:
            self.made[key] = self._rescaled(tensor)
        return self.made[key]

    def _rescaled(self, tensor: Tensor) -> Tensor:
        node = producer(tensor)
        if node is None or node.op not in _SIZES or is_float(tensor) or self._batched(tensor):
            return tensor
        if node.op == "Shape":
            axes, at = _shown(node), self._axis(node.inputs[0])
            if at not in axes or not self._batched(node.inputs[0]):
                return tensor
            factors = self._ones_but_steps(axes.index(at), len(axes))
            return self._op("Mul", [tensor, factors], tensor.dtype, tensor.shape)
        inputs = [self._scaled(given) for given in node.inputs]
        if all(new is old for new, old in zip(inputs, node.inputs, strict=True)):
            return tensor
        return self._op(node.op, inputs, tensor.dtype, tensor.shape, node.attrs)

    def _axis(self, tensor: Tensor) -> int:
        """The batch axis of a tensor that has one: the first, if no other is named after it."""
        sizes = tensor.shape or []
        named = [at for at, size in enumerate(sizes) if size in self.batch]
        return named[0] if named and isinstance(sizes[0], int) else 0

    def _batched(self, tensor: Tensor) -> bool:
        """Whether a tensor has a batch axis: the first, whose size is not known, or a named one."""
        if tensor.is_empty() or tensor.shape is None:
            return not tensor.is_empty()
        return bool(tensor.shape) and not isinstance(tensor.shape[self._axis(tensor)], int)

    def _rows(self, tensor: Tensor) -> list[Any]:
        """The shape of a tensor that has a batch axis, with time folded into it."""
        at = self._axis(tensor)
        rows = _ROWS if at else self._rows_in_front(tensor.shape[0])
        return [*tensor.shape[:at], rows, *tensor.shape[at + 1 :]]

    def _rows_in_front(self, size: Any) -> str | None:
        """What K times the rows are named, where they are more than the samples."""
        return f"{_TIMES}{size}" if size and size not in self.batch else None

    def _slices(self, tensor: Tensor, node: Node) -> Tensor:
        """A tensor [K * N, ...] as [K, N, ...]."""
        key = (id(tensor), "slices")
        if key not in self.made:
            if not rank(tensor, node):
                raise UnsupportedError(f"{describe(node)} reads {tensor.name!r}, which has no axis")
            if self._axis(tensor):
                raise UnsupportedError(f"{describe(node)} reads samples along another axis than 0")
            shape = self._concat(self.steps, self._vector(-1), self._sizes(tensor, 1))
            slices = self._op("Reshape", [tensor, shape], tensor.dtype, _slice_shape(tensor))
            self.made[key] = slices
        return self.made[key]

    def _sizes(self, tensor: Tensor, first: int) -> Tensor:
        """The sizes of a tensor from axis `first` on, as a vector."""
        sizes = tensor.shape[first:]
        if all(isinstance(size, int) for size in sizes):
            return self._vector(*sizes)
        shape = self._op("Shape", [tensor], np.int64, [len(tensor.shape)])
        bounds = [self._vector(first), self._vector(len(tensor.shape))]
        return self._op("Slice", [shape, *bounds], np.int64, [len(sizes)])

    def _ones_but_steps(self, at: int, axes: int) -> Tensor:
        """A vector of ones, with K at one place."""
        before, behind = (self._vector(*[1] * count) for count in (at, axes - at - 1))
        return self._concat(before, self.steps, behind)

    def _vector(self, *values: int) -> Tensor:
        key = (-1, str(values))
        if key not in self.made:
            name = "onnxsnn.sizes." + ".".join(map(str, values))
            self.made[key] = gs.Constant(name, np.array(values, np.int64))
        return self.made[key]

    def _concat(self, *vectors: Tensor) -> Tensor:
        return self._op("Concat", list(vectors), np.int64, None, {"axis": 0})

    def _op(
        self,
        operator: str,
        inputs: list[Tensor],
        dtype: Any,
        shape: list[Any] | None,
        attrs: dict[str, Any] | None = None,
    ) -> Tensor:
        """Add a node; its output."""
        output = gs.Variable(f"onnxsnn.{operator}.{self.number + 1}", dtype, shape)
        self._add(operator, inputs, output, attrs)
        return output

    def _add(
        self,
        operator: str,
        inputs: list[Tensor],
        output: Tensor,
        attrs: dict[str, Any] | None = None,
    ) -> None:
        """Add a node that writes `output`, numbered: to look through all names takes too long."""
        self.number += 1
        name = f"onnxsnn.{operator}.{self.number}"
        self.graph.nodes.append(gs.Node(operator, name, attrs, inputs, [output]))

    def _scan(self, node: Node) -> None:
        """Put a node that works step by step into a Scan over the slices."""
        body = _Body()
        for tensor in node.inputs:
            body.inner.append(self._inside(tensor, node, body))
        if not body.scanned:
            body.scanned.append((self.time, gs.Variable("now", np.float32, [])))
        self._replace_by_scan(node, body)

    def _inside(self, tensor: Tensor, node: Node, body: _Body) -> Tensor:
        """What a node in the body of a Scan reads in the place of a tensor."""
        if constant(tensor) is not None or id(tensor) not in self.moving:
            return self._wide(tensor, node)
        variable = gs.Variable(f"{tensor.name}.now", tensor.dtype, tensor.shape)
        if tensor.name in self.before:
            body.loop.append((self._full(tensor, node, body), variable))
        elif self._is_count(tensor):
            body.scanned.append((self.counts, variable))
        elif is_drawn_in(self.graph, tensor):
            maker = tensor.inputs[0]
            inputs = [self._inside(given, maker, body) for given in maker.inputs]
            body.nodes.append(gs.Node(maker.op, maker.name, maker.attrs, inputs, [variable]))
            remove(self.graph, maker)
        else:
            body.scanned.append((self._slices(tensor, node), variable))
        return variable

    def _replace_by_scan(self, node: Node, body: _Body) -> None:
        inside = [gs.Variable(f"{t.name}.then", t.dtype, t.shape) for t in node.outputs]
        work = gs.Node(node.op, node.name, node.attrs, body.inner, inside, domain=node.domain)
        carried, given, nodes = [], [], [*body.nodes, work]
        for tensor, result in zip(node.outputs, inside, strict=True):
            if tensor.name not in self.after:
                given.append((tensor, result))
                continue
            carried.append((tensor, result))
            if tensor.outputs:
                each = gs.Variable(f"{tensor.name}.each", tensor.dtype, tensor.shape)
                nodes.append(gs.Node("Identity", each.name, None, [result], [each]))
                given.append((self._of_each_step(tensor), each))
        slices = [gs.Variable(f"{t.name}.scanned", t.dtype) for t, _ in given]
        work_graph = gs.Graph(
            nodes,
            [variable for _, variable in (*body.loop, *body.scanned)],
            [result for _, result in (*carried, *given)],
            opset=self.graph.opset,
            import_domains=self.graph.import_domains,
        )
        remove(self.graph, node)
        self.graph.nodes.append(
            gs.Node(
                "Scan",
                node.name,
                {"body": work_graph, "num_scan_inputs": len(body.scanned)},
                [tensor for tensor, _ in (*body.loop, *body.scanned)],
                [*(tensor for tensor, _ in carried), *slices],
            )
        )
        for (tensor, _), scan_output in zip(given, slices, strict=True):
            self._together(scan_output, tensor, node)

    def _wide(self, tensor: Tensor, node: Node) -> Tensor:
        """A constant in the shape of a sample, where its values would each meet few others."""
        values, sizes = constant(tensor), node.outputs[0].shape
        if values is None or values.ndim != len(sizes or []) or not is_static_shape(sizes):
            return tensor
        spread = np.broadcast_to(values, np.broadcast_shapes(values.shape, (1, *sizes[1:])))
        if not values.size < spread.size <= _FEW * values.size:
            return tensor
        return gs.Constant(f"{tensor.name}.wide", np.ascontiguousarray(spread))

    def _of_each_step(self, state: Tensor) -> Tensor:
        """What stands for a state after each step where nodes read it."""
        each = gs.Variable(f"{state.name}.steps", state.dtype, [None, *state.shape[1:]])
        replace_reads(state, each)
        self.moving.add(id(each))
        return each

    def _together(self, slices: Tensor, tensor: Tensor, node: Node) -> None:
        """Let `tensor` be the slices [K, N, ...] as [K * N, ...]."""
        if not rank(tensor, node):
            raise UnsupportedError(f"{describe(node)} gives {tensor.name!r}, which has no axis")
        slices.shape = _slice_shape(tensor)
        self.made[id(tensor), "slices"] = slices
        shape = self._concat(self._vector(-1), self._sizes(slices, 2))
        self._add("Reshape", [slices, shape], tensor)

    def _full(self, state: Tensor, node: Node, body: _Body) -> Tensor:
        """A state in the shape that it has after a step: a Scan does not broadcast it.

        It is the shape of what the node reads first, which is scanned first, if it varies.
        """
        source = node.inputs[0]
        slices = body.scanned[0][0] if body.scanned else source
        sizes = slices.shape
        shape = self._op("Shape", [slices], np.int64, [len(sizes)])
        if body.scanned:
            bounds, sizes = [self._vector(1), self._vector(len(sizes))], sizes[1:]
            shape = self._op("Slice", [shape, *bounds], np.int64, [len(sizes)])
        return self._op("Expand", [state, shape], state.dtype, sizes)

    def _pass_on(self) -> None:
        """Let an output that does not vary over time be read from the static model, as it is."""
        for position, tensor in enumerate(self.outputs):
            if id(tensor) not in self.moving:
                given = gs.Variable(tensor.name, tensor.dtype, tensor.shape)
                tensor.name = unique_name(self.graph, f"{tensor.name}.static")
                insert(self.graph, "Identity", [tensor], given)
                self.graph.outputs[self.graph.outputs.index(tensor)] = given
                self.outputs[position] = given
                self.last.add(id(given))

    def _split(self) -> TimeBatched:
        """The static model and the chunk."""
        graph = self.graph
        static_nodes = {id(node) for node in self.static_nodes}
        boundary = [
            tensor
            for tensor in [*self.sources, *(t for n in self.static_nodes for t in n.outputs)]
            if any(id(reader) not in static_nodes for reader in tensor.outputs)
        ]
        computed = [tensor for tensor in boundary if tensor.inputs]
        static = None
        if computed:
            static = part_of(graph, computed)
            drop_unused(static)
        for tensor in computed:
            tensor.inputs.clear()
        states = [t for t in graph.inputs if t.name in self.before]
        graph.inputs = [*boundary, *states, self.time]
        graph.cleanup(recurse_subgraphs=False)
        every = {t.name: self._axis(t) for t in self.outputs if id(t) not in self.last}
        axes = {t.name: self._axis(t) if self._batched(t) else None for t in boundary}
        return TimeBatched(static, graph, axes, every)


def is_drawn_in(graph: Graph, tensor: Tensor) -> bool:
    """Whether a tensor is made value by value of one that varies, for a single reader.

    If that works step by step, so does what makes the tensor.
    """
    maker = sole_producer(graph, tensor)
    if maker is None or maker.op not in _VALUE_BY_VALUE:
        return False
    varying = [given for given in maker.inputs if constant(given) is None]
    return len(varying) == 1 and bool(tensor.shape) and tensor.shape == varying[0].shape


def _shown(shape: Node) -> range:
    """The axes whose sizes a Shape gives."""
    axes = range(rank(shape.inputs[0], shape))
    return axes[shape.attrs.get("start", 0) : shape.attrs.get("end")]


def _slice_shape(tensor: Tensor) -> list[Any]:
    """The shape of the slices of a tensor, whose rows may be more than the samples."""
    rows = tensor.shape[0]
    return ["K", rows.removeprefix(_TIMES) if isinstance(rows, str) else "N", *tensor.shape[1:]]


def _names_rows(node: Node) -> bool:
    """Whether a node takes rows by their places along the batch axis, and not all of any number.

    A first axis whose size is known is not the batch's: attention has queries, keys and values
    there.
    """
    if node.op not in ("Compress", "Slice") or not is_float(node.inputs[0]):
        return False
    axes, sizes = rank(node.inputs[0], node), node.inputs[0].shape
    batched = not (sizes and isinstance(sizes[0], int))
    if node.op == "Compress":
        axis = node.attrs.get("axis")
        return axis is None or (batched and axis in (0, -axes))
    starts, ends, named, steps = (
        None if index >= len(node.inputs) else constant(node.inputs[index])
        for index in (1, 2, 3, 4)
    )
    if named is not None and np.all(named % axes != 0):
        return False
    if starts is None or ends is None:
        return True
    named = np.arange(len(starts)) if named is None else named % axes
    first = named == 0
    strides = np.ones_like(starts) if steps is None else steps
    whole = (starts == 0) & (ends >= LONGEST) & (strides == 1)
    return batched and bool(np.any(first & ~whole))
