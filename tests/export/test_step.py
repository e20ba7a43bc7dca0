"""One timestep whose states are plain inputs: spike for spike the step graph."""

import json

import numpy as np
import onnx
import pytest

from onnxsnn import Runner, SpikingModel, convert, inspect, load_source
from onnxsnn.demo import demo_data, demo_source
from onnxsnn.errors import ModelError
from onnxsnn.export import export_step, step_model
from onnxsnn.session import make_session
from tests.export.forms import assert_equal, stepped, zeros
from tests.export.javascript import PACKAGES, STEP, run_script
from tests.models import Builder, dataset, uniform
from tests.networks import average_network, residual_network


def test_integer_snn_steps(tmp_path):
    path, x = average_network().save(tmp_path / "m.onnx"), uniform(4, 2, 8, 8)
    snn = convert(path, dataset(x=x), timesteps=6, integer=True).snn
    assert_equal(stepped(snn, x, 6), Runner(snn).run(x, 6).outputs, 1e-5)


def test_no_input_has_a_default_and_no_operator_is_ours(snn):
    model = step_model(snn)
    inputs = [tensor.name for tensor in model.graph.input]
    assert inputs == ["x", *(state.input for state in snn.states)]
    assert not {tensor.name for tensor in model.graph.initializer} & {*inputs}
    assert {node.domain for node in model.graph.node} == {""}
    assert not model.functions
    assert [entry.domain for entry in model.opset_import] == [""]


def test_states_have_the_shapes_of_what_the_next_step_reads(snn):
    graph = step_model(snn).graph
    given = {tensor.name: tensor.type for tensor in graph.input}
    after = {tensor.name: tensor.type for tensor in graph.output}
    assert all(given[state.input] == after[state.output] for state in snn.states)
    sizes = [given[s.input].tensor_type.shape.dim for s in snn.states if s.role == "potential"]
    assert sizes
    assert all(size.dim_param == "N" for size, *_ in sizes)
    assert all(size.dim_value for _, *others in sizes for size in others)


def test_states_are_not_read_in_the_first_step(snn):
    x = uniform(2, 3, 8, 8)
    session = make_session(step_model(snn))
    feeds = zeros(session.get_inputs(), {"x": x})
    noise = {
        name: np.full_like(v, np.nan) for name, v in feeds.items() if name not in ("x", "step")
    }
    for left, right in zip(session.run(None, feeds), session.run(None, feeds | noise), strict=True):
        np.testing.assert_array_equal(left, right)


def test_steps_may_stop_and_go_on(snn):
    """Nothing but the states is carried: another session goes on where one has stopped."""
    x = uniform(2, 3, 8, 8)
    run = lambda _, feeds: make_session(step_model(snn)).run(None, feeds)  # noqa: E731
    assert_equal(stepped(snn, x, 3, run), stepped(snn, x, 3))


def test_frames_beside_the_samples_need_no_number_of_their_own(tmp_path):
    """A state of all frames has a size that the data do not name: of it, zeros of 1 are enough."""
    b = Builder((4, 3, 8, 8))
    b.op("Reshape", b.last, b.constant([-1, 3, 8, 8], np.int64))
    b.channels = 3
    b.conv(4)
    b.relu()
    b.conv(4)
    b.op("Sigmoid")
    b.op("Reshape", b.last, b.constant([-1, 4, 256], np.int64))
    b.op("MatMul", b.last, b.normal(256, 3))
    x = uniform(6, 4, 3, 8, 8)
    snn = convert(b.save(tmp_path / "m.onnx"), dataset(x=x), timesteps=4).snn
    open_sizes = {
        size.dim_param
        for tensor in step_model(snn).graph.input
        for size in tensor.type.tensor_type.shape.dim
        if not size.dim_value
    }
    assert open_sizes == {"N", ""}
    assert_equal(stepped(snn, x, 4), Runner(snn).run(x, 4).outputs, 1e-5)


def test_source_that_has_an_input_named_step_keeps_it(tmp_path):
    b = Builder((4,))
    b.inputs[0].name = b.last = "step"
    b.gemm(5)
    b.relu()
    b.gemm(3)
    x = uniform(6, 4)
    snn = convert(b.save(tmp_path / "m.onnx"), dataset(step=x), timesteps=4).snn
    assert_equal(stepped(snn, x, 4), Runner(snn).run(x, 4).outputs, 1e-6)


def test_tensors_may_have_names_that_the_file_would_give(tmp_path):
    b = residual_network()
    new = {"t1": "start/step", "t2": "now/step", "t3": "now/step/first"}
    for node in b.nodes:
        for names in (node.input, node.output):
            names[:] = [new.get(name, name) for name in names]
    x = uniform(3, 3, 8, 8)
    snn = convert(b.save(tmp_path / "m.onnx"), dataset(x=x), timesteps=3).snn
    assert_equal(stepped(snn, x, 3), Runner(snn).run(x, 3).outputs, 1e-5)


def test_onnx_s_own_implementation_agrees(snn):
    x = uniform(2, 3, 8, 8)
    run = onnx.reference.ReferenceEvaluator(step_model(snn)).run
    assert_equal(stepped(snn, x, 4, run), stepped(snn, x, 4), 1e-4)


def test_file_is_no_snn_to_go_on_with_and_says_so(snn, tmp_path):
    export_step(snn, tmp_path / "step.onnx")
    for read in (SpikingModel.load, inspect):
        with pytest.raises(ModelError, match="plain inputs"):
            read(tmp_path / "step.onnx")
    with pytest.raises(ModelError, match="converted already"):
        load_source(tmp_path / "step.onnx")


@pytest.mark.slow
@pytest.mark.parametrize("package", PACKAGES)
def test_node_gives_what_python_gives(node, package):
    """The demo, run step by step as docs/export.md says, with nothing of ours installed there."""
    snn = convert(demo_source(), demo_data()[0], timesteps=8).snn
    export_step(snn, node / "demo.step.onnx")
    (image,) = next(demo_data()[1].batches(20))[0].values()
    (expected,) = stepped(snn, image, 8).values()
    feeds = {"images": image.ravel().tolist(), "shape": image.shape}
    (node / "feeds.json").write_text(json.dumps(feeds))
    code = STEP.replace("x: new", "image: new").replace("model.step.onnx", "demo.step.onnx")
    script = f"""{code}
const {{images, shape}} = JSON.parse(require("fs").readFileSync("feeds.json"));
run(Float32Array.from(images), shape, 8).then(({{logits}}) =>
  console.log(JSON.stringify(Array.from(logits.data))));
"""
    logits = np.array(run_script(node, script, package), np.float32).reshape(expected.shape)
    np.testing.assert_allclose(logits, expected, atol=1e-4)
