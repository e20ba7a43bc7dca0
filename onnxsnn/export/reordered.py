"""Leaves out Transposes and Reshapes that need not be said, as if channels came first throughout.

Networks of TensorFlow and Keras have channels last: they transpose images, and transpose features
back before they flatten them. Of gray images, and of what has one axis, a Reshape does so. These
move values and change none, and are called moves here. The places of a move say where in what it
reads each value that it gives comes from.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace

import numpy as np

from onnxsnn.arrays import Array
from onnxsnn.export.network import Network, Operation
from onnxsnn.export.one_axis import with_one_axis

__all__ = ["without_moves"]

_BY_VALUE = frozenset(
    {
        *("Scale", "Shift", "Limit", "Rectify", "Add", "Subtract"),
        *("RunningSum", "RunningMean", "DelayedMean", "SumToMean"),
        *("SumIncrement", "MeanIncrement"),
    }
)
_OF_AXES = frozenset({"Concat", "Pad", "Slice"})


def without_moves(network: Network) -> Network:
    """The same network with fewer moves.

    What a move reads, or gives, is laid out as on the other side of the move, and so is what works
    value by value next to it. Around them may be

    1. other moves, which move the less or the more for it;
    2. what pads, cuts, joins or averages along axes, if nothing but their order changes;
    3. fully connected layers, whose columns come in that order;
    4. inputs and outputs: how they come is listed as a loss.
    """
    network, before = with_one_axis(network), None
    while network is not before:
        before = network
        for name in before.shapes:
            network = _simpler(network, name) or network
    return network


def _simpler(network: Network, name: str) -> Network | None:
    """The network with less to say of moves, or nearer to weights that can take one.

    Args:
        network: the network.
        name: what the move gives that is to be left out.
    """
    shapes, cost = network.shapes, _cost(network)
    move = next((other for other in network.operations if other.output == name), None)
    if move is None or _weight(move, shapes) < 2:
        return None
    (read,) = move.inputs
    places = _places(move, shapes[read])
    back = _inverse(places)
    as_read, in_line = back.reshape(shapes[read]), back.reshape(-1)
    for tensor, held in ((name, as_read), (name, in_line), (read, places)):
        found = _laid_out(network, tensor, held)
        if found is not None and _cost(found) < cost:
            return found
    return _behind(network, move, places)


def _cost(network: Network) -> int:
    """How much is left to say of moves."""
    shapes = network.shapes
    return sum(_weight(operation, shapes) for operation in network.operations)


def _weight(operation: Operation, shapes: dict[str, list[int]]) -> int:
    """0 for what moves nothing, 1 for values in the same order as a vector, 2 for other moves."""
    if not _moves(operation):
        return 0
    if operation.operator == "Transpose":
        return 2
    return int(shapes[operation.inputs[0]] != operation.shape) * (1 + (len(operation.shape) > 1))


def _moves(operation: Operation) -> bool:
    return operation.canonical and operation.operator in ("Reshape", "Transpose")


def _places(move: Operation, shape: list[int]) -> Array:
    """Where each value that a move gives is in what it reads, of that shape."""
    if "places" in move.arrays:
        return move.arrays["places"]
    if move.operator == "Transpose":
        return _numbers(shape).transpose(move.settings["order"])
    return _numbers(move.shape)


def _numbers(shape: list[int]) -> Array:
    """The places of a tensor of that shape itself."""
    return np.arange(math.prod(shape)).reshape(shape)


def _inverse(places: Array) -> Array:
    """The places of the way back, as a vector."""
    back = np.empty(places.size, np.int64)
    back[places.reshape(-1)] = np.arange(places.size)
    return back


def _order(places: Array, shape: list[int]) -> list[int] | None:
    """The order of axes that a Transpose of a tensor of `shape` has; None if it is none."""
    numbers = _numbers(shape)
    for order in itertools.permutations(range(len(shape))):
        moved = numbers.transpose(order)
        if moved.shape == places.shape and np.array_equal(moved, places):
            return [*order]
    return None


@dataclass(frozen=True)
class _Region:
    """Tensors that are laid out anew together.

    Attributes:
        held: where in each of them, by name, the values of its new layout are.
        order: the order of axes that this is for all; None if it is something else.
    """

    held: dict[str, Array]
    order: list[int] | None

    def touches(self, operation: Operation) -> bool:
        return not self.held.keys().isdisjoint([*operation.inputs, operation.output])


def _laid_out(network: Network, name: str, held: Array) -> Network | None:
    """The network with a tensor laid out anew, and with it what must be laid out alike.

    Args:
        network: the network.
        name: the tensor's name.
        held: where in that tensor each value of the new layout is.

    Returns:
        None where something next to these tensors reads or gives the layout of before alone.
    """
    region, before = _region(network, name, held), network.shapes
    losses = _losses(network, region)
    if losses is None:
        return None
    laid = {name: [*held.shape] for name, held in region.held.items()}
    inputs = {name: laid.get(name, shape) for name, shape in network.inputs.items()}
    operations, names, shapes = list[Operation](), dict[str, str](), dict(inputs)
    for operation in network.operations:
        changed = _changed(operation, before, region) if region.touches(operation) else operation
        if changed is None:
            return None
        changed = replace(changed, inputs=[names.get(name, name) for name in changed.inputs])
        if _is_nothing(changed, shapes) and changed.output not in network.outputs:
            names[changed.output] = changed.inputs[0]
            continue
        operations.append(changed)
        shapes |= changed.outputs
    return replace(network, inputs=inputs, operations=operations, losses=network.losses + losses)


def _is_nothing(operation: Operation, shapes: dict[str, list[int]]) -> bool:
    return _moves(operation) and not _weight(operation, shapes)


def _region(network: Network, name: str, held: Array) -> _Region:
    """A tensor, and those that operations connect with it that need the same layout.

    They work value by value, or, where nothing but the order of axes changes, along axes.
    """
    shapes = network.shapes
    order = _order(held, shapes[name])
    links = [
        {*operation.inputs, operation.output}
        for operation in network.operations
        if _is_by_value(operation, shapes) or (order is not None and _is_of_axes(operation))
    ]
    found, grown = {name}, True
    while grown:
        near = [link for link in links if not link.isdisjoint(found) and not link <= found]
        found, grown = found.union(*near), bool(near)
    if order is None:
        return _Region(dict.fromkeys(found, held), None)
    return _Region({name: _numbers(shapes[name]).transpose(order) for name in found}, order)


def _is_by_value(operation: Operation, shapes: dict[str, list[int]]) -> bool:
    """Whether each value that an operation gives is made of the values at its place."""
    return (
        operation.canonical
        and (operation.fires or operation.operator in _BY_VALUE)
        and all(shapes[name] == operation.shape for name in operation.inputs)
    )


def _is_of_axes(operation: Operation) -> bool:
    return operation.canonical and operation.operator in _OF_AXES


def _losses(network: Network, region: _Region) -> list[str] | None:
    """What a reader must know of inputs and outputs; None where it is more than order of axes."""
    ends = [("input", name) for name in network.inputs]
    ends += [("output", name) for name in network.outputs]
    shapes, losses = network.shapes, []
    for role, name in ends:
        if name not in region.held:
            continue
        held, before = region.held[name], shapes[name]
        if np.array_equal(held.reshape(-1), np.arange(held.size)):
            what = "shape"
        elif _order(held.squeeze(), [size for size in before if size != 1]) is not None:
            what = "order of the axes"
        else:
            return None
        losses.append(f"the {what} of {role} {name!r}: samples are {[*held.shape]}, not {before}")
    return losses


def _changed(
    operation: Operation, shapes: dict[str, list[int]], region: _Region
) -> Operation | None:
    """An operation next to, or in, a region that is laid out anew; None if it cannot be."""
    held, order = region.held, region.order
    if not operation.canonical:
        return None
    if _is_by_value(operation, shapes):
        return _by_value(operation, held[operation.output])
    if order is not None and _is_of_axes(operation):
        settings = {role: _of_axes(value, order) for role, value in operation.settings.items()}
        outputs = {operation.output: [*held[operation.output].shape]}
        return replace(operation, settings=settings, outputs=outputs)
    (read,) = operation.inputs[:1]
    if _moves(operation):
        places = _places(operation, shapes[read])
        places = _inverse(held[read])[places] if read in held else places
        gives = held.get(operation.output)
        return _as_move(operation, places if gives is None else places.reshape(-1)[gives])
    if operation.output in held:
        return None
    if operation.operator == "Linear" and len(shapes[read]) == held[read].ndim == 1:
        weight = operation.arrays["weight"][:, held[read]]
        return replace(operation, arrays=operation.arrays | {"weight": weight})
    return _mean(operation, order) if operation.operator == "Mean" else None


def _by_value(operation: Operation, held: Array) -> Operation:
    arrays = {
        role: _relaid(values, operation.shape, held) for role, values in operation.arrays.items()
    }
    return replace(operation, arrays=arrays, outputs={operation.output: [*held.shape]})


def _mean(operation: Operation, order: list[int] | None) -> Operation | None:
    """A Mean that reads its axes in another order; None where it would give others, too."""
    over = operation.settings["axes"]
    left = [axis for axis in order or [] if axis not in over]
    if order is None or operation.settings["keepdims"] or left != sorted(left):
        return None
    axes = sorted(order.index(axis) for axis in over)
    return replace(operation, settings=operation.settings | {"axes": axes})


def _relaid(values: Array, shape: list[int], held: Array) -> Array:
    """An array that broadcasts to a shape, laid out anew; with axes of 1 where it is constant."""
    spread = np.broadcast_to(values, shape).reshape(-1)[held]
    for axis in range(spread.ndim):
        first = spread.take([0], axis)
        spread = first if np.array_equal(np.broadcast_to(first, spread.shape), spread) else spread
    return spread


def _as_move(operation: Operation, places: Array) -> Operation:
    """What moves values to `places`: a Reshape if they stay in their order."""
    ordered = np.array_equal(places.reshape(-1), np.arange(places.size))
    return replace(
        operation,
        operator="Reshape" if ordered else "Transpose",
        settings={},
        arrays={} if ordered else {"places": places},
        outputs={operation.output: [*places.shape]},
    )


def _behind(network: Network, move: Operation, places: Array) -> Network | None:
    """The network with the order of a vector behind the Concat that alone reads it."""
    readers, shapes = network.readers(move.output), network.shapes
    if len(move.shape) != 1 or move.output in network.outputs or len(readers) != 1:
        return None
    (concat,) = readers
    if not concat.canonical or concat.operator != "Concat":
        return None
    sizes = [math.prod(shapes[name]) for name in concat.inputs]
    parts = np.split(np.arange(sum(sizes)), np.cumsum(sizes)[:-1])
    named = zip(concat.inputs, parts, strict=True)
    order = [part[places] if name == move.output else part for name, part in named]
    inner = f"{concat.output} in line"
    joined = replace(concat, outputs={inner: concat.shape})
    behind = _as_move(replace(move, inputs=[inner], outputs=concat.outputs), np.concatenate(order))
    flat = _as_move(move, np.arange(places.size))
    return network.replaced({move.output: [flat], concat.output: [joined, behind]})


def _of_axes(value: int | list[int], order: list[int]) -> int | list[int]:
    """An axis, or what is said of each, where the axes come in another order."""
    if isinstance(value, int):
        return order.index(value)
    return [value[first + axis] for first in range(0, len(value), len(order)) for axis in order]
