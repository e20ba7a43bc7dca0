"""unit_thresholds: the same spikes, and currents and potentials divided by what thresholds were."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings

from onnxsnn import Runner, SpikingModel, convert
from onnxsnn.neurons import RECTIFYING_NEURONS, IntegrateAndFire
from onnxsnn.passes.unit_thresholds import scale_currents, unit_thresholds
from onnxsnn.runtime.step_graph import StepGraph
from onnxsnn.source import Source
from tests.models import Builder, dataset, uniform
from tests.networks import STRUCTURES, IntegerBuilder, eighths, integer_networks

STEPS = 6


def converted(b: Builder, neuron=None):
    """An SNN whose thresholds are trained, powers of two."""
    return convert(Source(b.model(), "", []), timesteps=STEPS, neuron=neuron).snn


def with_unit_thresholds(snn):
    """The SNN after the pass, and the report."""
    graph, defaults = snn.graph(), {state.input: state.default for state in snn.states}
    report = unit_thresholds(graph, snn.spikes, defaults)
    states = [replace(state, default=defaults[state.input]) for state in snn.states]
    return SpikingModel.build(graph, states, snn.metadata, snn.layers), report


def run(snn, x):
    """Outputs of every step, spikes by layer, and the states after the last."""
    result = Runner(snn, rates=True).run(x, STEPS, every_step=True)
    stepping = StepGraph(snn.model, snn.states, snn.outputs)
    _, state = stepping.advance(stepping.prepare({"x": x}), {}, STEPS, every_step=False)
    return result.every_step, result.spikes, {name: v.numpy() for name, v in state.items()}


@pytest.mark.parametrize("neuron", RECTIFYING_NEURONS)
@settings(max_examples=5, deadline=None)
@given(b=integer_networks())
def test_spikes_are_the_same_and_potentials_in_thresholds(neuron, b):
    snn, x = converted(b, RECTIFYING_NEURONS[neuron]()), eighths(3, 2, 6, 6, seed=1)
    unit, report = with_unit_thresholds(snn)
    (outputs, spikes, states), (others, other_spikes, other_states) = run(snn, x), run(unit, x)
    for step, other in zip(outputs, others, strict=True):
        for name, values in step.items():
            np.testing.assert_array_equal(other[name], values)
    for layer, theta in snn.thresholds.items():
        np.testing.assert_array_equal(spikes[layer], other_spikes[layer])
        expected = theta if layer not in report.grids else np.ones_like(theta)
        np.testing.assert_array_equal(unit.thresholds[layer], expected)
        potential = snn.potential(layer).input
        worth = report.grids.get(layer, np.ones(1)).reshape(-1, *[1] * (theta.ndim - 2))
        np.testing.assert_array_equal(other_states[potential] * worth, states[potential])


@pytest.mark.parametrize("name", STRUCTURES)
def test_structures_of_float_weights_keep_their_outputs_up_to_rounding(name):
    b = STRUCTURES[name]()
    x = uniform(4, *[size.dim_value for size in b.inputs[0].type.tensor_type.shape.dim[1:]])
    snn = convert(Source(b.model(), "", []), dataset(x=x), timesteps=STEPS).snn
    unit, report = with_unit_thresholds(snn)
    assert sum(report.actions.values()) == len(snn.layers)
    (values,), (others,) = (Runner(s).run(x, STEPS).outputs.values() for s in (snn, unit))
    assert np.linalg.norm(others - values) <= 0.05 * np.linalg.norm(values)


def branches():
    """A layer that reads a sum of two layers of weights, a scaled branch and a constant."""
    b = IntegerBuilder((2, 6, 6))
    b.conv(4)
    b.clip(2.0)
    first = b.last
    left = b.op("Sub", b.conv(4), b.constant([[[3.0]]]))
    b.last = first
    both = b.op("Add", left, b.conv(4))
    b.op("Add", both, b.op("Mul", first, b.constant([[[0.5]]])))
    b.clip(4.0)
    return b


def finished(b):
    b.op("GlobalAveragePool")
    b.op("Flatten")
    b.gemm(3)
    return converted(b, IntegrateAndFire())


def test_every_branch_that_a_layer_reads_takes_the_factor():
    unit, report = with_unit_thresholds(finished(branches()))
    assert report.actions == {"thresholds made 1": 2}
    assert all(np.all(theta == 1) for theta in unit.thresholds.values())


def test_what_another_node_reads_is_left_and_so_are_the_thresholds_behind_it():
    b = IntegerBuilder((2, 6, 6))
    shared = b.conv(4)
    b.clip(2.0)
    b.op("Add", b.conv(4), shared)
    b.clip(4.0)
    snn = finished(b)
    unit, report = with_unit_thresholds(snn)
    assert report.actions == {"thresholds kept": 2}
    for layer, theta in snn.thresholds.items():
        np.testing.assert_array_equal(unit.thresholds[layer], theta)


@pytest.mark.parametrize(("threshold", "made"), [(4.0, 1), (3.0, 0)])
def test_sums_of_whole_numbers_stay_exact(threshold, made):
    b = IntegerBuilder((2, 6, 6))
    b.conv(4)
    b.clip(threshold)
    _, report = with_unit_thresholds(finished(b))
    assert report.actions["thresholds made 1"] == made
    assert report.actions["thresholds kept"] == 1 - made


def test_a_factor_and_its_inverse_are_the_network_again():
    snn, x = finished(branches()), eighths(3, 2, 6, 6, seed=1)
    graph = snn.graph()
    for node in graph.nodes:
        if node.name in snn.spikes:
            assert scale_currents(graph, node, np.full((1, 4, 1, 1), 8.0))
            assert scale_currents(graph, node, np.full((1, 4, 1, 1), 0.125))
    back = SpikingModel.build(graph, snn.states, snn.metadata, snn.layers)
    (values,), (others,) = (Runner(s).run(x, STEPS).outputs.values() for s in (snn, back))
    np.testing.assert_array_equal(values, others)
