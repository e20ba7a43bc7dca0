"""choose_branches: what sizes decide is decided, what values or the number of samples do is not."""

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from onnxsnn import Runner, convert, load_source
from onnxsnn.analysis.layers import analyse
from onnxsnn.graph import from_model
from onnxsnn.passes.choose_branches import choose_branches
from onnxsnn.passes.clean import clean
from onnxsnn.session import SampleSession
from tests.models import assert_same, dataset, outputs_of, uniform

SIZE = "shape = Shape(h)  one = Constant<value = int64[1] {1}>()  size = Gather<axis=0>(shape, one)"


def branching(condition, *, inner="Squeeze(h, one)", batch="N"):
    """A layer, [N, 1, 8] or [N, L, 8], whose axis goes, or is averaged away, and a layer."""
    model = onnx.parser.parse_model(f"""
    <ir_version: 8, opset_import: ["": 17]>
    g (float[{batch},L,6] x) => (float[{batch},3] y)
    {{
        a = MatMul(x, w)
        h = Relu(a)
        {SIZE}
        {condition}
        b = If (c) <
            then_branch = yes () => (float[{batch},8] s) {{ s = {inner} }},
            else_branch = no () => (float[{batch},8] m) {{ m = ReduceMean<axes=[1],keepdims=0>(h) }}
        >
        r = Relu(b)
        y = MatMul(r, v)
    }}""")
    add_weights(model)
    return model


def add_weights(model):
    random = np.random.default_rng(0)
    for name, shape in (("w", (6, 8)), ("v", (8, 3))):
        values = random.normal(0, 0.5, shape).astype(np.float32)
        model.graph.initializer.append(numpy_helper.from_array(values, name))


BY_SIZE = "c = Equal(size, one)"
BY_VALUES = "t = ReduceMax<keepdims=0>(x)  z = Constant<value = float {2.0}>()  c = Greater(t, z)"
BY_SAMPLES = (
    "nought = Constant<value = int64[1] {0}>()  n = Gather<axis=0>(shape, nought)  "
    "c = Equal(n, one)"
)


@pytest.mark.parametrize(("length", "operator"), [(1, "Squeeze"), (4, "ReduceMean")])
def test_sizes_choose_a_branch_and_values_stay(length, operator):
    model, x = branching(BY_SIZE), uniform(5, length, 6)
    graph, _ = clean(from_model(model))
    report = choose_branches(graph, dataset(x=x))
    assert report.actions["branches chosen by the sizes of the data"] == len(report.warnings) == 1
    graph, _ = clean(graph)
    operators = [node.op for node in graph.nodes]
    assert operator in operators
    assert "If" not in operators
    assert_same(outputs_of(model, x=x), outputs_of(graph, x=x))
    assert not choose_branches(graph, dataset(x=x)).changed


BY_WHAT_IS_FOUND = (
    "t = Constant<value = float {0.9}>()  found = Greater(x, t)  places = NonZero(found)  "
    "many = Shape(places)  size2 = Gather<axis=0>(many, one)  "
    "nought = Constant<value = int64[1] {0}>()  c = Equal(size2, nought)"
)


@pytest.mark.parametrize("condition", [BY_VALUES, BY_SAMPLES, BY_WHAT_IS_FOUND])
def test_what_else_decides_is_left_alone(condition):
    model, x = branching(condition, inner=MOST), uniform(8, 4, 6)
    graph, _ = clean(from_model(model))
    assert not choose_branches(graph, dataset(x=x)).changed


MOST = "ReduceMax<axes=[1],keepdims=0>(h)"


@pytest.mark.parametrize("length", [1, 4])
def test_the_branch_of_several_samples_is_taken_where_one_has_the_same_numbers(length):
    model, x = branching(BY_SAMPLES), uniform(5, length, 6)
    graph, _ = clean(from_model(model))
    report = choose_branches(graph, dataset(x=x))
    assert report.actions["branches chosen for several samples"] == 1
    assert not report.warnings
    graph, _ = clean(graph)
    assert "If" not in [node.op for node in graph.nodes]
    assert_same(outputs_of(model, x=x), outputs_of(graph, x=x))
    if length == 1:  # of other lengths, the model does not take one sample
        assert_same(outputs_of(model, x=x[:1]), outputs_of(graph, x=x[:1]))


def test_an_axis_that_one_sample_loses_is_kept(tmp_path):
    """`x.squeeze(0)` of torch, which leaves one sample without an axis."""
    model = onnx.parser.parse_model(f"""
    <ir_version: 8, opset_import: ["": 17]>
    g (float[N,6] x) => (float[3] y)
    {{
        a = MatMul(x, w)
        h = Relu(a)
        {SIZE.replace("{1}", "{0}").replace("one", "nought")}
        one = Constant<value = int64[1] {{1}}>()
        c = Equal(size, one)
        b = If (c) <
            then_branch = yes () => (float[8] s) {{ s = Squeeze(h, nought) }},
            else_branch = no () => (float[N,8] m) {{ m = Identity(h) }}
        >
        y = MatMul(b, v)
    }}""")
    add_weights(model)
    path, x = tmp_path / "m.onnx", uniform(33, 6)
    onnx.save(model, path)
    conversion, ann = convert(path, dataset(x=x), timesteps=64), SampleSession(model)
    for part in (x, x[:1]):
        expected = ann.run({"x": part})["y"]
        found = Runner(conversion.snn).run(part, 64).outputs["y"]
        assert found.shape == expected.shape == (len(part), 3)
        assert np.linalg.norm(found - expected) < 0.05 * np.linalg.norm(expected)


def test_a_branch_may_hold_the_next(tmp_path):
    inner = """If (c) <
        then_branch = again () => (float[N,8] q) { q = Squeeze(h, one) },
        else_branch = never () => (float[N,8] p) { p = ReduceMax<axes=[1],keepdims=0>(h) }
    >"""
    path, x = tmp_path / "m.onnx", uniform(64, 1, 6)
    onnx.save(branching(BY_SIZE, inner=inner), path)
    source = load_source(path)
    conversion = convert(source, dataset(x=x), timesteps=64)
    assert any("(If) depends on the sizes" in warning for warning in conversion.warnings)
    assert not {"If", "Loop"} & {node.op_type for node in conversion.snn.model.graph.node}
    expected = outputs_of(source.model, x=x)["y"]
    found = Runner(conversion.snn).run(x, 64).outputs["y"]
    assert np.linalg.norm(found - expected) < 0.05 * np.linalg.norm(expected)
    assert len(analyse(conversion.snn, dataset(x=x), source).layers) == 1


def test_a_fixed_number_of_samples_may_decide():
    model, x = branching(BY_SAMPLES, batch="1"), uniform(1, 1, 6)
    graph, _ = clean(from_model(model))
    choose_branches(graph, dataset(x=x))
    graph, _ = clean(graph)
    assert "If" not in [node.op for node in graph.nodes]
    assert_same(outputs_of(model, x=x), outputs_of(graph, x=x))
