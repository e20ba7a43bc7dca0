"""fix_inputs: settings become constants, and what is computed stays."""

import numpy as np
import onnx
import pytest
from onnx.reference import ReferenceEvaluator

from onnxsnn import Runner, convert, load_source
from onnxsnn.errors import UsageError
from onnxsnn.files import write_model
from onnxsnn.fixed_inputs import fix_inputs
from onnxsnn.session import Session
from tests.models import assert_same, dataset, uniform


def recurrent():
    """A layer of recurrent units, whose first state is an input, and a gain in whole steps."""
    random = np.random.default_rng(0)
    model = onnx.parser.parse_model("""
    <ir_version: 8, opset_import: ["": 17]>
    g (float[N,4,6] x, float[1,N,8] state, int64 steps) => (float[N,5] y)
    {
        t = Transpose<perm=[1,0,2]>(x)
        all, last = RNN<hidden_size=8>(t, w, r, , , state)
        axes = Constant<value = int64[1] {0}>()
        h = Squeeze(last, axes)
        gain = Cast<to=1>(steps)
        g = Mul(h, gain)
        a = MatMul(g, u)
        b = Relu(a)
        y = MatMul(b, v)
    }""")
    for name, shape in (("w", (1, 8, 6)), ("r", (1, 8, 8)), ("u", (8, 16)), ("v", (16, 5))):
        values = random.normal(0, 0.5, shape).astype(np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(values, name))
    return model


def test_what_is_computed_stays(tmp_path):
    model, x = recurrent(), uniform(5, 4, 6)
    write_model(fix_inputs(model, {"state": 0.5, "steps": 2}), tmp_path / "m.onnx")
    source = load_source(tmp_path / "m.onnx")
    assert [(spec.name, spec.shape) for spec in source.inputs] == [("x", (1, 4, 6))]
    feeds = {"x": x[:1], "state": np.full((1, 1, 8), 0.5, np.float32), "steps": np.array(2)}
    expected = ReferenceEvaluator(model).run(["y"], feeds)
    assert_same({"y": expected[0]}, Session(source.model).run({"x": x[:1]}), 1e-5)


def test_a_network_with_a_first_state_converts(tmp_path):
    write_model(fix_inputs(recurrent(), {"state": 0, "steps": 1}), tmp_path / "m.onnx")
    source, x = load_source(tmp_path / "m.onnx"), uniform(64, 4, 6)
    expected = Session(source.model).run({"x": x})["y"]
    found = Runner(convert(source, dataset(x=x), timesteps=64).snn).run(x, 64).outputs["y"]
    assert np.linalg.norm(found - expected) < 0.05 * np.linalg.norm(expected)


def test_an_array_is_a_constant_of_the_type_that_the_input_has(tmp_path):
    model, x = recurrent(), uniform(5, 4, 6)
    state = np.linspace(-1, 1, 8).reshape(1, 1, 8)
    fixed = fix_inputs(model, {"state": state, "steps": np.array(2.0)})
    write_model(fixed, tmp_path / "m.onnx")
    source = load_source(tmp_path / "m.onnx")
    assert [(spec.name, spec.shape) for spec in source.inputs] == [("x", (1, 4, 6))]
    feeds = {"x": x[:1], "state": state.astype(np.float32), "steps": np.array(2)}
    expected = ReferenceEvaluator(model).run(["y"], feeds)
    assert_same({"y": expected[0]}, Session(source.model).run({"x": x[:1]}), 1e-5)


def test_an_open_size_that_an_array_has_is_none_of_the_samples():
    """A mean per channel, whose number the model leaves open."""
    model = onnx.parser.parse_model("""
    <ir_version: 8, opset_import: ["": 17]>
    g (float[N,4] x, float[C] mean) => (float[N,4] y) { h = Sub(x, mean) y = Relu(h) }""")
    x, mean = uniform(5, 4), np.arange(4, dtype=np.float32)
    fixed = fix_inputs(model, {"mean": mean})
    assert [axis.dim_param for axis in fixed.graph.input[0].type.tensor_type.shape.dim] == ["N", ""]
    assert_same({"y": np.maximum(x - mean, 0)}, Session(fixed).run({"x": x}), 0)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"state": np.zeros((1, 8))}, r"takes an array of shape \[1, \?, 8\], and one of \[1, 8\]"),
        ({"state": np.zeros((2, 1, 8))}, r"shape \[1, \?, 8\], and one of \[2, 1, 8\] came"),
        ({"state": np.full((1, 1, 8), 1e300)}, "'state' is of float32, which cannot hold all"),
        ({"state": np.full((1, 1, 8), np.nan, np.float32)}, "'state' is of float32, which cannot"),
        (
            {"state": np.full((1, 1, 8), "a")},
            "cannot hold all values of the array, which is of <U1",
        ),
        ({"steps": np.array(0.5)}, "'steps' is of int64, which cannot hold all .* of float64"),
        ({"steps": np.array(2**63, np.uint64)}, "'steps' is of int64, which cannot hold all"),
    ],
)
def test_arrays_that_do_not_fit_are_said(values, message):
    with pytest.raises(UsageError, match=message):
        fix_inputs(recurrent(), values)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"rate": 1.0}, "no input 'rate'; there are x, state, steps"),
        ({"steps": 0.5}, "'steps' is of int64, which cannot hold 0.5"),
        ({"steps": float("nan")}, "'steps' is of int64, which cannot hold nan"),
        ({"steps": 2**63}, f"'steps' is of int64, which cannot hold {2**63}"),
        ({"steps": float(2**63)}, "'steps' is of int64, which cannot hold 9.2"),
        ({"state": float("nan")}, "'state' is of float32, which cannot hold nan"),
        ({"state": float("-inf")}, "'state' is of float32, which cannot hold -inf"),
        ({"state": 1e300}, r"'state' is of float32, which cannot hold 1e\+300"),
        ({"state": 10**400}, "'state' is of float32, which cannot hold 1000"),
        ({"x": 0.0, "state": 0.0, "steps": 1.0}, "no input is left"),
    ],
)
def test_what_makes_no_sense_is_said(values, message):
    with pytest.raises(UsageError, match=message):
        fix_inputs(recurrent(), values)


def test_text_is_no_number():
    model = onnx.parser.parse_model("""
    <ir_version: 8, opset_import: ["": 17]>
    g (float[N,4] x, string word) => (float[N,4] y) { y = Relu(x) }""")
    with pytest.raises(UsageError, match="'word' is of object, which cannot hold 1"):
        fix_inputs(model, {"word": 1})


def test_large_whole_numbers_are_kept_exactly():
    (steps,) = (
        t
        for t in fix_inputs(recurrent(), {"steps": 2**53 + 1}).graph.initializer
        if t.name == "steps"
    )
    assert onnx.numpy_helper.to_array(steps) == 2**53 + 1


@pytest.mark.parametrize(("number", "factor"), [(1, 2), (0, 3)])
def test_branches_that_settings_decide_are_taken(number, factor):
    """Of outputs that are the same, ONNX Runtime loses one where it takes them itself."""
    model = onnx.parser.parse_model("""
    <ir_version: 8, opset_import: ["": 17]>
    g (float[N,4] x, bool twice) => (float[N,4] y)
    <float[4] two = {2,2,2,2}, float[4] three = {3,3,3,3}>
    {
        h = Relu(x)
        a, b = If (twice) <
            then_branch = t () => (float[N,4] p, float[N,4] p) { p = Mul(h, two) },
            else_branch = f () => (float[N,4] q, float[N,4] q) { q = Mul(h, three) }
        >
        s = Add(a, b)
        y = Relu(s)
    }""")
    x = uniform(5, 4)
    fixed = fix_inputs(model, {"twice": number})
    assert_same({"y": 2 * factor * np.maximum(x, 0)}, Session(fixed).run({"x": x}), 1e-5)
