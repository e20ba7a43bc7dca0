"""Weights of whole numbers in blocks, each with a scale and a zero point of its own.

Blocks lie along one axis; the last of them may be shorter. ONNX Runtime packs numbers of 2 and 4
bits: a byte holds several along the last axis, the first in its lowest bits.
"""

from __future__ import annotations

import numpy as np

from onnxsnn.arrays import Array

__all__ = ["by_block", "packed_by_block"]


def by_block(values: Array, scale: Array, zero: Array | None, axis: int, block: int) -> Array:
    """The real numbers (q - zero) scale; a zero point that is left out is 0."""
    place = np.arange(values.shape[axis]) // block
    nothing = np.float32(0) if zero is None else zero.take(place, axis).astype(np.float32)
    real: Array = (values.astype(np.float32) - nothing) * scale.take(place, axis)
    return real


def packed_by_block(
    values: Array, scale: Array, zero: Array | None, axis: int, block: int, bits: int
) -> Array:
    """The same of packed numbers; zero points are packed too, or real, or the middle."""
    if zero is None:
        zero = np.full(scale.shape, 2 ** (bits - 1))
    elif zero.dtype == np.uint8:
        zero = _unpacked(zero, bits)[..., : scale.shape[-1]]
    return by_block(_unpacked(values, bits), scale, zero, axis, block)


def _unpacked(values: Array, bits: int) -> Array:
    """The numbers in bytes."""
    shifts = np.arange(0, 8, bits, dtype=np.uint8)
    each = values[..., None] >> shifts & np.uint8(2**bits - 1)
    return each.reshape(*values.shape[:-1], -1)
