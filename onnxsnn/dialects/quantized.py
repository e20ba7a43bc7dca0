"""Quantized models, computed in float32.

Every tensor of whole numbers q, with scale s and zero point z, becomes the real one that it stands
for, (q - z) s, and every quantized operator that of real numbers: ONNX's own, and those of
com.microsoft that ONNX Runtime's quantizers and its optimizer write: a rule each. Weights are what
their whole numbers say, packed or not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from onnx.numpy_helper import to_array

from onnxsnn.dialects.blocks import by_block, packed_by_block
from onnxsnn.dialects.parts import constants_of
from onnxsnn.dialects.whole_numbers import (
    MOVES,
    Dequantizer,
    is_of_constants,
    kind_given,
    scale_and_zero,
    type_limits,
    whole_levels,
    zero_point,
)
from onnxsnn.graph import (
    Graph,
    Node,
    Tensor,
    constant,
    insert,
    is_output,
    part_up_to,
    remove,
    to_model,
)
from onnxsnn.session import make_session
from onnxsnn.twins import merge_twins

__all__ = ["dequantize", "fewest_levels", "is_quantized"]

_DOMAINS = {None, "", "ai.onnx", "com.microsoft"}
_OF_EITHER = {*MOVES, "ArgMax", "ArgMin", "Resize", "Shape", "Size"}  # real or whole, alike
_SOFTMAX_OF_AN_AXIS = 13  # the first opset where it is of one


def is_quantized(model: onnx.ModelProto) -> bool:
    """Whether a model holds quantized operators."""
    return any(node.op_type in _QUANTIZED for node in model.graph.node)


def fewest_levels(model: onnx.ModelProto) -> int | None:
    """How many steps the coarsest rounding of values has; None where none are rounded.

    Weights do not count, nor does what is not quantized by constants.
    """
    held = constants_of(model.graph)
    rounding = [
        node
        for node in model.graph.node
        if node.op_type == "QuantizeLinear" and node.input[0] not in held
    ]
    clips = {node.input[0]: node for node in model.graph.node if node.op_type == "Clip"}
    fewest = min((_levels_of(node, clips, held) for node in rounding), default=np.inf)
    return int(fewest) if np.isfinite(fewest) else None


def _levels_of(
    node: onnx.NodeProto,
    clips: Mapping[str, onnx.NodeProto],
    held: Mapping[str, onnx.TensorProto],
) -> float:
    """The steps of a QuantizeLinear, of the type that it gives or of the Clip behind it."""
    clip = clips.get(node.output[0])
    bounds = [held[name] for name in clip.input[1:] if name in held] if clip is not None else []
    if len(bounds) == 2:
        least, most = (float(to_array(bound).reshape(-1)[0]) for bound in bounds)
        return most - least
    if len(node.input) > 2 and node.input[2]:
        zero = held.get(node.input[2])
        least, most = (-np.inf, np.inf) if zero is None else type_limits(to_array(zero).dtype)
    else:
        said = {attribute.name: attribute.i for attribute in node.attribute}
        least, most = type_limits(kind_given(said))
    return most - least


def dequantize(graph: Graph) -> None:
    """Let every quantized operator whose scales are constants be that of real numbers.

    Shapes, and types of what lies between, are to be inferred anew.
    """
    graph.toposort()
    for node in graph.nodes:
        values = node.attrs.get("value") if node.op == "Constant" else None
        if node.op == "Identity" and constant(node.inputs[0]) is not None:
            values = node.inputs[0]
        if values is not None:
            node.outputs[0].to_constant(values.values).inputs.clear()
    graph.cleanup().toposort()
    _compute_settings(graph)
    merge_twins(graph)  # a limit is that of all who read it
    _follow(graph)
    graph.cleanup().toposort()


def _compute_settings(graph: Graph) -> None:
    """Let scales and zero points that are computed of constants be such."""
    read = {
        tensor.name: tensor
        for node in graph.nodes
        if node.op in _QUANTIZED
        for tensor in node.inputs[1:]
        if tensor.inputs and is_of_constants(tensor)
    }
    if read:
        values = make_session(to_model(part_up_to(graph, list(read)))).run(None, {})
        for tensor, array in zip(read.values(), values, strict=True):
            tensor.to_constant(array).inputs.clear()
        graph.cleanup().toposort()


def _follow(graph: Graph) -> None:
    """Change node after node by its rule; what has none reads whole numbers, as it did."""
    work = Dequantizer(graph)
    for node in list(graph.nodes):
        known = node.domain in _DOMAINS and not node.attrs.get("channels_last", 0)
        rule = _RULES.get(node.op) if known else None
        if rule is not None:
            rule(work, node)
        elif node.op in {*MOVES, "Resize"}:
            work.move(node)
        if node.op in _QUANTIZED or (rule is None and node.op not in _OF_EITHER):
            work.read_whole(node)
        work.note_sign(node)
    for position, tensor in enumerate(graph.outputs):
        if id(tensor) in work.levels:
            graph.outputs[position] = work.whole_output(tensor)


def _known(*tensors: Tensor) -> bool:
    """Whether scales and zero points are constants."""
    return all(tensor.is_empty() or constant(tensor) is not None for tensor in tensors)


def _quantize(work: Dequantizer, node: Node) -> None:
    values, scale, *zero = node.inputs
    if not _known(scale, *zero) or node.attrs.get("block_size", 0):
        return
    held, point = constant(values), zero[0] if zero and not zero[0].is_empty() else None
    if point is None:
        point = gs.Constant("onnxsnn.zero", np.zeros((), kind_given(node.attrs)))
    if held is None:
        output, axis = node.outputs[0], node.attrs.get("axis", 1)
        if values.shape is None and scale.values.size > 1:
            return
        remove(work.graph, node)
        work.round(values, output, scale, point, len(values.shape or ()), axis)
        return
    worth, nothing = scale_and_zero(scale, point, held.ndim, node.attrs.get("axis", 1))
    whole = np.clip(np.round(held / worth) + nothing, *type_limits(nothing.dtype))
    node.outputs[0].to_constant(whole.astype(nothing.dtype)).inputs.clear()


def _dequantize(work: Dequantizer, node: Node) -> None:
    values, scale, *zero = node.inputs
    block = node.attrs.get("block_size", 0)
    if not _known(scale, *zero) or (block and constant(values) is None):
        return
    point, axis = zero[0] if zero else None, node.attrs.get("axis", 1)
    if block:
        zeros = None if point is None else constant(point)
        held = by_block(values.values, scale.values, zeros, axis, block)
        node.outputs[0].to_constant(held).inputs.clear()
        return
    if constant(values) is not None:
        real = work.real(values, scale, point, axis)
        node.outputs[0].to_constant(real.values).inputs.clear()
        return
    if values.shape is None and scale.values.size > 1:
        return
    node.attrs.clear()
    work.become(node, "Identity", work.real(values, scale, point, axis))


def _dynamic(work: Dequantizer, node: Node) -> None:
    """Its scale is 1 and its zero point 0, now that what it gives is real."""
    (values,), (output, scale, zero) = node.inputs, node.outputs
    if any(is_output(work.graph, tensor) for tensor in node.outputs):
        return
    remove(work.graph, node)
    scale.to_constant(np.float32(1)).inputs.clear()
    zero.to_constant(np.zeros((), np.uint8)).inputs.clear()
    work.stands_for(output, scale.values, zero.values)
    insert(work.graph, "Identity", [values], output)


def _convolution(work: Dequantizer, node: Node) -> None:
    x, x_scale, x_zero, weight, scale, zero, given_scale, given_zero, *bias = node.inputs
    if not _known(x_scale, x_zero, scale, zero, given_scale, given_zero):
        return
    worth = x_scale.values * scale.values
    biases = [work.number(held.values * worth) for held in bias if not held.is_empty()]
    read = work.real(x, x_scale, x_zero), work.real(weight, scale, zero)
    work.become(node, "Conv", *read, *biases)
    work.round_output(node, given_scale, given_zero)


def _product(work: Dequantizer, node: Node) -> None:
    left, left_scale, left_zero, right, scale, zero, given_scale, given_zero = node.inputs
    if not _known(*(node.inputs[at] for at in (1, 2, 4, 5, 6, 7))):
        return
    factors = work.real(left, left_scale, left_zero, -2), work.real(right, scale, zero, -1)
    work.become(node, "MatMul", *factors)
    work.round_output(node, given_scale, given_zero)


def _gemm(work: Dequantizer, node: Node) -> None:
    left, left_scale, left_zero, right, scale, zero, *more = node.inputs
    if not _known(left_scale, left_zero, scale, zero, *more):
        return
    held = constant(more[0]) if more else None
    worth = node.attrs.get("alpha", 1.0) * left_scale.values * scale.values
    axis = 0 if node.attrs.get("transB", 0) else 1
    bias = [] if held is None else [work.number(held * worth)]
    factors = work.real(left, left_scale, left_zero), work.real(right, scale, zero, axis)
    work.become(node, "Gemm", *factors, *bias)
    if len(more) > 1 and not more[1].is_empty():
        work.round_output(node, *more[1:3])


def _float_product(work: Dequantizer, node: Node) -> None:
    """Its factors have scales; what it gives is real as it is."""
    left, right, left_scale, scale, left_zero, zero, bias = _inputs(node, 7)
    if _known(left_scale, scale, left_zero, zero):
        factors = work.real(left, left_scale, left_zero), work.real(right, scale, zero, -1)
        work.become_product(node, *factors, bias)


def _dynamic_product(work: Dequantizer, node: Node) -> None:
    """What it reads is real, and not rounded any more."""
    left, right, scale, zero, bias = _inputs(node, 5)
    if _known(scale, zero):
        work.become_product(node, left, work.real(right, scale, zero, -1), bias)


def _packed_product(work: Dequantizer, node: Node) -> None:
    """Of packed weights [N, K] in blocks along K, in order."""
    left, weights, scale, zero, groups, bias = _inputs(node, 6)
    known = constant(weights) is not None and _known(scale, zero) and groups.is_empty()
    outputs, inputs = node.attrs["N"], node.attrs["K"]
    if not known or not weights.values.size or node.attrs.get("weight_prepacked", 0):
        return
    packed, worth = (each.values.reshape(outputs, -1) for each in (weights, scale))
    nothing = None if zero.is_empty() else zero.values.reshape(outputs, -1)
    block, bits = node.attrs["block_size"], node.attrs.get("bits", 4)
    real = packed_by_block(packed, worth, nothing, 1, block, bits)
    work.become_product(node, left, work.number(real[:, :inputs].T), bias)


def _gather(work: Dequantizer, node: Node) -> None:
    """Of a table in blocks; bytes are packed."""
    table, places, scale, zero = _inputs(node, 4)
    block, axis = node.attrs.get("block_size", 128), node.attrs.get("quantize_axis", 1)
    held = constant(table)
    if held is None or not block or not _known(scale, zero):
        return
    given = held, scale.values, constant(zero), axis, block
    packed = held.dtype == np.uint8
    real = packed_by_block(*given, node.attrs.get("bits", 4)) if packed else by_block(*given)
    node.attrs = {"axis": node.attrs.get("gather_axis", 0)}
    work.become(node, "Gather", work.number(real), places)


def _inputs(node: Node, count: int) -> list[Tensor]:
    """So many inputs of a node, empty where it leaves out the last ones."""
    return [*node.inputs, *(gs.Variable.empty() for _ in range(count - len(node.inputs)))]


def _elementwise(operator: str) -> Callable[[Dequantizer, Node], None]:
    """The rule of an operator on tensors with scale and zero point each; its own come last."""

    def rule(work: Dequantizer, node: Node) -> None:
        *read, scale, zero = node.inputs
        _on_real(work, node, operator, [], read, (scale, zero))

    return rule


def _softmax(work: Dequantizer, node: Node) -> None:
    """Before opset 13, over all axes from one on together."""
    if node.attrs.get("opset", _SOFTMAX_OF_AN_AXIS) >= _SOFTMAX_OF_AN_AXIS:
        _elementwise("Softmax")(work, node)
    elif _known(*node.inputs[1:]):
        *read, scale, zero = node.inputs
        real = work.real(*read)
        flat = work.made("Flatten", real, axis=node.attrs.get("axis", -1))
        shares = work.made("Softmax", flat, axis=1)
        shape = work.made("Shape", real)
        shape.dtype = np.int64
        node.attrs.clear()
        work.become(node, "Reshape", shares, shape)
        work.round_output(node, scale, zero)


def _concat(work: Dequantizer, node: Node) -> None:
    scale, zero, *read = node.inputs
    _on_real(work, node, "Concat", [], read, (scale, zero))


def _where(work: Dequantizer, node: Node) -> None:
    condition, *read, scale, zero = node.inputs
    _on_real(work, node, "Where", [condition], read, (scale, zero))


def _on_real(
    work: Dequantizer,
    node: Node,
    operator: str,
    before: list[Tensor],
    read: list[Tensor],
    own: tuple[Tensor, Tensor],
) -> None:
    """Let a node read real tensors, in the place of `read`: each with its scale and zero point."""
    triples = [read[at : at + 3] for at in range(0, len(read), 3)]
    if _known(*own, *(tensor for triple in triples for tensor in triple[1:])):
        work.become(node, operator, *before, *(work.real(*triple) for triple in triples))
        work.round_output(node, *own)


def _of_whole_numbers(operator: str) -> Callable[[Dequantizer, Node], None]:
    """The rule of an operator that gives sums of products of whole numbers."""

    def rule(work: Dequantizer, node: Node) -> None:
        zeros: Sequence[Tensor | None] = [*node.inputs[2:4], None, None]
        if _known(*node.inputs[2:4]):
            pairs = zip(node.inputs[:2], zeros, strict=False)
            work.become(node, operator, *(work.whole(t, zero_point(zero)) for t, zero in pairs))
            work.sums.add(id(node.outputs[0]))

    return rule


def _add(work: Dequantizer, node: Node) -> None:
    """A bias of whole numbers, as it was added to sums of them."""
    if not any(id(tensor) in work.sums for tensor in node.inputs):
        work.read_whole(node)
    else:
        kind = onnx.TensorProto.FLOAT
        terms = [t if id(t) in work.sums else work.made("Cast", t, to=kind) for t in node.inputs]
        work.become(node, "Add", *terms)


def _clip(work: Dequantizer, node: Node) -> None:
    """Of fewer whole numbers than their type has: 4 bits, say; on one side alone, maybe."""
    values, *bounds = node.inputs
    held, known = constant(values), work.levels.get(id(values))
    if not all(bound.is_empty() or constant(bound) is not None for bound in bounds):
        work.read_whole(node)
    elif held is not None and held.dtype.kind != "f":
        clipped = np.clip(held, *_bounds(bounds, held.dtype))
        node.outputs[0].to_constant(clipped.astype(held.dtype)).inputs.clear()
    elif known is not None:
        output = node.outputs[0]
        remove(work.graph, node)
        work.stands_for(output, *known)
        work.clip(values, output, *map(float, _bounds(bounds, known[1].dtype)))


def _bounds(given: Sequence[Tensor], kind: np.dtype[Any]) -> list[Any]:
    """The least and the greatest whole number, those of the type where none is given."""
    values = [constant(tensor) for tensor in given] + [None, None]
    return [
        limit if own is None else own for own, limit in zip(values, type_limits(kind), strict=False)
    ]


def _cast(work: Dequantizer, node: Node) -> None:
    """To the type that whole numbers have, it does nothing."""
    known = work.levels.get(id(node.inputs[0]))
    own = None if known is None else onnx.helper.np_dtype_to_tensor_dtype(known[1].dtype)
    if node.attrs["to"] == own:
        node.op = "Identity"
        node.attrs.clear()
        work.move(node)
    else:
        work.read_whole(node)


def _relu(work: Dequantizer, node: Node) -> None:
    """Of whole numbers: below 0 they are cut off, whatever that stands for."""
    values = node.inputs[0]
    if id(values) not in work.levels:
        return
    scale, zero = work.levels[id(values)]
    if np.any(zero):
        work.become(node, "Max", values, work.number(-zero.astype(np.float32) * scale))
    work.move(node)


def _join(work: Dequantizer, node: Node) -> None:
    """Of whole numbers, which stand for others in each place where their scales differ."""
    known = [work.levels.get(id(tensor)) for tensor in node.inputs]
    found = [levels for levels in known if levels is not None]
    if not found:
        return
    scale, zero = found[0]
    alike = [levels is not None and all(map(np.array_equal, levels, found[0])) for levels in known]
    if not all(alike) or scale.size > 1:
        scale, zero = whole_levels(zero)
        node.inputs = [work.whole(tensor, zero) for tensor in node.inputs]
    work.stands_for(node.outputs[0], scale, zero)


def _pad(work: Dequantizer, node: Node) -> None:
    """With what the whole number stands for."""
    if id(node.inputs[0]) not in work.levels:
        return
    scale, zero = work.single(node)
    held = constant(node.inputs[2]) if len(node.inputs) > 2 else None
    whole = np.zeros((), np.float32) if held is None else held.astype(np.float32)
    value = work.number(((whole - zero) * scale).reshape(-1)[0])
    node.inputs = [*node.inputs[:2], value, *node.inputs[3:]]
    work.move(node)


_QUANTIZED: dict[str, Callable[[Dequantizer, Node], None]] = {
    "ConvInteger": _of_whole_numbers("Conv"),
    "DequantizeLinear": _dequantize,
    "DynamicQuantizeLinear": _dynamic,
    "DynamicQuantizeMatMul": _dynamic_product,
    "GatherBlockQuantized": _gather,
    "MatMulInteger": _of_whole_numbers("MatMul"),
    "MatMulIntegerToFloat": _float_product,
    "MatMulNBits": _packed_product,
    "QGemm": _gemm,
    "QLinearAdd": _elementwise("Add"),
    "QLinearAveragePool": _elementwise("AveragePool"),
    "QLinearConcat": _concat,
    "QLinearConv": _convolution,
    "QLinearGlobalAveragePool": _elementwise("GlobalAveragePool"),
    "QLinearLeakyRelu": _elementwise("LeakyRelu"),
    "QLinearMatMul": _product,
    "QLinearMul": _elementwise("Mul"),
    "QLinearSigmoid": _elementwise("Sigmoid"),
    "QLinearSoftmax": _softmax,
    "QLinearWhere": _where,
    "QuantizeLinear": _quantize,
}
_RULES = {
    **_QUANTIZED,
    "Add": _add,
    "Cast": _cast,
    "Clip": _clip,
    "Concat": _join,
    "Pad": _pad,
    "Relu": _relu,
}
