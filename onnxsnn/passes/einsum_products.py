"""Einsums whose weights sum over the last axes of what they read, as MatMuls.

Projections of attention are often written so, with the channels of a head on an axis of their own:

    Einsum "bsd,dhk->bhsk" of x and W   becomes
    MatMul of x and W as [d, h * k], Reshape to [b, s, h, k], Transpose to [b, h, s, k]

Several axes that are summed over are put together by a Reshape in front. The MatMul is a layer of
weights like any other: they are fitted, take the thresholds' factors, and become whole numbers.

1. Samples, which are in front, stay there, and so does every axis that is not summed over.
2. Axes that weights share with the result, as one matrix for each head has them, are no MatMul's.
3. An Einsum of an ellipsis, or that says nothing of its result, is left.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
import onnx_graphsurgeon as gs

from onnxsnn.arrays import Array
from onnxsnn.graph import Graph, Node, Tensor, computed, insert, is_float, remove, unique_name
from onnxsnn.passes.report import Report
from onnxsnn.signals import weighted_input

__all__ = ["write_einsum_products"]


def write_einsum_products(graph: Graph, report: Report) -> None:
    """Write them so; shapes are to be inferred anew, and a Transpose may change nothing."""
    for node in [node for node in graph.nodes if node.op == "Einsum"]:
        product = _product(node)
        if product is not None:
            _write(graph, node, product)
            report.actions["Einsum written as MatMul"] += 1
    graph.toposort()


@dataclass(frozen=True)
class _Product:
    """What an Einsum computes.

    Attributes:
        source: what it reads.
        weight: of one axis for each letter that is summed over, then of one for each that is not.
        kept: the letters of the source that stay,
        summed: those that do not,
        made: and those that the weights bring.
        result: the letters of the result.
    """

    source: Tensor
    weight: Array
    kept: str
    summed: str
    made: str
    result: str


def _product(node: Node) -> _Product | None:
    """An Einsum as a product; None where it is another."""
    position = weighted_input(node)
    equation = node.attrs["equation"].replace(" ", "")
    if position is None or "." in equation or "->" not in equation or len(node.inputs) != 2:
        return None
    operands, result = equation.split("->")
    letters = operands.split(",")
    read, weights = letters[position], letters[1 - position]
    summed = "".join(letter for letter in read if letter in weights)
    made = "".join(letter for letter in weights if letter not in read)
    kept = read.removesuffix(summed)
    if not summed or not kept or kept == read or not is_float(node.inputs[position]):
        return None
    if sorted(weights) != sorted(summed + made) or sorted(result) != sorted(kept + made):
        return None
    if result[0] != kept[0]:
        return None
    order = [weights.index(letter) for letter in summed + made]
    weight = node.inputs[1 - position].values.transpose(order)
    return _Product(node.inputs[position], weight, kept, summed, made, result)


def _write(graph: Graph, node: Node, product: _Product) -> None:
    count = len(product.summed)
    inputs, outputs = product.weight.shape[:count], product.weight.shape[count:]
    matrix = product.weight.reshape(prod(inputs), prod(outputs))
    values, (output,) = product.source, node.outputs
    remove(graph, node)
    if count > 1:
        values = _laid_out(graph, values, product.kept, [len(matrix)])
    weight = gs.Constant(unique_name(graph, f"{node.name}.weight"), matrix)
    values = computed(graph, "MatMul", [values, weight], "product")
    values.inputs[0].name = node.name
    if len(outputs) != 1:
        values = _laid_out(graph, values, product.kept, outputs)
    axes = product.kept + product.made
    order = {"perm": [axes.index(letter) for letter in product.result]}
    insert(graph, "Transpose", [values], output, attrs=order)


def _laid_out(graph: Graph, values: Tensor, kept: str, sizes: Sequence[int]) -> Tensor:
    """Values whose axes behind those that stay are of other sizes."""
    target = np.array([0] * len(kept) + list(sizes), np.int64)
    shape = gs.Constant(unique_name(graph, f"{values.name}.sizes"), target)
    return computed(graph, "Reshape", [values, shape], "laid_out")
