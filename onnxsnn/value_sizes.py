"""Tensors whose size may change from step to step: as many boxes as are found in this one.

Neurons keep a potential, each in its place, so that none can be there. As outputs such tensors are
given, and not compared with the ANN's: another number of boxes is another array.
"""

from __future__ import annotations

from collections.abc import Collection

from onnxsnn.errors import DataError, UnsupportedError
from onnxsnn.graph import Graph, Node, Tensor, constant, describe, is_float, nodes_before
from onnxsnn.ratenorm import rate_norms
from onnxsnn.signals import Signal, Signals

__all__ = [
    "comparable_outputs",
    "decides_sizes",
    "nothing_to_compare",
    "refuse_changing_sizes",
    "sized_by_values",
    "turns_by_values",
]

_DECIDE = {"Compress", "NonMaxSuppression", "NonZero", "Unique"}


def sized_by_values(graph: Graph) -> set[str]:
    """Names of the tensors behind operators that give as many values as they find.

    What is found in the input alone is the same in every step, and in the ANN. What has no other
    axes than known ones, and those of inputs, is of a size that is given; whole numbers of such a
    size may be how many were found, all the same.

    Args:
        graph: in topological order, with the shapes of its tensors.
    """
    deciding = [node for node in graph.nodes if decides_sizes(node)]
    if not deciding:
        return set()
    signals = Signals(graph)
    changing = {id(n) for n in deciding if any(signals[t] > Signal.CURRENT for t in n.inputs)}
    sizes = {size for tensor in graph.inputs for size in tensor.shape or () if size is not None}

    def is_given(tensor: Tensor) -> bool:
        shape = tensor.shape
        return shape is not None and all(isinstance(s, int) or s in sizes for s in shape)

    found: dict[str, Tensor] = {}
    for node in graph.nodes:
        if id(node) in changing or any(tensor.name in found for tensor in node.inputs):
            found.update((t.name, t) for t in node.outputs if not (is_float(t) and is_given(t)))
    return {name for name, tensor in found.items() if not is_given(tensor)}


def decides_sizes(node: Node) -> bool:
    """Whether a node, or one within it, gives as many values as it finds."""
    inner = (one for body in node.subgraphs(recursive=True) for one in body.nodes)
    return any(one.op in _DECIDE or turns_by_values(one) for one in (node, *inner))


def turns_by_values(node: Node) -> bool:
    """Whether a Loop goes on until values say so: not its counter, be that cast to a float."""
    condition = node.attrs["body"].outputs[:1] if node.op == "Loop" else []
    read = [tensor for before in nodes_before(condition) for tensor in before.inputs]
    return any(is_float(t) for t in read if not t.inputs and constant(t) is None)


def refuse_changing_sizes(graph: Graph) -> None:
    """Refuse neurons behind what changes its size from step to step.

    Raises:
        UnsupportedError: naming the first.
    """
    varying = sized_by_values(graph)
    for norm in rate_norms(graph) if varying else ():
        before = nodes_before(norm.inputs)
        if any(tensor.name in varying for node in before for tensor in node.outputs):
            deciding = next(node for node in before if decides_sizes(node))
            raise UnsupportedError(
                f"{describe(norm)} cannot spike: how much it is made of, {describe(deciding)} "
                "decides in each step; convert the network in front of that"
            )


def comparable_outputs(graph: Graph) -> list[str]:
    """Names of the outputs that are compared: those whose size the values do not decide.

    Whole numbers beside floats are classes that were made of their scores, and are left out.
    """
    varying = sized_by_values(graph)
    known = [tensor for tensor in graph.outputs if tensor.name not in varying]
    return [tensor.name for tensor in list(filter(is_float, known)) or known]


def nothing_to_compare(names: Collection[str]) -> DataError:
    """The error where all outputs, of these names, are of such sizes."""
    return DataError(
        f"how much the outputs hold ({', '.join(names)}), the values decide, so that none can be "
        "compared; let the model end in front of what finds them, or give that as an output too"
    )
