"""One timestep whose states are plain inputs: spike for spike the step graph."""

import json

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxsnn import Runner, SpikingModel, convert, inspect, load_source
from onnxsnn.demo import demo_data, demo_source
from onnxsnn.errors import ModelError
from onnxsnn.export import export_step, step_model
from onnxsnn.neurons import RECTIFYING_NEURONS
from onnxsnn.session import make_session
from tests.export.equal import assert_equal
from tests.export.javascript import PACKAGES, STEP, run_script
from tests.models import Builder, dataset, uniform
from tests.networks import STRUCTURES, average_network, eighths, integer_networks, residual_network


def zeros(inputs, given):
    """Feeds of the first step: what is given, and states of zeros."""
    samples = len(next(iter(given.values())))
    shapes = {
        tensor.name: [size if isinstance(size, int) else samples for size in tensor.shape]
        for tensor in inputs
    }
    return {name: np.zeros(shape, np.float32) for name, shape in shapes.items()} | given


def stepped(snn, timesteps, run=None, **given):
    """The outputs after so many steps, in stock ONNX Runtime."""
    session = make_session(step_model(snn))
    names = [tensor.name for tensor in session.get_outputs()]
    feeds = zeros(session.get_inputs(), given)
    for _ in range(timesteps):
        values = dict(zip(names, (run or session.run)(None, feeds), strict=True))
        feeds |= {state.input: values[state.output] for state in snn.states}
    return {name: values[name] for name in snn.outputs}


@given(
    b=integer_networks(),
    neuron=st.sampled_from([*RECTIFYING_NEURONS.values()]),
    timesteps=st.integers(1, 9),
    samples=st.integers(1, 3),
    delay=st.integers(0, 3),
)
def test_outputs_are_the_runner_s_to_the_last_bit(
    tmp_path_factory, b, neuron, timesteps, samples, delay
):
    path = b.save(tmp_path_factory.mktemp("step") / "m.onnx")
    snn = convert(path, threshold="trained", timesteps=4, neuron=neuron(), delay=delay).snn
    x = eighths(samples, 2, 6, 6, seed=timesteps)
    assert_equal(stepped(snn, timesteps, x=x), Runner(snn).run(x, timesteps).outputs)


@pytest.mark.parametrize("structure", STRUCTURES)
def test_every_structure_steps(structure, tmp_path):
    """Compensated operators, encoders, joins and read-outs among them."""
    b = STRUCTURES[structure]()
    sizes = [d.dim_value for d in b.inputs[0].type.tensor_type.shape.dim[1:]]
    x = uniform(3, *sizes)
    snn = convert(b.save(tmp_path / "m.onnx"), dataset(x=x), timesteps=4).snn
    for timesteps in (1, 5):
        assert_equal(stepped(snn, timesteps, x=x), Runner(snn).run(x, timesteps).outputs, 1e-4)


def test_integer_snn_steps(tmp_path):
    path, x = average_network().save(tmp_path / "m.onnx"), uniform(4, 2, 8, 8)
    snn = convert(path, dataset(x=x), timesteps=6, integer=True).snn
    assert_equal(stepped(snn, 6, x=x), Runner(snn).run(x, 6).outputs, 1e-5)


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
    assert_equal(stepped(snn, 3, run, x=x), stepped(snn, 3, x=x))


def test_source_that_has_an_input_named_step_keeps_it(tmp_path):
    b = Builder((4,))
    b.inputs[0].name = b.last = "step"
    b.gemm(5)
    b.relu()
    b.gemm(3)
    x = uniform(6, 4)
    snn = convert(b.save(tmp_path / "m.onnx"), dataset(step=x), timesteps=4).snn
    assert_equal(stepped(snn, 4, step=x), Runner(snn).run(x, 4).outputs, 1e-6)


def test_tensors_may_have_names_that_the_file_would_give(tmp_path):
    b = residual_network()
    new = {"t1": "start/step", "t2": "now/step", "t3": "now/step/first"}
    for node in b.nodes:
        for names in (node.input, node.output):
            names[:] = [new.get(name, name) for name in names]
    x = uniform(3, 3, 8, 8)
    snn = convert(b.save(tmp_path / "m.onnx"), dataset(x=x), timesteps=3).snn
    assert_equal(stepped(snn, 3, x=x), Runner(snn).run(x, 3).outputs, 1e-5)


def test_onnx_s_own_implementation_agrees(snn):
    x = uniform(2, 3, 8, 8)
    run = onnx.reference.ReferenceEvaluator(step_model(snn)).run
    assert_equal(stepped(snn, 4, run, x=x), stepped(snn, 4, x=x), 1e-4)


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
    (expected,) = stepped(snn, 8, image=image).values()
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
