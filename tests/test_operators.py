"""operators: every operator of ONNX has a row, and the row is decided per node."""

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import pytest

from onnxsnn.operators import TABLE, Role, fate, slice_bounds, varying_tensors
from tests.models import Builder


def test_every_operator_of_onnx_has_a_row():
    known = {schema.name for schema in onnx.defs.get_all_schemas() if schema.domain == ""}
    assert not known - set(TABLE)


def test_every_row_is_an_operator_that_onnx_has_or_had():
    known = {s.name for s in onnx.defs.get_all_schemas_with_history() if s.domain == ""}
    assert not set(TABLE) - known


def test_every_refusal_has_a_reason():
    assert all(row.reason for row in TABLE.values() if row.role is Role.REFUSED)


def last_fate(b, *outputs):
    graph = b.graph(*outputs)
    return fate(graph.nodes[-1], varying_tensors(graph))


@pytest.mark.parametrize(
    ("operator", "domain", "level"),
    [
        ("Conv", "com.microsoft.nchwc", True),
        ("QLinearConv", "com.microsoft", True),
        ("NhwcMaxPool", "com.microsoft", True),
        ("QMoE", "com.microsoft", False),
    ],
)
def test_what_was_laid_out_for_one_machine_is_refused_with_the_level_to_save_at(
    operator, domain, level
):
    node = gs.Node(operator, inputs=[gs.Variable("x")], outputs=[gs.Variable("y")], domain=domain)
    what = fate(node, ())
    assert what.role is Role.REFUSED
    assert ("ORT_ENABLE_EXTENDED" in what.reason) == level


def test_product_with_a_constant_is_linear_and_of_two_varying_tensors_is_not():
    linear, product = Builder((3,)), Builder((3,))
    linear.op("Mul", linear.relu(), linear.constant(2.0))
    rectified = product.relu()
    product.op("Mul", rectified, product.op("Exp", rectified))
    assert last_fate(linear).role is Role.LINEAR
    assert last_fate(product).role is Role.COMPENSATED


def test_product_with_a_static_tensor_is_linear():
    b = Builder((3,))
    b.op("Mul", b.relu(), b.op("Sigmoid", "x"))
    assert last_fate(b).role is Role.LINEAR


def test_division_is_linear_in_the_numerator_only():
    for position, role in ((0, Role.LINEAR), (1, Role.COMPENSATED)):
        b = Builder((3,))
        operands = [b.constant(2.0), b.constant(2.0)]
        operands[position] = b.relu()
        b.op("Div", *operands)
        assert last_fate(b).role is role


def test_choice_by_a_varying_condition_is_not_linear():
    b = Builder((3,))
    rectified = b.relu()
    condition = b.op("Greater", rectified, b.constant(0.5))
    b.op("Where", condition, rectified, b.constant(0.0))
    assert last_fate(b).role is Role.COMPENSATED


def test_cast_to_an_integer_rounds():
    b = Builder((3,))
    b.relu()
    b.op("Cast", to=onnx.TensorProto.INT64)
    assert last_fate(b).role is Role.COMPENSATED


def test_shape_of_a_varying_tensor_is_static():
    b = Builder((3, 4))
    b.relu()
    shape = b.op("Shape")
    graph = b.graph(shape)
    assert id(graph.outputs[0]) not in varying_tensors(graph)


@pytest.mark.parametrize("operator", ["CausalConvWithState", "If", "QLinearConv", "SequenceAt"])
def test_refused_operators_say_why(operator):
    assert TABLE[operator].role is Role.REFUSED


def test_operator_of_another_domain_is_refused():
    b = Builder((3,))
    b.relu()
    graph = b.graph()
    graph.nodes[0].domain = "com.example"
    assert fate(graph.nodes[0], ()).role is Role.REFUSED


def test_node_that_reads_the_type_or_shape_only_does_not_vary():
    b = Builder((3, 3))
    varying = b.relu()
    like = b.op("CastLike", "x", varying)
    eye = b.op("EyeLike", b.op("ReduceSum", varying, b.constant([0], "int64"), keepdims=0))
    graph = b.graph(like, eye)
    moving = varying_tensors(graph)
    assert not {id(tensor) for tensor in graph.outputs} & moving


def test_rectifier_that_only_gates_is_compensated():
    b = Builder((3,))
    gate = b.op("Add", b.op("Clip", "x", b.constant(0.0), b.constant(6.0)), b.constant(1.0))
    b.op("Mul", gate, "x")
    graph = b.graph()
    assert fate(graph.nodes[0], ()).role is Role.COMPENSATED
    b.op("Add", gate, b.last)
    assert fate(b.graph().nodes[0], ()).role is Role.REWRITTEN


@pytest.mark.parametrize(
    ("given", "bounds"),
    [
        (([0, 1], [4, 5]), [(0, 4, 0, 1), (1, 5, 1, 1)]),
        (([1], [3], [2]), [(1, 3, 2, 1)]),
        (([1], [3], [-1], [2]), [(1, 3, -1, 2)]),
        (([], []), []),
        (([0], "x"), None),
    ],
)
def test_bounds_of_a_slice_are_told_by_axis(given, bounds):
    b = Builder((4, 5))
    b.op("Slice", "x", *(v if v == "x" else b.constant(v, np.int64) for v in given))
    (node,) = b.graph().nodes
    assert slice_bounds(node) == bounds


@pytest.mark.parametrize("operator", ["Div", "Mul"])
def test_a_variance_that_is_kept_from_falling_below_zero_is_no_neuron(operator):
    b = Builder((3,))
    variance = b.op("Max", "x", b.constant(0.0))
    b.op("Sqrt", b.op("Add", variance, b.constant(1e-5)))
    if operator == "Mul":
        b.op("Reciprocal")
    b.op(operator, "x", b.last)
    assert fate(b.graph().nodes[0], ()).role is Role.COMPENSATED
