"""Writes convolutions and pooling over one axis with one axis, where ONNX has them with two.

TensorFlow has no others: tf.nn.conv1d gives what it reads an axis of size 1, and takes it away from
what comes out.
"""

from __future__ import annotations

from dataclasses import replace

from onnxsnn.export.network import Network, Operation

__all__ = ["with_one_axis"]


def with_one_axis(network: Network) -> Network:
    """The same network, if axes of size 1 are added in it: its layers over [channels, 1, size]
    have a single axis, between a Reshape that takes the other away and one that brings it back.
    """
    shapes = network.shapes
    if not any(_adds_an_axis(operation, shapes) for operation in network.operations):
        return network
    instead = {}
    for operation in network.operations:
        if not _has_an_axis_of_one(operation, shapes):
            continue
        (read,) = operation.inputs
        inner = [f"{operation.output} {which} one axis" for which in ("in front of", "of")]
        shape = shapes[read][::2]
        drop = replace(
            operation, operator="Reshape", outputs={inner[0]: shape}, settings={}, arrays={}
        )
        add = replace(drop, inputs=[inner[1]], outputs=operation.outputs)
        instead[operation.output] = [drop, _narrow(operation, *inner), add]
    return network.replaced(instead)


def _adds_an_axis(operation: Operation, shapes: dict[str, list[int]]) -> bool:
    """Whether an operation gives [channels, size] an axis more, as tf.nn.conv1d does."""
    return (
        operation.canonical
        and operation.operator == "Reshape"
        and len(shapes[operation.inputs[0]]) == 2
        and len(operation.shape) == 3
        and 1 in operation.shape
    )


def _has_an_axis_of_one(operation: Operation, shapes: dict[str, list[int]]) -> bool:
    """Whether it is a layer that does nothing along the first of two axes, which is of size 1."""
    if not operation.canonical or operation.operator not in ("Conv", "AveragePool"):
        return False
    settings, shape = operation.settings, shapes[operation.inputs[0]]
    return (
        len(shape) == 3
        and shape[1] == operation.shape[1] == settings["kernel"][0] == 1
        and not any(settings["pads"][::2])
    )


def _narrow(operation: Operation, read: str, gives: str) -> Operation:
    """A layer without the first of its two axes, which reads and gives other tensors."""
    settings = {
        role: value[1::2] if role == "pads" else value[1:] if isinstance(value, list) else value
        for role, value in operation.settings.items()
    }
    arrays = {
        role: values[:, :, 0] if role == "weight" else values
        for role, values in operation.arrays.items()
    }
    return replace(
        operation,
        inputs=[read],
        outputs={gives: operation.shape[::2]},
        settings=settings,
        arrays=arrays,
    )
