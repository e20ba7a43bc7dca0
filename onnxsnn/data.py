"""Data sets: arrays, idx files and image folders, made to fit a model's inputs."""

from __future__ import annotations

import gzip
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import numpy as np

from onnxsnn.arrays import Array
from onnxsnn.errors import DataError, UsageError

__all__ = ["Dataset", "InputSpec", "Preprocessing", "load", "parse_numbers", "parse_scale"]

_CHANNELS = (1, 3)
_SAMPLE_NAMES = ("x", "images", "data")
_LABEL_NAMES = ("y", "labels", "label")


@dataclass(frozen=True)
class InputSpec:
    """One input of a model: its shape has the batch first, and None for a symbolic size."""

    name: str
    shape: tuple[int | None, ...]
    dtype: np.dtype[Any]

    @property
    def takes_floats(self) -> bool:
        """Whether the input is of floating point."""
        return bool(np.issubdtype(self.dtype, np.floating))

    @property
    def channel_axis(self) -> int:
        """Where an image input has its channels: axis 1, unless only the last can be."""
        last_only = len(self.shape) == 4 and self.shape[1] not in _CHANNELS
        return 3 if last_only and self.shape[3] in _CHANNELS else 1


@dataclass(frozen=True)
class Preprocessing:
    """What is done to float inputs: `(values * scale - mean) / std`.

    Attributes:
        scale: a factor; None for 1.
        mean: one value, or one per channel; empty for 0.
        std: one value, or one per channel; empty for 1.
        layout: of the arrays in the file; they are transposed where the model's differs.
    """

    scale: float | None = None
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    layout: Literal["nchw", "nhwc"] | None = None

    def apply(self, values: Array, spec: InputSpec) -> Array:
        """Values of a batch in the model's dtype, preprocessed where that is a float."""
        if not spec.takes_floats:
            return values.astype(spec.dtype)
        values = values.astype(np.float32)
        if self.scale is not None:
            values *= np.float32(self.scale)
        if self.mean:
            values -= _along_channels(self.mean, values, spec)
        if self.std:
            values /= _along_channels(self.std, values, spec)
        return values.astype(spec.dtype, copy=False)


@dataclass(frozen=True)
class Dataset:
    """Samples and their labels.

    Attributes:
        inputs: by input name, [samples, ...], in the model's layout and the file's dtype.
        labels: int64 [samples], or None.
        specs: the model's inputs; empty where `inputs` are ready to be fed.
        preprocessing: applied batch by batch.
    """

    inputs: dict[str, Array]
    labels: Array | None = None
    specs: tuple[InputSpec, ...] = ()
    preprocessing: Preprocessing = field(default_factory=Preprocessing)

    def __post_init__(self) -> None:
        sizes = {name: len(values) for name, values in self.inputs.items()}
        if len(set(sizes.values())) != 1:
            raise DataError(f"the inputs hold different numbers of samples: {sizes}")
        if not len(self):
            raise DataError("the data hold no samples")
        if self.labels is not None and len(self.labels) != len(self):
            raise DataError(f"there are {len(self)} samples and {len(self.labels)} labels")

    def __len__(self) -> int:
        return len(next(iter(self.inputs.values())))

    def batches(self, size: int) -> Iterator[tuple[dict[str, Array], Array | None]]:
        """Feeds of at most `size` samples, ready for the model, and their labels.

        Raises:
            DataError: a value is NaN or infinite.
        """
        for start in range(0, len(self), size):
            rows = slice(start, start + size)
            labels = None if self.labels is None else self.labels[rows]
            yield {name: self._feed(name, v[rows]) for name, v in self.inputs.items()}, labels

    def take(self, count: int) -> Dataset:
        """The first `count` samples."""
        labels = None if self.labels is None else self.labels[:count]
        return replace(
            self, inputs={name: v[:count] for name, v in self.inputs.items()}, labels=labels
        )

    def _feed(self, name: str, values: Array) -> Array:
        spec = next((spec for spec in self.specs if spec.name == name), None)
        feed = values if spec is None else self.preprocessing.apply(values, spec)
        if feed.dtype.kind == "f" and not np.isfinite(feed).all():
            raise DataError(f"the samples for input {name!r} hold NaN or infinity")
        return feed


def load(
    path: str | Path,
    inputs: Sequence[InputSpec],
    *,
    labels: str | Path | None = None,
    preprocessing: Preprocessing | None = None,
    array: str | None = None,
    label_array: str | None = None,
) -> Dataset:
    """Read samples for a model, and labels where there are any.

    Args:
        path: `.npy`; `.npz`; idx, gzipped or not; or a folder of class folders of images.
        inputs: the model's inputs.
        labels: a file of labels: `.npy`, `.npz`, idx, or text with one integer a line. None
            takes those in the `.npz`, the class folders, or beside `...images-idx3...`.
        preprocessing: see Preprocessing.
        array: name of the samples' array in an `.npz`.
        label_array: name of the labels' array in an `.npz`.

    Raises:
        DataError: a file cannot be read, or does not fit the model.
        UsageError: the preprocessing makes no sense.
    """
    path, preprocessing = Path(path), preprocessing or Preprocessing()
    if any(value == 0 for value in preprocessing.std):
        raise UsageError("a standard deviation of 0 cannot be divided by")
    names = _Names(array, label_array)
    samples, found = _read(path, inputs, names)
    if labels is not None:
        found = _read_labels(Path(labels), names)
    fitted = {}
    for spec in inputs:
        if spec.name not in samples:
            raise DataError(f"{path}: holds no array for input {spec.name!r}")
        fitted[spec.name] = _fit(samples[spec.name], spec, preprocessing, path)
    try:
        checked = None if found is None else _check_labels(found)
        return Dataset(fitted, checked, tuple(inputs), preprocessing)
    except DataError as error:
        raise DataError(f"{path}: {error}") from error


def parse_scale(text: str) -> float:
    """A factor written as a number or a fraction, `1/255`.

    Raises:
        UsageError: it is neither.
    """
    try:
        return float(Fraction(text))
    except (ValueError, ZeroDivisionError) as error:
        raise UsageError(f"{text!r} is no number or fraction such as 1/255") from error


def parse_numbers(text: str) -> tuple[float, ...]:
    """Numbers with commas between them.

    Raises:
        UsageError: they are not.
    """
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise UsageError(f"{text!r} is no number, nor a list such as 0.5,0.4,0.3") from error


@dataclass(frozen=True)
class _Names:
    """The arrays that the user named in an .npz."""

    samples: str | None
    labels: str | None


_Read = tuple[dict[str, Array], Array | None]


def _read(path: Path, inputs: Sequence[InputSpec], names: _Names) -> _Read:
    """The arrays by input name, and labels, of any format."""
    if path.is_dir():
        return _read_folder(path, _only(inputs, path))
    reader = _READERS.get(path.suffix, _read_idx_samples)
    try:
        return reader(path, inputs, names)
    except DataError:
        raise
    except Exception as error:  # numpy, gzip and zipfile each have their own
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"{path}: cannot be read: {reason}") from error


def _only(inputs: Sequence[InputSpec], path: Path) -> InputSpec:
    if len(inputs) != 1:
        wanted = ", ".join(spec.name for spec in inputs)
        raise DataError(f"{path}: the model has several inputs; give an .npz with {wanted}")
    return inputs[0]


def _read_npy(path: Path, inputs: Sequence[InputSpec], names: _Names) -> _Read:  # noqa: ARG001
    return {_only(inputs, path).name: np.load(path, mmap_mode="r", allow_pickle=False)}, None


def _read_npz(path: Path, inputs: Sequence[InputSpec], names: _Names) -> _Read:
    with np.load(path, allow_pickle=False) as arrays:
        label = _choose(arrays.files, names.labels, _LABEL_NAMES, path)
        labels = None if label is None else arrays[label]
        if len(inputs) > 1:
            return {s.name: arrays[s.name] for s in inputs if s.name in arrays.files}, labels
        rest = [name for name in arrays.files if name != label]
        name = _choose(rest, names.samples, (inputs[0].name, *_SAMPLE_NAMES), path)
        if name is None and len(rest) == 1:
            name = rest[0]
        if name is None:
            raise DataError(
                f"{path}: which array holds the samples cannot be told; "
                f"name it with --array: {', '.join(rest) or 'there is none'}"
            )
        return {inputs[0].name: arrays[name]}, labels


def _choose(there: list[str], named: str | None, usual: tuple[str, ...], path: Path) -> str | None:
    """The array that was named, else the first of the usual names that is there."""
    if named is not None and named not in there:
        raise DataError(f"{path}: holds no array {named!r}, but {', '.join(there) or 'none'}")
    return named or next((name for name in usual if name in there), None)


_IDX_TYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}


def _read_idx(path: Path) -> Array:
    """An idx file: two zero bytes, type, number of axes, big-endian sizes, values."""
    content = path.read_bytes()
    if content[:2] == b"\x1f\x8b":
        content = gzip.decompress(content)
    if len(content) < 4 or content[:2] != b"\0\0" or content[2] not in _IDX_TYPES:
        raise DataError(f"{path}: is none of .npy, .npz, idx or a folder of images")
    header = 4 + 4 * content[3]
    shape = np.frombuffer(content, ">i4", content[3], 4).tolist()
    dtype = np.dtype(_IDX_TYPES[content[2]])
    if len(content) - header < math.prod(shape) * dtype.itemsize:
        raise DataError(f"{path}: is cut short: its header promises {shape}")
    return np.frombuffer(content, dtype, math.prod(shape), header).reshape(shape)


def _read_idx_samples(path: Path, inputs: Sequence[InputSpec], names: _Names) -> _Read:  # noqa: ARG001
    name = _only(inputs, path).name
    stem, mark, end = path.name.partition("images-idx")
    beside = path.with_name(f"{stem}labels-idx1{end[1:]}")
    labels = _read_idx(beside) if mark and beside.exists() else None
    return {name: _read_idx(path)}, labels


_READERS: dict[str, Callable[[Path, Sequence[InputSpec], _Names], _Read]] = {
    ".npy": _read_npy,
    ".npz": _read_npz,
}


def _read_folder(path: Path, spec: InputSpec) -> _Read:
    """Images in class folders; the folders in order of name are classes 0, 1, ...."""
    axis = spec.channel_axis
    sizes = [size for size in spec.shape[1:] if size is not None]
    channels = sizes.pop(axis - 1) if len(sizes) == 3 else 0
    if channels not in (1, 3):
        raise DataError(
            f"{path}: images fit inputs of 1 or 3 channels and a fixed size, and "
            f"{spec.name!r} has shape {list(spec.shape)}"
        )
    folders = sorted(entry for entry in path.iterdir() if entry.is_dir())
    files = [sorted(entry for entry in folder.iterdir() if entry.is_file()) for folder in folders]
    images = [_decode(file, channels, sizes) for inside in files for file in inside]
    if not images:
        raise DataError(f"{path}: holds no class folders with images")
    labels = np.repeat(np.arange(len(files)), [len(inside) for inside in files])
    return {spec.name: np.moveaxis(np.stack(images), -1, axis)}, labels


def _decode(file: Path, channels: int, sizes: list[int]) -> Array:
    """One image, uint8 [height, width, channels]."""
    try:
        from PIL import Image
    except ImportError as error:
        raise DataError(
            f"{file}: images need pillow; install it with: pip install 'onnxsnn[images]'"
        ) from error
    height, width = sizes
    try:
        with Image.open(file) as image:
            converted = image.convert("RGB" if channels == 3 else "L")
            resized = converted.resize((width, height), Image.Resampling.BILINEAR)
    except OSError as error:
        raise DataError(f"{file}: is no image that can be read") from error
    return np.asarray(resized).reshape(height, width, channels)


def _read_labels(path: Path, names: _Names) -> Array:
    """Labels of a file of their own."""
    reader = _LABEL_READERS.get(path.suffix, _read_idx_labels)
    try:
        return reader(path, names)
    except DataError:
        raise
    except Exception as error:
        raise DataError(f"{path}: labels cannot be read: {error}") from error


def _read_npz_labels(path: Path, names: _Names) -> Array:
    with np.load(path, allow_pickle=False) as arrays:
        name = _choose(arrays.files, names.labels, _LABEL_NAMES, path)
        labels: Array = arrays[name or arrays.files[0]]
        return labels


def _read_idx_labels(path: Path, names: _Names) -> Array:  # noqa: ARG001
    return _read_idx(path)


def _read_npy_labels(path: Path, names: _Names) -> Array:  # noqa: ARG001
    labels: Array = np.load(path, allow_pickle=False)
    return labels


def _read_text_labels(path: Path, names: _Names) -> Array:  # noqa: ARG001
    labels: Array = np.loadtxt(path, dtype=np.int64, ndmin=1)
    return labels


_LABEL_READERS: dict[str, Callable[[Path, _Names], Array]] = {
    ".npy": _read_npy_labels,
    ".npz": _read_npz_labels,
    ".txt": _read_text_labels,
    ".csv": _read_text_labels,
}


def _check_labels(labels: Array) -> Array:
    """Labels as int64 [samples]."""
    flat = labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 else labels
    if flat.ndim != 1:
        raise DataError(f"labels must be one per sample, and have shape {list(labels.shape)}")
    if flat.dtype.kind not in "iufb" or not np.array_equal(flat, np.trunc(flat)):
        raise DataError("labels must be whole numbers")
    if flat.size and flat.min() < 0:
        raise DataError(f"labels count from 0, and one is {flat.min()}")
    return flat.astype(np.int64)


def _fit(values: Array, spec: InputSpec, preprocessing: Preprocessing, path: Path) -> Array:
    """An array in the shape that an input takes, its dtype checked."""
    _check_dtype(values, spec, path)
    if preprocessing.layout is not None and values.ndim == 4:
        given = 1 if preprocessing.layout == "nchw" else 3
        if given != spec.channel_axis:
            order = (0, 3, 1, 2) if given == 3 else (0, 2, 3, 1)
            values = values.transpose(order)
    shape = spec.shape
    if values.ndim == 3 and len(shape) == 4 and shape[spec.channel_axis] == 1:
        values = np.expand_dims(values, spec.channel_axis)
    elif values.ndim > 2 and len(shape) == 2 and math.prod(values.shape[1:]) == shape[1]:
        values = values.reshape(len(values), -1)
    fits = values.ndim == len(shape) and all(
        wanted in (None, size) for wanted, size in zip(shape[1:], values.shape[1:], strict=True)
    )
    if not fits:
        wanted = ["N", *("?" if size is None else size for size in shape[1:])]
        raise DataError(
            f"{path}: samples have shape {list(values.shape)}, and input {spec.name!r} takes "
            f"[{', '.join(map(str, wanted))}]"
        )
    _check_channels(preprocessing, values, spec)
    return values


def _check_dtype(values: Array, spec: InputSpec, path: Path) -> None:
    if values.dtype.kind not in "fiub":
        raise DataError(f"{path}: samples are of type {values.dtype}; numbers are needed")
    whole = values.dtype.kind != "f" or np.array_equal(values, np.trunc(values))
    if not spec.takes_floats and not whole:
        raise DataError(
            f"{path}: samples are of type {values.dtype}, and input {spec.name!r} takes "
            f"whole numbers ({spec.dtype})"
        )


def _check_channels(preprocessing: Preprocessing, values: Array, spec: InputSpec) -> None:
    channels = values.shape[spec.channel_axis] if values.ndim > 1 else 1
    for name, numbers in (("mean", preprocessing.mean), ("std", preprocessing.std)):
        if len(numbers) not in (0, 1, channels):
            raise DataError(
                f"{name} has {len(numbers)} values, and input {spec.name!r} {channels} channels"
            )


def _along_channels(numbers: tuple[float, ...], values: Array, spec: InputSpec) -> Array:
    shape = [1] * values.ndim
    shape[min(spec.channel_axis, values.ndim - 1)] = len(numbers)
    return np.array(numbers, np.float32).reshape(shape)
