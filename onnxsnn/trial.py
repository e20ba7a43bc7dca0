"""What a graph is tried on to see whether a change keeps what it gives, and whether it does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from onnxsnn.arrays import Array

__all__ = ["agree", "trial_values"]


def trial_values(random: np.random.Generator, shape: Sequence[int], dtype: Any) -> Array:
    """Fractions for floats, zeros and ones for other types: an input that every graph takes."""
    floats = np.issubdtype(np.dtype(dtype), np.floating)
    values = random.random(shape) if floats else random.integers(0, 2, shape)
    return np.asarray(values, dtype)


def agree(values: Array, others: Array) -> bool:
    """Whether two arrays are of one shape, and the same up to rounding."""
    alike = values.shape == others.shape
    return alike and np.allclose(values, others, rtol=1e-3, atol=1e-5, equal_nan=True)
