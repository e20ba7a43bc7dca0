"""The axis of the samples, by its name in every shape where it is alone on an axis.

Shape inference loses the name where a Reshape finds a size by itself (-1). Sizes are inferred for
a number of samples instead that is like no other size.
"""

from __future__ import annotations

from onnxsnn.graph import Graph, constant, resized
from onnxsnn.passes.follow_samples import SAMPLES

__all__ = ["batch_names", "name_batch"]


def batch_names(graph: Graph) -> set[str]:
    """What the first axis of an input is named."""
    first = [tensor.shape[0] for tensor in graph.inputs if tensor.shape]
    return {size for size in first if isinstance(size, str)}


def name_batch(graph: Graph) -> None:
    """Give shapes their sizes, and the axis of the samples its name.

    A graph whose inputs name no batch, or several, is left as it is.
    """
    names = batch_names(graph)
    if len(names) != 1:
        return
    (name,) = names
    sized = resized(graph, lambda shape: [_of_many(shape[0], name), *shape[1:]])
    sizes = {key: tensor.shape for key, tensor in sized.tensors().items()}
    for tensor in graph.tensors().values():
        found = sizes.get(tensor.name) or []
        if constant(tensor) is None and tensor.shape and len(found) == len(tensor.shape):
            pairs = zip(found, tensor.shape, strict=True)
            tensor.shape = [_named(size, mine, name) for size, mine in pairs]


def _of_many(size: int | str | None, name: str) -> int | str | None:
    return SAMPLES if size == name else size


def _named(size: int | str | None, otherwise: int | str | None, name: str) -> int | str | None:
    """A size, the name of the samples for theirs; what it was where it is not known."""
    if size == SAMPLES:
        return name
    return size if isinstance(size, int) and size % SAMPLES else otherwise
