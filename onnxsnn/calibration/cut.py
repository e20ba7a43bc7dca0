"""Parts of a network up to named tensors, as an ANN and as an SNN, to run beside each other."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from onnxsnn.arrays import Array
from onnxsnn.data import Dataset
from onnxsnn.graph import Graph, part_up_to, to_model
from onnxsnn.model import SpikingModel
from onnxsnn.neurons import Neuron
from onnxsnn.passes.spike import spike
from onnxsnn.runtime.dataset import batch_size
from onnxsnn.runtime.runner import Runner
from onnxsnn.session import Session

__all__ = ["Bench", "Potentials"]

Potentials = Mapping[str, Array | float]
"""Initial potentials by layer, as fractions of the threshold, other than the neuron's."""


@dataclass(frozen=True)
class Bench:
    """The two networks, and what both are fed.

    Attributes:
        graph: Rate Norm Layers with the thresholds that there are so far.
        reference: the same graph, whose thresholds are not set: the ANN.
        data: unlabelled samples.
        neuron: the neuron that will run; its signed counterpart where values can be negative.
        timesteps: the number of steps that will be run.
    """

    graph: Graph
    reference: Graph
    data: Dataset
    neuron: Neuron
    timesteps: int

    def spiking(self, names: Sequence[str], potentials: Potentials) -> Runner:
        """The SNN up to these tensors of the graph; its outputs are their running means."""
        part = part_up_to(self.graph, names)
        states = spike(part, self.neuron, potentials).states
        return Runner(SpikingModel.build(part, states, {"timesteps": self.timesteps}, []))

    def analog(self, name: str) -> Callable[[Mapping[str, Array]], Array]:
        """A tensor of the ANN, as a function of what the network is fed."""
        session = Session(to_model(part_up_to(self.reference, [name])))

        def value(feeds: Mapping[str, Array]) -> Array:
            (values,) = session.run({name: feeds[name] for name in session.inputs}).values()
            return values

        return value

    def batches(self, snn: Runner) -> Iterator[tuple[dict[str, Array], dict[str, Array]]]:
        """Pieces of the data: what the whole network is fed, and what of it the part takes."""
        for feeds, _ in self.data.batches(batch_size(snn.model)):
            yield feeds, {spec.name: feeds[spec.name] for spec in snn.model.inputs}
