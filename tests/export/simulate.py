"""The few operators that simulators of exported networks need, in plain NumPy."""

import numpy as np


def windows(x, kernel, strides, pads, dilations=None, fill=0.0):
    """Windows of x [N, C, *sizes]: [N, C, *places, *kernel]."""
    axes = len(kernel)
    dilations = dilations or [1] * axes
    padded = np.pad(
        x,
        [(0, 0), (0, 0), *zip(pads[:axes], pads[axes:], strict=True)],
        constant_values=fill,
    )
    spans = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    view = np.lib.stride_tricks.sliding_window_view(padded, spans, tuple(range(2, 2 + axes)))
    places = (slice(None, None, stride) for stride in strides)
    taps = (slice(None, None, dilation) for dilation in dilations)
    return view[(slice(None), slice(None), *places, *taps)]


def convolve(x, weight, bias, strides, pads, dilations, groups=1):
    """A convolution of two spatial axes."""
    seen = windows(x, list(weight.shape[2:]), strides, pads, dilations)
    parts = zip(np.split(seen, groups, 1), np.split(weight, groups, 0), strict=True)
    result = np.concatenate([np.einsum("nchwij,ocij->nohw", s, w) for s, w in parts], 1)
    return result + np.reshape(bias, (-1, 1, 1))
