"""What a model is fed: name, shape and dtype of each input."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from onnxsnn.arrays import Array

__all__ = ["InputSpec", "scalar_problem"]

_CHANNELS = (1, 3)


@dataclass(frozen=True)
class InputSpec:
    """One input of a model.

    Attributes:
        name: of the tensor.
        shape: the batch first, and None for a symbolic size.
        dtype: of its values.
        knows_nan: whether the model has a rule for NaN, which says that a value is missing.
    """

    name: str
    shape: tuple[int | None, ...]
    dtype: np.dtype[Any]
    knows_nan: bool = False

    @property
    def takes_floats(self) -> bool:
        """Whether the input is of floating point."""
        return bool(np.issubdtype(self.dtype, np.floating))

    def fits(self, values: Array) -> bool:
        """Whether samples have the sizes that the input takes, where it fixes them."""
        return 0 < values.ndim == len(self.shape) and all(
            wanted in (None, size)
            for wanted, size in zip(self.shape[1:], values.shape[1:], strict=True)
        )

    @property
    def channel_axis(self) -> int:
        """Where an image input has its channels: axis 1, unless only the last can be.

        That is one of 1 or 3 channels, or of fewer than the height and width, which are equal.
        """
        if len(self.shape) != 4 or self.shape[1] in _CHANNELS:
            return 1
        height, width, last = self.shape[1:]
        is_fewest = height is not None and last is not None and height == width and last < height
        return 3 if last in _CHANNELS or is_fewest else 1


def scalar_problem(name: str) -> str:
    """What is wrong with an input that has no axis of samples, and what to do."""
    return (
        f"input {name!r} takes a single number, and none for each sample; make it a constant: "
        f"onnxsnn fix-inputs MODEL {name}=NUMBER"
    )
