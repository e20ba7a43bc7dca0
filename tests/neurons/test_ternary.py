"""The ternary neuron: signed spikes, a potential that stays within a threshold."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx.reference import ReferenceEvaluator

from onnxsnn.functions import body
from onnxsnn.neurons import NEURONS, IntegrateAndFire, TernaryIntegrateAndFire

fractions = st.floats(-1.5, 1.5, width=32)


def steps(neuron, currents, theta=1.0):
    """Spikes and potentials of a run."""
    potential, spikes, potentials = np.array([neuron.initial_potential * theta]), [], []
    for current in currents:
        spike, potential = neuron.step(np.array([current]), np.array(theta), potential)
        spikes.append(float(spike[0]))
        potentials.append(float(potential[0]))
    return np.array(spikes), np.array(potentials)


@given(st.lists(st.floats(-1, 1, width=32), min_size=1, max_size=40))
def test_spikes_follow_the_current_to_within_half_a_threshold(currents):
    """The sum of spikes is within theta/2 of that of the currents, whatever their order."""
    spikes, potentials = steps(TernaryIntegrateAndFire(), currents)
    assert set(spikes) <= {-1.0, 0.0, 1.0}
    assert np.all((potentials >= -1e-6) & (potentials <= 1 + 1e-6))
    assert np.all(np.abs(np.cumsum(spikes) - np.cumsum(currents)) <= 0.5 + 1e-5)


@given(fractions, st.integers(1, 32))
def test_response_is_what_a_run_on_constant_current_emits(fraction, timesteps):
    current = np.round(fraction * 64) / 64  # exact in every sum
    neuron = TernaryIntegrateAndFire()
    spikes, _ = steps(neuron, [current] * timesteps)
    expected = neuron.response(np.array([current]), np.array(1.0), timesteps)
    np.testing.assert_allclose(spikes.mean(), expected[0], atol=1e-9)


def test_positive_response_is_integrate_and_fire_s():
    activation, theta = np.linspace(0, 3, 50), np.array(1.5)
    np.testing.assert_array_equal(
        TernaryIntegrateAndFire().response(activation, theta, 8),
        IntegrateAndFire().response(activation, theta, 8),
    )


def test_early_spikes_are_taken_back():
    spikes, _ = steps(TernaryIntegrateAndFire(), [1.0, 1.0, -1.0, -1.0])
    assert spikes.sum() == 0


@given(st.lists(st.floats(-2, 2, width=32), min_size=1, max_size=12))
def test_body_and_step_agree(currents):
    neuron = TernaryIntegrateAndFire()
    function = ReferenceEvaluator(body(neuron.operator, 17))
    potential = expected = np.array([0.5], np.float32)
    theta = np.array([1.0], np.float32)
    for value in currents:
        current = np.array([value], np.float32)
        feeds = {"x": current, "theta": theta, "v": potential}
        spike, potential = function.run(None, feeds, attributes={})
        wanted, expected = neuron.step(current, theta, expected)
        np.testing.assert_array_equal(spike, wanted)
        np.testing.assert_array_equal(potential, expected)


@pytest.mark.parametrize("neuron", NEURONS.values())
def test_every_neuron_has_a_signed_counterpart_that_rounds_to_the_nearest(neuron):
    signed = neuron().signed
    values = np.array([-0.9, -0.3, 0.3, 0.9])
    response = signed.response(values, np.array(1.0), 4)
    np.testing.assert_allclose(response, np.round(values * 4) / 4)
