"""spike: the forms of tensors in time, and the step graph."""

import numpy as np
import onnx
import pytest

from onnxsnn.errors import UnsupportedError
from onnxsnn.graph import to_model
from onnxsnn.neurons import IntegrateAndFire
from onnxsnn.passes.clean import clean
from onnxsnn.passes.encode import encode
from onnxsnn.passes.relu_to_ratenorm import relu_to_ratenorm
from onnxsnn.passes.spike import spike
from onnxsnn.ratenorm import rate_norms
from tests.models import Builder, outputs_of, uniform


def spiking(b, *outputs, theta=1.0, v0=0.5, delay=0):
    """The step graph of a model, every threshold `theta`, and the report."""
    graph, _ = clean(b.graph(*outputs))
    relu_to_ratenorm(graph)
    for node in rate_norms(graph):
        node.inputs[1].values = np.full_like(node.inputs[1].values, theta)
    return graph, spike(graph, IntegrateAndFire(v0), delay=delay)


def run(graph, report, x, timesteps):
    """Outputs after each step, stepping the model by hand."""
    model = to_model(graph)
    states = {s.input: np.repeat(s.default, len(x), 0) if s.default.ndim else s.default
              for s in report.states}  # fmt: skip
    history = []
    for _ in range(timesteps):
        values = outputs_of(model, x=x, **states)
        states = {state.input: values[state.output] for state in report.states}
        history.append(values)
    return history


def operators(graph):
    return [node.op for node in graph.nodes]


def test_neuron_reads_a_current_and_the_output_is_a_running_mean():
    b = Builder((4,))
    name = b.relu()
    graph, report = spiking(b)
    x = np.array([[0.3, 0.8, -1.0, 5.0]], np.float32)
    history = run(graph, report, x, 4)
    np.testing.assert_array_equal(history[0][name], [[0, 1, 0, 1]])
    np.testing.assert_array_equal(history[3][name], [[0.25, 0.75, 0, 1]])
    assert graph.outputs[0].name == name


def test_states_have_defaults_of_broadcastable_shape():
    b = Builder((3, 6, 6))
    b.relu()
    b.head()
    _, report = spiking(b, theta=0.5)
    by_role = {state.role: state for state in report.states}
    assert set(by_role) == {"potential", "sum", "step"}
    np.testing.assert_array_equal(by_role["potential"].default, np.full((1, 3, 1, 1), 0.25))
    assert by_role["sum"].default.shape == (1, 1, 1, 1)
    assert by_role["step"].default.shape == ()


def test_initial_potential_of_zero_is_zero():
    b = Builder((3,))
    b.relu()
    _, report = spiking(b, v0=0.0)
    assert not next(s for s in report.states if s.role == "potential").default.any()


def test_max_pooling_of_spikes_gives_spikes():
    b = Builder((2, 4, 4))
    b.relu()
    b.op("MaxPool", kernel_shape=[2, 2], strides=[2, 2])
    b.conv(2)
    b.relu()
    graph, report = spiking(b)
    assert "SumIncrement" in operators(graph)
    tensor = next(n.outputs[0] for n in graph.nodes if n.op == "SumIncrement")
    graph.outputs.append(tensor)
    x = 2 * uniform(3, 2, 4, 4)
    currents = [values[tensor.name] for values in run(graph, report, x, 12)]
    assert set(np.unique(currents)) <= {0.0, 1.0}


@pytest.mark.parametrize("operator", ["Sigmoid", "Tanh", "Exp", "Softplus", "MaxPool"])
def test_compensated_operator_is_exact_on_the_mean(operator):
    """The mean of its currents is f of the mean of its input, whatever the spikes did."""
    b = Builder((2, 4, 4))
    spikes = b.relu()
    f = b.op(operator, **({"kernel_shape": [2, 2]} if operator == "MaxPool" else {}))
    b.conv(3, kernel=1)
    b.relu()
    graph, report = spiking(b, spikes, f, b.last)
    history = run(graph, report, uniform(3, 2, 4, 4), 7)[-1]
    plain = Builder((2, 4, 4))
    plain.op(operator, **({"kernel_shape": [2, 2]} if operator == "MaxPool" else {}))
    expected = outputs_of(plain.model(), x=history[spikes])
    np.testing.assert_allclose(history[f], next(iter(expected.values())), atol=1e-6)


def test_what_follows_the_last_neuron_is_applied_to_the_running_mean():
    b = Builder((3,))
    spikes = b.relu()
    b.gemm(4)
    out = b.op("Softmax", axis=1)
    graph, report = spiking(b, spikes, out)
    last = run(graph, report, uniform(2, 3), 5)[-1]
    assert "MeanIncrement" not in operators(graph)
    logits = last[spikes] @ graph.nodes[operators(graph).index("Gemm")].inputs[1].values.T
    logits = logits + graph.nodes[operators(graph).index("Gemm")].inputs[2].values
    exps = np.exp(logits - logits.max(1, keepdims=True))
    np.testing.assert_allclose(last[out], exps / exps.sum(1, keepdims=True), atol=1e-5)


def test_product_of_two_varying_tensors_is_compensated():
    b = Builder((4,))
    left = b.relu()
    b.gemm(4)
    right = b.op("Relu", b.last)
    product = b.op("Mul", left, right)
    b.gemm(3)
    b.relu()
    graph, report = spiking(b, left, right, product, b.last)
    last = run(graph, report, uniform(5, 4), 9)[-1]
    np.testing.assert_allclose(last[product], last[left] * last[right], atol=1e-5)


def test_static_operators_before_the_first_neuron_stay_as_they_are():
    b = Builder((3, 4, 4))
    b.op("Sigmoid")
    b.op("MaxPool", kernel_shape=[2, 2])
    b.relu()
    graph, _ = spiking(b)
    assert not {"RunningSum", "SumIncrement", "MeanIncrement"} & set(operators(graph))


def test_running_mean_is_made_once_for_all_its_readers():
    b = Builder((3,))
    spikes = b.relu()
    left, right = b.op("Sigmoid", spikes), b.op("Tanh", spikes)
    graph, _ = spiking(b, left, right, spikes)
    assert operators(graph).count("RunningMean") == 1


def forms():
    """A mean in front of neurons, a sum and a current, each of them an output too; a read-out."""
    b = Builder((2, 4, 4))
    spikes = b.relu()
    pooled = b.op("MaxPool", kernel_shape=[2, 2])
    b.conv(3, kernel=1)
    b.relu()
    bent = b.op("Tanh")
    b.conv(3, kernel=1)
    b.relu()
    return b, [spikes, pooled, bent, b.head()]


@pytest.mark.parametrize("delay", [1, 3, 6])
def test_delayed_outputs_are_the_means_of_what_came_since(delay):
    """Up to the delay they are those without; then the increments of t * mean, averaged."""
    b, names = forms()
    x = 2 * uniform(3, 2, 4, 4)
    plain = run(*spiking(b, *names), x, 9)
    graph, report = spiking(b, *names, delay=delay)
    delayed = run(graph, report, x, 9)
    assert operators(graph).count("DelayedMean") == len(names)
    for name in names:
        before = delay * plain[delay - 1][name]
        for t in range(1, 10):
            mean = plain[t - 1][name]
            expected = mean if t <= delay else (t * mean - before) / (t - delay)
            np.testing.assert_allclose(delayed[t - 1][name], expected, atol=1e-5)


def test_a_delay_says_from_which_step_on_the_read_out_is_averaged():
    b = Builder((4,))
    b.relu()
    _, report = spiking(b, delay=3)
    assert report.actions["read-out averaged from step 4 on"] == 1


def test_means_in_front_of_neurons_are_not_delayed():
    b, names = forms()
    x = 2 * uniform(3, 2, 4, 4)
    graph, report = spiking(b, *names)
    late, late_report = spiking(b, *names, delay=3)
    (before,) = (n for n in late.nodes if n.op == "RunningMean")
    assert [reader.op for reader in before.outputs[0].outputs] == ["Tanh"]
    potentials = [s.output for s in report.states if s.role == "potential"]
    ends = [run(*net, x, 7)[-1] for net in ((graph, report), (late, late_report))]
    for name in potentials:
        np.testing.assert_array_equal(ends[0][name], ends[1][name])


def test_what_follows_the_last_neuron_is_applied_to_the_delayed_mean():
    b = Builder((3,))
    spikes = b.relu()
    out = b.op("Softmax", axis=1)
    graph, report = spiking(b, spikes, out, delay=2)
    assert operators(graph).count("DelayedMean") == 1
    last = run(graph, report, uniform(2, 3), 5)[-1]
    exps = np.exp(last[spikes])
    np.testing.assert_allclose(last[out], exps / exps.sum(1, keepdims=True), atol=1e-6)


def test_inner_tensor_that_is_an_output_is_a_running_mean_under_its_name():
    b = Builder((3,))
    inner = b.relu()
    b.gemm(4)
    out = b.relu()
    graph, report = spiking(b, inner, out)
    assert [t.name for t in graph.outputs][:2] == [inner, out]
    last = run(graph, report, np.full((1, 3), 0.5, np.float32), 4)[-1]
    np.testing.assert_array_equal(last[inner], [[0.5, 0.5, 0.5]])


def test_step_graph_is_valid_onnx():
    b = Builder((3, 8, 8))
    b.conv(4)
    b.relu()
    b.op("MaxPool", kernel_shape=[2, 2], strides=[2, 2])
    b.conv(4)
    b.relu()
    b.head()
    graph, _ = spiking(b)
    onnx.checker.check_model(to_model(graph), full_check=True)


def test_unsupported_operator_is_refused_by_name():
    b = Builder((3,))
    b.relu()
    b.op("RandomNormalLike")
    with pytest.raises(UnsupportedError, match=r"randomnormallike1.*RandomNormalLike.*random"):
        spiking(b)


def test_integers_that_vary_over_time_cannot_feed_a_neuron_s_current():
    b = Builder((3,))
    b.relu()
    b.op("ArgMax", axis=1, keepdims=1)
    b.op("Cast", to=onnx.TensorProto.FLOAT)
    b.relu()
    graph, report = spiking(b)  # the integers stay on the mean; their float is a current
    assert "MeanIncrement" in operators(graph)
    assert run(graph, report, uniform(2, 3), 2)


def test_whole_numbers_in_front_of_neurons_cannot_be_delayed():
    b = Builder((1, 4, 4))
    b.relu()
    b.op("MaxPool", kernel_shape=[2, 2], strides=[2, 2], count=2)
    places = b.nodes[-1].output[1]
    b.op("Cast", places, to=onnx.TensorProto.FLOAT)
    b.op("Mul", b.last, b.constant(0.02))
    b.relu()
    with pytest.raises(UnsupportedError, match=r"maxpool1.*int64"):
        spiking(b, places, b.last, delay=2)


def test_indices_that_are_moved_stay_on_the_mean():
    b = Builder((1, 4, 4))
    b.relu()
    b.op("MaxPool", kernel_shape=[2, 2], strides=[2, 2], count=2)
    last, behind = (b.constant([i], np.int64) for i in (1, 2))
    b.op("Slice", "t1_1", last, behind, b.constant([2], np.int64))
    b.op("Cast", to=onnx.TensorProto.FLOAT)
    b.op("Mul", b.last, b.constant(0.02))
    b.op("MatMul", b.last, b.normal(2, 3))
    b.relu()
    graph, report = spiking(b)
    x = uniform(2, 1, 4, 4)
    found = run(graph, report, x, 64)[-1]
    for name, wanted in outputs_of(b.model(), x=x).items():
        np.testing.assert_allclose(found[name], wanted, atol=0.1)


def test_mean_that_is_not_finite_yet_gives_no_current():
    """log of what has not spiked: the current waits, and then makes up for it."""
    b = Builder((1,))
    spikes = b.relu()
    b.op("Log")
    b.relu()
    graph, report = spiking(b, spikes, b.last, v0=0.0)
    history = run(graph, report, np.array([[0.3]], np.float32), 10)
    charges = [values["relu2.potential.next"] for values in history]  # it is negative: no spikes
    assert np.isfinite(charges).all()
    np.testing.assert_allclose(charges[-1], 10 * np.log(history[-1][spikes]), rtol=1e-5)


def test_linear_node_between_means_stays_on_means():
    """x + f(x) in front of another nonlinear node: no current is made on the way."""
    b = Builder((4,))
    x = b.relu()
    b.op("Add", b.op("Sigmoid", x), x)
    b.op("Tanh")
    b.gemm(3)
    graph, _ = spiking(b)
    assert operators(graph).count("MeanIncrement") == 0  # the read-out needs none either
    b.relu()
    graph, _ = spiking(b)
    assert operators(graph).count("MeanIncrement") == 1


def test_spikes_beside_a_mean_reach_weights_as_spikes():
    b = Builder((3, 4, 4))
    spikes = b.relu()
    b.op("Concat", spikes, b.op("Sigmoid", spikes), axis=1)
    b.channels = 6
    b.conv(4)
    b.relu()
    graph, _ = spiking(b)
    (concat,) = (node for node in graph.nodes if node.op == "Concat")
    assert concat.inputs[1].inputs[0].op == "MeanIncrement"
    assert [node.op for node in concat.outputs[0].outputs] == ["Conv"]


def test_signed_layer_becomes_a_ternary_neuron():
    b = Builder((3, 4, 4))
    b.conv(4)
    b.op("Tanh")
    b.conv(4)
    graph, _ = clean(b.graph())
    relu_to_ratenorm(graph)
    encode(graph)
    for node in rate_norms(graph):
        node.inputs[1].values = np.ones_like(node.inputs[1].values)
    spike(graph, IntegrateAndFire())
    assert operators(graph).count("TernaryIntegrateAndFire") == 1


def test_initial_potential_may_be_another_for_a_layer():
    b = Builder((3,))
    b.relu()
    graph, _ = clean(b.graph())
    relu_to_ratenorm(graph)
    (norm,) = rate_norms(graph)
    norm.inputs[1].values = np.full_like(norm.inputs[1].values, 2.0)
    report = spike(graph, IntegrateAndFire(), {norm.name: 0.25})
    assert (report.states[0].default == 0.5).all()


def test_states_have_names_that_no_output_has():
    b = Builder((3,))
    b.gemm(4)
    b.relu()
    b.gemm(2)
    b.nodes[-1].output[0] = "relu1.potential.next"
    graph, report = spiking(b, "relu1.potential.next")
    names = {tensor.name for tensor in graph.outputs}
    assert {state.output for state in report.states} < names
    assert len(names) == len(graph.outputs)


def test_what_is_not_known_yet_does_not_reach_a_neuron_through_a_maximum():
    """0 / 0, as long as nothing has spiked."""
    b = Builder((3,))
    b.relu()
    total = b.op("ReduceSum", b.last, b.constant([1], np.int64))
    b.op("Div", b.nodes[0].output[0], total)
    b.op("ReduceMax", b.last, axes=[1], keepdims=1)
    b.relu()
    graph, report = spiking(b, v0=0.0)
    x = np.array([[0.3, 0.2, -1.0], [0.9, 0.6, 0.1]], np.float32)
    history = run(graph, report, x, 256)
    assert not np.isnan(history[0]["t3.last.next"]).any()
    found, expected = history[-1][b.last], outputs_of(b.model(), x=x)[b.last]
    np.testing.assert_allclose(found, expected, atol=0.03)
