"""The source model: read, checked, and brought to an opset that the passes know."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

import onnx
import onnx.inliner

from onnxsnn.dialects.classical import without_classical
from onnxsnn.dialects.fused import take_apart
from onnxsnn.dialects.opsets import to_opset
from onnxsnn.dialects.parts import read_by, write_constants_out
from onnxsnn.dialects.precision import other_precisions, to_single_precision
from onnxsnn.dialects.quantized import dequantize, fewest_levels, is_quantized
from onnxsnn.errors import ModelError, UnsupportedError, in_file
from onnxsnn.files import external_files, read_model
from onnxsnn.functions import MINIMUM_OPSET
from onnxsnn.graph import Graph, from_model, infer_shapes, opset_of
from onnxsnn.inputs import InputSpec
from onnxsnn.model import input_specs, kind_of
from onnxsnn.operators import LAID_OUT, is_laid_out
from onnxsnn.session import make_session

__all__ = ["Source", "load_source", "read_trained"]

_OLDEST_OPSET = 7
_FEW_LEVELS = 2**5  # of more, a network does as well unrounded


@dataclass(frozen=True)
class Source:
    """A trained model as it was given.

    Attributes:
        model: the model, in float32 where ONNX Runtime does not take its own precision.
        digest: SHA-256 of the file, hexadecimal.
        inputs: what it is fed; weights that are graph inputs are not among them, and neither is
            what nothing reads.
        precisions: the types of numbers, other than float32, that the file computes with.
        levels: the steps of the coarsest rounding of values in it; None where none are rounded.
        warnings: what the user should know of what became of the file's inputs and outputs.
    """

    model: onnx.ModelProto
    digest: str
    inputs: list[InputSpec]
    precisions: list[str] = field(default_factory=list)
    levels: int | None = None
    warnings: list[str] = field(default_factory=list)

    @property
    def few_levels(self) -> int | None:
        """The levels, where so few that the network has learnt to round; else None."""
        return self.levels if self.levels is not None and self.levels < _FEW_LEVELS else None

    def graph(self) -> Graph:
        """The model as a graph: functions inlined, in float32, opset 14 or newer, shapes inferred.

        Raises:
            ModelError: onnx cannot bring the model to that opset, or infer its shapes.
        """
        model = take_apart(onnx.inliner.inline_local_functions(self.model))
        write_constants_out(model.graph)
        model = to_single_precision(model)
        graph = from_model(to_opset(model, MINIMUM_OPSET))
        if is_quantized(model):
            dequantize(graph)
            graph = infer_shapes(graph)
        return graph


def read_trained(path: str | Path) -> onnx.ModelProto:
    """Read the file of a trained model.

    Raises:
        ModelError: the file cannot be read, is not valid, or is an SNN already.
    """
    model = read_model(path)
    kind = kind_of(model)
    if kind != "source":
        raise ModelError(f"{path}: is converted already ({kind}); give the trained ANN instead")
    return model


def load_source(path: str | Path) -> Source:
    """Read a trained model.

    Raises:
        ModelError: the file cannot be read, is not valid, is too old, is an SNN already, or
            ONNX Runtime does not run it.
        UnsupportedError: ONNX Runtime does not run it here, as it optimized it for another machine.
    """
    model = read_trained(path)
    if opset_of(model) < _OLDEST_OPSET:
        raise ModelError(
            f"{path}: is of opset {opset_of(model)}, older than {_OLDEST_OPSET}; "
            f"export it again with opset {MINIMUM_OPSET} or newer"
        )
    with in_file(path):
        model, warnings = without_classical(model)
    warnings += [f"input {name!r} is read by nothing, and left out" for name in _drop_unread(model)]
    precisions = other_precisions(model) + ["whole numbers"] * is_quantized(model)
    model = _runnable(model, path)
    return Source(
        model, _digest(path), input_specs(model), precisions, fewest_levels(model), warnings
    )


def _drop_unread(model: onnx.ModelProto) -> list[str]:
    """Take away the inputs that nothing reads, whose names are given, if another is left.

    ONNX Runtime wants to be fed these too. Exporters leave them where they fold constants.
    """
    read = {name for node in model.graph.node for name in read_by(node)}
    read |= {tensor.name for tensor in (*model.graph.output, *model.graph.initializer)}
    unread = [tensor for tensor in model.graph.input if tensor.name not in read]
    if len(unread) == len(model.graph.input):
        return []
    for tensor in unread:
        model.graph.input.remove(tensor)
    return [tensor.name for tensor in unread]


def _digest(path: str | Path) -> str:
    """SHA-256 of a model's file, and of those beside it that hold its weights."""
    digest = hashlib.sha256()
    for file in (Path(path), *external_files(Path(path))):
        digest.update(file.read_bytes())
    return digest.hexdigest()


def _runnable(model: onnx.ModelProto, path: str | Path) -> onnx.ModelProto:
    """The model, or the same in float32 where it cannot be fed or run in its own precision."""
    others = other_precisions(model)
    try:
        make_session(model)
        if "bfloat16" not in others:  # which NumPy has not
            return model
    except ModelError as error:
        _refuse_laid_out(model, path)
        if not others:
            raise ModelError(f"{path}: {error}") from error
    single = to_single_precision(onnx.inliner.inline_local_functions(model))
    with in_file(path):
        make_session(single)
    return single


def _refuse_laid_out(model: onnx.ModelProto, path: str | Path) -> None:
    """Say what to do with a model that ONNX Runtime optimized for another machine."""
    for node in model.graph.node:
        if is_laid_out(node.op_type, node.domain):
            raise UnsupportedError(
                f"{path}: node {node.name!r} ({node.op_type}) cannot be converted: {LAID_OUT}"
            )
