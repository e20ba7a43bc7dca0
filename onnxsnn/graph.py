"""The few helpers over onnx_graphsurgeon that the passes share."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence, Set
from copy import deepcopy
from typing import Any, TypeAlias

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from onnx_graphsurgeon.ir.tensor import LazyValues
from onnx_graphsurgeon.logger import G_LOGGER

from onnxsnn import functions
from onnxsnn.arrays import Array
from onnxsnn.errors import ModelError, UnsupportedError
from onnxsnn.light import is_large, light_model, without_values

__all__ = [
    "Graph",
    "Node",
    "Tensor",
    "bypass",
    "channel_axis",
    "computed",
    "constant",
    "data_input",
    "describe",
    "drop_unused",
    "floats",
    "free_name",
    "from_model",
    "has_body",
    "infer_shapes",
    "insert",
    "is_float",
    "is_output",
    "is_static_shape",
    "needs_copy",
    "nodes_before",
    "nodes_behind",
    "opset_of",
    "part_of",
    "part_up_to",
    "per_channel",
    "producer",
    "rank",
    "reads_values",
    "remove",
    "replace_everywhere",
    "replace_reads",
    "resized",
    "same_rank",
    "sized_for",
    "sole_consumer",
    "sole_producer",
    "taken_names",
    "to_model",
    "unique_name",
    "values_per_sample",
    "zeros",
]

G_LOGGER.severity = G_LOGGER.CRITICAL  # what matters of its warnings, our own checks say

Graph: TypeAlias = gs.Graph
Node: TypeAlias = gs.Node
Tensor: TypeAlias = gs.Tensor


def from_model(model: onnx.ModelProto, left_out: Collection[str] = ()) -> Graph:
    """The graph of a model, with every shape that onnx can infer.

    Function bodies of the onnxsnn domain are left out: `to_model` writes them anew. Weights are
    read from the model when they are asked for, and not copied before.

    Args:
        model: of which the graph is.
        left_out: names of initializers to leave out, whose tensors are plain inputs then.

    Raises:
        ModelError: onnx finds a contradiction.
    """
    kept = [tensor for tensor in model.graph.initializer if tensor.name not in left_out]
    weights = {tensor.name: tensor for tensor in kept if is_large(tensor)}
    stubs = [without_values(t) if t.name in weights else t for t in kept]
    inferred = _inferred(light_model(model, stubs))
    own = [body for body in inferred.functions if body.domain == functions.DOMAIN]
    for body in own:
        inferred.functions.remove(body)
    graph = gs.import_onnx(inferred)
    for part in (graph, *graph.subgraphs(recursive=True)):
        for name, tensor in part.tensors().items():
            if name in weights:
                tensor.values = LazyValues(weights[name])
    return graph


_SHAPELESS = {"GroupNormalization", "MeanVarianceNormalization"}  # of these, onnx infers nothing


def _inferred(model: onnx.ModelProto) -> onnx.ModelProto:
    """A model with shapes; the one that is given is changed.

    Where shapes that are declared of outputs contradict what nodes give, nodes are right.
    """
    hidden = {}
    for number, node in enumerate(model.graph.node):
        if node.op_type in _SHAPELESS:
            hidden[number] = deepcopy(node)
            node.CopyFrom(onnx.helper.make_node("Identity", node.input[:1], node.output))
    try:
        inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    except Exception:
        inferred = _inferred_of_nodes(model)
    for number, node in hidden.items():
        inferred.graph.node[number].CopyFrom(node)
    return inferred


def _inferred_of_nodes(model: onnx.ModelProto) -> onnx.ModelProto:
    """A model with the shapes that its nodes give, and others as they are declared."""
    declared = {}
    for output in model.graph.output:
        declared[output.name] = deepcopy(output.type)
        output.type.tensor_type.ClearField("shape")
    try:
        inferred = onnx.shape_inference.infer_shapes(model, strict_mode=False, data_prop=True)
    except Exception as error:
        raise ModelError(f"shapes cannot be inferred: {error}") from error
    for output in inferred.graph.output:
        if not output.type.tensor_type.HasField("shape"):
            output.type.CopyFrom(declared[output.name])
    return inferred


def opset_of(model: onnx.ModelProto) -> int:
    """The version of ONNX's own operators that a model uses."""
    versions = [entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")]
    return versions[0] if versions else onnx.defs.onnx_opset_version()


def to_model(graph: Graph) -> onnx.ModelProto:
    """The model of a graph, with the body of every onnxsnn function that it calls.

    Operator sets that no node is of are left out, and the IR version is no newer than they need.
    """
    graph.toposort()
    nodes = [node for part in (graph, *graph.subgraphs(recursive=True)) for node in part.nodes]
    called = functions.closure(node.op for node in nodes if node.domain == functions.DOMAIN)
    domains = {node.domain for node in nodes} - _OWN_DOMAINS
    others = [entry for entry in graph.import_domains or [] if entry.domain in domains]
    opsets = [onnx.helper.make_opsetid("", graph.opset), *others]
    if called:
        opsets.append(onnx.helper.make_opsetid(functions.DOMAIN, functions.VERSION))
    model: onnx.ModelProto = gs.export_onnx(graph, do_type_check=False, opset_imports=opsets)
    model.ir_version = _ir_version(graph, opsets)
    model.functions.extend(functions.body(name, graph.opset) for name in called)
    return model


_OWN_DOMAINS = {None, "", "ai.onnx", functions.DOMAIN}


def _ir_version(graph: Graph, opsets: list[onnx.OperatorSetIdProto]) -> int:
    """The version that came with these operator sets, or an older one that the graph is of.

    Runtimes refuse newer ones than they know, and exporters write the newest.
    """
    needed = onnx.helper.find_min_ir_version_for(opsets, ignore_unknown=True)
    return max(min(graph.ir_version or needed, needed), functions.IR_VERSION)


def infer_shapes(graph: Graph, known: Mapping[str, list[Any]] | None = None) -> Graph:
    """A graph with the shapes of its tensors inferred anew; some may be known, by name.

    The graph that is given loses its own: give a copy of one that is still needed.
    """
    known = known or {}
    for tensor in graph.tensors().values():
        inner = isinstance(tensor, gs.Variable) and tensor.inputs
        if inner and not is_output(graph, tensor):
            tensor.shape = known.get(tensor.name)
    return from_model(to_model(graph))


def resized(
    graph: Graph,
    sizes: Callable[[Tensor], list[Any]],
    known: Mapping[str, list[Any]] | None = None,
) -> Graph:
    """A copy of a graph whose inputs have other sizes, and every shape that follows from them.

    Args:
        graph: as it is.
        sizes: gives the shape of an input that has axes.
        known: shapes of tensors that cannot be inferred, by name.
    """
    copied = graph.copy()
    for tensor in copied.inputs:
        if tensor.shape:
            tensor.shape = sizes(tensor)
    for tensor in copied.outputs:
        if not isinstance(tensor, gs.Constant):
            tensor.shape = None
    return infer_shapes(copied, known)


def sized_for(graph: Graph, samples: Mapping[str, Array]) -> Graph:
    """A graph whose inputs have the sizes of samples, and what follows from them.

    Args:
        graph: as it is; it is given back where it leaves no size open but the batch, or where
            the samples do not fit it.
        samples: [N, ...] by input.
    """
    given = [tensor for tensor in graph.inputs if tensor.name in samples]
    if all(is_static_shape(tensor.shape) for tensor in given):
        return graph
    sizes = {tensor.name: [*tensor.shape[:1], *samples[tensor.name].shape[1:]] for tensor in given}
    try:
        return resized(graph, lambda tensor: sizes.get(tensor.name, tensor.shape))
    except ModelError:
        return graph


def zeros(graph: Graph, samples: int) -> dict[str, Array]:
    """Inputs of zeros for a graph, each of whose axes but the first has a known size.

    Args:
        graph: whose inputs they are.
        samples: where the batch is not fixed.
    """
    return {
        tensor.name: np.zeros(
            [size if isinstance(size, int) else samples for size in tensor.shape], tensor.dtype
        )
        for tensor in graph.inputs
    }


def constant(tensor: Tensor) -> Array | None:
    """The values of a constant tensor; None for any other."""
    return tensor.values if isinstance(tensor, gs.Constant) else None


def data_input(node: Node) -> Tensor:
    """The first input of a node that is not constant."""
    return next(tensor for tensor in node.inputs if constant(tensor) is None)


def is_float(tensor: Tensor) -> bool:
    """Whether a tensor is known to hold floating-point numbers; what may be left out is not."""
    if not isinstance(tensor.dtype, (np.dtype, type)):
        return False
    return bool(np.issubdtype(np.dtype(tensor.dtype), np.floating))


def rank(tensor: Tensor, node: Node) -> int:
    """Number of axes of `tensor`; `node` is named where the rank is not known."""
    if tensor.shape is None:
        raise UnsupportedError(
            f"{describe(node)}: the shape of {tensor.name!r} cannot be resolved; "
            "export the model with fixed shapes, or run onnx's shape inference on it"
        )
    return len(tensor.shape)


def is_output(graph: Graph, tensor: Tensor) -> bool:
    """Whether a tensor is one of the graph's outputs; to graphsurgeon, equal names are enough."""
    return any(tensor is output for output in graph.outputs)


def is_static_shape(shape: Sequence[int | str | None] | None) -> bool:
    """Whether every axis but the first, the batch, has a known size."""
    return shape is not None and all(isinstance(size, int) for size in shape[1:])


def values_per_sample(tensor: Tensor) -> int:
    """How many values a tensor holds of each sample; an axis of unknown size counts as 1."""
    sizes = (tensor.shape or [])[1:]
    return math.prod([size for size in sizes if isinstance(size, int)])


def describe(node: Node) -> str:
    """How messages name a node."""
    return f"node {node.name!r} ({node.op})"


def sole_consumer(graph: Graph, tensor: Tensor) -> Node | None:
    """The one node that reads `tensor`, once; None if it is an output or read elsewhere too."""
    return None if len(tensor.outputs) != 1 or is_output(graph, tensor) else tensor.outputs[0]


def producer(tensor: Tensor) -> Node | None:
    """The node that writes `tensor`; None for an input, a constant, and what is left out."""
    return tensor.inputs[0] if tensor.inputs else None


def sole_producer(graph: Graph, tensor: Tensor) -> Node | None:
    """The node that writes `tensor`, if one other node reads it, and nothing else."""
    return producer(tensor) if sole_consumer(graph, tensor) else None


def per_channel(values: Array, axes: int, axis: int, channels: int) -> Array | None:
    """`values`, broadcast against `axes` axes, as a vector [channels] along `axis`.

    None where they vary along any other axis.
    """
    if values.ndim > axes:
        return None
    shape = (1,) * (axes - values.ndim) + values.shape
    others = shape[:axis] + shape[axis + 1 :]
    if any(size != 1 for size in others) or shape[axis] not in (1, channels):
        return None
    return np.broadcast_to(values.reshape(-1), (channels,))


def channel_axis(tensor: Tensor) -> int:
    """The axis of `tensor` that holds channels, or features: one threshold each.

    It is found by walking back to the layer that made them: the last axis behind a matrix
    product, an embedding or a normalization over the last axis, wherever a transposition
    moved it, else axis 1.
    """
    axes = None if tensor.shape is None else len(tensor.shape)
    if axes is None or not tensor.inputs:
        return 1 if axes is None or axes > 2 else axes - 1
    node = tensor.inputs[0]
    if axes <= 2 or node.op in _LAST_AXIS:
        return axes - 1
    varying = [source for source in node.inputs if constant(source) is None]
    if node.op in _SECOND_AXIS or not varying or not same_rank(varying[0], tensor):
        return 1
    axis = channel_axis(varying[0])
    if node.op != "Transpose":
        return axis
    order = list(node.attrs.get("perm", reversed(range(axes))))
    return order.index(axis)


_LAST_AXIS = {"MatMul", "Gemm", "LayerNormalization", "RMSNormalization", "Gather"}
_SECOND_AXIS = {"Conv", "ConvTranspose", "BatchNormalization", "Reshape"}


def same_rank(left: Tensor, right: Tensor) -> bool:
    """Whether two tensors are known to have as many axes."""
    return (
        left.shape is not None and right.shape is not None and len(left.shape) == len(right.shape)
    )


def unique_name(graph: Graph, base: str, ending: str = "") -> str:
    """`base`, with a number behind it where a tensor or a node has that name already.

    Bodies inside the graph count. With `ending` behind it, the name is free too.
    """
    return free_name(taken_names(graph), base, ending)


def free_name(taken: Set[str], base: str, ending: str = "") -> str:
    """`base`, with a number behind it where that, or that with `ending` behind it, is taken."""
    candidates = itertools.chain([base], (f"{base}_{number}" for number in itertools.count(1)))
    return next(name for name in candidates if taken.isdisjoint({name, name + ending}))


def taken_names(graph: Graph) -> set[str]:
    """Of all tensors and nodes of a graph, and of bodies in it."""
    tensors = (node.inputs for node in graph.nodes), (node.outputs for node in graph.nodes)
    lists = itertools.chain([graph.inputs, graph.outputs, graph.nodes], *tensors)
    found = {named.name for named in itertools.chain.from_iterable(lists)}
    for node in graph.nodes:  # node.subgraphs() would take longer than all else
        for body in node.attrs.values():
            if isinstance(body, gs.Graph):
                found |= taken_names(body)
    return found


def floats(graph: Graph, name: str, values: Array) -> gs.Constant:
    """A new constant in float32, of this name or one like it."""
    return gs.Constant(unique_name(graph, name), np.asarray(values, np.float32))


def insert(
    graph: Graph,
    operator: str,
    inputs: Iterable[Tensor],
    output: Tensor,
    *more_outputs: Tensor,
    attrs: dict[str, Any] | None = None,
) -> Node:
    """Add a node that writes `output`, named after it; onnxsnn's own operators get its domain."""
    node = gs.Node(
        operator,
        name=unique_name(graph, f"{output.name}/{operator}"),
        attrs=attrs,
        inputs=list(inputs),
        outputs=[output, *more_outputs],
        domain=functions.DOMAIN if operator in functions.BODIES else None,
    )
    graph.nodes.append(node)
    return node


def computed(
    graph: Graph,
    operator: str,
    inputs: Sequence[Tensor],
    role: str,
    attrs: Mapping[str, Any] | None = None,
) -> Tensor:
    """The output of a new node, of float32, named after the first input and its role."""
    output = gs.Variable(unique_name(graph, f"{inputs[0].name}.{role}"), np.float32)
    insert(graph, operator, inputs, output, attrs=dict(attrs or {}))
    return output


def part_up_to(graph: Graph, names: Sequence[str], known: Collection[str] = ()) -> Graph:
    """A copy of what these tensors depend on, with them as its only outputs, in this order.

    Tensors that are known are inputs of it, and what they depend on is left out.
    """
    tensors = graph.tensors()
    wanted, held = ([tensors[name] for name in group] for group in (names, known))
    part = part_of(graph, wanted, held)
    tensors = part.tensors()
    for name in known:
        _detach(part, tensors[name])
    part.outputs = []
    for name in names:
        tensor = tensors[name]
        output = gs.Variable(unique_name(part, "observed"), tensor.dtype, tensor.shape)
        insert(part, "Identity", [tensor], output)
        part.outputs.append(output)
    drop_unused(part)
    return part


def part_of(graph: Graph, outputs: Sequence[Tensor], known: Sequence[Tensor] = ()) -> Graph:
    """A copy of what gives these tensors, which are its outputs; known ones are inputs too."""
    needed = {id(node) for node in nodes_before(outputs, [tensor.name for tensor in known])}
    return gs.Graph(
        nodes=[node for node in graph.nodes if id(node) in needed],
        inputs=[*graph.inputs, *known],
        outputs=list(outputs),
        name=graph.name,
        opset=graph.opset,
        import_domains=graph.import_domains,
        functions=graph.functions,
        ir_version=graph.ir_version,
    ).copy()


def drop_unused(graph: Graph) -> None:
    """Take out the nodes and inputs that no output needs; bodies keep their inputs, by place."""
    graph.cleanup(remove_unused_graph_inputs=True, recurse_subgraphs=False)


def has_body(node: Node) -> bool:
    """Whether a node runs a graph of its own: If, Loop, Scan."""
    return any(True for _ in node.subgraphs())


def _detach(graph: Graph, tensor: Tensor) -> None:
    """Let the node that writes a tensor write another in its place."""
    for node in list(tensor.inputs):
        unread = gs.Variable(
            unique_name(graph, f"{tensor.name}.unread"), tensor.dtype, tensor.shape
        )
        node.outputs[node.outputs.index(tensor)] = unread


def nodes_before(tensors: Iterable[Tensor], known: Collection[str] = ()) -> list[Node]:
    """The nodes that tensors are computed from, those that are known taken as they are."""
    found: dict[int, Node] = {}
    todo = list(tensors)
    while todo:
        tensor = todo.pop()
        if tensor.name in known:
            continue
        for node in tensor.inputs:
            if id(node) not in found:
                found[id(node)] = node
                todo += node.inputs
    return list(found.values())


def reads_values(graph: Graph, tensor: Tensor) -> bool:
    """Whether more than the sizes of a graph's inputs goes into a tensor."""
    sizes = {t.name for node in graph.nodes if node.op in ("Shape", "Size") for t in node.outputs}
    read = {id(given) for node in nodes_before([tensor], sizes) for given in node.inputs}
    return any(entry is tensor or id(entry) in read for entry in graph.inputs)


def nodes_behind(nodes: Iterable[Node]) -> list[Node]:
    """These nodes, and those that are computed from what they give."""
    found: dict[int, Node] = {}
    todo = list(nodes)
    while todo:
        node = todo.pop()
        if id(node) not in found:
            found[id(node)] = node
            todo += [reader for tensor in node.outputs for reader in tensor.outputs]
    return list(found.values())


def remove(graph: Graph, node: Node) -> None:
    """Take a node out, with its edges."""
    node.inputs.clear()
    node.outputs.clear()
    graph.nodes = [other for other in graph.nodes if other is not node]


def replace_reads(old: Tensor, new: Tensor) -> None:
    """Let every node that reads `old` read `new`."""
    for consumer in {id(node): node for node in old.outputs}.values():
        for position, tensor in enumerate(consumer.inputs):
            if tensor is old:
                consumer.inputs[position] = new


def bypass(graph: Graph, node: Node, source: Tensor) -> None:
    """Take out a node of one output, and let what reads that read `source`."""
    output = node.outputs[0]
    remove(graph, node)
    replace_everywhere(graph, output, source)


def needs_copy(graph: Graph, output: Tensor, source: Tensor) -> bool:
    """Whether an output of the graph is an input, a constant or another output under its name."""
    return is_output(graph, output) and (is_output(graph, source) or not source.inputs)


def replace_everywhere(graph: Graph, old: Tensor, new: Tensor) -> None:
    """Let everything that reads `old`, which nothing gives any more, read `new`.

    A graph output keeps its name and shape, where it `needs_copy` by a node that copies `new`.
    """
    copies = needs_copy(graph, old, new)
    replace_reads(old, new)
    if copies:
        insert(graph, "Identity", [new], old)
        return
    for position, output in enumerate(graph.outputs):
        if output is old:
            graph.outputs[position] = new
            new.shape, new.dtype = old.shape, old.dtype
            old.name, new.name = unique_name(graph, f"{old.name}.old"), old.name
