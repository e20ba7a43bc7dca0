"""Arrays: weights, thresholds and connectivity in one .npz, for hardware and own simulators.

The file holds `network.json`, the operations of a timestep in order; an array per weight,
bias, threshold and initial potential; and a README that says how to read and run it. The
arrays of an operation are integers where every value is whole, in the narrowest type that
holds them, and as they are otherwise.
"""

from __future__ import annotations

import io
import json
import zipfile
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from onnxsnn.arrays import Array, holds
from onnxsnn.errors import UnsupportedError
from onnxsnn.export.network import Operation, read_network, some
from onnxsnn.files import write_bytes
from onnxsnn.model import SpikingModel

__all__ = ["export_npz"]

_FORMAT = 1
_README = "README.npz.txt"
_INTEGERS = (np.int8, np.int16, np.int32)
_LONG_AGO = (1980, 1, 1, 0, 0, 0)  # the same network is the same file, whenever it is written


def export_npz(snn: SpikingModel, path: str | Path, *, allow_loss: bool = False) -> list[str]:
    """Write an SNN as arrays. Gives what was lost, operations that the README does not explain too.

    Args:
        snn: the SNN.
        path: where to write.
        allow_loss: write such operations by their ONNX names and attributes; the reader must
            know them.

    Raises:
        UnsupportedError: there are such operations, and they are not allowed; or a size other
            than the batch is not known.
        OutputError: the file cannot be written.
    """
    network = read_network(snn)
    unknown = [str(operation) for operation in network.operations if not operation.canonical]
    if unknown and not allow_loss:
        raise UnsupportedError(
            f"the README has no words for {some(unknown)}; "
            "--allow-loss writes them by their ONNX names"
        )
    arrays: dict[str, Array] = {}
    described = []
    for number, operation in enumerate(network.operations):
        own = _narrowed(operation.arrays)
        arrays |= {f"{number}.{role}": values for role, values in own.items()}
        described.append(_described(operation, {role: f"{number}.{role}" for role in own}))
    about = {
        "format": _FORMAT,
        "timesteps": network.timesteps,
        "inputs": network.inputs,
        "outputs": network.outputs,
        "operations": described,
    }
    write_bytes(_archive(about, arrays), path)
    return network.losses + unknown


def _described(operation: Operation, arrays: dict[str, str]) -> dict[str, Any]:
    return {
        "name": operation.name,
        "operator": operation.operator,
        "inputs": operation.inputs,
        "outputs": operation.outputs,
        "settings": operation.settings,
        "arrays": arrays,
        "static": operation.static,
    }


def _narrowed(arrays: dict[str, Array]) -> dict[str, Array]:
    """The arrays of an operation as integers, if every value of each is whole."""
    for kind in _INTEGERS:
        if all(v.dtype.kind == "f" and holds(np.dtype(kind), v) for v in arrays.values()):
            return {role: values.astype(kind) for role, values in arrays.items()}
    return arrays


def _archive(about: dict[str, Any], arrays: dict[str, Array]) -> bytes:
    """A zip that NumPy reads: text entries beside the arrays."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        _write(archive, "README", (files(__package__) / _README).read_bytes())
        _write(archive, "network.json", json.dumps(about, indent=1).encode())
        for name, values in arrays.items():
            content = io.BytesIO()
            np.save(content, np.asarray(values, order="C"))
            _write(archive, f"{name}.npy", content.getvalue())
    return buffer.getvalue()


def _write(archive: zipfile.ZipFile, name: str, content: bytes) -> None:
    archive.writestr(zipfile.ZipInfo(name, _LONG_AGO), content, zipfile.ZIP_DEFLATED)
