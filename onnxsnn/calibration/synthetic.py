"""Calibration without data: noise where BatchNorm says how a tensor is distributed.

A BatchNorm's beta and |gamma| are the mean and standard deviation of its output over the
training data, so the tensor behind each one is replaced by Gaussian noise of those moments,
and the rest of the network computes what follows from it (compare DCGS, Huang et al. 2025).
Half of the variance is common to a whole channel and half is each position's own: what
averages over positions then neither loses nor keeps all of its spread. Where nothing is
normalized, only the input itself can be noise, and that says little: a warning is due.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from onnxsnn.arrays import Array
from onnxsnn.errors import UnsupportedError
from onnxsnn.graph import (
    Graph,
    Tensor,
    drop_unused,
    is_float,
    is_static_shape,
    values_per_sample,
)
from onnxsnn.inputs import scalar_problem
from onnxsnn.model import SpikingModel
from onnxsnn.passes.fold_normalization import Moments
from onnxsnn.ratenorm import is_rate_norm, rate_norms

__all__ = ["cut_at_normalized", "input_noise", "noise", "noise_samples"]

_BATCH = 16
_SAMPLES = 256  # a multiple of the batch, at most,
_VALUES = 2**27  # or as many as the widest layer has so many values in: wide maps show much


def cut_at_normalized(graph: Graph, moments: Mapping[str, Moments]) -> Graph:
    """A copy of `graph` in which every tensor named in `moments` is an input."""
    cut = graph.copy()
    for name, tensor in cut.tensors().items():
        if name in moments and tensor.inputs and is_static_shape(tensor.shape):
            tensor.inputs.clear()
            cut.inputs.append(tensor)
    cut.outputs = [node.outputs[0] for node in cut.nodes if is_rate_norm(node)]
    drop_unused(cut)
    return cut


def noise_samples(graph: Graph) -> int:
    """How many samples `noise` gives in all."""
    widest = max((values_per_sample(node.inputs[0]) for node in rate_norms(graph)), default=1)
    batches = _VALUES // (max(widest, 1) * _BATCH)
    return _BATCH * min(max(batches, 1), _SAMPLES // _BATCH)


def noise(graph: Graph, moments: Mapping[str, Moments]) -> Iterator[dict[str, Array]]:
    """Batches of noise for every input of `graph`, always the same.

    It is Gaussian for floats, and zeros and ones for other types.

    Raises:
        UnsupportedError: an input has an axis, beside the batch, of unknown size, or none.
    """
    generator = np.random.default_rng(0)
    for tensor in graph.inputs:
        if tensor.shape == []:
            raise UnsupportedError(scalar_problem(tensor.name))
        if not is_static_shape(tensor.shape):
            raise UnsupportedError(
                f"input {tensor.name!r} has shape {tensor.shape}, which cannot be resolved "
                "without data; give some with --data"
            )
    for _ in range(noise_samples(graph) // _BATCH):
        yield {t.name: _sample(generator, t, moments.get(t.name)) for t in graph.inputs}


def input_noise(snn: SpikingModel) -> Iterator[dict[str, Array]]:
    """Batches of noise for an SNN's inputs, without its states.

    Raises:
        UnsupportedError: as `noise`.
    """
    graph, names = snn.graph(), {spec.name for spec in snn.inputs}
    graph.inputs = [tensor for tensor in graph.inputs if tensor.name in names]
    return noise(graph, {})


def _sample(generator: np.random.Generator, tensor: Tensor, moments: Moments | None) -> Array:
    shape = (_BATCH, *tensor.shape[1:])
    if not is_float(tensor):  # tokens, a mask: zeros and ones are always among them
        return generator.integers(0, 2, shape).astype(tensor.dtype)
    if moments is None:
        return np.asarray(generator.standard_normal(shape), tensor.dtype)
    common = generator.standard_normal(
        (_BATCH, *np.broadcast_shapes(moments.std.shape, (1,) * len(shape))[1:])
    )
    own = generator.standard_normal(shape)
    return np.asarray(moments.mean + moments.std * (common + own) / np.sqrt(2.0), np.float32)
