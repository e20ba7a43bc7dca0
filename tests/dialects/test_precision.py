"""precision: models of other float types compute in float32, and keep their inputs' types."""

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxsnn import Runner, convert, load_source
from onnxsnn.analysis.convertibility import convertibility
from onnxsnn.dialects.parts import graphs_of
from onnxsnn.dialects.precision import other_precisions, to_single_precision
from tests.loops import recurrent
from tests.models import Builder, assert_same, dataset, outputs_of, uniform

KINDS = {"float16": TensorProto.FLOAT16, "float64": TensorProto.DOUBLE}


def model_of(kind, sizes=(6, 6)):
    """A small network whose weights, inputs and outputs are of another type, and its twin."""
    b = Builder((3, *sizes))
    b.conv(4)
    b.relu()
    b.head()
    single = b.model()
    other = onnx.ModelProto()
    other.CopyFrom(single)
    dtype = helper.tensor_dtype_to_np_dtype(KINDS[kind])
    for tensor in other.graph.initializer:
        values = numpy_helper.to_array(tensor).astype(dtype)
        tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    for value in [*other.graph.input, *other.graph.output]:
        value.type.tensor_type.elem_type = KINDS[kind]
    del other.graph.value_info[:]
    return other, single


@pytest.mark.parametrize("kind", KINDS)
def test_inputs_and_outputs_keep_their_types_and_the_rest_is_float32(kind):
    other, single = model_of(kind)
    assert other_precisions(other) == [kind]
    assert other_precisions(single) == []
    converted = to_single_precision(other)
    onnx.checker.check_model(converted, full_check=True)
    assert {tensor.data_type for tensor in converted.graph.initializer} == {TensorProto.FLOAT}
    x = uniform(2, 3, 6, 6)
    dtype = helper.tensor_dtype_to_np_dtype(KINDS[kind])
    runs = [ort.InferenceSession(m.SerializeToString()) for m in (converted, single)]
    (left,), (right,) = runs[0].run(None, {"x": x.astype(dtype)}), runs[1].run(None, {"x": x})
    assert left.dtype == dtype
    np.testing.assert_allclose(left, right, atol=5e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_conversion_says_so_and_the_snn_takes_the_source_s_types(kind, tmp_path):
    other, single = model_of(kind)
    onnx.save(other, tmp_path / "m.onnx")
    dtype = helper.tensor_dtype_to_np_dtype(KINDS[kind])
    x = uniform(8, 3, 6, 6)
    conversion = convert(load_source(tmp_path / "m.onnx"), dataset(x=x.astype(dtype)), timesteps=64)
    assert any(kind in warning for warning in conversion.warnings)
    (values,) = Runner(conversion.snn).run(x.astype(dtype)).outputs.values()
    assert values.dtype == dtype
    (expected,) = ort.InferenceSession(single.SerializeToString()).run(None, {"x": x})
    assert np.linalg.norm(values - expected) < 0.1 * np.linalg.norm(expected)


def test_inspection_needs_no_size_that_only_data_have(tmp_path):
    other, _ = model_of("float16", ("height", "width"))
    onnx.save(other, tmp_path / "m.onnx")
    assert convertibility(tmp_path / "m.onnx").convertible
    x = uniform(8, 3, 6, 6).astype(np.float16)
    assert convert(tmp_path / "m.onnx", dataset(x=x), timesteps=4).snn.layers


def test_what_float32_cannot_hold_becomes_its_greatest_value():
    b = Builder((3,))
    mask = numpy_helper.from_array(np.array(np.finfo(np.float64).min), "mask")
    b.op("Add", "x", "mask")
    b.constants.append(numpy_helper.from_array(np.zeros(1, np.float32), "mask"))
    model = b.model()
    model.graph.initializer[0].CopyFrom(mask)
    (tensor,) = to_single_precision(model).graph.initializer
    assert numpy_helper.to_array(tensor) == np.finfo(np.float32).min


def test_casts_and_constants_inside_follow():
    b = Builder((3,))
    b.op("Cast", "x", to=TensorProto.DOUBLE)
    value = numpy_helper.from_array(np.array([2.0]), "two")
    b.nodes.append(helper.make_node("Constant", [], ["two"], "two", value=value))
    b.op("Mul", "t0", "two")
    b.op("Cast", b.last, to=TensorProto.FLOAT)
    single = to_single_precision(b.model())
    session = ort.InferenceSession(single.SerializeToString())
    np.testing.assert_allclose(session.run(None, {"x": np.ones((1, 3), np.float32)})[0], 2.0)
    kinds = {a.i for node in single.graph.node for a in node.attribute if a.name == "to"}
    assert kinds == {TensorProto.FLOAT}


def test_bfloat16_becomes_float32_at_inputs_and_outputs_too(tmp_path):
    other, _ = model_of("float16")
    for tensor in other.graph.initializer:
        values = numpy_helper.to_array(tensor).astype(np.float32)
        bits = (values.view(np.uint32) >> 16).astype(np.uint16)
        tensor.CopyFrom(
            helper.make_tensor(
                tensor.name, TensorProto.BFLOAT16, values.shape, bits.tobytes(), raw=True
            )
        )
    for value in [*other.graph.input, *other.graph.output]:
        value.type.tensor_type.elem_type = TensorProto.BFLOAT16
    onnx.save(other, tmp_path / "m.onnx")
    source = load_source(tmp_path / "m.onnx")
    assert source.precisions == ["bfloat16"]
    assert source.inputs[0].dtype == np.float32
    conversion = convert(source, dataset(x=uniform(8, 3, 6, 6)), timesteps=8)
    assert any("bfloat16" in warning for warning in conversion.warnings)
    (values,) = Runner(conversion.snn).run(uniform(2, 3, 6, 6)).outputs.values()
    assert values.dtype == np.float32


def test_bodies_compute_in_float32_too():
    b = recurrent("Nested")
    model = b.model()
    before = outputs_of(model, x=uniform(3, 6, 8))
    double = onnx.ModelProto.FromString(model.SerializeToString())
    for graph in graphs_of(double.graph):
        for tensor in graph.initializer:
            if tensor.data_type == TensorProto.FLOAT:
                values = numpy_helper.to_array(tensor).astype(np.float64)
                tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
        for value in [*graph.input, *graph.output, *graph.value_info]:
            if value.type.tensor_type.elem_type == TensorProto.FLOAT:
                value.type.tensor_type.elem_type = TensorProto.DOUBLE
    single = to_single_precision(double)
    onnx.checker.check_model(single, full_check=True)
    after = outputs_of(single, x=uniform(3, 6, 8).astype(np.float64))
    assert_same(before, after)


def test_an_output_that_is_an_input_stays_it():
    other, _ = model_of("float16")
    other.graph.output.append(other.graph.input[0])
    x = uniform(2, 3, 6, 6).astype(np.float16)
    np.testing.assert_array_equal(outputs_of(to_single_precision(other), x=x)["x"], x)
