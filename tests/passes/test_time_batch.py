"""time_batch: what is computed once and K steps in one run give what the step graph gives."""

import numpy as np
import onnx_graphsurgeon as gs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxsnn import convert
from onnxsnn.analysis.exact_layer import with_exact_layer
from onnxsnn.errors import UnsupportedError
from onnxsnn.graph import insert, to_model
from onnxsnn.model import SpikingModel
from onnxsnn.neurons import NEURONS, RECTIFYING_NEURONS, IntegrateAndFire
from onnxsnn.passes.absorb_scales import absorb_scales
from onnxsnn.passes.spike import spike
from onnxsnn.passes.time_batch import TIME, time_batch
from onnxsnn.pipeline import Pipeline, prepare
from onnxsnn.ratenorm import rate_norms, set_threshold, threshold_of
from onnxsnn.session import Session
from onnxsnn.source import Source
from tests.models import Builder, assert_same, dataset, uniform
from tests.networks import STRUCTURES

T = 7
SAMPLES = 3


def whole(*shape):
    """Inputs that are small whole numbers."""
    return np.random.default_rng(0).integers(-2, 3, shape).astype(np.float32)


def with_whole_thresholds(b, neuron, outputs=(), delay=0):
    """The SNN of a network, with a threshold of 4 where none was trained."""
    graph = prepare(Source(b.model(*outputs), "", []), Pipeline(None)).graph
    for node in rate_norms(graph):
        if threshold_of(node) is None:
            set_threshold(graph, node, np.full_like(node.inputs[1].values, 4.0))
    absorb_scales(graph)
    states = spike(graph, neuron, delay=delay).states
    return SpikingModel.build(graph, states, {"timesteps": T}, [])


def tapped(snn, names):
    """The step graph, with more tensors among its outputs."""
    graph = snn.graph()
    tensors = graph.tensors()
    graph.outputs += [tensors[name] for name in names]
    return graph


def stepped(snn, feeds, timesteps, taps=()):
    """The outputs after each step, [T, N, ...], and the states after the last."""
    session, state, history = Session(to_model(tapped(snn, taps))), first_state(snn), []
    for _ in range(timesteps):
        values = session.run(feeds | state)
        state = {s.input: values.pop(s.output) for s in snn.states}
        history.append(values)
    return {name: np.stack([values[name] for values in history]) for name in history[0]}, state


def first_state(snn):
    return {state.input: np.asarray(state.default, np.float32) for state in snn.states}


class Folded:
    """The two models of an SNN, run in chunks."""

    def __init__(self, snn, taps=(), every_step=None):
        self.made = time_batch(tapped(snn, taps), snn.states, every_step)
        self.states = snn.states
        self.start = first_state(snn)
        self.static = self.made.static and Session(to_model(self.made.static))
        self.chunk = Session(to_model(self.made.chunk))

    def run(self, feeds, chunks):
        """The outputs of all chunks, [T, N, ...] or [chunks, N, ...], and the states after."""
        known = feeds | (self.static.run(select(feeds, self.static.inputs)) if self.static else {})
        state, pieces = self.start, []
        for steps in chunks:
            time = {TIME: np.arange(1, steps + 1, dtype=np.float32)}
            values = self.chunk._session.run(
                self.chunk.outputs, select(known, self.made.constant_inputs) | state | time
            )
            outputs = dict(zip(self.chunk.outputs, values, strict=True))
            state = {s.input: outputs.pop(s.output) for s in self.states}
            pieces.append({name: self._sliced(name, v, steps) for name, v in outputs.items()})
        return {name: np.concatenate([p[name] for p in pieces]) for name in pieces[0]}, state

    def _sliced(self, name, values, steps):
        slices = steps if name in self.made.every_step else 1
        return values.reshape(slices, -1, *values.shape[1:])


def select(values, names):
    return {name: values[name] for name in names}


def nodes_of(graph):
    """All nodes of a graph, those in the bodies of its Scans too."""
    nodes = []
    for node in graph.nodes:
        nodes += [node, *(node.attrs["body"].nodes if node.op == "Scan" else [])]
    return nodes


def operators(graph):
    return [node.op for node in nodes_of(graph)]


# Every structure, neuron and split of the steps


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


@pytest.mark.parametrize("neuron", RECTIFYING_NEURONS.values())
@settings(max_examples=8, deadline=None)
@given(
    b=whole_networks(),
    delay=st.integers(0, 4),
    chunks=st.lists(st.integers(1, 4), min_size=1, max_size=3),
)
def test_spikes_and_states_are_those_of_the_step_graph_however_steps_are_split(
    neuron, b, delay, chunks
):
    snn = with_whole_thresholds(b, neuron(), delay=delay)
    feeds = {"x": whole(SAMPLES, 2, 4, 4)}
    spikes = list(snn.spikes.values())
    expected, after = stepped(snn, feeds, sum(chunks), spikes)
    found, state = Folded(snn, spikes).run(feeds, chunks)
    for name in spikes:
        np.testing.assert_array_equal(found[name], expected[name])
    assert_same(expected, found, 1e-6)
    assert_same(after, state, 1e-6)
    ends = np.cumsum(chunks) - 1
    last, state = Folded(snn, every_step=[]).run(feeds, chunks)
    assert_same({name: expected[name][ends] for name in snn.outputs}, last, 1e-6)
    assert_same(after, state, 1e-6)


@pytest.mark.parametrize("neuron", RECTIFYING_NEURONS.values())
def test_every_neuron_fires_alike_and_so_does_its_signed_counterpart(neuron):
    neuron = neuron()
    snn, feeds = both_kinds(neuron), {"x": whole(SAMPLES, 4)}
    spikes = list(snn.spikes.values())
    folded = Folded(snn, spikes)
    assert {neuron.operator, neuron.signed.operator} <= set(operators(folded.made.chunk))
    expected, after = stepped(snn, feeds, T, spikes)
    found, state = folded.run(feeds, [4, 3])
    for name in spikes:
        assert expected[name].any()
        np.testing.assert_array_equal(found[name], expected[name])
    for name, values in after.items():
        np.testing.assert_array_equal(state[name], values)


def both_kinds(neuron):
    """A rectifier, and an activation that gives values of either sign to weights."""
    b = Builder((4,), seed=2)
    for operator in ("Relu", "LeakyRelu"):
        b.op("MatMul", b.last, b.constant(b.random.integers(-2, 3, (4, 4))))
        b.op(operator, **({"alpha": 0.5} if operator == "LeakyRelu" else {}))
    b.op("MatMul", b.last, b.constant(b.random.integers(-2, 3, (4, 4))))
    return with_whole_thresholds(b, neuron)


def test_the_rectifying_neurons_and_their_counterparts_are_all():
    kinds = {kind for n in RECTIFYING_NEURONS.values() for kind in (n, type(n().signed))}
    assert kinds == set(NEURONS.values())


@pytest.fixture(scope="module", params=STRUCTURES)
def converted(request, tmp_path_factory):
    """A structure as an SNN, and inputs for it."""
    b = STRUCTURES[request.param]()
    x = uniform(SAMPLES, *(d.dim_value for d in b.inputs[0].type.tensor_type.shape.dim[1:]))
    path = b.save(tmp_path_factory.mktemp("time") / "m.onnx")
    return convert(path, dataset(x=x), timesteps=T).snn, {"x": x}


@pytest.mark.parametrize("every_step", [None, []])
def test_structures_of_float_weights_give_the_same_up_to_rounding(converted, every_step):
    snn, feeds = converted
    expected, _ = stepped(snn, feeds, T)
    found, _ = Folded(snn, every_step=every_step).run(feeds, [T])
    steps = slice(None) if every_step is None else slice(-1, None)
    assert_same({name: values[steps] for name, values in expected.items()}, found, 1e-4)


# Forms in time


@pytest.mark.parametrize("operator", ["Sigmoid", "Exp", "Softmax"])
def test_a_compensated_operator_works_on_the_means_of_all_steps_at_once(operator):
    b = Builder((4,))
    b.gemm(4)
    b.relu()
    b.op(operator)
    b.gemm(3)
    b.relu()
    b.gemm(2)
    snn, feeds = with_whole_thresholds(b, IntegrateAndFire()), {"x": 4 * uniform(SAMPLES, 4)}
    folded = Folded(snn)
    assert operator in [node.op for node in folded.made.chunk.nodes]
    assert "MeanIncrement" in operators(folded.made.chunk)
    expected, _ = stepped(snn, feeds, T)
    assert_same(expected, folded.run(feeds, [3, 4])[0], 1e-5)


def test_max_pooling_of_sums_of_spikes_gives_spikes_at_once():
    b = Builder((2, 4, 4))
    b.clip(2.0)
    b.op("MaxPool", kernel_shape=[2, 2], strides=[2, 2])
    b.op("Conv", b.last, b.constant(b.random.integers(-2, 3, (3, 2, 1, 1))))
    b.relu()
    snn, feeds = with_whole_thresholds(b, IntegrateAndFire()), {"x": whole(SAMPLES, 2, 4, 4)}
    (increment,) = (node for node in snn.graph().nodes if node.op == "SumIncrement")
    currents = increment.outputs[0].name
    assert increment.inputs[0].inputs[0].op == "MaxPool"
    folded = Folded(snn, [currents])
    expected, _ = stepped(snn, feeds, T, [currents])
    found, _ = folded.run(feeds, [2, 5])
    assert set(np.unique(found[currents])) == {0.0, 1.0}
    np.testing.assert_array_equal(found[currents], expected[currents])


# What is computed how often


def first_and_second_conv():
    b = Builder((2, 4, 4))
    b.conv(3)
    b.relu()
    b.conv(4)
    b.relu()
    b.op("Flatten")
    b.gemm(3, inputs=64)
    b.op("Softmax", axis=1)
    return with_whole_thresholds(b, IntegrateAndFire()), {"x": uniform(SAMPLES, 2, 4, 4)}


def test_the_layer_before_the_first_neuron_is_in_the_static_model_only():
    snn, _ = first_and_second_conv()
    first, second = (n.name for n in snn.graph().nodes if n.op == "Conv")
    made = time_batch(snn.graph(), snn.states)
    assert [n.name for n in nodes_of(made.static) if n.op == "Conv"] == [first]
    assert [n.name for n in nodes_of(made.chunk) if n.op == "Conv"] == [second]
    assert made.constant_inputs == {t.name: 0 for t in made.static.outputs}


def test_nothing_static_is_left_where_neurons_read_the_input():
    b = Builder((4,))
    b.relu()
    b.gemm(3)
    snn = with_whole_thresholds(b, IntegrateAndFire())
    made = time_batch(snn.graph(), snn.states)
    assert made.static is None
    assert made.constant_inputs == {"x": 0}


def affine():
    """A layer behind a scale and a shift of what a residual Add gives, whose sum is kept."""
    b = Builder((2, 4, 4))
    b.conv(3)
    b.relu()
    first = b.last
    kept = b.op("Add", b.conv(3), first)
    b.op("Mul", kept, b.constant(np.full((3, 1, 1), 2.0)))
    b.op("Add", b.last, b.constant(np.ones((3, 1, 1))))
    b.relu()
    b.op("Add", b.conv(3), kept)
    b.op("Flatten")
    b.gemm(3, inputs=48)
    return with_whole_thresholds(b, IntegrateAndFire()), {"x": whole(SAMPLES, 2, 4, 4)}


def bodies(graph):
    """The operators in the body of each Scan."""
    return [
        [n.op for n in node.attrs["body"].nodes] for node in nodes_of(graph) if node.op == "Scan"
    ]


def test_what_is_done_value_by_value_for_neurons_alone_is_done_in_their_scan():
    snn, feeds = affine()
    folded = Folded(snn)
    assert ["Mul", "Add", "IntegrateAndFire"] in bodies(folded.made.chunk)
    expected, _ = stepped(snn, feeds, T)
    found, _ = folded.run(feeds, [2, 5])
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, rtol=1e-5, atol=1e-5)


def test_what_another_node_reads_too_is_done_for_all_steps_at_once():
    snn, _ = affine()
    _, second, *_ = snn.spikes
    behind = snn.current(second)
    made = time_batch(tapped(snn, [behind]), snn.states)
    assert ["IntegrateAndFire"] in bodies(made.chunk)
    assert ["Mul", "Add", "IntegrateAndFire"] not in bodies(made.chunk)


def sizes_of(folded, operator, feeds, steps):
    """The first sizes of what the nodes of an operator give in a chunk of so many steps."""
    graph = folded.made.chunk
    given = [node.outputs[0] for node in graph.nodes if node.op == operator]
    graph.outputs += given
    folded.chunk = Session(to_model(graph))
    known = folded.static.run(feeds) | folded.start
    time = {TIME: np.arange(1, steps + 1, dtype=np.float32)}
    values = folded.chunk._session.run([t.name for t in given], known | time)
    return [len(v) for v in values]


@pytest.mark.parametrize(("every_step", "steps"), [(None, T), ([], 1)])
@pytest.mark.parametrize("operator", ["Gemm", "Softmax"])
def test_the_read_out_works_on_the_last_step_where_that_will_do(every_step, steps, operator):
    snn, feeds = first_and_second_conv()
    folded = Folded(snn, every_step=every_step)
    assert sizes_of(folded, operator, feeds, T) == [steps * SAMPLES]
    assert sizes_of(folded, "Conv", feeds, T) == [T * SAMPLES]


def test_outputs_named_come_of_every_step_and_the_others_of_the_last():
    b = Builder((4,))
    b.gemm(4)
    rates = b.relu()
    scores = b.gemm(3)
    snn = with_whole_thresholds(b, IntegrateAndFire(), [rates, scores])
    feeds = {"x": uniform(SAMPLES, 4)}
    folded = Folded(snn, every_step=[rates])
    assert folded.made.every_step == {rates: 0}
    expected, _ = stepped(snn, feeds, T)
    found, _ = folded.run(feeds, [T])
    assert_same({rates: expected[rates], scores: expected[scores][-1:]}, found, 1e-5)


@pytest.fixture(scope="module")
def residual(tmp_path_factory):
    path = STRUCTURES["residual"]().save(tmp_path_factory.mktemp("time") / "m.onnx")
    return convert(path, dataset(x=uniform(7, 3, 8, 8)), timesteps=T).snn


def before_the_running_mean(snn, operator):
    """The SNN with one more node in front of the mean that its outputs are made of."""
    graph = snn.graph()
    (mean,) = (node for node in graph.nodes if node.op == "RunningMean")
    changed = gs.Variable("changed", np.float32, mean.inputs[0].shape)
    insert(graph, operator, [mean.inputs[0]], changed)
    mean.inputs[0] = changed
    return SpikingModel.build(graph, snn.states, snn.metadata, snn.layers)


def test_a_linear_node_in_front_of_a_late_sum_is_run_at_every_step(residual):
    """Though only outputs of the last step depend on it."""
    negated, feeds = before_the_running_mean(residual, "Neg"), {"x": uniform(5, 3, 8, 8)}
    expected, _ = stepped(negated, feeds, T)
    found, _ = Folded(negated, every_step=[]).run(feeds, [T])
    assert_same({name: values[-1:] for name, values in expected.items()}, found, 1e-4)


@pytest.mark.parametrize("every_step", [None, []])
@pytest.mark.parametrize("delay", [0, 2])
def test_the_mean_of_what_no_step_changes(delay, every_step):
    snn = with_whole_thresholds(STRUCTURES["residual"](), IntegrateAndFire(), delay=delay)
    layer = list(snn.spikes)[-1]
    exact, feeds = with_exact_layer(snn, layer), {snn.spikes[layer]: uniform(5, 10) ** 2}
    expected, _ = stepped(exact, feeds, T)
    found, _ = Folded(exact, every_step=every_step).run(feeds, [3, 4])
    assert_same({n: v[-1:] for n, v in expected.items()}, {n: v[-1:] for n, v in found.items()})


# What cannot be folded


def test_a_fixed_batch_is_refused():
    b = Builder((4,), batch=2)
    b.op("Sub", "x", b.op("ReduceMean", "x", axes=[0], keepdims=1))
    b.relu()
    b.gemm(3)
    snn = with_whole_thresholds(b, IntegrateAndFire())
    with pytest.raises(UnsupportedError, match="batch axis of an input is fixed"):
        time_batch(snn.graph(), snn.states)


def test_an_output_that_no_neuron_reaches_is_passed_on():
    b = Builder((4,))
    first = b.gemm(4)
    b.relu()
    second = b.gemm(3)
    snn = with_whole_thresholds(b, IntegrateAndFire(), [first, second])
    folded = time_batch(snn.graph(), snn.states)
    assert folded.every_step == {second: 0}
    assert [tensor.name for tensor in folded.chunk.outputs][:2] == [first, second]
    assert list(folded.constant_inputs) == [f"{first}.static"]


def test_neurons_that_have_samples_along_another_axis_are_refused():
    b = Builder((4, 3))
    b.relu()
    b.op("Transpose", perm=[1, 0, 2])
    b.op("MatMul", b.last, b.normal(3, 3))
    b.relu()
    b.op("Transpose", perm=[1, 0, 2])
    snn = with_whole_thresholds(b, IntegrateAndFire())
    with pytest.raises(UnsupportedError, match="samples along another axis than 0"):
        time_batch(snn.graph(), snn.states)


def test_what_varies_without_an_axis_is_refused():
    b = Builder((4,))
    b.gemm(4)
    rates = b.relu()
    b.op("ReduceSum", keepdims=0)
    b.op("Add", rates, b.op("Exp"))
    b.relu()
    snn = with_whole_thresholds(b, IntegrateAndFire())
    with pytest.raises(UnsupportedError, match="which has no axis"):
        time_batch(snn.graph(), snn.states)
