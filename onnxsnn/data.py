"""Data sets: arrays, idx files and image folders, made to fit a model's inputs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np

from onnxsnn.arrays import Array, holds
from onnxsnn.errors import DataError, UsageError
from onnxsnn.inputs import InputSpec, scalar_problem
from onnxsnn.readers import ArrayNames, read_labels, read_samples, spread

__all__ = ["Dataset", "Preprocessing", "load", "parse_numbers", "parse_scale"]

_CHANNEL_AXES = {"nchw": 1, "nhwc": 3}
_NO_LABELS = "targets that are no classes are left out by --no-labels"


@dataclass(frozen=True)
class Preprocessing:
    """What is done to float inputs: `(values * scale - mean) / std`.

    Attributes:
        scale: a factor; None for 1.
        mean: one value, or one per channel; empty for 0.
        std: one value, or one per channel; empty for 1.
        layout: of the arrays in the file; they are transposed where the model's differs. Images
            of a folder come in the model's.
    """

    scale: float | None = None
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    layout: Literal["nchw", "nhwc"] | None = None

    def apply(self, values: Array, spec: InputSpec) -> Array:
        """Values of a batch in the model's dtype, preprocessed where that is a float."""
        if not spec.takes_floats:
            return values.astype(spec.dtype)
        values = values.astype(np.promote_types(spec.dtype, np.float32))
        if self.scale is not None:
            values *= self.scale
        if self.mean:
            values -= _along_channels(self.mean, values, spec)
        if self.std:
            values /= _along_channels(self.std, values, spec)
        return values.astype(spec.dtype, copy=False)


_Rows: TypeAlias = Array | slice


@dataclass(frozen=True)
class Dataset:
    """Samples and their labels.

    Attributes:
        inputs: by input name, [samples, ...], in the model's layout and the file's dtype.
        labels: int64 [samples], or None.
        specs: the model's inputs; empty where `inputs` are ready to be fed.
        preprocessing: applied batch by batch.
        path: of the file that they come from, which errors name; None for none.
    """

    inputs: dict[str, Array]
    labels: Array | None = None
    specs: tuple[InputSpec, ...] = ()
    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    path: Path | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.inputs, Mapping) or not self.inputs:
            raise self.error("there are no inputs; give arrays by input name")
        for name, values in self.inputs.items():
            if not np.ndim(values):
                raise self.error(f"input {name!r} is a single number; give it an axis of samples")
            if not isinstance(values, np.ndarray):
                raise self.error(f"input {name!r} is no array, but {type(values).__name__}")
        sizes = {name: len(values) for name, values in self.inputs.items()}
        if len(set(sizes.values())) != 1:
            raise self.error(f"the inputs hold different numbers of samples: {sizes}{_once(sizes)}")
        if not len(self):
            raise self.error("the data hold no samples")
        if self.labels is not None and len(self.labels) != len(self):
            raise self.error(f"there are {len(self)} samples and {len(self.labels)} labels")
        if self.labels is not None and not _are_classes(self.labels):
            raise self.error("labels are one whole number for each sample, from 0 on, in an array")

    def __len__(self) -> int:
        return len(next(iter(self.inputs.values())))

    def fitted(self, specs: Sequence[InputSpec]) -> Dataset:
        """These samples for a model with such inputs, in its types.

        Raises:
            DataError: they have other names, shapes or types.
        """
        names = [spec.name for spec in specs]
        if set(names) != set(self.inputs):
            raise self.error(f"the model's inputs are {names}, and {sorted(self.inputs)} came")
        for spec in specs:
            _check_dtype(self.inputs[spec.name], spec, self.path)
            _check_shape(self.inputs[spec.name], spec, self.path)
        return replace(self, specs=tuple(specs))

    def batches(self, size: int) -> Iterator[tuple[dict[str, Array], Array | None]]:
        """Feeds of at most `size` samples, ready for the model, and their labels.

        Raises:
            DataError: a value is infinite, or NaN and the model has no rule for that.
            UsageError: `size` is less than 1.
        """
        if size < 1:
            raise UsageError(f"a batch has at least one sample, not {size}")
        for start in range(0, len(self), size):
            part = self.slice(start, start + size)
            feeds = {name: self._feed(name, values) for name, values in part.inputs.items()}
            yield feeds, part.labels

    def slice(self, start: int, stop: int | None) -> Dataset:
        """The samples from `start` to before `stop`, all for None."""
        return self.take(slice(start, stop))

    def take(self, rows: _Rows) -> Dataset:
        """The samples of these numbers, in their order; one may come several times."""
        labels = None if self.labels is None else self.labels[rows]
        inputs = {name: values[rows] for name, values in self.inputs.items()}
        return replace(self, inputs=inputs, labels=labels)

    def spread(self, count: int) -> Dataset:
        """At most so many samples, evenly spread over all: they may come in order of class."""
        return self.take(spread(count, len(self)))

    def parted(self, count: int) -> tuple[Dataset, Dataset]:
        """So many samples, evenly spread over all, and the others."""
        rows = spread(count, len(self))
        return self.take(rows), self.take(np.delete(np.arange(len(self)), rows))

    def _feed(self, name: str, values: Array) -> Array:
        spec = next((spec for spec in self.specs if spec.name == name), None)
        with np.errstate(all="ignore"):  # what overflows is refused below
            feed = values if spec is None else self.preprocessing.apply(values, spec)
        if feed.dtype.kind == "f":
            knows_nan = spec is not None and spec.knows_nan
            sound = ~np.isinf(feed) if knows_nan else np.isfinite(feed)
            if not sound.all():
                raise self.error(
                    f"the samples for input {name!r} hold NaN or infinity as {feed.dtype}"
                )
        return feed

    def error(self, message: str) -> DataError:
        """An error in these data, which names their file."""
        return _error(self.path, message)


def _error(path: Path | None, message: str) -> DataError:
    return DataError(message if path is None else f"{path}: {message}")


def load(
    path: str | Path,
    inputs: Sequence[InputSpec],
    *,
    labels: str | Path | None = None,
    preprocessing: Preprocessing | None = None,
    array: str | None = None,
    label_array: str | None = None,
    labelled: bool = True,
    limit: int | None = None,
) -> Dataset:
    """Read samples for a model, and labels where there are any.

    Args:
        path: `.npy`; `.npz`; idx, gzipped or not; or a folder of class folders of images.
        inputs: the model's inputs.
        labels: a file of labels: `.npy`, `.npz`, idx, or text with one integer a line. None
            takes those in the `.npz`, the class folders, or beside `...images-idx3...`.
        preprocessing: see Preprocessing.
        array: name of the samples' array in an `.npz`.
        label_array: name of the labels' array in an `.npz`: in `labels` where that is given.
        labelled: False leaves labels out, unread: calibration needs none.
        limit: how many samples to take at most, evenly spread over all; None for all.

    Raises:
        DataError: a file cannot be read, or does not fit the model.
        UsageError: the preprocessing makes no sense.
    """
    path, preprocessing = Path(path), preprocessing or Preprocessing()
    if path.is_dir():
        preprocessing = replace(preprocessing, layout=None)
    if preprocessing.layout not in (None, *_CHANNEL_AXES):
        raise UsageError(f"layout {preprocessing.layout!r} is neither nchw nor nhwc")
    if any(value == 0 for value in preprocessing.std):
        raise UsageError("a standard deviation of 0 cannot be divided by")
    if labels is None or not labelled:
        names = ArrayNames(array, label_array, labelled)
        samples, found = read_samples(path, inputs, names, limit)
    else:
        samples, _ = read_samples(path, inputs, ArrayNames(array, None, labelled=False))
        found = read_labels(Path(labels), ArrayNames(None, label_array))
    fitted = {}
    for spec in inputs:
        if spec.name not in samples:
            hint = _as_constant(spec.name) if len(inputs) > 1 else ""
            raise DataError(f"{path}: holds no array for input {spec.name!r}{hint}")
        fitted[spec.name] = _fit(samples[spec.name], spec, preprocessing, path)
    checked = None
    if labelled and found is not None:
        checked = _check_labels(found, Path(labels or path))
    dataset = Dataset(fitted, checked, tuple(inputs), preprocessing, path)
    return dataset if limit is None else dataset.spread(limit)


def parse_scale(text: str) -> float:
    """A factor written as a number or a fraction, `1/255`.

    Raises:
        UsageError: it is neither.
    """
    numerator, slash, denominator = text.partition("/")
    try:
        return _finite(numerator) / (_finite(denominator) if slash else 1.0)
    except (ValueError, ZeroDivisionError) as error:
        raise UsageError(f"{text!r} is no number or fraction such as 1/255") from error


def parse_numbers(text: str) -> tuple[float, ...]:
    """Numbers with commas between them.

    Raises:
        UsageError: they are not.
    """
    try:
        return tuple(_finite(part) for part in text.split(","))
    except ValueError as error:
        raise UsageError(f"{text!r} is no number, nor a list such as 0.5,0.4,0.3") from error


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError
    return value


def _check_labels(labels: Array, path: Path) -> Array:
    """Labels as int64 [samples]."""
    flat = labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 else labels
    if flat.ndim != 1:
        raise DataError(
            f"{path}: labels must be one per sample, and have shape {list(labels.shape)}; "
            f"{_NO_LABELS}"
        )
    if flat.dtype.kind not in "iufb" or not holds(np.dtype(np.int64), flat):
        raise DataError(f"{path}: labels must be whole numbers; {_NO_LABELS}")
    if flat.size and flat.min() < 0:
        raise DataError(f"{path}: labels count from 0, and one is {flat.min()}")
    return flat.astype(np.int64)


def _are_classes(labels: Array) -> bool:
    return (
        isinstance(labels, np.ndarray)
        and labels.ndim == 1
        and labels.dtype.kind in "iu"
        and labels.min(initial=0) >= 0
    )


def _once(sizes: Mapping[str, int]) -> str:
    """What to do where an input is given once for all samples."""
    once = [name for name, size in sizes.items() if size == 1]
    return _as_constant(once[0]) if once else ""


def _as_constant(name: str) -> str:
    """How an input that is none for each sample becomes a constant."""
    return (
        f"; make what is one for all a constant: onnxsnn fix-inputs MODEL {name}=NUMBER, or "
        f"{name}=FILE.npy"
    )


def _fit(values: Array, spec: InputSpec, preprocessing: Preprocessing, path: Path) -> Array:
    """An array in the shape that an input takes, its dtype checked."""
    _check_dtype(values, spec, path)
    shape, sample_size = spec.shape, math.prod(values.shape[1:])
    if values.ndim == 4 and len(shape) == 4:
        values = _to_layout_of(spec, values, preprocessing.layout)
    elif values.ndim == 3 and len(shape) == 4 and shape[spec.channel_axis] == 1:
        values = np.expand_dims(values, spec.channel_axis)
    elif values.ndim > 2 and len(shape) == 2 and sample_size == shape[1]:
        values = values.reshape(len(values), sample_size)
    _check_shape(values, spec, path)
    _check_channels(preprocessing, values, spec, path)
    return values


def _check_shape(values: Array, spec: InputSpec, path: Path | None) -> None:
    if not spec.shape:
        raise _error(path, scalar_problem(spec.name))
    if not spec.fits(values):
        wanted = ["N", *("?" if size is None else size for size in spec.shape[1:])]
        raise _error(
            path,
            f"samples have shape {list(values.shape)}, and input {spec.name!r} takes "
            f"[{', '.join(map(str, wanted))}]{_hint(values, spec)}",
        )


def _hint(values: Array, spec: InputSpec) -> str:
    """What to do where a model takes one sample, without an axis for more."""
    axes = len(spec.shape)
    if values.ndim != axes + 1 or values.shape[2:] != tuple(spec.shape[1:]):
        return ""
    return "; if the model takes one sample at a time, export it for a batch of them"


def _to_layout_of(spec: InputSpec, values: Array, layout: str | None) -> Array:
    """Images with their channels on the model's axis; one channel needs no declared layout."""
    axis = spec.channel_axis
    other = 4 - axis
    if layout is None:
        moves = spec.shape[axis] == values.shape[other] == 1 != values.shape[axis]
    else:
        moves = _CHANNEL_AXES[layout] == other
    moved = np.moveaxis(values, other, axis)
    return moved if moves and (spec.fits(moved) or not spec.fits(values)) else values


def _check_dtype(values: Array, spec: InputSpec, path: Path | None) -> None:
    if values.dtype.kind not in "fiub":
        raise _error(path, f"samples are of type {values.dtype}; numbers are needed")
    if not spec.takes_floats and not holds(spec.dtype, values):
        raise _error(
            path,
            f"input {spec.name!r} takes whole numbers of type {spec.dtype}, and the samples, of "
            f"type {values.dtype}, hold others",
        )


def _check_channels(
    preprocessing: Preprocessing, values: Array, spec: InputSpec, path: Path
) -> None:
    if not spec.takes_floats:
        return
    channels = values.shape[spec.channel_axis] if values.ndim > 1 else 1
    for name, numbers in (("mean", preprocessing.mean), ("std", preprocessing.std)):
        if len(numbers) not in (0, 1, channels):
            raise DataError(
                f"{path}: {name} has {len(numbers)} values, and input {spec.name!r} {channels} "
                "channels"
            )


def _along_channels(numbers: tuple[float, ...], values: Array, spec: InputSpec) -> Array:
    shape = [1] * values.ndim
    shape[min(spec.channel_axis, values.ndim - 1)] = len(numbers)
    return np.array(numbers, values.dtype).reshape(shape)
