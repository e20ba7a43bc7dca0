"""Initial potentials that alternate between neighbours: ordered dither (Bayer, IEEE ICC 1973).

Neurons of one spike a step that lie side by side read about the same currents, so that they are
rounded the same way, fire in the same steps, and the windows of the next layer add their errors up.
Where one starts a little higher and the next a little lower, the errors differ and average out.

That costs each of them a little, and can help where neighbours are alike: in large maps of
pictures, not in small ones or of noise. How alike they are is the autocorrelation of the ANN's
activations from a position to the next, along each axis of a map. Whether it does depends on what
reads them: a convolution of each channel alone has the cost only, as one of 1x1 always has, and a
greatest value is that of a neuron which started high.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from onnxsnn.arrays import Array
from onnxsnn.graph import Graph, Node, Tensor, constant, is_float, nodes_before
from onnxsnn.ratenorm import RECTIFYING, SIGNED, is_rate_norm
from onnxsnn.value_sizes import comparable_outputs

__all__ = ["alternates", "alternations", "are_alike", "are_mixed", "behind"]

_AMOUNTS = (0.12, 0.24)  # thresholds, up and down
_SMALLEST = 8  # positions along every axis
_ALIKE = 0.15  # autocorrelation: more in maps of pictures, less in those of noise
_BY_POSITION = {"Add", "Concat", "Div", "Identity", "Mul", "Sub", RECTIFYING, SIGNED}


def alternates(shape: Sequence[int | str | None] | None) -> bool:
    """Whether a layer of this shape, [N, C, ...], has maps of known sizes, all large enough."""
    channels, *maps = (shape or [])[1:] or [None]
    return (
        isinstance(channels, int)
        and len(maps) > 0
        and all(isinstance(size, int) and size >= _SMALLEST for size in maps)
    )


def behind(graph: Graph, spikes: Tensor, later: Sequence[Node]) -> list[str]:
    """What the next neurons behind a layer emit, and outputs, if later ones have no say in them.

    Args:
        graph: Rate Norm Layers, each with a Mul behind.
        spikes: what the layer gives.
        later: the nodes that are still to be fitted.
    """
    unfitted = {id(node) for node in later if is_rate_norm(node)}
    known = comparable_outputs(graph)
    outputs = {id(tensor) for tensor in graph.outputs if is_float(tensor) and tensor.name in known}
    readers = list(_readers(spikes))
    given = [spikes, *(t for node in readers if not is_rate_norm(node) for t in node.outputs)]
    found = [(tensor, nodes_before([tensor])) for tensor in given if id(tensor) in outputs]
    for node in filter(is_rate_norm, readers):
        product = node.outputs[0].outputs[0]
        found.append((product.outputs[0], nodes_before(node.inputs)))
    return [tensor.name for tensor, before in found if unfitted.isdisjoint(map(id, before))]


def are_mixed(spikes: Tensor) -> bool:
    """Whether anything before the next neurons may read a layer at several positions at once."""
    return not all(
        node.op in _BY_POSITION or (node.op == "Conv" and _kernel_of_one(node))
        for node in _readers(spikes)
    )


def _kernel_of_one(convolution: Node) -> bool:
    weight = constant(convolution.inputs[1])
    return weight is not None and all(size == 1 for size in weight.shape[2:])


def _readers(spikes: Tensor) -> Iterator[Node]:
    """What reads a layer, directly or not, up to the next Rate Norm Layers and with them."""
    tensors, seen = [spikes], set()
    while tensors:
        for node in (node for node in tensors.pop().outputs if id(node) not in seen):
            seen.add(id(node))
            yield node
            if not is_rate_norm(node):
                tensors += node.outputs


def are_alike(values: Array) -> bool:
    """Whether neighbours along every axis of maps are alike, [N, C, ...]."""
    maps = tuple(range(2, values.ndim))
    centred = values - values.mean(axis=(0, *maps), keepdims=True)
    variance = np.square(centred).mean(dtype=np.float64)
    apart = [np.square(np.diff(centred, axis=axis)).mean(dtype=np.float64) for axis in maps]
    return all(1 - distance / (2 * variance) > _ALIKE for distance in apart) if variance else False


def alternations(shape: Sequence[int | str | None]) -> Iterator[Array]:
    """Checkerboards over positions, of opposite sign in the next channel, around 0.

    They grow to about where two neurons that are the same round best, half a threshold apart. In
    more steps, less is rounded, and neighbours differ by more of that.

    Args:
        shape: of the layer, [N, C, ...], that `alternates`.

    Returns:
        fractions of the threshold, [1, C, ...] in float32.
    """
    sizes = [size for size in shape[1:] if isinstance(size, int)]
    signs = (np.indices([1, *sizes]).sum(axis=0) % 2 * 2 - 1).astype(np.float32)
    return (np.float32(amount) * signs for amount in _AMOUNTS)
