"""Graphs of models: what they share with the model, and what they leave out."""

import numpy as np
import onnx_graphsurgeon as gs
from onnx.numpy_helper import to_array

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
