"""What a model is fed: name, shape and dtype of each input."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["InputSpec"]

_CHANNELS = (1, 3)


@dataclass(frozen=True)
class InputSpec:
    """One input of a model: its shape has the batch first, and None for a symbolic size."""

    name: str
    shape: tuple[int | None, ...]
    dtype: np.dtype[Any]

    @property
    def takes_floats(self) -> bool:
        """Whether the input is of floating point."""
        return bool(np.issubdtype(self.dtype, np.floating))

    @property
    def channel_axis(self) -> int:
        """Where an image input has its channels: axis 1, unless only the last can be."""
        last_only = len(self.shape) == 4 and self.shape[1] not in _CHANNELS
        return 3 if last_only and self.shape[3] in _CHANNELS else 1
