"""Operators of ONNX Runtime's own, as its optimizer writes them, taken apart.

A model that was saved optimized holds convolutions and products with the activation inside, GELU as
one operator, products with a transposition in front, normalized sums and embeddings, and attention,
with its projections or without; a quantized one, embeddings, attention and LSTMs of 8-bit weights
(domain com.microsoft). Each becomes what it was made of, in ONNX's operators:
https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md says what that is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from functools import partial
from itertools import accumulate, pairwise
from typing import Any

import onnx

from onnxsnn.dialects.parts import Parts, replace_nodes
from onnxsnn.graph import from_model, opset_of

__all__ = ["take_apart"]

_DOMAIN = "com.microsoft"
_NORMALIZATION, _NORMALIZATION_OPSET = "LayerNormalization", 17  # since when ONNX has it
_EMBEDDING = "EmbedLayerNormalization"


def take_apart(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of a model with such operators in parts; the model itself where it has none."""
    opset = opset_of(model)
    if not any(_is_fused(node, opset) for node in model.graph.node):
        return model
    apart = deepcopy(model)
    replace_nodes(apart.graph, partial(_parts, shapes=_shapes(model), opset=opset))
    return apart


def _is_fused(node: onnx.NodeProto, opset: int) -> bool:
    """Whether there is a rule; LayerNormalization was ONNX Runtime's before it was ONNX's."""
    if node.op_type == _NORMALIZATION:
        return opset < _NORMALIZATION_OPSET
    return node.domain == _DOMAIN and node.op_type in _RULES


def _shapes(model: onnx.ModelProto) -> dict[str, Sequence[Any]]:
    """The shape of each tensor whose rank is known."""
    tensors = from_model(model).tensors()
    shapes = {name: tensor.shape for name, tensor in tensors.items() if tensor.shape is not None}
    embeddings = (node for node in model.graph.node if node.op_type.endswith(_EMBEDDING))
    lengths = [node.output[1] for node in embeddings if node.output[1:]]
    return shapes | dict.fromkeys(lengths, ("N",))


def _parts(
    node: onnx.NodeProto, shapes: Mapping[str, Sequence[Any]], opset: int
) -> list[onnx.NodeProto]:
    """What a node is made of; the node alone where that is not known."""
    if not _is_fused(node, opset):
        return [node]
    parts = _Parts(node, shapes, opset)
    result = _RULES[node.op_type](parts)
    if result is None:
        return [node]
    parts.give(0, result)
    return parts.nodes


class _Parts(Parts):
    """The nodes that stand for one, and what rules ask of the model.

    Attributes:
        shapes: of tensors whose rank is known, by name.
        opset: of the model.
    """

    def __init__(
        self, node: onnx.NodeProto, shapes: Mapping[str, Sequence[Any]], opset: int
    ) -> None:
        super().__init__(node)
        self.shapes, self.opset = shapes, opset


def _convolution(parts: _Parts) -> str:
    kind = parts.attributes.pop("activation", b"")
    values = parts.attributes.pop("activation_params", [])
    total = parts.add("Conv", *parts.inputs[:3], **parts.attributes)
    return _activated(parts, parts.plus(total, parts.read(3)), kind, values)


def _gemm(parts: _Parts) -> str:
    kind = parts.attributes.pop("activation", b"")
    names = ("activation_alpha", "activation_beta", "activation_gamma")
    values = [parts.attributes.pop(name) for name in names if name in parts.attributes]
    return _activated(parts, parts.add("Gemm", *parts.inputs, **parts.attributes), kind, values)


def _activated(parts: _Parts, tensor: str, kind: bytes, values: list[float]) -> str:
    """An activation by its name; its settings are ONNX's, in ONNX's order."""
    operator = kind.decode()
    if not operator:
        return tensor
    if operator == "Clip":
        return parts.add(operator, tensor, *map(parts.number, values))
    settings: dict[str, Any] = dict(zip(("alpha", "beta"), values, strict=False))
    return parts.add(operator, tensor, **settings)


def _product(parts: _Parts) -> str | None:
    """With factors transposed; an Einsum does that whatever their rank."""
    if parts.attributes.get("transBatchA") or parts.attributes.get("transBatchB"):
        return None
    turned = [bool(parts.attributes.get(f"trans{side}", 0)) for side in "AB"]
    factors = parts.inputs[:2]
    for position, name in enumerate(factors):
        if turned[position] and name in parts.shapes:
            *rest, rows, columns = range(len(parts.shapes[name]))
            factors[position] = parts.add("Transpose", name, perm=[*rest, columns, rows])
            turned[position] = False
    left, right = ("ij", "ji")[turned[0]], ("jk", "kj")[turned[1]]
    if any(turned):
        product = parts.add("Einsum", *factors, equation=f"...{left},...{right}->...ik")
    else:
        product = parts.add("MatMul", *factors)
    return parts.add("Mul", product, parts.number(parts.attributes.get("alpha", 1.0)))


def _gelu(parts: _Parts) -> str:
    """x / 2 (1 + erf(x / sqrt(2)))."""
    x = parts.plus(parts.read(0), parts.read(1))
    erf = parts.add("Erf", parts.add("Mul", x, parts.number(0.5**0.5)))
    return _half_of(parts, x, erf)


def _fast_gelu(parts: _Parts) -> str:
    """x / 2 (1 + tanh(x (0.797885 + 0.035677 x^2)))."""
    x = parts.plus(parts.read(0), parts.read(1))
    cubic = parts.add("Mul", parts.add("Mul", x, x), parts.number(0.035677408136300125))
    slope = parts.add("Add", cubic, parts.number(0.7978845608028654))
    return _half_of(parts, x, parts.add("Tanh", parts.add("Mul", x, slope)))


def _half_of(parts: _Parts, x: str, gate: str) -> str:
    half = parts.add("Mul", x, parts.number(0.5))
    return parts.add("Mul", half, parts.add("Add", gate, parts.number(1.0)))


def _quick_gelu(parts: _Parts) -> str:
    """x sigmoid(alpha x)."""
    x = parts.read(0)
    scaled = parts.add("Mul", x, parts.number(parts.attributes.get("alpha", 1.702)))
    return parts.add("Mul", x, parts.add("Sigmoid", scaled))


def _normalized_sum(parts: _Parts) -> str:
    """Of input, skip and bias; the sum is another output."""
    total = parts.plus(parts.add("Add", *parts.inputs[:2]), parts.read(4))
    parts.give(3, total)
    return _normalized(parts, total, 2)


def _normalization(parts: _Parts) -> str | None:
    if parts.attributes.get("axis", -1) != -1:
        return None
    return _normalized(parts, parts.read(0), 1, usual=1e-5)


def _normalized(parts: _Parts, tensor: str, first: int, usual: float = 1e-12) -> str:
    """LayerNormalization, whose scale and bias are the inputs from `first` on.

    `usual` is the epsilon where the node names none.
    """
    epsilon = parts.attributes.get("epsilon", usual)
    scale, bias = parts.read(first), parts.read(first + 1)
    if parts.opset >= _NORMALIZATION_OPSET:
        factors = filter(None, (scale, bias))
        return parts.add(_NORMALIZATION, tensor, *factors, epsilon=epsilon)
    centred = parts.add("Sub", tensor, parts.add("ReduceMean", tensor, axes=[-1]))
    variance = parts.add("ReduceMean", parts.add("Mul", centred, centred), axes=[-1])
    spread = parts.add("Sqrt", parts.add("Add", variance, parts.number(epsilon)))
    return parts.plus(parts.add("Mul", parts.add("Div", centred, spread), scale), bias)


def _embedding(parts: _Parts) -> str:
    """Of words, positions and segments; samples' lengths, by their masks, are another output."""
    words, segments, mask, places = (parts.read(position) for position in (0, 1, 7, 8))
    if places:
        rows = parts.add("Gather", parts.read(3), places)
    else:
        length = parts.add("Gather", parts.add("Shape", words), parts.whole(1))
        rows = parts.add("Slice", parts.read(3), parts.whole(0), length, parts.whole(0))
    total = parts.add("Add", parts.add("Gather", parts.read(2), words), rows)
    if segments:
        total = parts.add("Add", total, parts.add("Gather", parts.read(4), segments))
    shown = mask or parts.add("Sub", words, words)  # without a mask, ONNX Runtime gives zeros
    lengths = _row_sums(parts, parts.floats(shown))
    parts.give(1, parts.add("Cast", lengths, to=onnx.TensorProto.INT32))
    parts.give(2, total)
    return _normalized(parts, total, 5)


def _quantized_embedding(parts: _Parts) -> str:
    """Of tables and factors of whole numbers, scales behind all, and zero points behind these."""
    real = [
        parts.add("DequantizeLinear", *map(parts.read, (place, place + 6, place + 11)))
        if parts.read(place)
        else ""
        for place in range(2, 7)
    ]
    parts.inputs[2:] = [*real, parts.read(7)]
    return _embedding(parts)


def _row_sums(parts: _Parts, tensor: str) -> str:
    """Of a matrix; the axis was an attribute before opset 13."""
    if parts.opset < 13:
        return parts.add("ReduceSum", tensor, axes=[1], keepdims=0)
    return parts.add("ReduceSum", tensor, parts.whole(1), keepdims=0)


def _attention(parts: _Parts) -> str | None:
    read, weights, bias, mask, past, added = map(parts.read, range(6))
    projected = parts.plus(parts.add("MatMul", read, weights), bias)
    return _self_attended(parts, projected, weights, mask, past, added)


def _quantized_attention(parts: _Parts) -> str | None:
    """Its projections are products of whole numbers."""
    read, weights, bias, *scales, mask, zero, middle, past = map(parts.read, range(9))
    sums = parts.floats(parts.add("MatMulInteger", read, weights, zero, middle))
    projected = parts.plus(parts.add("Mul", sums, parts.add("Mul", *scales)), bias)
    return _self_attended(parts, projected, weights, mask, past, "")


def _self_attended(
    parts: _Parts, projected: str, weights: str, mask: str, past: str, added: str
) -> str | None:
    """Of projections of one tensor; what is cached is not known."""
    unknown = any(parts.attributes.get(name) for name in ("unidirectional", "do_rotary"))
    if past or unknown or weights not in parts.shapes:
        return None
    width = parts.shapes[weights][1]
    widths = parts.attributes.get("qkv_hidden_sizes") or [width // 3] * 3
    return _attended(parts, _cut(parts, projected, widths, 2), widths, mask, added)


def _multi_head_attention(parts: _Parts) -> str | None:
    """Of three tensors [N, L, any], and a bias of all three; what is cached is not known."""
    *tensors, bias, mask, added = map(parts.read, range(6))
    shapes = [parts.shapes.get(tensor, ()) for tensor in tensors]
    widths = [shape[2] for shape in shapes if len(shape) == 3 and isinstance(shape[2], int)]
    unknown = any(parts.inputs[6:] + parts.outputs[1:]) or parts.attributes.get("unidirectional")
    if unknown or len(widths) < len(tensors):
        return None
    if bias:
        pieces = _cut(parts, bias, widths, 0)
        tensors = [parts.add("Add", *pair) for pair in zip(tensors, pieces, strict=True)]
    return _attended(parts, tensors, widths, mask, added)


def _attended(
    parts: _Parts, tensors: Sequence[str], widths: Sequence[int], mask: str, added: str
) -> str | None:
    """softmax(Q K^T scale + masked + added) V.

    Args:
        parts: of the node.
        tensors: Q, K and V, [N, L, any].
        widths: of each, all heads together.
        mask: of what is shown, or lengths; empty where there is none.
        added: to scores; empty where there is nothing.
    """
    mask_rank = len(parts.shapes.get(mask, ())) if mask else 2
    if mask_rank not in (1, 2):
        return None
    heads = parts.attributes["num_heads"]
    query, keys, values = (_by_head(parts, tensor, heads) for tensor in tensors)
    scale = parts.attributes.get("scale") or (widths[0] // heads) ** -0.5
    turned = parts.add("Transpose", keys, perm=[0, 1, 3, 2])
    scores = parts.add("Mul", parts.add("MatMul", query, turned), parts.number(scale))
    if mask:
        scores = parts.add("Add", scores, _hidden(parts, mask, tensors[1], mask_rank))
    shares = parts.add("Softmax", parts.plus(scores, added), axis=-1)
    rows = parts.add("Transpose", parts.add("MatMul", shares, values), perm=[0, 2, 1, 3])
    return parts.add("Reshape", rows, parts.whole(0, 0, widths[2]))


def _cut(parts: _Parts, tensor: str, widths: Sequence[int], axis: int) -> list[str]:
    """A tensor in pieces of these widths."""
    bounds = pairwise(accumulate(widths, initial=0))
    return [
        parts.add("Slice", tensor, *map(parts.whole, piece), parts.whole(axis)) for piece in bounds
    ]


def _by_head(parts: _Parts, tensor: str, heads: int) -> str:
    """A tensor [N, L, any] as [N, heads, L, size]."""
    apart = parts.add("Reshape", tensor, parts.whole(0, 0, heads, -1))
    return parts.add("Transpose", apart, perm=[0, 2, 1, 3])


def _hidden(parts: _Parts, mask: str, read: str, mask_rank: int) -> str:
    """What is added to scores, [N, 1, 1, L]: of ones where there is something, or of lengths."""
    if mask_rank == 1:
        length = parts.add("Gather", parts.add("Shape", read), parts.scalar(1))
        places = parts.add("Range", parts.scalar(0), length, parts.scalar(1))
        lengths = parts.add("Reshape", parts.floats(mask), parts.whole(-1, 1))
        mask = parts.add("Less", parts.floats(places), lengths)
    missing = parts.add("Sub", parts.number(1.0), parts.floats(mask))
    least = parts.number(parts.attributes.get("mask_filter_value", -10000.0))
    return parts.add("Reshape", parts.add("Mul", missing, least), parts.whole(0, 1, 1, -1))


def _lstm(parts: _Parts) -> str:
    """Its weights what their whole numbers stand for; what it reads, unrounded."""
    weights, recurrent = (_weights(parts, *places) for places in ((1, 8, 9), (2, 10, 11)))
    rest, more = parts.inputs[3:8], parts.outputs[1:]
    return parts.add(
        "LSTM", parts.read(0), weights, recurrent, *rest, more=more, **parts.attributes
    )


def _weights(parts: _Parts, values: int, scale: int, zero: int) -> str:
    """[directions, inputs, gates] times a scale, per direction or gate too, and turned round."""
    shape = parts.whole(0, 1, -1)
    factors, middle = (parts.add("Reshape", parts.read(place), shape) for place in (scale, zero))
    centred = parts.add("Sub", parts.floats(parts.read(values)), parts.floats(middle))
    return parts.add("Transpose", parts.add("Mul", centred, factors), perm=[0, 2, 1])


_RULES: dict[str, Callable[[_Parts], str | None]] = {
    "Attention": _attention,
    "BiasGelu": _gelu,
    "DynamicQuantizeLSTM": _lstm,
    _EMBEDDING: _embedding,
    "FastGelu": _fast_gelu,
    "FusedConv": _convolution,
    "FusedGemm": _gemm,
    "FusedMatMul": _product,
    "Gelu": _gelu,
    _NORMALIZATION: _normalization,
    "MultiHeadAttention": _multi_head_attention,
    "QAttention": _quantized_attention,
    f"Q{_EMBEDDING}": _quantized_embedding,
    "QuickGelu": _quick_gelu,
    "SkipLayerNormalization": _normalized_sum,
}
