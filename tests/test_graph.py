"""Graphs of models: what they share with the model, and what they leave out."""

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import pytest
from onnx.numpy_helper import from_array, to_array

from onnxsnn.functions import IR_VERSION
from onnxsnn.graph import constant, from_model, to_model
from tests.models import Builder


def wide_model():
    b = Builder((300,))
    b.gemm(200)
    b.relu()
    b.gemm(3)
    return b.model()


def test_a_graph_has_the_weights_of_its_model_and_leaves_it_alone():
    model = wide_model()
    before = model.SerializeToString()
    graph = from_model(model)
    first = graph.nodes[0].inputs[1]
    constant(first)[:] = 0  # a copy of its own
    second = to_model(graph)
    assert model.SerializeToString() == before
    found = {tensor.name: to_array(tensor) for tensor in second.graph.initializer}
    for tensor in model.graph.initializer:
        kept = to_array(tensor) * (tensor.name != first.name)
        np.testing.assert_array_equal(found[tensor.name], kept)


def test_what_is_left_out_is_a_plain_tensor():
    model = wide_model()
    name = model.graph.initializer[0].name
    graph = from_model(model, {name})
    assert isinstance(graph.tensors()[name], gs.Variable)
    assert sum(isinstance(tensor, gs.Constant) for tensor in graph.tensors().values()) == 3


@pytest.mark.parametrize(
    "operator",
    ["GroupNormalization<num_groups=2>(a, s, t)", "MeanVarianceNormalization<axes=[0,2,3]>(a)"],
)
def test_shapes_are_known_behind_operators_of_which_onnx_infers_none(operator):
    text = """
    <ir_version: 10, opset_import: ["": 21]>
    g (float[N,4,5,5] x) => (float[N,4,5,5] y)
    <float[4] s = {1,1,1,1}, float[4] t = {0,0,0,0}>
    { a = Relu(x)  b = OPERATOR  c = Relu(b)  y = Relu(c) }
    """
    model = onnx.parser.parse_model(text.replace("OPERATOR", operator))
    graph = from_model(model)
    assert graph.tensors()["c"].shape == ["N", 4, 5, 5]
    assert to_model(graph).graph.node[1] == model.graph.node[1]


def test_branches_have_the_weights_that_they_read_from_outside():
    text = """
    <ir_version: 8, opset_import: ["": 17]>
    g (float[N,300] x, bool c) => (float[N,200] y)
    {
        y = If (c) <
            then_branch = yes () => (float[N,200] a) { a = MatMul(x, w) },
            else_branch = no () => (float[N,200] b) { t = MatMul(x, w)  b = Relu(t) }
        >
    }
    """
    model = onnx.parser.parse_model(text)
    weights = np.random.default_rng(0).normal(size=(300, 200)).astype(np.float32)
    model.graph.initializer.append(from_array(weights, "w"))
    (node,) = from_model(model).nodes
    for branch in node.attrs.values():
        np.testing.assert_array_equal(constant(branch.nodes[0].inputs[1]), weights)


def test_nodes_know_the_shape_of_an_output_better_than_its_declaration():
    text = """
    <ir_version: 8, opset_import: ["": 17]>
    g (float[N,6] x) => (float[N,L] y, float[M,6] z)
    { a = Relu(x)  axes = Constant<value = int64[1] {1}>()  y = Unsqueeze(a, axes)  z = Relu(a) }
    """
    graph = from_model(onnx.parser.parse_model(text))
    assert [tensor.shape for tensor in graph.outputs] == [["N", 1, 6], ["N", 6]]


def test_a_new_graph_is_of_a_version_that_older_runtimes_take():
    x, y = gs.Variable("x", np.float32, [1]), gs.Variable("y", np.float32, [1])
    graph = gs.Graph([gs.Node("Neg", inputs=[x], outputs=[y])], [x], [y], opset=17)
    assert to_model(graph).ir_version == IR_VERSION


@pytest.mark.parametrize(
    ("own", "opset", "written"), [(14, 17, 8), (7, 17, 8), (10, 21, 10), (14, 21, 10)]
)
def test_a_graph_is_of_no_newer_version_than_its_operators(own, opset, written):
    text = f"""
    <ir_version: {own}, opset_import: ["": {opset}]>
    g (float[N,6] x) => (float[N,6] y) {{ y = Relu(x) }}
    """
    assert to_model(from_model(onnx.parser.parse_model(text))).ir_version == written
