"""The errors of onnxsnn: each says what is wrong, where, and what to do, in one line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

__all__ = [
    "OVERFLOW",
    "DataError",
    "ModelError",
    "OnnxSnnError",
    "OutputError",
    "UnsupportedError",
    "UsageError",
    "checked",
    "in_file",
]

OVERFLOW = "the network's activations overflow or are NaN on these data"


class OnnxSnnError(Exception):
    """Base of every error that is the caller's to mend; `exit_code` is the command line's."""

    exit_code = 1

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))


class UsageError(OnnxSnnError):
    """An argument has a value that makes no sense, whatever the files hold."""

    exit_code = 2


class ModelError(OnnxSnnError):
    """A model file is missing, damaged, invalid, or of the wrong kind."""


class UnsupportedError(OnnxSnnError):
    """The model is valid, and holds something that cannot be converted."""


class DataError(OnnxSnnError):
    """The data do not fit the model, each other, or what was said about them."""


class OutputError(OnnxSnnError):
    """A result cannot be written."""


_Kind = TypeVar("_Kind")


def checked(value: _Kind, kind: type[_Kind], what: str) -> _Kind:
    """An argument that is of its type.

    Raises:
        UsageError: it is of another.
    """
    if not isinstance(value, kind):
        raise UsageError(f"{what}: takes a {kind.__name__}, and {type(value).__name__} came")
    return value


@contextmanager
def in_file(path: str | Path) -> Iterator[None]:
    """Name the file in errors of the model that it holds."""
    try:
        yield
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from error
