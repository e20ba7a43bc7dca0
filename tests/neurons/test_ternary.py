"""The ternary neuron: signed spikes, a potential that stays within a threshold."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from onnxsnn.neurons import IntegrateAndFire, TernaryIntegrateAndFire


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


def test_positive_response_is_integrate_and_fire_s():
    activation, theta = np.linspace(0, 3, 50), np.array(1.5)
    np.testing.assert_array_equal(
        TernaryIntegrateAndFire().response(activation, theta, 8),
        IntegrateAndFire().response(activation, theta, 8),
    )


def test_early_spikes_are_taken_back():
    spikes, _ = steps(TernaryIntegrateAndFire(), [1.0, 1.0, -1.0, -1.0])
    assert spikes.sum() == 0
