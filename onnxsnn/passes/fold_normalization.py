"""Fold normalization, and every other scale and shift by constants, into the weights beside it.

An affine operator computes `y = scale * x + shift` with constants:

    BatchNormalization   scale = gamma / sqrt(var + eps)    shift = beta - mean * scale
    Mul, Div, Add, Sub, Neg by a constant                   as they say

A chain of them, each the only reader of the one before, composes:
`scale2 * (scale1 * x + shift1) + shift2`.  The chain then

1. enters the Conv, ConvTranspose, Gemm or MatMul that feeds it, if nothing else reads that
   layer's output, and scale and shift are per output channel (a MatMul takes no shift);
2. else enters all layers that read it, if its scale and shift are per input channel, and
   the shift is zero or every layer sees all of its input (a convolution that pads does not);
3. else stays, as one Mul and one Add per channel: linear, and so exact in the SNN.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import onnx_graphsurgeon as gs

from onnxsnn.arrays import Array
from onnxsnn.graph import (
    Graph,
    Node,
    Tensor,
    constant,
    data_input,
    describe,
    floats,
    insert,
    is_float,
    is_output,
    per_channel,
    remove,
    sole_consumer,
    sole_producer,
    unique_name,
)
from onnxsnn.passes.report import Report
from onnxsnn.weights import WeightLayer, weight_layer

__all__ = ["FoldReport", "Moments", "fold_normalization"]


@dataclass(frozen=True)
class Moments:
    """Mean and standard deviation per channel of a normalized tensor, broadcastable to it."""

    mean: Array
    std: Array


@dataclass
class FoldReport(Report):
    """The report of the pass; `moments` holds, by tensor name, what BatchNorm said of tensors."""

    moments: dict[str, Moments] = field(default_factory=dict)


@dataclass(frozen=True)
class _Affine:
    """`scale * x + shift`, both float64 and broadcastable to x."""

    scale: Array
    shift: Array
    moments: Moments | None = None

    def then(self, after: _Affine) -> _Affine:
        moments = after.moments
        if moments is None and self.moments is not None:
            mean, std = self.moments.mean, self.moments.std
            moments = Moments(after.scale * mean + after.shift, np.abs(after.scale) * std)
        return _Affine(after.scale * self.scale, after.scale * self.shift + after.shift, moments)


def fold_normalization(graph: Graph) -> FoldReport:
    """Fold normalization into weights; value-preserving up to float32's rounding.

    Returns:
        What was folded, and the moments of every tensor that a BatchNormalization made.
    """
    report = FoldReport("fold_normalization")
    report.warnings += [
        f"{describe(node)} normalizes by the samples that it is given together; "
        "export the model for inference"
        for node in graph.nodes
        if node.op == "BatchNormalization" and node.attrs.get("training_mode", 0)
    ]
    for chain in _chains(graph):
        _fold(graph, chain, report)
    graph.cleanup()
    return report


def _chains(graph: Graph) -> list[list[Node]]:
    """The maximal chains of affine nodes, each in order."""
    graph.toposort()
    chains: list[list[Node]] = []
    ends: dict[int, list[Node]] = {}
    for node in graph.nodes:
        if _affine(node) is None:
            continue
        source = data_input(node)
        chain = ends.get(id(source))
        if chain is None or sole_consumer(graph, source) is None:
            chain = []
            chains.append(chain)
        chain.append(node)
        ends[id(node.outputs[0])] = chain
    return chains


def _fold(graph: Graph, chain: list[Node], report: FoldReport) -> None:
    source, end = data_input(chain[0]), chain[-1].outputs[0]
    affine = _compose(chain)
    if affine.moments is not None:
        report.moments[end.name] = affine.moments
    kinds = "BatchNormalization" if any(n.op == "BatchNormalization" for n in chain) else "affine"
    if _fold_into_producer(graph, chain, affine, source, end):
        report.actions[f"{kinds} folded into the layer before"] += 1
    elif _fold_into_consumers(graph, chain, affine, source, end):
        report.actions[f"{kinds} folded into the layer after"] += 1
    elif kinds == "BatchNormalization" or len(chain) > 2:
        _replace(graph, chain, affine, source, end)
        report.actions[f"{kinds} kept as scale and shift"] += 1


def _affine(node: Node) -> _Affine | None:
    """What an affine node computes; None where it is none.

    An Add that a Floor reads rounds a trained staircase, and belongs to that.
    """
    if any(reader.op == "Floor" for out in node.outputs for reader in out.outputs):
        return None
    if node.op == "BatchNormalization":
        return _batch_normalization(node)
    if node.op == "Neg" and constant(node.inputs[0]) is None:
        return _Affine(np.array(-1.0), np.array(0.0)) if is_float(node.inputs[0]) else None
    if node.op not in ("Mul", "Div", "Add", "Sub") or len(node.inputs) != 2:
        return None
    left, right = (constant(tensor) for tensor in node.inputs)
    values = right if left is None else left
    if values is None or (left is not None and right is not None):
        return None
    tensor = node.inputs[1 if left is not None else 0]
    if not is_float(tensor) or not _broadcasts(values, tensor):
        return None
    return _arithmetic(node.op, values.astype(np.float64), constant_first=left is not None)


def _batch_normalization(node: Node) -> _Affine | None:
    parameters = [constant(tensor) for tensor in node.inputs[1:]]
    tensor = node.inputs[0]
    if tensor.shape is None or node.attrs.get("training_mode", 0) or len(node.outputs) > 1:
        return None
    if any(values is None for values in parameters):
        return None
    shape = (1, -1) + (1,) * (len(tensor.shape) - 2)
    gamma, beta, mean, variance = (
        np.asarray(values, np.float64).reshape(shape) for values in parameters
    )
    scale = gamma / np.sqrt(variance + node.attrs.get("epsilon", 1e-5))
    return _Affine(scale, beta - mean * scale, Moments(beta, np.abs(gamma)))


def _arithmetic(operator: str, values: Array, constant_first: bool) -> _Affine | None:
    one, zero = np.array(1.0), np.array(0.0)
    if operator == "Mul":
        return _Affine(values, zero)
    if operator == "Add":
        return _Affine(one, values)
    if operator == "Sub":
        return _Affine(-one, values) if constant_first else _Affine(one, -values)
    if constant_first or not np.all(values):  # constant / x is not affine
        return None
    return _Affine(1.0 / values, zero)


def _broadcasts(values: Array, tensor: Tensor) -> bool:
    """Whether `values` broadcast to the shape of `tensor` and leave it as it is."""
    if tensor.shape is None or values.ndim > len(tensor.shape):
        return False
    sizes = tensor.shape[len(tensor.shape) - values.ndim :]
    return all(mine in (1, its) for mine, its in zip(values.shape, sizes, strict=True))


def _compose(chain: list[Node]) -> _Affine:
    first, *rest = (_affine(node) for node in chain)
    assert first is not None
    for affine in rest:
        assert affine is not None
        first = first.then(affine)
    return first


def _fold_into_producer(
    graph: Graph, chain: list[Node], affine: _Affine, source: Tensor, end: Tensor
) -> bool:
    layer = weight_layer(graph, sole_producer(graph, source))
    if layer is None:
        return False
    axes = len(source.shape or ())
    vectors = _vectors(affine, axes, layer.output_axis(axes), layer.outputs)
    if vectors is None:
        return False
    scale, shift = vectors
    if np.any(shift) and not layer.takes_bias:
        return False
    layer.scale_output(scale)
    layer.shift_output(shift)
    for node in chain:
        remove(graph, node)
    layer.node.outputs[0] = end
    return True


def _fold_into_consumers(
    graph: Graph, chain: list[Node], affine: _Affine, source: Tensor, end: Tensor
) -> bool:
    if not end.outputs or is_output(graph, end):
        return False
    folds: list[tuple[WeightLayer, Array, Array]] = []
    axes = len(end.shape or ())
    for node in end.outputs:
        layer = weight_layer(graph, node)
        if layer is None or node.inputs[0] is not end:
            return False
        vectors = _vectors(affine, axes, layer.input_axis(axes), layer.inputs)
        if vectors is None or (np.any(vectors[1]) and not layer.takes_input_shift):
            return False
        folds.append((layer, *vectors))
    for layer, scale, shift in folds:
        layer.shift_input(shift)  # before the scale: the shift is added after it
        layer.scale_input(scale)
        layer.node.inputs[0] = source
    for node in chain:
        remove(graph, node)
    return True


def _vectors(affine: _Affine, axes: int, axis: int, channels: int) -> tuple[Array, Array] | None:
    """Scale and shift as vectors [channels] along `axis`; None where they vary elsewhere."""
    scale = per_channel(affine.scale, axes, axis, channels)
    shift = per_channel(affine.shift, axes, axis, channels)
    return None if scale is None or shift is None else (scale, shift)


def _replace(graph: Graph, chain: list[Node], affine: _Affine, source: Tensor, end: Tensor) -> None:
    """Put one Mul and one Add in the place of a chain, leaving out what does nothing."""
    for node in chain:
        remove(graph, node)
    steps = [("Mul", affine.scale, 1.0), ("Add", affine.shift, 0.0)]
    steps = [step for step in steps if np.any(step[1] != step[2])] or steps[:1]
    for position, (operator, values, _) in enumerate(steps):
        last = position == len(steps) - 1
        output = (
            end
            if last
            else gs.Variable(unique_name(graph, f"{end.name}.scaled"), end.dtype, end.shape)
        )
        role = "scale" if operator == "Mul" else "shift"
        insert(graph, operator, [source, floats(graph, f"{end.name}.{role}", values)], output)
        source = output
