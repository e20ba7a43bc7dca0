"""Whole networks for tests, and random ones for properties."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from hypothesis import strategies as st

from onnxsnn.arrays import Array
from tests.models import Builder


def residual_network(seed: int = 0, batch: int | str = "N") -> Builder:
    """Convolutions with BatchNorm, a residual Add, both poolings, a linear read-out."""
    b = Builder((3, 8, 8), seed, batch)
    b.conv(6)
    b.batchnorm()
    first = b.relu()
    b.conv(6)
    b.batchnorm()
    b.op("Add", b.last, first)
    b.relu()
    b.op("MaxPool", kernel_shape=[2, 2], strides=[2, 2])
    b.conv(8)
    b.relu()
    b.op("AveragePool", kernel_shape=[2, 2], strides=[2, 2])
    b.op("Flatten")
    b.gemm(10, inputs=32)
    b.relu()
    b.gemm(4)
    return b


def mobilenet() -> Builder:
    """Inverted residuals: ReLU6, depthwise convolutions, linear bottlenecks, a shortcut."""
    b = Builder((3, 8, 8))
    b.conv(6)
    b.batchnorm()
    b.clip(6.0)
    for outputs, stride in ((6, 1), (8, 2), (8, 1)):
        shortcut, inputs = b.last, b.channels
        b.conv(12, kernel=1)
        b.batchnorm()
        b.clip(6.0)
        b.conv(12, group=12, strides=[stride, stride])
        b.batchnorm()
        b.clip(6.0)
        b.conv(outputs, kernel=1)
        if inputs == outputs and stride == 1:
            b.op("Add", b.last, shortcut)
    b.head()
    return b


def densenet() -> Builder:
    """Each layer reads all before it, put together and normalized; a transition between."""
    b = Builder((3, 8, 8))
    features, b.channels = b.conv(6), 6
    for layer in range(4):
        inputs = b.channels
        b.batchnorm()
        b.relu()
        grown = b.conv(4)
        features = b.op("Concat", features, grown, axis=1)
        b.channels = inputs + 4
        if layer == 1:
            b.conv(8, kernel=1)
            features = b.op("AveragePool", kernel_shape=[2, 2], strides=[2, 2])
    b.batchnorm()
    b.relu()
    b.head()
    return b


def unet() -> Builder:
    """Down by MaxPool, up by ConvTranspose, joined by Concat; an image comes out."""
    b = Builder((3, 8, 8))
    b.conv(6)
    skip = b.relu()
    b.op("MaxPool", kernel_shape=[2, 2], strides=[2, 2])
    b.conv(8)
    b.relu()
    b.conv_transpose(6)
    b.op("Concat", skip, b.last, axis=1)
    b.channels = 12
    b.conv(6)
    b.relu()
    b.conv(2, kernel=1)
    return b


def vgg() -> Builder:
    """Convolutions and MaxPool, then fully connected layers."""
    b = Builder((3, 8, 8))
    for outputs in (6, 8):
        b.conv(outputs)
        b.relu()
        b.op("MaxPool", kernel_shape=[2, 2], strides=[2, 2])
    b.op("Flatten")
    b.gemm(16, inputs=32)
    b.relu()
    b.gemm(4)
    return b


def hardtanh() -> Builder:
    """Convolutions whose activations are clipped from -c to c, and their average."""
    b = Builder((3, 8, 8))
    for outputs in (6, 8):
        b.conv(outputs)
        b.batchnorm()
        b.op("Clip", b.last, b.constant(-0.5), b.constant(0.5))
    b.head()
    return b


def resnet(preactivation: bool) -> Builder:
    """Residual blocks, v1 or v2, whose shortcut is a strided Slice and padded channels."""
    b = Builder((3, 8, 8))
    b.conv(6)
    if not preactivation:
        b.batchnorm()
        b.relu()
    for outputs in (6, 10):
        shortcut, inputs = b.last, b.channels
        stride = 1 if outputs == inputs else 2
        if preactivation:
            b.batchnorm()
            b.relu()
        b.conv(outputs, strides=[stride, stride])
        b.batchnorm()
        b.relu()
        body = b.conv(outputs)
        if stride == 2:
            shortcut = strided_shortcut(b, shortcut, outputs - inputs)
        b.op("Add", body, shortcut)
        if not preactivation:
            b.batchnorm()
            b.relu()
    if preactivation:
        b.batchnorm()
        b.relu()
    b.head()
    return b


def strided_shortcut(b: Builder, tensor: str, more: int) -> str:
    """Every second pixel, and channels of zeros (He et al. 2016, option A)."""
    bounds = ([0, 0], [8, 8], [2, 3], [2, 2])
    b.op("Slice", tensor, *(b.constant(values, np.int64) for values in bounds))
    return b.op("Pad", b.last, b.constant([0, 0, 0, 0, 0, more, 0, 0], np.int64))


def encoder() -> Builder:
    """A transformer block: normalization, attention, a perceptron with GELU as Erf."""
    b = Builder((5, 8))
    b.op("MatMul", "x", b.normal(8, 8, scale=0.4))

    def normalized(tensor: str) -> str:
        return b.op("LayerNormalization", tensor, b.constant(np.ones(8)), b.constant(np.zeros(8)))

    x = b.last
    source = normalized(x)
    q, k, v = (b.op("MatMul", source, b.normal(8, 8, scale=0.4)) for _ in range(3))
    b.op("MatMul", q, b.op("Transpose", k, perm=[0, 2, 1]))
    b.op("MatMul", b.op("Softmax", axis=-1), v)
    x = b.op("Add", x, b.op("MatMul", b.last, b.normal(8, 8, scale=0.4)))
    normalized(x)
    hidden = b.op("MatMul", b.last, b.normal(8, 16, scale=0.4))
    erf = b.op("Erf", b.op("Div", hidden, b.constant(2**0.5)))
    b.op("Mul", hidden, b.op("Add", erf, b.constant(1.0)))
    b.op("Mul", b.last, b.constant(0.5))
    b.op("Add", x, b.op("MatMul", b.last, b.normal(16, 8, scale=0.4)))
    b.op("ReduceMean", axes=[1], keepdims=0)
    b.gemm(4, inputs=8)
    return b


def squeeze_excitation() -> Builder:
    """HardSwish written as a Clip, and channels weighed by their own means (MobileNetV3)."""
    b = Builder((3, 8, 8))
    b.conv(6)
    shifted = b.op("Clip", b.op("Add", b.last, b.constant(3.0)), b.constant(0.0), b.constant(6.0))
    b.op("Mul", "t0", shifted)
    x = b.op("Div", b.last, b.constant(6.0))
    b.op("GlobalAveragePool", x)
    b.conv(3, kernel=1)
    b.relu()
    b.conv(6, kernel=1)
    b.op("Mul", x, b.op("HardSigmoid"))
    b.conv(6)
    b.op("Resize", b.last, "", b.constant([1.0, 1.0, 2.0, 2.0]), mode="nearest")
    b.conv(4)
    b.op("LeakyRelu", alpha=0.1)
    b.head()
    return b


def recurrent() -> Builder:
    """A convolution whose columns an LSTM reads one after the other, samples on the second axis."""
    b, hidden = Builder((3, 8, 8)), 5
    batch = b.op("Gather", b.op("Shape", "x"), b.constant([0], np.int64))
    sizes = [b.constant([1], np.int64), batch, b.constant([hidden], np.int64)]
    before = b.op("Expand", b.constant([[[0.0]]]), b.op("Concat", *sizes, axis=0))
    b.last = "x"
    b.conv(4)
    b.relu()
    columns = b.op("Transpose", perm=[3, 0, 1, 2])
    sequence = b.op("Reshape", columns, b.constant([0, 0, 32], np.int64))
    weights = [b.normal(1, 4 * hidden, inputs, scale=0.3) for inputs in (32, hidden)]
    b.op("LSTM", sequence, *weights, "", "", before, before, hidden_size=hidden)
    b.op("Flatten", b.op("Transpose", perm=[2, 0, 1, 3]))
    b.gemm(8, inputs=8 * hidden)
    b.relu()
    b.gemm(4)
    return b


def sequence_first() -> Builder:
    """Rectifiers, a mean and attention's merged axes, with the sequence in front."""
    b = Builder((7, 8))
    b.op("Transpose", perm=[1, 0, 2])
    b.op("MatMul", b.last, b.normal(8, 8))
    before = b.relu()
    b.op("MatMul", b.last, b.normal(8, 8))
    b.op("Sigmoid")
    b.op("Reshape", b.last, b.constant([-1, 8], np.int64))
    b.op("Gemm", b.last, b.normal(8, 8), b.normal(8))
    b.op("Reshape", b.last, b.constant([7, -1, 8], np.int64))
    b.op("Add", before, b.last)
    b.op("LayerNormalization", b.last, b.normal(8))
    b.op("Transpose", perm=[1, 0, 2])
    b.op("MatMul", b.last, b.normal(8, 3))
    return b


@dataclass(frozen=True)
class Detector:
    """A network that finds boxes, and the names of what it gives.

    Attributes:
        boxes: one of each pixel, [N, 64, 4].
        selected: which of all are found, [any, 3].
        picked: those, [any, 4]; what is added to the builder reads them.
    """

    builder: Builder
    boxes: str
    selected: str
    picked: str


def detector() -> Detector:
    """As many boxes as NonMaxSuppression leaves."""
    b = Builder((3, 8, 8))
    b.conv(8)
    maps = b.relu()
    b.conv(4, kernel=1)
    b.op("Reshape", b.last, b.constant([0, 4, 64], np.int64))
    boxes = b.op("Transpose", perm=[0, 2, 1])
    b.last, b.channels = maps, 8
    b.conv(2, kernel=1)
    b.op("Reshape", b.last, b.constant([0, 2, 64], np.int64))
    scores = b.op("Sigmoid")
    limits = [b.constant([64], np.int64), b.constant([0.5]), b.constant([0.5])]
    selected = b.op("NonMaxSuppression", boxes, scores, *limits)
    places = b.op("Gather", selected, b.constant(2, np.int64), axis=1)
    everything = b.op("Reshape", boxes, b.constant([-1, 4], np.int64))
    picked = b.op("Gather", everything, places)
    b.channels = 4
    return Detector(b, boxes, selected, picked)


STRUCTURES = {
    "mobilenet": mobilenet,
    "densenet": densenet,
    "unet": unet,
    "vgg": vgg,
    "hardtanh": hardtanh,
    "resnet-v1": lambda: resnet(preactivation=False),
    "resnet-v2": lambda: resnet(preactivation=True),
    "transformer": encoder,
    "squeeze-excitation": squeeze_excitation,
    "residual": residual_network,
    "recurrent": recurrent,
    "sequence-first": sequence_first,
}


@st.composite
def networks(draw: st.DrawFn) -> Builder:
    """Conv, BatchNorm, ReLU, residual Add, average pooling and Gemm, at random."""
    b = Builder((2, 6, 6), draw(st.integers(0, 10_000)))
    b.conv(4)
    b.relu()
    steps = ["conv", "bn", "relu", "add", "pool"]
    skip = b.last
    for step in draw(st.lists(st.sampled_from(steps), max_size=6)):
        match step:
            case "conv":
                b.conv(4)
            case "bn":
                b.batchnorm()
            case "relu":
                b.relu()
            case "add":
                b.op("Add", b.last, skip)
            case "pool":
                b.op("AveragePool", kernel_shape=[2, 2], pads=[0, 0, 1, 1])
    b.relu()
    b.op("Flatten")
    b.gemm(6, inputs=144)
    b.relu()
    b.gemm(3)
    return b


def cancelling_network() -> Builder:
    """clip(x, 0, 2) - clip(x, 0, 1): nothing, up to 1, of neurons with different thresholds."""
    b = Builder((1,))
    x = b.op("MatMul", "x", b.constant([[1.0]]))
    b.op("MatMul", b.clip(2.0), b.constant([[1.0]]))
    first, b.last = b.last, x
    b.op("MatMul", b.clip(1.0), b.constant([[-1.0]]))
    b.op("Add", first, b.last)
    return b


def average_network() -> Builder:
    """Convolution, average pooling, convolution, linear: what NIR and its readers take."""
    b = Builder((2, 8, 8))
    b.conv(4)
    b.clip(4.0)
    b.op("AveragePool", kernel_shape=[2, 2], strides=[2, 2])
    b.conv(6)
    b.clip(8.0)
    b.op("Flatten")
    b.gemm(5, inputs=96)
    b.clip(4.0)
    b.gemm(3)
    return b


def channels_last(rescaled: bool = False) -> Builder:
    """As of Keras: images of 6 x 8 with 2 channels, and features flattened channels last."""
    b = IntegerBuilder((6, 8, 2))
    if rescaled:
        b.op("Mul", b.last, b.constant([2.0, 0.5]))
        b.op("Add", b.last, b.constant(1.0))
    b.op("Transpose", perm=[0, 3, 1, 2])
    b.channels = 2
    b.conv(4)
    b.clip(2.0)
    b.op("Transpose", perm=[0, 2, 3, 1])
    b.op("Flatten")
    return b


class IntegerBuilder(Builder):
    """A builder whose weights and biases are whole numbers, so that sums are exact."""

    def normal(self, *shape: int, scale: float = 1.0) -> str:  # noqa: ARG002
        return self.constant(self.random.integers(-2, 3, shape))


@st.composite
def integer_networks(draw: st.DrawFn, exclude: Sequence[str] = ()) -> Builder:
    """Whole weights, thresholds that are powers of two, and nothing but exact operators."""
    b = IntegerBuilder((2, 6, 6), draw(st.integers(0, 10_000)))
    thresholds = st.sampled_from([1.0, 2.0, 8.0])
    b.conv(4)
    b.clip(draw(thresholds))
    skip = b.last
    pooling = {"kernel_shape": [2, 2], "pads": [0, 0, 1, 1]}
    steps = [step for step in ("conv", "add", "mean", "max") if step not in exclude]
    for step in draw(st.lists(st.sampled_from(steps), max_size=4)):
        match step:
            case "conv":
                b.conv(4)
                b.clip(draw(thresholds))
            case "add":
                b.op("Add", b.last, skip)
            case "mean":
                b.op("AveragePool", count_include_pad=1, **pooling)
            case "max":
                b.op("MaxPool", **pooling)
    b.op("Flatten")
    b.gemm(6, inputs=144)
    b.clip(draw(thresholds))
    b.gemm(3)
    return b


def eighths(*shape: int, seed: int = 0) -> Array:
    """Inputs in [-1, 1) that are multiples of 1/8, float32."""
    values = np.random.default_rng(seed).integers(-8, 8, shape) / 8
    return values.astype(np.float32)
