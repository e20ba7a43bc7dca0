"""What is recorded of a tensor of both networks, in as few bits as hold it exactly.

Spikes are small whole numbers, and become bit planes: 0/1 spikes take a bit each, those of either
sign two. What half precision holds, such as the spikes of several sizes, takes two bytes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from onnxsnn.arrays import Array

__all__ = ["Packed", "Record", "pack"]

_GLANCE = 2**12  # values that tell of most tensors that they are no spikes


@dataclass(frozen=True)
class Packed:
    """An array in few bits.

    Attributes:
        parts: bit planes of the values less the lowest, the smallest bit first; or the values.
        lowest: the lowest value, where the parts are bit planes; else None.
        shape: of the array.
    """

    parts: tuple[Array, ...]
    lowest: int | None
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """What it takes."""
        return sum(part.nbytes for part in self.parts)

    def full(self) -> Array:
        """The array, float32."""
        if self.lowest is None:
            return self.parts[0].astype(np.float32, copy=False)
        above = np.zeros(math.prod(self.shape), np.uint8)
        for bit, plane in enumerate(self.parts):
            above |= np.unpackbits(plane, count=above.size) << bit
        values = above.astype(np.float32)
        if self.lowest:
            values += self.lowest
        return values.reshape(self.shape)

    def equals(self, other: Packed) -> bool:
        """Whether both are of the same values."""
        if self.lowest != other.lowest or len(self.parts) != len(other.parts):
            return False
        return all(map(np.array_equal, self.parts, other.parts))


@dataclass
class Record:
    """A tensor over the data.

    Attributes:
        currents: of the SNN, by batch and step.
        values: of the ANN, by batch.
    """

    currents: list[list[Packed]]
    values: list[Packed]

    @property
    def bytes(self) -> int:
        """What it takes."""
        return sum(packed.nbytes for packed in [*self.values, *self._distinct.values()])

    @property
    def _distinct(self) -> dict[int, Packed]:
        """The currents by id(): one that stays the same is kept once."""
        return {id(current): current for steps in self.currents for current in steps}

    def add(self, values: Array, currents: Iterable[Array]) -> None:
        """Add a batch: the ANN's values, and the SNN's currents in every step."""
        self.values.append(pack(values))
        steps: list[Packed] = []
        for current in currents:
            packed = pack(current)
            static = bool(steps) and steps[-1].equals(packed)
            steps.append(steps[-1] if static else packed)
        self.currents.append(steps)

    def shift(self, bias: Array) -> None:
        """Add a current to the SNN's, in every step."""
        shifted = {key: pack(packed.full() + bias) for key, packed in self._distinct.items()}
        self.currents = [[shifted[id(current)] for current in steps] for steps in self.currents]

    def of(self, batches: Array) -> Record:
        """The record of some of the batches."""
        currents = [self.currents[batch] for batch in batches]
        return Record(currents, [self.values[batch] for batch in batches])


def pack(values: Array) -> Packed:
    """An array of float32 in as few bits as hold it exactly."""
    small = _exactly(values, np.int8)
    if small is not None:
        lowest = int(small.min(initial=0))
        above = small.view(np.uint8) - np.uint8(lowest % 256)
        bits = int(above.max(initial=0)).bit_length()
        planes = tuple(np.packbits(above >> bit & 1) for bit in range(bits))
        return Packed(planes, lowest, values.shape)
    half = _exactly(values, np.float16)
    return Packed((values if half is None else half,), None, values.shape)


def _exactly(values: Array, dtype: type[np.generic]) -> Array | None:
    """The values as another type; None where it does not hold them."""
    converted: Array | None = None
    with np.errstate(invalid="ignore", over="ignore"):
        for part in (values.reshape(-1)[:_GLANCE], values):  # most show it at once
            converted = part.astype(dtype)
            if not np.array_equal(converted, part):
                return None
    return converted
