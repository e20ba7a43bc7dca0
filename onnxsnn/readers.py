"""Readers: arrays from .npy, .npz, idx and text files and from folders of images."""

from __future__ import annotations

import gzip
import math
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.lib.npyio import NpzFile

from onnxsnn.arrays import Array
from onnxsnn.errors import DataError
from onnxsnn.inputs import InputSpec

__all__ = [
    "ArrayNames",
    "is_data",
    "labels_beside",
    "read_array",
    "read_labels",
    "read_samples",
    "spread",
]

_SAMPLE_NAMES = ("x", "images", "data")
_LABEL_NAMES = ("y", "labels", "label")
_OF_WINDOWS = ("thumbs.db", "desktop.ini")  # that its Explorer puts beside images


@dataclass(frozen=True)
class ArrayNames:
    """The arrays that the user named in an .npz, and whether labels are wanted from the file."""

    samples: str | None
    labels: str | None
    labelled: bool = True


_Read = tuple[dict[str, Array], Array | None]


def spread(count: int, total: int) -> Array:
    """The numbers of at most `count` samples, evenly spread over all, [count]."""
    count = min(count, total)
    return np.arange(count) * total // max(count, 1)


def read_samples(
    path: Path, inputs: Sequence[InputSpec], names: ArrayNames, limit: int | None = None
) -> _Read:
    """The arrays by input name, and labels where they are wanted and the format has them.

    Args:
        path: of the file, or the folder.
        inputs: the model's.
        names: of the arrays.
        limit: how many images of a folder to read, evenly spread over all; None for all.

    Raises:
        DataError: a file cannot be read, or which array is meant cannot be told.
    """
    if path.is_dir():
        return _read_folder(path, _only(inputs, path), limit)
    reader = _READERS.get(path.suffix.lower(), _read_idx_samples)
    with _reading(path):
        return reader(path, inputs, names)


def read_array(path: Path) -> Array:
    """The array of an .npy.

    Raises:
        DataError: the file cannot be read.
    """
    with _reading(path), path.open("rb") as file:
        values: Array = np.lib.format.read_array(file, allow_pickle=False)
        return values


@contextmanager
def _reading(path: Path, what: str = "") -> Iterator[None]:
    """Say which file cannot be read, and why."""
    try:
        yield
    except DataError:
        raise
    except Exception as error:  # numpy, gzip and zipfile each have their own
        raise DataError(f"{path}: {what}cannot be read: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    """What a reader says of a file, in other words where NumPy advises to unpickle it."""
    if any(words in str(error) for words in ("allow_pickle", "Python objects")):
        return "it holds no arrays of numbers; save such with numpy.save or numpy.savez"
    return getattr(error, "strerror", None) or str(error)


def _only(inputs: Sequence[InputSpec], path: Path) -> InputSpec:
    if len(inputs) != 1:
        wanted = ", ".join(spec.name for spec in inputs)
        raise DataError(f"{path}: the model has several inputs; give an .npz with {wanted}")
    return inputs[0]


def _read_npy(path: Path, inputs: Sequence[InputSpec], names: ArrayNames) -> _Read:  # noqa: ARG001
    return {_only(inputs, path).name: np.lib.format.open_memmap(path, mode="r")}, None


def _read_npz(path: Path, inputs: Sequence[InputSpec], names: ArrayNames) -> _Read:
    with np.load(path, allow_pickle=False) as arrays:
        there = _arrays(arrays)
        taken = {names.samples, *(spec.name for spec in inputs)}
        free = [name for name in there if name not in taken]
        named = names.labels if names.labelled else None  # unlabelled samples need not have it
        label = _choose(free, there, named, (names.labels, *_LABEL_NAMES), path)
        labels = arrays[label] if label is not None and names.labelled else None
        if len(inputs) > 1:
            return {s.name: arrays[s.name] for s in inputs if s.name in there}, labels
        rest = [name for name in there if name != label]
        name = _choose(rest, there, names.samples, (inputs[0].name, *_SAMPLE_NAMES), path)
        if name is None and len(rest) == 1:
            name = rest[0]
        if name is None:
            raise DataError(
                f"{path}: which array holds the samples cannot be told; "
                f"name it with --array: {', '.join(rest) or 'there is none'}"
            )
        return {inputs[0].name: arrays[name]}, labels


def _arrays(archive: NpzFile) -> list[str]:
    """The names of the arrays in an .npz, which may hold other entries beside."""
    assert archive.zip is not None  # it is open
    entries = set(archive.zip.namelist())
    return [name for name in archive.files if f"{name}.npy" in entries]


def _choose(
    free: list[str],
    there: list[str],
    named: str | None,
    usual: tuple[str | None, ...],
    path: Path,
) -> str | None:
    """The array that was named, else the first of the usual names that is there and free."""
    if named is not None and named not in there:
        raise DataError(f"{path}: holds no array {named!r}, but {', '.join(there) or 'none'}")
    if named is not None and named not in free:
        raise DataError(f"{path}: array {named!r} cannot hold the samples and the labels too")
    return named or next((name for name in usual if name in free), None)


_IDX_TYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}


def _read_idx(path: Path) -> Array:
    """An idx file: two zero bytes, type, number of axes, big-endian sizes, values."""
    content = path.read_bytes()
    if content[:2] == b"\x1f\x8b":
        content = gzip.decompress(content)
    if len(content) < 4 or content[:2] != b"\0\0" or content[2] not in _IDX_TYPES:
        raise DataError(f"{path}: is none of .npy, .npz, idx or a folder of images")
    header = 4 + 4 * content[3]
    shape = np.frombuffer(content, ">u4", content[3], 4).tolist()
    dtype = np.dtype(_IDX_TYPES[content[2]])
    promised, held = math.prod(shape) * dtype.itemsize, len(content) - header
    if held != promised:
        raise DataError(f"{path}: holds {held} bytes of values; its header {shape} says {promised}")
    return np.frombuffer(content, dtype, math.prod(shape), header).reshape(shape)


def _read_idx_samples(path: Path, inputs: Sequence[InputSpec], names: ArrayNames) -> _Read:
    name = _only(inputs, path).name
    beside = labels_beside(path) if names.labelled else None
    return {name: _read_idx(path)}, None if beside is None else read_labels(beside, names)


def is_data(path: Path) -> bool:
    """Whether a file holds arrays, by its name; idx files, which may have any, are not known so."""
    return path.suffix.lower() in _READERS


def labels_beside(path: Path) -> Path | None:
    """The file of labels that goes with `...images-idx3...`, gzipped or not, if there is one."""
    renamed = re.sub(r"images([-.]idx)\d", r"labels\g<1>1", path.name)
    if renamed == path.name:
        return None
    plain = renamed.removesuffix(".gz")
    both = [path.with_name(renamed), path.with_name(plain), path.with_name(f"{plain}.gz")]
    return next((file for file in both if file.exists()), None)


_READERS: dict[str, Callable[[Path, Sequence[InputSpec], ArrayNames], _Read]] = {
    ".npy": _read_npy,
    ".npz": _read_npz,
}


def _read_folder(path: Path, spec: InputSpec, limit: int | None) -> _Read:
    """Images in class folders; the folders in order of name are classes 0, 1, ...."""
    axis = spec.channel_axis
    sizes = [size for size in spec.shape[1:] if size is not None]
    channels = sizes.pop(axis - 1) if len(sizes) == 3 else 0
    if channels not in (1, 3):
        raise DataError(
            f"{path}: images fit inputs of 1 or 3 channels and a fixed size, and "
            f"{spec.name!r} has shape {list(spec.shape)}"
        )
    folders = sorted(entry for entry in _visible(path) if entry.is_dir())
    found = [(file, label) for label, folder in enumerate(folders) for file in _images(folder)]
    if not found:
        raise DataError(f"{path}: holds no class folders with images")
    chosen = [found[i] for i in spread(len(found) if limit is None else limit, len(found))]
    images = np.stack([_decode(file, channels, sizes) for file, _ in chosen])
    labels = np.array([label for _, label in chosen])
    return {spec.name: np.moveaxis(images, -1, axis)}, labels


def _images(folder: Path) -> list[Path]:
    """The files of a class folder, in order of name."""
    files = sorted(_visible(folder))
    inner = next(filter(Path.is_dir, files), None)
    if inner is not None:
        raise DataError(
            f"{inner}: is a folder in a class folder, where images alone are read; move it, or "
            "give the folder that holds the class folders"
        )
    return files


def _visible(folder: Path) -> list[Path]:
    """What a folder holds but .DS_Store, .ipynb_checkpoints, Thumbs.db and their like."""
    try:
        return [entry for entry in folder.iterdir() if not _is_hidden(entry.name)]
    except OSError as error:
        raise DataError(f"{folder}: cannot be read: {error.strerror}") from error


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name.lower() in _OF_WINDOWS


def _decode(file: Path, channels: int, sizes: list[int]) -> Array:
    """One image, uint8 [height, width, channels]; of 16 bits, the nearest in 8."""
    try:
        from PIL import Image
    except ImportError as error:
        raise DataError(
            f"{file}: images need pillow; install it with: pip install 'onnxsnn[images]'"
        ) from error
    height, width = sizes
    try:
        with Image.open(file) as image:
            if image.mode in ("I", "F"):
                raise DataError(
                    f"{file}: is an image of 32-bit numbers, whose range is not known; "
                    "give images of 8 or 16 bits, or an array as .npy"
                )
            is_wide = image.mode.startswith("I;16")  # Pillow would cut off what is above 255
            narrow = Image.fromarray(_in_8_bits(np.asarray(image))) if is_wide else image
            converted = narrow.convert("RGB" if channels == 3 else "L")
            resized = converted.resize((width, height), Image.Resampling.BILINEAR)
    except DataError:
        raise
    except Exception as error:  # Pillow's readers of formats each have their own
        raise DataError(f"{file}: is no image that can be read") from error
    return np.asarray(resized).reshape(height, width, channels)


def _in_8_bits(values: Array) -> Array:
    """Values of 16 bits as the nearest of 8."""
    return np.rint(values * (255 / 65535)).astype(np.uint8)


def read_labels(path: Path, names: ArrayNames) -> Array:
    """Labels of a file of their own: .npy, .npz, idx, or text with one integer a line.

    Raises:
        DataError: the file cannot be read.
    """
    reader = _LABEL_READERS.get(path.suffix.lower(), _read_other_labels)
    with _reading(path, "labels "):
        return reader(path, names)


def _read_npz_labels(path: Path, names: ArrayNames) -> Array:
    with np.load(path, allow_pickle=False) as arrays:
        there = _arrays(arrays)
        name = _choose(there, there, names.labels, _LABEL_NAMES, path)
        if name is None and len(there) == 1:
            name = there[0]
        if name is None:
            raise DataError(
                f"{path}: which array holds the labels cannot be told; "
                f"name it with --label-array: {', '.join(there) or 'there is none'}"
            )
        labels: Array = arrays[name]
        return labels


def _read_npy_labels(path: Path, names: ArrayNames) -> Array:  # noqa: ARG001
    labels: Array = np.load(path, allow_pickle=False)
    return labels


def _read_other_labels(path: Path, names: ArrayNames) -> Array:  # noqa: ARG001
    """idx where the content begins so, else text."""
    content = path.read_bytes()
    if content[:2] in (b"\0\0", b"\x1f\x8b"):
        return _read_idx(path)
    labels: Array = np.array(content.decode().split(), np.int64)
    return labels


_LABEL_READERS: dict[str, Callable[[Path, ArrayNames], Array]] = {
    ".npy": _read_npy_labels,
    ".npz": _read_npz_labels,
}
