"""Fashion-MNIST for the training scripts: its files, augmentation, training, export."""

from __future__ import annotations

import gzip
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnxruntime as ort
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

__all__ = [
    "Bytes",
    "Inputs",
    "accuracy",
    "export",
    "image_input",
    "onnx_logits",
    "read",
    "train",
]

Bytes = NDArray[np.uint8]

Inputs = Callable[[Tensor], tuple[Tensor, ...]]
"""What a network is fed: images [N, 1, 28, 28] in 0..1 to its inputs."""


def read(folder: Path, part: str) -> tuple[Bytes, Bytes]:
    """Images [N, 1, 28, 28] and labels [N] of `train` or `t10k`, from the idx.gz files."""
    images = (folder / f"{part}-images-idx3-ubyte.gz").read_bytes()
    labels = (folder / f"{part}-labels-idx1-ubyte.gz").read_bytes()
    return (
        np.frombuffer(gzip.decompress(images), np.uint8, offset=16).reshape(-1, 1, 28, 28),
        np.frombuffer(gzip.decompress(labels), np.uint8, offset=8),
    )


def image_input(images: Tensor) -> tuple[Tensor, ...]:
    """The images themselves."""
    return (images,)


def augment(images: Tensor, reach: int = 2) -> Tensor:
    """Each image shifted by up to `reach` pixels either way, and half of them mirrored."""
    count, _, height, width = images.shape
    padded = functional.pad(images, (reach,) * 4)
    top, left = torch.randint(2 * reach + 1, (2, count, 1))
    rows = top + torch.arange(height)  # [N, H]
    columns = left + torch.arange(width)  # [N, W]
    columns = torch.where(torch.rand(count, 1) < 0.5, columns.flip(1), columns)
    return padded[torch.arange(count)[:, None, None], 0, rows[:, :, None], columns[:, None]][
        :, None
    ]


def train(
    model: nn.Module,
    images: Bytes,
    labels: Bytes,
    optimizer: torch.optim.Optimizer,
    peak: float,
    epochs: int,
    inputs: Inputs = image_input,
    batch: int = 128,
) -> None:
    """One-cycle training, `peak` the greatest rate; leaves the model in inference mode."""
    pixels, targets = torch.tensor(images), torch.tensor(labels, dtype=torch.long)
    steps, begun = -(-len(pixels) // batch), time.perf_counter()
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=peak, epochs=epochs, steps_per_epoch=steps
    )
    model.to(memory_format=torch.channels_last)  # faster, depthwise convolutions most
    model.train()
    for epoch in range(epochs):
        total = 0.0
        for chosen in torch.randperm(len(pixels)).split(batch):
            optimizer.zero_grad()
            logits = model(*inputs(augment(pixels[chosen].float() / 255)))
            loss = functional.cross_entropy(logits, targets[chosen])
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item()
        seconds = time.perf_counter() - begun
        print(f"epoch {epoch + 1}/{epochs}: loss {total / steps:.4f}, {seconds:.0f} s", flush=True)
    model.eval()


def export(model: nn.Module, path: Path, names: Sequence[str], example: Sequence[Tensor]) -> None:
    """Write the model as ONNX, opset 17; PRESERVE keeps the exporter from folding BatchNorm."""
    torch.onnx.export(
        model,
        tuple(example),
        path,
        dynamo=False,
        training=torch.onnx.TrainingMode.PRESERVE,
        do_constant_folding=False,
        opset_version=17,
        input_names=list(names),
        output_names=["logits"],
        dynamic_axes={name: {0: "N"} for name in [*names, "logits"]},
    )


def onnx_logits(
    path: Path, images: Bytes, names: Sequence[str], inputs: Inputs = image_input
) -> NDArray[np.float32]:
    """What the exported model says of the images in ONNX Runtime, [N, classes]."""
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    outputs = []
    for batch in torch.tensor(images).split(1000):
        feeds = zip(names, inputs(batch.float() / 255), strict=True)
        outputs += session.run(["logits"], {name: values.numpy() for name, values in feeds})
    return np.concatenate(outputs)


def accuracy(logits: NDArray[np.float32], labels: Bytes) -> float:
    """The share of images whose greatest logit is the label's."""
    return float((logits.argmax(1) == labels).mean())
