"""Nodes that compute the same of the same tensors become one.

What is written as `f(relu(x)) + g(relu(x))` has two rectifiers that read x, and each would take
neurons, which fire alike. Tools that quantize round the same anew for every reader.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from onnxsnn.graph import (
    Graph,
    Node,
    Tensor,
    constant,
    has_body,
    needs_copy,
    remove,
    replace_everywhere,
)
from onnxsnn.operators import DRAWS

__all__ = ["merge_twins"]

_LARGE = 64  # values of a constant; of more, each counts as another


def merge_twins(graph: Graph) -> Counter[str]:
    """Let what reads a node's twin read the node; how many twins went, by operator."""
    graph.toposort()
    merged: Counter[str] = Counter()
    first: dict[tuple[Any, ...], Node] = {}
    for node in list(graph.nodes):
        if has_body(node) or node.op in DRAWS.split():
            continue
        key = (node.op, node.domain, _described(node), *map(_known, node.inputs))
        twin = first.setdefault(key, node)
        pairs = list(zip(node.outputs, twin.outputs, strict=True))
        if twin is node or any(needs_copy(graph, old, new) for old, new in pairs):
            continue
        remove(graph, node)
        for old, new in pairs:
            replace_everywhere(graph, old, new)
        merged[node.op] += 1
    return merged


def _described(node: Node) -> tuple[Any, ...]:
    """What a node is told beside its inputs; the node itself where that is more than numbers."""
    told = sorted(node.attrs.items())
    plain = all(isinstance(value, (int, float, str, list)) for _, value in told)
    return (str(told) if plain else id(node), *(tensor.is_empty() for tensor in node.outputs))


def _known(tensor: Tensor) -> tuple[Any, ...]:
    """The same for constants of the same few values, and for a tensor itself."""
    values = constant(tensor)
    if values is None or np.size(values) > _LARGE:
        return (id(tensor),)
    return (str(values.dtype), values.shape, values.tobytes())
