"""What a file says of itself beside its graph: entries of JSON, written, read and checked."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

import onnx

from onnxsnn.errors import ModelError

__all__ = ["PREFIX", "damaged", "fits", "read_metadata", "write_metadata"]

PREFIX = "onnxsnn."


def write_metadata(model: onnx.ModelProto, values: Mapping[str, Any]) -> None:
    """Set `metadata_props`: each value as JSON, under our prefix."""
    kept = {e.key: e.value for e in model.metadata_props if not e.key.startswith(PREFIX)}
    own = {f"{PREFIX}{key}": json.dumps(value, default=_plain) for key, value in values.items()}
    onnx.helper.set_model_props(model, {**kept, **own})


def _plain(value: Any) -> Any:
    """A number of NumPy's, as Python has it."""
    return value.item()


def read_metadata(model: onnx.ModelProto) -> dict[str, Any]:
    """What `write_metadata` wrote.

    Raises:
        ModelError: an entry is no JSON.
    """
    found = {}
    for entry in model.metadata_props:
        if entry.key.startswith(PREFIX):
            name = entry.key.removeprefix(PREFIX)
            try:
                found[name] = json.loads(entry.value)
            except ValueError as error:
                raise damaged(name) from error
    return found


def damaged(entry: str) -> ModelError:
    """The error that says which entry is missing, or not as it was written."""
    return ModelError(f"its metadata are damaged, in entry {entry!r}; convert the model again")


def fits(value: Any, kind: Any) -> bool:
    """Whether what JSON holds is of a type, as an annotation has it; a dataclass is its fields."""
    if is_dataclass(kind):
        hints = get_type_hints(kind)
        needed = {field.name for field in fields(kind) if field.default is MISSING}
        return (
            isinstance(value, dict)
            and needed <= value.keys() <= hints.keys()
            and all(fits(inner, hints[name]) for name, inner in value.items())
        )
    if get_origin(kind) is UnionType:
        return any(fits(value, one) for one in get_args(kind))
    if get_origin(kind) is list:
        return isinstance(value, list) and all(fits(inner, *get_args(kind)) for inner in value)
    return type(value) in ((int, float) if kind is float else (kind,))
