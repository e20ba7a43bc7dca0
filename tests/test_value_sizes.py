"""What is of a size that the values decide: found, given, and left out of every comparison."""

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from onnxsnn import Runner, convert, evaluate, load_source
from onnxsnn.analysis.comparison import Way, compare
from onnxsnn.analysis.layers import analyse
from onnxsnn.errors import DataError, UnsupportedError
from onnxsnn.graph import from_model
from onnxsnn.runtime.dataset import run_dataset
from onnxsnn.runtime.early_exit import calibrate_margin, run_early
from onnxsnn.value_sizes import sized_by_values
from tests.models import Builder, dataset, outputs_of, uniform
from tests.networks import detector

X = uniform(24, 3, 8, 8)
T = 16


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """A detector's source, its SNN, and its names."""
    d = detector()
    path = d.builder.save(
        tmp_path_factory.mktemp("boxes") / "m.onnx", d.selected, d.boxes, d.picked
    )
    source = load_source(path)
    return source, convert(source, dataset(x=X), timesteps=T).snn, d


def test_it_is_what_is_behind_operators_that_find_values(found):
    source, snn, d = found
    graph = source.graph()
    graph.toposort()
    varying = sized_by_values(graph)
    assert {d.selected, d.picked} <= varying
    assert d.boxes not in varying
    assert snn.outputs == [d.selected, d.boxes, d.picked]
    assert snn.comparable_outputs == [d.boxes]


def test_what_is_found_in_the_input_is_the_same_in_every_step():
    b = Builder((8,))
    b.op("NonZero")
    b.op("Cast", to=1)
    b.relu()
    graph = b.graph()
    assert not sized_by_values(graph)


def test_snn_gives_them_and_comparisons_leave_them_out(found):
    source, snn, d = found
    result = Runner(snn).run(X)
    assert result.outputs[d.picked].shape == (len(result.outputs[d.selected]), 4)
    evaluation = evaluate(snn, dataset(x=X), ann=source)
    assert [w for w in evaluation.warnings if d.selected in w or d.picked in w]
    expected = outputs_of(source.model, x=X)[d.boxes]
    error = np.linalg.norm(result.outputs[d.boxes] - expected) / np.linalg.norm(expected)
    assert evaluation.rows[-1].error == pytest.approx(error, rel=1e-4)
    assert evaluation.rows[-1].agreement is None
    assert len(analyse(snn, dataset(x=X), source).layers) == 1
    ways = [Way("fit"), Way("percentile")]
    rows = compare(source, dataset(x=X), dataset(x=X), ways, [T]).rows
    assert all(row.error < 0.5 for found in rows.values() for row in found)


def test_early_exit_waits_for_the_others(found):
    _, snn, d = found
    runner = Runner(snn)
    early = run_early(runner, X, calibrate_margin(runner, dataset(x=X)))
    assert list(early.outputs) == [d.boxes]
    assert early.timesteps.max() <= T


def test_outputs_of_every_step_are_refused_where_their_sizes_differ(found):
    _, snn, d = found
    with pytest.raises(DataError, match=f"output {d.selected!r} holds.*--every-step"):
        run_dataset(Runner(snn, rates=True), dataset(x=X), every_step=True)


@pytest.mark.parametrize("options", [{"correct": True}, {"threshold": "ril"}, {"integer": True}])
def test_every_way_of_converting_leaves_them_out(tmp_path, options):
    d = detector()
    path = d.builder.save(tmp_path / "m.onnx", d.boxes, d.picked)
    snn = convert(path, dataset(x=X), timesteps=4, **options).snn
    assert snn.comparable_outputs == [d.boxes]
    assert len(Runner(snn).run(X).outputs[d.picked])


def test_where_nothing_else_is_given_there_is_nothing_to_compare(tmp_path):
    d = detector()
    path = d.builder.save(tmp_path / "m.onnx", d.picked)
    conversion = convert(path, dataset(x=X), timesteps=4, integer=True)
    assert conversion.snn.metadata["integer"]["error"] is None
    with pytest.raises(DataError, match=f"{d.picked}.*none can be compared"):
        evaluate(conversion.snn, dataset(x=X), ann=load_source(path))
    with pytest.raises(DataError, match="none can be compared"):
        convert(path, dataset(x=X), threshold="ril")


def test_neurons_behind_it_are_refused(tmp_path):
    d = detector()
    d.builder.op("ReduceMax", axes=[0], keepdims=1)
    d.builder.gemm(6)
    d.builder.relu()
    d.builder.gemm(2)
    with pytest.raises(UnsupportedError, match=r"cannot spike.*NonMaxSuppression.*in each step"):
        convert(d.builder.save(tmp_path / "m.onnx"), dataset(x=X))


@pytest.mark.parametrize(
    ("going", "varies"),
    [("Less(m, limit)", True), ("Less(i, turns)", False), ("Less(turn, limit)", False)],
)
def test_a_loop_that_values_end_gives_as_many_as_it_makes(going, varies):
    model = onnx.parser.parse_model(f"""
    <ir_version: 8, opset_import: ["": 17]>
    g (float[N,8] x) => (float[N,8] last, float[K,N,8] every)
    {{
        a = MatMul(x, w)
        h = Relu(a)
        many = Constant<value = int64 {{20}}>()
        turns = Constant<value = int64 {{3}}>()
        true = Constant<value = bool {{1}}>()
        limit = Constant<value = float {{2.0}}>()
        last, every = Loop (many, true, h) <body = one_more
            (int64 i, bool go, float[N,8] s) => (bool on, float[N,8] next, float[N,8] made)
            {{
                next = Add(s, s)
                m = ReduceMax<keepdims=0>(next)
                turn = Cast<to = 1>(i)
                on = {going}
                made = Identity(next)
            }}>
    }}""")
    model.graph.initializer.append(numpy_helper.from_array(np.eye(8, dtype=np.float32), "w"))
    graph = from_model(model)
    graph.toposort()
    assert sized_by_values(graph) == ({"every"} if varies else set())


def test_whole_numbers_may_find_another_number_than_real_ones(tmp_path):
    d = detector()
    b, levels = d.builder, (d.builder.constant(0.5), d.builder.constant(0, np.int8))
    at = next(at for at, node in enumerate(b.nodes) if node.op_type == "Sigmoid")
    sigmoid, behind = b.nodes[at], b.nodes[at:]
    whole = b.op("QuantizeLinear", sigmoid.input[0], *levels)
    sigmoid.input[0] = b.op("DequantizeLinear", whole, *levels)
    b.nodes[at:] = [*b.nodes[-2:], *behind]
    source = load_source(b.save(tmp_path / "m.onnx", d.boxes, d.selected))
    real = outputs_of(source.graph(), x=X[:1])[d.selected]
    assert len(real) != len(outputs_of(source.model, x=X[:1])[d.selected])
    warnings = convert(source, dataset(x=X), timesteps=T).warnings
    assert not any("differ from those of the file" in warning for warning in warnings)
