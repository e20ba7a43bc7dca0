"""Bench: tensors of both networks, from the input or from what is recorded, are the same."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxsnn.calibration import cut
from onnxsnn.calibration.cut import Bench
from onnxsnn.graph import nodes_before
from onnxsnn.model import SpikingModel
from onnxsnn.neurons import RECTIFYING_NEURONS, IntegrateAndFire
from onnxsnn.passes.relu_to_ratenorm import relu_to_ratenorm
from onnxsnn.passes.spike import spike
from onnxsnn.ratenorm import rate_norms
from onnxsnn.runtime.runner import Runner
from tests.models import Builder, dataset, outputs_of, uniform
from tests.networks import eighths, integer_networks

T = 4


def bench_of(builder, x, neuron=None, timesteps=T):
    """A bench of a network whose thresholds are its limits."""
    graph = builder.graph()
    relu_to_ratenorm(graph)
    return Bench(graph, graph.copy(), dataset(x=x), neuron or IntegrateAndFire(), timesteps)


def observed(bench, *names):
    """Currents of all steps and batches, [T, N, ...] each, and the ANN's values, [N, ...]."""
    pieces = [(list(steps), values) for steps, values in bench.observe(names)]
    currents = [
        np.concatenate([np.stack([step[i] for step in steps]) for steps, _ in pieces], axis=1)
        for i in range(len(names))
    ]
    values = [np.concatenate([values[i] for _, values in pieces]) for i in range(len(names))]
    return currents, values


def record(bench, tensor):
    """Record a tensor for all that is not computed before it, which is given back."""
    before = {id(node) for node in nodes_before([tensor])}
    later = [node for node in bench.graph.nodes if id(node) not in before]
    bench.record(tensor, later)
    return later


def held(bench):
    """Names of the tensors that a bench has recorded."""
    return set(bench._records)


@settings(max_examples=15, deadline=None)
@given(
    b=integer_networks(),
    timesteps=st.integers(1, 6),
    neuron=st.sampled_from(sorted(RECTIFYING_NEURONS)),
)
def test_what_is_computed_from_records_is_the_same(b, timesteps, neuron):
    x = eighths(7, 2, 6, 6)
    bench = bench_of(b, x, RECTIFYING_NEURONS[neuron](), timesteps)
    before = {t.name: observed(bench, t.name) for n in bench.graph.nodes for t in n.outputs}
    for layer in rate_norms(bench.graph):
        later = record(bench, layer.outputs[0])
        assert layer.outputs[0].name in held(bench)
        for name in (tensor.name for node in later for tensor in node.outputs):
            for values, expected in zip(observed(bench, name), before[name], strict=True):
                np.testing.assert_array_equal(values, expected)


@settings(max_examples=10, deadline=None)
@given(integer_networks())
def test_currents_are_those_of_the_snn_and_values_those_of_the_ann(b):
    x = eighths(60, 2, 6, 6)  # more than one batch
    bench = bench_of(b, x)
    (name,) = (output.name for output in bench.graph.outputs)
    (currents,), (values,) = observed(bench, name)
    whole = bench.graph.copy()
    states = spike(whole, bench.neuron).states
    runner = Runner(SpikingModel.build(whole, states, {"timesteps": T}, []))
    ((mean),) = runner.run(x, T).outputs.values()
    np.testing.assert_allclose(currents.mean(axis=0), mean, rtol=1e-6)
    np.testing.assert_array_equal(values, outputs_of(bench.reference, x=x)[name])


def test_a_gate_is_the_same_without_what_it_gates():
    b = Builder((3, 6, 6))
    b.conv(4)
    before = b.clip(2.0)
    source = b.conv(4)
    gate = b.relu()
    gated = b.op("Conv", before, b.normal(4, 4, 3, 3), pads=[1] * 4)
    product = b.op("Mul", gate, gated)
    bench = bench_of(b, uniform(5, 3, 6, 6), timesteps=8)
    expected = observed(bench, product)
    (given, rectified), _ = observed(bench, source, gate)
    means = np.maximum(given.mean(axis=0), 0)
    np.testing.assert_allclose(rectified.mean(axis=0), means, rtol=1e-4, atol=1e-5)
    record(bench, bench.graph.tensors()[gate])
    assert held(bench) == {gate}
    for values, wanted in zip(observed(bench, product), expected, strict=True):
        np.testing.assert_allclose(values, wanted, rtol=1e-4, atol=1e-5)


def two_layers():
    b = Builder((3, 6, 6))
    b.conv(4)
    b.clip(2.0)
    b.conv(4)
    b.clip(2.0)
    b.op("Flatten")
    b.gemm(3, inputs=144)
    return b


def test_what_nothing_later_needs_is_forgotten():
    bench = bench_of(two_layers(), uniform(5, 3, 6, 6))
    first, second = (layer.outputs[0] for layer in rate_norms(bench.graph))
    (read_out,) = (node for node in bench.graph.nodes if node.op == "Gemm")
    record(bench, first)
    assert held(bench) == {first.name}
    bench.record(second, [read_out])
    assert held(bench) == {second.name}
    bench.record(bench.graph.outputs[0], [])
    assert held(bench) == set()


def test_what_will_still_change_is_not_recorded():
    bench = bench_of(two_layers(), uniform(5, 3, 6, 6))
    first, second = rate_norms(bench.graph)
    bench.record(second.inputs[0], [first, second])
    assert held(bench) == set()
    bench.record(second.inputs[0], [second])
    assert held(bench) == {second.inputs[0].name}


@pytest.mark.parametrize(("room", "recorded"), [(T * 90 + 4 * 720, True), (T * 90, False)])
def test_records_take_no_more_room_than_there_is(monkeypatch, room, recorded):
    """720 spikes, a bit each, and as many values of the ANN; what does not fit is computed."""
    monkeypatch.setattr(cut, "_RECORDED", room)
    bench = bench_of(two_layers(), uniform(5, 3, 6, 6))
    name = bench.graph.outputs[0].name
    before = observed(bench, name)
    record(bench, rate_norms(bench.graph)[0].outputs[0])
    assert bool(held(bench)) is recorded
    assert bench.samples == 5
    for values, expected in zip(observed(bench, name), before, strict=True):
        np.testing.assert_allclose(values, expected, rtol=1e-5, atol=1e-6)


def in_batches(monkeypatch, x, size):
    """A bench of two layers that runs so many samples at once."""
    monkeypatch.setattr(cut, "_batch_size", lambda _graph, _data: size)
    return bench_of(two_layers(), x)


def test_samples_for_which_there_is_no_room_are_left_out_of_all_records(monkeypatch):
    x = uniform(24, 3, 6, 6)
    bench = in_batches(monkeypatch, x, 2)
    first, second = (layer.outputs[0] for layer in rate_norms(bench.graph))
    current = rate_norms(bench.graph)[1].inputs[0]
    later = record(bench, first)
    whole = bench._records[first.name].bytes
    monkeypatch.setattr(cut, "_RECORDED", 2 * whole)
    bench.record(current, later, spare=0.5)  # float32 in T steps
    assert held(bench) == {first.name}
    assert bench.samples == 24
    monkeypatch.setattr(cut, "_RECORDED", whole)
    (read_out,) = (node for node in bench.graph.nodes if node.op == "Gemm")
    bench.record(second, [read_out])
    kept = np.concatenate(bench.batches)
    assert held(bench) == {second.name}
    assert 8 <= len(kept) < 12
    alone = bench_of(two_layers(), x[kept])
    for name in (first.name, second.name, bench.graph.outputs[0].name):
        (currents,), (values,) = observed(bench, name)
        (expected,), (wanted,) = observed(alone, name)
        np.testing.assert_allclose(currents, expected, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(values, wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("samples", "batches"), [(4, [0, 6]), (5, [0, 4, 8]), (99, range(12))])
def test_a_bench_of_some_samples_gives_what_the_whole_gives_of_them(monkeypatch, samples, batches):
    x = uniform(24, 3, 6, 6)
    bench = in_batches(monkeypatch, x, 2)
    record(bench, rate_norms(bench.graph)[0].outputs[0])
    few = bench.some(samples)
    rows = np.concatenate([[2 * batch, 2 * batch + 1] for batch in batches])
    assert np.concatenate(few.batches).tolist() == rows.tolist()
    assert bench.samples == 24
    name = bench.graph.outputs[0].name
    (whole,), (values,) = observed(bench, name)
    (currents,), (given,) = observed(few, name)
    np.testing.assert_array_equal(currents, whole[:, rows])
    np.testing.assert_array_equal(given, values[rows])


def test_means_behind_records_take_one_run_where_no_state_is_between(monkeypatch):
    runs = []
    run = cut._Part.run
    monkeypatch.setattr(cut._Part, "run", lambda *args: runs.append(1) or run(*args))
    bench = bench_of(two_layers(), uniform(5, 3, 6, 6), timesteps=8)
    first, second = rate_norms(bench.graph)
    record(bench, first.outputs[0])
    for tensor, expected in ((second.inputs[0], 1), (second.outputs[0], 8)):
        (currents,), (values,) = observed(bench, tensor.name)
        runs.clear()
        (((mean,), (given,)),) = bench.observe_means([tensor.name], [tensor.name])
        assert len(runs) == expected
        np.testing.assert_allclose(mean, currents.mean(axis=0), rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(given, values)


def test_where_next_to_no_samples_would_be_left_all_are_computed_again(monkeypatch):
    bench = in_batches(monkeypatch, uniform(24, 3, 6, 6), 2)
    monkeypatch.setattr(cut, "_RECORDED", 1000)
    record(bench, rate_norms(bench.graph)[0].outputs[0])
    assert held(bench) == set()
    assert bench.samples == 24


def test_a_current_that_stays_the_same_takes_room_once():
    bench = bench_of(two_layers(), uniform(5, 3, 6, 6), timesteps=2)
    current = rate_norms(bench.graph)[0].inputs[0]
    (before,), _ = observed(bench, current.name)
    record(bench, current)
    (after,), _ = observed(bench, current.name)
    np.testing.assert_array_equal(after, before)
    assert bench._records[current.name].bytes == 2 * 4 * 720
    bench.shift(current.name, np.ones((1, 4, 1, 1), np.float32))
    assert bench._records[current.name].bytes == 2 * 4 * 720


@pytest.mark.parametrize("recorded", [False, True])
def test_a_shift_adds_to_every_step(recorded):
    bench = bench_of(two_layers(), uniform(5, 3, 6, 6))
    current = rate_norms(bench.graph)[1].inputs[0]
    name = current.name
    if recorded:
        record(bench, current)
    bias = np.arange(4, dtype=np.float32).reshape(1, 4, 1, 1)
    (before,), values = observed(bench, name)
    bench.shift(name, bias)
    (after,), same = observed(bench, name)
    np.testing.assert_allclose(
        after - before, np.broadcast_to(bias * recorded, before.shape), atol=1e-6
    )
    np.testing.assert_array_equal(same, values)


@pytest.mark.parametrize(("samples", "batches"), [(2, 1), (4, 1), (11, 2)])
def test_a_fixed_batch_is_filled(samples, batches):
    b = Builder((3, 6, 6), batch=4)
    b.conv(4)
    b.clip(2.0)
    bench = bench_of(b, uniform(samples, 3, 6, 6))
    assert np.concatenate(bench.batches).tolist() == [i % samples for i in range(4 * batches)]
    currents, values = observed(bench, bench.graph.outputs[0].name)
    assert currents[0].shape == (T, 4 * batches, 4, 6, 6)
    assert values[0].shape == (4 * batches, 4, 6, 6)


@pytest.mark.parametrize(
    ("size", "samples"), [(32, 50), (64, 50), (128, 16), (256, 4), (512, 4), (1024, 1), (2048, 1)]
)
def test_the_wider_the_widest_map_the_fewer_samples_run_at_once(size, samples):
    b = Builder((1, None, None))
    b.conv(16)
    b.relu()
    graph = b.graph()
    relu_to_ratenorm(graph)
    data = dataset(x=np.zeros((1, 1, size, size), np.float32))
    assert cut._batch_size(graph, data) == samples


def shortcuts():
    """Three layers, each of which adds to a sum."""
    b = Builder((3, 6, 6))
    b.conv(4)
    b.clip(2.0)
    for _ in range(3):
        before = b.last
        b.conv(4)
        b.clip(2.0)
        b.conv(4)
        b.op("Add", before, b.last)
    b.op("Flatten")
    b.gemm(3, inputs=144)
    return b


@pytest.mark.parametrize(("room", "kept"), [(2**20, True), (2**13, False)])
def test_a_sum_that_will_not_change_is_kept_in_the_place_of_what_it_is_of(monkeypatch, room, kept):
    monkeypatch.setattr(cut, "_RECORDED", room)
    bench = bench_of(shortcuts(), uniform(5, 3, 6, 6))
    layers = rate_norms(bench.graph)
    sums = [node.outputs[0] for node in bench.graph.nodes if node.op == "Add"]
    (output,) = bench.graph.outputs
    before = observed(bench, output.name)
    for done, layer in enumerate(layers, start=1):
        bench.record(layer.outputs[0], layers[done:])
        bench.record_settled(layers[done:])
        if 2 <= done < len(layers):
            earlier = {other.outputs[0].name for other in layers[: done - 1]}
            assert (sums[done - 2].name in held(bench)) is kept
            assert earlier.isdisjoint(held(bench)) is kept
        for values, expected in zip(observed(bench, output.name), before, strict=True):
            np.testing.assert_allclose(values, expected, rtol=1e-5, atol=1e-6)
