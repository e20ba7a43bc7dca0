"""qonnx: Brevitas's quantizers give what their definition says, in ONNX's own operators."""

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from onnxsnn import Runner, convert, load_source
from onnxsnn.dialects.qonnx import without_qonnx
from onnxsnn.errors import ModelError
from onnxsnn.session import Session
from tests.models import uniform

DOMAIN = "qonnx.custom_op.general"
ROUND = {"ROUND": np.round, "FLOOR": np.floor, "CEIL": np.ceil}


def model_of(nodes, constants, shape, opset=17):
    """x [N, *shape] through nodes, of which the last gives y."""
    held = [numpy_helper.from_array(np.asarray(v, np.float32), n) for n, v in constants.items()]
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", *shape])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None] * (1 + len(shape)))],
        held,
    )
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid(DOMAIN, 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def quant(source, output, operator="Quant", **attrs):
    inputs = [source, "scale"] + ["zero", "bits"] * (operator != "BipolarQuant")
    return helper.make_node(operator, inputs, [output], f"quant_{output}", domain=DOMAIN, **attrs)


def outputs(model, x):
    return Session(without_qonnx(model)).run({"x": x})["y"]


def whole_numbers(x, scale, zero, bits, signed, narrow, mode):
    """What the definition of IntQuant says."""
    least = -(2 ** (bits - 1)) + narrow if signed else 0
    most = 2 ** (bits - 1) - 1 if signed else 2**bits - 1 - narrow
    return (ROUND[mode](np.clip(x / scale + zero, least, most)) - zero) * scale


@settings(deadline=None, max_examples=60)
@given(
    bits=st.integers(2, 8),
    signed=st.booleans(),
    narrow=st.booleans(),
    mode=st.sampled_from(list(ROUND)),
    zero=st.sampled_from([0, 1]),
    channels=st.booleans(),
    operator=st.sampled_from(["Quant", "IntQuant"]),
    seed=st.integers(0, 99),
)
def test_values_and_weights_are_the_whole_numbers_of_the_definition(
    bits, signed, narrow, mode, zero, channels, operator, seed
):
    random = np.random.default_rng(seed)
    scale = random.uniform(0.05, 0.5, (1, 3, 1) if channels else ()).astype(np.float32)
    x = random.normal(0, 2 ** (bits - 2) * 0.3, (4, 3, 5)).astype(np.float32)
    attrs = {"signed": int(signed), "narrow": int(narrow), "rounding_mode": mode}
    held = {"scale": scale, "zero": zero, "bits": bits, "w": x}
    nodes = [
        quant("x", "value", operator, **attrs),
        quant("w", "weight", operator, **attrs),
        helper.make_node("Concat", ["value", "weight"], ["y"], axis=0),
    ]
    expected = whole_numbers(x, scale, zero, bits, signed, narrow, mode)
    values, weights = np.split(outputs(model_of(nodes, held, (3, 5)), x), 2)
    np.testing.assert_allclose(weights, expected, rtol=1e-5, atol=1e-6)
    wrong = np.abs(values - expected) > 1e-4  # a value half-way between falls either way
    assert np.all(np.abs(values - expected)[wrong] < 1.001 * scale.max())
    assert wrong.mean() < 0.05


@pytest.mark.parametrize("opset", [9, 11])
@pytest.mark.parametrize("operator", ["Quant", "BipolarQuant"])
def test_old_opsets_which_have_not_what_stands_for_it(opset, operator):
    constants = {"scale": [0.25], "zero": 0, "bits": 4}
    x = uniform(9, 6)
    old, new = (
        outputs(model_of([quant("x", "y", operator)], constants, [6], version), x)
        for version in (opset, 17)
    )
    np.testing.assert_array_equal(old, new)


def test_two_values_are_the_scale_and_its_negative():
    x = np.array([[-2.0, -0.1, 0.0, 0.3]], np.float32)
    nodes = [
        quant("x", "value", "BipolarQuant"),
        quant("w", "weight", "BipolarQuant"),
        helper.make_node("Concat", ["value", "weight"], ["y"], axis=0),
    ]
    found = outputs(model_of(nodes, {"scale": 0.5, "w": x}, (4,)), x)
    np.testing.assert_array_equal(found, [[-0.5, -0.5, 0.5, 0.5]] * 2)


@pytest.mark.parametrize(("signed", "least"), [(0, 0.0), (1, -3.0)])
def test_many_bits_round_nothing(signed, least):
    x = np.array([[-3.0, 0.123456, 2.5]], np.float32)
    held = {"scale": 2**-12, "zero": 0, "bits": 16}
    found = outputs(model_of([quant("x", "y", signed=signed)], held, (3,)), x)
    np.testing.assert_array_equal(found, np.maximum(x, least))


@pytest.mark.parametrize(
    ("node", "problem"),
    [
        (quant("x", "y", "FloatQuant"), "FloatQuant, of QONNX.*not known; export.* QCDQ"),
        (quant("x", "y", rounding_mode="UP"), "rounds by UP"),
        (quant("x", "y", "Trunc"), "Trunc"),
    ],
)
def test_what_is_not_known_is_refused(tmp_path, node, problem):
    model = model_of([node], {"scale": 1, "zero": 0, "bits": 4}, (3,))
    onnx.save(model, tmp_path / "m.onnx")
    with pytest.raises(ModelError, match=rf"m\.onnx: node 'quant_y' .*{problem}"):
        load_source(tmp_path / "m.onnx")


def test_a_scale_that_is_computed_is_refused():
    node = helper.make_node("Quant", ["x", "x", "zero", "bits"], ["y"], "q", domain=DOMAIN)
    with pytest.raises(ModelError, match="input 1 is no constant; run qonnx-cleanup"):
        without_qonnx(model_of([node], {"zero": 0, "bits": 4}, (3,)))


def test_scales_along_two_axes_are_refused():
    held = {"scale": np.ones((1, 3, 5)), "zero": 0, "bits": 4}
    with pytest.raises(ModelError, match="scales along several axes"):
        without_qonnx(model_of([quant("x", "y")], held, (3, 5)))


def test_a_network_of_4_bits_converts_with_the_thresholds_of_its_training(tmp_path):
    random = np.random.default_rng(0)
    held = {
        "scale": 0.2, "zero": 0, "bits": 4,
        "a": random.normal(0, 0.4, (8, 20)), "b": random.normal(0, 0.4, (20, 4)),
    }  # fmt: skip
    nodes = [
        quant("a", "first"),
        helper.make_node("MatMul", ["x", "first"], ["current"]),
        helper.make_node("Relu", ["current"], ["rectified"]),
        quant("rectified", "rounded", signed=0),
        quant("b", "second"),
        helper.make_node("MatMul", ["rounded", "second"], ["y"]),
    ]
    onnx.save(model_of(nodes, held, (8,)), tmp_path / "m.onnx")
    source, x = load_source(tmp_path / "m.onnx"), uniform(32, 8)
    conversion = convert(source, threshold="trained", timesteps=15)
    snn, (layer,) = conversion.snn, conversion.snn.layers
    assert source.levels == 15
    assert not any("rounds values" in warning for warning in conversion.warnings)
    assert layer.threshold == pytest.approx(15 * 0.2)
    expected = Session(source.model).run({"x": x})["y"]
    error = Runner(snn).run(x).outputs["y"] - expected
    assert np.linalg.norm(error) < 0.02 * np.linalg.norm(expected)


@pytest.mark.parametrize(("bits", "warned"), [(2, True), (4, True), (8, False)])
def test_levels_that_are_not_kept_are_said(tmp_path, bits, warned):
    held = {"scale": 0.2, "zero": 0, "bits": bits, "a": uniform(8, 20), "b": uniform(20, 4)}
    nodes = [
        helper.make_node("MatMul", ["x", "a"], ["current"]),
        quant("current", "rounded", signed=0),
        helper.make_node("MatMul", ["rounded", "b"], ["y"]),
    ]
    onnx.save(model_of(nodes, held, (8,)), tmp_path / "m.onnx")
    for chosen in ({}, {"threshold": "trained"}):
        warnings = convert(tmp_path / "m.onnx", timesteps=8, **chosen).warnings
        assert any(f"--timesteps {2**bits - 1} keeps" in w for w in warnings) == warned
