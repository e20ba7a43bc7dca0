"""NIR: the SNN in the Neuromorphic Intermediate Representation (Pedersen et al. 2024).

What a reader gets is a graph of IF neurons between layers of weights; spikes are 0 or 1.

1. A neuron is an `IF` with r = 1 and a threshold per neuron. NIR's `IF` does not say that the
   reset subtracts the threshold; its metadata do, and its readers have a setting for it.
2. A layer of weights is a `Conv1d`, `Conv2d` or `Affine`. Groups become zeros in a dense
   weight, since NIR checks the shapes of ungrouped ones only; uneven pads become taps of zero.
3. Average pooling is a `SumPool2d`, whose factor 1 / n enters the weights behind: what travels
   stays whole. Where none can take it, it stays as a scale. Uneven pads make it a `Conv2d`.
4. A sum of tensors is no node: several edges into a node add up.
5. A scale or a shift per channel is a `Conv2d` of 1 x 1, which more readers know than `Scale`.
6. The running mean in front of the read-out is left to the reader: NIR's output is that of one
   timestep, whose mean over the timesteps is the SNN's output.

Anything else is a loss: it is listed, and nothing is written unless that is allowed.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from onnxsnn.arrays import Array
from onnxsnn.errors import UnsupportedError, UsageError
from onnxsnn.export.network import Network, Operation, read_network
from onnxsnn.files import write_bytes
from onnxsnn.model import SpikingModel

__all__ = ["NIR_NOTES", "export_nir", "nir_graph"]

NIR_NOTES = (
    "the reset of every IF subtracts its threshold; a reader that resets to v_reset must be told",
    "a neuron fires once a step at most, at v >= v_threshold, and its potential has no minimum",
    "the mean of the outputs over the timesteps is the network's output",
)
"""What a reader of the file must know, and NIR cannot say."""


def export_nir(snn: SpikingModel, path: str | Path, *, allow_loss: bool = False) -> list[str]:
    """Write an SNN as NIR; see `nir_graph`. Gives what was lost.

    Raises:
        OutputError: the file cannot be written.
    """
    nir = _nir()
    graph, losses = nir_graph(snn, allow_loss=allow_loss)
    buffer = io.BytesIO()
    nir.write(buffer, graph)
    write_bytes(buffer.getvalue(), path)
    return losses


def nir_graph(snn: SpikingModel, *, allow_loss: bool = False) -> tuple[Any, list[str]]:
    """An SNN as a `nir.NIRGraph`, and what NIR cannot say of it.

    Args:
        snn: the SNN.
        allow_loss: leave out what NIR cannot say, where the rest holds together without it.

    Raises:
        UsageError: the package nir is not installed.
        UnsupportedError: NIR cannot say something, and it may not, or cannot, be left out.
    """
    writer = _Writer(_nir(), read_network(snn))
    writer.write()
    losses = [f"{why} ({_some(where)})" for why, where in writer.losses.items()]
    if writer.needed:
        raise UnsupportedError(
            f"NIR has nothing for {_some(writer.needed)}, "
            "and what is behind would not fit if that were left out"
        )
    if losses and not allow_loss:
        raise UnsupportedError(
            f"NIR cannot say: {'; '.join(losses)}; --allow-loss writes the file without"
        )
    return writer.graph(), losses


def _some(names: list[str]) -> str:
    more = f", and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more


def _nir() -> ModuleType:
    try:
        import nir
    except ImportError as error:
        raise UsageError(
            "NIR files need the package nir; install it with: pip install 'onnxsnn[nir]'"
        ) from error
    module: ModuleType = nir
    return module


class _Writer:
    """Translates operation by operation.

    `sources` are the nodes whose sum a tensor is, and `factors` what it must still be
    multiplied by.
    """

    def __init__(self, nir: ModuleType, network: Network) -> None:
        self.nir = nir
        self.network = network
        self.shapes = network.shapes
        self.nodes: dict[str, Any] = {}
        self.edges: list[tuple[str, str]] = []
        self.sources: dict[str, list[str]] = {}
        self.factors: dict[str, float] = {}
        self.losses: dict[str, list[str]] = {}
        self.needed: list[str] = []

    def write(self) -> None:
        for name, shape in self.network.inputs.items():
            node = self.nir.Input(np.array(shape))
            self.sources[name] = [self._add(_end("input", name, self.network.inputs), node, [])]
        for operation in self.network.operations:
            self._write(operation)
        if self.needed:
            return
        for name in self.network.outputs:
            node = self.nir.Output(np.array(self.shapes[name]))
            self._add(_end("output", name, self.network.outputs), node, self._settled(name))

    def graph(self) -> Any:
        return self.nir.NIRGraph(
            self.nodes,
            self.edges,
            metadata={"timesteps": self.network.timesteps, "notes": ". ".join(NIR_NOTES)},
        )

    def _write(self, operation: Operation) -> None:
        if operation.operator in _LEFT_TO_THE_READER:
            self._pass(operation)
        elif operation.operator == "Add" and operation.canonical:
            self._sum(operation)
        else:
            rule = _RULES.get(operation.operator) if operation.canonical else None
            nodes = self._neuron(operation) if operation.fires else None
            nodes = rule(self, operation) if rule else nodes
            if nodes is None:
                self._leave_out(operation)
            else:
                self._chain(operation, nodes)

    def _chain(self, operation: Operation, nodes: list[Any]) -> None:
        """Put nodes behind each other."""
        (read,) = operation.inputs
        if operation.operator in _CARRYING:
            own = self.factors.get(operation.output, 1.0)
            self.factors[operation.output] = own * self._factor(operation)
        taken = operation.operator in _CARRYING | _WEIGHTED
        before = self.sources[read] if taken else self._settled(read)
        for node in nodes:
            before = [self._add(operation.name, node, before)]
        self.sources[operation.output] = before

    def _pass(self, operation: Operation) -> None:
        (read,) = operation.inputs
        self.sources[operation.output] = self.sources[read]
        self.factors[operation.output] = self._factor(operation)

    def _sum(self, operation: Operation) -> None:
        """The sources of all terms; one that is there already comes through a node of its own."""
        sources: list[str] = []
        for name in operation.inputs:
            for source in self._settled(name):
                if source in sources:
                    again = self._scaling(self.shapes[name], 1.0)
                    source = self._add(operation.name, again, [source])
                sources.append(source)
        self.sources[operation.output] = sources

    def _settled(self, name: str) -> list[str]:
        """The sources of a tensor, multiplied by what no weights have taken."""
        factor = self.factors.get(name, 1.0)
        if factor == 1.0:
            return self.sources[name]
        scaling = self._scaling(self.shapes[name], factor)
        return [self._add(f"{name}_scale", scaling, self.sources[name])]

    def _leave_out(self, operation: Operation) -> None:
        one = len(operation.inputs) == 1 and len(operation.outputs) == 1
        if one and self.shapes[operation.inputs[0]] == operation.shape:
            self._lose(f"{operation.operator}, for which it has no node", operation.name)
            self._pass(operation)
            return
        self.needed.append(str(operation))
        for name in operation.outputs:
            self.sources[name] = []

    def _lose(self, what: str, where: str) -> None:
        self.losses.setdefault(what, []).append(where)

    def _add(self, name: str, node: Any, before: list[str]) -> str:
        base = re.sub(r"\W", "_", name).strip("_") or "node"
        name, number = base, 1
        while name in self.nodes:
            name, number = f"{base}_{number}", number + 1
        self.nodes[name] = node
        self.edges += [(source, name) for source in before]
        return name

    def _neuron(self, operation: Operation) -> list[Any]:
        if operation.operator != "IntegrateAndFire":
            self._lose(f"{operation.operator}, whose spikes are not 0 and 1", operation.name)
        start = np.broadcast_to(operation.arrays["v0"], operation.shape).astype(np.float32)
        if np.any(start):
            self._lose("the potential before the first step, which is not 0", operation.name)
        threshold = np.broadcast_to(operation.arrays["threshold"], operation.shape)
        neuron = self.nir.IF(
            r=np.ones(operation.shape, np.float32),
            v_threshold=threshold.astype(np.float32),
            v_reset=np.zeros(operation.shape, np.float32),
            metadata={"reset": "subtract v_threshold", "v0": start},
        )
        return [neuron]

    def _factor(self, operation: Operation) -> float:
        return self.factors.get(operation.inputs[0], 1.0)

    def convolution(self, operation: Operation) -> list[Any] | None:
        return self._convolution(operation, self._factor(operation))

    def _convolution(self, operation: Operation, factor: float) -> list[Any] | None:
        settings, weight = operation.settings, operation.arrays["weight"]
        axes = weight.ndim - 2
        even = _even_pads(weight, settings["pads"], settings["dilations"])
        if axes not in (1, 2) or even is None:
            return None
        weight, pads = even
        node, size = (self.nir.Conv1d, _only) if axes == 1 else (self.nir.Conv2d, tuple)
        return [
            node(
                input_shape=size(self.shapes[operation.inputs[0]][1:]),
                weight=_dense(weight, settings["groups"]) * np.float32(factor),
                stride=size(settings["strides"]),
                padding=size(pads),
                dilation=size(settings["dilations"]),
                groups=1,
                bias=operation.arrays["bias"],
            )
        ]

    def linear(self, operation: Operation) -> list[Any] | None:
        if len(operation.shape) != 1:
            return None
        weight = operation.arrays["weight"] * np.float32(self._factor(operation))
        return [self.nir.Affine(weight=weight, bias=operation.arrays["bias"].copy())]

    def average(self, operation: Operation) -> list[Any] | None:
        settings = operation.settings
        kernel, pads = settings["kernel"], settings["pads"]
        if len(kernel) != 2 or (any(pads) and not settings["include_padding"]):
            return None
        if pads[:2] == pads[2:]:
            self.factors[operation.output] = 1 / math.prod(kernel)
            return [self._sum_pool(kernel, settings["strides"], pads[:2])]
        each = np.full((operation.shape[0], 1, *kernel), 1 / math.prod(kernel), np.float32)
        arrays = {"weight": each, "bias": np.zeros(len(each), np.float32)}
        settings = settings | {"dilations": [1, 1], "groups": len(each)}
        return self._convolution(replace(operation, settings=settings, arrays=arrays), 1.0)

    def mean(self, operation: Operation) -> list[Any] | None:
        shape = self.shapes[operation.inputs[0]]
        if len(shape) != 3 or operation.settings["axes"] != [1, 2]:
            return None
        self.factors[operation.output] = 1 / math.prod(shape[1:])
        pool = self._sum_pool(shape[1:], shape[1:], [0, 0])
        return [pool] if operation.settings["keepdims"] else [pool, self._flatten([shape[0], 1, 1])]

    def _sum_pool(self, kernel: list[int], strides: list[int], pads: list[int]) -> Any:
        return self.nir.SumPool2d(
            kernel_size=np.array(kernel), stride=np.array(strides), padding=np.array(pads)
        )

    def reshape(self, operation: Operation) -> list[Any] | None:
        before = self.shapes[operation.inputs[0]]
        if before == operation.shape:
            return []
        return [self._flatten(before)] if len(operation.shape) == 1 else None

    def _flatten(self, shape: list[int]) -> Any:
        return self.nir.Flatten(input_type={"input": np.array(shape)}, start_dim=0, end_dim=-1)

    def scale(self, operation: Operation) -> list[Any]:
        return [self._scaling(operation.shape, operation.arrays["scale"])]

    def shift(self, operation: Operation) -> list[Any] | None:
        shape, shift = operation.shape, operation.arrays["shift"]
        if len(shape) == 1:
            spread = np.broadcast_to(shift, shape).astype(np.float32)
            return [self.nir.Affine(weight=np.eye(*shape, dtype=np.float32), bias=spread)]
        per_channel = _per_channel(shape, shift)
        return None if per_channel is None else [self._pointwise(shape, 1.0, per_channel)]

    def _scaling(self, shape: list[int], factor: Array | float) -> Any:
        """A tensor of `shape` times a factor."""
        per_channel = _per_channel(shape, np.asarray(factor, np.float32))
        if per_channel is not None:
            return self._pointwise(shape, per_channel, 0.0)
        return self.nir.Scale(np.broadcast_to(factor, shape).astype(np.float32))

    def _pointwise(self, shape: list[int], scale: Array | float, shift: Array | float) -> Any:
        """Each channel of a tensor [channels, height, width] times a scale, plus a shift."""
        channels = shape[0]
        weight = np.eye(channels, dtype=np.float32) * np.float32(scale)
        return self.nir.Conv2d(
            input_shape=tuple(shape[1:]),
            weight=weight.reshape(channels, channels, 1, 1),
            stride=1, padding=0, dilation=1, groups=1,
            bias=np.broadcast_to(shift, channels).astype(np.float32),
        )  # fmt: skip


_RULES: dict[str, Callable[[_Writer, Operation], list[Any] | None]] = {
    "Conv": _Writer.convolution,
    "Linear": _Writer.linear,
    "AveragePool": _Writer.average,
    "Mean": _Writer.mean,
    "Reshape": _Writer.reshape,
    "Scale": _Writer.scale,
    "Shift": _Writer.shift,
}
_WEIGHTED = {"Conv", "Linear"}
_CARRYING = {"AveragePool", "Mean", "Reshape"}  # what a factor can wait behind
_LEFT_TO_THE_READER = {
    "RunningMean",
    "RunningSum",
    "SumIncrement",
    "MeanIncrement",
    "SumToMean",
    "MeanToSum",
}


def _end(role: str, name: str, all_names: Any) -> str:
    """The name of an input or output node: its role, where there is but one."""
    return role if len(all_names) == 1 else name


def _only(sizes: list[int]) -> int:
    (size,) = sizes
    return size


def _per_channel(shape: list[int], values: Array) -> Array | None:
    """`values`, broadcast against [channels, height, width], as a vector; None if they are none."""
    if len(shape) != 3 or values.ndim > 3:
        return None
    _, *others = (1,) * (3 - values.ndim) + values.shape
    return np.broadcast_to(values.reshape(-1), shape[0]) if others == [1, 1] else None


def _dense(weight: Array, groups: int) -> Array:
    """The weight [outputs, inputs, *kernel] of a grouped convolution, zeros between groups."""
    rows, columns = len(weight) // groups, weight.shape[1]
    dense = np.zeros((len(weight), columns * groups, *weight.shape[2:]), weight.dtype)
    for group in range(groups):
        own = slice(group * rows, (group + 1) * rows)
        dense[own, group * columns : (group + 1) * columns] = weight[own]
    return dense


def _even_pads(
    weight: Array, pads: list[int], dilations: list[int]
) -> tuple[Array, list[int]] | None:
    """The same convolution padded alike on both sides, by taps of zero; None where they miss."""
    axes = len(dilations)
    before, behind = pads[:axes], pads[axes:]
    gaps = [(b - a, d) for a, b, d in zip(before, behind, dilations, strict=True)]
    if any(gap % dilation for gap, dilation in gaps):
        return None
    taps = [(max(gap, 0) // dilation, max(-gap, 0) // dilation) for gap, dilation in gaps]
    padded = np.pad(weight, [(0, 0), (0, 0), *taps])
    return padded, [max(pair) for pair in zip(before, behind, strict=True)]
