"""ONNX Runtime's own values: arrays that stay with it between one run and the next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import onnxruntime as ort

from onnxsnn.arrays import Array
from onnxsnn.session import run_failure

__all__ = ["Values", "from_arrays", "run_bound"]

Values: TypeAlias = dict[str, ort.OrtValue]


def from_arrays(arrays: Mapping[str, Array]) -> Values:
    """Arrays by name as ONNX Runtime's own values."""
    return {name: ort.OrtValue.ortvalue_from_numpy(array) for name, array in arrays.items()}


def run_bound(session: ort.InferenceSession, feeds: Values, names: Sequence[str]) -> Values:
    """The outputs named, by name, for feeds by name.

    Raises:
        DataError: the model fails on these feeds.
    """
    binding = session.io_binding()
    for name, value in feeds.items():
        binding.bind_ortvalue_input(name, value)
    for name in names:
        binding.bind_output(name, "cpu")
    try:
        session.run_with_iobinding(binding)
    except Exception as error:  # ONNX Runtime's are not of one class
        raise run_failure({n: v.numpy() for n, v in feeds.items()}, error) from error
    return dict(zip(names, binding.get_outputs(), strict=True))
