"""What is known of the sizes that a graph computes, so that constants stand in their place.

Exporters compute the target of a Reshape or an Expand at run time: as many samples and tokens as
there are, and as many heads as go in. Most of it follows from the shapes of tensors. What stays
open, the batch above all, is taken from the input's axis at the same place, and from no other
tensor, so that the node does what it should for any number of samples.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs

from onnxsnn.arrays import Array
from onnxsnn.graph import Graph, Node, Tensor, constant, insert, producer, unique_name
from onnxsnn.operators import slice_bounds

__all__ = ["choose_sizes", "expand_tiles", "fix_targets", "sizes_of"]

_FOLLOWED = {
    "Cast", "Concat", "Gather", "Max", "ReduceProd", "Reshape", "Shape", "Slice", "Unsqueeze",
}  # fmt: skip


def sizes_of(tensor: Tensor) -> Array | None:
    """The sizes that a tensor holds, an array of int or str; None for what holds no sizes.

    Constants, the Shape of a tensor, and a Cast, Concat, Gather, Max, ReduceProd, Slice or
    Unsqueeze of such, or a Reshape to the one axis that they lie along. A product is a tuple of
    its sizes where some are no numbers.
    """
    values = constant(tensor)
    if values is not None:
        whole = values.dtype.kind == "i" and values.ndim <= 1
        return np.array(values.tolist(), dtype=object) if whole else None
    node = producer(tensor)
    if node is None or node.op not in _FOLLOWED:
        return None
    if node.op in ("Max", "ReduceProd"):
        return _merged(node)
    if node.op == "Shape":
        shape = node.inputs[0].shape
        if shape is None:
            return None
        part = shape[node.attrs.get("start", 0) : node.attrs.get("end")]
        return np.array(part, dtype=object)
    if node.op == "Concat":
        parts = [sizes_of(part) for part in node.inputs]
        known = [part for part in parts if part is not None and part.ndim == 1]
        return np.concatenate(known) if len(known) == len(parts) else None
    return _taken(node)


def _merged(node: Node) -> Array | None:
    """The product of sizes, or the greatest of several: known where they are equal."""
    parts = [sizes_of(tensor) for tensor in node.inputs]
    known = [part for part in parts if part is not None and part.ndim == 1]
    if not known or len(known) < len(parts) or any(len(p) != len(known[0]) for p in known):
        return None
    if node.op == "Max":
        together = zip(*known, strict=True)
        merged = [first if {first} == {*others} else None for first, *others in together]
    elif len(parts) > 1 or node.attrs.keys() - {"keepdims"} or not node.attrs.get("keepdims", 1):
        return None
    else:
        merged = [_product(known[0])]
    sizes = np.empty(len(merged), object)
    for position, size in enumerate(merged):  # NumPy would take a tuple apart
        sizes[position] = size
    return sizes


def _product(sizes: Array) -> Any:
    """A number, or a tuple of the sizes where some are none; None where one is not known."""
    if None in sizes:
        return None
    return math.prod(sizes) if all(isinstance(size, int) for size in sizes) else tuple(sizes)


def _taken(node: Node) -> Array | None:
    """What a Cast, Gather, Reshape, Slice or Unsqueeze takes of sizes."""
    sizes = sizes_of(node.inputs[0])
    others = [constant(tensor) for tensor in node.inputs[1:]]
    if sizes is None or any(values is None for values in others):
        return None
    if node.op == "Unsqueeze":
        return sizes.reshape(1) if not sizes.ndim else None
    if sizes.ndim != 1:
        return sizes if node.op == "Cast" else None
    if node.op == "Reshape":
        return sizes if _is_flat(others[0]) else None
    if node.op == "Slice":
        return _cut(sizes, node)
    taken = sizes[others[0]] if node.op == "Gather" else sizes
    return None if isinstance(taken, tuple) else np.asarray(taken, dtype=object)


def _cut(sizes: Array, node: Node) -> Array | None:
    """What a Slice takes of a vector."""
    bounds = slice_bounds(node)
    for start, end, _, step in bounds or ():
        sizes = sizes[start:end:step]
    return None if bounds is None else sizes


def _is_flat(target: Array | None) -> bool:
    """Whether the target of a Reshape is one axis, of as many values as there are."""
    return target is not None and target.tolist() == [-1]


def choose_sizes(graph: Graph) -> bool:
    """Let a Concat put sizes together that a Where chooses, where it is known which it chooses.

    PyTorch's older exporter chooses 1 where a size that something is expanded to is -1, and onnx
    does not follow that.

    Returns:
        whether there was any.
    """
    changed = False
    for node in [node for node in graph.nodes if node.op == "Where"]:
        choices = _choices(node.inputs[0])
        sources = [sizes_of(tensor) for tensor in node.inputs[1:]]
        if choices is None or any(s is None or s.shape != (len(choices),) for s in sources):
            continue
        chosen = [node.inputs[1 if first else 2] for first in choices]
        parts = [_part(graph, tensor, place) for place, tensor in enumerate(chosen)]
        node.op, node.attrs, node.inputs = "Concat", {"axis": 0}, parts
        changed = True
    return changed


def _choices(condition: Tensor) -> list[bool] | None:
    """Which of two sizes are equal; None where that is not known of all, or they are no sizes."""
    node = producer(condition)
    if node is None or node.op != "Equal":
        return None
    left, right = (sizes_of(tensor) for tensor in node.inputs)
    if left is None or right is None or left.ndim != 1 or left.shape != right.shape:
        return None
    answers = [_equal(*pair) for pair in zip(left, right, strict=True)]
    known = [answer for answer in answers if answer is not None]
    return known if len(known) == len(answers) else None


def _equal(left: Any, right: Any) -> bool | None:
    """Whether two sizes are equal; None where that is open. No axis has less than 0 values."""
    if isinstance(left, int) and isinstance(right, int):
        return left == right
    return False if any(isinstance(s, int) and s < 0 for s in (left, right)) else None


def _part(graph: Graph, tensor: Tensor, place: int) -> Tensor:
    """One of the sizes that a tensor holds, as a vector: what was put there, where there is such.

    onnx follows a size through Concat, and not through every Gather.
    """
    node = producer(tensor)
    if node is not None and node.op == "Reshape":
        return _part(graph, node.inputs[0], place)
    for part in node.inputs if node is not None and node.op == "Concat" else ():
        sizes = sizes_of(part)
        held = 0 if sizes is None else len(sizes)
        if place < held:
            return part if held == 1 else _part(graph, part, place)
        place -= held
    name = unique_name(graph, f"{tensor.name}.{place}")
    taken = gs.Variable(name, np.int64)
    insert(graph, "Gather", [tensor, gs.Constant(f"{name}.place", np.array([place]))], taken)
    return taken


def expand_tiles(graph: Graph) -> bool:
    """Let an Expand repeat what has one value along each axis that is repeated, as a token has.

    onnx does not follow how often a Tile repeats it, where that is not known of the batch.

    Returns:
        whether there was any.
    """
    found = [node for node in graph.nodes if node.op == "Tile" and _repeats_one(node)]
    for node in found:
        node.op = "Expand"
    return bool(found)


def _repeats_one(node: Node) -> bool:
    """Whether a Tile repeats an axis for each sample, say, and only axes of one value."""
    shape, times = node.inputs[0].shape, sizes_of(node.inputs[1])
    if shape is None or times is None or constant(node.inputs[1]) is not None:
        return False
    return all(1 in pair for pair in zip(shape, times, strict=True))


def fix_targets(graph: Graph) -> bool:
    """Let the targets of Reshape and Expand be constants, where enough is known of them.

    Returns:
        whether any was changed: shapes that are inferred anew may tell more.
    """
    changed = False
    for node in graph.nodes:
        rule = _RULES.get(node.op)
        if rule is None or len(node.inputs) < 2:
            continue
        before, after = node.inputs[0].shape, _shape_of(node)
        if before is None or after is None or 0 in [*before, *after]:
            continue
        target, given = rule(_distinct(before), _distinct(after)), constant(node.inputs[1])
        if target is not None and (given is None or _says_more(target, given)):
            name = unique_name(graph, f"{node.name}.shape")
            node.inputs[1] = gs.Constant(name, np.array(target, np.int64))
            node.attrs.pop("allowzero", None)
            changed = True
    return changed


def _says_more(target: Sequence[int], given: Array) -> bool:
    """Whether a target keeps an axis as it is where the given one leaves its size open."""
    return -1 in given and 0 in target and -1 not in target


def _shape_of(node: Node) -> Sequence[Any] | None:
    """The shape of a node's output, as far as its target says; onnx follows fewer operators."""
    inferred: Sequence[Any] | None = node.outputs[0].shape
    sizes = sizes_of(node.inputs[1])
    if inferred is None or sizes is None or 0 in sizes or len(sizes) != len(inferred):
        return inferred
    told = [None if size == -1 else size for size in sizes]
    return [b if a is None else a for a, b in zip(told, inferred, strict=True)]


def _reshape(before: Sequence[Any], after: Sequence[Any]) -> list[int] | None:
    """The target of a Reshape, or None where too little is known.

    Args:
        before: sizes of the input; those that are no numbers are equal where their names are.
        after: sizes of the output.

    Returns:
        sizes, 0 for that of the input's axis at the same place, -1 for one at most.
    """
    sizes = _solved(before, after)
    old, new = _open(before), _open(sizes)
    if old > new or (old == new and _known(sizes) != _known(before)):
        return None  # a name that an exporter gave to another size
    target = [
        size if isinstance(size, int) else 0 if before[i : i + 1] == [size] else -1
        for i, size in enumerate(sizes)
    ]
    return target if target.count(-1) <= 1 else None


def _expand(before: Sequence[Any], after: Sequence[Any]) -> list[int] | None:
    """The target of an Expand, likewise; 1 leaves a size as it is."""
    old = [1] * (len(after) - len(before)) + list(before)
    sizes = [1 if size == own else size for size, own in zip(after, old, strict=True)]
    return sizes if all(isinstance(size, int) for size in sizes) else None


_RULES = {"Expand": _expand, "Reshape": _reshape}


def _solved(before: Sequence[Any], after: Sequence[Any]) -> list[Any]:
    """The output's sizes, of which one more is known where it follows from all others.

    ["N", 17, 64] as ["N", 17, "?", 16] has 4 there, and as ["?", 17, 4, 16] N.
    """
    sizes, old, new = list(after), _open(before), _open(after)
    known, rest = _known(after), _known(before)
    found, lost = new - old, old - new
    if found.total() != 1 or lost.total() > 1 or found.keys().isdisjoint(sizes):
        return sizes
    place = len(sizes) - 1 - sizes[::-1].index(*found)
    if not lost:
        sizes[place] = rest // known
    elif rest == known:
        (sizes[place],) = lost
    return sizes


def _open(sizes: Sequence[Any]) -> Counter[Any]:
    """The sizes that are no numbers."""
    return Counter(size for size in _factors(sizes) if not isinstance(size, int))


def _known(sizes: Sequence[Any]) -> int:
    """The product of the sizes that are numbers."""
    return math.prod(size for size in _factors(sizes) if isinstance(size, int))


def _factors(sizes: Sequence[Any]) -> Iterator[Any]:
    """The sizes, those that are products taken apart."""
    for size in sizes:
        yield from size if isinstance(size, tuple) else (size,)


def _distinct(sizes: Sequence[Any]) -> list[Any]:
    """Sizes of which those without a name are equal to no other."""
    return [object() if size is None else size for size in sizes]
