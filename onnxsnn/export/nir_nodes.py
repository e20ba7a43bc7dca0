"""NIR's nodes for an operation: a rule each, and the weights that they need.

A rule takes NIR's package, the operation, the shape of what it reads, and a factor by which
that must still be multiplied. It gives nodes, one behind the other, and the factor that is
left behind them; None where NIR cannot say the operation. One whose kernel cannot be made
square raises an UnsupportedError.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import replace
from types import ModuleType
from typing import Any

import numpy as np

from onnxsnn.arrays import Array
from onnxsnn.errors import UnsupportedError
from onnxsnn.export.network import Operation
from onnxsnn.graph import per_channel

__all__ = ["RULES", "TAKES_FACTOR", "in_place", "neuron", "scaling"]

_Nodes = tuple[list[Any], float] | None


def neuron(nir: ModuleType, operation: Operation) -> Any:
    """IF with a threshold per neuron, v_reset 0; the metadata say what NIR cannot."""
    threshold, start = (
        np.broadcast_to(operation.arrays[name], operation.shape).astype(np.float32)
        for name in ("threshold", "v0")
    )
    return nir.IF(
        r=np.ones_like(threshold),
        v_threshold=threshold,
        metadata={"reset": "subtract v_threshold", "v0": start},
    )


def scaling(nir: ModuleType, shape: list[int], factor: Array | float) -> Any:
    """A tensor of `shape` times a factor."""
    vector = _per_channel(shape, np.asarray(factor, np.float32))
    if vector is not None:
        return _pointwise(nir, shape, np.diag(vector))
    return nir.Scale(np.broadcast_to(factor, shape).astype(np.float32))


def in_place(
    nir: ModuleType, shape: list[int], channels: int, first: int, factor: float
) -> Any | None:
    """A tensor of `shape`, times a factor, among so many channels, from the `first` on.

    The others are 0. None if NIR cannot say it.
    """
    return _pointwise(nir, shape, np.eye(channels, shape[0], -first) * factor)


def _convolution(nir: ModuleType, operation: Operation, shape: list[int], factor: float) -> _Nodes:
    if len(shape) not in (2, 3):
        return None
    settings = operation.settings
    weight, pads = _square(operation, shape[1:])
    dense = _dense(weight, settings["groups"]) * np.float32(factor)
    steps = settings["strides"], pads, settings["dilations"]
    return [_layer(nir, shape, dense, operation.arrays["bias"], *steps)], 1.0


def _linear(nir: ModuleType, operation: Operation, shape: list[int], factor: float) -> _Nodes:
    if len(shape) != 1:
        return None
    weight = operation.arrays["weight"] * np.float32(factor)
    return [nir.Affine(weight=weight, bias=operation.arrays["bias"].copy())], 1.0


def _average(nir: ModuleType, operation: Operation, shape: list[int], factor: float) -> _Nodes:
    settings = operation.settings
    kernel, pads = settings["kernel"], settings["pads"]
    found = _of_windows(nir, operation, shape, kernel, settings["strides"], pads, factor)
    if found and any(pads) and not settings["include_padding"]:
        shares = _filled(operation, shape[1:])
        found[0].append(nir.Scale(np.broadcast_to(1 / shares, operation.shape).astype(np.float32)))
    return found


def _filled(operation: Operation, sizes: list[int]) -> Array:
    """The share of each window that a pooling has on the data, and not in the pads."""
    settings = operation.settings
    each = zip(sizes, settings["kernel"], settings["strides"], settings["pads"], strict=False)
    shares = []
    for places, (size, kernel, stride, before) in zip(operation.shape[1:], each, strict=True):
        first = stride * np.arange(places) - before
        shares.append((np.minimum(first + kernel, size) - np.maximum(first, 0)) / kernel)
    return np.asarray(functools.reduce(np.multiply.outer, shares))


def _mean(nir: ModuleType, operation: Operation, shape: list[int], factor: float) -> _Nodes:
    sizes = shape[1:]
    pads = [0] * (2 * len(sizes))
    if operation.settings["axes"] != list(range(1, len(shape))):
        return None
    found = _of_windows(nir, operation, shape, sizes, sizes, pads, factor)
    if found and not operation.settings["keepdims"]:
        found[0].append(_flatten(nir, [shape[0], *[1] * len(sizes)]))
    return found


def _of_windows(
    nir: ModuleType,
    operation: Operation,
    shape: list[int],
    kernel: list[int],
    strides: list[int],
    pads: list[int],
    factor: float,
) -> _Nodes:
    """Means over windows, of each channel; zeros in the pads count."""
    if len(kernel) == 2 and pads[:2] == pads[2:]:
        return [_sum_pool(nir, kernel, strides, pads[:2])], factor / math.prod(kernel)
    each = np.full((shape[0], 1, *kernel), 1 / math.prod(kernel), np.float32)
    arrays = {"weight": each, "bias": np.zeros(len(each), np.float32)}
    settings = {
        "strides": strides,
        "pads": pads,
        "dilations": [1] * len(kernel),
        "groups": len(each),
    }
    return _convolution(nir, replace(operation, settings=settings, arrays=arrays), shape, factor)


def _pad(nir: ModuleType, operation: Operation, shape: list[int], factor: float) -> _Nodes:
    pads = operation.settings["pads"]
    if min(pads) < 0:
        return None
    matrix = np.eye(operation.shape[0], shape[0], -pads[0], dtype=np.float32)
    if len(shape) == 1:
        return _mixed(nir, shape, matrix, factor)
    ones = [1] * (len(shape) - 1)
    around = [*pads[1 : len(shape)], *pads[len(shape) + 1 :]]
    settings = {"strides": ones, "dilations": ones, "groups": 1, "pads": around}
    arrays = {
        "weight": matrix.reshape(*matrix.shape, *ones),
        "bias": np.zeros(len(matrix), np.float32),
    }
    return _convolution(nir, replace(operation, settings=settings, arrays=arrays), shape, factor)


def _slice(nir: ModuleType, operation: Operation, shape: list[int], factor: float) -> _Nodes:
    starts, steps = operation.settings["starts"], operation.settings["steps"]
    if shape[1:] != operation.shape[1:] or any(starts[1:]):
        return None
    places = starts[0] + steps[0] * np.arange(operation.shape[0])
    return _mixed(nir, shape, np.eye(shape[0])[places], factor)


def _take(nir: ModuleType, operation: Operation, shape: list[int], factor: float) -> _Nodes:
    indices = operation.arrays["indices"]
    if operation.settings["axis"] or not indices.ndim:
        return None
    return _mixed(nir, shape, np.eye(shape[0])[indices], factor)


def _mixed(nir: ModuleType, shape: list[int], matrix: Array, factor: float) -> _Nodes:
    """The channels of a tensor through a matrix, times a factor."""
    node = _pointwise(nir, shape, matrix * factor)
    return None if node is None else ([node], 1.0)


def _reshape(nir: ModuleType, operation: Operation, shape: list[int], factor: float) -> _Nodes:
    if shape == operation.shape:
        return [], factor
    return ([_flatten(nir, shape)], factor) if len(operation.shape) == 1 else None


def _scale(nir: ModuleType, operation: Operation, shape: list[int], factor: float) -> _Nodes:
    if shape != operation.shape:
        return None
    return [scaling(nir, shape, operation.arrays["scale"])], factor


def _shift(nir: ModuleType, operation: Operation, shape: list[int], factor: float) -> _Nodes:
    shift = operation.arrays["shift"]
    if shape != operation.shape:
        return None
    vector = shift if len(shape) == 1 else _per_channel(shape, shift)
    return None if vector is None else ([_pointwise(nir, shape, np.eye(shape[0]), vector)], factor)


RULES: dict[str, Callable[[ModuleType, Operation, list[int], float], _Nodes]] = {
    "Conv": _convolution,
    "Linear": _linear,
    "AveragePool": _average,
    "Mean": _mean,
    "Pad": _pad,
    "Reshape": _reshape,
    "Scale": _scale,
    "Shift": _shift,
    "Slice": _slice,
    "Take": _take,
}
"""By canonical operator."""

TAKES_FACTOR = frozenset(
    {"Conv", "Linear", "AveragePool", "Mean", "Pad", "Reshape", "Slice", "Take"}
)
"""What takes a factor into its weights, or lets it wait behind; the others read no factor."""


def _sum_pool(nir: ModuleType, kernel: list[int], strides: list[int], pads: list[int]) -> Any:
    return nir.SumPool2d(
        kernel_size=np.array(kernel), stride=np.array(strides), padding=np.array(pads)
    )


def _flatten(nir: ModuleType, shape: list[int]) -> Any:
    return nir.Flatten(input_type={"input": np.array(shape)}, start_dim=0, end_dim=-1)


def _pointwise(
    nir: ModuleType, shape: list[int], matrix: Array, shift: Array | float = 0.0
) -> Any | None:
    """The channels of a tensor [channels, *sizes] through a matrix, plus a shift.

    None of one of more than two sizes.
    """
    bias = np.broadcast_to(shift, len(matrix)).astype(np.float32)
    weight = matrix.astype(np.float32)
    if len(shape) == 1:
        return nir.Affine(weight=weight, bias=bias)
    if len(shape) > 3:
        return None
    ones = [1] * (len(shape) - 1)
    return _layer(
        nir, shape, weight.reshape(*weight.shape, *ones), bias, ones, [0] * len(ones), ones
    )


def _layer(
    nir: ModuleType,
    shape: list[int],
    weight: Array,
    bias: Array,
    strides: list[int],
    pads: list[int],
    dilations: list[int],
) -> Any:
    """A convolution over one axis or two, padded alike on both sides."""
    node, sizes = (nir.Conv1d, _only) if len(shape) == 2 else (nir.Conv2d, tuple)
    return node(
        input_shape=sizes(shape[1:]),
        weight=weight,
        stride=sizes(strides),
        padding=sizes(pads),
        dilation=sizes(dilations),
        groups=1,
        bias=bias,
    )


def _only(sizes: list[int]) -> int:
    (size,) = sizes
    return size


def _per_channel(shape: list[int], values: Array) -> Array | None:
    """`values`, broadcast against [channels, *sizes], as a vector; None if they are none."""
    return per_channel(values, len(shape), 0, shape[0]) if len(shape) in (2, 3) else None


def _dense(weight: Array, groups: int) -> Array:
    """The weight [outputs, inputs, *kernel] of a grouped convolution, zeros between groups."""
    rows, columns = len(weight) // groups, weight.shape[1]
    dense = np.zeros((len(weight), columns * groups, *weight.shape[2:]), weight.dtype)
    for group in range(groups):
        own = slice(group * rows, (group + 1) * rows)
        dense[own, group * columns : (group + 1) * columns] = weight[own]
    return dense


def _square(operation: Operation, sizes: list[int]) -> tuple[Array, list[int]]:
    """The same convolution with a square kernel, padded alike on both sides, by taps of zero.

    NIR's package computes what comes of every axis from the length of the kernel's first.

    Raises:
        UnsupportedError: there are no such taps.
    """
    weight, settings = operation.arrays["weight"], operation.settings
    kernel, pads, dilations = weight.shape[2:], settings["pads"], settings["dilations"]
    before, behind = pads[: len(kernel)], pads[len(kernel) :]
    axes = [*zip(sizes, kernel, before, behind, dilations, settings["strides"], strict=True)]
    longest = max(kernel)
    for length in range(longest, longest + max(pads) + 3):  # one more each for parity and rounding
        taps = [pair for axis in axes if (pair := _taps(length, *axis)) is not None]
        if len(taps) == len(axes):
            fronts = [front for front, _ in taps]
            padded = np.pad(weight, [(0, 0), (0, 0), *taps])
            return padded, [b + f * d for b, f, d in zip(before, fronts, dilations, strict=True)]
    raise UnsupportedError(
        f"{operation}: no taps of zero make its kernel {list(kernel)} with pads {pads} square and "
        "padded alike on both sides, as NIR needs it; use a square kernel and equal pads there in "
        "the source model"
    )


def _taps(
    length: int, size: int, kernel: int, before: int, behind: int, dilation: int, stride: int
) -> tuple[int, int] | None:
    """Taps in front and behind that make a kernel so long, the front ones padded on both sides.

    None where that would give another number of places.
    """
    room = size - dilation * (kernel - 1) - 1
    places = (room + before + behind) // stride
    for front in range(length - kernel + 1):
        taps = front, length - kernel - front
        if (room + 2 * before + dilation * (front - taps[1])) // stride == places:
            return taps
    return None
