"""Networks put together at random from the blocks that real ones are made of."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from hypothesis import strategies as st

from tests.models import Builder

_WINDOW = {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}
_CHANNELS_LAST, _CHANNELS_FIRST = [0, 2, 3, 1], [0, 3, 1, 2]


@st.composite
def any_networks(draw: st.DrawFn) -> Builder:
    """A convolution, up to five blocks, and a classifier, of images [3, 12, 12]."""
    b = Builder((3, 12, 12), draw(st.integers(0, 10_000)), draw(st.sampled_from(["N", 4])))
    _convolution(b)
    for block in draw(st.lists(st.sampled_from(_BLOCKS), min_size=1, max_size=5)):
        block(b)
    b.head()
    return b


def _convolution(b: Builder) -> None:
    b.conv(int(b.random.choice([4, 8])), kernel=int(b.random.choice([1, 3])))
    b.batchnorm()
    b.relu()


def _activation(b: Builder) -> None:
    operators = ("Elu", "HardSigmoid", "HardSwish", "LeakyRelu", "Sigmoid", "Softplus", "Tanh")
    b.conv(b.channels)
    b.op(str(b.random.choice(operators)))


def _hard_tanh(b: Builder) -> None:
    b.conv(b.channels)
    b.op("Clip", b.last, b.constant(-1.0), b.constant(1.0))


def _swish(b: Builder) -> None:
    source = b.conv(b.channels)
    b.op("Mul", source, b.op("Sigmoid"))


def _residual(b: Builder) -> None:
    source = b.last
    _plain(b)
    b.conv(b.channels)
    b.batchnorm()
    b.op("Add", source, b.last)
    b.relu()


def _plain(b: Builder) -> None:
    b.conv(b.channels)
    b.relu()


def _bottleneck(b: Builder) -> None:
    source, channels = b.last, b.channels
    b.conv(2 * channels, kernel=1)
    b.clip(6.0)
    b.conv(b.channels, group=b.channels)
    b.clip(6.0)
    b.conv(channels, kernel=1)
    b.op("Add", source, b.last)


def _dense(b: Builder) -> None:
    source, channels = b.last, b.channels
    b.conv(4)
    b.relu()
    b.op("Concat", source, b.last, axis=1)
    b.channels = channels + 4


def _in_parts(b: Builder) -> None:
    left = b.op("Split", count=2, axis=1)
    b.channels //= 2
    _plain(b)
    b.op("Concat", b.last, f"{left}_1", axis=1)
    b.channels *= 2


def _excitation(b: Builder) -> None:
    source, channels = b.last, b.channels
    b.op("GlobalAveragePool")
    b.conv(4, kernel=1)
    b.relu()
    b.conv(channels, kernel=1)
    b.op("Mul", source, b.op("Sigmoid"))


def _spatial_attention(b: Builder) -> None:
    source, channels = b.last, b.channels
    mean = b.op("ReduceMean", source, axes=[1])
    b.op("Concat", mean, b.op("ReduceMax", source, axes=[1]), axis=1)
    b.channels = 2
    b.conv(1)
    b.op("Mul", source, b.op("Sigmoid"))
    b.channels = channels


def _pooling(b: Builder) -> None:
    b.op(str(b.random.choice(["AveragePool", "MaxPool"])), **_WINDOW)


def _upsampling(b: Builder) -> None:
    mode = str(b.random.choice(["nearest", "linear"]))
    b.op("Resize", b.last, "", b.constant([1.0, 1.0, 1.5, 1.5]), mode=mode)


def _transposed(b: Builder) -> None:
    b.conv_transpose(4)
    b.relu()
    b.op("AveragePool", **_WINDOW)


def _padding(b: Builder) -> None:
    mode = str(b.random.choice(["constant", "edge"]))
    b.op("Pad", b.last, b.constant([0, 0, 1, 1, 0, 0, 1, 1], np.int64), mode=mode)
    b.conv(b.channels, pads=[0, 0, 0, 0])
    b.relu()


def _shuffle(b: Builder) -> None:
    source = b.last
    sizes = b.op("Shape", source)
    b.op("Reshape", source, b.constant([0, 2, b.channels // 2, -1], np.int64))
    b.op("Reshape", b.op("Transpose", b.last, perm=[0, 2, 1, 3]), sizes)


def _layer_norm(b: Builder) -> None:
    b.op("Transpose", b.last, perm=_CHANNELS_LAST)
    b.op("LayerNormalization", b.last, b.normal(b.channels), b.normal(b.channels))
    b.op("Transpose", b.last, perm=_CHANNELS_FIRST)


def _choice(b: Builder) -> None:
    source = b.last
    chosen = b.op("Greater", source, b.constant(0.3))
    b.op("Where", chosen, source, b.op("Mul", source, b.constant(0.1)))


def _single_channel(b: Builder) -> None:
    """One map for all, which a limit clips."""
    source, channels = b.last, b.channels
    b.conv(1)
    b.clip(0.5)
    b.op("Mul", source, b.last)
    b.channels = channels


_BLOCKS: list[Callable[[Builder], None]] = [
    _activation, _bottleneck, _choice, _convolution, _dense, _excitation, _hard_tanh, _in_parts,
    _layer_norm, _padding, _plain, _pooling, _residual, _shuffle, _single_channel,
    _spatial_attention, _swish, _transposed, _upsampling,
]  # fmt: skip
