"""The types of arrays, as annotations name them, and what they can hold."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

__all__ = ["Array", "Floats", "holds"]

Array: TypeAlias = npt.NDArray[Any]
Floats: TypeAlias = npt.NDArray[np.floating[Any]]


def holds(dtype: np.dtype[Any], values: Array) -> bool:
    """Whether an integer dtype holds every value: no fraction, overflow, NaN or infinity."""
    if np.can_cast(values.dtype, dtype):
        return True
    with np.errstate(invalid="ignore"):
        return np.array_equal(values.astype(dtype), values)
