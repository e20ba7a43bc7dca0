"""What the outputs of a layer of weights see of its input: one row per sample and position.

    Conv              row = the inputs under the kernel, channel by channel
    ConvTranspose     row = the same under the kernel turned round, of inputs with zeros in between
    Gemm, MatMul      row = the last axis

so that the layer's output there is `row @ weights`, group by group.
"""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from onnxsnn.arrays import Array, Floats
from onnxsnn.padding import same_paddings
from onnxsnn.weights import WeightLayer

__all__ = [
    "by_group",
    "by_position",
    "change_weights",
    "fan_in",
    "has_patches",
    "outputs_of",
    "patches",
    "rows_apart",
]


_CONVOLUTIONS = {"Conv", "ConvTranspose"}


def has_patches(layer: WeightLayer) -> bool:
    """Whether the layer is of a kind whose rows are known here."""
    attributes = layer.node.attrs
    if layer.node.op == "ConvTranspose":
        given = attributes.get("auto_pad", "NOTSET") == "NOTSET"
        return given and "output_shape" not in attributes and bool(np.min(_around(layer)) >= 0)
    return layer.node.op in ("Conv", "Gemm", "MatMul")


def fan_in(layer: WeightLayer) -> int:
    """Inputs of one output."""
    return layer.weight.size // layer.outputs


def rows_apart(layer: WeightLayer) -> int:
    """Every how many rows hold an input: the others of a ConvTranspose have zeros in between."""
    strides = layer.node.attrs.get("strides", []) if layer.node.op == "ConvTranspose" else []
    return int(np.prod(strides, dtype=np.int64))


def by_position(layer: WeightLayer, values: Array) -> Array:
    """Outputs of a layer as [samples, positions, outputs]."""
    last = np.moveaxis(values, layer.output_axis(values.ndim), -1)
    return last.reshape(len(last), -1, layer.outputs)


def by_group(layer: WeightLayer, values: Array) -> Array:
    """Outputs of a layer, [rows, outputs], as [groups, rows, outputs of a group]."""
    each = layer.outputs // layer.groups
    return values.reshape(len(values), layer.groups, each).swapaxes(0, 1)


def patches(layer: WeightLayer, values: Array, samples: Array, positions: Array) -> Floats:
    """Rows of what a layer reads, [groups, rows, inputs of an output].

    Args:
        layer: the layer.
        values: its input, first axis the sample.
        samples: of each row, [rows].
        positions: of each row among the positions of `by_position`, [rows].
    """
    if layer.node.op not in _CONVOLUTIONS:
        rows: Floats = values.reshape(len(values), -1, layer.inputs)[samples, positions]
        return rows[None]
    windows = _windows(layer, values)  # [N, *positions, C, *kernel]
    axes = values.ndim - 2
    where = np.unravel_index(positions, windows.shape[1 : 1 + axes])
    rows = windows[(samples, *where)].reshape(len(samples), layer.groups, fan_in(layer))
    return rows.swapaxes(0, 1)


def outputs_of(layer: WeightLayer, rows: Floats) -> Floats:
    """What a layer gives for such rows, [groups, rows, outputs / groups]."""
    weights = layer.rows.reshape(layer.groups, -1, fan_in(layer)).swapaxes(1, 2)
    given: Floats = rows @ weights + layer.bias.reshape(layer.groups, 1, -1)
    return given


def change_weights(layer: WeightLayer, change: Floats) -> None:
    """Add to the weights what is in the order of rows, [groups, inputs, outputs / groups]."""
    layer.change_rows(change.swapaxes(1, 2).reshape(layer.outputs, -1))


def _windows(layer: WeightLayer, values: Array) -> Array:
    """A view of all windows of a convolution, [N, *positions, C, *kernel]."""
    axes = values.ndim - 2
    strides, dilations = (layer.node.attrs.get(n, [1] * axes) for n in ("strides", "dilations"))
    if layer.node.op == "ConvTranspose":
        values, padding = _apart(values, strides), _around(layer)
        strides, dilations = [1] * axes, [-dilation for dilation in dilations]
    else:
        padding = _padding(layer, values.shape[2:])
    padded = np.pad(values, [(0, 0), (0, 0), *padding])
    windows = sliding_window_view(padded, _extents(layer), axis=tuple(range(2, 2 + axes)))
    steps = [slice(None, None, stride) for stride in strides]
    taps = [slice(None, None, dilation) for dilation in dilations]
    view = windows[(slice(None), slice(None), *steps, *taps)]
    return np.moveaxis(view, 1, 1 + axes)


def _extents(layer: WeightLayer) -> list[int]:
    """How far a kernel reaches along each axis of space."""
    kernel = layer.weight.shape[2:]
    dilations = layer.node.attrs.get("dilations", [1] * len(kernel))
    return [d * (k - 1) + 1 for d, k in zip(dilations, kernel, strict=True)]


def _apart(values: Array, strides: list[int]) -> Array:
    """Values that lie so far apart, with zeros between them."""
    sizes = [s * (n - 1) + 1 for s, n in zip(strides, values.shape[2:], strict=True)]
    result = np.zeros((*values.shape[:2], *sizes), values.dtype)
    result[(slice(None), slice(None), *(slice(None, None, stride) for stride in strides))] = values
    return result


def _around(layer: WeightLayer) -> list[tuple[int, int]]:
    """Zeros around what a ConvTranspose reads, before and behind each axis of space."""
    extents = _extents(layer)
    more = layer.node.attrs.get("output_padding", [0] * len(extents))
    sides = zip(extents, _pads(layer, len(extents)), more, strict=True)
    return [(e - 1 - first, e - 1 - last + m) for e, (first, last), m in sides]


def _pads(layer: WeightLayer, axes: int) -> list[tuple[int, int]]:
    """The paddings that a layer is given, before and behind each axis of space."""
    pads = layer.node.attrs.get("pads", [0] * 2 * axes)
    return list(zip(pads[:axes], pads[axes:], strict=True))


def _padding(layer: WeightLayer, sizes: tuple[int, ...]) -> list[tuple[int, int]]:
    """Zeros before and behind each axis of space."""
    axes = len(sizes)
    kind = layer.node.attrs.get("auto_pad", "NOTSET")
    if kind == "NOTSET":
        return _pads(layer, axes)
    if kind == "VALID":
        return [(0, 0)] * axes
    return same_paddings(layer.node, layer.weight.shape[2:], sizes)
