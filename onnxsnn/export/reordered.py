"""Leaves out Transposes that need not be said: behind inputs, and in front of what is flattened.

Networks of TensorFlow and Keras have channels last: they transpose images, and transpose features
back before they flatten them.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from onnxsnn.export.network import Network, Operation

__all__ = ["without_transposes"]


def without_transposes(network: Network) -> Network:
    """The same network with fewer Transposes.

    1. An input that is only transposed comes as it is behind that, which is listed as a loss.
    2. What is transposed, flattened, and then read by fully connected layers alone is flattened as
       it was in front, and the columns of their weights come in that order.
    """
    for operation in network.operations:
        if operation.canonical and operation.operator == "Transpose":
            network = _of_input(network, operation) or _of_columns(network, operation) or network
    return network


def _of_input(network: Network, transpose: Operation) -> Network | None:
    """The network whose input is transposed already; None where more than that is read."""
    (name,) = transpose.inputs
    before, after = network.inputs.get(name), transpose.shape
    if before is None or len(network.readers(name)) > 1 or transpose.output in network.outputs:
        return None
    order = f"the order of the axes of input {name!r}: samples are {after}, not {before}"
    return replace(
        network,
        inputs=network.inputs | {name: after},
        operations=_past(network.operations, transpose),
        losses=[*network.losses, order],
    )


def _of_columns(network: Network, transpose: Operation) -> Network | None:
    """The network with weights in another order; None where more than weights would need one."""
    flattened = network.readers(transpose.output)
    layers = [reader for flat in flattened for reader in network.readers(flat.output)]
    if not (
        all(flat.operator == "Reshape" and len(flat.shape) == 1 for flat in flattened)
        and all(layer.operator == "Linear" for layer in layers)
        and {*network.outputs}.isdisjoint([transpose.output, *(f.output for f in flattened)])
    ):
        return None
    weights = {layer.output: _columns_in_front(layer, transpose) for layer in layers}
    operations = [weights.get(operation.output, operation) for operation in network.operations]
    return replace(network, operations=_past(operations, transpose))


def _columns_in_front(layer: Operation, transpose: Operation) -> Operation:
    """A fully connected layer that reads in the order in front of a Transpose."""
    weight = layer.arrays["weight"]
    columns = np.arange(weight.shape[1]).reshape(transpose.shape)
    before = columns.transpose(np.argsort(transpose.settings["order"])).reshape(-1)
    return replace(layer, arrays=layer.arrays | {"weight": weight[:, before]})


def _past(operations: list[Operation], transpose: Operation) -> list[Operation]:
    """All others; what read what it gives reads what it read."""
    (source,), moved = transpose.inputs, transpose.output
    return [
        replace(other, inputs=[source if name == moved else name for name in other.inputs])
        for other in operations
        if other.output != moved
    ]
