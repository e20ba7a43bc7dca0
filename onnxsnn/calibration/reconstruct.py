r"""Weights fitted to the spikes that really arrive, by least squares.

A layer's mean current in the SNN is `W x + b`, x being the mean of what the spikes before it
carry; the ANN's pre-activation there is `a`. What W cannot know is where x errs in a way that
repeats: channels that are clipped, rounded or late, and errors of the layers before. The
change D of the weights is the ridge regression of the residual on x, over samples and
positions,

    D = argmin  sum |a - (W + D) x - b|^2  +  lambda * sum |x|^2 / |x's entries| * |D|^2

in closed form; lambda is the one of least error on samples held out, and where none is better
there than D = 0, the weights stay. They are changed by half of D: x is noisy, by when spikes
come as much as by how many, and a regression on noisy inputs shrinks what it predicts, layer
after layer (attenuation: Fuller, Measurement Error Models, 1987, section 1.1).

Fitting a layer's output is how post-training quantization sets weights (Nagel et al., ICML
2020, section 3), and how biases of SNNs were set (Li et al., ICML 2021, section 4).

Where the output only enters a residual Add, the sum is what is fitted, so that the last layer
in front makes up for errors of the shortcut too.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from onnxsnn.arrays import Array, Floats
from onnxsnn.calibration.cut import Bench, Potentials
from onnxsnn.calibration.patches import (
    by_position,
    change_weights,
    fan_in,
    groups,
    has_patches,
    patches,
)
from onnxsnn.graph import Graph, Node, Tensor, sole_consumer
from onnxsnn.weights import WeightLayer

__all__ = ["reconstruct_weights"]

_LAMBDAS = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
_WIDEST = 2**13  # inputs of an output: beyond, the equations take too long
_ROWS = 2**15  # positions that a layer is fitted to, at most,
_VALUES = 2**25  # and their inputs together
_PARTS = 4  # one sample of so many is held out
_SHARE = 0.5  # of the change: measured, better at few timesteps than all or none


def reconstruct_weights(
    bench: Bench, layer: WeightLayer, waiting: Collection[int], potentials: Potentials
) -> bool:
    """Fit one layer's weights to what arrives.

    Args:
        bench: the SNN that there is so far, and the ANN.
        layer: of the SNN's graph; its weights are changed.
        waiting: id() of the layers of weights whose turn is still to come.
        potentials: initial potentials of the neurons before.

    Returns:
        whether the weights changed.
    """
    if not has_patches(layer) or fan_in(layer) > _WIDEST:
        return False
    target = _target(bench.graph, layer.node, waiting)
    equations = _observe(bench, layer, target, potentials)
    change = equations.solution()
    if change is None:
        return False
    change_weights(layer, _SHARE * change)
    return True


@dataclass
class _Equations:
    """Sums over observations that the regression needs, of both parts; G is groups.

    Attributes:
        inputs: x x^T, [2, G, K, K]: the part that is fitted to, and that held out.
        products: x r^T, r being the residual, [2, G, K, O].
    """

    inputs: Floats
    products: Floats

    def add(self, part: int, rows: Floats, residual: Floats) -> None:
        """Count observations: rows [G, n, K], and their residuals [G, n, O]."""
        transposed = rows.swapaxes(1, 2)
        self.inputs[part] += transposed @ rows
        self.products[part] += transposed @ residual

    def solution(self) -> Floats | None:
        """The change of the weights, [G, K, O]; None where none is better than no change."""
        errors = [self._held_out(self._ridge(amount)) for amount in _LAMBDAS]
        best = int(np.argmin(errors))
        if not errors[best] < 0:
            return None
        self.inputs[0] += self.inputs[1]
        self.products[0] += self.products[1]
        return self._ridge(_LAMBDAS[best])

    def _ridge(self, amount: float) -> Floats:
        """The regression on what it is fitted to."""
        inputs, products = self.inputs[0], self.products[0]
        size = inputs.shape[-1]
        power = np.trace(inputs, axis1=1, axis2=2) / size  # [G]
        penalty = np.maximum(amount * power, np.finfo(np.float32).tiny)
        damped = inputs + penalty[:, None, None] * np.eye(size, dtype=inputs.dtype)
        change: Floats = np.linalg.solve(damped, products)
        return change

    def _held_out(self, change: Floats) -> float:
        """Squared error on the part held out, less that of no change."""
        inputs, products = self.inputs[1], self.products[1]
        return float(np.vdot(change, inputs @ change) - 2 * np.vdot(change, products))


def _target(graph: Graph, node: Node, waiting: Collection[int]) -> Tensor:
    """What is fitted: the layer's output, or the last of the sums that it only enters."""
    tensor = node.outputs[0]
    while True:
        reader = sole_consumer(graph, tensor)
        if reader is None or reader.op != "Add" or reader.outputs[0].shape != tensor.shape:
            return tensor
        if any(_depends(term, waiting) for term in reader.inputs if term is not tensor):
            return tensor
        tensor = reader.outputs[0]


def _depends(tensor: Tensor, nodes: Collection[int]) -> bool:
    """Whether one of the nodes, by id(), is before a tensor."""
    seen: set[int] = set()
    todo = list(tensor.inputs)
    while todo:
        node = todo.pop()
        if id(node) in nodes:
            return True
        if id(node) not in seen:
            seen.add(id(node))
            todo += [source for t in node.inputs for source in t.inputs]
    return False


def _observe(
    bench: Bench, layer: WeightLayer, target: Tensor, potentials: Potentials
) -> _Equations:
    """Run both networks over the data, up to the layer."""
    snn = bench.spiking([layer.node.inputs[0].name, target.name], potentials)
    analog = bench.analog(target.name)
    wide, count = fan_in(layer), groups(layer)
    equations = _Equations(
        np.zeros((2, count, wide, wide), np.float32),
        np.zeros((2, count, wide, layer.outputs // count), np.float32),
    )
    rows = max(1, round(min(_ROWS, _VALUES // (count * wide)) / len(bench.data)))
    random = np.random.default_rng(0)
    done = 0
    for feeds, inputs in bench.batches(snn):
        arrived, mean = snn.run(inputs, bench.timesteps).outputs.values()
        residual = by_position(layer, analog(feeds) - mean)  # [N, positions, outputs]
        for part, chosen in enumerate(_parts(done, len(residual))):
            where = _some(residual.shape[1], rows, len(chosen), random)
            samples, positions = np.repeat(chosen, where.shape[1]), where.reshape(-1)
            wrong = residual[samples, positions].reshape(
                len(samples), count, layer.outputs // count
            )
            equations.add(part, patches(layer, arrived, samples, positions), wrong.swapaxes(0, 1))
        done += len(residual)
    return equations


def _parts(first: int, count: int) -> tuple[Array, Array]:
    """Which samples of a batch are fitted to, and which are held out."""
    held = np.arange(first, first + count) % _PARTS == 0
    return np.flatnonzero(~held), np.flatnonzero(held)


def _some(positions: int, rows: int, samples: int, random: np.random.Generator) -> Array:
    """Positions of every sample, each once at most, [samples, rows]."""
    return random.permuted(np.tile(np.arange(positions), (samples, 1)), axis=1)[:, :rows]
