"""SpikingJelly's ann2snn on our networks: the same weights, data and timesteps.

A network of train_networks.py is built again in PyTorch, and gets the weights of its ONNX
file. Its recipes convert nn.ReLU modules to integrate-and-fire neurons of binary spikes:

    max             RateCodingRecipe, layer-wise, v_0 = 0
    99.9%           the same with the 99.9th percentile
    channel 99.9%   channel-wise, v_0 half the threshold
    balancing       LocalThresholdBalancingRecipe

`modes` runs the first of them on any network, all timesteps in one call: step by step, or all
at once, time folded into the batch axis around its neurons.

    pip install spikingjelly==2.0.0 h5py loguru
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import onnx
import torch
from spikingjelly.activation_based import functional, neuron
from spikingjelly.activation_based.ann2snn import (
    Converter,
    LocalThresholdBalancingRecipe,
    RateCodingRecipe,
)
from torch import Tensor, nn
from train_networks import RECIPES

__all__ = ["measure", "modes"]

_BATCH = 100
Batches = list[tuple[Tensor, Tensor]]

METHODS: dict[str, Callable[[Batches], object]] = {
    "max": lambda data: RateCodingRecipe(dataloader=data, mode="max"),
    "99.9%": lambda data: RateCodingRecipe(dataloader=data, mode="99.9%"),
    "channel 99.9%": lambda data: RateCodingRecipe(
        dataloader=data, mode="99.9%", channel_wise=True, half_threshold=True
    ),
    "balancing": lambda data: LocalThresholdBalancingRecipe(dataloader=data),
}


def network(name: str, path: Path) -> nn.Module:
    """The network `name` with the weights of its ONNX file."""
    model = RECIPES[name].build()
    weights = {
        tensor.name: torch.from_numpy(onnx.numpy_helper.to_array(tensor).copy())
        for tensor in onnx.load(path).graph.initializer
    }
    missing, _ = model.load_state_dict(weights, strict=False)
    assert all(key.endswith("num_batches_tracked") for key in missing), missing
    return model.eval()


def measure(
    name: str,
    path: Path,
    calibration: np.ndarray,
    images: np.ndarray,
    labels: np.ndarray,
    timesteps: Sequence[int],
) -> Iterable[tuple[str, list[float]]]:
    """By method, the accuracy after each of `timesteps` steps of one run."""
    pieces = torch.from_numpy(calibration).split(32)
    data = [(piece, torch.zeros(len(piece), dtype=torch.long)) for piece in pieces]
    for method, recipe in METHODS.items():
        snn = Converter(recipe=recipe(data)).convert(network(name, path))
        yield method, _accuracies(snn, images, labels, timesteps)


@torch.no_grad()
def _accuracies(
    snn: nn.Module, images: np.ndarray, labels: np.ndarray, timesteps: Sequence[int]
) -> list[float]:
    right = dict.fromkeys(timesteps, 0)
    for x, y in zip(
        torch.from_numpy(images).split(_BATCH), torch.from_numpy(labels).split(_BATCH), strict=True
    ):
        functional.reset_net(snn)
        total: Tensor | float = 0.0
        for step in range(1, max(timesteps) + 1):
            total = total + snn(x)
            if step in right:
                right[step] += int((total.argmax(1) == y).sum())
    return [right[step] / len(labels) for step in timesteps]


class _AllSteps(nn.Module):
    """A neuron in multi-step mode for tensors [T * N, ...]."""

    def __init__(self, node: nn.Module, steps: list[int]) -> None:
        super().__init__()
        self.node, self.steps = node, steps

    def forward(self, x: Tensor) -> Tensor:
        return self.node(x.unflatten(0, (self.steps[0], -1))).flatten(0, 1)


def modes(model: nn.Module, calibration: np.ndarray) -> dict[str, Callable[[Tensor, int], Tensor]]:
    """By mode, a function (images [N, ...], timesteps) -> the mean output [N, classes]."""
    pieces = torch.from_numpy(calibration).split(32)
    data = [(piece, torch.zeros(len(piece), dtype=torch.long)) for piece in pieces]
    converter = Converter(recipe=METHODS["99.9%"](data))
    single, multi = (converter.convert(copy.deepcopy(model)).eval() for _ in range(2))
    steps = [1]
    for parent in list(multi.modules()):
        for name, child in parent.named_children():
            if isinstance(child, neuron.IFNode):
                child.step_mode = "m"
                setattr(parent, name, _AllSteps(child, steps))

    @torch.inference_mode()
    def step_by_step(x: Tensor, timesteps: int) -> Tensor:
        functional.reset_net(single)
        return sum(single(x) for _ in range(timesteps)) / timesteps

    @torch.inference_mode()
    def all_at_once(x: Tensor, timesteps: int) -> Tensor:
        functional.reset_net(multi)
        steps[0] = timesteps
        return multi(x.repeat(timesteps, 1, 1, 1)).unflatten(0, (timesteps, -1)).mean(0)

    return {"single": step_by_step, "multi": all_at_once}
