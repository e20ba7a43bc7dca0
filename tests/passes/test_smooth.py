"""smooth: a step graph whose outputs differ by no more than what goes in; states are kept."""

import numpy as np

from onnxsnn import convert
from onnxsnn.model import stateful
from onnxsnn.passes.smooth import smooth
from onnxsnn.runtime.step_graph import StepGraph
from onnxsnn.runtime.tiles import MEMORY
from onnxsnn.runtime.time_batched import TimeBatchedGraph, treats_samples_alone
from tests.models import dataset, uniform
from tests.networks import residual_network
from tests.neurons.test_every_neuron import every

T = 6


def converted(tmp_path, **settings):
    path = residual_network().save(tmp_path / "m.onnx")
    return convert(path, dataset(x=uniform(8, 3, 8, 8)), timesteps=T, correct=False, **settings).snn


def outputs(model, snn, x):
    graph = StepGraph(model, snn.states, snn.outputs)
    (values,) = graph.advance(graph.prepare({"x": x}), {}, T, every_step=True)[0].values()
    return values


@every
def test_a_small_change_of_the_input_is_a_small_change_of_every_output(tmp_path, neuron):
    snn, x = converted(tmp_path, neuron=neuron), uniform(8, 3, 8, 8)
    graph = snn.graph()
    assert sum(smooth(graph).actions.values()) == len(snn.layers)
    model = stateful(graph, snn.states)
    nearby = x * np.float32(1 + 1e-5)
    before, after = outputs(model, snn, x), outputs(model, snn, nearby)
    assert np.std(before) > 0.01
    np.testing.assert_allclose(after, before, atol=1e-3)


@every
def test_time_folds_as_it_does_with_the_neurons_that_run(tmp_path, neuron):
    snn = converted(tmp_path, neuron=neuron)
    graph = snn.graph()
    smooth(graph)
    model = stateful(graph, snn.states)
    batched = TimeBatchedGraph(model, snn.states, snn.outputs, (), None, MEMORY)
    stepping = StepGraph(model, snn.states, snn.outputs)
    assert treats_samples_alone(batched, stepping, snn.states, {"x": uniform(2, 3, 8, 8)})


def test_neurons_whose_spikes_are_bytes_stay(tmp_path):
    graph = converted(tmp_path, integer=True).graph()
    assert not smooth(graph).changed
