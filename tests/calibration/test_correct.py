"""correct_potentials: mean firing rates become the ANN's, layer by layer."""

import numpy as np
import pytest

from onnxsnn import Runner, convert, load_source
from onnxsnn.calibration.correct import correct_potentials
from onnxsnn.calibration.observe import calibrate
from onnxsnn.errors import UsageError
from onnxsnn.graph import from_model
from onnxsnn.neurons import RECTIFYING_NEURONS, IntegrateAndFire
from onnxsnn.session import Session
from tests.models import dataset, uniform
from tests.networks import STRUCTURES, residual_network

X = uniform(100, 3, 8, 8)
T = 6


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return load_source(residual_network().save(tmp_path_factory.mktemp("correct") / "m.onnx"))


@pytest.fixture(scope="module")
def both(source):
    """The SNN as converted, and corrected."""
    return [convert(source, dataset(x=X), timesteps=T, correct=c).snn for c in (False, True)]


def mean_rates(snn):
    """By layer, mean rate per channel over X."""
    runner = Runner(snn, taps=list(snn.spikes.values()))
    totals = dict.fromkeys(snn.spikes, 0.0)
    for outputs in runner.steps(X, T):
        for layer, name in snn.spikes.items():
            axes = tuple(a for a in range(outputs[name].ndim) if a != 1)
            totals[layer] = totals[layer] + outputs[name].mean(axis=axes) / T
    return totals


def test_mean_rates_come_nearer_to_the_ann_s(source, both):
    kept = {}
    convert(source, dataset(x=X), timesteps=T, keep=kept.__setitem__)
    statistics = calibrate(from_model(kept["set_thresholds"]), [{"x": X}])
    off = []
    for found in map(mean_rates, both):
        targets = (target(statistics[layer], both[0].thresholds[layer]) for layer in found)
        off.append(
            sum(np.abs(found[layer] - t).mean() for layer, t in zip(found, targets, strict=True))
        )
    assert off[1] < 0.7 * off[0]


def target(statistics, theta):
    """Mean rate per channel of the ANN."""
    rates = np.minimum(statistics.centres / theta.reshape(-1, 1), 1)
    return (statistics.counts * rates).sum(axis=1) / statistics.total


def test_outputs_come_nearer_to_the_ann_s(source, both):
    expected = Session(source.model).run({"x": X})
    errors = []
    for snn in both:
        outputs = Runner(snn).run(X, T).outputs
        errors.append(sum(np.linalg.norm(outputs[name] - expected[name]) for name in expected))
    assert errors[1] < errors[0]


def test_only_defaults_of_potentials_change(both):
    before, after = both
    assert before.model.graph.node == after.model.graph.node
    for mine, its in zip(before.states, after.states, strict=True):
        same = np.array_equal(mine.default, its.default)
        assert mine.role == "potential" or same
    assert after.metadata["corrected"] is True
    assert after.layers == before.layers


def test_the_snn_given_is_left_as_it_is(source):
    snn = convert(source, dataset(x=X), timesteps=T).snn
    kept = {}
    convert(source, dataset(x=X), timesteps=T, keep=kept.__setitem__)
    statistics = calibrate(from_model(kept["set_thresholds"]), [{"x": X}])
    before = [state.default.copy() for state in snn.states]
    seen = []
    correct_potentials(snn, statistics, dataset(x=X), IntegrateAndFire(), lambda *a: seen.append(a))
    for state, default in zip(snn.states, before, strict=True):
        np.testing.assert_array_equal(state.default, default)
    assert seen == [(i, 4) for i in range(1, 5)]


@pytest.mark.parametrize("neuron", [n for n in RECTIFYING_NEURONS if n != "multi-threshold"])
def test_every_neuron_comes_nearer(tmp_path, neuron):
    """In a network with encoders too. (Multi-threshold neurons leave little to correct.)"""
    b = STRUCTURES["mobilenet"]()
    source = load_source(b.save(tmp_path / "m.onnx"))
    expected, errors = Session(source.model).run({"x": X})[b.last], []
    for correct in (False, True):
        snn = convert(
            source, dataset(x=X), timesteps=4, neuron=RECTIFYING_NEURONS[neuron](), correct=correct
        ).snn
        errors.append(np.linalg.norm(Runner(snn).run(X).outputs[b.last] - expected))
    assert errors[1] < errors[0]


def test_correction_needs_data(source):
    with pytest.raises(UsageError, match="corrected on data"):
        convert(source, correct=True)


def test_part_of_an_snn_spikes_as_the_whole_does(both):
    snn = both[0]
    layer = list(snn.spikes)[2]
    name = snn.spikes[layer]
    part, whole = Runner(snn.up_to(layer)), Runner(snn, taps=[name])
    assert len(snn.up_to(layer).states) < len(snn.states)
    for mine, its in zip(part.steps(X, T), whole.steps(X, T), strict=True):
        np.testing.assert_array_equal(mine[name], its[name])
