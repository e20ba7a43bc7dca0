"""The Runner: steps, resets, batches, rates, taps, backends."""

import weakref

import numpy as np
import pytest
from onnx import TensorProto, helper

from onnxsnn import BurstIntegrateAndFire, MultiThreshold, Runner, convert, load_source
from onnxsnn.errors import DataError, ModelError, UsageError
from onnxsnn.runtime import BACKENDS
from onnxsnn.session import SampleSession, Session
from tests.models import Builder, assert_same, dataset, uniform
from tests.networks import IntegerBuilder, eighths, residual_network

X = uniform(7, 3, 8, 8)


@pytest.fixture(scope="module")
def snn(tmp_path_factory):
    path = residual_network().save(tmp_path_factory.mktemp("runner") / "model.onnx")
    return convert(path, dataset(x=X), timesteps=6).snn


def only(outputs):
    (values,) = outputs.values()
    return values


@pytest.mark.parametrize("backend", BACKENDS)
def test_steps_are_a_run(snn, backend):
    runner = Runner(snn, backend)
    by_hand = [only(runner.step(X)) for _ in range(6)]
    result = runner.run(X, 6, every_step=True)
    for mine, its in zip(by_hand, result.every_step, strict=True):
        np.testing.assert_array_equal(mine, only(its))
    np.testing.assert_array_equal(only(result.outputs), by_hand[-1])


@pytest.fixture(scope="module", params=[False, True], ids=["float", "integer"])
def late(request, tmp_path_factory):
    """A network of whole weights without a delay, and with one of 3 steps."""
    b = IntegerBuilder((2, 6, 6), seed=3)
    b.conv(4)
    b.clip(4.0)
    b.op("Flatten")
    b.gemm(3, inputs=144)
    path = b.save(tmp_path_factory.mktemp("late") / "model.onnx")
    return [convert(path, timesteps=6, delay=d, integer=request.param).snn for d in (0, 3)]


@pytest.mark.parametrize("memory", [None, 1], ids=["together", "step by step"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_outputs_behind_a_delay_are_the_mean_of_the_steps_since(late, backend, memory):
    x = eighths(5, 2, 6, 6)
    plain, delayed = (Runner(snn, backend, memory=memory) for snn in late)
    means = [only(outputs) for outputs in plain.steps(x, 8)]
    found = [only(outputs) for outputs in delayed.steps(x, 8)]
    for t, mean in enumerate(means, start=1):
        expected = mean if t <= 3 else (t * mean - 3 * means[2]) / (t - 3)
        np.testing.assert_allclose(found[t - 1], expected, atol=1e-4)
    np.testing.assert_allclose(only(delayed.run(x, 8).outputs), found[-1], atol=1e-5)


def test_steps_is_a_generator(snn):
    runner = Runner(snn)
    generator = runner.steps(X, 1000)
    next(generator)
    next(generator)
    assert runner.steps_done == 2


def test_timesteps_are_those_converted_for_unless_told(snn):
    runner = Runner(snn)
    runner.run(X)
    assert runner.steps_done == 6


def test_reset_forgets(snn):
    runner = Runner(snn)
    first = only(runner.step(X))
    runner.step(X)
    runner.reset()
    np.testing.assert_array_equal(only(runner.step(X)), first)


def test_a_state_goes_on_where_it_stopped(snn):
    whole, parts = Runner(snn), Runner(snn)
    expected = only(whole.run(X, 5).outputs)
    for _ in range(2):
        parts.step(X)
    for _ in range(3):
        last = only(parts.step(X))
    np.testing.assert_array_equal(last, expected)


def test_samples_do_not_see_each_other(snn):
    together = only(Runner(snn).run(X, 5).outputs)
    alone = [only(Runner(snn).run(X[i : i + 1], 5).outputs) for i in range(len(X))]
    np.testing.assert_allclose(together, np.concatenate(alone), atol=1e-5)


def test_backends_agree(snn):
    left, right = (only(Runner(snn, backend).run(X, 6).outputs) for backend in BACKENDS)
    np.testing.assert_allclose(left, right, atol=1e-4)


def test_rates_are_the_mean_of_the_spikes(snn):
    taps = list(snn.spikes.values())
    runner = Runner(snn, rates=True, taps=taps)
    totals = dict.fromkeys(taps, 0.0)
    for outputs in runner.steps(X, 6):
        for name in taps:
            totals[name] = totals[name] + outputs[name]
    rates = runner.rates()
    for layer, name in snn.spikes.items():
        assert rates[layer] == pytest.approx(totals[name].mean() / 6, rel=1e-5)
        per_sample = totals[name].reshape(len(X), -1).sum(axis=1)
        np.testing.assert_allclose(runner.spikes[layer], per_sample, rtol=1e-6)


@pytest.mark.parametrize("integer", [False, True])
def test_negative_spikes_of_a_burst_count_as_others(tmp_path, integer):
    b = Builder((6,))
    b.gemm(8)
    b.op("Tanh")
    b.gemm(5)
    b.relu()
    b.gemm(3)
    x = uniform(16, 6)
    path, neuron = b.save(tmp_path / "m.onnx"), BurstIntegrateAndFire(levels=3)
    snn = convert(path, dataset(x=x), timesteps=4, neuron=neuron, integer=integer).snn
    layer = next(iter(snn.spikes))
    runner = Runner(snn, rates=True)
    runner.run(x, 4)
    plain = snn.unrounded()
    tap = plain.spikes[layer]
    steps = [outputs[tap] for outputs in Runner(plain, taps=[tap]).steps(x, 4)]
    assert min(values.min() for values in steps) < -1
    expected = sum(np.abs(values).sum(axis=1) for values in steps)
    np.testing.assert_allclose(runner.spikes[layer], expected, rtol=0.05)


def test_a_small_spike_counts_as_one(tmp_path):
    path = residual_network().save(tmp_path / "m.onnx")
    snn = convert(path, dataset(x=X), timesteps=3, neuron=MultiThreshold(), correct=False).snn
    history = list(Runner(snn, taps=list(snn.spikes.values())).steps(X, 3))
    counted = Runner(snn, rates=True).run(X).spikes
    for layer, name in snn.spikes.items():
        sent = sum((outputs[name] != 0).reshape(len(X), -1).sum(axis=1) for outputs in history)
        np.testing.assert_array_equal(counted[layer], sent)


@pytest.mark.parametrize("backend", BACKENDS)
def test_taps_may_repeat_each_other_and_the_outputs(snn, backend):
    tap = next(iter(snn.spikes.values()))
    result = Runner(snn, backend, taps=[tap, *snn.outputs, tap], rates=True).run(X, 2)
    assert list(result.outputs) == [*snn.outputs, tap]
    np.testing.assert_array_equal(
        result.outputs[snn.outputs[0]], only(Runner(snn, backend).run(X, 2).outputs)
    )


def test_a_state_is_no_tap(snn):
    with pytest.raises(UsageError, match="no tensor"):
        Runner(snn, taps=[snn.states[0].output])


def test_counters_are_not_among_the_outputs(snn):
    result = Runner(snn, rates=True).run(X, 2)
    assert list(result.outputs) == snn.outputs
    assert set(result.rates) == set(snn.spikes)


def test_outputs_of_one_sample_get_an_axis_of_samples(tmp_path):
    """Where a batch of one that the graph mixes stays, and none of what it gives has the axis."""
    b = Builder((3, 6), batch=1)
    b.op("Squeeze", b.last, b.constant([0], np.int64))
    b.op("CumSum", b.last, b.constant(0, np.int64))
    b.relu()
    x = uniform(5, 3, 6)
    snn = convert(b.save(tmp_path / "m.onnx"), dataset(x=x), timesteps=64).snn
    found, expected = only(Runner(snn).run(x).outputs), SampleSession(b.model()).run({"x": x})
    assert found.shape == only(expected).shape == (5, 3, 6)
    assert np.abs(found - only(expected)).max() < 0.1


def test_fixed_batch_is_run_in_pieces(tmp_path):
    """A batch that the graph mixes stays fixed; the Runner fills and cuts."""
    b = Builder((4,), batch=2)
    b.op("Sub", "x", b.op("ReduceMean", "x", axes=[0], keepdims=1))
    b.relu()
    b.gemm(3)
    snn = convert(b.save(tmp_path / "m.onnx"), dataset(x=uniform(6, 4)), timesteps=4).snn
    x = uniform(5, 4)
    runner = Runner(snn, rates=True)
    values = only(runner.run(x, 4).outputs)
    filled = np.concatenate([x, x[-1:]])
    pieces = [only(Runner(snn).run(filled[i : i + 2], 4).outputs) for i in (0, 2, 4)]
    np.testing.assert_array_equal(values, np.concatenate(pieces)[:5])
    assert len(runner.spikes["relu2"]) == 5


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("batch", ["N", 2])
def test_an_output_may_be_one_number_for_a_whole_batch(tmp_path, backend, batch):
    """The mean over samples too; for several batches of a fixed size there is no such number."""
    b = Builder((4,), batch=batch)
    b.gemm(3)
    b.relu()
    mean = b.op("ReduceMean", keepdims=0)
    source = load_source(b.save(tmp_path / "m.onnx", mean))
    x = uniform(2, 4)
    runner = Runner(convert(source, dataset(x=uniform(6, 4)), timesteps=64).snn, backend)
    value, expected = (
        only(outputs) for outputs in (runner.run(x).outputs, Session(source.model).run({"x": x}))
    )
    assert value.shape == ()
    assert value == pytest.approx(expected, rel=0.1)
    if batch == 2:
        with pytest.raises(DataError, match="one number for a whole batch"):
            runner.run(uniform(3, 4))


def test_inputs_by_name_are_taken(snn):
    np.testing.assert_array_equal(
        only(Runner(snn).run({"x": X}, 3).outputs), only(Runner(snn).run(X, 3).outputs)
    )


def test_doubles_are_taken_as_floats(snn):
    np.testing.assert_array_equal(
        only(Runner(snn).run(X.astype(np.float64), 3).outputs), only(Runner(snn).run(X, 3).outputs)
    )


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (np.zeros((2, 3, 8), np.float32), "takes shape"),
        (np.zeros((2, 3, 9, 8), np.float32), "takes shape"),
        (np.zeros((0, 3, 8, 8), np.float32), "samples"),
        (np.zeros((2, 3, 8, 8), complex), "complex128 came"),
        ([[1.0, 2.0], [3.0]], "no array"),
        (np.float32(1), "axis of samples"),
        ({"y": X}, "'y'"),
        ({"x": X, "y": X}, "'y'"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(snn, inputs, message):
    with pytest.raises(DataError, match=message):
        Runner(snn).run(inputs, 2)


def test_whole_numbers_that_an_input_cannot_hold_are_refused(tmp_path):
    b = Builder((4,))
    b.inputs = [helper.make_tensor_value_info("x", TensorProto.INT32, ["N", 4])]
    b.op("Cast", "x", to=TensorProto.FLOAT)
    b.relu()
    b.gemm(3, inputs=4)
    x = np.arange(8).reshape(2, 4)
    data = dataset(x=x.astype(np.int32))
    snn = convert(b.save(tmp_path / "m.onnx"), data, timesteps=2).snn
    Runner(snn).run(x)
    with pytest.raises(DataError, match="takes int32, and larger numbers came"):
        Runner(snn).run(x + 2**32)


@pytest.mark.parametrize("backend", BACKENDS)
def test_inputs_on_which_the_model_fails_are_named(tmp_path, backend):
    b = Builder((3, "H", "W"))
    b.conv(4)
    b.relu()
    b.op("Reshape", b.last, b.constant([-1, 256], np.int64))
    b.gemm(3, inputs=256)
    snn = convert(b.save(tmp_path / "m.onnx"), dataset(x=X), timesteps=2).snn
    with pytest.raises(DataError, match=r"fails on inputs of shape x \[7, 3, 9, 9\]"):
        Runner(snn, backend).run(uniform(7, 3, 9, 9))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.filterwarnings("ignore:overflow", "ignore:invalid")  # NumPy's own
def test_inputs_that_overflow_in_a_layer_are_refused(tmp_path, backend):
    b = Builder((2,))
    b.op("MatMul", "x", b.constant(10 * np.eye(2)))
    b.op("MatMul", b.last, b.constant([[1.0] * 3, [-1.0] * 3]))
    b.relu()
    b.gemm(3, inputs=3)
    path = b.save(tmp_path / "m.onnx")
    snn = convert(path, dataset(x=uniform(8, 2)), timesteps=4).snn
    huge = np.full((8, 2), 3e38, np.float32)
    with pytest.raises(DataError, match=r"overflow or are NaN on these data \(in layer 'relu2'"):
        Runner(snn, backend, rates=True).run(huge)


@pytest.mark.parametrize("size", [1, 3, 5])  # ONNX Runtime takes odd ones alone
def test_backends_agree_on_neighbouring_channels(tmp_path, size):
    """More channels than samples, of which onnx's reference implementation reads as many."""
    b = Builder((6, 4, 4))
    b.conv(6)
    b.relu()
    b.op("LRN", size=size, alpha=0.5, beta=0.6, bias=1.5)
    b.head()
    x = uniform(3, 6, 4, 4)
    snn = convert(b.save(tmp_path / "m.onnx"), dataset(x=x), timesteps=4).snn
    assert_same(Runner(snn).run(x).outputs, Runner(snn, "numpy").run(x).outputs, 1e-4)


@pytest.mark.parametrize("seed", range(4))
def test_samples_that_decide_together_run_as_they_step(tmp_path, seed):
    b = Builder((8,), seed=seed)
    mean = b.op("ReduceMean", "x", keepdims=0)
    positive = b.op("Greater", mean, b.constant(0.0))
    hidden = b.op("Relu", b.op("MatMul", "x", b.normal(8, 8)))
    one, other = (b.op("MatMul", hidden, b.normal(8, 3)) for _ in range(2))
    b.op("Where", positive, one, other)
    x = np.random.default_rng(seed).normal(size=(24, 8)).astype(np.float32)
    snn = convert(b.save(tmp_path / "m.onnx"), dataset(x=x), timesteps=16, correct=False).snn
    stepping, running = Runner(snn), Runner(snn)
    for _ in range(16):
        expected = stepping.step(x)
    assert_same(running.run(x).outputs, expected)
    assert "depend on each other" in running.warnings[0]


def test_what_numpy_makes_no_array_of_is_refused(snn):
    class Trained:
        def __array__(self, *_, **__):
            raise RuntimeError("it takes part in training")

    with pytest.raises(DataError, match="'x' is no array: it takes part in training"):
        Runner(snn).run(Trained())


class _State(dict):
    """A state that may be watched."""


@pytest.mark.parametrize(("every_step", "kept"), [(False, 6), (True, 11)])
def test_states_that_nobody_returns_to_are_let_go_one_by_one(snn, every_step, kept):
    """Six samples of which each is a piece, in two chunks of a step."""
    x = uniform(6, 3, 8, 8)
    runner = Runner(snn, memory=1)
    states, alive = [], []
    advance = runner._backend.advance

    def watched(*args):
        alive.append(sum(state() is not None for state in states))
        outputs, after = advance(*args)
        state = _State(after)
        states.append(weakref.ref(state))
        return outputs, state

    runner._backend.advance = watched
    runner.run(x, 2, every_step=every_step)
    assert len(alive) == 12
    assert alive[-1] == kept
    assert_same(runner.step(x), Runner(snn).run(x, 3).outputs)


def test_another_batch_in_mid_run_is_refused(snn):
    runner = Runner(snn)
    runner.step(X)
    with pytest.raises(DataError, match="reset first"):
        runner.step(X[:2])


def test_timesteps_backend_and_tap_that_are_none_are_refused(snn):
    for timesteps in (0, 2.5):
        with pytest.raises(UsageError, match="1 or more"):
            Runner(snn).run(X, timesteps)
    for options in ({"threads": -1}, {"threads": 1.5}, {"memory": 0}, {"memory": "64MB"}):
        with pytest.raises(UsageError, match="1 or more"):
            Runner(snn, **options)
    with pytest.raises(UsageError, match="backend"):
        Runner(snn, "abacus")
    with pytest.raises(UsageError, match="no tensor 'gone'"):
        Runner(snn, taps=["gone"])


def test_ann_is_refused(tmp_path):
    with pytest.raises(ModelError, match="convert it first"):
        Runner(residual_network().save(tmp_path / "m.onnx"))


def test_samples_that_leave_keep_their_outputs_whatever_a_caller_does_with_them(tmp_path):
    """Beside an output that is the same for any sample."""
    b = Builder((5, 8))
    boxes = b.op("Identity", b.normal(7, 2))
    b.op("Relu", b.op("MatMul", "x", b.normal(8, 8)))
    scores = b.op("MatMul", b.last, b.normal(8, 3))
    model = b.save(tmp_path / "m.onnx", scores, boxes)
    x = uniform(12, 5, 8)
    snn = convert(model, dataset(x=x), timesteps=8).snn
    expected = list(Runner(snn).steps(x, 8))
    stays = np.arange(12) % 3 > 0
    runner, last = Runner(snn), None
    for step, outputs in enumerate(runner.steps(x, 8, lambda: stays)):
        assert_same({scores: expected[step][scores][stays]}, {scores: outputs[scores][stays]})
        assert_same({boxes: expected[step][boxes]}, {boxes: outputs[boxes]})
        if len(runner._rows) < 12 and last is not None:
            np.testing.assert_array_equal(outputs[scores][~stays], last)
        last = outputs[scores][~stays].copy()
        for values in outputs.values():
            values[:] = np.inf
    assert len(runner._rows) == 8


def test_neurons_are_as_many_when_samples_have_left(snn):
    runner = Runner(snn, rates=True)
    runner.run(X)
    neurons = dict(runner.neurons)
    for _ in runner.steps(X, 6, lambda: np.arange(len(X)) < 3):
        pass
    assert len(runner._rows) == 3
    assert runner.neurons == neurons
