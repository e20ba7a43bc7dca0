"""Whole networks for tests, and random ones for properties."""

from __future__ import annotations

from hypothesis import strategies as st

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
