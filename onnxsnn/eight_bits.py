"""Whole numbers of 8 bits: the weights of a layer, and the grid of the currents that they make.

A channel's weights are `scale * n` with whole n, |n| <= 127. The sums that spikes make of them
are then whole numbers of `scale` too, and they are sent on as bytes: in steps of `scale`, where
all of a channel's sums fit, and else in the fewest whole multiples of it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from onnxsnn.arrays import Array

__all__ = ["MIDDLE", "Grid", "are_whole", "fits_byte", "grid_of", "whole_weights"]

MIDDLE = 128  # the zero point of currents on the wire
_MOST = 127
_BYTE = 255
_WHOLE = 1e-3  # how far from whole numbers weights may lie that are meant to be
_FIRST = 32  # weights of a channel that mostly tell that it has no unit


@dataclass(frozen=True)
class Grid:
    """How the sums of a layer's channels become bytes: `MIDDLE + shift + round(sum / step)`.

    Attributes:
        step: [C], whole numbers.
        shift: [C], whole numbers, so that the sums lie around MIDDLE.
    """

    step: Array
    shift: Array


def whole_weights(rows: Array) -> tuple[Array, Array]:
    """Weights as whole numbers times one scale per row.

    A row whose weights are all multiples of one number, and none more than 127 of it, keeps
    its weights exactly; any other is rounded to 127ths of its greatest weight.

    Args:
        rows: [C, n], float.

    Returns:
        the whole numbers [C, n], int8, and the scales [C], float64.
    """
    rows = rows.astype(np.float64)
    scales = np.array([_unit(row) or np.abs(row).max() / _MOST for row in rows])
    return np.rint(rows / scales[:, None]).astype(np.int8), scales


def are_whole(rows: Array) -> bool:
    """Whether every row [C, n] keeps its weights exactly, as whole numbers times a scale."""
    return all(_unit(row) is not None for row in rows.astype(np.float64))


def _unit(row: Array) -> float | None:
    """What a row's weights are multiples of, none more than 127 of it; None if there is none."""
    top = float(np.abs(row).max(initial=0.0))
    if top == 0.0:
        return 1.0
    counts = np.arange(1, _MOST + 1)  # the greatest weight, in units
    for values in (row[:_FIRST], row):
        multiples = np.outer(counts, values / top)
        counts = counts[np.abs(multiples - np.rint(multiples)).max(axis=1) <= _WHOLE]
        if not counts.size:
            return None
    return top / float(counts[0])


def _sums_between(weights: Array, least: int, most: int) -> tuple[Array, Array]:
    """The least and the greatest sum [C] that spikes between two bounds make of weights [C, n]."""
    wide = weights.astype(np.int64)
    positive, negative = np.maximum(wide, 0).sum(axis=1), np.minimum(wide, 0).sum(axis=1)
    return most * negative + least * positive, most * positive + least * negative


def fits_byte(weights: Array, least: int, most: int, grid: Grid) -> bool:
    """Whether a byte holds every sum that could come up, with nothing rounded or clipped."""
    low, high = (MIDDLE + grid.shift + sums for sums in _sums_between(weights, least, most))
    return bool(np.all((grid.step == 1) & (low >= 0) & (high <= _BYTE)))


def grid_of(weights: Array, least: int, most: int, seen: tuple[Array, Array]) -> Grid:
    """The finest grid of whole steps on which a layer's sums fit into a byte.

    Args:
        weights: [C, n], the weights that each channel sums over, whole numbers.
        least, most: what a spike can be, as whole numbers.
        seen: the least and the greatest sum [C] that came up in calibration; what is beyond
            them is clipped, unless no sum at all could be beyond a byte.
    """
    lowest, highest = _sums_between(weights, least, most)
    fits = highest - lowest <= _BYTE
    low = np.where(fits, lowest, np.clip(np.floor(seen[0]), lowest, 0))
    high = np.where(fits, highest, np.clip(np.ceil(seen[1]), 0, highest))
    step = np.maximum(np.ceil((high - low) / _BYTE), 1)
    return Grid(step, np.clip(np.floor(-(low + high) / (2 * step)), -MIDDLE, MIDDLE - 1))
