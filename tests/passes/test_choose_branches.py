"""choose_branches: what sizes decide is decided, what values or the number of samples do is not."""

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from onnxsnn import Runner, convert, load_source
from onnxsnn.analysis.layers import analyse
from onnxsnn.errors import UnsupportedError
from onnxsnn.graph import from_model
from onnxsnn.passes.choose_branches import choose_branches
from onnxsnn.passes.clean import clean
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
    random = np.random.default_rng(0)
    for name, shape in (("w", (6, 8)), ("v", (8, 3))):
        values = random.normal(0, 0.5, shape).astype(np.float32)
        model.graph.initializer.append(numpy_helper.from_array(values, name))
    return model


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


@pytest.mark.parametrize("condition", [BY_VALUES, BY_SAMPLES])
def test_what_else_decides_is_left_alone_and_refused(tmp_path, condition):
    model, x = branching(condition), uniform(8, 1, 6)
    graph, _ = clean(from_model(model))
    assert not choose_branches(graph, dataset(x=x)).changed
    onnx.save(model, tmp_path / "m.onnx")
    with pytest.raises(UnsupportedError, match=r"\(If\).*give data"):
        convert(tmp_path / "m.onnx", dataset(x=x))


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
    expected = outputs_of(source.model, x=x)["y"]
    found = Runner(conversion.snn).run(x, 64).outputs["y"]
    assert np.linalg.norm(found - expected) < 0.05 * np.linalg.norm(expected)
    assert len(analyse(conversion.snn, dataset(x=x), source).layers) == 2


def test_a_fixed_number_of_samples_may_decide():
    model, x = branching(BY_SAMPLES, batch="1"), uniform(1, 1, 6)
    graph, _ = clean(from_model(model))
    choose_branches(graph, dataset(x=x))
    graph, _ = clean(graph)
    assert "If" not in [node.op for node in graph.nodes]
    assert_same(outputs_of(model, x=x), outputs_of(graph, x=x))
