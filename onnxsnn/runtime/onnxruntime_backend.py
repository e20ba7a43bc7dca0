"""Backend `onnxruntime`: many timesteps in one run where the graph allows it, else one by one."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np
import onnx

from onnxsnn.arrays import Array
from onnxsnn.decisions import decide_together, deciding_part
from onnxsnn.errors import OnnxSnnError
from onnxsnn.model import stateful, step_graph
from onnxsnn.passes.smooth import smooth
from onnxsnn.passes.spike import State
from onnxsnn.runtime.backend import Tile
from onnxsnn.runtime.ort_values import Values, from_arrays
from onnxsnn.runtime.step_graph import StepGraph
from onnxsnn.runtime.tiles import MEMORY
from onnxsnn.runtime.time_batched import TimeBatchedGraph, treats_samples_alone, two_samples
from onnxsnn.session import pieces_of

__all__ = ["OnnxRuntimeBackend"]


class OnnxRuntimeBackend:
    """Runs the time-batched graph, or the step graph; states are the same in both.

    Which it is, is found when the first inputs come: `runtime/time_batched.py` says how. In a large
    network a spike may fall otherwise by rounding, so that smooth neurons have the last word.
    """

    def __init__(
        self,
        model: onnx.ModelProto,
        states: Sequence[State],
        outputs: Sequence[str],
        threads: int | None = None,
        *,
        counted: Collection[str] = (),
        memory: int | None = None,
    ) -> None:
        self.warnings: list[str] = []
        self._arguments = model, list(states), list(outputs)
        self._counted, self._threads = counted, threads
        self._memory = MEMORY if memory is None else memory
        self._graph: StepGraph | TimeBatchedGraph | None = None
        self._stepping: StepGraph | None = StepGraph(model, states, outputs, threads)

    def tile(self, feeds: Mapping[str, Array], timesteps: int) -> Tile:
        """The tile for a run of these inputs; asked before they are prepared."""
        return self._chosen(feeds).tile(feeds, timesteps)

    def _chosen(self, feeds: Mapping[str, Array]) -> StepGraph | TimeBatchedGraph:
        """The graph that runs."""
        if self._graph is None:
            assert self._stepping is not None
            self._graph, self._stepping = self._choose(self._stepping, feeds), None
        return self._graph

    def _choose(
        self, stepping: StepGraph, feeds: Mapping[str, Array]
    ) -> StepGraph | TimeBatchedGraph:
        model, states, _ = self._arguments
        try:
            batched = self._batched(model)
        except OnnxSnnError as error:
            reason = str(error)
        else:
            alone = treats_samples_alone(batched, stepping, states, feeds)
            if (alone or self._is_rounding(feeds)) and not self._decides_together(feeds):
                batched.use_winograd()  # whose rounding is another
                return batched
            reason = (
                "an operator mixes the samples of a run, which then depend on each other, or fixes "
                "their number"
            )
        self.warnings.append(f"timesteps are run one by one, and not many at once: {reason}")
        return stepping

    def _batched(self, model: onnx.ModelProto) -> TimeBatchedGraph:
        _, states, outputs = self._arguments
        return TimeBatchedGraph(model, states, outputs, self._counted, self._threads, self._memory)

    def _is_rounding(self, feeds: Mapping[str, Array]) -> bool:
        """Whether samples are treated alone once no spike depends on the last bit of a sum."""
        model, states, outputs = self._arguments
        graph = step_graph(model, states)
        if not smooth(graph).changed:
            return False
        model = stateful(graph, states)
        stepping = StepGraph(model, states, outputs, self._threads)
        return treats_samples_alone(self._batched(model), stepping, states, feeds)

    def _decides_together(self, feeds: Mapping[str, Array]) -> bool:
        """Whether samples decide on something together, in the first step."""
        model, states, _ = self._arguments
        part = deciding_part(step_graph(model, states))
        return part is not None and decide_together(stateful(part, states), two_samples(feeds))

    def prepare(self, feeds: Mapping[str, Array]) -> Values:
        """The inputs as ONNX Runtime's own values."""
        return self._chosen(feeds).prepare(feeds)

    def initial_state(self) -> Values:
        """No values: the graph's default initializers are the state before the first step."""
        return {}

    def advance(
        self, inputs: Values, state: Values, timesteps: int, every_step: bool
    ) -> tuple[dict[str, Array], Values]:
        """Outputs by name after each step, [timesteps, N, ...], and the state after the last."""
        assert self._graph is not None
        return self._graph.advance(inputs, state, timesteps, every_step)

    def shape(self, state: Values, name: str) -> list[int]:
        """The shape of one state after a step."""
        return list(state[name].shape())

    def gather(
        self, pieces: Sequence[Values], rows: Sequence[Array], size: int
    ) -> list[Values] | None:
        """Some rows of each piece of inputs or states, together, in pieces of `size` samples.

        None where samples cannot leave: they have several rows each, or a size tells their number.
        """
        graph = self._graph
        if not isinstance(graph, TimeBatchedGraph):
            return None
        if not all(_may_leave(graph, p, len(r)) for p, r in zip(pieces, rows, strict=True)):
            return None
        whole, arrays, axes = {}, {}, {}
        for name, value in pieces[0].items():
            axis = graph.axis_of_samples(name) if value.shape() else None
            if axis is None:
                whole[name] = value
                continue
            given = (np.moveaxis(piece[name].numpy(), axis, 0) for piece in pieces)
            arrays[name] = np.concatenate([a[r] for a, r in zip(given, rows, strict=True)])
            axes[name] = axis
        return [
            whole | from_arrays({n: _moved_back(v, axes[n]) for n, v in piece.items()})
            for piece in pieces_of(arrays, size)
        ]


_COUNT = "tensor(int64)"  # what sizes are


def _may_leave(graph: TimeBatchedGraph, piece: Values, samples: int) -> bool:
    """Whether samples have a row each in inputs or states, and nothing there tells their number."""
    for name, value in piece.items():
        sizes, axis = value.shape(), graph.axis_of_samples(name)
        if sizes and (value.data_type() == _COUNT if axis is None else sizes[axis] != samples):
            return False
    return True


def _moved_back(array: Array, axis: int) -> Array:
    """An array whose samples, in front, go back to their axis."""
    return np.ascontiguousarray(np.moveaxis(array, 0, axis))
