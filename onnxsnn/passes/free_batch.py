"""Let a graph that was exported for a batch of one, or of another fixed size, take any batch.

1. The first axis of every input and output becomes symbolic, and samples are followed through the
   graph. A Reshape to a constant shape leaves the axis open where they lie (a -1), with heads or
   a sequence beside them or not, or copies it (a 0); so does an Expand (a 1). Constants that are
   the same for every sample are cut to one, and repeated beside others in a Concat (class tokens)
   or GatherElements; so are outputs that are constants, and states of a Loop or Scan that start
   with zeros. Sizes of a Resize, or of a grid, have the batch's among them. What is looked up by
   the number of the only sample, or in an axis that it shares, is looked up in each. A Squeeze
   without axes names those that it took, so that one sample keeps its own. Whether that
   is sound the arithmetic says: the new graph must give, for some samples more, what the old one
   gives for those that it takes, and no sample may have a say in what another's values are
   compared with. Where that is not so, the graph stays as it was; so does one in which a sample
   decides on a branch, or on the turns of a Loop: several would do so together.
2. A graph whose batch is symbolic, and that takes one sample but not two all the same (an
   exporter wrote the 1 into it somewhere), is one of a batch of one. So is one that squeezes all
   axes of size 1, and means the sample's among them: see `squeezes.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import prod

import numpy as np
import onnx_graphsurgeon as gs

from onnxsnn.arrays import Array
from onnxsnn.decisions import decide_together, deciding_part
from onnxsnn.errors import UnsupportedError
from onnxsnn.graph import (
    Graph,
    constant,
    infer_shapes,
    insert,
    is_static_shape,
    nodes_before,
    producer,
    reads_values,
    to_model,
    unique_name,
)
from onnxsnn.passes.follow_samples import FollowedSamples, Place, place_among
from onnxsnn.passes.keep_samples import keep_samples
from onnxsnn.passes.loop_shapes import loop_shapes
from onnxsnn.passes.report import Report
from onnxsnn.session import SampleSession, Session, fixed_batch
from onnxsnn.trial import agree, trial_values
from onnxsnn.value_sizes import turns_by_values

__all__ = ["free_batch"]

_BATCH = "N"


def free_batch(graph: Graph) -> tuple[Graph, Report]:
    """The graph with a symbolic batch axis, where it had one of a fixed size and that is sound.

    Raises:
        UnsupportedError: an input takes no samples, or has them along another axis.
    """
    _refuse_inputs(graph)
    report = Report("free_batch")
    static = all(is_static_shape(tensor.shape) for tensor in graph.inputs)
    said_open = _says_open(graph) and (_is_of_one(graph) or (static and _takes_one(graph)))
    if said_open:
        graph = _fixed(graph)
    batch = fixed_batch([tensor.shape or () for tensor in graph.inputs])
    if not batch or not (static or said_open):
        return graph, report
    freed = _sound(graph, batch) if static and not _decides(graph) else None
    if freed is not None:
        report.actions["batch axis made symbolic"] += 1
        return freed, report
    if said_open:
        report.actions["batch axis fixed at 1"] += 1
    says = ", whatever its inputs' shapes say" if said_open else ""
    report.warnings.append(f"the batch axis stays {batch}: the graph mixes or fixes it{says}")
    return graph, report


def _refuse_inputs(graph: Graph) -> None:
    """Refuse a first axis of size 0, or of another where outputs begin with another, open one."""
    for tensor in graph.inputs:
        first, *others = tensor.shape or [None]
        if first == 0:
            raise UnsupportedError(
                f"input {tensor.name!r} has shape {tensor.shape}, which holds no samples; "
                "export the model for any batch"
            )
        named = {size for size in others if isinstance(size, str)}
        if isinstance(first, int) and any((t.shape or [None])[0] in named for t in graph.outputs):
            raise UnsupportedError(
                f"input {tensor.name!r} has shape {tensor.shape}, and outputs begin with another "
                "axis of it, its samples; export the model with the samples along the first axis "
                "of every input"
            )


def _says_open(graph: Graph) -> bool:
    """Whether the number of samples is open, as inputs say."""
    shapes = [tensor.shape for tensor in graph.inputs]
    return bool(shapes) and all(shape and not _is_size(shape[0]) for shape in shapes)


def _is_of_one(graph: Graph) -> bool:
    """Whether the axis of one sample is squeezed away with others, and values go on without it.

    PyTorch's newer exporter squeezes numbers too, which had no such axis: the mean of all samples,
    and an open size of the input.
    """
    squeezed = [n.inputs[0] for n in graph.nodes if n.op == "Squeeze" and len(n.inputs) == 1]
    return any(reads_values(graph, t) and not _is_reduced(t) for t in squeezed)


def _is_reduced(tensor: gs.Tensor) -> bool:
    """Whether a tensor is one number, reduced of an open number of samples."""
    maker = producer(tensor)
    if maker is None or not maker.op.startswith("Reduce") or not maker.inputs[0].shape:
        return False
    return not _is_size(maker.inputs[0].shape[0]) and set(tensor.shape or [0]) == {1}


def _takes_one(graph: Graph) -> bool:
    """Whether it takes one sample, and not two."""
    return not _runs(graph, 2) and _runs(graph, 1)


def _decides(graph: Graph) -> bool:
    """Whether values decide on a branch inside a Loop, or on its turns."""
    bodies = list(graph.subgraphs(recursive=True))
    branches = any(
        node.op == "If" and not _counts(body, node.inputs[0])
        for body in bodies
        for node in body.nodes
    )
    return branches or any(turns_by_values(n) for part in (graph, *bodies) for n in part.nodes)


def _counts(body: Graph, condition: gs.Tensor) -> bool:
    """Whether a condition in a body depends on nothing but the number of the turn."""
    before = [condition, *(t for node in nodes_before([condition]) for t in node.inputs)]
    given = [tensor for tensor in before if not tensor.inputs and constant(tensor) is None]
    return all(tensor is body.inputs[0] for tensor in given)


def _is_size(size: int | str | None) -> bool:
    return isinstance(size, int)


def _fixed(graph: Graph) -> Graph:
    """The graph for one sample."""
    for tensor in [*graph.inputs, *graph.outputs]:
        if tensor.shape:
            tensor.shape = [1, *tensor.shape[1:]]
    return infer_shapes(graph)


def _runs(graph: Graph, samples: int) -> bool:
    try:
        Session(to_model(graph)).run(_random(graph, samples))
    except Exception:  # ONNX Runtime's are not of one class
        return False
    return True


def _random(graph: Graph, samples: int, seed: int = 0) -> dict[str, Array]:
    """Samples that differ."""
    generator = np.random.default_rng(seed)
    return {
        tensor.name: trial_values(generator, (samples, *tensor.shape[1:]), tensor.dtype)
        for tensor in graph.inputs
    }


def _candidates(graph: Graph, batch: int) -> Iterator[Graph]:
    """The graph, and where it drops the axis of one sample, the same with the axis kept."""
    yield graph
    kept = keep_samples(graph) if batch == 1 else None
    if kept is not None:
        yield kept


def _sound(graph: Graph, batch: int) -> Graph | None:
    """The graph for any batch; None where that would give samples something else."""
    (looped,) = loop_shapes(graph, batch)
    graph = infer_shapes(graph.copy(), looped) if looped else graph
    for candidate in _candidates(graph, batch):
        freed = _freed(candidate, batch)
        if freed is not None and _same_for_each_sample(graph, freed, batch):
            return freed
    return None


def _freed(graph: Graph, batch: int) -> Graph | None:
    """The graph for any batch, as far as samples can be followed; None where they get lost."""
    freed = graph.copy()
    freed.toposort()
    samples = FollowedSamples(freed, batch)
    for node in list(freed.nodes):
        if node.op in _FREES:
            _FREES[node.op](freed, node, samples)
        samples.follow(node)
        _open_bodies(node, batch)
    _repeat_outputs(freed, batch)
    given = {id(tensor) for tensor in freed.inputs}  # outputs may be among them
    for tensor in [*freed.inputs, *(t for t in freed.outputs if id(t) not in given)]:
        if not tensor.shape or tensor.shape[0] != batch:
            return None
        tensor.shape = [_BATCH, *tensor.shape[1:]]
    return infer_shapes(freed)


def _open_bodies(node: gs.Node, batch: int) -> None:
    """Leave sizes that are the batch's open in the body of a Loop or Scan, and within it."""
    for body in node.subgraphs(recursive=True):
        for tensor in [*body.tensors().values(), *body.inputs]:
            if constant(tensor) is None and tensor.shape:
                tensor.shape = [None if size == batch else size for size in tensor.shape]


def _free_reshape(graph: Graph, node: gs.Node, samples: FollowedSamples) -> None:
    """Copy the axis of the samples, or let it take what is left."""
    source, target = node.inputs[0], node.outputs[0]
    found = _place_behind(node, samples)
    if constant(node.inputs[1]) is None or found is None:
        return
    keeps = found == samples.place(source) and source.shape[found.axis] == target.shape[found.axis]
    shape = np.array(target.shape, np.int64)
    shape[found.axis] = 0 if keeps else -1
    node.inputs[1] = gs.Constant(unique_name(graph, f"{node.name}.shape"), shape)
    node.attrs.pop("allowzero", None)  # here, 0 says: copy
    samples.set(target, found)


def _place_behind(node: gs.Node, samples: FollowedSamples) -> Place | None:
    """Where samples lie in what a Reshape or Flatten gives; None where that is not known."""
    place, source, sizes = (
        samples.place(node.inputs[0]),
        node.inputs[0].shape,
        node.outputs[0].shape,
    )
    if place is None or not _all_known(source, sizes):
        return None
    behind = place.inner * prod(source[place.axis + 1 :])
    return place_among(sizes, behind, place.axis, samples.batch)


def _all_known(*shapes: list[int | str | None] | None) -> bool:
    """Whether shapes have numbers alone, and no 0."""
    return all(shape and all(_is_size(size) and size for size in shape) for shape in shapes)


def _free_expand(graph: Graph, node: gs.Node, samples: FollowedSamples) -> None:  # noqa: ARG001
    """Leave every axis that keeps its size as it is, whatever that is."""
    target, source = constant(node.inputs[1]), node.inputs[0].shape
    if target is None or not target.size or not _all_known(source):
        return
    own = ([1] * target.size + source)[-target.size :]
    sizes = [1 if size == mine else size for size, mine in zip(target, own, strict=True)]
    name = unique_name(graph, f"{node.name}.shape")
    node.inputs[1] = gs.Constant(name, np.array(sizes, np.int64))


def _share_constants(graph: Graph, node: gs.Node, samples: FollowedSamples) -> None:
    """Let constants that are the same for every sample be those of one."""
    if samples.batch == 1:
        return
    for position, values, axis in _of_each_sample(node, samples):
        name = unique_name(graph, f"{node.inputs[position].name}.one")
        node.inputs[position] = gs.Constant(name, values.take([0], axis))


def _repeat_constants(graph: Graph, node: gs.Node, samples: FollowedSamples) -> None:
    """Repeat constants of one sample for as many as are beside them."""
    for position, values, axis in _of_each_sample(node, samples):
        if axis == node.attrs.get("axis", 0) % values.ndim:
            continue
        name, beside = node.inputs[position].name, _followed(node, samples)[0]
        one = gs.Constant(unique_name(graph, f"{name}.one"), values.take([0], axis))
        each = gs.Variable(unique_name(graph, f"{name}.each"), values.dtype, values.shape)
        insert(graph, "Expand", [one, _sizes(graph, beside, axis, values.shape)], each)
        samples.set(each, Place(axis))
        node.inputs[position] = each


def _repeat_starts(graph: Graph, node: gs.Node, samples: FollowedSamples) -> None:
    """Let states that start with zeros do so for every sample, along their first axis for one."""
    beside = _followed(node, samples)[:1]
    place = samples.place(beside[0]) if beside else None
    for position, values in enumerate(map(constant, node.inputs)):
        if place is None or place.inner != 1 or values is None or np.any(values):
            continue
        if samples.batch in values.shape:
            name, at = node.inputs[position].name, values.shape.index(samples.batch)
            zero = gs.Constant(unique_name(graph, f"{name}.zero"), np.zeros((), values.dtype))
            each = gs.Variable(unique_name(graph, f"{name}.each"), values.dtype, values.shape)
            sizes = _sizes(graph, beside[0], place.axis, values.shape, at)
            insert(graph, "Expand", [zero, sizes], each)
            node.inputs[position] = each


def _repeat_outputs(graph: Graph, batch: int) -> None:
    """Give an output that is a constant of one sample, or of all in the batch, for each of many."""
    for position, tensor in enumerate(graph.outputs):
        values = constant(_copied(tensor))
        if values is None:
            continue
        rows = values if values.shape[:1] == (batch,) else np.stack([values] * batch)
        one = gs.Constant(unique_name(graph, f"{tensor.name}.one"), rows[:1])
        each = gs.Variable(tensor.name, values.dtype, rows.shape)
        if np.array_equal(np.broadcast_to(one.values, rows.shape), rows):
            tensor.name = unique_name(graph, f"{tensor.name}.fixed")
            insert(graph, "Expand", [one, _sizes(graph, graph.inputs[0], 0, rows.shape)], each)
            graph.outputs[position] = each


def _copied(tensor: gs.Tensor) -> gs.Tensor:
    """What a tensor is a copy of."""
    maker = producer(tensor)
    return maker.inputs[0] if maker is not None and maker.op == "Identity" else tensor


def _of_each_sample(node: gs.Node, samples: FollowedSamples) -> Iterator[tuple[int, Array, int]]:
    """Constants that have the same values for each sample: position, values and samples' axis."""
    for tensor in _followed(node, samples)[:1]:
        place = samples.place(tensor)
        for position, values in enumerate(map(constant, node.inputs)):
            if place is None or place.inner != 1 or values is None:
                continue
            axis = place.axis - len(tensor.shape) + values.ndim
            if axis >= 0 and values.shape[axis] == samples.batch:
                first = values.take([0], axis)
                if np.array_equal(np.broadcast_to(first, values.shape), values):
                    yield position, values, axis


def _followed(node: gs.Node, samples: FollowedSamples) -> list[gs.Tensor]:
    """What a node reads that has samples."""
    return [tensor for tensor in node.inputs if samples.place(tensor)]


def _free_resize(graph: Graph, node: gs.Node, samples: FollowedSamples) -> None:
    """Sizes to resize to, of which one is the batch's."""
    sizes = constant(node.inputs[3]) if len(node.inputs) > 3 else None
    place = samples.place(node.inputs[0])
    if sizes is not None and place is not None and "axes" not in node.attrs:
        node.inputs[3] = _sizes(graph, node.inputs[0], place.axis, sizes)


def _free_places(graph: Graph, node: gs.Node, samples: FollowedSamples) -> None:
    """Take from each sample what is taken from the only one, by its number and places within it."""
    data, places = node.inputs[0], constant(node.inputs[1])
    is_first = samples.place(data) == Place(0) and samples.batch == 1
    if places is None or not is_first or places.shape[:1] != (1,) or places.shape[-1] != 2:
        return
    if not node.attrs.get("batch_dims", 0) and not np.any(places[..., 0]):
        name = unique_name(graph, f"{node.name}.places")
        node.op, node.attrs = "Gather", {"axis": 1}
        node.inputs = [data, gs.Constant(name, places[0, ..., 1])]
        samples.set(node.outputs[0], Place(0))


def _free_grid(graph: Graph, node: gs.Node, samples: FollowedSamples) -> None:
    """A grid for each sample."""
    sizes = constant(node.inputs[1])
    if sizes is not None and samples.place(node.inputs[0]) == Place(0):
        node.inputs[1] = _sizes(graph, node.inputs[0], 0, sizes)
        samples.set(node.outputs[0], Place(0))


def _note_merged(graph: Graph, node: gs.Node, samples: FollowedSamples) -> None:  # noqa: ARG001
    """Say where samples lie in what a Flatten gives, with others on their axis maybe."""
    found = _place_behind(node, samples)
    if found is not None:
        samples.set(node.outputs[0], found)


def _free_merged(graph: Graph, node: gs.Node, samples: FollowedSamples) -> None:
    """Take from each sample what is taken from the only one, from an axis that others share."""
    data, chosen = node.inputs
    place, places = samples.place(data), constant(chosen)
    if place is None or place.axis or place.inner == 1 or samples.batch != 1:
        return
    if node.attrs.get("axis", 0) or not _all_known(data.shape, node.outputs[0].shape):
        return
    sizes = [-1, place.inner, *data.shape[1:]]
    if places is not None and places.shape[:1] == (1,) and np.all(places >= 0):
        one = gs.Constant(unique_name(graph, f"{node.name}.places"), places[0])
        node.inputs, node.attrs["axis"] = [_reshaped(graph, data, sizes), one], 1
    elif samples.place(chosen) == Place(0) and chosen.shape == [1]:  # each sample's own
        node.op, node.attrs = "GatherND", {"batch_dims": 1}
        node.inputs = [_reshaped(graph, data, sizes), _reshaped(graph, chosen, [-1, 1])]
    else:
        return
    samples.set(node.outputs[0], Place(0))


def _name_squeezed(graph: Graph, node: gs.Node, samples: FollowedSamples) -> None:
    """Name the axes that are squeezed away, so that one sample keeps its own."""
    data, *axes = node.inputs
    if samples.batch == 1 or any(not tensor.is_empty() for tensor in axes):
        return
    if _all_known(data.shape):
        found = [axis for axis, size in enumerate(data.shape) if size == 1]
        name = unique_name(graph, f"{node.name}.axes")
        node.inputs = [data, gs.Constant(name, np.array(found, np.int64))]
        if not found:
            node.op, node.inputs = "Identity", [data]


def _reshaped(graph: Graph, tensor: gs.Tensor, sizes: Sequence[int]) -> gs.Tensor:
    """A tensor in another shape."""
    result = gs.Variable(unique_name(graph, f"{tensor.name}.apart"), tensor.dtype)
    target = gs.Constant(unique_name(graph, f"{result.name}.shape"), np.array(sizes, np.int64))
    insert(graph, "Reshape", [tensor, target], result)
    return result


_FREES = {
    "AffineGrid": _free_grid,
    **dict.fromkeys(["Add", "Div", "Mul", "Pow", "Sub", "Where"], _share_constants),
    "Concat": _repeat_constants,
    "Expand": _free_expand,
    "Flatten": _note_merged,
    "Gather": _free_merged,
    **dict.fromkeys(["Loop", "Scan"], _repeat_starts),
    "GatherElements": _repeat_constants,
    "GatherND": _free_places,
    "Reshape": _free_reshape,
    "Resize": _free_resize,
    "Squeeze": _name_squeezed,
}


def _sizes(
    graph: Graph,
    tensor: gs.Tensor,
    axis: int,
    sizes: Sequence[int] | Array,
    place: int | None = None,
) -> gs.Tensor:
    """These sizes as a vector, but that of an axis is the one that the tensor has there.

    It goes to `place`; None for the same axis.
    """
    place = axis if place is None else place
    shape, batch, result = (
        gs.Variable(unique_name(graph, f"{tensor.name}.{part}"), np.int64)
        for part in ("shape", "batch", "sizes")
    )
    at, before, behind = (
        gs.Constant(unique_name(graph, f"{tensor.name}.{part}"), np.array(values, np.int64))
        for part, values in (
            ("axis", [axis]),
            ("before", sizes[:place]),
            ("behind", sizes[place + 1 :]),
        )
    )
    insert(graph, "Shape", [tensor], shape)
    insert(graph, "Gather", [shape, at], batch, attrs={"axis": 0})
    parts = [part for part in (before, batch, behind) if part is batch or part.values.size]
    insert(graph, "Concat", parts, result, attrs={"axis": 0})
    return result


_TRIALS = 2  # of several samples each: one whose ids are all the same does not show its mask
_MORE = 3  # samples than the batch has


def _same_for_each_sample(graph: Graph, freed: Graph, batch: int) -> bool:
    try:
        opened = Session(to_model(freed))
        fixed = SampleSession(to_model(graph))  # as many at a time as its batch has
        for seed in range(_TRIALS):
            feeds = _random(graph, batch + _MORE, seed)
            together, alone = opened.run(feeds), fixed.run(feeds)
            if not all(agree(values, alone[name]) for name, values in together.items()):
                return False
        part = deciding_part(freed)
        return part is None or not decide_together(to_model(part), _random(graph, 2))
    except Exception:  # the graph does not take so many, or no such values: any reason will do
        return False
