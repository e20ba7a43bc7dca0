"""Method `ril`: one number p per layer, by the rate inference loss, without back-propagation.

The thresholds are p * max a. The second stage of Ding et al. (IJCAI 2021, section 3.3) trains
p to keep the outputs and lower Omega, that is, the time that firing rates take:

    loss = 1 - cos(y_ann, y_rnl) + lambda * mean_l Omega_l

As p is one number per layer, a search over forward passes of the Rate Norm Layers does: first
one p for all layers, then each layer's in turns. Of all candidates that keep the ANN's classes
within a tolerance, the one of the lowest mean Omega stays.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx

from onnxsnn.analysis.omega import omega
from onnxsnn.arrays import Array, Floats
from onnxsnn.calibration.observe import Statistics
from onnxsnn.data import Dataset
from onnxsnn.graph import Graph, to_model
from onnxsnn.ratenorm import rate_norms, set_threshold
from onnxsnn.session import Session, side_by_side
from onnxsnn.value_sizes import comparable_outputs, nothing_to_compare

__all__ = ["fit_rate_inference"]

_WEIGHT = 0.1  # lambda
TOLERANCE = 0.01  # share of samples that may change their class; or the relative error
_SAMPLES = 128
_SHARED = np.geomspace(1.0, 0.05, 16)
_FACTORS = (0.7, 0.85, 1.2)
_ROUNDS = 2


@dataclass(frozen=True)
class _Candidate:
    """Thresholds as shares p [layers] of what they were, and what they cost."""

    shares: Floats
    loss: float
    omega: float
    lost: float


def fit_rate_inference(
    graph: Graph, statistics: Statistics, data: Dataset, progress: Callable[[int, int], None]
) -> None:
    """Multiply the thresholds of each layer by its p.

    Args:
        graph: Rate Norm Layers whose thresholds are the greatest activations; they are changed.
        statistics: of their inputs, by node name.
        data: unlabelled samples, of which 128 are used, evenly spread.
        progress: called with the candidates done and all.

    Raises:
        DataError: no output can be compared.
    """
    trial = _Trial(graph, statistics, data)
    layers = len(trial.layers)
    steps, done = len(_SHARED) + _ROUNDS * layers * len(_FACTORS), 0
    seen: list[_Candidate] = []

    def visit(shares: Floats) -> _Candidate:
        nonlocal done
        seen.append(trial(np.minimum(shares, 1.0)))
        done += 1
        progress(done, steps)
        return seen[-1]

    best = min((visit(np.full(layers, p)) for p in _SHARED), key=_rank)
    for position in list(range(layers)) * _ROUNDS:
        one = np.arange(layers) == position
        turned = [visit(best.shares * np.where(one, factor, 1.0)) for factor in _FACTORS]
        best = min([best, *turned], key=_rank)
    chosen = min((c for c in seen if c.lost <= max(TOLERANCE, best.lost)), key=lambda c: c.omega)
    for node, share in zip(rate_norms(graph), chosen.shares, strict=True):
        set_threshold(graph, node, node.inputs[1].values * share)


def _rank(candidate: _Candidate) -> tuple[float, float]:
    """Those within the tolerance first, by their loss; then those that lose least."""
    return max(candidate.lost, TOLERANCE), candidate.loss


class _Trial:
    """The Rate Norm Layers beside the ANN: what thresholds scaled by p [layers] cost."""

    def __init__(self, graph: Graph, statistics: Statistics, data: Dataset) -> None:
        self.layers = rate_norms(graph)
        self._statistics = [statistics[node.name] for node in self.layers]
        self._thresholds = [node.inputs[1].values for node in self.layers]
        self._model = to_model(graph)
        self._names = comparable_outputs(graph)
        if not self._names:
            raise nothing_to_compare([tensor.name for tensor in graph.outputs])
        self._constants = {t.name: t for t in self._model.graph.initializer}
        self._batches = [feeds for feeds, _ in data.spread(_SAMPLES).batches(32)]
        self._expected = self._outputs(np.full(len(self.layers), 2.0**20))  # nothing is clipped

    def __call__(self, shares: Floats) -> _Candidate:
        outputs = self._outputs(shares)
        pairs = list(zip(outputs, self._expected, strict=True))
        omegas = [
            omega(seen, theta * share)
            for seen, theta, share in zip(self._statistics, self._thresholds, shares, strict=True)
        ]
        known = [value for value in omegas if value is not None]
        known += [value for value in (_output_omega(y) for y in outputs) if value is not None]
        mean = float(np.mean(known)) if known else 0.0
        distance = 1.0 - float(np.mean([_cosine(*pair) for pair in pairs]))
        return _Candidate(shares, distance + _WEIGHT * mean, mean, _lost(*pairs[0]))

    def _outputs(self, shares: Floats) -> list[Array]:
        """The outputs on the samples, each [N, any]."""
        for node, theta, share in zip(self.layers, self._thresholds, shares, strict=True):
            name = node.inputs[1].name
            values = (theta * share).astype(np.float32)
            self._constants[name].CopyFrom(onnx.numpy_helper.from_array(values, name))
        session = Session(self._model)
        results = [session.run(feeds, self._names) for feeds in self._batches]
        return [values.reshape(len(values), -1) for values in side_by_side(results).values()]


def _cosine(values: Array, expected: Array) -> float:
    """Mean cosine of the angle between the samples' outputs."""
    norms = np.linalg.norm(values, axis=1) * np.linalg.norm(expected, axis=1)
    products = (values * expected).sum(axis=1)
    return float(np.mean(products / np.maximum(norms, np.finfo(np.float32).tiny)))


def _output_omega(values: Array) -> float | None:
    """Omega of the output layer's rates, relu(y) / max(y)."""
    greatest = float(values.max(initial=0.0))
    if greatest <= 0:
        return None
    rates = np.maximum(values, 0.0) / greatest
    return float(rates.sum() / np.square(rates).sum())


def _lost(values: Array, expected: Array) -> float:
    """Share of samples whose class changed; the relative error of outputs that are one number."""
    if values.shape[1] > 1:
        return float(np.mean(values.argmax(axis=1) != expected.argmax(axis=1)))
    return float(np.linalg.norm(values - expected) / max(float(np.linalg.norm(expected)), 1e-12))
