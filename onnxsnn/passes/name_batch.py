"""The axis of the samples, by its name in every shape where it is alone on an axis.

Shape inference loses the name where a Reshape finds a size by itself (-1). Sizes are inferred for
a number of samples instead that is like no other size. What a Loop or Scan gives, it cannot know:
they are run, on zeros, for one and another number of samples.
"""

from __future__ import annotations

from typing import Any

from onnxsnn.graph import Graph, constant, free_name, resized
from onnxsnn.passes.follow_samples import SAMPLES
from onnxsnn.passes.loop_shapes import loop_shapes

__all__ = ["batch_names", "name_batch"]


def batch_names(graph: Graph) -> set[str]:
    """What the first axis of an input is named."""
    first = [tensor.shape[0] for tensor in graph.inputs if tensor.shape]
    return {size for size in first if isinstance(size, str)}


def name_batch(graph: Graph) -> None:
    """Give shapes their sizes, and the axis of the samples its name; one that has none gets one.

    A graph whose inputs have a fixed batch, or name several, is left as it is.
    """
    _name_open(graph)
    names = batch_names(graph)
    if len(names) != 1:
        return
    (name,) = names
    sized = resized(
        graph, lambda tensor: [_of_many(tensor.shape[0], name), *tensor.shape[1:]], _looped(graph)
    )
    sizes = {key: tensor.shape for key, tensor in sized.tensors().items()}
    for tensor in graph.tensors().values():
        found = sizes.get(tensor.name)
        if constant(tensor) is None and found:
            mine = [None] * len(found) if tensor.shape is None else tensor.shape
            if len(mine) == len(found):
                pairs = zip(found, mine, strict=True)
                tensor.shape = [_named(size, before, name) for size, before in pairs]


def _name_open(graph: Graph) -> None:
    """Name the first axes of inputs that are open and have no name, if others have one at most.

    As many samples come of each input, so that all are named alike.
    """
    unnamed = [tensor for tensor in graph.inputs if tensor.shape and tensor.shape[0] is None]
    names = batch_names(graph)
    if not unnamed or len(names) > 1:
        return
    sizes = (size for tensor in graph.tensors().values() for size in tensor.shape or [])
    (name,) = names or {free_name({size for size in sizes if isinstance(size, str)}, "N")}
    for tensor in unnamed:
        tensor.shape = [name, *tensor.shape[1:]]


def _looped(graph: Graph) -> dict[str, list[Any]]:
    """The shapes for many samples of what Loops and Scans give, by name, as far as they show."""
    few, more = loop_shapes(graph, *_FEW)
    return {
        name: [_size(pair) for pair in zip(shape, more[name], strict=True)]
        for name, shape in few.items()
        if name in more and len(shape) == len(more[name])
    }


_FEW = 2, 3  # samples


def _size(pair: tuple[int, int]) -> int | None:
    """An axis for many samples, by its sizes for each of the few."""
    if pair == _FEW:
        return SAMPLES
    return pair[0] if pair[0] == pair[1] else None


def _of_many(size: int | str | None, name: str) -> int | str | None:
    return SAMPLES if size == name else size


def _named(size: int | str | None, otherwise: int | str | None, name: str) -> int | str | None:
    """A size, the name of the samples for theirs; what it was where it is not known."""
    if size == SAMPLES:
        return name
    return size if isinstance(size, int) and size % SAMPLES else otherwise
