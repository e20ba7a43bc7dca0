"""clean: canonical form, values preserved."""

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from onnxsnn.errors import ModelError
from onnxsnn.graph import constant, from_model, to_model
from onnxsnn.passes.clean import clean
from onnxsnn.passes.free_batch import free_batch
from tests.models import Builder, assert_same, outputs_of, uniform


def operators(graph):
    return [node.op for node in graph.nodes]


def test_identity_dropout_and_idle_cast_are_removed():
    b = Builder((3, 6, 6))
    b.conv(4)
    b.op("Identity")
    b.op("Dropout")
    b.op("Cast", to=onnx.TensorProto.FLOAT)
    b.relu()
    graph, report = clean(b.graph())
    assert operators(graph) == ["Conv", "Relu"]
    assert report.changed
    x = uniform(2, 3, 6, 6)
    assert_same(outputs_of(b.model(), x=x), outputs_of(graph, x=x))


def test_identity_in_front_of_an_output_keeps_the_output_s_name():
    b = Builder((3, 6, 6))
    b.conv(4)
    name = b.op("Identity")
    model = b.graph()
    shape = model.outputs[0].shape
    graph, _ = clean(model)
    assert [(t.name, t.shape) for t in graph.outputs] == [(name, shape)]
    assert operators(graph) == ["Conv"]


def test_identity_between_input_and_output_stays():
    b = Builder((3,))
    first = b.op("Identity", "x")
    second = b.gemm(2)
    graph, _ = clean(b.graph(first, second))
    x = uniform(2, 3)
    assert_same(outputs_of(b.model(first, second), x=x), outputs_of(graph, x=x))


def test_dropout_whose_mask_is_read_stays():
    b = Builder((3,))
    out = b.op("Dropout", count=2)
    mask = b.op("Cast", f"{out}_1", to=onnx.TensorProto.FLOAT)
    graph, _ = clean(b.graph(out, mask))
    assert "Dropout" in operators(graph)


def test_what_depends_on_constants_only_is_folded():
    b = Builder((3, 6, 6))
    scale = b.op("Mul", b.constant([2.0]), b.constant([3.0]))
    b.op("Mul", "x", scale)
    graph, _ = clean(b.graph())
    assert operators(graph) == ["Mul"]
    assert constant(graph.nodes[0].inputs[1]) == pytest.approx([6.0])


def test_shape_arithmetic_on_a_symbolic_batch_still_runs():
    b = Builder((3, 4, 4))
    shape = b.op("Shape", "x")
    first = b.op("Gather", shape, b.constant(0, np.int64), axis=0)
    first = b.op("Unsqueeze", first, b.constant([0], np.int64))
    target = b.op("Concat", first, b.constant([-1], np.int64), axis=0)
    b.op("Reshape", "x", target)
    b.gemm(5, inputs=48)
    graph, _ = clean(b.graph())
    x = uniform(3, 3, 4, 4)
    assert_same(outputs_of(b.model(), x=x), outputs_of(graph, x=x))


@pytest.mark.parametrize("attributes", [{"alpha": 0.5, "beta": 2.0}, {"transB": 0, "alpha": 3.0}])
def test_gemm_becomes_canonical(attributes):
    b = Builder((6,))
    b.gemm(4, **attributes)
    graph, _ = clean(b.graph())
    assert not {"alpha", "beta"} & set(graph.nodes[0].attrs)
    x = uniform(3, 6)
    assert_same(outputs_of(b.model(), x=x), outputs_of(graph, x=x))


@pytest.mark.parametrize("shape", [(), (1,), (1, 4), (4,)])
def test_gemm_bias_of_any_shape_becomes_a_vector(shape):
    b = Builder((6,))
    b.op("Gemm", "x", b.normal(6, 4), b.normal(*shape))
    graph, _ = clean(b.graph())
    assert constant(graph.nodes[0].inputs[2]).shape == (4,)
    x = uniform(3, 6)
    assert_same(outputs_of(b.model(), x=x), outputs_of(graph, x=x))


def test_matmul_of_two_axes_becomes_gemm_and_of_three_does_not():
    flat, deep = Builder((6,)), Builder((5, 6))
    for b in (flat, deep):
        b.op("MatMul", "x", b.normal(6, 4))
    assert operators(clean(flat.graph())[0]) == ["Gemm"]
    assert operators(clean(deep.graph())[0]) == ["MatMul"]


def test_nodes_without_names_and_of_one_name_get_their_own():
    b = Builder((3,))
    b.relu()
    b.relu()
    b.nodes[0].name = b.nodes[1].name = ""
    graph, _ = clean(b.graph())
    assert len({node.name for node in graph.nodes} - {""}) == 2


def test_nan_weight_is_refused_by_name():
    b = Builder((3,))
    b.op("MatMul", "x", b.constant([[np.nan], [1.0], [2.0]]))
    with pytest.raises(ModelError, match=r"c0.*matmul0.*NaN"):
        clean(b.graph())


def test_weights_that_are_graph_inputs_become_constants():
    b = Builder((3,))
    b.gemm(4)
    model = b.model()
    for tensor in model.graph.initializer:
        model.graph.input.append(
            onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
        )
    graph, _ = clean(from_model(model))
    assert [t.name for t in graph.inputs] == ["x"]


def test_batch_of_one_becomes_symbolic():
    b = Builder((3, 4, 4), batch=1)
    b.conv(2)
    b.relu()
    b.op("Reshape", b.last, b.constant([1, 32], np.int64))
    b.gemm(5, inputs=32)
    graph, report = free_batch(clean(b.graph())[0])
    assert report.changed
    x = uniform(3, 3, 4, 4)
    together = outputs_of(graph, x=x)
    alone = [outputs_of(b.model(), x=x[i : i + 1]) for i in range(3)]
    name = graph.outputs[0].name
    assert_same({name: np.concatenate([one[name] for one in alone])}, together)


def test_batch_of_one_stays_where_the_graph_mixes_samples():
    b = Builder((4,), batch=1)
    b.op("ReduceMean", "x", axes=[0], keepdims=1)
    b.gemm(3)
    graph, report = free_batch(clean(b.graph())[0])
    assert not report.changed
    assert len(report.warnings) == 1
    assert graph.inputs[0].shape[0] == 1


def test_symbolic_batch_is_left_as_it_is():
    b = Builder((4,))
    b.gemm(3)
    graph = clean(b.graph())[0]
    assert free_batch(graph)[0] is graph


def test_model_of_a_graph_is_valid():
    b = Builder((3, 8, 8))
    b.conv(4)
    b.batchnorm()
    b.relu()
    b.head()
    graph, _ = clean(b.graph())
    onnx.checker.check_model(to_model(graph), full_check=True)
    assert numpy_helper.to_array(to_model(graph).graph.initializer[0]).dtype == np.float32
