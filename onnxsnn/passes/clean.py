"""Bring a graph as an exporter wrote it into the canonical form that the other passes read.

1. Nodes without a name, or with another's, get one of their own. Poolings round their sizes down
   where rounding up gives no more: see `passes/pooling_sizes.py`.
2. What depends on constants only becomes a constant (weights that are graph inputs with
   an initializer are constants from the import on); so does the shape of a static tensor,
   and a computed shape, as far as `passes/sizes.py` knows it. An If of a constant condition
   becomes its branch, a Where of sizes a Concat of those that it is known to choose, and a
   Tile of axes of one value an Expand.
3. Nodes that compute the same are one: see `twins.py`.
4. x + (f(x) - x), as straight-through estimators write it, becomes f(x).
5. Identity, and Dropout, Cast, Transpose, Gather and Slice where they change nothing, go; so does a
   Reshape whose values only a Reshape reads, to a shape that takes no size from it.
6. Shapes are put together along axis 0, not -1.
7. A ReLU in other words is a Relu: Where(x > 0, x, 0), LeakyRelu, ThresholdedRelu and PRelu of 0.
8. Gemm has alpha = beta = 1 and a bias vector; a MatMul of two axes by a constant is a Gemm.
   (The Add behind it is folded with the normalizations.) A Sum is Adds; a Split of
   anything but samples, to sizes that are known, is Slices. An Einsum whose weights sum over the
   last axes is a MatMul: see `passes/einsum_products.py`.
9. A Pad says what it adds to every axis, and no value where that is 0. A convolution adds the zeros
   itself that a Pad would add in front of it along the axes of space.
10. A recurrent layer's first state of zeros is left out: that is what it starts with anyway,
    however large the batch.
11. A Loop or Scan lists all that its body reads: see `passes/carry_captures.py`.
12. What no output needs goes.
"""

from __future__ import annotations

from collections import Counter
from itertools import permutations

import numpy as np
import onnx_graphsurgeon as gs

from onnxsnn.arrays import Array
from onnxsnn.errors import ModelError
from onnxsnn.graph import (
    Graph,
    Node,
    bypass,
    constant,
    free_name,
    infer_shapes,
    insert,
    is_float,
    needs_copy,
    producer,
    remove,
    sole_producer,
    taken_names,
    unique_name,
)
from onnxsnn.operators import LONGEST, slice_bounds
from onnxsnn.passes.carry_captures import carry_captures
from onnxsnn.passes.einsum_products import write_einsum_products
from onnxsnn.passes.pooling_sizes import round_down
from onnxsnn.passes.report import Report
from onnxsnn.passes.sizes import choose_sizes, expand_tiles, fix_targets, sizes_of
from onnxsnn.passes.strides import remove_strides
from onnxsnn.session import quiet_onnxruntime
from onnxsnn.signals import weighted_input
from onnxsnn.twins import merge_twins

__all__ = ["clean", "name_nodes"]


def clean(graph: Graph) -> tuple[Graph, Report]:
    """Canonical form; value-preserving. The graph is a new one, its shapes inferred anew."""
    report = Report("clean")
    named = name_nodes(graph)
    if named:
        report.actions["nodes named"] += named
    while round_down(graph):  # sizes of poolings behind follow from it
        graph = infer_shapes(graph)
    before = len(graph.nodes)
    _fold_constants(graph)
    _canonical_axes(graph)
    graph = infer_shapes(graph)
    while _fold_constants(graph) | _know_sizes(graph):  # each may let the other know more
        graph = infer_shapes(graph)
    if len(graph.nodes) < before:
        report.actions["nodes folded into constants, or unused"] += before - len(graph.nodes)
    for operator, twins in merge_twins(graph).items():
        report.actions[f"{operator} merged with its twin"] += twins
    _canonical_sums(graph, report)
    _canonical_splits(graph, report)
    write_einsum_products(graph, report)
    _remove_no_ops(graph, report)
    _merge_reshapes(graph, report)
    _remove_straight_through(graph, report)
    remove_strides(graph, report)
    graph = infer_shapes(graph)
    _canonical_rectifiers(graph, report)
    _canonical_products(graph, report)
    _canonical_pads(graph)
    _pad_in_convolutions(graph, report)
    _canonical_states(graph)
    carry_captures(graph, report)
    graph.cleanup()
    _check_finite(graph)
    return graph, report


def _know_sizes(graph: Graph) -> bool:
    """Write sizes so that onnx follows them, or as constants; whether any was changed."""
    return choose_sizes(graph) | expand_tiles(graph) | fix_targets(graph)


def name_nodes(graph: Graph) -> int:
    """Give a name of its own to every node that has none, or another's; how many those were."""
    counts = Counter(node.name for node in graph.nodes)
    unnamed = [node for node in graph.nodes if not node.name or counts[node.name] > 1]
    taken = taken_names(graph)  # once: there may be thousands of nodes
    for node in unnamed:
        base = node.outputs[0].name if node.outputs else "node"
        node.name = free_name(taken, f"{base}/{node.op}")
        taken.add(node.name)
    return len(unnamed)


def _fold_constants(graph: Graph) -> bool:
    """Compute what depends on constants only, and what is the shape of a static tensor.

    graphsurgeon's own folding of shapes is not used: it takes no notice of a Shape's start
    and end, and makes whole numbers of the factors in shape arithmetic.

    Returns:
        whether nodes have gone.
    """
    before = len(graph.nodes)
    for node in graph.nodes:
        open_inputs = [tensor for tensor in node.inputs if constant(tensor) is None]
        sizes = sizes_of(node.outputs[0]) if open_inputs and node.outputs else None
        if sizes is not None and all(isinstance(size, int) for size in sizes.flat):
            values = np.array(sizes, node.outputs[0].dtype or np.int64)
            node.outputs[0].to_constant(values).inputs.clear()
    graph.cleanup().toposort()
    own = {"fold_shapes": False, "flatten_subgraphs": False}
    with quiet_onnxruntime():  # graphsurgeon computes the constants with it
        try:
            graph.fold_constants(error_ok=False, **own)
        except Exception:  # ONNX Runtime does not take one of them: fold the others
            graph.fold_constants(partitioning="recursive", **own)
    graph.cleanup()
    taken = _take_branches(graph)
    graph.cleanup()
    return taken or len(graph.nodes) < before


def _take_branches(graph: Graph) -> bool:
    """Put the branch of an If whose condition is a constant in its place; whether there was one.

    graphsurgeon's own way is not used: it loses outputs that come from outside of the branch, or
    are the same.
    """
    decided = [n for n in graph.nodes if n.op == "If" and constant(n.inputs[0]) is not None]
    for node in decided:
        branch = node.attrs["then_branch" if node.inputs[0].values.item() else "else_branch"]
        outputs = list(node.outputs)
        remove(graph, node)
        outside = {id(tensor) for tensor in (*graph.tensors().values(), *graph.inputs)}
        tensors = {id(tensor): tensor for tensor in (*branch.tensors().values(), *branch.outputs)}
        for number in tensors.keys() - outside:
            tensors[number].name = f"{node.name}/{tensors[number].name}"
        for inner in branch.nodes:  # another branch may hold the same names
            inner.name = f"{node.name}/{inner.name}"
        graph.nodes.extend(branch.nodes)
        for output, inner in zip(outputs, branch.outputs, strict=True):
            insert(graph, "Identity", [inner], output)
    return bool(decided)


def _remove_no_ops(graph: Graph, report: Report) -> None:
    given = {id(tensor) for tensor in graph.outputs}
    for node in list(graph.nodes):
        mask_is_given = any(id(tensor) in given for tensor in node.outputs[1:])
        if mask_is_given or not _does_nothing(node):
            continue
        source, output = node.inputs[0], node.outputs[0]
        if needs_copy(graph, output, source):
            continue
        bypass(graph, node, source)
        report.actions[f"{node.op} removed"] += 1


def _merge_reshapes(graph: Graph, report: Report) -> None:
    """Let a Reshape of a Reshape read what that reads; a 0 in its shape is a size of that one's."""
    for node in list(graph.nodes):
        target = constant(node.inputs[1]) if node.op == "Reshape" else None
        before = sole_producer(graph, node.inputs[0]) if target is not None else None
        if before is not None and before.op == "Reshape" and np.all(target):
            node.inputs[0] = before.inputs[0]
            remove(graph, before)
            report.actions["Reshape of a Reshape merged"] += 1


def _remove_straight_through(graph: Graph, report: Report) -> None:
    """x + (f(x) - x) is f(x): so do straight-through estimators write their rounding."""
    for node in list(graph.nodes):
        for x, difference in permutations(node.inputs) if node.op == "Add" else ():
            sub = sole_producer(graph, difference)
            if sub is not None and sub.op == "Sub" and sub.inputs[1] is x and _same_shape(sub):
                bypass(graph, node, sub.inputs[0])
                report.actions["straight-through estimators removed"] += 1
                break


def _same_shape(node: Node) -> bool:
    """Whether a node's two inputs are known to be of one shape, so that neither is repeated."""
    left, right = (tensor.shape for tensor in node.inputs)
    return left is not None and left == right


def _does_nothing(node: Node) -> bool:
    if node.op == "Identity":
        return True
    if node.op == "Transpose":
        order = list(node.attrs.get("perm", ()))
        return bool(order) and order == sorted(order)
    if node.op == "Cast":
        before, after = node.inputs[0].dtype, node.outputs[0].dtype
        return None not in (before, after) and np.dtype(before) == np.dtype(after)
    if node.op == "Dropout":
        given = len(node.inputs) > 2 and not node.inputs[2].is_empty()
        training = constant(node.inputs[2]) if given else np.array(False)
        mask_is_read = len(node.outputs) > 1 and bool(node.outputs[1].outputs)
        return training is not None and not training.any() and not mask_is_read
    return node.op == "Slice" and _takes_all(node)


def _takes_all(node: Node) -> bool:
    """Whether a Slice takes all there is along its axes, in order: up to sizes that are equal."""
    shape, bounds = node.inputs[0].shape, slice_bounds(node, sizes_of)
    if shape is None or bounds is None:
        return False
    return all(
        (start, step) == (0, 1)
        and end is not None
        and (end == shape[axis] or (isinstance(end, int) and end >= LONGEST))
        for start, end, axis, step in bounds
    )


def _canonical_axes(graph: Graph) -> None:
    """A Concat of shapes along axis 0: onnx follows what shapes hold through no other."""
    for node in graph.nodes:
        shape = node.outputs[0].shape
        if node.op == "Concat" and shape is not None and len(shape) == 1:
            node.attrs["axis"] = 0


def _canonical_sums(graph: Graph, report: Report) -> None:
    """Adds from the left in place of a Sum; one of a single tensor does nothing."""
    for node in [node for node in graph.nodes if node.op == "Sum"]:
        total, *others = node.inputs
        for other in others[:-1]:
            partial = gs.Variable(unique_name(graph, f"{node.name}.partial"), total.dtype)
            insert(graph, "Add", [total, other], partial)
            total = partial
        node.op, node.inputs = ("Add", [total, others[-1]]) if others else ("Identity", [total])
        report.actions["Sum written as Add"] += 1


def _canonical_splits(graph: Graph, report: Report) -> None:
    """A Slice for every part of a Split, the first of them by its name."""
    for node in [node for node in graph.nodes if node.op == "Split"]:
        (source, *_), parts = node.inputs, list(node.outputs)
        axis = node.attrs.get("axis", 0) % len(source.shape) if source.shape else 0
        known = [part.shape[axis] for part in parts if part.shape]
        sizes = [size for size in known if isinstance(size, int)]
        if axis == 0 or len(sizes) < len(parts):
            continue
        remove(graph, node)
        end = 0
        for number, (part, size) in enumerate(zip(parts, sizes, strict=True)):
            name = unique_name(graph, f"{node.name}.{number}") if number else node.name
            start, end = end, end + size
            bounds = {"start": start, "end": end, "axis": axis}
            held = [gs.Constant(f"{name}.{role}", np.array([at])) for role, at in bounds.items()]
            insert(graph, "Slice", [source, *held], part).name = name
        report.actions["Split written as Slice"] += 1


def _canonical_rectifiers(graph: Graph, report: Report) -> None:
    for node in graph.nodes:
        source = _rectified(node)
        if source is not None:
            report.actions[f"{node.op} written as Relu"] += 1
            node.op, node.attrs, node.inputs = "Relu", {}, [source]


def _rectified(node: Node) -> gs.Tensor | None:
    """What a node in other words rectifies; None where it does anything else."""
    if node.op in ("LeakyRelu", "ThresholdedRelu"):
        return node.inputs[0] if node.attrs.get("alpha") == 0 else None
    if node.op == "PRelu":
        return node.inputs[0] if _is_zero(node.inputs[1]) else None
    return _kept_above_zero(node) if node.op == "Where" else None


def _kept_above_zero(node: Node) -> gs.Tensor | None:
    """x, where a choice is x if x > 0 or x >= 0, else 0."""
    condition, then, other = node.inputs
    comparison = producer(condition)
    if comparison is None or comparison.op not in _ABOVE:
        return None
    x, bound = comparison.inputs
    above = _ABOVE[comparison.op]
    if _is_zero(x):
        x, bound, above = bound, x, not above
    kept, dropped = (then, other) if above else (other, then)
    zeros = kept is x and _is_zero(bound) and _is_zero(dropped)
    broadcasts = x.shape is None or x.shape != node.outputs[0].shape
    return x if zeros and is_float(x) and not broadcasts else None


_ABOVE = {"Greater": True, "GreaterOrEqual": True, "Less": False, "LessOrEqual": False}


def _is_zero(tensor: gs.Tensor) -> bool:
    values = constant(tensor)
    return values is not None and not values.any()


def _canonical_products(graph: Graph, report: Report) -> None:
    for node in list(graph.nodes):
        if node.op == "MatMul" and _is_gemm(node):
            node.op = "Gemm"
            report.actions["MatMul written as Gemm"] += 1
        if node.op == "Gemm":
            _canonical_gemm(graph, node)


def _is_gemm(node: Node) -> bool:
    left, right = node.inputs
    weight = constant(right)
    two_axes = left.shape is not None and len(left.shape) == 2
    return two_axes and constant(left) is None and weight is not None and weight.ndim == 2


def _canonical_gemm(graph: Graph, node: Node) -> None:
    if len(node.inputs) > 2 and node.inputs[2].is_empty():
        del node.inputs[2]
    if any(constant(tensor) is None for tensor in node.inputs[1:]):
        return
    alpha, beta = node.attrs.pop("alpha", 1.0), node.attrs.pop("beta", 1.0)
    weight, *biases = (tensor.values for tensor in node.inputs[1:])
    outputs = weight.shape[0 if node.attrs.get("transB", 0) else 1]
    if alpha != 1.0:
        node.inputs[1] = _new_constant(graph, node, "weight", weight * np.float32(alpha))
    for bias in biases:
        scaled = bias * np.float32(beta)
        if bias.ndim == 2 and len(bias) > 1:
            _add_rows(graph, node, scaled)
        elif beta != 1.0 or bias.shape != (outputs,):
            vector = np.array(np.broadcast_to(scaled.reshape(-1), (outputs,)))
            node.inputs[2] = _new_constant(graph, node, "bias", vector)


def _add_rows(graph: Graph, node: Node, rows: Array) -> None:
    """Let each sample of a fixed batch have a bias of its own by an Add."""
    (output,) = node.outputs
    product = gs.Variable(unique_name(graph, f"{node.name}.product"), output.dtype, output.shape)
    node.inputs, node.outputs = node.inputs[:2], [product]
    insert(graph, "Add", [product, _new_constant(graph, node, "rows", rows)], output)


def _canonical_pads(graph: Graph) -> None:
    """Pads of all axes, and a value only where it is not 0."""
    for node in [node for node in graph.nodes if node.op == "Pad"]:
        shape = node.inputs[0].shape
        given = {
            at: tensor for at, tensor in enumerate(node.inputs) if at and not tensor.is_empty()
        }
        if shape is None or any(constant(tensor) is None for tensor in given.values()):
            continue
        axes = given[3].values if 3 in given else np.arange(len(shape))
        whole = np.zeros((2, len(shape)), np.int64)
        whole[:, axes] = given[1].values.reshape(2, -1)
        value = [given[2]] if 2 in given and np.any(given[2].values) else []
        node.inputs = [node.inputs[0], _new_constant(graph, node, "pads", whole.ravel()), *value]


def _pad_in_convolutions(graph: Graph, report: Report) -> None:
    """Let a convolution add the zeros that a Pad adds in front of it."""
    for node in list(graph.nodes):
        added = _zeros_around(node.inputs[0].inputs[0]) if _may_pad(node) else None
        if added is not None:
            own = np.reshape(node.attrs.get("pads", np.zeros_like(added)), added.shape)
            node.attrs |= {"auto_pad": "NOTSET", "pads": (own + added).ravel().tolist()}
            node.inputs[0] = node.inputs[0].inputs[0].inputs[0]
            report.actions["Pad put into a convolution"] += 1


def _may_pad(node: Node) -> bool:
    """Whether a node is a convolution whose padding is known, behind another node."""
    known = node.attrs.get("auto_pad", "NOTSET") in ("NOTSET", "VALID")
    return node.op == "Conv" and known and bool(node.inputs[0].inputs)


def _zeros_around(node: Node) -> Array | None:
    """The zeros that a Pad adds before and behind each axis of space, [2, axes].

    None where it adds anything else, takes some away, or is not known; and of any other node.
    """
    pads = constant(node.inputs[1]) if node.op == "Pad" else None
    if pads is None or len(node.inputs) > 2 or node.attrs.get("mode", "constant") != "constant":
        return None
    around = pads.reshape(2, -1)
    return None if np.any(around < 0) or np.any(around[:, :2]) else around[:, 2:]


def _canonical_states(graph: Graph) -> None:
    """LSTM, GRU and RNN without first states of zeros."""
    for node in graph.nodes:
        for position in _FIRST_STATES.get(node.op, ()):
            state = constant(node.inputs[position]) if position < len(node.inputs) else None
            if state is not None and not np.any(state):
                node.inputs[position] = gs.Variable.empty()


_FIRST_STATES = {"GRU": (5,), "LSTM": (5, 6), "RNN": (5,)}


def _new_constant(graph: Graph, node: Node, role: str, values: Array) -> gs.Constant:
    return gs.Constant(unique_name(graph, f"{node.name}.{role}"), values)


def _check_finite(graph: Graph) -> None:
    """Refuse NaN in any constant, and infinity in a factor; as a bound or a mask it is sound."""
    for node in graph.nodes:
        is_weighted = weighted_input(node) is not None
        for position, tensor in enumerate(node.inputs):
            values = constant(tensor)
            if values is None or not np.issubdtype(values.dtype, np.floating):
                continue
            is_factor = is_weighted and position < 2
            sound = np.isfinite(values) if is_factor else ~np.isnan(values)
            if not sound.all():
                raise ModelError(
                    f"weight {tensor.name!r} of node {node.name!r} ({node.op}) holds "
                    f"{'NaN' if np.isnan(values).any() else 'infinity'}; "
                    "export the model again from a checkpoint that is sound"
                )
