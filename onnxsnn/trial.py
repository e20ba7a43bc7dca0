"""What a graph is tried on to see whether a change keeps what it gives, and whether it does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx

from onnxsnn.arrays import Array
from onnxsnn.errors import OnnxSnnError
from onnxsnn.session import Session

__all__ = ["agree", "same_but_for_axes", "trial_values"]


def trial_values(random: np.random.Generator, shape: Sequence[int], dtype: Any) -> Array:
    """Fractions for floats, zeros and ones for other types: an input that every graph takes."""
    floats = np.issubdtype(np.dtype(dtype), np.floating)
    values = random.random(shape) if floats else random.integers(0, 2, shape)
    return np.asarray(values, dtype)


def agree(values: Array, others: Array) -> bool:
    """Whether two arrays are of one shape, and the same up to rounding."""
    alike = values.shape == others.shape
    return alike and np.allclose(values, others, rtol=1e-3, atol=1e-5, equal_nan=True)


def same_but_for_axes(
    model: onnx.ModelProto, changed: onnx.ModelProto, feeds: Mapping[str, Array]
) -> bool:
    """Whether a changed model gives the same numbers; also where the model takes no such feeds."""
    try:
        before = Session(model).run(feeds)
    except OnnxSnnError:
        return True
    try:
        after = Session(changed).run(feeds)
    except OnnxSnnError:
        return False
    return all(agree(after[name].ravel(), values.ravel()) for name, values in before.items())
