r"""Weights fitted to the spikes that really arrive, by least squares.

A layer's mean current in the SNN is `W x + b`, x being the mean of what the spikes before it
carry; the ANN's pre-activation there is `a`. What W cannot know is where x errs in a way that
repeats: channels that are clipped, rounded or late, and errors of the layers before. The
change D of the weights is the ridge regression of the residual on x, over samples and
positions,

    D = argmin  sum |a - (W + D) x - b|^2  +  lambda * sum |x|^2 / |x's entries| * |D|^2

in closed form; lambda is the one of least error on samples held out, and where none is better
there than D = 0, the weights stay.

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

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from onnxsnn.arrays import Array, Floats
from onnxsnn.calibration.cut import Bench, mean_currents
from onnxsnn.calibration.patches import (
    by_group,
    by_position,
    change_weights,
    fan_in,
    groups,
    has_patches,
    patches,
)
from onnxsnn.graph import Graph, Node, Tensor, nodes_before, sole_consumer
from onnxsnn.ratenorm import RECTIFYING, limits_of, rate_norms
from onnxsnn.weights import WeightLayer

__all__ = ["fitted_tensor", "reconstruct_weights"]

_LAMBDAS = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
_WIDEST = 2**13  # inputs of an output: beyond, the equations take too long
_ROWS = 2**15  # positions that a layer is fitted to, at most,
_VALUES = 2**25  # and their inputs together
_PARTS = 4  # one sample of so many is held out
_TURNS = 3  # of regression and target; measured, more gain little

_Limits = tuple[Array, Array]
"""Between what the activation clips, each a scalar or by output, [G, 1, O]."""


def reconstruct_weights(bench: Bench, layer: WeightLayer, target: Tensor) -> bool:
    """Fit one layer's weights to what arrives.

    Args:
        bench: the SNN that there is so far, and the ANN.
        layer: of the SNN's graph; its weights are changed.
        target: what is fitted, of the same shape as the layer's output: `fitted_tensor`.

    Returns:
        whether the weights changed.
    """
    if not has_patches(layer) or fan_in(layer) > _WIDEST:
        return False
    parts = _observe(bench, layer, target)
    change = _regression(parts, _limits(bench, layer, target))
    if change is None:
        return False
    change_weights(layer, change)
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

    def squares(self) -> Floats:
        """x x^T, summed over observations, [G, K, K]."""
        squares: Floats = self.rows.swapaxes(1, 2) @ self.rows
        return squares

    def products(self, change: Floats | None, limits: _Limits | None) -> Floats:
        """x r^T likewise, [G, K, O], r being the residual that is left to the change."""
        wanted = self.wanted
        if limits is not None:
            now = self.reached if change is None else self.reached + self.rows @ change
            low, high = limits
            wanted = np.where(wanted <= low, np.minimum(now, low), wanted)
            wanted = np.where(wanted >= high, np.maximum(now, high), wanted)
        products: Floats = self.rows.swapaxes(1, 2) @ (wanted - self.reached)
        return products


def _regression(parts: Sequence[_Observations], limits: _Limits | None) -> Floats | None:
    """The change of the weights, [G, K, O]; None where none is better than no change.

    Args:
        parts: what is fitted to, and what is held out.
        limits: None where no activation clips what the layer gives.
    """
    squares = [part.squares() for part in parts]
    products = [part.products(None, limits) for part in parts]
    errors = []
    for amount in _LAMBDAS:
        change = _ridge(squares[0], products[0], amount)
        errors.append(np.vdot(change, squares[1] @ change) - 2 * np.vdot(change, products[1]))
    best = int(np.argmin(errors))
    if not errors[best] < 0:
        return None
    both, amount = squares[0] + squares[1], _LAMBDAS[best]
    change = _ridge(both, products[0] + products[1], amount)
    for _ in range(0 if limits is None else _TURNS - 1):
        fitted, held_out = (part.products(change, limits) for part in parts)
        change = _ridge(both, fitted + held_out, amount)
    return change


def _ridge(squares: Floats, products: Floats, amount: float) -> Floats:
    """The regression with a penalty relative to the power of an input, [G, K, O]."""
    size = squares.shape[-1]
    power = np.trace(squares, axis1=1, axis2=2) / size  # [G]
    penalty = np.maximum(amount * power, np.finfo(np.float32).tiny)
    damped = squares + penalty[:, None, None] * np.eye(size, dtype=squares.dtype)
    change: Floats = np.linalg.solve(damped, products)
    return change


def _limits(bench: Bench, layer: WeightLayer, target: Tensor) -> _Limits | None:
    """What the rectifier behind the target clips in the ANN; None where something else reads it."""
    reader = sole_consumer(bench.graph, target)
    if reader is None or reader.op != RECTIFYING:
        return None
    (original,) = (node for node in rate_norms(bench.reference) if node.name == reader.name)
    low, high = (
        limit if limit.size == 1 else limit.reshape(groups(layer), 1, -1)
        for limit in limits_of(original)
    )
    return low, high


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


def _observe(bench: Bench, layer: WeightLayer, target: Tensor) -> list[_Observations]:
    """Run both networks over the data, up to the layer: what is fitted to, what is held out."""
    rows = min(_ROWS, _VALUES // (groups(layer) * fan_in(layer)))
    share = max(1, round(rows / bench.samples))  # of each sample
    random = np.random.default_rng(0)
    pieces: list[list[_Observations]] = [[], []]
    done = 0
    for steps, (_, analog) in bench.observe([layer.node.inputs[0].name, target.name]):
        arrived, mean = mean_currents(steps)
        reached, wanted = (by_position(layer, values) for values in (mean, analog))
        for part, chosen in enumerate(_parts(done, len(reached))):
            where = _some(reached.shape[1], share, len(chosen), random)
            samples, positions = np.repeat(chosen, where.shape[1]), where.reshape(-1)
            observed = patches(layer, arrived, samples, positions)
            given = (by_group(layer, v[samples, positions]) for v in (reached, wanted))
            pieces[part].append(_Observations(observed, *given))
        done += len(reached)
    return [_joined(part) for part in pieces]


def _joined(pieces: Sequence[_Observations]) -> _Observations:
    columns = zip(*((p.rows, p.reached, p.wanted) for p in pieces), strict=True)
    return _Observations(*(np.concatenate(column, axis=1) for column in columns))


def _parts(first: int, count: int) -> tuple[Array, Array]:
    """Which samples of a batch are fitted to, and which are held out."""
    held = np.arange(first, first + count) % _PARTS == 0
    return np.flatnonzero(~held), np.flatnonzero(held)


def _some(positions: int, rows: int, samples: int, random: np.random.Generator) -> Array:
    """Positions of every sample, each once at most, [samples, rows]."""
    return random.permuted(np.tile(np.arange(positions), (samples, 1)), axis=1)[:, :rows]
