"""The step graph with plain inputs for states: for what feeds no input that has a default value.

An SNN's states have defaults, with which they start. ONNX Runtime for JavaScript and Java, and
tools that rewrite graphs, take an input that has a default for a constant. Here, a Where chooses
between the default and the input: the state that counts the steps is 0 in the first of them, and
then what the others hold is not read. Functions are inlined, so that no operator is left but those
of the standard.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import onnx
import onnx.inliner
from onnx import helper

from onnxsnn.errors import checked
from onnxsnn.export.renaming import free_name, prefixed, renamed
from onnxsnn.files import write_model
from onnxsnn.functions import DOMAIN
from onnxsnn.metadata import read_metadata, write_metadata
from onnxsnn.model import STEP, SpikingModel

__all__ = ["export_step", "step_model"]


def export_step(snn: SpikingModel, path: str | Path) -> None:
    """Write one timestep of an SNN, with plain inputs for states; see `step_model`.

    Raises:
        OutputError: the file cannot be written.
    """
    write_model(step_model(snn), path)


def step_model(snn: SpikingModel) -> onnx.ModelProto:
    """One timestep of an SNN as an ONNX model, to which its states are inputs as any other.

    Names are those of the SNN: what is the state NAME in the next step is the output NAME.next.
    Before the first step, every state is zeros of its input's shape, float32, of size 1 where that
    has no name that an input of the source has; that which counts the steps, `step`, has to be, and
    the others start with what the SNN's start with.

    Example:
        >>> from onnxsnn.convert import convert
        >>> from onnxsnn.demo import demo_data, demo_source
        >>> model = step_model(convert(demo_source(), demo_data()[0]).snn)
        >>> [len(model.graph.input), model.graph.input[0].name, model.graph.input[-1].name]
        [7, 'image', 'step']
        >>> {node.domain for node in model.graph.node}
        {''}
    """
    model = onnx.inliner.inline_local_functions(checked(snn, SpikingModel, "snn").model)
    graph, states = model.graph, {state.input: state.output for state in snn.states}
    (count,) = (state.input for state in snn.states if state.role == "step")
    starts, now = (prefixed(states, free_name(graph, base)) for base in ("start/", "now/"))
    given = [tensor for tensor in graph.input if tensor.name not in states]
    _leave_unnamed(given, [tensor for tensor in graph.output if tensor.name in states.values()])
    types = {tensor.name: tensor.type for tensor in graph.output}
    given += [helper.make_value_info(name, types[after]) for name, after in states.items()]
    for tensor in graph.initializer:
        tensor.name = starts.get(tensor.name, tensor.name)
    nodes = [*_opening(count, states, starts, now), *renamed(graph.node, now, "")]
    graph.CopyFrom(helper.make_graph(nodes, graph.name, given, graph.output, graph.initializer))
    (ours,) = (entry for entry in model.opset_import if entry.domain == DOMAIN)
    model.opset_import.remove(ours)
    about = read_metadata(model)
    del about["format"]
    write_metadata(model, {**about, STEP: count})
    onnx.checker.check_model(model)
    return model


def _leave_unnamed(
    given: Iterable[onnx.ValueInfoProto], states: Iterable[onnx.ValueInfoProto]
) -> None:
    """Take the names off sizes of states that no given input has.

    Nobody could tell what to feed there: shape inference made them up, as where windows or frames
    lie beside the samples. Under a name, ONNX Runtime would take what is fed for what comes out.
    """
    known = {size.dim_param for tensor in given for size in tensor.type.tensor_type.shape.dim}
    for tensor in states:
        for size in tensor.type.tensor_type.shape.dim:
            if size.dim_param not in known:
                size.ClearField("dim_param")


def _opening(
    count: str, states: Iterable[str], starts: Mapping[str, str], now: Mapping[str, str]
) -> list[onnx.NodeProto]:
    """Nodes that give what every state is now: in the first step, what it starts with."""
    first = f"{now[count]}/first"
    return [
        helper.make_node("Equal", [count, starts[count]], [first], first),
        *(
            helper.make_node("Where", [first, starts[name], name], [now[name]], now[name])
            for name in states
        ),
    ]
