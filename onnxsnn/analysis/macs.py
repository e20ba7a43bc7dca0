"""Multiply-accumulates of a network, node by node."""

from __future__ import annotations

import math

from onnxsnn.graph import Graph, Node, Tensor, has_body, resized
from onnxsnn.passes.loop_shapes import loop_shapes

__all__ = ["OPEN_SIZE", "macs", "with_sizes"]

OPEN_SIZE = 64


def with_sizes(graph: Graph) -> Graph:
    """A copy of a graph for one sample, or for as many as its batch has, if that is fixed.

    Each other size that the inputs leave open is OPEN_SIZE.
    """
    (looped,) = loop_shapes(graph, 1)
    return resized(graph, _known_sizes, looped)


def _known_sizes(tensor: Tensor) -> list[int]:
    sizes = zip(tensor.shape, [1] + [OPEN_SIZE] * len(tensor.shape), strict=False)
    return [size if isinstance(size, int) else otherwise for size, otherwise in sizes]


def macs(node: Node) -> int | None:
    """Multiply-accumulates of one node, from its shapes.

    A convolution does a kernel per output value, a transposed one per input value, a product
    of matrices the length of the common axis per output value, a recurrent layer all its
    weights per element of the sequence, attention each query with each key and each share with
    each value.

    Returns:
        0 for operators without products of weights; None where a size is not known, and for a
        Loop or Scan, whose body runs as often as it likes.
    """
    if has_body(node):
        return None
    if node.op not in _COUNTED:
        return 0
    try:
        return _COUNTED[node.op](node)
    except (TypeError, IndexError, KeyError):  # a shape, or a size of it, is not known
        return None


def _volume(shape: list[int | str | None]) -> int:
    if not all(isinstance(size, int) for size in shape):
        raise TypeError("a size is not known")
    return math.prod(size for size in shape if isinstance(size, int))


def _convolution(node: Node) -> int:
    """Weight [outputs, inputs / groups, *kernel]."""
    return _volume(node.outputs[0].shape) * _volume(node.inputs[1].shape[1:])


def _transposed_convolution(node: Node) -> int:
    """Weight [inputs, outputs / groups, *kernel]."""
    return _volume(node.inputs[0].shape) * _volume(node.inputs[1].shape[1:])


def _product(node: Node) -> int:
    common = node.inputs[0].shape[0 if node.attrs.get("transA", 0) else -1]
    return _volume(node.outputs[0].shape) * _volume([common])


def _einsum(node: Node) -> int:
    """One for each value of all indices together."""
    terms = node.attrs["equation"].replace(" ", "").split("->")[0].split(",")
    if len(terms) == 1:
        return 0  # sums, or a transposition
    sizes: dict[str, int | str | None] = {}
    for term, tensor in zip(terms, node.inputs, strict=True):
        for index, size in zip(_indices(term, len(tensor.shape)), tensor.shape, strict=True):
            if size != 1 or index not in sizes:  # a 1 meets any size beside it
                sizes[index] = size
    return _volume(list(sizes.values()))


def _indices(term: str, axes: int) -> list[str]:
    """The index of each axis; those that dots stand for are known by their places from the end."""
    before, dots, behind = term.partition("...")
    others = range(axes - len(before) - len(behind) if dots else 0)
    return [*before, *(str(len(others) - place) for place in others), *behind]


def _attention(node: Node) -> int:
    """Q [..., L, any], K [..., S, any], what is cached of K likewise."""
    read = node.inputs[1::3][:2]  # K, and what is cached of it
    keys = sum(_volume(tensor.shape[-2:-1]) for tensor in read if not tensor.is_empty())
    return keys * (_volume(node.inputs[0].shape) + _volume(node.outputs[0].shape))


def _recurrent(node: Node) -> int:
    """Weights [directions, gates * hidden, inputs] and [directions, gates * hidden, hidden]."""
    sequence, weights, recurrence = (tensor.shape for tensor in node.inputs[:3])
    return _volume(sequence[:2]) * (_volume(weights) + _volume(recurrence))


_COUNTED = {
    "Attention": _attention,
    "Conv": _convolution,
    "ConvTranspose": _transposed_convolution,
    "DeformConv": _convolution,
    "Einsum": _einsum,
    "GRU": _recurrent,
    "Gemm": _product,
    "LSTM": _recurrent,
    "MatMul": _product,
    "RNN": _recurrent,
}
