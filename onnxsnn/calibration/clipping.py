r"""What thresholds clip, of all data and of what data do not show.

Of n values, the next one is the largest so far with probability 1 / (n + 1), and what it exceeds
the others by is about exponential (Pickands, Annals of Statistics 1975), with the mean beta that
the largest sqrt(n) of them exceed the least of these by. A threshold of least error on what was
seen alone lies at its maximum m where there are many timesteps, and clips whatever comes above; so
a value that was not seen is counted among the others, with the squared error

    E[max(m + X - theta, 0)^2] = (m - theta)^2 + 2 (m - theta) beta + 2 beta^2   up to theta = m,
                                 2 beta^2 exp(-(theta - m) / beta)               beyond.

Of many samples, it is nothing beside them.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from onnxsnn.arrays import Array, Floats
from onnxsnn.calibration.statistics import BINS, ChannelStatistics

__all__ = ["Clipping", "unseen"]

_WEIGHT = 0.3  # of the value that was not seen, as most tails end sooner
_LEAST = 1e-6  # of beta, in thresholds: a tail of nothing has an error of nothing


def unseen(statistics: ChannelStatistics, threshold: Floats) -> Floats:
    """The squared error of what was not seen, for thresholds [C, any]."""
    return _tail_error(statistics.maximum[:, None], _excess(statistics)[:, None], threshold)


def _excess(statistics: ChannelStatistics) -> Floats:
    """beta, [C]: what the largest values exceed the least of them by."""
    count = int(np.ceil(np.sqrt(statistics.total)))
    reached = np.cumsum(statistics.counts[:, ::-1], axis=1)[:, ::-1]
    least = np.maximum((reached >= count).sum(axis=1, keepdims=True) - 1, 0)
    above = np.maximum(np.arange(BINS) - least, 0)
    excess: Floats = (statistics.counts * above).sum(axis=1) / count * statistics.width
    return excess


def _tail_error(maximum: Floats, excess: Floats, threshold: Floats) -> Floats:
    """The formula above, weighted."""
    missing = maximum - threshold
    below, beyond = np.maximum(missing, 0), np.minimum(missing, 0)
    excess = np.maximum(excess, _LEAST * threshold)
    error: Floats = below**2 + 2 * excess * (below + excess * np.exp(beyond / excess))
    return _WEIGHT * error


@dataclass(frozen=True)
class Clipping:
    """The mean squared error of what is clipped, as a function of the most that is emitted.

    Attributes:
        counts: values in a bin and those above, [C, BINS + 1]; `sums` and `squares` of them.
        width: of the bins, [C].
        maximum: m, or what the activation itself clips at, [C].
        excess: beta, [C].
        total: values per channel, [C].
    """

    counts: Floats
    sums: Floats
    squares: Floats
    width: Floats
    maximum: Floats
    excess: Floats
    total: Floats

    @classmethod
    def of(cls, statistics: ChannelStatistics, limit: Array) -> Clipping:
        """What thresholds would clip of an activation, clipped at a limit itself, one or [C]."""
        limits = np.broadcast_to(limit.reshape(-1).astype(np.float64), (statistics.channels,))
        highest = np.minimum(statistics.maximum, limits)
        centres = np.minimum(statistics.centres, highest[:, None])
        counts, sums, squares = (
            _from_above(statistics.counts * centres**power) for power in range(3)
        )
        return cls(
            counts,
            sums,
            squares,
            width=statistics.width,
            maximum=highest,
            excess=np.where(highest < limits, _excess(statistics), 0.0),
            total=np.full(statistics.channels, float(max(statistics.total, 1))),
        )

    def __getitem__(self, rows: slice) -> Clipping:
        """That of some channels."""
        return Clipping(*(getattr(self, each.name)[rows] for each in fields(self)))

    def error(self, greatest: Floats) -> Floats:
        """Of what is clipped at the most that is emitted, [C]."""
        first = np.clip(np.ceil(greatest / self.width - 0.5), 0, BINS).astype(np.int64)
        first = np.where(greatest < self.maximum, first, BINS)[:, None]
        count, total, squares = (
            np.take_along_axis(moment, first, axis=1)[:, 0]
            for moment in (self.counts, self.sums, self.squares)
        )
        seen = squares - 2 * greatest * total + greatest**2 * count
        error: Floats = (seen + _tail_error(self.maximum, self.excess, greatest)) / self.total
        return error


def _from_above(values: Floats) -> Floats:
    """Sums over each bin and those above, and of none, [C, BINS + 1]."""
    sums: Floats = np.pad(np.cumsum(values[:, ::-1], axis=1)[:, ::-1], ((0, 0), (0, 1)))
    return sums
