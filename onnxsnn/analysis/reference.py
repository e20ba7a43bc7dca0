"""The ANN beside an SNN: what each layer's neurons should give, samples in front."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from onnxsnn.arrays import Array
from onnxsnn.data import Dataset
from onnxsnn.errors import DataError
from onnxsnn.graph import part_up_to, to_model
from onnxsnn.model import SpikingModel
from onnxsnn.passes.name_batch import batch_names
from onnxsnn.passes.samples_first import samples_order, turned
from onnxsnn.pipeline import Pipeline, prepare
from onnxsnn.ratenorm import limits_of, rate_norms
from onnxsnn.session import Session
from onnxsnn.source import Source

__all__ = ["Reference"]


class Reference:
    """The Rate Norm Layers of the ANN that an SNN was converted from, no threshold chosen.

    Args:
        ann: the trained network.
        snn: what was made of it.
        data: samples of the sizes that it was converted for.

    Raises:
        DataError: the ANN is not the one that the SNN was converted from.
    """

    def __init__(self, ann: Source, snn: SpikingModel, data: Dataset | None = None) -> None:
        left_out = snn.metadata.get("limits_left_out", [])
        graph = prepare(ann, Pipeline(None), data, left_out=left_out).graph
        nodes = {node.name: node for node in rate_norms(graph) if node.name in snn.spikes}
        if set(nodes) != set(snn.spikes):
            raise DataError(
                "the ANN has other layers than the SNN: give the ANN that it was converted from"
            )
        batch = batch_names(graph)
        self._orders = {name: samples_order(node.inputs[0], batch) for name, node in nodes.items()}
        self._limits = {
            name: [turned(limit, self._orders[name]) for limit in limits_of(node)]
            for name, node in nodes.items()
        }
        part = part_up_to(graph, [node.inputs[0].name for node in nodes.values()])
        self._session = Session(to_model(part))

    def currents(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """By layer, the ANN's pre-activations z for these inputs."""
        values = self._session.run({name: feeds[name] for name in self._session.inputs})
        return {
            layer: found.transpose(order)
            for (layer, order), found in zip(self._orders.items(), values.values(), strict=True)
        }

    def activation(self, layer: str, current: Array) -> Array:
        """What the ANN's layer makes of a pre-activation: its rectifier, or itself."""
        return np.clip(current, *self._limits[layer])
