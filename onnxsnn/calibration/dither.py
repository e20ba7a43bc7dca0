"""Initial potentials that alternate between neighbours: ordered dither (Bayer, IEEE ICC 1973).

Neurons of one spike a step that lie side by side read about the same currents, so that they are
rounded the same way, fire in the same steps, and the windows of the next layer add their errors up.
Where one starts a little higher and the next a little lower, the errors differ and average out.

That costs each of them a little, and can help where neighbours are alike: in large maps of
pictures, not in small ones or of noise. How alike they are is the autocorrelation of the ANN's
activations from a position to the next, along each axis of a map. Whether it does depends on what
reads them: a convolution of 1x1, or of each channel alone, has the cost only, and a greatest value
is that of a neuron which started high.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from onnxsnn.arrays import Array
from onnxsnn.graph import Graph, Node, Tensor, nodes_before
from onnxsnn.ratenorm import is_rate_norm
from onnxsnn.weights import WeightLayer, weight_layer

__all__ = ["alternates", "alternation", "are_alike", "reading_layers"]

_AMOUNT = 0.12  # thresholds, up and down; tried on VGG-16 and PreActResNet-18, at T of 1 to 8
_STEPS = 4  # from which on it is that; below, it grows to twice as much
_SMALLEST = 8  # positions along every axis
_ALIKE = 0.15  # autocorrelation: more in maps of pictures, less in those of noise


def alternates(shape: Sequence[int | str | None] | None) -> bool:
    """Whether a layer of this shape, [N, C, ...], has maps of known sizes, all large enough."""
    channels, *maps = (shape or [])[1:] or [None]
    return (
        isinstance(channels, int)
        and len(maps) > 0
        and all(isinstance(size, int) and size >= _SMALLEST for size in maps)
    )


def reading_layers(graph: Graph, spikes: Tensor, later: Sequence[Node]) -> list[WeightLayer]:
    """The layers of weights that read a layer of neurons next, and no neurons of later ones."""
    unfitted = {id(node) for node in later if is_rate_norm(node)}
    tensors, seen, found = [spikes], set(), []
    while tensors:
        for node in tensors.pop().outputs:
            if id(node) in seen or is_rate_norm(node):
                continue
            seen.add(id(node))
            layer = weight_layer(graph, node)
            if layer is None:
                tensors += node.outputs
            elif not any(id(before) in unfitted for before in nodes_before(node.inputs)):
                found.append(layer)
    return found


def are_alike(values: Array) -> bool:
    """Whether neighbours along every axis of maps are alike, [N, C, ...]."""
    maps = tuple(range(2, values.ndim))
    centred = values - values.mean(axis=(0, *maps), keepdims=True)
    variance = np.square(centred).mean(dtype=np.float64)
    apart = [np.square(np.diff(centred, axis=axis)).mean(dtype=np.float64) for axis in maps]
    return all(1 - distance / (2 * variance) > _ALIKE for distance in apart) if variance else False


def alternation(shape: Sequence[int | str | None], timesteps: int) -> Array:
    """A checkerboard over positions, of opposite sign in the next channel, around 0.

    Two neurons that are the same round best half a threshold apart. In more steps, less is rounded,
    and neighbours differ by more of that.

    Args:
        shape: of the layer, [N, C, ...], that `alternates`.
        timesteps: the number of steps that will be run.

    Returns:
        fractions of the threshold, [1, C, ...] in float32.
    """
    sizes = [size for size in shape[1:] if isinstance(size, int)]
    signs = np.indices([1, *sizes]).sum(axis=0) % 2 * 2 - 1
    amount = _AMOUNT * np.clip(_STEPS / timesteps, 1, 2)
    amounts: Array = np.float32(amount) * signs.astype(np.float32)
    return amounts
