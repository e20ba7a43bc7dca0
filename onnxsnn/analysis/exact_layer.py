"""The SNN with one layer exact: its spikes become an input, rates that are fed in their place.

What the layer is fed is the ANN's function of the mean current that arrives there in the plain
run, the same in every step: no clipping, no rounding, nothing uneven, while everything that
the layers before did wrong stays. What accuracy that gains is what the layer itself costs.
(Feeding the ANN's own activations would also undo all errors of the layers before, and the
last layer of a chain would always gain most.)
"""

from __future__ import annotations

from onnxsnn.graph import Graph, drop_unused
from onnxsnn.model import SpikingModel

__all__ = ["with_exact_layer"]


def with_exact_layer(snn: SpikingModel, layer: str) -> SpikingModel:
    """The SNN behind a layer, whose spikes `snn.spikes[layer]` are an input.

    Whatever the outputs no longer depend on is gone, inputs and states too.
    """
    graph = snn.graph()
    spikes = graph.tensors()[snn.spikes[layer]]
    spikes.inputs.clear()
    graph.inputs.append(spikes)
    needed = _needed(graph, snn)
    states = [state for state in snn.states if state.input in needed]
    tensors = graph.tensors()
    graph.outputs = [tensors[name] for name in [*snn.outputs, *(s.output for s in states)]]
    drop_unused(graph)
    return SpikingModel.build(graph, states, snn.metadata, snn.layers)


def _needed(graph: Graph, snn: SpikingModel) -> set[str]:
    """Names of the tensors that the outputs depend on, in this step or through a state."""
    tensors = graph.tensors()
    next_state = {state.input: state.output for state in snn.states}
    waiting, found = list(snn.outputs), set()
    while waiting:
        name = waiting.pop()
        if name in found or name not in tensors:
            continue
        found.add(name)
        waiting += [source.name for node in tensors[name].inputs for source in node.inputs]
        waiting += [next_state[name]] if name in next_state else []
    return found
