"""A convolution of 3x3 over many channels becomes products over tiles: fewer multiplications.

Along an axis, m outputs of a kernel g [3] read m + 2 inputs d. Winograd's F(m, 3) gives them
by p products, after the inputs and the kernel have each been taken through a matrix:

    y = A [(G g) * (B d)],    A [m, p],  B [p, m + 2],  G [p, 3]

F(2, 3) takes 4 products instead of 6; F(4, 3), taken at 0, 2/3, -2/3, 3/2, -3/2 and infinity, 6
instead of 12. A and B are whole, so that spikes are read exactly; sums are rounded otherwise than
those of the convolution, and some times as much, so that a spike whose potential is at its
threshold may come in another step. Of whole weights, F(2, 3) gives the convolution's numbers
exactly, and so does an F(4, 3) of 7 products, taken modulo x (x - 1) (x + 1) (x^2 + 1) and at
infinity: A and B of these hold 0, 1 and -1, and G fractions of 4.

Along both axes of a map, for all its tiles at once, t rows and u columns of them:

    x [N, C, H, W] -> [H, W, N C]
    d = B x B^T              [p p, t u N, C]: a value of every tile for each pair of products
    z = d (G g G^T)          [p p, t u N, D]: a matrix [C, D] for each pair of products
    y = A z A^T              [m m t u, N D]: the pixels of every tile
      -> [N, D, H', W'] + b  the pixels in their places, without those beyond the map

B of an axis is repeated for each tile along it; padding is what it does not read.

Where d has few rows, of maps of few tiles or of few samples, the matrices are most of what is read.
From the left of d they are read as they lie; from the right, ONNX Runtime would put them into
another order at each run.

1. Only convolutions of 3x3, in steps of 1, without groups and dilations, whose weights are
   constant and whose maps have a known size.
2. Only where the products saved are worth the values that are moved, and the weights that are read:
   see `_cost`.
3. Of the two algorithms, the one that costs less; of whole weights, and of such times a power of
   two, the two that are exact.

Winograd, "Arithmetic Complexity of Computations", 1980; as products of matrices over tiles:
Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR 2016, section 4; with
points c, -c, 1/c and -1/c: Alam et al., "Winograd Convolution for Deep Neural Networks: Efficient
Point Selection", 2022; with x^2 + 1 in the place of fractions: Meng and Brothers, "Efficient
Winograd Convolution via Integer Arithmetic", 2019.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs

from onnxsnn.arrays import Array
from onnxsnn.graph import (
    Graph,
    Node,
    Tensor,
    constant,
    insert,
    is_static_shape,
    remove,
    unique_name,
)
from onnxsnn.passes.report import Report

__all__ = ["held_by_products", "winograd"]


@dataclass(frozen=True)
class _Algorithm:
    """F(m, 3).

    Attributes:
        read: B [p, m + 2], of the inputs.
        weigh: G [p, 3], of the kernel.
        give: A [m, p], of the products.
    """

    read: Array
    weigh: Array
    give: Array

    @property
    def outputs(self) -> int:
        return len(self.give)

    @property
    def products(self) -> int:
        return len(self.read)

    def tiles(self, size: int) -> int:
        """How many give an axis of `size` outputs."""
        return -(-size // self.outputs)


_F2 = _Algorithm(
    read=np.array([[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, 1, 0, -1]]),
    weigh=np.array([[2, 0, 0], [1, 1, 1], [1, -1, 1], [0, 0, 2]]) / 2,
    give=np.array([[1, 1, 1, 0], [0, 1, -1, -1]]),
)
# At 0, 2/3, -2/3, 3/2, -3/2 and infinity.
_F4 = _Algorithm(
    read=np.array(
        [
            [36, 0, -97, 0, 36, 0],
            [0, 18, 27, -8, -12, 0],
            [0, -18, 27, 8, -12, 0],
            [0, -12, -8, 27, 18, 0],
            [0, 12, -8, -27, 18, 0],
            [0, 36, 0, -97, 0, 36],
        ]
    ),
    weigh=np.array([[130, 0, 0], [9, 6, 4], [9, -6, 4], [4, 6, 9], [4, -6, 9], [0, 0, 130]]) / 4680,
    give=np.array(
        [
            [1, 27, 27, 8, 8, 0],
            [0, 18, -18, 12, -12, 0],
            [0, 12, 12, 18, 18, 0],
            [0, 8, -8, 27, -27, 1],
        ]
    ),
)
# Modulo x, x - 1, x + 1; three for x^2 + 1, as of a complex product; infinity.
_EXACT_F4 = _Algorithm(
    read=np.array(
        [
            [1, 0, 0, 0, -1, 0],
            [0, 1, 1, 1, 1, 0],
            [0, -1, 1, -1, 1, 0],
            [0, -1, -1, 1, 1, 0],
            [0, -1, 1, 1, -1, 0],
            [0, 1, 0, -1, 0, 0],
            [0, -1, 0, 0, 0, 1],
        ]
    ),
    weigh=np.array([[4, 0, 0], [1, 1, 1], [1, -1, 1], [2, 0, -2], [0, 2, 0], [2, 2, -2], [0, 0, 4]])
    / 4,
    give=np.array(
        [
            [1, 1, 1, 1, 0, 1, 0],
            [0, 1, -1, 0, 1, 1, 0],
            [0, 1, 1, -1, 0, -1, 0],
            [0, 1, -1, 0, -1, -1, 1],
        ]
    ),
)
_ALGORITHMS = (_F2, _F4)
_EXACT = (_F2, _EXACT_F4)


def winograd(graph: Graph, batch: int) -> Report:
    """Replace every convolution by Winograd's products where that is less work.

    Args:
        graph: it is changed.
        batch: N, about, of a run: the fewer rows read a weight, the fewer they should become.
    """
    report = Report("winograd")
    for node in list(graph.nodes):
        algorithm = _saving(node, batch)
        if algorithm is not None:
            report.actions["Conv turned into Winograd's products"] += 1
            _replace(graph, node, algorithm, batch)
    return report


def held_by_products(graph: Graph, batch: int) -> int:
    """Bytes that d and z of one sample would take at once, of the convolution where they are most.

    0 where none would be replaced.
    """
    chosen = ((_saving(node, batch), node) for node in graph.nodes)
    return max((4 * _moved(one, node) for one, node in chosen if one is not None), default=0)


def _saving(node: Node, batch: int) -> _Algorithm | None:
    """The algorithm by which a node is less work; None where there is none."""
    if node.op != "Conv" or not _fits(node):
        return None
    algorithms = _EXACT if _is_whole(node) else _ALGORITHMS
    algorithm = min(algorithms, key=lambda one: _cost(one, node, batch))
    return algorithm if _cost(algorithm, node, batch) < _direct_cost(node, batch) else None


def _fits(node: Node) -> bool:
    """Whether a convolution is one that F(m, 3) computes, of known sizes."""
    weights = constant(node.inputs[1])
    attrs = node.attrs
    return (
        weights is not None
        and weights.dtype == np.float32
        and weights.shape[2:] == (3, 3)
        and all(constant(tensor) is not None for tensor in _biases(node))
        and all(is_static_shape(t.shape) for t in (node.inputs[0], node.outputs[0]))
        and attrs.get("group", 1) == 1
        and all(step == 1 for name in ("strides", "dilations") for step in attrs.get(name, ()))
        and attrs.get("auto_pad", "NOTSET") == "NOTSET"
    )


def _is_whole(node: Node) -> bool:
    """Whether each channel's weights are whole numbers of 16 bits, times a power of two."""
    weights = node.inputs[1].values
    _, exponents = np.frexp(np.abs(weights).max(axis=(1, 2, 3), keepdims=True))
    scaled = np.ldexp(weights, 16 - exponents)
    return np.array_equal(scaled, np.rint(scaled))


def _biases(node: Node) -> list[Tensor]:
    return [tensor for tensor in node.inputs[2:] if not tensor.is_empty()]


def _cost(algorithm: _Algorithm, node: Node, batch: int) -> float:
    """What a sample costs in one step, in multiply-adds.

    Each pair of products multiplies a row of C for each tile by a matrix [C, D], which is read
    too; and d and z are written, and read, beside.
    """
    d, c = node.inputs[1].values.shape[:2]
    tiles = _tiles(algorithm, node)
    read = _READ_AS_THEY_LIE if _from_the_left(tiles * batch) else _READ
    each = algorithm.products**2 * (tiles + read / batch)
    return each * int(c * d) + _MOVED * _moved(algorithm, node)


def _tiles(algorithm: _Algorithm, node: Node) -> int:
    return math.prod(algorithm.tiles(size) for size in node.outputs[0].shape[2:])


def _from_the_left(rows: int) -> bool:
    """Whether the matrices [C, D] multiply d, of so many rows, from the left."""
    return rows <= _NARROW


def _moved(algorithm: _Algorithm, node: Node) -> int:
    """The values of d and z of a sample."""
    d, c = node.inputs[1].values.shape[:2]
    return algorithm.products**2 * _tiles(algorithm, node) * int(c + d)


def _direct_cost(node: Node, batch: int) -> float:
    """The same of the convolution itself."""
    weights, pixels = node.inputs[1].values.size, math.prod(node.outputs[0].shape[2:])
    return float(weights * (pixels + _READ_AS_THEY_LIE / batch))


# Measured on a processor with AVX-512, 64 to 1024 channels on maps of 4x4 to 32x32:
_NARROW = 64  # rows of d, at most, that the matrices multiply from the left
_READ = 32  # multiply-adds that take as long as to read a weight from the right,
_READ_AS_THEY_LIE = 16  # and from the left
_MOVED = 120  # multiply-adds that take as long as to make and to read a value of d or z


def _read(algorithm: _Algorithm, inputs: int, outputs: int, pad: int) -> Array:
    """B of all tiles of an axis [p, t, H]: `inputs` values behind `pad` zeros, `outputs` made."""
    tiles, m = algorithm.tiles(outputs), algorithm.outputs
    read = np.zeros((algorithm.products, tiles, max(m * tiles + 2, pad + inputs)), np.float32)
    for tile in range(tiles):
        read[:, tile, m * tile : m * tile + m + 2] = algorithm.read
    return read[:, :, pad : pad + inputs]


def _pixels(algorithm: _Algorithm, rows: int, columns: int) -> Array:
    """Where in [m, m, t, u], columns first, then rows, each pixel of a map [H' W'] is."""
    m = algorithm.outputs
    y, x = np.arange(rows)[:, None], np.arange(columns)
    shape = (m, m, algorithm.tiles(rows), algorithm.tiles(columns))
    return np.ravel_multi_index((x % m, y % m, y // m, x // m), shape).reshape(-1)


def _replace(graph: Graph, node: Node, algorithm: _Algorithm, batch: int) -> None:
    source, output, biases = node.inputs[0], node.outputs[0], _biases(node)
    weights = node.inputs[1].values.astype(np.float64)
    (d, c), p, g = weights.shape[:2], algorithm.products, algorithm.weigh
    (height, width), (rows, columns) = source.shape[2:], output.shape[2:]
    tiles, (top, left) = _tiles(algorithm, node), node.attrs.get("pads", (0, 0))[:2]
    from_the_left = _from_the_left(tiles * batch)
    read_rows = _read(algorithm, height, rows, top)
    read_columns = _read(algorithm, width, columns, left)
    give = algorithm.give.astype(np.float32)
    matrices = np.kron(g, g) @ weights.swapaxes(2, 3).reshape(-1, 9).T  # columns first
    matrices = matrices.astype(np.float32).reshape(p * p, d, c)
    remove(graph, node)
    line = _Line(graph, source, output.name)
    line.reshape(-1, height * width)
    line.transpose(1, 0)
    line.reshape(height, width, -1)
    line.multiply(read_columns[:, None])  # [p, H, u, N C]
    line.reshape(p, height, -1)
    line.multiply(read_rows.reshape(-1, height))  # [p, p t, u N C]
    line.reshape(p * p, -1, c)
    if from_the_left:
        line.transpose(0, 2, 1)
        line.multiply(matrices)  # [p p, D, t u N]
    else:
        line.multiply_by(matrices.swapaxes(1, 2))  # [p p, t u N, D]
    line.reshape(p, p, -1)
    line.multiply(give)  # [p, m, t u N D]
    line.reshape(p, -1)
    line.multiply(give)  # [m, m t u N D]
    if from_the_left:
        line.reshape(algorithm.outputs**2, d, -1)
        line.transpose(0, 2, 1)
    line.reshape(algorithm.outputs**2 * tiles, -1)
    line.take(_pixels(algorithm, rows, columns))
    line.transpose(1, 0)
    line.reshape(-1, d, rows, columns)
    if biases:
        line.add(biases[0].values.reshape(-1, 1, 1))
    line.end(output)


class _Line:
    """Operators in a row, each of which reads what the one before it gave."""

    def __init__(self, graph: Graph, start: Tensor, name: str) -> None:
        self.graph, self.tensor, self.name = graph, start, name

    def reshape(self, *sizes: int) -> None:
        self._add("Reshape", [self.tensor, self._constant("sizes", np.array(sizes))])

    def transpose(self, *axes: int) -> None:
        self._add("Transpose", [self.tensor], {"perm": axes})

    def multiply(self, matrix: Array) -> None:
        """From the left."""
        self._add("MatMul", [self._constant("matrix", matrix), self.tensor])

    def multiply_by(self, matrices: Array) -> None:
        """From the right."""
        self._add("MatMul", [self.tensor, self._constant("matrices", matrices)])

    def take(self, places: Array) -> None:
        """Rows of the first axis."""
        self._add("Gather", [self.tensor, self._constant("places", places)])

    def add(self, values: Array) -> None:
        self._add("Add", [self.tensor, self._constant("added", values)])

    def end(self, output: Tensor) -> None:
        """Let the last operator write `output`."""
        self.tensor.inputs[0].outputs = [output]

    def _add(
        self, operator: str, inputs: list[Tensor], attrs: dict[str, Any] | None = None
    ) -> None:
        output = gs.Variable(unique_name(self.graph, f"{self.name}.part"), np.float32)
        insert(self.graph, operator, inputs, output, attrs=attrs)
        self.tensor = output

    def _constant(self, role: str, values: Array) -> Tensor:
        return gs.Constant(unique_name(self.graph, f"{self.name}.{role}"), values)
