"""A small number of timesteps at which the SNN still says what the ANN does.

Each candidate T is converted for T and run for T. T doubles until the target is met; then
the numbers between the last two are halved, as if more steps were never worse: where they are, a
smaller T may do too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from onnxsnn.analysis.evaluate import Row, evaluate
from onnxsnn.convert import Conversion
from onnxsnn.data import Dataset
from onnxsnn.errors import UsageError
from onnxsnn.source import Source

__all__ = ["AGREEMENT", "ERROR", "LIMIT", "Found", "fewest_timesteps"]

AGREEMENT = 0.99
ERROR = 0.1
LIMIT = 256


@dataclass(frozen=True)
class Found:
    """What the search ends with.

    Attributes:
        conversion: for a T that meets the target, below which the search found none; for LIMIT
            where none does.
        is_enough: whether it meets the target.
    """

    conversion: Conversion
    is_enough: bool


def fewest_timesteps(
    source: Source,
    data: Dataset,
    conversion_for: Callable[[int], Conversion],
    agreement: float = AGREEMENT,
    error: float = ERROR,
) -> Found:
    """The conversion for the smallest T that meets the target on the data, as far as was searched.

    Args:
        source: the trained network.
        data: unlabelled samples.
        conversion_for: converts the network for a given T.
        agreement: the share of samples that must keep the ANN's class.
        error: where the outputs are no classes, the relative error that is allowed.

    Raises:
        UsageError: agreement or error lies outside of (0, 1].
    """
    if not (0 < agreement <= 1 and 0 < error <= 1):
        raise UsageError("agreement and error are shares: more than 0, and 1 at most")

    def tried(timesteps: int) -> Found:
        conversion = conversion_for(timesteps)
        result = evaluate(conversion.snn, data, ann=source, timesteps=timesteps)
        return Found(conversion, _meets(result.rows[-1], agreement, error))

    enough, best = 1, tried(1)
    while not best.is_enough and enough < LIMIT:
        enough *= 2
        best = tried(enough)
    short = enough // 2
    while best.is_enough and enough - short > 1:
        middle = (short + enough) // 2
        found = tried(middle)
        if found.is_enough:
            enough, best = middle, found
        else:
            short = middle
    return best


def _meets(row: Row, agreement: float, error: float) -> bool:
    if row.agreement is not None:
        return row.agreement >= agreement
    return row.error is not None and row.error <= error
