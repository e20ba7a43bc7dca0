"""Many timesteps in one run give what stepping gives, spike for spike."""

import numpy as np
import onnx_graphsurgeon as gs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxsnn import Runner, convert
from onnxsnn.analysis.exact_layer import with_exact_layer
from onnxsnn.graph import insert
from onnxsnn.model import SpikingModel
from onnxsnn.neurons import RECTIFYING_NEURONS
from onnxsnn.passes.absorb_scales import absorb_scales
from onnxsnn.passes.spike import spike
from onnxsnn.pipeline import Pipeline, prepare
from onnxsnn.ratenorm import rate_norms, set_threshold, threshold_of
from onnxsnn.runtime.runner import _instrument
from onnxsnn.runtime.step_graph import StepGraph
from onnxsnn.runtime.time_batched import TimeBatchedGraph
from onnxsnn.source import Source
from tests.models import Builder, assert_same, dataset, uniform
from tests.networks import STRUCTURES

T = 7


def stepped(snn, feeds, timesteps, taps=()):
    """The outputs after each step, one run of the step graph each, all samples at once."""
    graph = StepGraph(_instrument(snn, [], taps), snn.states, [*snn.outputs, *taps])
    return graph.advance(graph.prepare(feeds), {}, timesteps, every_step=True)[0]


def folded(snn, x, timesteps, taps=(), **settings):
    """The outputs after each step, as the Runner gives them, which must fold."""
    runner = Runner(snn, taps=taps, **settings)
    history = list(runner.steps(x, timesteps))
    assert folds(runner), runner.warnings
    return {name: np.stack([o[name] for o in history]) for name in history[0]}


def folds(runner):
    return isinstance(runner._backend._graph, TimeBatchedGraph)


@pytest.mark.parametrize("name", STRUCTURES)
def test_every_structure_folds_and_gives_what_stepping_gives(tmp_path, name):
    b = STRUCTURES[name]()
    x = uniform(5, *(d.dim_value for d in b.inputs[0].type.tensor_type.shape.dim[1:]))
    snn = convert(b.save(tmp_path / "m.onnx"), dataset(x=x), timesteps=T).snn
    expected = stepped(snn, {"x": x}, T)
    assert_same(expected, folded(snn, x, T), 1e-4)
    last = {name: values[-1] for name, values in expected.items()}
    assert_same(last, Runner(snn).run(x, T).outputs, 1e-4)


@st.composite
def whole_networks(draw):
    """Whole numbers for weights, and powers of two for thresholds: every sum is exact."""
    b = Builder((2, 4, 4), draw(st.integers(0, 1000)))

    def conv():
        weights = b.random.integers(-2, 3, (3, b.channels, 3, 3))
        b.channels = 3
        return b.op("Conv", b.last, b.constant(weights), pads=[1] * 4)

    conv()
    skip = b.clip(4.0)
    steps = ["conv", "clip", "add", "average", "max", "leaky", "softmax"]
    for step in draw(st.lists(st.sampled_from(steps), max_size=5)):
        match step:
            case "conv":
                conv()
            case "clip":
                b.clip(2.0)
            case "add":
                b.op("Add", b.last, skip)
            case "average":
                b.op("AveragePool", kernel_shape=[2, 2], pads=[0, 0, 1, 1], count_include_pad=1)
            case "max":
                b.op("MaxPool", kernel_shape=[2, 2], pads=[0, 0, 1, 1])
            case "leaky":
                b.op("LeakyRelu", alpha=0.5)
            case "softmax":
                b.op("Softmax", axis=1)
    b.clip(4.0)
    b.op("Flatten")
    weights = b.random.integers(-2, 3, (48, 3))
    b.op("MatMul", b.last, b.constant(weights))
    return b


def with_whole_thresholds(b, neuron):
    """The SNN, with a threshold of 4 where none was trained."""
    graph = prepare(Source(b.model(), "", []), Pipeline(lambda *_: None)).graph
    for node in rate_norms(graph):
        if threshold_of(node) is None:
            set_threshold(graph, node, np.full_like(node.inputs[1].values, 4.0))
    absorb_scales(graph)
    states = spike(graph, neuron).states
    return SpikingModel.build(graph, states, {"timesteps": T}, [])


@pytest.mark.parametrize("neuron", RECTIFYING_NEURONS.values())
@settings(max_examples=8, deadline=None)
@given(b=whole_networks(), steps=st.integers(1, 9), memory=st.sampled_from([1, 2**13, 2**20]))
def test_spikes_are_those_of_the_step_graph(neuron, b, steps, memory):
    x = np.random.default_rng(0).integers(-2, 3, (3, 2, 4, 4)).astype(np.float32)
    snn = with_whole_thresholds(b, neuron())
    spikes = list(snn.spikes.values())
    expected = stepped(snn, {"x": x}, steps, spikes)
    found = folded(snn, x, steps, spikes, memory=memory)
    for name in spikes:
        np.testing.assert_array_equal(found[name], expected[name])
    assert_same(expected, found, 1e-6)
    last = {name: values[-1] for name, values in expected.items() if name not in spikes}
    assert_same(last, Runner(snn, memory=memory).run(x, steps).outputs, 1e-6)


def before_the_running_mean(snn, operator):
    """The SNN with one more node in front of the mean that its outputs are made of."""
    graph = snn.graph()
    (mean,) = (node for node in graph.nodes if node.op == "RunningMean")
    changed = gs.Variable("changed", np.float32, mean.inputs[0].shape)
    insert(graph, operator, [mean.inputs[0]], changed)
    mean.inputs[0] = changed
    return SpikingModel.build(graph, snn.states, snn.metadata, snn.layers)


def test_a_linear_node_in_front_of_a_late_sum_is_run_at_every_step(snn):
    """Though only outputs of the last step depend on it."""
    negated, x = before_the_running_mean(snn, "Neg"), uniform(5, 3, 8, 8)
    expected = {name: values[-1] for name, values in stepped(negated, {"x": x}, T).items()}
    assert_same(expected, Runner(negated).run(x, T).outputs, 1e-4)


@pytest.mark.parametrize("every_step", [False, True])
def test_the_mean_of_what_no_step_changes(snn, every_step):
    layer = list(snn.spikes)[-1]
    exact, rates = with_exact_layer(snn, layer), uniform(5, 10) ** 2
    feeds = {snn.spikes[layer]: rates}
    expected = {name: values[-1] for name, values in stepped(exact, feeds, T).items()}
    assert_same(expected, Runner(exact).run(feeds, T, every_step=every_step).outputs, 1e-4)


@pytest.fixture(scope="module")
def snn(tmp_path_factory):
    path = STRUCTURES["residual"]().save(tmp_path_factory.mktemp("time") / "m.onnx")
    return convert(path, dataset(x=uniform(7, 3, 8, 8)), timesteps=T).snn


def test_a_step_goes_on_where_a_run_stopped(snn):
    x = uniform(7, 3, 8, 8)
    expected = stepped(snn, {"x": x}, T)[snn.outputs[0]]
    runner = Runner(snn)
    (found,) = runner.run(x, 3).outputs.values()
    np.testing.assert_allclose(found, expected[2], atol=1e-5)
    for step in (3, 4):
        (found,) = runner.step(x).values()
        np.testing.assert_allclose(found, expected[step], atol=1e-5)


def test_a_step_goes_on_where_a_generator_was_left(snn):
    x = uniform(7, 3, 8, 8)
    expected = stepped(snn, {"x": x}, T)[snn.outputs[0]]
    runner = Runner(snn, rates=True)
    generator = runner.steps(x, T)
    next(generator), next(generator)
    after_two = dict(runner.spikes)
    (found,) = runner.step(x).values()
    np.testing.assert_allclose(found, expected[2], atol=1e-5)
    other = Runner(snn, rates=True)
    assert other.run(x, 2).spikes.keys() == after_two.keys()
    for layer, counts in other.spikes.items():
        np.testing.assert_array_equal(counts, after_two[layer])


def test_a_small_budget_changes_nothing_but_the_tile(snn):
    x = uniform(7, 3, 8, 8)
    small, large = Runner(snn, memory=2**15, rates=True), Runner(snn, rates=True)
    first, second = small.run(x, T), large.run(x, T)
    assert small._size < 7
    assert_same(first.outputs, second.outputs, 1e-5)
    for layer, counts in first.spikes.items():
        np.testing.assert_array_equal(counts, second.spikes[layer])


def mixing(axis):
    """Batch statistics between two neurons."""
    b = Builder((4,))
    b.gemm(4)
    b.relu()
    b.op("Sub", b.last, b.op("ReduceMean", b.last, axes=[axis], keepdims=1))
    b.relu()
    b.gemm(3)
    return b


@pytest.mark.parametrize(("axis", "warnings"), [(0, 1), (1, 0)])
def test_a_graph_that_mixes_samples_is_stepped_with_one_warning(tmp_path, axis, warnings):
    x = uniform(6, 4)
    snn = convert(mixing(axis).save(tmp_path / "m.onnx"), dataset(x=x), timesteps=T).snn
    runner = Runner(snn)
    for _ in range(2):
        outputs = runner.run(x, T).outputs
    assert len(runner.warnings) == warnings
    expected = {name: values[-1] for name, values in stepped(snn, {"x": x}, T).items()}
    assert_same(expected, outputs, 1e-5)


def test_samples_mixed_before_the_first_neuron_are_found(tmp_path):
    b = Builder((4,))
    b.op("Sub", "x", b.op("ReduceMean", "x", axes=[0], keepdims=1))
    b.gemm(4)
    b.relu()
    b.gemm(3)
    x = uniform(40, 4)
    snn = convert(b.save(tmp_path / "m.onnx"), dataset(x=x), timesteps=T).snn
    runner = Runner(snn)
    outputs = runner.run(x, T).outputs
    assert len(runner.warnings) == 1
    expected = {name: values[-1] for name, values in stepped(snn, {"x": x}, T).items()}
    assert_same(expected, outputs, 1e-5)
