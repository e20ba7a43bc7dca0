"""The time-batched graph at run time: many timesteps of many samples in one run.

Whether a graph treats samples alone, so that time may be folded into the batch, is found by
running it: two samples whose membrane potentials are random, together over two chunks of time,
must give what stepping gives for each alone.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
import onnxruntime as ort
from onnx import numpy_helper

from onnxsnn.arrays import Array
from onnxsnn.errors import OnnxSnnError
from onnxsnn.graph import drop_unused, sized_for, to_model
from onnxsnn.model import step_graph
from onnxsnn.passes.dense_convolutions import dense_convolutions
from onnxsnn.passes.spike import State
from onnxsnn.passes.time_batch import TIME, TimeBatched, time_batch
from onnxsnn.passes.unit_neurons import has_unit, unit_neurons
from onnxsnn.passes.unit_thresholds import unit_thresholds
from onnxsnn.passes.winograd import held_by_products, winograd
from onnxsnn.runtime.backend import Tile
from onnxsnn.runtime.ort_values import Values, from_arrays, run_bound
from onnxsnn.runtime.step_graph import StepGraph
from onnxsnn.runtime.tiles import best_tile, live_bytes
from onnxsnn.session import make_session

__all__ = ["TimeBatchedGraph", "treats_samples_alone", "two_samples"]

_BATCHES = {3: 4, 9: 16}  # by the fewest sample-steps, those that products are chosen for; measured


@dataclass(frozen=True)
class _Chunk:
    """A session that runs many steps.

    Attributes:
        constants: names of the inputs that are the same in every step, and the axis of samples.
        stacked: the outputs that come step by step, and the axis of their K * N samples.
    """

    session: ort.InferenceSession
    constants: Mapping[str, int | None]
    stacked: Mapping[str, int]


class TimeBatchedGraph:
    """Runs many timesteps at once.

    Args:
        model: the step graph, with what is to be counted among its outputs.
        states: what it carries.
        outputs: the outputs to give.
        counted: those that are needed after each step, always.
        threads: for ONNX Runtime; None lets it choose.
        memory: bytes for the tensors of one run.

    Raises:
        UnsupportedError: the graph cannot be folded.
    """

    def __init__(
        self,
        model: onnx.ModelProto,
        states: Sequence[State],
        outputs: Sequence[str],
        counted: Collection[str],
        threads: int | None,
        memory: int,
    ) -> None:
        self._states, self._outputs = list(states), list(outputs)
        self._counted, self._threads, self._memory = counted, threads, memory
        self._chunks: dict[tuple[bool, int], _Chunk] = {}
        self._statics: list[ort.InferenceSession] = []
        self._axes: dict[str, int | None] = {}
        self._bytes: dict[tuple[tuple[str, tuple[int, ...]], ...], int] = {}
        starts = {state.input for state in states}
        self._defaults = [tensor for tensor in model.graph.initializer if tensor.name in starts]
        self._graph = step_graph(model, self._states)
        dense_convolutions(self._graph)
        unit_neurons(self._graph)
        self._batches: dict[int, int] = {}
        self._held = 0
        self._chunks[True, 0] = self._loaded(self._load_statics())

    def use_winograd(self) -> None:
        """Let sample-steps take fewer multiplications, by more weights, where that pays.

        As sums are rounded otherwise there, currents may come in units of thresholds too, so that
        a step of a neuron takes fewer operators.
        """
        graph = self._graph
        if not any(held_by_products(graph, batch) for batch in _BATCHES.values()):
            return
        defaults = {tensor.name: numpy_helper.to_array(tensor) for tensor in self._defaults}
        unit_thresholds(graph, {node.name for node in graph.nodes if has_unit(node)}, defaults)
        unit_neurons(graph)
        self._held = max(held_by_products(graph, batch) for batch in _BATCHES.values())
        self._defaults = [numpy_helper.from_array(array, name) for name, array in defaults.items()]
        self._batches = _BATCHES
        self._bytes.clear()
        self._statics.clear()
        self._chunks.clear()
        self._load_statics()

    def _chunk(self, every_step: bool, batch: int) -> _Chunk:
        """The session for outputs of every step, or of the last, of so many sample-steps.

        Each is made when asked for.
        """
        least = max((least for least in self._batches if least <= batch), default=0)
        key = every_step, least
        if key not in self._chunks:
            graph = self._graph.copy()
            if least:
                winograd(graph, self._batches[least])
            kept = None if every_step else self._counted
            self._chunks[key] = self._loaded(time_batch(graph, self._states, kept))
        return self._chunks[key]

    def _load_statics(self) -> TimeBatched:
        """Load what is computed before the steps, for every step's outputs and for the last's.

        Those of the last step may read a little more, which alone is computed for them.

        Returns:
            the fold for every step's outputs.
        """
        every, last = (
            time_batch(self._graph.copy(), self._states, kept) for kept in (None, self._counted)
        )
        self._axes |= every.constant_inputs | last.constant_inputs
        given: set[str] = set()
        for static in filter(None, (every.static, last.static)):
            static.outputs = [tensor for tensor in static.outputs if tensor.name not in given]
            given |= {tensor.name for tensor in static.outputs}
            if static.outputs:
                drop_unused(static)
                session = make_session(to_model(static), self._threads, spinning=False)
                self._statics.append(session)
        return every

    def _loaded(self, folded: TimeBatched) -> _Chunk:
        chunk = to_model(folded.chunk)
        chunk.graph.initializer.extend(self._defaults)
        session = make_session(chunk, self._threads)
        return _Chunk(session, folded.constant_inputs, folded.every_step)

    def axis_of_samples(self, name: str) -> int | None:
        """Of an input as it is prepared, or of a state; None where it has none."""
        return self._axes.get(name, 0)

    def tile(self, feeds: Mapping[str, Array], timesteps: int) -> Tile:
        """What one run takes within the memory budget."""
        samples = len(next(iter(feeds.values())))
        return best_tile(samples, timesteps, self._each(feeds), self._memory)

    def _each(self, feeds: Mapping[str, Array]) -> int:
        """Bytes that one of these samples holds in one step."""
        sizes = tuple((name, values.shape[1:]) for name, values in feeds.items())
        if sizes not in self._bytes:
            sized = sized_for(self._graph, feeds)
            live = live_bytes(sized, {state.output for state in self._states})
            self._bytes[sizes] = max(live, self._held)
        return self._bytes[sizes]

    def prepare(self, feeds: Mapping[str, Array]) -> Values:
        """The inputs, and what is computed before the first neuron."""
        inputs = from_arrays(feeds)
        values = dict(inputs)
        for static in self._statics:
            needed = {tensor.name: inputs[tensor.name] for tensor in static.get_inputs()}
            names = [tensor.name for tensor in static.get_outputs()]
            values |= run_bound(static, needed, names)
        return values

    def advance(
        self, inputs: Values, state: Values, timesteps: int, every_step: bool
    ) -> tuple[dict[str, Array], Values]:
        """One run of the chunk."""
        samples = next(iter(inputs.values())).shape()[0]
        chunk = self._chunk(every_step, samples * timesteps)
        time = from_arrays({TIME: np.arange(1, timesteps + 1, dtype=np.float32)})
        feeds = {name: inputs[name] for name in chunk.constants} | state | time
        names = [*self._outputs, *(s.output for s in self._states)]
        values = run_bound(chunk.session, feeds, names)
        outputs = {}
        for name in self._outputs:
            array = values[name].numpy()
            if name in chunk.stacked:
                outputs[name] = _by_step(array, timesteps, chunk.stacked[name])
            else:  # of the last step alone, or the same after each
                outputs[name] = np.repeat(array[None], timesteps, 0) if every_step else array[None]
        return outputs, {s.input: values[s.output] for s in self._states}


def _by_step(values: Array, timesteps: int, axis: int) -> Array:
    """An output [..., K * N, ...] as [K, ..., N, ...]."""
    before, rows, behind = values.shape[:axis], values.shape[axis], values.shape[axis + 1 :]
    steps = values.reshape(*before, timesteps, rows // timesteps, *behind)
    return np.moveaxis(steps, axis, 0)


def treats_samples_alone(
    batched: TimeBatchedGraph,
    stepping: StepGraph,
    states: Sequence[State],
    feeds: Mapping[str, Array],
) -> bool:
    """Whether two samples at once, over two chunks of time, give what stepping gives of each.

    Args:
        batched: the time-batched graph.
        stepping: the step graph.
        states: what they carry.
        feeds: real inputs, of any number of samples.
    """
    pair = two_samples(feeds)
    singles = [{name: values[i : i + 1] for name, values in pair.items()} for i in (0, 1)]
    try:
        starts = [_stirred(stepping, states, single, seed) for seed, single in enumerate(singles)]
        expected = [
            _run(stepping, single, start, [1] * (_FIRST + _SECOND))
            for single, start in zip(singles, starts, strict=True)
        ]
        together = {
            name: values if not values.ndim else np.concatenate([s[name] for s in starts])
            for name, values in starts[0].items()
        }
        found = _run(batched, pair, together, [_FIRST, _SECOND])
        return all(
            _of_both([one[name] for one in expected], values) for name, values in found.items()
        )
    except (OnnxSnnError, ValueError, IndexError):  # one number for all samples is no array of them
        return False


_FIRST, _SECOND = 3, 2
_HUGE = 1e38  # float32
_TOLERANCE = 1e-2  # relative; a spike may fall on the other side of its threshold by rounding


def two_samples(feeds: Mapping[str, Array]) -> dict[str, Array]:
    """Two samples of a network's inputs that differ."""
    return {name: _pair(values) for name, values in feeds.items()}


def _pair(values: Array) -> Array:
    """Two samples that differ; floats in noise, where one of them is of one value, 0 say."""
    last = values[-1:] if len(values) > 1 else np.roll(values[:1], 1, axis=-1)
    pair = np.concatenate([values[:1], last])
    rows = pair.reshape(2, -1)
    says_little = np.array_equal(*rows) or (rows == rows[:, :1]).all(axis=1).any()
    if values.dtype.kind == "f" and says_little:
        noise = np.random.default_rng(0).random(pair.shape) * (np.abs(pair).max(initial=0) or 1)
        pair = (pair / 2 + noise / 2).astype(values.dtype)
    return pair


def _stirred(
    stepping: StepGraph, states: Sequence[State], feeds: Mapping[str, Array], seed: int
) -> dict[str, Array]:
    """The state after a step, with random membrane potentials, so that every layer fires."""
    random = np.random.default_rng(seed)
    _, after = stepping.step(stepping.prepare(feeds), stepping.initial_state())
    arrays = {name: value.numpy() for name, value in after.items()}
    for state in states:
        if state.role == "potential":
            values = arrays[state.input]
            seen = max(np.abs(state.default).max(initial=0), np.abs(values).max(initial=0))
            most = min(2 * float(seen), _HUGE)
            arrays[state.input] = (random.random(values.shape) * most).astype(values.dtype)
    return arrays


def _run(
    graph: TimeBatchedGraph | StepGraph,
    feeds: Mapping[str, Array],
    state: Mapping[str, Array],
    chunks: Sequence[int],
) -> dict[str, Array]:
    """The outputs of every step, [T, ...], over chunks of so many steps."""
    inputs, values = graph.prepare(feeds), from_arrays(state)
    pieces = []
    for steps in chunks:
        outputs, values = graph.advance(inputs, values, steps, every_step=True)
        pieces.append(outputs)
    return {name: np.concatenate([p[name] for p in pieces]) for name in pieces[0]}


def _of_both(expected: Sequence[Array], found: Array) -> bool:
    """Whether an output of two samples is that of each, or the same for any, [T, ...].

    The samples are along whichever axis.
    """
    if all(_close(one, found) for one in expected):
        return True
    return any(_close(np.concatenate(expected, axis), found) for axis in range(1, found.ndim))


def _close(expected: Array, found: Array) -> bool:
    if expected.shape != found.shape:
        return False
    wanted, given = (
        np.nan_to_num(v.astype(np.float64), posinf=0, neginf=0) for v in (expected, found)
    )
    return bool(np.linalg.norm(given - wanted) <= _TOLERANCE * np.linalg.norm(wanted))
