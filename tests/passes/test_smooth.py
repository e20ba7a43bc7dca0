"""smooth: a step graph whose outputs differ by no more than what goes in; states are kept."""

import numpy as np
import pytest

from onnxsnn import convert
from onnxsnn.model import stateful
from onnxsnn.neurons import IntegrateAndFire, MultiThreshold, SignedIntegrateAndFire
from onnxsnn.passes.smooth import smooth
from onnxsnn.runtime.step_graph import StepGraph
from tests.models import dataset, uniform
from tests.networks import residual_network

T = 6


def converted(tmp_path, **settings):
    path = residual_network().save(tmp_path / "m.onnx")
    return convert(path, dataset(x=uniform(8, 3, 8, 8)), timesteps=T, correct=False, **settings).snn


def outputs(model, snn, x):
    graph = StepGraph(model, snn.states, snn.outputs)
    (values,) = graph.advance(graph.prepare({"x": x}), {}, T, every_step=True)[0].values()
    return values


@pytest.mark.parametrize(
    "neuron", [IntegrateAndFire(), SignedIntegrateAndFire(), MultiThreshold(levels=2)], ids=repr
)
def test_a_small_change_of_the_input_is_a_small_change_of_every_output(tmp_path, neuron):
    snn, x = converted(tmp_path, neuron=neuron), uniform(8, 3, 8, 8)
    graph = snn.graph()
    assert sum(smooth(graph).actions.values()) == len(snn.layers)
    model = stateful(graph, snn.states)
    nearby = x * np.float32(1 + 1e-5)
    before, after = outputs(model, snn, x), outputs(model, snn, nearby)
    assert np.std(before) > 0.01
    np.testing.assert_allclose(after, before, atol=1e-3)


def test_neurons_whose_spikes_are_bytes_stay(tmp_path):
    graph = converted(tmp_path, integer=True).graph()
    assert not smooth(graph).changed
