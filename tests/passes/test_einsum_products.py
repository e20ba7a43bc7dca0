"""Einsums with constant weights: those that are a MatMul in other words are written as one."""

import pytest

from onnxsnn import convert
from onnxsnn.passes.clean import clean
from tests.models import Builder, assert_same, dataset, outputs_of, uniform

SIZES = {"s": 5, "h": 3, "k": 4, "d": 6}


def einsum(equation, first=False):
    """An Einsum of x and weights, or of these and x; b is the batch."""
    operands, _ = equation.replace(" ", "").split("->")
    read, weights = operands.split(",")[:: -1 if first else 1]
    shape = tuple(SIZES[letter] for letter in read[1:])
    b = Builder(shape)
    weight = b.normal(*(SIZES[letter] for letter in weights))
    b.op("Einsum", *((weight, "x") if first else ("x", weight)), equation=equation)
    return b, uniform(2, *shape)


def cleaned(b, x):
    """The operators of a cleaned network, whose values are those that it had."""
    before = outputs_of(b.model(), x=x)
    graph, report = clean(b.graph())
    assert_same(before, outputs_of(graph, x=x))
    return [node.op for node in graph.nodes], report.actions


@pytest.mark.parametrize(
    ("equation", "operators"),
    [
        ("bsd,dk->bsk", ["MatMul"]),
        ("bd, dk -> bk", ["Gemm"]),
        ("bsd,kd->bsk", ["MatMul"]),
        ("bsd,dhk->bshk", ["MatMul", "Reshape"]),
        ("bsd,dhk->bhsk", ["MatMul", "Reshape", "Transpose"]),
        ("bsd,dk->bks", ["MatMul", "Transpose"]),
        ("bshk,hkd->bsd", ["Reshape", "MatMul"]),
        ("bshk,dkh->bsd", ["Reshape", "MatMul"]),
        ("bsd,d->bs", ["MatMul", "Reshape"]),
    ],
)
def test_weights_that_sum_over_the_last_axes_are_a_matmul(equation, operators):
    found, actions = cleaned(*einsum(equation))
    assert found == operators
    assert actions["Einsum written as MatMul"] == 1


def test_weights_may_come_first():
    assert cleaned(*einsum("dk,bsd->bsk", first=True))[0] == ["MatMul"]


@pytest.mark.parametrize(
    "equation",
    [
        "bhsd,hdk->bhsk",  # one matrix for each head
        "bds,dk->bks",  # sums over an axis in between
        "bsd,dk->sbk",  # samples come second
        "bsd,dk->bk",  # sums over more than the weights do
        "bs,dk->bsdk",  # sums over nothing
    ],
)
def test_others_are_left(equation):
    assert cleaned(*einsum(equation))[0] == ["Einsum"]


def test_the_weights_are_fitted_as_those_of_any_layer(tmp_path):
    b = Builder((5, 6))
    b.op("MatMul", "x", b.normal(6, 16))
    b.relu()
    b.op("Einsum", b.last, b.normal(16, 3, 4), equation="bsd,dhk->bshk")
    model = b.save(tmp_path / "m.onnx")
    conversion = convert(model, dataset(x=uniform(96, 5, 6)), timesteps=1)
    actions = {report.name: report.actions for report in conversion.reports}
    assert actions["correct"]["layers of weights fitted to their spikes"] == 1
    assert "thresholds kept as Mul" not in actions["absorb_scales"]
