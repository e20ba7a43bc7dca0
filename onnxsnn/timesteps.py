"""A small number of timesteps at which the SNN still says what the ANN does.

Each candidate T is converted for T and run for T. T doubles until the target is met; then
the numbers between the last two are halved, as if more steps were never worse: where they are, a
smaller T may do too.
"""

from __future__ import annotations

from collections.abc import Callable

from onnxsnn.analysis.evaluate import Row, evaluate
from onnxsnn.convert import Conversion
from onnxsnn.data import Dataset
from onnxsnn.errors import UsageError
from onnxsnn.source import Source

__all__ = ["AGREEMENT", "ERROR", "LIMIT", "fewest_timesteps"]

AGREEMENT = 0.99
ERROR = 0.1
LIMIT = 256


def fewest_timesteps(
    source: Source,
    data: Dataset,
    conversion_for: Callable[[int], Conversion],
    agreement: float = AGREEMENT,
    error: float = ERROR,
) -> int | None:
    """A T that meets the target on the data, below which the search found none; None for none.

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

    def meets(timesteps: int) -> bool:
        snn = conversion_for(timesteps).snn
        result = evaluate(snn, data, ann=source, timesteps=timesteps)
        return _meets(result.rows[-1], agreement, error)

    enough = 1
    while not meets(enough):
        if enough == LIMIT:
            return None
        enough *= 2
    short = enough // 2
    while enough - short > 1:
        middle = (short + enough) // 2
        short, enough = (short, middle) if meets(middle) else (middle, enough)
    return enough


def _meets(row: Row, agreement: float, error: float) -> bool:
    if row.agreement is not None:
        return row.agreement >= agreement
    return row.error is not None and row.error <= error
