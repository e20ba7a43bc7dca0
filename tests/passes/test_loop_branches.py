"""loop_branches: an If that values decide is the body of a Loop, and works on running means."""

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import pytest
from onnx import numpy_helper

from onnxsnn import Runner, convert, load_source
from onnxsnn.errors import UnsupportedError
from onnxsnn.graph import from_model, insert
from onnxsnn.passes.clean import clean
from onnxsnn.passes.loop_branches import loop_branches
from tests.models import assert_same, dataset, outputs_of, uniform


def branching(gives="Tanh(h)", kind="float[N,8]"):
    """What a layer gives decides between two outputs of it; an If stands in the one branch."""
    model = onnx.parser.parse_model(f"""
    <ir_version: 8, opset_import: ["": 17]>
    g (float[N,6] x) => (float[N,3] y)
    {{
        a = MatMul(x, w)
        h = Relu(a)
        most = ReduceMax<keepdims=0>(h)
        limit = Constant<value = float {{1.0}}>()
        c = Greater(most, limit)
        b = If (c) <
            then_branch = yes () => ({kind} s) {{ s = {gives} }},
            else_branch = no () => ({kind} m) {{
                d = Less(most, limit)
                m = If (d) <
                    then_branch = small () => ({kind} p) {{ p = {gives} }},
                    else_branch = same () => ({kind} q) {{ q = {gives} }}
                >
            }}
        >
        r = Relu(b)
        y = MatMul(r, v)
    }}""")
    random = np.random.default_rng(0)
    for name, shape in (("w", (6, 8)), ("v", (8, 3))):
        values = random.normal(0, 0.5, shape).astype(np.float32)
        model.graph.initializer.append(numpy_helper.from_array(values, name))
    return model


def test_values_are_preserved_in_both_branches():
    model = branching()
    graph, _ = clean(from_model(model))
    report = loop_branches(graph, sizes_known=False)
    assert report.actions["If put into a Loop"] == 1
    operators = [node.op for node in graph.nodes]
    assert "If" not in operators
    (loop,) = (node for node in graph.nodes if node.op == "Loop")
    assert {"h", "most", "c"} <= {tensor.name for tensor in loop.inputs}
    for scale in (0.1, 4.0):
        x = scale * uniform(5, 6)
        assert_same(outputs_of(model, x=x), outputs_of(graph, x=x))
    assert not loop_branches(graph, sizes_known=True).changed


def test_snn_takes_the_branch_of_its_estimates(tmp_path):
    path, x = tmp_path / "m.onnx", uniform(32, 6)
    onnx.save(branching(), path)
    source = load_source(path)
    snn = convert(source, dataset(x=x), timesteps=128).snn
    expected = outputs_of(source.model, x=x)["y"]
    errors = [
        np.linalg.norm(Runner(snn).run(x, t).outputs["y"] - expected) / np.linalg.norm(expected)
        for t in (8, 128)
    ]
    assert errors[1] < 0.05 < 2 * errors[0]


def test_what_sizes_may_decide_waits_for_data():
    model = branching()
    graph, _ = clean(from_model(model))
    (branch,) = (node for node in graph.nodes if node.op == "If")
    size, many = (gs.Variable(name, dtype) for name, dtype in (("n", np.int64), ("c2", np.bool_)))
    one = gs.Constant("one", np.array(1))
    insert(graph, "Size", [graph.inputs[0]], size)
    insert(graph, "Greater", [size, one], many)
    branch.inputs[0] = many
    assert not loop_branches(graph, sizes_known=False).changed
    assert loop_branches(graph, sizes_known=True).changed


def test_what_gives_no_tensor_is_refused(tmp_path):
    path = tmp_path / "m.onnx"
    model = branching("SequenceConstruct(h)", "seq(float[N,8])")
    del model.graph.node[-2:]
    model.graph.node.append(onnx.helper.make_node("SequenceAt", ["b", "place"], ["y"]))
    model.graph.initializer.append(numpy_helper.from_array(np.array(0), "place"))
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 8
    onnx.save(model, path)
    with pytest.raises(UnsupportedError, match=r"(If|Sequence)"):
        convert(path, dataset(x=uniform(8, 6)))
