"""The pipeline of passes: what it keeps of each, and the passes that need no thresholds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import onnx

from onnxsnn.arrays import Array
from onnxsnn.calibration.synthetic import noise
from onnxsnn.data import Dataset
from onnxsnn.errors import ModelError, UnsupportedError
from onnxsnn.graph import Graph, is_static_shape, to_model
from onnxsnn.metadata import write_metadata
from onnxsnn.model import Layer
from onnxsnn.operators import refuse_unsupported
from onnxsnn.passes.choose_branches import choose_branches
from onnxsnn.passes.clean import clean
from onnxsnn.passes.encode import encode
from onnxsnn.passes.fold_normalization import Moments, fold_normalization
from onnxsnn.passes.free_batch import free_batch
from onnxsnn.passes.leave_analog import leave_analog
from onnxsnn.passes.leave_out_limits import leave_out_limits, needless_limits
from onnxsnn.passes.loop_branches import loop_branches
from onnxsnn.passes.relu_to_ratenorm import relu_to_ratenorm
from onnxsnn.passes.report import Report
from onnxsnn.passes.unflatten import unflatten
from onnxsnn.ratenorm import rate_norms
from onnxsnn.session import Session
from onnxsnn.source import Source
from onnxsnn.value_sizes import comparable_outputs, refuse_changing_sizes, sized_by_values

__all__ = ["Keep", "Pipeline", "Prepared", "prepare"]

_TOLERANCE = 1e-3
_PRECISION = 0.1  # of other precisions, whole numbers among them, which the SNN does not round to
_ROUNDING = 1e-3  # below this, outputs that come from values of order one are mostly rounding

Keep = Callable[[str, onnx.ModelProto], None]
"""Called with the name of a pass and the model that it made."""


@dataclass(frozen=True)
class Prepared:
    """A network as Rate Norm Layers whose thresholds are open.

    Attributes:
        graph: the graph.
        moments: by tensor name, what BatchNormalizations say of tensors.
        potentials: by layer, the initial potentials that were trained, as fractions of the
            threshold.
        left_out: the limits of whole numbers that were left out, by the names of their nodes.
    """

    graph: Graph
    moments: Mapping[str, Moments]
    potentials: Mapping[str, float]
    left_out: Sequence[str]


def prepare(
    source: Source,
    line: Pipeline,
    data: Dataset | None = None,
    verify: bool = False,
    left_out: Sequence[str] | None = None,
) -> Prepared:
    """The passes from the source model to Rate Norm Layers.

    Args:
        source: the trained model.
        line: it keeps what the passes did.
        data: samples, if any.
        verify: whether to compare outputs around every pass.
        left_out: the limits of whole numbers to leave out; None for those that data, or what
            reads them, say are needless.

    Raises:
        ModelError: a pass failed its verification.
        UnsupportedError: the model holds something that cannot be converted, or nothing that
            would spike.
    """
    line.warnings += source.warnings
    if source.precisions:
        kinds = " and ".join(source.precisions)
        line.warnings.append(f"the model is of {kinds}; the SNN computes in float32")
    graph = line.did(*clean(source.graph()))
    if data is not None:
        graph = _without_branches(graph, data, line)
    graph = _if_it_did(line, graph, loop_branches(graph, sizes_known=data is not None))
    refuse_unsupported(graph)
    graph = line.did(*free_batch(graph))
    graph = line.did(graph, unflatten(graph))
    if left_out is None:
        left_out = needless_limits(graph, data) if source.levels is not None else []
    if left_out:
        graph = line.did(graph, leave_out_limits(graph, left_out))
    if verify or (source.precisions and (data is not None or _knows_noise(source, graph))):
        feeds = next(data.batches(1))[0] if data else _random_feeds(graph)
        outputs = line.compare_reading(feeds, graph, source)
        if verify:
            line.verify_on(feeds, outputs)
    folded = fold_normalization(graph)
    graph = line.did(graph, folded)
    graph = _if_it_did(line, graph, leave_analog(graph))
    rectified = relu_to_ratenorm(graph)
    graph = line.did(graph, rectified)
    graph = line.did(graph, encode(graph))
    refuse_changing_sizes(graph)
    if not rate_norms(graph):
        raise UnsupportedError(
            "the model has no rectifier (Relu, or Clip from 0), and no weights behind another "
            "activation, so nothing in it would spike; run the ANN as it is"
        )
    return Prepared(graph, folded.moments, rectified.potentials, left_out)


def _without_branches(graph: Graph, data: Dataset, line: Pipeline) -> Graph:
    """A graph whose branches are chosen, as far as sizes decide: one may hold the next."""
    while (report := choose_branches(graph, data)).changed:
        graph = line.did(*clean(line.did(graph, report)))
    return graph


def _if_it_did(line: Pipeline, graph: Graph, report: Report) -> Graph:
    """The graph after a pass that few networks need, which is not told of where there was none."""
    return line.did(graph, report) if report.changed or report.warnings else graph


class Pipeline:
    """Keeps the reports, and verifies and hands out the graph after every pass."""

    def __init__(self, keep: Keep | None) -> None:
        self.layers: list[Layer] = []
        self.reports: list[Report] = []
        self.warnings: list[str] = []
        self.differences: dict[str, float] = {}
        self._keep = keep
        self._feeds: Mapping[str, Array] | None = None
        self._outputs: dict[str, Array] = {}

    def verify_on(self, feeds: Mapping[str, Array], outputs: dict[str, Array]) -> None:
        """From here on, compare the outputs for these feeds with what they are so far."""
        self._feeds, self._outputs = feeds, outputs

    def compare_reading(
        self, feeds: Mapping[str, Array], graph: Graph, source: Source
    ) -> dict[str, Array]:
        """Warn where a network as it is read gives other outputs than its file; the former.

        Outputs whose size the values decide are not compared.
        """
        outputs = Session(to_model(graph)).run(feeds)
        given = Session(source.model).run(feeds)
        known = comparable_outputs(graph)
        floats = [name for name in known if np.issubdtype(given[name].dtype, np.floating)]
        read = max((_difference(given[name], outputs[name]) for name in floats), default=0.0)
        if not read <= (_PRECISION if source.precisions else _TOLERANCE):
            self.warnings.append(
                f"the outputs of the network as it is read differ from those of the file by "
                f"{read:.2g} of their greatest value"
            )
        return outputs

    def did(self, graph: Graph, report: Report) -> Graph:
        """Note what a pass did to the graph, which is given back."""
        self.reports.append(report)
        self.warnings += report.warnings
        if report.name == "spike":  # what it made is not a model without its states' defaults
            return graph
        if self._feeds is not None:
            self._verify(graph, report)
        if self._keep is not None:
            model = to_model(graph)
            write_metadata(model, {"layers": [asdict(layer) for layer in self.layers]})
            self._keep(report.name, model)
        return graph

    def _verify(self, graph: Graph, report: Report) -> None:
        assert self._feeds is not None
        before, after = self._outputs, Session(to_model(graph)).run(self._feeds)
        self._outputs = after
        if not report.preserves_values:
            return
        names = after.keys() - sized_by_values(graph)
        difference = max((_difference(before[name], after[name]) for name in names), default=0.0)
        self.differences[report.name] = difference
        if not difference <= _TOLERANCE:
            raise ModelError(
                f"pass {report.name!r} changed the outputs by {difference:.2g} of their greatest "
                "value, and should not: this is a defect of onnxsnn; please report it"
            )


def _difference(before: Array, after: Array) -> float:
    if before.shape != after.shape:
        return np.inf
    if not np.issubdtype(before.dtype, np.floating):
        return float(np.mean(before != after))
    scale = max(float(np.abs(before).max(initial=0.0)), _ROUNDING)
    return float(np.abs(before - after).max(initial=0.0)) / scale


def _knows_noise(source: Source, graph: Graph) -> bool:
    """Whether noise says how a network is read: whole numbers do not reach beyond their data."""
    return source.levels is None and all(is_static_shape(t.shape) for t in graph.inputs)


def _random_feeds(graph: Graph) -> dict[str, Array]:
    batch = next(noise(graph, {}))
    return {name: values[:1] for name, values in batch.items()}
