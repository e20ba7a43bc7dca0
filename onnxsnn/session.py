"""ONNX Runtime as a function from feeds to outputs: what passes, calibration and backends run."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np
import onnx
import onnxruntime as ort
from onnx.helper import tensor_dtype_to_np_dtype
from onnx.numpy_helper import to_array

from onnxsnn.arrays import Array
from onnxsnn.errors import DataError, ModelError
from onnxsnn.light import is_large, light_model, without_values

__all__ = [
    "SampleSession",
    "Session",
    "fixed_batch",
    "join",
    "lacking_samples",
    "make_session",
    "pieces_of",
    "quiet_onnxruntime",
    "run_failure",
    "same_for_any",
    "side_by_side",
    "split",
    "whole_batches",
    "with_samples",
]

_FATAL_ONLY = 4  # errors come as exceptions; warnings, of every state's default initializer
_WARNINGS = 2  # what ONNX Runtime starts with
_CACHE_LINE = 64  # bytes


@contextmanager
def quiet_onnxruntime() -> Iterator[None]:
    """Keep ONNX Runtime's warnings off standard error in sessions that others make."""
    ort.set_default_logger_severity(_FATAL_ONLY)
    try:
        yield
    finally:
        ort.set_default_logger_severity(_WARNINGS)


def make_session(
    model: onnx.ModelProto, threads: int | None = None, *, spinning: bool = True
) -> ort.InferenceSession:
    """An ONNX Runtime session on the CPU; `threads` of None lets ONNX Runtime choose.

    Large weights go beside the model, so that it is not written out and read with them.

    Its threads spin for a while when they have nothing to do, which is in the way of another
    session, or of NumPy, that runs right after it; `spinning` says whether they may.

    Raises:
        ModelError: ONNX Runtime does not take the model.
    """
    options = ort.SessionOptions()
    options.log_severity_level = _FATAL_ONLY
    if not spinning:
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if threads is not None:
        options.intra_op_num_threads = threads
    try:
        return _Session(model, options)
    except Exception as error:
        raise ModelError(f"ONNX Runtime does not take the model: {error}") from error


class _Session(ort.InferenceSession):  # type: ignore[misc]  # it has no types
    """A session whose large weights are beside its model, where they live as long as it does."""

    def __init__(self, model: onnx.ModelProto, options: ort.SessionOptions) -> None:
        given = model.graph.initializer
        weights = {
            tensor.name: _aligned(to_array(tensor)) for tensor in given if _is_beside(tensor)
        }
        self._weights = [ort.OrtValue.ortvalue_from_numpy(array) for array in weights.values()]
        if weights:
            options.add_external_initializers(list(weights), self._weights)
            model = light_model(model, [_external(t) if t.name in weights else t for t in given])
        super().__init__(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def _is_beside(tensor: onnx.TensorProto) -> bool:
    """Whether an initializer is large, and NumPy knows its type by itself."""
    return is_large(tensor) and tensor_dtype_to_np_dtype(tensor.data_type).isbuiltin == 1


def _aligned(array: Array) -> Array:
    """A copy that starts where vector instructions read fastest."""
    room = np.empty(array.nbytes + _CACHE_LINE, np.uint8)
    start = -room.ctypes.data % _CACHE_LINE
    copy: Array = room[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy


def _external(tensor: onnx.TensorProto) -> onnx.TensorProto:
    """An initializer whose values are elsewhere."""
    stub = without_values(tensor)
    stub.data_location = onnx.TensorProto.EXTERNAL
    stub.external_data.add(key="location", value="weights")
    return stub


class Session:
    """A model that is run without state, any number of samples at a time.

    A model whose batch axis is fixed is run as often as the samples need, the last time
    on a batch that is filled up with copies of its last sample. `threads` and `spinning` are
    those of `make_session`.
    """

    def __init__(
        self, model: onnx.ModelProto, threads: int | None = None, *, spinning: bool = True
    ) -> None:
        self._session = make_session(model, threads, spinning=spinning)
        self.inputs: list[str] = [tensor.name for tensor in self._session.get_inputs()]
        self.outputs: list[str] = [tensor.name for tensor in self._session.get_outputs()]
        self._batch = fixed_batch([tensor.shape for tensor in self._session.get_inputs()])
        shapes = {tensor.name: tensor.shape for tensor in self._session.get_outputs()}
        self._shared = same_for_any(shapes, self._batch)

    def run(
        self, feeds: Mapping[str, Array], outputs: Sequence[str] | None = None
    ) -> dict[str, Array]:
        """Outputs by name, all or those named, for feeds by name.

        Args:
            feeds: [N, ...] each, of the model's types.
            outputs: names; None for all.

        Raises:
            DataError: the model fails on these feeds.
        """
        names = list(self.outputs if outputs is None else outputs)
        count = len(next(iter(feeds.values())))
        pieces = [self._run(names, piece) for piece in split(feeds, self._batch)]
        return join(pieces, count, batch=self._batch, shared=self._shared)

    def _run(self, names: list[str], feeds: dict[str, Array]) -> dict[str, Array]:
        if not names:  # ONNX Runtime would give all
            return {}
        try:
            values = dict(zip(names, self._session.run(names, feeds), strict=True))
        except Exception as error:  # ONNX Runtime's are not of one class
            raise run_failure(feeds, error) from error
        # of an input ONNX Runtime 1.23 gives the feed's own memory, and does not keep it alive
        return {name: v.copy() if name in feeds else v for name, v in values.items()}


class SampleSession(Session):
    """A network as it was given, that was maybe written for one sample.

    What it gives of one without an axis of samples gets that in front, also where it gives it of
    several with one. Where its batch is said to be open, and it takes one sample alone, it is given
    one at a time.
    """

    def __init__(self, model: onnx.ModelProto, threads: int | None = None) -> None:
        super().__init__(model, threads)
        samples = {tensor.shape[0] for tensor in self._session.get_inputs() if tensor.shape}
        self._shapes = {  # what is said to be the samples' axis, and has another size, is not
            tensor.name: [0 if size in samples else size for size in tensor.shape]
            for tensor in self._session.get_outputs()
        }
        self._axes: dict[str, int] = {}

    def run(
        self, feeds: Mapping[str, Array], outputs: Sequence[str] | None = None
    ) -> dict[str, Array]:
        """As of any session."""
        try:
            return super().run(feeds, outputs)
        except DataError:
            if self._batch is not None or len(next(iter(feeds.values()))) == 1:
                raise
        self._batch = 1
        return super().run(feeds, outputs)

    def _run(self, names: list[str], feeds: dict[str, Array]) -> dict[str, Array]:
        values = super()._run(names, feeds)
        if self._batch is None and len(next(iter(feeds.values()))) == 1:
            fewer = self._of_fewer_axes(feeds, values)
            return {name: v[None] if name in fewer else v for name, v in values.items()}
        return with_samples(values, lacking_samples(self._shapes, self._batch))

    def _of_fewer_axes(self, feeds: Mapping[str, Array], values: Mapping[str, Array]) -> set[str]:
        """The outputs that have an axis less for one sample than for two, which are tried once."""
        new = [name for name in values if name not in self._axes]
        if new:
            pair = {name: np.repeat(given, 2, axis=0) for name, given in feeds.items()}
            try:
                self._axes |= {name: two.ndim for name, two in super()._run(new, pair).items()}
            except DataError:  # it takes one sample alone
                self._axes |= {
                    name: values[name].ndim + (values[name].shape[:1] != (1,))
                    for name in lacking_samples(self._shapes, 1) & set(new)
                }
        return {name for name, value in values.items() if value.ndim < self._axes.get(name, 0)}


def run_failure(feeds: Mapping[str, Array], error: Exception) -> DataError:
    """The error that says on what inputs a model failed, and why."""
    shapes = ", ".join(f"{name} {list(values.shape)}" for name, values in feeds.items())
    return DataError(f"the model fails on inputs of shape {shapes}: {error}")


def fixed_batch(shapes: Sequence[Sequence[int | str | None]]) -> int | None:
    """The size of the first axis if all inputs have it fixed; None where it is symbolic."""
    sizes = {shape[0] for shape in shapes if shape}
    size = sizes.pop() if len(sizes) == 1 else None
    return size if isinstance(size, int) else None


def whole_batches(samples: int, batch: int | None) -> int:
    """At most so many samples, at least one, that fill whole batches of a fixed size, if any."""
    size = batch or 1
    return max(samples // size, 1) * size


def same_for_any(shapes: Mapping[str, Sequence[int | str | None]], batch: int | None) -> set[str]:
    """Outputs that may be the same for any samples: their first axis has a size of its own.

    Args:
        shapes: of outputs, by name; none where the number of axes is not known.
        batch: from `fixed_batch`.
    """
    first = {name: shape[0] if shape else 0 for name, shape in shapes.items()}
    return {name for name, size in first.items() if isinstance(size, int) and size != batch}


def lacking_samples(
    shapes: Mapping[str, Sequence[int | str | None]], batch: int | None
) -> set[str]:
    """Outputs that may have no axis of samples, as all that they hold is of the only one.

    Args:
        shapes: of outputs, by name; none where the number of axes is not known.
        batch: from `fixed_batch`; where it is not 1, no output is one of these.
    """
    return same_for_any(shapes, batch) if batch == 1 else set()


def with_samples(
    values: Mapping[str, Array], lacking: Collection[str], axis: int = 0
) -> dict[str, Array]:
    """The outputs for one sample, with an axis of samples where it is lacking."""
    return {
        name: np.expand_dims(array, axis)
        if name in lacking and array.shape[axis : axis + 1] != (1,)
        else array
        for name, array in values.items()
    }


def split(feeds: Mapping[str, Array], size: int | None) -> list[dict[str, Array]]:
    """Feeds in batches of `size` samples, the last one filled up; as they are for None."""
    count = len(next(iter(feeds.values())))
    if size is None or count == size:
        return [dict(feeds)]
    rows = np.minimum(np.arange(-(-count // size) * size), count - 1).reshape(-1, size)
    return [{name: values[row] for name, values in feeds.items()} for row in rows]


def pieces_of(feeds: Mapping[str, Array], size: int) -> list[dict[str, Array]]:
    """Feeds in batches of `size` samples at most, none filled up."""
    count = len(next(iter(feeds.values())))
    return [{n: v[i : i + size] for n, v in feeds.items()} for i in range(0, count, size)]


def join(
    pieces: Sequence[Mapping[str, Array]],
    count: int,
    *,
    axis: int | Mapping[str, int] = 0,
    batch: int | None = None,
    shared: Collection[str] = (),
) -> dict[str, Array]:
    """The outputs of batches as one.

    Args:
        pieces: the outputs of each batch.
        count: the number of samples.
        axis: of the samples, in all outputs or by name.
        batch: the size of batches of which the last one may have been filled up, so that only
            `count` samples count; None where all is kept, whatever the axis holds.
        shared: names of outputs that may be the same for any samples: `same_for_any`.

    Raises:
        DataError: there are several batches, and an output is one number for each, or of another
            size in each.
    """
    axes = axis if isinstance(axis, Mapping) else dict.fromkeys(pieces[0], axis)
    joined = {}
    for name, first in pieces[0].items():
        parts = [piece[name] for piece in pieces]
        if name in shared and _is_of_any(parts, count, axes[name], batch):
            joined[name] = first
        else:
            joined[name] = _joined(name, parts, count, axes[name], batch)
    return joined


def side_by_side(pieces: Sequence[Mapping[str, Array]]) -> dict[str, Array]:
    """The outputs of batches, to compare: what is one number for a batch is one of each."""
    return {
        name: np.concatenate([np.atleast_1d(piece[name]) for piece in pieces]) for name in pieces[0]
    }


def _is_of_any(parts: Sequence[Array], count: int, axis: int, batch: int | None) -> bool:
    """Whether what batches give is the same for any samples: not one entry for each."""
    if parts[0].ndim <= axis:
        return False
    samples = count if batch is None else -(-count // batch) * batch
    by_sample = sum(part.shape[axis] for part in parts) == samples
    return not by_sample and all(np.array_equal(part, parts[0]) for part in parts[1:])


def _joined(name: str, parts: Sequence[Array], count: int, axis: int, batch: int | None) -> Array:
    """One output's parts as one."""
    problem = ""
    if parts[0].ndim <= axis:
        if len(parts) == 1:
            return parts[0]
        problem = "is one number for a whole batch"
    elif len({np.delete(part.shape, axis).tobytes() for part in parts}) > 1:
        problem = "holds another number of values for every batch"
    if problem:
        raise DataError(
            f"output {name!r} {problem}, and the samples came in {len(parts)} batches; give no "
            "more samples than one batch takes"
        )
    whole = parts[0] if len(parts) == 1 else np.concatenate(parts, axis)
    if batch is None or parts[0].shape[axis] % batch:
        return whole
    rows = parts[0].shape[axis] // batch  # of each sample
    return whole[(slice(None),) * axis + (slice(count * rows),)]
