"""Streaming statistics per channel: a histogram whose range grows with the data.

Bin i of channel c counts the values in `[i * width_c, (i+1) * width_c)`, `width_c` a power
of two. When a value lies beyond the last bin, pairs of bins merge and the width doubles;
as all edges are multiples of powers of two, nothing is moved to a wrong bin, and the
histograms of channels, and of batches, add up exactly.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from onnxsnn.arrays import Array, Floats
from onnxsnn.errors import OVERFLOW, DataError
from onnxsnn.parallel import over_channels

__all__ = ["BINS", "ChannelStatistics"]

BINS = 1024
_NARROWEST = -120  # the exponent below which float32 could not hold a value in bins
_HUGE = 2.0**100  # sums of such values over channels and timesteps would overflow float32
_EMPTY = np.iinfo(np.int32).min  # the exponent of a channel without positive values


class ChannelStatistics:
    """Statistics of one layer's pre-activation z, per channel.

    Attributes:
        signed: whether magnitudes are counted, of values of either sign; else only positive
            values are.
        counts: values per bin, float64 [C, BINS].
        exponent: `width = 2 ** exponent`, int [C].
        maximum: the greatest value or magnitude, at least 0, float64 [C].
        total: number of values per channel, the others than positive included.
        sum: sum of z, float64 [C]; `sum_of_squares` likewise.
    """

    def __init__(self, channels: int, signed: bool = False) -> None:
        self.signed = signed
        self.counts = np.zeros((channels, BINS))
        self.exponent = np.full(channels, _EMPTY, np.int32)
        self.maximum = np.zeros(channels)
        self.total = 0
        self.sum = np.zeros(channels)
        self.sum_of_squares = np.zeros(channels)

    @property
    def channels(self) -> int:
        """Number of channels C."""
        return len(self.counts)

    @property
    def active(self) -> npt.NDArray[np.bool_]:
        """Which channels have seen a value to count, [C]."""
        active: npt.NDArray[np.bool_] = self.exponent != _EMPTY
        return active

    @property
    def width(self) -> Floats:
        """Width of the bins, [C]; 1 for a channel that has seen nothing."""
        return np.ldexp(1.0, np.where(self.active, self.exponent, 0))

    @property
    def centres(self) -> Floats:
        """The activation that stands for each bin, [C, BINS]."""
        return (np.arange(BINS) + 0.5) * self.width[:, None]

    def rates(self, threshold: Array) -> Floats:
        """The firing rate `min(a / theta, 1)` of each bin, [C, BINS], for C thresholds."""
        return np.minimum(self.centres / threshold.reshape(-1, 1), 1.0)

    @property
    def mean(self) -> Floats:
        """Mean of z, [C]."""
        return self.sum / max(self.total, 1)

    @property
    def std(self) -> Floats:
        """Standard deviation of z, [C]."""
        variance = self.sum_of_squares / max(self.total, 1) - self.mean**2
        return np.sqrt(np.maximum(variance, 0.0))

    def update(self, values: Floats) -> None:
        """Count values, [C, any number].

        Raises:
            DataError: a value is not finite, or counts and is so large that sums would not be.
        """
        over_channels(lambda rows: self._update(rows, values[rows]), *values.shape)
        self.total += values.shape[1]

    def _update(self, rows: slice, values: Floats) -> None:
        """Count the values of some channels."""
        highest = values.max(axis=1, initial=0.0)
        lowest = values.min(axis=1, initial=0.0)
        highest = np.maximum(highest, -lowest) if self.signed else highest
        if not (highest < _HUGE).all() or not np.isfinite(lowest).all():
            raise DataError(OVERFLOW)
        self.maximum[rows] = np.maximum(self.maximum[rows], highest)
        self.sum[rows] += values.sum(axis=1, dtype=np.float64)
        self.sum_of_squares[rows] += np.einsum("cn,cn->c", values, values, dtype=np.float64)
        self._grow(rows, highest)
        self._count(rows, np.abs(values) if self.signed else values)

    def merged(self) -> ChannelStatistics:
        """The statistics of all channels as one: a layer's."""
        layer = ChannelStatistics(1, self.signed)
        layer.maximum[0] = self.maximum.max()
        layer.total = self.total * self.channels
        layer.sum[0], layer.sum_of_squares[0] = self.sum.sum(), self.sum_of_squares.sum()
        if self.active.any():
            aligned = self._copy()
            aligned._widen(slice(None), np.full(self.channels, self.exponent.max()))
            layer.exponent[0] = self.exponent.max()
            layer.counts[0] = aligned.counts[self.active].sum(axis=0)
        return layer

    def _copy(self) -> ChannelStatistics:
        copy = ChannelStatistics(self.channels, self.signed)
        copy.counts, copy.exponent = self.counts.copy(), self.exponent.copy()
        return copy

    def _grow(self, rows: slice, highest: Floats) -> None:
        """Widen the bins of the channels in which `highest` lies beyond the last bin."""
        needed = np.frexp(highest)[1] - int(np.log2(BINS))  # the range is 2**exponent * BINS
        needed = np.where(highest > 0, np.maximum(needed, _NARROWEST), _EMPTY)
        self._widen(rows, np.maximum(self.exponent[rows], needed))

    def _widen(self, rows: slice, wanted: npt.NDArray[np.int32]) -> None:
        exponent, counts = self.exponent[rows], self.counts[rows]
        fresh = exponent == _EMPTY
        exponent[fresh] = wanted[fresh]
        while (narrow := wanted > exponent).any():
            finer = counts[narrow]
            counts[narrow] = 0.0
            counts[narrow, : BINS // 2] = finer[:, ::2] + finer[:, 1::2]
            exponent[narrow] += 1

    def _count(self, rows: slice, values: Floats) -> None:
        exponent, counts = self.exponent[rows], self.counts[rows]
        scale = np.ldexp(values.dtype.type(1), -np.where(exponent != _EMPTY, exponent, 0))
        bins = np.minimum(np.maximum(values, 0) * scale[:, None], BINS - 1).astype(np.int32)
        bins += BINS * np.arange(len(counts), dtype=np.int32)[:, None]
        positive = bins.ravel()[np.flatnonzero(values > 0)]
        counts += np.bincount(positive, minlength=counts.size).reshape(counts.shape)
