"""Let every layer of weights read spikes: put a signed Rate Norm Layer where it would not.

Behind `relu_to_ratenorm`, spikes come from rectifiers only. A layer of weights that reads
anything else that weights made (GELU, HardSwish, LeakyRelu, a normalization, attention, the
linear bottleneck of a MobileNet) gets `theta * SignedRateNorm(x, theta)` in front, which
becomes a neuron that can fire negative spikes.

1. Several layers that read one tensor share one encoder; other readers keep the tensor.
2. In front of a Concat, only the inputs that are not spikes already are encoded.
3. In front of a Flatten or Reshape to two axes, the tensor before it is encoded: there its
   channels are known.
4. In front of a Reshape that merges the axis of the samples with others, what comes before it is
   encoded too, once the axes that become the last one are merged: a state has samples on an axis.
5. Of a Clip from -c to c (HardTanh), or a Max and a Min that clip so, what it reads is encoded,
   also where an average is taken in between: a signed Rate Norm Layer of threshold c, which was
   trained, is that Clip.
6. The first layer reads the input as a constant current, and is left alone; so is every
   layer that reads a linear function of the input.
7. What is of a size that the values decide has no place for a potential, and stays analog.
"""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs

from onnxsnn.arrays import Array
from onnxsnn.graph import (
    Graph,
    Node,
    Tensor,
    channel_axis,
    data_input,
    insert,
    is_static_shape,
    producer,
    rank,
    unique_name,
)
from onnxsnn.operators import clipped_between
from onnxsnn.passes.name_batch import batch_names, name_batch
from onnxsnn.passes.report import Report
from onnxsnn.ratenorm import SIGNED, UNSET_THRESHOLD, place
from onnxsnn.signals import Signal, Signals, weighted_input
from onnxsnn.value_sizes import sized_by_values

__all__ = ["encode"]

_OTHER_SIDE = {"Clip": "", "Max": "Min", "Min": "Max"}  # what bounds the other side


def encode(graph: Graph) -> Report:
    """Insert the encoders; value-preserving, as no threshold is set yet.

    Raises:
        UnsupportedError: what is to be encoded is not float32, or its rank is not known.
    """
    graph.toposort()
    name_batch(graph)
    encoder, varying = _Encoder(graph), sized_by_values(graph)
    for node in list(graph.nodes):
        position = weighted_input(node)
        if position is None or node.inputs[position].name in varying:
            continue
        source = node.inputs[position]
        if encoder.signals[source] is Signal.ANALOG:
            node.inputs[position] = encoder.encoded(source, node)
    graph.cleanup().toposort()
    return encoder.report


class _Encoder:
    """The pass at work: encoded tensors, each made once."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.signals = Signals(graph)
        self.report = Report("encode")
        self._encoded: dict[tuple[int, int], Tensor] = {}
        self._batch = batch_names(graph)

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
            elif _flattens(maker) or _averages_clipped(maker):
                self._encoded[key] = self._before(maker)
            elif axis == len(tensor.shape) - 1 and self._merges_samples(maker):
                self._encoded[key] = self._before_merge(maker)
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

    def _before(self, node: Node) -> Tensor:
        source, *shape = node.inputs
        return self._copied(node, [self._twin(source, channel_axis(source)), *shape])

    def _merges_samples(self, node: Node) -> bool:
        """Whether a Reshape merges the axis of the samples with others, but not with the last."""
        source, result = node.inputs[0].shape, node.outputs[0].shape
        return (
            node.op == "Reshape"
            and bool(source)
            and not self._batch.isdisjoint(source)
            and self._batch.isdisjoint(result)
            and _merged_into_last(node) > 0
        )

    def _before_merge(self, reshape: Node) -> Tensor:
        """Bring the last axis about alone, encode that, and merge the others then."""
        source, result = reshape.inputs[0], reshape.outputs[0]
        kept = len(source.shape) - _merged_into_last(reshape)
        last = result.shape[-1]
        name = unique_name(self.graph, f"{source.name}.channels")
        channels = gs.Variable(name, source.dtype, [*source.shape[:kept], last])
        target = gs.Constant(f"{name}.target", np.array([0] * kept + [last], np.int64))
        insert(self.graph, "Reshape", [source, target], channels)
        return self._copied(reshape, [self._placed(channels, kept), *reshape.inputs[1:]])

    def _copied(self, node: Node, inputs: list[Tensor]) -> Tensor:
        """The output of a copy of a node of one output that reads other inputs."""
        output = self._like(node.outputs[0])
        insert(self.graph, node.op, inputs, output, attrs=dict(node.attrs))
        return output

    def _placed(self, tensor: Tensor, axis: int) -> Tensor:
        maker, output = tensor.inputs[0], self._like(tensor)
        name = unique_name(self.graph, f"{maker.name}/encoder")
        clip = _symmetric_clip(maker)
        limit, source = (None, tensor) if clip is None else clip
        place(self.graph, SIGNED, maker, name, source, output, axis, limit)
        self.report.actions[f"{maker.op} encoded"] += 1
        return output

    def _like(self, tensor: Tensor) -> Tensor:
        name = unique_name(self.graph, f"{tensor.name}.encoded")
        return gs.Variable(name, np.float32, tensor.shape)


def _symmetric_clip(node: Node) -> tuple[Array, Tensor] | None:
    """The c of a clip from -c to c, which a signed layer of threshold c does itself, and its input.

    That is a Clip, or a Max and a Min, one behind the other.
    """
    bounds = clipped_between(node) if node.op in _OTHER_SIDE else None
    if bounds is None:
        return None
    (low, high), source = bounds, data_input(node)
    before = producer(source)
    if before is not None and before.op == _OTHER_SIDE[node.op]:
        inner = clipped_between(before)
        if inner is not None:
            low, high, source = (
                np.maximum(low, inner[0]),
                np.minimum(high, inner[1]),
                data_input(before),
            )
    if high.size > 1 or low.size > 1 or not 0 < high == -low < UNSET_THRESHOLD:
        return None
    return high.reshape(()), source


def _averages_clipped(node: Node) -> bool:
    """Whether a node averages what a signed layer can clip itself."""
    makers = node.inputs[0].inputs
    averages = node.op in ("AveragePool", "GlobalAveragePool")
    return averages and bool(makers) and _symmetric_clip(makers[0]) is not None


def _merged_into_last(reshape: Node) -> int:
    """How many axes become the last one of a Reshape, as they are; 0 where it is not so."""
    sizes, last = reshape.inputs[0].shape, reshape.outputs[0].shape[-1]
    product = 1
    for count, size in enumerate(reversed(sizes), start=1):
        if not isinstance(size, int) or not isinstance(last, int) or product > last:
            return 0
        product *= size
        if product == last:
            return count
    return 0


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
