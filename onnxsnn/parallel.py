"""Work on the channels of a layer, on as many cores as there are."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

__all__ = ["over_channels"]

_VALUES = 2**16  # of a block: few enough to stay in a core's cache, and enough for a thread

Result = TypeVar("Result")


def over_channels(work: Callable[[slice], Result], channels: int, values: int) -> list[Result]:
    """What `work` gives for blocks of channels, in order.

    NumPy's loops run side by side, as they give up the interpreter's lock.

    Args:
        work: is given the channels of a block, and changes nothing that others read.
        channels: in all.
        values: of each channel, that NumPy goes through at a time.
    """
    size = -(-_VALUES // max(values, 1))
    blocks = [slice(first, first + size) for first in range(0, channels, size)]
    if len(blocks) == 1:
        return [work(blocks[0])]
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        return list(threads.map(work, blocks))
