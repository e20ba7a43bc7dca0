"""How many samples and timesteps to run at once: as many as a memory budget allows.

A run of K steps of n samples holds K * n times what one sample holds in one step. Weights are
read once per run, so that few at once waste time; and so do many, whose tensors leave the
processor's caches between an operator and the next.
"""

from __future__ import annotations

import math
from collections.abc import Collection

import numpy as np

from onnxsnn.functions import DOMAIN
from onnxsnn.graph import Graph, Tensor, values_per_sample
from onnxsnn.passes.time_batch import is_drawn_in
from onnxsnn.runtime.backend import Tile

__all__ = ["MEMORY", "best_tile", "live_bytes"]

MEMORY = 2**29  # bytes, unless told
_CACHED = 96 * 2**20  # bytes from which on larger tiles were no faster
_LEAST, _MOST = 16, 128  # sample-steps
_SLICE = 4 * 2**20  # bytes of a step, from which on a neuron's values left the caches within it
_SAMPLES = 8  # of a step; more were no faster
_COPIES = 2  # ONNX Runtime keeps tensors of convolutions in two layouts, for a while


def best_tile(samples: int, timesteps: int, each: int, memory: int = MEMORY) -> Tile:
    """Samples and steps to run at once.

    Args:
        samples: that there are.
        timesteps: to run.
        each: bytes that one sample holds in one step, see live_bytes.
        memory: bytes for the tensors of one run; what is held for every sample is not counted.
    """
    wanted = min(max(_CACHED // each, _LEAST), _MOST)
    most = max(1, min(wanted, memory // each))
    together = min(samples, _SAMPLES, max(1, _SLICE // each))
    steps = min(timesteps, max(1, most // together))
    return _even(samples, max(1, most // steps)), _even(timesteps, steps)


def _even(count: int, size: int) -> int:
    """A size of pieces, at most `size`, of which the last piece is hardly smaller."""
    return math.ceil(count / math.ceil(count / size))


def live_bytes(graph: Graph, states: Collection[str]) -> int:
    """The most that the tensors of one sample hold at once in a step.

    What is drawn into a Scan is never there for all steps.

    Args:
        graph: the step graph, in topological order; unknown sizes count as 1.
        states: names of the outputs that are states: there is one of each, whatever the steps.
    """
    last_use = {id(t): step for step, node in enumerate(graph.nodes) for t in node.inputs}
    last_use.update((id(t), len(graph.nodes)) for t in graph.outputs)
    held: dict[int, int] = {}
    most = 1
    for step, node in enumerate(graph.nodes):
        made = [t for t in node.outputs if t.name not in states and not _is_of_a_step(graph, t)]
        held.update((id(t), _bytes(t)) for t in made)
        most = max(most, sum(held.values()))
        held = {key: size for key, size in held.items() if last_use.get(key, -1) > step}
    return most * _COPIES


def _is_of_a_step(graph: Graph, tensor: Tensor) -> bool:
    """Whether a tensor is made within the Scan that reads it."""
    if not is_drawn_in(graph, tensor):
        return False
    (reader,) = tensor.outputs
    return reader.domain == DOMAIN or _is_of_a_step(graph, reader.outputs[0])


def _bytes(tensor: Tensor) -> int:
    if tensor.shape is None or tensor.dtype is None:
        return 0
    return values_per_sample(tensor) * int(np.dtype(tensor.dtype).itemsize)
