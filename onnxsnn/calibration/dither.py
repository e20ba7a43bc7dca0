"""Initial potentials that alternate between neighbours: ordered dither (Bayer, IEEE ICC 1973).

Neurons of one spike a step that lie side by side read about the same currents, so that they are
rounded the same way, fire in the same steps, and the windows of the next layer add their errors up.
Where one starts a little higher and the next a little lower, the errors differ and average out.

That costs each of them a little, and helps where neighbours are alike: in large maps of pictures,
not in small ones or of noise. How alike they are is the autocorrelation of the ANN's activations
from a position to the next, along each axis of a map. And it helps where what reads them sums over
neighbours of several channels: a convolution of 1x1, or of each channel alone, has the cost only,
and a greatest value is that of a neuron which started high.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from onnxsnn.arrays import Array
from onnxsnn.graph import Graph, Tensor
from onnxsnn.ratenorm import is_rate_norm
from onnxsnn.weights import weight_layer

__all__ = ["alternates", "alternation", "are_alike", "are_summed"]

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


def are_summed(graph: Graph, tensor: Tensor) -> bool:
    """Whether something that reads a layer of maps sums over neighbours of several channels."""
    waiting, seen = [tensor], set()
    while waiting:
        for node in waiting.pop().outputs:
            if id(node) in seen or is_rate_norm(node) or node.op in _PICKS:
                continue
            seen.add(id(node))
            layer = weight_layer(graph, node)
            if node.op in _SUMS or (
                node.op == "Conv" and layer and min(layer.weight.shape[1:]) > 1
            ):
                return True
            if layer is None:
                waiting += node.outputs
    return False


_PICKS = {"GlobalMaxPool", "MaxPool", "ReduceMax"}
_SUMS = {"AveragePool", "Gemm", "GlobalAveragePool", "MatMul", "ReduceMean", "ReduceSum"}


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
