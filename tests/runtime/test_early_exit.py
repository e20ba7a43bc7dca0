"""Early exit: samples stop once they are certain, at a margin calibrated without labels."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from onnxsnn import Runner, convert
from onnxsnn.errors import DataError, UsageError
from onnxsnn.runtime import BACKENDS
from onnxsnn.runtime.early_exit import (
    Exits,
    _Certainty,
    _failing,
    calibrate_margin,
    run_early,
)
from tests.models import Builder, dataset, uniform
from tests.networks import residual_network

X = uniform(120, 3, 8, 8)
T = 12


@pytest.fixture(scope="module")
def snn(tmp_path_factory):
    """Scores of four classes."""
    path = residual_network().save(tmp_path_factory.mktemp("early") / "model.onnx")
    return convert(path, dataset(x=X[:20]), timesteps=T).snn


@pytest.fixture(scope="module")
def regression(tmp_path_factory):
    """A map of two channels, which is no scores of classes."""
    b = Builder((3, 8, 8), seed=1)
    b.conv(6)
    b.relu()
    b.conv(2)
    path = b.save(tmp_path_factory.mktemp("regression") / "model.onnx")
    return convert(path, dataset(x=X[:20]), timesteps=64).snn


def only(outputs):
    (values,) = outputs.values()
    return values


def exits_of(scores, margin, delay=0):
    """Exits of a batch whose scores after each step are given, [T, N, classes]."""
    exits = Exits(scores.shape[1], margin, delay)
    for step, values in enumerate(scores):
        exits.see({"y": values}, {"a": np.full(len(values), step), "b": np.ones(len(values))})
    return exits


def test_sample_stops_when_its_lead_times_the_steps_reaches_the_margin():
    lead = np.array([[3.0, 0.9], [1.0, 1.1], [1.0, 0.5], [4.0, 0.5]], np.float32)  # [T, N]
    exits = exits_of(np.stack([lead + 2, 2 + 0 * lead, 0 * lead], axis=-1), 2.0)
    assert exits.timesteps.tolist() == [1, 2]
    assert exits.done.all()
    np.testing.assert_array_equal(exits.outputs["y"][:, 0], np.float32([5.0, 3.1]))
    assert exits.spikes.tolist() == [1, 2]  # step - 1 of layer a, 1 of layer b


def test_with_a_delay_the_steps_since_are_those_that_count():
    lead = np.array([[0.9, 0.9], [0.9, 0.9], [1.5, 2.5], [1.5, 0.0]], np.float32)  # [T, N]
    exits = exits_of(np.stack([lead, 0 * lead], axis=-1), 2.0, delay=2)
    assert exits.timesteps.tolist() == [4, 3]
    assert exits_of(np.stack([lead, 0 * lead], axis=-1), 2.0).timesteps.tolist() == [3, 3]


def test_until_a_delay_is_over_all_steps_count():
    lead = np.array([[0.5], [1.5], [1.5], [1.5], [1.5]], np.float32)  # [T, N]
    exits = exits_of(np.stack([lead, 0 * lead], axis=-1), 2.0, delay=4)
    assert exits.timesteps.tolist() == [2]


def test_sample_that_is_never_certain_keeps_what_it_has_last():
    scores = uniform(5, 2, 3)
    exits = exits_of(scores, 100.0)
    assert exits.timesteps.tolist() == [5, 5]
    assert not exits.done.any()
    np.testing.assert_array_equal(exits.outputs["y"], scores[-1])


@pytest.mark.parametrize("backend", BACKENDS)
def test_margin_of_zero_exits_at_once(snn, backend):
    runner = Runner(snn, backend, rates=True)
    run = run_early(runner, X[:9], 0.0)
    assert runner.steps_done == 1
    assert run.timesteps.tolist() == [1] * 9
    np.testing.assert_array_equal(only(run.outputs), only(runner.run(X[:9], 1).outputs))


@pytest.mark.parametrize("which", ["snn", "regression"])
def test_infinite_margin_never_exits_early(which, request):
    runner = Runner(request.getfixturevalue(which), rates=True)
    run = run_early(runner, {"x": X[:9]}, np.inf, 7)
    whole = runner.run(X[:9], 7)
    assert run.timesteps.tolist() == [7] * 9
    np.testing.assert_array_equal(only(run.outputs), only(whole.outputs))
    np.testing.assert_array_equal(run.spikes, sum(whole.spikes.values()))


def test_outputs_and_spikes_are_those_of_the_step_of_the_exit(snn):
    runner = Runner(snn, rates=True)
    run = run_early(runner, X, calibrate_margin(runner, dataset(x=X), agreement=0.9))
    assert len(set(run.timesteps)) > 2
    for step in set(run.timesteps):
        mine = run.timesteps == step
        result = runner.run(X, int(step))
        np.testing.assert_allclose(only(run.outputs)[mine], only(result.outputs)[mine], atol=1e-5)
        np.testing.assert_array_equal(run.spikes[mine], sum(result.spikes.values())[mine])


def test_batch_stops_when_its_last_sample_is_done(snn):
    runner = Runner(snn)
    run = run_early(runner, X[:30], calibrate_margin(runner, dataset(x=X), agreement=0.5))
    assert runner.steps_done == run.timesteps.max() < T


@pytest.fixture(scope="module")
def late(tmp_path_factory):
    """The same with a delay."""
    path = residual_network().save(tmp_path_factory.mktemp("late") / "model.onnx")
    return convert(path, dataset(x=X[:20]), timesteps=T, delay=4).snn


@pytest.mark.parametrize("which", ["snn", "late"])
@pytest.mark.parametrize("agreement", [0.5, 0.8, 0.9, 0.99, 1.0])
def test_calibrated_agreement_is_met_on_the_calibration_data(which, agreement, request):
    runner = Runner(request.getfixturevalue(which))
    margin = calibrate_margin(runner, dataset(x=X), agreement=agreement)
    early, whole = run_early(runner, X, margin), runner.run(X)
    kept = only(early.outputs).argmax(axis=1) == only(whole.outputs).argmax(axis=1)
    assert kept.mean() >= agreement


def test_mean_timesteps_fall_as_the_agreement_falls(snn):
    runner = Runner(snn)
    margins = [calibrate_margin(runner, dataset(x=X), agreement=a) for a in (1.0, 0.95, 0.8, 0.5)]
    means = [run_early(runner, X, margin).timesteps.mean() for margin in margins]
    assert means == sorted(means, reverse=True)
    assert means[-1] < means[0] < T


@pytest.mark.parametrize("which", ["snn", "late"])
def test_margin_is_no_greater_than_it_must_be(which, request):
    runner = Runner(request.getfixturevalue(which))
    margin = calibrate_margin(runner, dataset(x=X), agreement=1.0)
    below = float(np.nextafter(margin, 0))
    assert (run_early(runner, X, below).timesteps <= run_early(runner, X, margin).timesteps).all()
    assert (run_early(runner, X, below).timesteps < run_early(runner, X, margin).timesteps).any()


def test_calibration_is_for_the_timesteps_that_will_be_run(snn):
    assert calibrate_margin(Runner(snn), dataset(x=X), 1) == 0.0


def test_calibration_reports_its_progress(snn):
    seen = []
    calibrate_margin(Runner(snn), dataset(x=X), 2, progress=lambda *a: seen.append(a))
    assert seen == [(50, 120), (100, 120), (120, 120)]


def test_other_outputs_stop_when_they_have_converged(regression):
    runner = Runner(regression)
    final = only(runner.run(X, 64).outputs)
    steps, errors = [], []
    for tolerance in (0.2, 0.1, 0.05):
        run = run_early(runner, X, 1 / tolerance, 64)
        steps.append(run.timesteps.mean())
        errors.append(np.linalg.norm(only(run.outputs) - final) / np.linalg.norm(final))
    assert 4 <= steps[0] < steps[1] < steps[2] < 64
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 0.1


@pytest.mark.parametrize("error", [0.1, 0.3])
def test_other_outputs_are_calibrated_to_an_error(regression, error):
    runner = Runner(regression)
    margin = calibrate_margin(runner, dataset(x=X), 64, agreement=0.9, error=error)
    run, final = run_early(runner, X, margin, 64), only(runner.run(X, 64).outputs)
    far = np.linalg.norm((only(run.outputs) - final).reshape(len(X), -1), axis=1)
    norm = np.linalg.norm(final.reshape(len(X), -1), axis=1)
    assert (far <= error * norm).mean() >= 0.9
    assert 4 <= run.timesteps.mean() < 64


def test_outputs_that_have_not_moved_yet_are_not_done():
    exits = Exits(1, 10.0)
    for values in (1.0, 1.0, 1.0, 5.0, 5.0, 5.0):
        exits.see({"y": np.full((1, 2, 2), values)}, {})
    assert exits.timesteps.tolist() == [4 + 2]
    exits = Exits(1, 10.0)
    for _ in range(9):
        exits.see({"y": np.zeros((1, 2, 2))}, {})
    assert exits.timesteps.tolist() == [4]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("values", [(np.nan, 1.0), (-np.inf, -np.inf)])
def test_outputs_that_are_not_finite_are_not_certain(values):
    scores = np.array([[values], [(3.0, 1.0)]])  # [T, N, classes]
    exits = exits_of(scores, 0.5)
    assert exits.timesteps.tolist() == [2]
    history = [{"y": step} for step in scores]
    assert _failing(history, _Certainty(1, 0), 0.1) == [-np.inf]


def test_every_output_must_have_converged():
    exits = Exits(1, 10.0)
    for step in range(1, 8):
        exits.see({"a": np.ones((1, 3, 1)), "b": np.full((1, 1, 1), 2.0**step)}, {})
    assert not exits.done.any()


def test_settings_that_make_no_sense_are_refused(snn):
    runner = Runner(snn)
    for margin in (-1.0, np.nan):
        with pytest.raises(UsageError, match="0 or more"):
            run_early(runner, X, margin)
    for shares in ({"agreement": 0.0}, {"agreement": 1.1}, {"error": 0.0}):
        with pytest.raises(UsageError, match="shares"):
            calibrate_margin(runner, dataset(x=X), **shares)
    with pytest.raises(UsageError, match="1 or more"):
        calibrate_margin(runner, dataset(x=X), 0)


@pytest.mark.parametrize("shapes", [[(3, 2, 2)], [()], [(2, 2, 2), (2, 3, 2)]])
def test_outputs_without_one_row_per_sample_are_refused(shapes):
    exits = Exits(2, 1.0)
    *fitting, last = shapes
    for shape in fitting:
        exits.see({"y": np.zeros(shape)}, {})
    with pytest.raises(DataError, match="one row per sample"):
        exits.see({"y": np.zeros(last)}, {})


def test_samples_that_are_done_leave_the_batch(snn, monkeypatch):
    runner = Runner(snn, rates=True)
    margin = calibrate_margin(runner, dataset(x=X), agreement=0.9)
    sizes, advance = [], runner._backend.advance

    def watched(inputs, state, *more):
        sizes.append(len(inputs["x"].numpy() if "x" in inputs else next(iter(state.values()))))
        return advance(inputs, state, *more)

    monkeypatch.setattr(runner._backend, "advance", watched)
    run = run_early(runner, X, margin)
    assert sum(sizes) * 2 < len(X) * run.timesteps.max()
    with pytest.raises(DataError, match="have left the batch"):
        runner.step(X)
    runner.reset()
    runner.step(X)


def alone(history, margin):
    """The step at which one sample is done, and its outputs then, as the module describes it.

    Args:
        history: its outputs by name after each step.
        margin: to reach.
    """
    changes = []
    for step, outputs in enumerate(history, 1):
        first = next(iter(outputs.values()))
        if step > 1:
            changes.append(max(change(outputs[n], history[step - 2][n]) for n in outputs))
        if first.ndim == 1 and len(first) > 1:
            second, best = sorted(map(float, first))[-2:]
            certainty = step * (best - second)
        else:
            certainty = 1 / max(*changes[-3:], 2.0**-24) if len(changes) >= 3 else 0.0
        if certainty >= margin:
            return step, outputs
    return len(history), history[-1]


def change(now, before):
    norm = np.linalg.norm(now.astype(float))
    return np.linalg.norm(now.astype(float) - before) / max(norm, np.finfo(float).tiny)


@given(
    data=st.data(),
    shapes=st.sampled_from([[(3,)], [(2, 2)], [(1,)], [(3,), (2, 2)], [(2, 2), (3,)]]),
    steps=st.integers(1, 9),
    samples=st.integers(1, 4),
    margin=st.sampled_from([0.0, 0.5, 1.5, 4.0, np.inf]),
)
def test_a_batch_decides_as_each_of_its_samples_alone(data, shapes, steps, samples, margin):
    values = st.integers(-2, 2).map(lambda i: i / 2)
    history = [
        {
            f"y{i}": data.draw(arrays(np.float32, (samples, *shape), elements=values))
            for i, shape in enumerate(shapes)
        }
        for _ in range(steps)
    ]
    exits = Exits(samples, margin)
    for step, outputs in enumerate(history):
        exits.see(outputs, {"a": np.arange(samples) + 10.0 * step})
    for i in range(samples):
        step, outputs = alone([{n: v[i] for n, v in o.items()} for o in history], margin)
        assert exits.timesteps[i] == step
        assert exits.spikes[i] == i + 10 * (step - 1)
        for name, values in outputs.items():
            np.testing.assert_array_equal(exits.outputs[name][i], values)


@settings(max_examples=10, deadline=None)
@given(share=st.floats(0.02, 0.98), samples=st.integers(1, 40), seed=st.integers(0, 99))
def test_samples_that_leave_the_batch_change_nothing_for_those_that_stay(snn, share, samples, seed):
    """Against a run of all samples to the end, whose history is judged sample by sample."""
    x = uniform(samples, 3, 8, 8, seed=seed)
    runner = Runner(snn, memory=2**17)
    history = [only(outputs) for outputs in runner.steps(x, T)]
    second, best = np.partition(np.stack(history), -2, axis=2)[..., -2:].transpose(2, 0, 1)
    margin = between(np.arange(1, T + 1)[:, None] * (best - second), share)
    run = run_early(runner, x, margin)
    for i in range(samples):
        step, outputs = alone([{"y": values[i]} for values in history], margin)
        assert run.timesteps[i] == step
        np.testing.assert_allclose(only(run.outputs)[i], outputs["y"], atol=1e-5)


def between(certainties, share):
    """A margin that no certainty is near, so that rounding decides nothing."""
    values = np.sort(certainties, axis=None)
    gaps = np.diff(values)
    near = np.abs(np.arange(len(gaps)) - share * len(gaps))
    place = min(np.flatnonzero(gaps > 1e-3), key=lambda i: near[i])
    return float(values[place] + gaps[place] / 2)


def test_a_run_counts_the_steps_since_its_delay(late):
    scores = np.stack([only(outputs) for outputs in Runner(late).steps(X[:30], T)])
    second, best = np.partition(scores, -2, axis=2)[..., -2:].transpose(2, 0, 1)
    counted = np.array([1, 2, 3, 4, *range(1, T - 3)])
    margin = between(counted[:, None] * (best - second), 0.5)
    timesteps = run_early(Runner(late), X[:30], margin).timesteps.tolist()
    assert timesteps == exits_of(scores, margin, delay=4).timesteps.tolist()
    assert timesteps != exits_of(scores, margin).timesteps.tolist()


def test_samples_leave_what_has_them_along_another_axis(tmp_path):
    """The sequence comes first in what is computed before the first neuron, and read behind it."""
    b = Builder((7, 8))
    static = b.op("Transpose", perm=[1, 0, 2])
    b.op("MatMul", "x", b.normal(8, 8))
    b.relu()
    b.op("MatMul", b.last, b.normal(8, 8))
    b.op("Transpose", perm=[1, 0, 2])
    b.op("Add", b.last, static)
    b.op("Transpose", perm=[1, 0, 2])
    b.op("LayerNormalization", b.last, b.normal(8))
    b.op("MatMul", b.last, b.normal(8, 3))
    b.op("ReduceMean", b.last, axes=[1], keepdims=0)
    x = uniform(30, 7, 8)
    snn = convert(b.save(tmp_path / "m.onnx"), dataset(x=x), timesteps=T).snn
    runner = Runner(snn, memory=2**14)
    history = [only(outputs) for outputs in runner.steps(x, 32)]
    assert not runner.warnings
    done = np.arange(len(x)) % 3 == 0
    for step, outputs in enumerate(runner.steps(x, 32, lambda: ~done)):
        np.testing.assert_allclose(only(outputs)[~done], history[step][~done], atol=1e-5)
    assert len(runner._rows) == np.count_nonzero(~done)


def tokens(b):
    """Several rows of each sample."""
    b.op("Reshape", "x", b.constant([-1, 8], np.int64))
    for _ in range(2):
        b.gemm(8, inputs=8)
        b.relu()
    b.op("Reshape", b.last, b.constant([-1, 5, 8], np.int64))
    b.op("ReduceMean", axes=[1], keepdims=0)


def shapes(b):
    """The number of samples among sizes."""
    hidden = b.op("Relu", b.op("MatMul", "x", b.normal(8, 8)))
    mean = b.op("ReduceMean", hidden, axes=[1], keepdims=1)
    b.op("Add", b.op("Expand", mean, b.op("Shape", "x")), hidden)
    b.op("Relu", b.op("MatMul", b.last, b.normal(8, 8)))
    b.op("ReduceMean", axes=[1], keepdims=0)


@pytest.mark.parametrize("memory", [None, 1])
@pytest.mark.parametrize("margin", [0.3, 1.0])
@pytest.mark.parametrize("structure", [tokens, shapes])
def test_samples_of_several_rows_stop_as_others_do(tmp_path, structure, margin, memory):
    b = Builder((5, 8))
    structure(b)
    b.op("MatMul", b.last, b.normal(8, 3, scale=3.0))
    x = uniform(12, 5, 8)
    snn = convert(b.save(tmp_path / "m.onnx"), dataset(x=x), timesteps=8).snn
    early = run_early(Runner(snn, memory=memory), x, margin)
    history = list(Runner(snn).steps(x, 8))
    assert early.timesteps.min() < 8
    for sample, steps in enumerate(early.timesteps):
        for name, values in early.outputs.items():
            expected = history[steps - 1][name][sample]
            np.testing.assert_allclose(values[sample], expected, atol=1e-4)
