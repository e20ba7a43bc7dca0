"""Laws of every neuron model: body, numpy step and static response are one neuron."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx.reference import ReferenceEvaluator

from onnxsnn import Runner, convert
from onnxsnn.functions import body
from onnxsnn.neurons import (
    NEURONS,
    RECTIFYING_NEURONS,
    BurstIntegrateAndFire,
    IntegrateAndFire,
    MultiThreshold,
    SignedBurstIntegrateAndFire,
    SignedIntegrateAndFire,
    SignedMultiThreshold,
    TernaryIntegrateAndFire,
)
from tests.models import dataset, outputs_of, uniform
from tests.networks import residual_network

EXAMPLES = [
    IntegrateAndFire(), IntegrateAndFire(0.0), SignedIntegrateAndFire(), TernaryIntegrateAndFire(),
    BurstIntegrateAndFire(levels=3), SignedBurstIntegrateAndFire(levels=2),
    MultiThreshold(levels=1), MultiThreshold(levels=8), SignedMultiThreshold(levels=3),
    MultiThreshold(levels=4, digits=1), SignedMultiThreshold(levels=5, digits=3),
]  # fmt: skip
every = pytest.mark.parametrize("neuron", EXAMPLES, ids=repr)
rectifying = pytest.mark.parametrize("neuron", [n for n in EXAMPLES if n.signed != n], ids=repr)
eighths = st.integers(-16, 16).map(lambda i: i / 8)  # exact in floating point
currents = st.lists(eighths, min_size=1, max_size=24)


def run(neuron, values, theta=1.0):
    """Spikes of each step, and the potential after them."""
    threshold = np.array(theta)
    states = [np.zeros(1) for _ in neuron.states]
    states[0] = states[0] + neuron.initial_potential * theta
    fired, potentials = [], []
    for value in values:
        spikes, *states = neuron.step(np.array([value]), threshold, *states)
        fired.append(float(spikes[0]))
        potentials.append(float(states[0][0]))
    return np.array(fired), np.array(potentials)


def test_examples_are_of_every_model():
    assert {type(neuron) for neuron in EXAMPLES} == set(NEURONS.values())


@every
@given(values=currents)
def test_body_does_what_the_step_does(neuron, values):
    function = ReferenceEvaluator(body(neuron.operator, 17))
    names = ["v", "n"][: len(neuron.states)]
    theta = np.array([0.5], np.float32)
    states = [np.zeros(1, np.float32) for _ in names]
    states[0] = states[0] + np.float32(neuron.initial_potential * 0.5)
    expected = list(states)
    for value in values:
        x = np.array([value], np.float32)
        feeds = {"x": x, "theta": theta, **dict(zip(names, states, strict=True))}
        spikes, *states = function.run(None, feeds, attributes=neuron.attributes)
        wanted, *expected = neuron.step(x, theta, *expected)
        np.testing.assert_array_equal(spikes, wanted)
        for state, its in zip(states, expected, strict=True):
            np.testing.assert_array_equal(state, its)


@every
@given(value=eighths, timesteps=st.integers(1, 16))
def test_response_is_what_a_run_on_constant_current_emits(neuron, value, timesteps):
    fired, _ = run(neuron, [value] * timesteps)
    response = neuron.response(np.array([value]), np.array(1.0), timesteps)
    np.testing.assert_allclose(fired.mean(), response[0], atol=1e-9)


@every
@given(values=currents)
def test_nothing_is_lost_at_a_reset(neuron, values):
    """What came in is what was fired, and what the potential holds more than at first."""
    fired, potentials = run(neuron, values)
    held = potentials[-1] - neuron.initial_potential
    np.testing.assert_allclose(fired.sum() + held, sum(values), atol=1e-9)


@rectifying
@given(values=currents)
def test_rectifying_neuron_never_has_fired_less_than_nothing(neuron, values):
    fired, _ = run(neuron, values)
    assert np.all(np.cumsum(fired) >= 0)


@every
def test_rates_lie_between_the_least_and_the_greatest(neuron):
    least, greatest = (
        neuron.response(np.array([activation]), np.array(1.0), 8)[0] for activation in (-9.0, 9.0)
    )
    assert (least, greatest) == (neuron.least_rate, neuron.greatest_spike)


@every
def test_neuron_fires_at_the_potential_that_it_says(neuron):
    states = [np.zeros(1) for _ in neuron.states]
    above, below = (
        neuron.step(np.array([factor * neuron.fires_at]), np.array(1.0), *states)[0]
        for factor in (1.001, 0.999)
    )
    assert above > 0 == below


@every
def test_response_goes_to_the_activation(neuron):
    values = np.linspace(-0.9, 0.9, 19) * min(neuron.greatest_spike, 1)
    expected = values if neuron.signed == neuron else np.maximum(values, 0)
    error = np.abs(neuron.response(values, np.array(1.0), 256) - expected).max()
    assert error < 1.01 / 256


@every
def test_bits_are_those_of_the_values_that_a_spike_can_have(neuron):
    fired = {value for current in np.linspace(-40, 40, 4001)
             for value in run(neuron, [20.0, current])[0]}  # fmt: skip
    assert neuron.bits_per_spike <= np.log2(2 * 8 + 1)
    assert len(fired) <= round(2**neuron.bits_per_spike)


@pytest.mark.parametrize(
    ("neuron", "sizes"),
    [
        (MultiThreshold(levels=8), [1, 2, 3, 4, 6, 8, 12, 16]),
        (MultiThreshold(levels=4, digits=1), [1, 2, 4, 8]),
        (SignedMultiThreshold(levels=8, digits=3), [1, 2, 3, 4, 5, 6, 7, 8]),
    ],
)
def test_sizes_are_multiples_of_the_smallest_of_few_digits(neuron, sizes):
    potentials = np.linspace(0, 1.5, 500)
    np.testing.assert_array_equal(neuron.sizes / neuron.spike_unit, sizes)
    np.testing.assert_array_equal(np.unique(neuron.nearest(potentials)), [0, *neuron.sizes])
    distances = np.abs(potentials - np.append(neuron.sizes, 0)[:, None]).min(axis=0)
    np.testing.assert_allclose(np.abs(neuron.nearest(potentials) - potentials), distances)


@pytest.mark.parametrize("digits", [1, 2, 3, 4])
@pytest.mark.parametrize("levels", [1, 4, 8, 13])
def test_body_gives_the_nearest_size_beside_every_size_and_between_two(digits, levels):
    """A sum that crosses a power of two keeps a digit less, which rounded what was just below."""
    neuron = SignedMultiThreshold(levels=levels, digits=digits)
    sizes = np.array([0, *neuron.sizes], np.float32)
    near = np.concatenate([sizes, (sizes[1:] + sizes[:-1]) / 2])
    below, above = near, near
    for _ in range(5):
        below, above = np.nextafter(below, np.float32(-9)), np.nextafter(above, np.float32(9))
        near = np.concatenate([near, below, above])
    x, theta, v = near, np.ones(1, np.float32), np.zeros_like(near)
    function = ReferenceEvaluator(body(neuron.operator, 17))
    feeds = {"x": x, "theta": theta, "v": v}
    spikes, _ = function.run(None, feeds, attributes=neuron.attributes)
    np.testing.assert_array_equal(spikes, neuron.nearest(x))
    errors = np.abs(np.abs(x) - sizes[:, None]).min(axis=0)
    np.testing.assert_array_equal(np.abs(spikes - x), errors)


@pytest.mark.parametrize("timesteps", [1, 2, 4, 8])
def test_second_digit_halves_the_error_at_equal_bits(timesteps):
    """Of currents as they mostly are, many small and few large, by the best threshold for each."""
    currents = np.random.default_rng(0).exponential(size=2000)
    thresholds = np.geomspace(1, 10, 25)[:, None]
    powers, ours = (
        np.square(neuron.response(currents, thresholds, timesteps) - currents).mean(axis=1).min()
        for neuron in (MultiThreshold(digits=1), MultiThreshold())
    )
    assert ours < powers / 2


@pytest.mark.parametrize("neuron", NEURONS.values())
def test_every_neuron_has_a_signed_counterpart_that_is_symmetric(neuron):
    signed = neuron().signed
    values = np.array([0.1, 0.3, 0.9])
    response, mirrored = (signed.response(sign * values, np.array(1.0), 4) for sign in (1, -1))
    np.testing.assert_allclose(response, -mirrored)


@pytest.mark.parametrize("name", RECTIFYING_NEURONS)
def test_network_of_the_neuron_converges_and_both_backends_agree(name, tmp_path):
    b, x = residual_network(), uniform(8, 3, 8, 8)
    path = b.save(tmp_path / "m.onnx")
    expected = outputs_of(b.model(), x=x)[b.last]
    errors = {}
    for timesteps in (4, 128):
        snn = convert(
            path, dataset(x=x), timesteps=timesteps, neuron=RECTIFYING_NEURONS[name]()
        ).snn
        outputs = Runner(snn).run(x).outputs[b.last]
        errors[timesteps] = np.linalg.norm(outputs - expected) / np.linalg.norm(expected)
    assert errors[128] < min(0.05, errors[4])
    assert all(layer.neuron == name for layer in snn.layers)
    (other,) = Runner(snn, "numpy").run(x[:2], 3).outputs.values()
    (ours,) = Runner(snn).run(x[:2], 3).outputs.values()
    np.testing.assert_allclose(other, ours, atol=1e-4)
