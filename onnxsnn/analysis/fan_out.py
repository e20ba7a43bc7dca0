"""Fan-out: how many weights a spike meets in a layer, by where it arrives.

A spike near a border meets fewer weights of a padded convolution than one in the middle, and
with a stride of two, neighbours meet different numbers. Along each axis of space,

    Conv            coverage[i] = #{(o, k): stride o + dilation k - pad = i}
    ConvTranspose   coverage[i] = #{k: 0 <= stride i + dilation k - pad < size of the output}

and the fan-out is the product over the axes, times the output channels of a group.
"""

from __future__ import annotations

import math

import numpy as np

from onnxsnn.arrays import Array
from onnxsnn.graph import Node
from onnxsnn.padding import same_padding

__all__ = ["fan_out"]


def fan_out(node: Node, position: int, products: int) -> Array:
    """Weights that a spike meets, broadcastable to what a layer of weights reads.

    Args:
        node: the layer; the shapes of what it reads and writes are those of one sample.
        position: of the input that carries spikes.
        products: multiply-accumulates of the layer, for what has no rule of its own: there
            each value counts the same.
    """
    read, written = tuple(node.inputs[position].shape), tuple(node.outputs[0].shape)
    rule = _RULES.get(node.op)
    if rule is None or position != 0:
        return np.array(products / math.prod(read))
    weight = node.inputs[1].values.shape
    space = len(read) - 2
    strides = node.attrs.get("strides", [1] * space)
    dilations = node.attrs.get("dilations", [1] * space)
    kernel = weight[2:]
    counts = np.ones((1,) * len(read))
    for axis in range(space):
        sizes = (read[axis + 2], written[axis + 2])
        taps = dilations[axis] * np.arange(kernel[axis])
        pad = _pad(node, axis, sizes, int(taps[-1]), strides[axis])
        coverage = rule(sizes, taps, strides[axis], pad)
        counts = counts * coverage.reshape(-1, *(1,) * (space - 1 - axis))
    groups = int(node.attrs.get("group", 1))
    channels = weight[0] // groups if node.op == "Conv" else weight[1]
    return np.asarray(counts * channels)


def _pad(node: Node, axis: int, sizes: tuple[int, int], reach: int, stride: int) -> int:
    """What is padded in front; `auto_pad` says where the rest goes."""
    space = len(node.inputs[1].values.shape) - 2
    mode = node.attrs.get("auto_pad", "NOTSET")
    if mode == "NOTSET" and not node.attrs.get("output_shape"):
        return int(node.attrs.get("pads", [0] * 2 * space)[axis])
    if mode == "VALID":
        return 0
    small, large = sorted(sizes) if node.op == "Conv" else sizes
    more = node.attrs.get("output_padding", [0] * space)[axis]
    side = "SAME_LOWER" if mode == "NOTSET" else mode  # what is odd, in front
    return same_padding(side, small, large, stride, reach + 1 + more)[0]


def _gathered(sizes: tuple[int, int], taps: Array, stride: int, pad: int) -> Array:
    """Coverage of a convolution's input along one axis."""
    read, written = sizes
    reached = (stride * np.arange(written)[:, None] + taps - pad).reshape(-1)
    inside = reached[(reached >= 0) & (reached < read)]
    return np.bincount(inside, minlength=read)


def _scattered(sizes: tuple[int, int], taps: Array, stride: int, pad: int) -> Array:
    """Coverage of a transposed convolution's input along one axis."""
    read, written = sizes
    reached = stride * np.arange(read)[:, None] + taps - pad
    return np.asarray(((reached >= 0) & (reached < written)).sum(axis=1))


_RULES = {"Conv": _gathered, "ConvTranspose": _scattered}
