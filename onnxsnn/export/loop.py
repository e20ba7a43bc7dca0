"""The loop graph: all timesteps in one standard ONNX model, with no state outside.

The nodes of the step graph fall into three parts.

1. What depends on no state is *static*: computed once, in front.
2. What a state's next value depends on is *stepped*: once in front of an ONNX Loop, where the
   states have their defaults, and then in its body, as often as timesteps are left. The first
   step gives every state its full shape, so that nothing that the Loop carries changes shape.
3. What depends on states, and no state on it, is the *read-out*: computed once, behind.

The Loop carries the states, and what the read-out needs of the last step. Functions stay
functions, and weights are stored once: both steps read them from the graph around.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from onnxsnn.errors import checked
from onnxsnn.export.renaming import free_name, prefixed, renamed
from onnxsnn.files import write_model
from onnxsnn.metadata import read_metadata, write_metadata
from onnxsnn.model import LOOP, SpikingModel

__all__ = ["export_loop", "loop_model"]


def export_loop(snn: SpikingModel, path: str | Path) -> None:
    """Write the loop graph of an SNN; see `loop_model`.

    Raises:
        OutputError: the file cannot be written.
    """
    write_model(loop_model(snn), path)


def loop_model(snn: SpikingModel) -> onnx.ModelProto:
    """All timesteps of an SNN as one standard ONNX model.

    Its inputs are the source model's and `timesteps`, an int64 scalar; less than 1 stands for
    the number of steps that the thresholds were chosen for. Its outputs are the source
    model's: the running estimates after that many steps.

    Example:
        >>> from onnxsnn.convert import convert
        >>> from onnxsnn.demo import demo_data, demo_source
        >>> model = loop_model(convert(demo_source(), demo_data()[0]).snn)
        >>> [tensor.name for tensor in model.graph.input]
        ['image', 'timesteps']
    """
    model = onnx.shape_inference.infer_shapes(checked(snn, SpikingModel, "snn").model)
    graph, parts = model.graph, _split(snn)
    states = [state.input for state in snn.states]
    timesteps = free_name(graph, "timesteps")
    counting, constants = _steps_left(timesteps, snn.timesteps)
    unset = counting[0].output[0]
    starts = _open(states, unset, parts.first) + _open(parts.turned, unset, parts.own)
    first = renamed(parts.stepped, prefixed([*parts.made, *states], parts.first), parts.first)
    loop = _loop(parts, _types(graph), [counting[-1].output[0], constants[-1].name])
    looped = helper.make_graph(
        [*parts.static, *counting, *starts, *first, loop, *parts.readout],
        graph.name,
        [
            *(tensor for tensor in graph.input if tensor.name not in states),
            helper.make_tensor_value_info(timesteps, TensorProto.INT64, []),
        ],
        [tensor for tensor in graph.output if tensor.name in snn.outputs],
        [*graph.initializer, *constants],
    )
    graph.CopyFrom(looped)
    about = read_metadata(model)
    del about["format"], about["states"]
    write_metadata(model, {**about, LOOP: timesteps})
    onnx.checker.check_model(model)
    return model


@dataclass
class _Parts:
    """The nodes of a step graph by part, each in topological order.

    Attributes:
        carried: what the Loop carries: by name of what a step gives, the name of what it reads
            of the step before; None for what only the read-out needs.
        first, body, last: what names begin with in the first step, in the Loop, and in the step
            before it.
        own: what names begin with that stand for tensors of the graph around in the Loop alone.
    """

    first: str
    body: str
    last: str
    own: str
    static: list[onnx.NodeProto] = field(default_factory=list)
    stepped: list[onnx.NodeProto] = field(default_factory=list)
    readout: list[onnx.NodeProto] = field(default_factory=list)
    carried: dict[str, str | None] = field(default_factory=dict)

    @property
    def made(self) -> list[str]:
        """The tensors that a step makes."""
        return [name for node in self.stepped for name in node.output if name]

    @property
    def turned(self) -> list[str]:
        """The static tensors that steps read and a Transpose gives."""
        read = {name for node in self.stepped for name in node.input}
        given = (node.output[0] for node in self.static if node.op_type == "Transpose")
        return [name for name in given if name in read]


def _split(snn: SpikingModel) -> _Parts:
    nodes = snn.model.graph.node
    states = {state.input for state in snn.states}
    moving = set(states)
    for node in nodes:
        if moving.intersection(node.input):
            moving.update(filter(None, node.output))
    needed = {state.output for state in snn.states}
    for node in reversed(nodes):
        if needed.intersection(node.output) or states.intersection(node.input):
            needed.update(filter(None, [*node.input, *node.output]))

    names = ("first/", "loop/", "last/", "own/")
    first, body, last, own = (free_name(snn.model.graph, base) for base in names)
    carried: dict[str, str | None] = {s.output: s.input for s in snn.states}
    parts = _Parts(first, body, last, own, carried=carried)
    wanted = set(snn.outputs)
    for node in nodes:
        if not moving.intersection(node.output):
            parts.static.append(node)
        elif needed.intersection(node.output):
            parts.stepped.append(node)
        else:
            parts.readout.append(node)
            wanted.update(node.input)
    parts.carried |= {n: None for n in parts.made if n in wanted and n not in parts.carried}
    return parts


def _steps_left(
    timesteps: str, default: int
) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
    """Nodes that count the steps behind the first, and constants; the last one says: go on."""
    one, usual, always, unset, count, left = (
        f"{timesteps}.{name}" for name in ("one", "default", "always", "unset", "count", "left")
    )
    nodes = [
        helper.make_node("Less", [timesteps, one], [unset]),
        helper.make_node("Where", [unset, usual, timesteps], [count]),
        helper.make_node("Sub", [count, one], [left]),
    ]
    constants = [
        numpy_helper.from_array(np.array(1, np.int64), one),
        numpy_helper.from_array(np.array(default, np.int64), usual),
        numpy_helper.from_array(np.array(True), always),
    ]
    return nodes, constants


def _open(names: Sequence[str], condition: str, prefix: str) -> list[onnx.NodeProto]:
    """Nodes that give what tensors hold, by names that no optimizer knows them by.

    ONNX Runtime would leave out sums that add to states' constant zeros, and where that makes a
    GELU whole (FastGeluFusion of 1.32) it fuses it and loses what the Loop reads of its parts. A
    Transpose that the first step reads it would move behind that, though the Loop reads it too
    (TransposeOptimizer of 1.32).
    """
    return [
        helper.make_node("Where", [condition, name, name], [f"{prefix}{name}"], f"open/{name}")
        for name in names
    ]


def _loop(
    parts: _Parts, types: Mapping[str, onnx.TypeProto], bounds: Sequence[str]
) -> onnx.NodeProto:
    """The Loop; what it gives has the step graph's names, and its body names of its own.

    `bounds` name the number of iterations, and the condition to begin.
    """
    names = prefixed(parts.made, parts.body) | prefixed(parts.turned, parts.own)
    before = {
        after: f"{parts.body}{state}" if state else f"{parts.last}{after}"
        for after, state in parts.carried.items()
    }
    names |= {state: before[after] for after, state in parts.carried.items() if state}
    own = ("iteration", "condition", "goes_on")
    count, condition, goes_on = (f"{parts.body}{name}" for name in own)
    body = helper.make_graph(
        [
            *renamed(parts.stepped, names, parts.body),
            helper.make_node("Identity", [condition], [goes_on]),
        ],
        "timestep",
        [
            helper.make_tensor_value_info(count, TensorProto.INT64, []),
            helper.make_tensor_value_info(condition, TensorProto.BOOL, []),
            *(helper.make_value_info(name, types[after]) for after, name in before.items()),
        ],
        [
            helper.make_tensor_value_info(goes_on, TensorProto.BOOL, []),
            *(helper.make_value_info(names[after], types[after]) for after in before),
        ],
    )
    initial = prefixed(parts.carried, parts.first).values()
    return helper.make_node("Loop", [*bounds, *initial], [*parts.carried], "timesteps", body=body)


def _types(graph: onnx.GraphProto) -> dict[str, onnx.TypeProto]:
    return {tensor.name: tensor.type for tensor in [*graph.value_info, *graph.output]}
