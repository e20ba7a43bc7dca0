"""Move the thresholds' factors into the weights that read the spikes.

Behind every rate stands `Mul(rate, theta)`. In topological order, a node whose input is
such a product may

1. take the factor into its weights: Conv, ConvTranspose, Gemm, MatMul, if the factor is
   per input channel;
2. let it through, unchanged or moved, if it works within channels or moves values only:
   pooling, means, sums and maxima over axes, Resize, Expand, Tile, Pad, Slice, Gather,
   SpaceToDepth, Transpose, Reshape, Flatten, Squeeze, Unsqueeze, Mul and Div by a constant, and
   Concat; or if it is a MatMul whose weights sum over another axis;
3. read the sizes of the product only, which are those of the rates;
4. demand it: then the product is computed in front of the node, once for all that demand.

What rates drive directly is thus 0/1 in the SNN, except where case 4 applies.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import onnx_graphsurgeon as gs

from onnxsnn.arrays import Array
from onnxsnn.graph import (
    Graph,
    Node,
    Tensor,
    constant,
    floats,
    insert,
    is_output,
    is_static_shape,
    per_channel,
    unique_name,
)
from onnxsnn.operators import constant_operand, crops, reduced_axes, slice_bounds, values_read
from onnxsnn.passes.report import Report
from onnxsnn.ratenorm import is_rate_norm
from onnxsnn.weights import weight_layer

__all__ = ["absorb_scales"]


def absorb_scales(graph: Graph) -> Report:
    """Fold the factor behind every rate into weights; value-preserving up to rounding."""
    report = Report("absorb_scales")
    graph.toposort()
    pending: dict[int, tuple[Tensor, Array]] = {}  # tensor -> (its unscaled twin, the factor)
    for node in list(graph.nodes):
        if _scales_rates(node):
            pending[id(node.outputs[0])] = (node.inputs[0], node.inputs[1].values)
        elif any(id(tensor) in pending for tensor in node.inputs):
            _visit(graph, node, pending, report)
    graph.cleanup()
    return report


def _scales_rates(node: Node) -> bool:
    source = node.inputs[0].inputs if node.op == "Mul" else []
    return bool(source) and is_rate_norm(source[0]) and constant(node.inputs[1]) is not None


_Pending = dict[int, tuple[Tensor, Array]]


def _visit(graph: Graph, node: Node, pending: _Pending, report: Report) -> None:
    if _absorb(graph, node, pending):
        report.actions["thresholds folded into weights"] += 1
        return
    if not values_read(node):
        node.inputs = [pending[id(t)][0] if id(t) in pending else t for t in node.inputs]
        return
    carried = _carry(node, pending)
    if carried is None:
        report.actions["thresholds kept as Mul"] += 1
        for tensor in node.inputs:
            _materialise(graph, tensor, pending)
        return
    _let_through(graph, node, carried, pending)


def _absorb(graph: Graph, node: Node, pending: _Pending) -> bool:
    layer = weight_layer(graph, node)
    if layer is None:
        return False
    twin, factor = pending[id(node.inputs[0])]
    axes = len(twin.shape or ())
    vector = per_channel(factor, axes, layer.input_axis(axes), layer.inputs)
    if vector is None:
        return False
    layer.scale_input(vector)
    node.inputs[0] = twin
    return True


def _let_through(graph: Graph, node: Node, factor: Array, pending: _Pending) -> None:
    """Put a twin of `node` that reads unscaled tensors beside it; later nodes may read that."""
    inputs = [pending[id(t)][0] if id(t) in pending else t for t in node.inputs]
    output = node.outputs[0]
    if node.op in ("Mul", "Div"):
        twin = next(t for t in inputs if constant(t) is None)
    else:
        twin = gs.Variable(unique_name(graph, f"{output.name}.rate"), output.dtype, output.shape)
        new = insert(graph, node.op, inputs, twin, attrs=dict(node.attrs))
        new.name, node.name = node.name, new.name  # nothing will read what `node` gives
    pending[id(output)] = (twin, factor)
    if is_output(graph, output):
        _materialise(graph, output, pending)


def _materialise(graph: Graph, tensor: Tensor, pending: _Pending) -> None:
    """Let `tensor` be the product of its unscaled twin and the factor."""
    if id(tensor) not in pending or _scales_rates(tensor.inputs[0]):
        return
    twin, factor = pending[id(tensor)]
    already = tensor.inputs[0]
    if already.op == "Mul" and already.inputs[0] is twin:
        return
    tensor.inputs.clear()
    insert(graph, "Mul", [twin, floats(graph, f"{tensor.name}.theta", factor)], tensor)


def _carry(node: Node, pending: _Pending) -> Array | None:
    """The factor of the output if the inputs come without theirs; None where it has none."""
    rule = _RULES.get(node.op)
    shape = node.outputs[0].shape
    if rule is None or shape is None or sum(bool(t.name) for t in node.outputs) > 1:
        return None
    factors = []
    for tensor in node.inputs:
        twin, factor = pending.get(id(tensor), (tensor, np.ones(1, np.float32)))
        if twin.shape is None and not twin.is_empty():
            return None
        axes = len(twin.shape or ())
        factors.append(factor.reshape((1,) * (axes - factor.ndim) + factor.shape))
    return rule(node, factors)


def _within_channels(node: Node, factors: list[Array]) -> Array | None:  # noqa: ARG001
    """Pooling works on the axes behind the second."""
    factor = factors[0]
    return factor if all(size == 1 for size in factor.shape[2:]) else None


def _moved_by_shape(node: Node, factors: list[Array]) -> Array | None:
    """Reshape, Flatten and their kin: the factor of a sample, laid out like the sample."""
    before, after = node.inputs[0].shape, node.outputs[0].shape
    if not (is_static_shape(before) and is_static_shape(after)):
        return None
    if math.prod(before[1:]) != math.prod(after[1:]) or factors[0].shape[0] != 1:
        return None  # the batch axis does not stay what it is
    spread: Array = np.broadcast_to(factors[0], (1, *before[1:])).reshape(1, *after[1:])
    for axis in range(1, spread.ndim):
        first = spread.take([0], axis)
        spread = first if np.all(spread == first) else spread
    return spread


def _padded(node: Node, factors: list[Array]) -> Array | None:
    """Pad with zeros, whose factor is any, or with what is there, along other axes."""
    pads = constant(node.inputs[1])
    if pads is None or len(node.inputs) > 2:
        return None
    varies = np.array(factors[0].shape) > 1
    around = pads.reshape(2, -1) * varies
    if np.any(around < 0) or (np.any(around) and node.attrs.get("mode", "constant") != "constant"):
        return None
    padded: Array = np.pad(factors[0], around.T, constant_values=1)
    return padded


def _stretched(node: Node, factors: list[Array]) -> Array | None:
    """Resize and Expand, along axes on which the factor does not vary."""
    if crops(node):
        return None
    shape, factor = node.outputs[0].shape, factors[0]
    spread = factor.reshape((1,) * (len(shape) - factor.ndim) + factor.shape)
    beside = zip(spread.shape, shape, strict=True)
    return spread if all(size in (1, whole) for size, whole in beside) else None


def _reduced(node: Node, factors: list[Array]) -> Array | None:
    """Means, sums and maxima over axes on which the factor does not vary."""
    axes, factor = reduced_axes(node), factors[0]
    if axes is None or any(factor.shape[axis] > 1 for axis in axes):
        return None
    return factor if node.attrs.get("keepdims", 1) else np.squeeze(factor, tuple(axes))


def _sliced(node: Node, factors: list[Array]) -> Array | None:
    bounds, factor = slice_bounds(node), factors[0]
    if bounds is None:
        return None
    for start, end, axis, step in bounds:
        if factor.shape[axis] > 1:
            factor = factor.take(np.arange(factor.shape[axis])[start:end:step], axis)
    return factor


def _gathered(node: Node, factors: list[Array]) -> Array | None:
    """What is chosen along an axis, by indices that are known if the factor varies there."""
    factor, chosen = factors[0], node.inputs[1]
    axis, indices = node.attrs.get("axis", 0) % factor.ndim, constant(chosen)
    if factor.shape[axis] == 1 and chosen.shape is not None:
        indices = np.zeros((1,) * len(chosen.shape), np.int64)
    return None if indices is None else np.take(factor, indices, axis)


def _repeated(node: Node, factors: list[Array]) -> Array | None:
    """Tile, as often as its sizes say along axes on which the factor varies."""
    factor, times = factors[0], []
    sizes = zip(factor.shape, node.inputs[0].shape, node.outputs[0].shape, strict=True)
    for own, before, after in sizes:
        if own > 1 and not (isinstance(after, int) and before):
            return None
        times.append(after // before if own > 1 else 1)
    return np.tile(factor, times)


def _multiplied(node: Node, factors: list[Array]) -> Array | None:
    """A product by constants, which sums over another axis than the factor's: it is behind, too."""
    moving = [position for position, t in enumerate(node.inputs) if constant(t) is None]
    if len(moving) > 1 or len(node.inputs[moving[0]].shape) != len(node.outputs[0].shape):
        return None
    factor = factors[moving[0]]
    return factor if factor.shape[-1 if moving[0] == 0 else -2] == 1 else None


def _in_depth(node: Node, factors: list[Array]) -> Array | None:
    """Each place of a block has channels of its own, in the order of what is read."""
    factor = _within_channels(node, factors)
    return None if factor is None else np.tile(factor, (1, node.attrs["blocksize"] ** 2, 1, 1))


def _transposed(node: Node, factors: list[Array]) -> Array | None:
    return np.transpose(factors[0], node.attrs.get("perm"))


def _concatenated(node: Node, factors: list[Array]) -> Array | None:
    axis = int(node.attrs["axis"])
    shapes = [tensor.shape for tensor in node.inputs]
    axis = axis % len(shapes[0])
    others = [np.delete(factor.shape, axis) for factor in factors]
    if axis == 0 or any(np.any(sizes != 1) for sizes in others):
        return None
    if not all(isinstance(shape[axis], int) for shape in shapes):
        return None
    spread = []
    for factor, shape in zip(factors, shapes, strict=True):
        target = list(factor.shape)
        target[axis] = shape[axis]
        spread.append(np.broadcast_to(factor, target))
    return np.concatenate(spread, axis)


def _times_constant(node: Node, factors: list[Array]) -> Array | None:
    operand = constant_operand(node)
    if operand is None:
        return None
    factor = factors[0 if constant(node.inputs[0]) is None else 1]
    product: Array = factor / operand if node.op == "Div" else factor * operand
    return product if np.all(product > 0) else None


_RULES: dict[str, Callable[[Node, list[Array]], Array | None]] = {
    "MaxPool": _within_channels,
    "AveragePool": _within_channels,
    "GlobalMaxPool": _within_channels,
    "GlobalAveragePool": _within_channels,
    "ReduceMax": _reduced,
    "ReduceMean": _reduced,
    "ReduceSum": _reduced,
    "Resize": _stretched,
    "Expand": _stretched,
    "MatMul": _multiplied,
    "SpaceToDepth": _in_depth,
    "Gather": _gathered,
    "Tile": _repeated,
    "Pad": _padded,
    "Slice": _sliced,
    "Reshape": _moved_by_shape,
    "Flatten": _moved_by_shape,
    "Squeeze": _moved_by_shape,
    "Unsqueeze": _moved_by_shape,
    "Transpose": _transposed,
    "Concat": _concatenated,
    "Mul": _times_constant,
    "Div": _times_constant,
}
