"""Tensors and nodes of an ONNX model by other names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from copy import deepcopy

import onnx

__all__ = ["free_name", "prefixed", "renamed"]


def prefixed(names: Iterable[str], prefix: str) -> dict[str, str]:
    return {name: prefix + name for name in names}


def renamed(
    nodes: Iterable[onnx.NodeProto], names: Mapping[str, str], prefix: str
) -> list[onnx.NodeProto]:
    """Copies of nodes: their tensors by other names, and their own names with a prefix."""
    copies = []
    for node in nodes:
        copy = deepcopy(node)
        copy.name = prefix + node.name
        copy.input[:] = [names.get(name, name) for name in node.input]
        copy.output[:] = [names.get(name, name) for name in node.output]
        copies.append(copy)
    return copies


def free_name(graph: onnx.GraphProto, base: str) -> str:
    """`base`, or, where a tensor of the graph has a name that starts so, one with a prefix."""
    taken = {name for node in graph.node for name in [*node.input, *node.output]}
    taken |= {tensor.name for tensor in graph.input}
    while any(name.startswith(base) for name in taken):
        base = f"snn.{base}"
    return base
