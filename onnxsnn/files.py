"""Files in and out: models are read whole and checked, and nothing is left half-written."""

from __future__ import annotations

import io
import os
import stat
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from itertools import chain
from pathlib import Path

import numpy as np
import onnx
from google.protobuf.message import DecodeError, EncodeError  # type: ignore[import-untyped]
from onnx.external_data_helper import (
    ExternalDataInfo,
    load_external_data_for_model,
    uses_external_data,
)

from onnxsnn.arrays import Array
from onnxsnn.dialects.fused import take_apart
from onnxsnn.dialects.parts import read_by
from onnxsnn.dialects.qonnx import without_qonnx
from onnxsnn.dialects.squeezes import name_squeezed
from onnxsnn.errors import ModelError, OutputError, UsageError, in_file

__all__ = [
    "check_writable",
    "destination",
    "external_files",
    "read_model",
    "write_arrays",
    "write_bytes",
    "write_model",
]

_CONSTANTS_ALONE = 4  # the IR version since when they need not be inputs


def read_model(path: str | Path) -> onnx.ModelProto:
    """Read an ONNX file, its external data with it, and check it.

    Raises:
        ModelError: the file is missing, is not ONNX, is cut short, lacks its external data,
            is over 2 GiB with it, or is not valid ONNX.
        UsageError: what came is no path.
    """
    try:
        path = Path(path)
    except TypeError as error:
        raise UsageError(f"model: takes a path, and {type(path).__name__} came") from error
    try:
        model = onnx.load(path, format="protobuf", load_external_data=False)
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror or error}") from error
    except DecodeError as error:
        raise ModelError(f"{path}: is not an ONNX file, or is cut short") from error
    if not model.graph.node and not model.graph.output:
        raise ModelError(f"{path}: is not an ONNX file, or is cut short: it holds no graph")
    try:
        load_external_data_for_model(model, str(path.parent))
    except Exception as error:
        raise ModelError(
            f"{path}: its external data cannot be read: {error}; put the data file beside the model"
        ) from error
    _clear_unknown_sizes(model.graph)
    _sort_nodes(model.graph)
    _leave_constants_out(model)
    with in_file(path):
        model = name_squeezed(without_qonnx(model))
    _complete_outputs(model)
    try:  # the checker knows no operator that was ONNX Runtime's before it was ONNX's
        onnx.checker.check_model(take_apart(model))
    except EncodeError as error:
        raise ModelError(
            f"{path}: is over protobuf's limit of 2 GiB with its external data; give a smaller one"
        ) from error
    except Exception as error:  # the checker raises its own and C++'s errors
        raise ModelError(f"{path}: is not valid ONNX: {error}") from error
    return model


def external_files(path: Path) -> list[Path]:
    """The files beside a model that hold its tensors; none of what is no model."""
    try:
        model = onnx.load(path, format="protobuf", load_external_data=False)
    except (OSError, DecodeError):
        return []
    tensors = chain.from_iterable(map(_tensors, (model.graph, *model.functions)))
    held = {ExternalDataInfo(tensor).location for tensor in tensors if uses_external_data(tensor)}
    return [path.parent / name for name in sorted(held)]


def _tensors(graph: onnx.GraphProto | onnx.FunctionProto) -> Iterator[onnx.TensorProto]:
    """The constants of a graph or a function, and what its nodes hold, within their bodies too."""
    yield from getattr(graph, "initializer", ())
    for node in graph.node:
        for attribute in node.attribute:
            yield from (attribute.t, *attribute.tensors)
            for body in (attribute.g, *attribute.graphs):
                yield from _tensors(body)


def _clear_unknown_sizes(graph: onnx.GraphProto) -> None:
    """Some exporters write -1 for a size which is not known; in ONNX, that is no size at all."""
    for tensor in [*graph.input, *graph.output, *graph.value_info]:
        for size in tensor.type.tensor_type.shape.dim:
            if size.HasField("dim_value") and size.dim_value < 0:
                size.ClearField("dim_value")


def _complete_outputs(model: onnx.ModelProto) -> None:
    """Some exporters leave an output's type or shape to ONNX Runtime; in ONNX, both are due."""
    incomplete = [tensor for tensor in model.graph.output if not _is_complete(tensor)]
    if not incomplete:
        return
    try:
        inferred = onnx.shape_inference.infer_shapes(model)
    except Exception:
        return  # the checker says what is wrong
    found = {tensor.name: tensor for tensor in inferred.graph.output}
    for tensor in incomplete:
        tensor.CopyFrom(found[tensor.name])


def _is_complete(tensor: onnx.ValueInfoProto) -> bool:
    """Whether the type is declared, and the shape, if it is a tensor's."""
    kind = tensor.type.WhichOneof("value")
    return kind is not None and (kind != "tensor_type" or tensor.type.tensor_type.HasField("shape"))


def _leave_constants_out(model: onnx.ModelProto) -> None:
    """In files older than IR version 4, constants are inputs too, but for those of some tools."""
    if model.ir_version >= _CONSTANTS_ALONE:
        return
    constants = {tensor.name for tensor in model.graph.initializer}
    inputs = [tensor for tensor in model.graph.input if tensor.name not in constants]
    model.graph.ClearField("input")
    model.graph.input.extend(inputs)
    model.ir_version = _CONSTANTS_ALONE


def _sort_nodes(graph: onnx.GraphProto) -> None:
    """Put nodes behind what they read, which some exporters leave to ONNX Runtime."""
    makers = {name: at for at, node in enumerate(graph.node) for name in node.output if name}
    needed = {
        at: {makers[name] for name in read_by(node) if name in makers}
        for at, node in enumerate(graph.node)
    }
    if all(maker < at for at, found in needed.items() for maker in found):
        return
    try:
        nodes = [graph.node[at] for at in TopologicalSorter(needed).static_order()]
    except CycleError:
        return  # the checker says what is wrong
    graph.ClearField("node")
    graph.node.extend(nodes)


def write_model(model: onnx.ModelProto, path: str | Path) -> None:
    """Write a model; see `write_bytes`."""
    try:
        content = model.SerializeToString()
    except Exception as error:
        raise OutputError(f"{path}: the model is over protobuf's limit of 2 GiB") from error
    write_bytes(content, path)


def write_arrays(arrays: Mapping[str, Array], path: str | Path) -> None:
    """Write an .npz, as `np.savez` does, whose own arguments take some names; see `write_bytes`."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, values in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                np.save(file, values)
    write_bytes(content.getvalue(), path)


def write_bytes(content: bytes, path: str | Path) -> None:
    """Write a file whole or not at all: to a temporary file beside it, then renamed.

    A link stays, and what it leads to is written; a device or a pipe is written as it is.

    Raises:
        OutputError: the file cannot be written.
    """
    target = destination(path)
    try:
        if _is_special(target):
            target.write_bytes(content)
        else:
            _replace(target, content)
    except OSError as error:
        raise _unwritable(path, error) from error


def destination(path: str | Path) -> Path:
    """What is written where a path is given: the file that links lead to, or what is special.

    Raises:
        OutputError: its folder is not there.
    """
    path = Path(path)
    try:
        path.parent.stat()  # realpath would drop a missing folder, and the .. behind it
        return path if _is_special(path) else Path(os.path.realpath(path))
    except OSError as error:
        raise _unwritable(path, error) from error


def _replace(path: Path, content: bytes) -> None:
    """Put a new file in the place of what may be there."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".onnxsnn.")
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        temporary.chmod(stat.S_IMODE(path.stat().st_mode) if path.exists() else 0o666 & ~_umask())
        temporary.replace(path)
    except BaseException:  # an interrupt too
        temporary.unlink(missing_ok=True)
        raise


def check_writable(path: str | Path) -> None:
    """Fail before the work rather than after it.

    Raises:
        OutputError: a file cannot be written there.
    """
    target = destination(path)
    try:
        if target.is_dir():
            raise OutputError(f"{path}: cannot be written: it is a folder")
        if _is_special(target):
            return  # to open a pipe is to wait for its reader
        with tempfile.TemporaryFile(dir=target.parent):
            pass
    except OSError as error:
        raise _unwritable(path, error) from error


def _is_special(path: Path) -> bool:
    """Whether a device, a pipe or a folder is there: no file that another may replace."""
    return path.exists() and not path.is_file()


def _unwritable(path: str | Path, error: OSError) -> OutputError:
    return OutputError(f"{path}: cannot be written: {error.strerror or error}")


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
