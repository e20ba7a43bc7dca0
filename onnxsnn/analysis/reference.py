"""The ANN beside an SNN: what each layer's neurons should give."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_graphsurgeon as gs

from onnxsnn.arrays import Array
from onnxsnn.errors import DataError, ModelError
from onnxsnn.graph import insert, to_model, unique_name
from onnxsnn.model import SpikingModel
from onnxsnn.pipeline import Pipeline, prepare
from onnxsnn.ratenorm import SIGNED, rate_norms, threshold_of
from onnxsnn.session import Session
from onnxsnn.source import Source

__all__ = ["Reference"]


class Reference:
    """The Rate Norm Layers of the ANN that an SNN was converted from, no threshold chosen.

    Args:
        ann: the trained network.
        snn: what was made of it.

    Raises:
        DataError: the ANN is not the one that the SNN was converted from.
        ModelError: the SNN was corrected, and does not say how.
    """

    def __init__(self, ann: Source, snn: SpikingModel) -> None:
        silent = any(layer.scale is None for layer in snn.layers)
        if snn.metadata.get("corrected") and silent:
            raise ModelError(
                "the SNN was corrected by an older onnxsnn, which did not note how; "
                "convert the model again"
            )
        graph = prepare(ann, Pipeline(None)).graph
        nodes = {node.name: node for node in rate_norms(graph) if node.name in snn.spikes}
        if set(nodes) != set(snn.spikes):
            raise DataError(
                "the ANN has other layers than the SNN: give the ANN that it was converted from"
            )
        self._limits = {name: _limits(threshold_of(n), n.op) for name, n in nodes.items()}
        self._names: dict[str, str] = {}
        graph.outputs = []
        for name, node in nodes.items():
            tensor = node.inputs[0]
            output = gs.Variable(unique_name(graph, f"{name}.current"), tensor.dtype, tensor.shape)
            insert(graph, "Identity", [tensor], output)
            graph.outputs.append(output)
            self._names[name] = output.name
        graph.cleanup(remove_unused_graph_inputs=True)
        self._session = Session(to_model(graph))

    def currents(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """By layer, the ANN's pre-activations z for these inputs."""
        values = self._session.run({name: feeds[name] for name in self._session.inputs})
        return {layer: values[name] for layer, name in self._names.items()}

    def activation(self, layer: str, current: Array) -> Array:
        """What the ANN's layer makes of a pre-activation: its rectifier, or itself."""
        return np.clip(current, *self._limits[layer])


def _limits(trained: Array | None, operator: str) -> tuple[Array, Array]:
    """Between what a layer clips in the ANN."""
    highest: Array = np.array(np.inf, np.float32) if trained is None else trained
    return (-highest if operator == SIGNED else np.zeros_like(highest)), highest
