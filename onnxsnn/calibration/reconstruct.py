r"""Weights fitted to the spikes that really arrive, by least squares.

A layer's mean current in the SNN is `W x + b`, x being the mean of what the spikes before it
carry; the ANN's pre-activation there is `a`. What W cannot know is where x errs in a way that
repeats: channels that are clipped, rounded or late, and errors of the layers before. The
change D of the weights and d of the bias is the ridge regression of the residual on x, over
samples and positions,

    D, d = argmin  sum |a - (W + D) x - b - d|^2  +  lambda * sum |x|^2 / |x's entries| * |D|^2

in closed form; lambda is the one of least error on samples held out, and where none is better
there than no change, all stays. Where x has more entries than there are observations, as many
equations are solved as there are of these, `D = X^T (X X^T + lambda)^-1 R`.

Where a Rate Norm Layer reads the sum alone, what it clips need not be met: where a lies below
0 (or above a trained threshold), the target is what the layer gives already, if that is clipped
too, else the limit. The target then depends on D, so that regression and target take turns, and
the error of the activations falls with each (compare the nonlinear, asymmetric reconstruction of
Zhang et al., TPAMI 2016, section 3).

Fitting a layer's output is how post-training quantization sets weights (Nagel et al., ICML
2020, section 3), and how biases of SNNs were set (Li et al., ICML 2021, section 4).

Where the output only enters a residual Add, the sum is what is fitted, so that the last layer
in front makes up for errors of the shortcut too.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from threadpoolctl import threadpool_limits

from onnxsnn.arrays import Array, Floats
from onnxsnn.calibration.cut import Bench
from onnxsnn.calibration.patches import (
    by_group,
    by_position,
    change_weights,
    fan_in,
    has_patches,
    outputs_of,
    patches,
    rows_apart,
)
from onnxsnn.graph import Graph, Node, Tensor, nodes_before, sole_consumer
from onnxsnn.ratenorm import is_rate_norm, limits_of, rate_norms
from onnxsnn.weights import WeightLayer

__all__ = ["fitted_tensor", "reconstruct_weights"]

_LAMBDAS = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
_VALUES = 2**25  # inputs of all observations together, at most
_MOST_APART = 4  # the time for equations grows with their third power
_FEWEST = 16  # positions: from fewer, nothing is learnt
_PARTS = 4  # one sample of so many is held out
_TURNS = 3  # of regression and target; measured, more gain little

_Limits = tuple[Array, Array]
"""Between what the activation clips, each a scalar or by output, [G, 1, O]."""


def reconstruct_weights(
    bench: Bench, layer: WeightLayer, target: Tensor, observations: int, equations: int
) -> bool:
    """Fit one layer's weights and bias to what arrives.

    Args:
        bench: the SNN that there is so far, and the ANN.
        layer: of the SNN's graph; its weights are changed.
        target: what is fitted, of the same shape as the layer's output: `fitted_tensor`.
        observations: positions of all samples that are looked at, about and at most;
        equations: where an output has more inputs than these, no more positions than these; more
            where a row holds few of its inputs.

    Returns:
        whether the weights changed.
    """
    if not has_patches(layer):
        return False
    inputs = fan_in(layer)
    equations *= min(rows_apart(layer), _MOST_APART)
    most = min(observations, _VALUES // (layer.groups * inputs))
    parts = _observe(bench, layer, target, most if inputs <= equations else min(most, equations))
    change = _regression(parts, _limits(bench, layer, target), layer.takes_bias)
    if change is None:
        return False
    weights, bias = change
    change_weights(layer, weights)
    layer.shift_output(bias.reshape(-1))
    return True


@dataclass(frozen=True)
class _Observations:
    """What a layer reads and gives, by group, sample and position; G is groups.

    Attributes:
        rows: x, the mean of what arrives, [G, n, K].
        reached: W x + b, and what else enters the sum, [G, n, O].
        wanted: a, the same in the ANN, [G, n, O].
    """

    rows: Floats
    reached: Floats
    wanted: Floats

    def residual(self, limits: _Limits | None, gained: Floats | None = None) -> Floats:
        """What is left to a change, [G, n, O], that has gained so much already."""
        wanted = self.wanted
        if limits is not None:
            now = self.reached if gained is None else self.reached + gained
            low, high = limits
            wanted = np.where(wanted <= low, np.minimum(now, low), wanted)
            wanted = np.where(wanted >= high, np.maximum(now, high), wanted)
        residual: Floats = wanted - self.reached
        return residual


class _Ridge:
    """Regressions of several residuals on the same rows, with any penalty.

    A change is known by its coefficients: its weights, or where there are fewer rows than inputs,
    what it takes of each row.

    Args:
        rows: [G, n, K].
        shifts: whether a bias may change; else weights alone.
    """

    def __init__(self, rows: Floats, shifts: bool) -> None:
        self._shifts = shifts
        self._mean = self._mean_of(rows)
        self._rows = rows - self._mean
        self._columns = self._rows.swapaxes(1, 2)
        self._dual = rows.shape[1] < rows.shape[2]
        products = self._rows @ self._columns if self._dual else self._columns @ self._rows
        self._products = products  # [G, coefficients, coefficients]
        self._power = np.trace(products, axis1=1, axis2=2) / rows.shape[2]  # [G]

    def _mean_of(self, values: Floats) -> Floats:
        """Over observations, [G, 1, any]; 0 where no bias can make up for it."""
        mean: Floats = values.mean(axis=1, keepdims=True) * np.float32(self._shifts)
        return mean

    def solution(self, residual: Floats, amount: float) -> tuple[Floats, Floats]:
        """What errs least with an amount of penalty, relative to the power of an input.

        Args:
            residual: [G, n, O].
            amount: of the penalty.

        Returns:
            coefficients, and the mean of the residual, which is gained beside them, [G, 1, O].
        """
        right, mean = self._right(residual)
        penalties = self._penalty(amount) * np.eye(right.shape[1], dtype=np.float32)
        with threadpool_limits(1, "blas"):  # several wait for each other at every column
            return np.linalg.solve(self._products + penalties, right), mean

    def gained(self, coefficients: Floats, mean: Floats) -> Floats:
        """By a solution, on its own rows, [G, n, O]."""
        gained: Floats = (self._products if self._dual else self._rows) @ coefficients + mean
        return gained

    def gains(self, residual: Floats, amounts: Sequence[float], rows: Floats) -> Iterator[Floats]:
        """What `solution` of each amount gains on other rows, [G, any, O].

        In the axes of the eigenvectors, an amount takes a division.
        """
        right, mean = self._right(residual)
        with threadpool_limits(1, "blas"):
            powers, axes = np.linalg.eigh(self._products)  # [G, any], [G, any, any]
        along, powers = axes.swapaxes(1, 2) @ right, np.maximum(powers, 0)[:, :, None]
        centred = rows - self._mean
        basis = (centred @ self._columns if self._dual else centred) @ axes
        for amount in amounts:
            yield basis @ (along / (powers + self._penalty(amount))) + mean

    def _right(self, residual: Floats) -> tuple[Floats, Floats]:
        """The right side of the normal equations, [G, coefficients, O], and the residual's mean."""
        mean = self._mean_of(residual)
        centred: Floats = residual - mean
        return centred if self._dual else self._columns @ centred, mean

    def _penalty(self, amount: float) -> Floats:
        """[G, 1, 1]; above 0 where nothing arrives, too."""
        penalty: Floats = np.maximum(amount * self._power, np.finfo(np.float32).tiny)
        return penalty[:, None, None]

    def change(self, coefficients: Floats, mean: Floats) -> tuple[Floats, Floats]:
        """Of the weights, [G, K, O], and of the bias, [G, 1, O], that a solution stands for."""
        weights = self._columns @ coefficients if self._dual else coefficients
        return weights, mean - self._mean @ weights


def _regression(
    parts: Sequence[_Observations], limits: _Limits | None, shifts: bool
) -> tuple[Floats, Floats] | None:
    """The change of weights and bias; None where none is better, or too little or much to tell.

    Args:
        parts: what is fitted to, and what is held out.
        limits: None where no activation clips what the layer gives.
        shifts: whether the layer takes a bias.
    """
    fitted, held_out = parts
    seen = fitted.rows.shape[1], held_out.rows.shape[1]
    power = sum(np.vdot(part.rows, part.rows) for part in parts)
    if not seen[0] or sum(seen) < _FEWEST or not np.isfinite(power):
        return None
    ridge, residual = _Ridge(fitted.rows, shifts), fitted.residual(limits)
    missing = held_out.residual(limits)
    gains = ridge.gains(residual, _LAMBDAS, held_out.rows)
    errors = [np.vdot(gained, gained - 2 * missing) for gained in gains]
    best = int(np.argmin(errors))
    if not errors[best] < 0:
        return None
    everything = _joined(parts)
    ridge, residual = _Ridge(everything.rows, shifts), everything.residual(limits)
    solution = ridge.solution(residual, _LAMBDAS[best])
    for _ in range(0 if limits is None else _TURNS - 1):
        residual = everything.residual(limits, ridge.gained(*solution))
        solution = ridge.solution(residual, _LAMBDAS[best])
    return ridge.change(*solution)


def _limits(bench: Bench, layer: WeightLayer, target: Tensor) -> _Limits | None:
    """What the layer behind the target clips in the ANN; None where nothing does."""
    reader = sole_consumer(bench.graph, target)
    if reader is None or not is_rate_norm(reader):
        return None
    (original,) = (node for node in rate_norms(bench.reference) if node.name == reader.name)
    low, high = (
        limit.reshape(1 if limit.size == 1 else layer.groups, 1, -1)
        for limit in limits_of(original)
    )
    return (low, high) if np.any(low > -np.inf) else None


def fitted_tensor(graph: Graph, node: Node, waiting: Collection[int]) -> Tensor:
    """What a layer is fitted by: its output, or the last of the sums that it only enters.

    Args:
        graph: the graph.
        node: the layer.
        waiting: id() of the layers of weights whose turn is still to come: a sum that they
            enter too is theirs to fit.
    """
    tensor = node.outputs[0]
    while True:
        reader = sole_consumer(graph, tensor)
        if reader is None or reader.op != "Add" or reader.outputs[0].shape != tensor.shape:
            return tensor
        terms = [term for term in reader.inputs if term is not tensor]
        if any(id(node) in waiting for node in nodes_before(terms)):
            return tensor
        tensor = reader.outputs[0]


def _observe(
    bench: Bench, layer: WeightLayer, target: Tensor, rows: int
) -> tuple[_Observations, _Observations]:
    """Run both networks over the data, up to the layer: what is fitted to, what is held out."""
    share = max(1, round(rows / bench.samples))  # of each sample
    random = np.random.default_rng(0)
    pieces: list[list[_Observations]] = [[], []]
    done = 0
    source, alone = layer.node.inputs[0].name, target is layer.node.outputs[0]
    names = [source] if alone else [source, target.name]
    for (arrived, *sums), (analog,) in bench.observe_means(names, [target.name]):
        wanted = by_position(layer, analog)
        for part, chosen in enumerate(_parts(done, len(wanted))):
            where = _some(wanted.shape[1], share, len(chosen), random)
            samples, positions = np.repeat(chosen, where.shape[1]), where.reshape(-1)
            observed = patches(layer, arrived, samples, positions)
            given = [by_position(layer, total)[samples, positions] for total in sums]
            reached = by_group(layer, given[0]) if given else outputs_of(layer, observed)
            met = by_group(layer, wanted[samples, positions])
            pieces[part].append(_Observations(observed, reached, met))
        done += len(wanted)
    fitted, held_out = map(_joined, pieces)
    return fitted, held_out


def _joined(pieces: Sequence[_Observations]) -> _Observations:
    """Observations of several, one after another."""
    columns = zip(*((p.rows, p.reached, p.wanted) for p in pieces), strict=True)
    return _Observations(*(np.concatenate(column, axis=1) for column in columns))


def _parts(first: int, count: int) -> tuple[Array, Array]:
    """Which samples of a batch are fitted to, and which are held out."""
    held = np.arange(first, first + count) % _PARTS == 0
    return np.flatnonzero(~held), np.flatnonzero(held)


def _some(positions: int, rows: int, samples: int, random: np.random.Generator) -> Array:
    """Positions of every sample, each once at most, [samples, rows]."""
    return random.permuted(np.tile(np.arange(positions), (samples, 1)), axis=1)[:, :rows]
