"""The delay of the read-out, estimated from thresholds and currents."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxsnn import BurstIntegrateAndFire, IntegrateAndFire, MultiThreshold
from onnxsnn.calibration.delay import latency, read_out_delay
from onnxsnn.calibration.observe import calibrate
from onnxsnn.calibration.statistics import ChannelStatistics
from onnxsnn.passes.clean import clean
from onnxsnn.passes.encode import encode
from onnxsnn.passes.relu_to_ratenorm import relu_to_ratenorm
from onnxsnn.ratenorm import rate_norms
from tests.models import Builder

LONG = 1000


def seen(*currents):
    """Statistics of one channel."""
    statistics = ChannelStatistics(1)
    statistics.update(np.array([currents]))
    return statistics


def waits(theta, *currents, neuron=None, start=0.5):
    neuron = neuron or IntegrateAndFire()
    return latency(seen(*currents), np.array([theta]), neuron, start)


def chain(layers, gain=1.0, branch=False, operator="Relu"):
    """Rectifiers, or others, behind each other, each with weights in front that keep what arrives;
    with `branch`, a shortcut around all but the first."""
    b = Builder((2,))
    b.op("Mul", b.last, b.constant(gain))
    outputs = []
    for _ in range(layers):
        b.op("MatMul", b.last, b.constant(np.eye(2)))
        outputs.append(b.op(operator))
    if branch:
        b.op("Add", outputs[0], outputs[-1])
    b.op("MatMul", b.last, b.constant(np.eye(2)))
    return b


def delay_of(b, theta, timesteps=LONG, neuron=None, potentials=None):
    graph, _ = clean(b.graph())
    relu_to_ratenorm(graph)
    encode(graph)
    statistics = calibrate(graph, [{"x": np.full((3, 2), 0.9, np.float32)}])
    for node in rate_norms(graph):
        node.inputs[1].values = np.full_like(node.inputs[1].values, theta)
    potentials = {n.name: v for n, v in zip(rate_norms(graph), potentials or [], strict=False)}
    return read_out_delay(graph, statistics, neuron or IntegrateAndFire(), potentials, timesteps)


@pytest.mark.parametrize(("start", "expected"), [(0.0, 9), (0.5, 4), (1.0, 0)])
def test_a_neuron_is_silent_until_its_potential_reaches_the_threshold(start, expected):
    """A tenth of the threshold arrives in every step, and a little more."""
    assert waits(10.0, 1.001, start=start) == expected


@given(st.floats(0.01, 2.0), st.sampled_from([0.0, 0.25, 0.5]))
def test_latency_is_that_of_a_neuron_that_runs(current, start):
    statistics = seen(current)
    (middle,) = statistics.centres[statistics.counts > 0]  # what stands for it
    neuron, potential, silent = IntegrateAndFire(), np.array(start), -1
    spike = 0.0
    while not spike:
        spike, potential = neuron.step(np.array(middle), np.array(1.0), potential)
        silent += 1
    assert abs(latency(statistics, np.ones(1), neuron, start) - silent) <= 1  # sums are rounded


def test_a_layer_is_as_late_as_its_neurons_by_what_they_send():
    late, early = 1.001, 9.0
    assert waits(10.0, late, early) == pytest.approx(4 * late / (late + early), rel=0.01)


@given(st.lists(st.floats(1e-4, 4.0), min_size=1, max_size=30))
def test_weak_neurons_delay_a_layer_by_no_more_than_their_thresholds(weak):
    sent = sum(min(value, 10.0) for value in (*weak, 10.0))
    assert waits(10.0, *weak, 10.0) <= 1.05 * 5.0 * len(weak) / sent


def test_nothing_that_was_never_active_is_late():
    assert waits(1.0, -1.0) == 0.0


@pytest.mark.parametrize("neuron", [BurstIntegrateAndFire(), MultiThreshold()])
def test_neurons_of_larger_or_smaller_spikes_wait_for_theirs(neuron):
    assert waits(1.0, 3.0, neuron=neuron, start=neuron.initial_potential) == 0
    small = waits(1.0, 0.06, neuron=neuron, start=neuron.initial_potential)
    assert small == (8 if isinstance(neuron, BurstIntegrateAndFire) else 0)
    smaller = waits(1.0, 0.01, neuron=neuron, start=neuron.initial_potential)
    assert smaller == (49 if isinstance(neuron, BurstIntegrateAndFire) else 3)


def test_one_layer_of_high_rates_needs_no_delay():
    assert delay_of(chain(1), theta=1.0) == 0


def test_delays_of_layers_add_up():
    one, two, four = (delay_of(chain(layers), theta=8.0) for layers in (1, 2, 4))
    assert one > 0
    assert (two, four) == (2 * one, 4 * one)


def test_the_longest_of_two_branches_counts():
    assert delay_of(chain(3, branch=True), theta=8.0) == delay_of(chain(3), theta=8.0)


def test_weaker_currents_take_longer():
    assert delay_of(chain(2, gain=0.25), theta=8.0) > delay_of(chain(2), theta=8.0)


def test_initial_potentials_save_steps_of_all_layers_or_of_one():
    none, half = (delay_of(chain(2), theta=8.0, neuron=IntegrateAndFire(v)) for v in (0.0, 0.5))
    one = delay_of(chain(2), theta=8.0, neuron=IntegrateAndFire(0.0), potentials=[0.5])
    assert half < one < none


def test_encoders_start_where_their_own_kind_does():
    tanh = chain(1, operator="Tanh")
    none, half = (delay_of(tanh, theta=8.0, neuron=IntegrateAndFire(v)) for v in (0.0, 0.5))
    assert none == half > 0


@pytest.mark.parametrize(("timesteps", "expected"), [(1, 0), (2, 1), (9, 4)])
def test_half_of_the_steps_at_most_is_left_out(timesteps, expected):
    assert delay_of(chain(4), theta=64.0, timesteps=timesteps) == expected
