"""The integrate-and-fire neuron: step, static response and function body agree."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxsnn.neurons import NEURONS, IntegrateAndFire
from tests.models import Builder
from tests.passes.test_spike import run, spiking


def simulate(current, threshold, timesteps, v0):
    """Total spikes of the numpy step under constant current."""
    neuron = IntegrateAndFire(v0)
    potential, total = np.full_like(current, v0 * threshold), np.zeros_like(current)
    for _ in range(timesteps):
        spikes, potential = neuron.step(current, np.asarray(threshold), potential)
        total += spikes
    return total, potential


quarters = st.integers(-40, 40).map(lambda i: i / 4)  # exact in floating point


@given(quarters, st.sampled_from([0.5, 1.0, 2.0]), st.integers(1, 20), st.sampled_from([0.0, 0.5]))
def test_static_response_is_what_the_steps_emit(current, threshold, timesteps, v0):
    total, _ = simulate(np.array([current]), threshold, timesteps, v0)
    response = IntegrateAndFire(v0).response(np.array([current]), np.array(threshold), timesteps)
    assert total[0] * threshold / timesteps == pytest.approx(response[0])


@given(quarters, st.integers(1, 20), st.sampled_from([0.0, 0.5]))
def test_nothing_is_lost_at_a_reset(current, timesteps, v0):
    """Ding et al. 2021: the mean output is the mean input less (v_T - v_0) / T."""
    total, potential = simulate(np.array([current]), 1.0, timesteps, v0)
    assert total[0] == pytest.approx(timesteps * current - (potential[0] - v0))


def test_half_a_threshold_rounds_and_none_floors():
    activation, threshold = np.array([0.3, 0.4, 0.6]), np.array(1.0)
    np.testing.assert_allclose(
        IntegrateAndFire(0.5).response(activation, threshold, 4), [0.25, 0.5, 0.5]
    )
    np.testing.assert_allclose(
        IntegrateAndFire(0.0).response(activation, threshold, 4), [0.25, 0.25, 0.5]
    )


def test_response_is_clipped_to_one_spike_a_step():
    assert IntegrateAndFire().response(np.array([9.0]), np.array(2.0), 4) == [2.0]


def test_potential_at_the_threshold_fires():
    spikes, potential = IntegrateAndFire().step(np.array([1.0]), np.array(1.0), np.array([0.0]))
    assert (spikes, potential) == (1.0, 0.0)


@pytest.mark.parametrize("v0", [0.0, 0.25, 0.5])
def test_function_body_does_what_the_numpy_step_does(v0):
    b = Builder((40,))
    name = b.relu()
    graph, report = spiking(b, v0=v0)
    currents = np.linspace(-2, 2, 40, dtype=np.float32)[None] * 0.25
    history = run(graph, report, currents, 9)
    total, potential = simulate(currents, np.float32(1.0), 9, np.float32(v0))
    np.testing.assert_allclose(history[-1][name] * 9, total, atol=1e-5)
    np.testing.assert_allclose(history[-1]["relu0.potential.next"], potential, atol=1e-5)


def test_every_neuron_is_registered_under_its_name():
    assert all(name == neuron.name for name, neuron in NEURONS.items())
