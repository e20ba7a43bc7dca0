"""Initial potentials that alternate between neighbours: ordered dither (Bayer, IEEE ICC 1973).

Neurons of one spike a step that lie side by side read about the same currents, so that they are
rounded the same way, fire in the same steps, and the windows of the next layer add their errors up.
Where one starts a little higher and the next a little lower, the errors differ and average out.

That costs each of them a little, and helps where neighbours are alike: in large maps of pictures,
not in small ones or of noise.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from onnxsnn.arrays import Array

__all__ = ["alternates", "alternation"]

_AMOUNT = 0.12  # thresholds, up and down; of VGG-16 and PreActResNet-18, at T of 2 to 8
_SMALLEST = 8  # positions along every axis


def alternates(shape: Sequence[int | str | None] | None) -> bool:
    """Whether a layer of this shape, [N, C, ...], has maps of known sizes, all large enough."""
    channels, *maps = (shape or [])[1:] or [None]
    return (
        isinstance(channels, int)
        and len(maps) > 0
        and all(isinstance(size, int) and size >= _SMALLEST for size in maps)
    )


def alternation(shape: Sequence[int | str | None]) -> Array:
    """A checkerboard over positions, of opposite sign in the next channel, around 0.

    Args:
        shape: of the layer, [N, C, ...], that `alternates`.

    Returns:
        fractions of the threshold, [1, C, ...] in float32.
    """
    sizes = [size for size in shape[1:] if isinstance(size, int)]
    signs = np.indices([1, *sizes]).sum(axis=0) % 2 * 2 - 1
    amounts: Array = np.float32(_AMOUNT) * signs.astype(np.float32)
    return amounts
