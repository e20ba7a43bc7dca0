"""Let every layer of weights read spikes: put a signed Rate Norm Layer where it would not.

Behind `relu_to_ratenorm`, spikes come from rectifiers only. A layer of weights that reads
anything else that weights made (GELU, HardSwish, LeakyRelu, a normalization, attention, the
linear bottleneck of a MobileNet) gets `theta * SignedRateNorm(x, theta)` in front, which
becomes a neuron that can fire negative spikes.

1. Several layers that read one tensor share one encoder; other readers keep the tensor.
2. In front of a Concat, only the inputs that are not spikes already are encoded.
3. In front of a Flatten or Reshape to two axes, the tensor before it is encoded: there its
   channels are known.
4. The first layer reads the input as a constant current, and is left alone; so is every
   layer that reads a linear function of the input.
"""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs

from onnxsnn.graph import (
    Graph,
    Node,
    Tensor,
    channel_axis,
    insert,
    is_static_shape,
    rank,
    unique_name,
)
from onnxsnn.passes.report import Report
from onnxsnn.ratenorm import SIGNED, place
from onnxsnn.signals import Signal, Signals, weighted_input

__all__ = ["encode"]


def encode(graph: Graph) -> Report:
    """Insert the encoders; value-preserving, as no threshold is set yet.

    Raises:
        UnsupportedError: what is to be encoded is not float32, or its rank is not known.
    """
    graph.toposort()
    encoder = _Encoder(graph)
    for node in list(graph.nodes):
        position = weighted_input(node)
        if position is not None and encoder.signals[node.inputs[position]] is Signal.ANALOG:
            source = node.inputs[position]
            node.inputs[position] = encoder.encoded(source, node)
    graph.toposort()
    return encoder.report


class _Encoder:
    """The pass at work: encoded tensors, each made once."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.signals = Signals(graph)
        self.report = Report("encode")
        self._encoded: dict[tuple[int, int], Tensor] = {}

    def encoded(self, tensor: Tensor, reader: Node) -> Tensor:
        """The twin of `tensor` that carries spikes, for a layer of weights that reads it."""
        axes = rank(tensor, reader)
        axis = axes - 1 if reader.op in ("Gemm", "MatMul", "Einsum") else min(1, axes - 1)
        return self._twin(tensor, axis)

    def _twin(self, tensor: Tensor, axis: int) -> Tensor:
        """`tensor` encoded with one threshold per index of `axis`."""
        key = (id(tensor), axis)
        if key not in self._encoded:
            maker = tensor.inputs[0]
            if maker.op == "Concat" and any(self._is_spikes(source) for source in maker.inputs):
                self._encoded[key] = self._before_concat(maker, axis)
            elif _flattens(maker):
                self._encoded[key] = self._before_flatten(maker)
            else:
                self._encoded[key] = self._placed(tensor, axis)
        return self._encoded[key]

    def _is_spikes(self, tensor: Tensor) -> bool:
        return self.signals[tensor] is Signal.SPIKES

    def _before_concat(self, concat: Node, axis: int) -> Tensor:
        sources = [
            self._twin(source, axis) if self.signals[source] is Signal.ANALOG else source
            for source in concat.inputs
        ]
        return self._copied(concat, sources)

    def _before_flatten(self, flatten: Node) -> Tensor:
        source, *shape = flatten.inputs
        return self._copied(flatten, [self._twin(source, channel_axis(source)), *shape])

    def _copied(self, node: Node, inputs: list[Tensor]) -> Tensor:
        """The output of a copy of a node of one output that reads other inputs."""
        output = self._like(node.outputs[0])
        insert(self.graph, node.op, inputs, output, attrs=dict(node.attrs))
        return output

    def _placed(self, tensor: Tensor, axis: int) -> Tensor:
        maker, output = tensor.inputs[0], self._like(tensor)
        name = unique_name(self.graph, f"{maker.name}/encoder")
        place(self.graph, SIGNED, maker, name, tensor, output, axis)
        self.report.actions[f"{maker.op} encoded"] += 1
        return output

    def _like(self, tensor: Tensor) -> Tensor:
        name = unique_name(self.graph, f"{tensor.name}.encoded")
        return gs.Variable(name, np.float32, tensor.shape)


def _flattens(node: Node) -> bool:
    """Whether a node brings a tensor of more axes, and known sizes, to two axes."""
    before, after = node.inputs[0].shape, node.outputs[0].shape
    return (
        node.op in ("Flatten", "Reshape")
        and is_static_shape(before)
        and is_static_shape(after)
        and len(after) == 2 < len(before)
        and after[0] == before[0]
    )
