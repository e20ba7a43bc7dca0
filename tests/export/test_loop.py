"""The loop graph: all timesteps in one standard ONNX model, equal to the Runner's."""

import json

import numpy as np
import onnx
import pytest

from onnxsnn import Runner, SpikingModel, convert, inspect, load_source
from onnxsnn.demo import demo_data, demo_source
from onnxsnn.errors import ModelError
from onnxsnn.export import export_loop, loop_model
from onnxsnn.session import make_session
from tests.export.forms import assert_equal, looped
from tests.export.javascript import LOOP, PACKAGES, run_script
from tests.models import Builder, dataset, uniform
from tests.networks import (
    IntegerBuilder,
    eighths,
    residual_network,
)


def test_nothing_stands_for_the_timesteps_that_the_thresholds_are_for(snn):
    x = uniform(2, 3, 8, 8)
    for unset in (0, -1):
        assert_equal(looped(snn, x, unset), Runner(snn).run(x, 6).outputs, 1e-5)


def test_inputs_and_outputs_are_the_source_model_s_and_the_timesteps(snn):
    graph = loop_model(snn).graph
    step = snn.model.graph
    assert [tensor.name for tensor in graph.input] == ["x", "timesteps"]
    assert not {t.name for t in graph.input} & {t.name for t in graph.initializer}
    assert graph.input[0] == step.input[0]
    assert list(graph.output) == list(step.output[:1])


def test_static_layer_is_computed_once_and_weights_are_stored_once(snn):
    model = loop_model(snn)
    (loop,) = (node for node in model.graph.node if node.op_type == "Loop")
    body = loop.attribute[0].g
    static = next(n.name for n in snn.model.graph.node if n.op_type == "Conv")
    assert static in {node.name for node in model.graph.node}
    assert not any(node.name.endswith(static) for node in body.node)
    assert not body.initializer
    assert len(model.SerializeToString()) < len(snn.model.SerializeToString()) + 5_000


def test_read_out_is_computed_once_behind_the_loop(snn):
    nodes = list(loop_model(snn).graph.node)
    assert [node.op_type for node in nodes[-2:]] == ["Loop", "Gemm"]


def test_neurons_stay_functions(snn):
    model = loop_model(snn)
    (loop,) = (node for node in model.graph.node if node.op_type == "Loop")
    assert "IntegrateAndFire" in {node.op_type for node in loop.attribute[0].g.node}
    assert {f.name for f in model.functions} == {f.name for f in snn.model.functions}


def test_output_inside_the_network_is_given_too(tmp_path):
    b = Builder((3, 4, 4))
    inner = b.conv(4)
    b.relu()
    b.conv(2)
    deeper = b.relu()
    b.head()
    snn = convert(b.save(tmp_path / "m.onnx", inner, deeper, b.last), timesteps=3).snn
    x = uniform(2, 3, 4, 4)
    assert_equal(looped(snn, x, 5), Runner(snn).run(x, 5).outputs, 1e-5)


def test_onnxruntime_may_not_fuse_a_gelu_of_the_first_step(tmp_path):
    """It would lose a part that the Loop reads."""
    b, x = Builder((8,)), uniform(5, 8)
    b.relu()
    b.gemm(6)
    y = b.last
    half = b.op("Mul", y, b.constant(0.5))
    cube = b.op("Mul", b.op("Pow", y, b.constant(3.0)), b.constant(0.044715))
    inner = b.op("Mul", b.op("Add", y, cube), b.constant((2 / np.pi) ** 0.5))
    b.op("Mul", half, b.op("Add", b.op("Tanh", inner), b.constant(1.0)))
    b.gemm(3, inputs=6)
    snn = convert(b.save(tmp_path / "m.onnx"), dataset(x=x), timesteps=4).snn
    assert_equal(looped(snn, x, 4), Runner(snn).run(x, 4).outputs, 1e-5)


def test_nor_move_a_transpose_that_the_loop_reads_too(tmp_path):
    b, x = Builder((4, 8)), uniform(5, 4, 8)
    sequence = b.op("Transpose", "x", perm=[1, 0, 2])
    b.op("GRU", sequence, b.normal(1, 24, 8), b.normal(1, 24, 8), hidden_size=8)
    b.op("Squeeze", b.last, b.constant([1], np.int64))
    samples = b.op("Transpose", b.last, perm=[1, 0, 2])
    b.op("MatMul", b.op("Transpose", samples, perm=[0, 2, 1]), b.normal(4, 6))
    b.relu()
    b.op("MatMul", b.last, b.normal(6, 4))
    b.op("Add", samples, b.op("Transpose", b.last, perm=[0, 2, 1]))
    b.op("Transpose", b.last, perm=[0, 2, 1])
    b.op("Mul", b.last, b.normal(8, 1))
    b.op("MatMul", b.op("Transpose", b.last, perm=[0, 2, 1]), b.normal(8, 3))
    snn = convert(b.save(tmp_path / "m.onnx"), dataset(x=x), timesteps=4).snn
    assert_equal(looped(snn, x, 4), Runner(snn).run(x, 4).outputs, 1e-5)


def test_source_that_has_an_input_named_timesteps_keeps_it(tmp_path):
    b = IntegerBuilder((4,))
    b.inputs[0].name = "timesteps"
    b.op("Gemm", "timesteps", b.normal(4, 3))
    b.clip(2.0)
    b.op("Gemm", b.last, b.normal(3, 2))
    snn = convert(b.save(tmp_path / "m.onnx"), timesteps=3).snn
    model = loop_model(snn)
    (name,) = {tensor.name for tensor in model.graph.input} - {"timesteps"}
    x = eighths(2, 4)
    values = make_session(model).run(None, {"timesteps": x, name: np.array(5)})
    assert_equal({b.last: values[0]}, Runner(snn).run(x, 5).outputs)


def test_tensors_may_have_names_that_the_loop_would_give(tmp_path):
    b = residual_network()
    new = {"t1": "h", "t2": "first/h", "t3": "loop/iteration", "t4": "loop/h"}
    for node in b.nodes:
        for names in (node.input, node.output):
            names[:] = [new.get(name, name) for name in names]
    x = uniform(3, 3, 8, 8)
    snn = convert(b.save(tmp_path / "m.onnx"), dataset(x=x), timesteps=3).snn
    assert_equal(looped(snn, x, 3), Runner(snn).run(x, 3).outputs, 1e-5)


def test_open_sizes_stay_open(tmp_path):
    b = Builder((2, "H", "W"))
    b.conv(3)
    b.relu()
    b.conv(3)
    b.relu()
    b.head()
    snn = convert(b.save(tmp_path / "m.onnx"), dataset(x=uniform(4, 2, 8, 8)), timesteps=3).snn
    for size in (5, 9):
        x = uniform(2, 2, size, size)
        assert_equal(looped(snn, x, 4), Runner(snn).run(x, 4).outputs, 1e-5)


def test_file_is_no_step_graph_and_says_so(snn, tmp_path):
    export_loop(snn, tmp_path / "loop.onnx")
    for read in (SpikingModel.load, inspect):
        with pytest.raises(ModelError, match="all timesteps"):
            read(tmp_path / "loop.onnx")
    with pytest.raises(ModelError, match="converted already"):
        load_source(tmp_path / "loop.onnx")


def test_onnx_s_own_implementation_agrees(snn):
    x = uniform(2, 3, 8, 8)
    feeds = {"x": x, "timesteps": np.array(4, np.int64)}
    values = onnx.reference.ReferenceEvaluator(loop_model(snn)).run(None, feeds)
    assert_equal(dict(zip(snn.outputs, values, strict=True)), looped(snn, x, 4), 1e-4)


SCRIPT = f"""{LOOP}
const {{images, shape, timesteps}} = JSON.parse(require("fs").readFileSync("feeds.json"));
run(Float32Array.from(images), shape, timesteps).then(({{logits}}) =>
  console.log(JSON.stringify(Array.from(logits.data))));
"""


@pytest.mark.slow
@pytest.mark.parametrize("package", PACKAGES)
@pytest.mark.parametrize("timesteps", [1, 8])
def test_node_gives_what_python_gives(node, timesteps, package):
    """The demo's loop file, run as docs/export.md says, with nothing of ours installed there."""
    calibration, test = demo_data()
    snn = convert(demo_source(), calibration, timesteps=8).snn
    export_loop(snn, node / "demo.loop.onnx")
    feeds = next(test.batches(20))[0] | {"timesteps": np.array(timesteps, np.int64)}
    (expected,) = make_session(loop_model(snn)).run(None, feeds)
    image = feeds["image"]
    (node / "feeds.json").write_text(
        json.dumps({"images": image.ravel().tolist(), "shape": image.shape, "timesteps": timesteps})
    )
    script = SCRIPT.replace("x: new", "image: new").replace("model.loop.onnx", "demo.loop.onnx")
    logits = np.array(run_script(node, script, package), np.float32).reshape(expected.shape)
    np.testing.assert_allclose(logits, expected, atol=1e-4)


STATES = """
require("onnxruntime-node").InferenceSession.create("model.snn.onnx").then((session) =>
  console.log(JSON.stringify(session.inputNames)));
"""


@pytest.mark.slow
@pytest.mark.parametrize("package", PACKAGES)
def test_node_takes_no_states_as_the_documentation_says(node, snn, package):
    snn.save(node / "model.snn.onnx")
    assert run_script(node, STATES, package) == ["x"]


def test_what_a_neuron_and_an_output_read_of_a_mean_loops(tmp_path):
    b, x = Builder((6,)), uniform(5, 6)
    b.gemm(5)
    b.relu()
    b.gemm(4)
    squashed = b.op("Sigmoid")
    b.gemm(4)
    path = b.save(tmp_path / "m.onnx", squashed, b.last)
    snn = convert(path, dataset(x=x), timesteps=4).snn
    assert any(state.role == "last" for state in snn.states)
    assert_equal(looped(snn, x, 4), Runner(snn).run(x, 4).outputs, 1e-5)
