"""Zeros around an axis of space where ONNX's `auto_pad` asks for an output of the same size.

    total = max((outputs - 1) * stride + extent - inputs, 0)

of a convolution or a pooling whose windows reach over `extent` inputs. Half of it stands on
either side; what is odd, behind the data by SAME_UPPER, in front of them by SAME_LOWER.
"""

from __future__ import annotations

from collections.abc import Sequence

from onnxsnn.graph import Node

__all__ = ["same_padding", "same_paddings"]


def same_padding(mode: str, outputs: int, inputs: int, stride: int, extent: int) -> tuple[int, int]:
    """Zeros before and behind one axis.

    A transposed convolution takes the sizes the other way round: it reads what is given here as
    `outputs`.
    """
    total = max((outputs - 1) * stride + extent - inputs, 0)
    half, rest = total // 2, total - total // 2
    return (rest, half) if mode == "SAME_LOWER" else (half, rest)


def same_paddings(node: Node, kernel: Sequence[int], sizes: Sequence[int]) -> list[tuple[int, int]]:
    """Zeros before and behind each axis of a Conv or a pooling whose `auto_pad` is SAME_....

    Args:
        node: the node.
        kernel: taps along each axis of space.
        sizes: of what it reads, along these.
    """
    strides = node.attrs.get("strides", [1] * len(kernel))
    dilations = node.attrs.get("dilations", [1] * len(kernel))
    return [
        same_padding(
            node.attrs["auto_pad"], -(-size // stride), size, stride, (taps - 1) * dilation + 1
        )
        for size, stride, taps, dilation in zip(sizes, strides, kernel, dilations, strict=True)
    ]
