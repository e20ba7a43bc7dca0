"""Train small networks of the shapes that people convert, on Fashion-MNIST, and export them.

    vit        a vision transformer on 4x4 patches: pre-norm, fused QKV, GELU
    bert       a BERT encoder on tokens made of the patches: post-norm, mask, pooler with tanh
    mobilenet  inverted residuals: ReLU6, depthwise convolutions, linear bottlenecks
    preact     PreActResNet-18 of width 16 (He et al. 2016), the shortcut behind BN and ReLU
    vgg-avg    VGG-16 of width 16 (Simonyan and Zisserman 2015), average pooling
    vgg-max    the same with MaxPool
    preact-32, vgg-avg-32, vgg-max-32, mobilenet-32  of twice the width

Run it with the folder that holds the four idx.gz files of Fashion-MNIST; a network that is
in the cache already is not trained again:

    pip install onnxsnn[torch]
    python benchmarks/train_networks.py --data fashion-mnist preact vgg-avg vgg-max

For each it writes, into benchmarks/cache by default, NAME.onnx, NAME-calibrate.npz (512
training images, as the network is fed) and NAME-test.npz (all test images, with labels).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from fashion import Bytes, Inputs, accuracy, export, image_input, onnx_logits, read, train
from torch import Tensor, nn
from torch.nn import functional

CACHE = Path(__file__).parent / "cache"
CALIBRATION_IMAGES = 512
CLASSES = 10
PATCHES = 49


class Attention(nn.Module):
    """Multi-head attention with one fused projection, as vision transformers write it."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.size = heads, width // heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        n, length, width = x.shape
        qkv = self.qkv(x).reshape(n, length, 3, self.heads, self.size).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.unbind(0)
        weights = (q * self.size**-0.5 @ k.transpose(-2, -1)).softmax(-1)
        return self.out((weights @ v).transpose(1, 2).reshape(n, length, width))


class VitBlock(nn.Module):
    """Attention and a GELU perceptron, each behind its normalization."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.attention = nn.LayerNorm(width), Attention(width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class Vit(nn.Module):
    """Images [N, 1, 28, 28] to logits [N, 10], by a class token."""

    def __init__(self, width: int = 64, depth: int = 4, heads: int = 4) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, width, 4, 4)
        self.token = nn.Parameter(torch.zeros(1, 1, width))
        self.position = nn.Parameter(torch.randn(1, PATCHES + 1, width) * 0.02)
        self.blocks = nn.Sequential(*(VitBlock(width, heads) for _ in range(depth)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, CLASSES)

    def forward(self, image: Tensor) -> Tensor:
        x = self.patches(image).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.position
        return self.head(self.norm(self.blocks(x))[:, 0])


class BertBlock(nn.Module):
    """Attention and a GELU perceptron, each before its normalization."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.size = heads, width // heads
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def _split(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:2], self.heads, self.size).permute(0, 2, 1, 3)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        q, k, v = (self._split(layer(x)) for layer in (self.query, self.key, self.value))
        weights = (q @ k.transpose(-1, -2) / self.size**0.5 + mask).softmax(-1)
        context = (weights @ v).permute(0, 2, 1, 3).contiguous().view(x.shape)
        x = self.norm1(x + self.out(context))
        return self.norm2(x + self.down(functional.gelu(self.up(x))))


class Bert(nn.Module):
    """Token numbers and a mask, both int64 [N, 50], to logits [N, 10]."""

    def __init__(self, width: int = 64, depth: int = 3, heads: int = 4) -> None:
        super().__init__()
        self.tokens = nn.Embedding(4**4 + 1, width)
        self.positions = nn.Embedding(PATCHES + 1, width)
        self.norm = nn.LayerNorm(width)
        self.blocks = nn.ModuleList(BertBlock(width, heads) for _ in range(depth))
        self.pooler, self.classifier = nn.Linear(width, width), nn.Linear(width, CLASSES)

    def forward(self, ids: Tensor, attention_mask: Tensor) -> Tensor:
        positions = torch.arange(ids.shape[1], device=ids.device)[None]
        x = self.norm(self.tokens(ids) + self.positions(positions))
        mask = (1.0 - attention_mask[:, None, None, :].to(x.dtype)) * -10000.0
        for block in self.blocks:
            x = block(x, mask)
        return self.classifier(torch.tanh(self.pooler(x[:, 0])))


def tokens(images: Tensor) -> tuple[Tensor, ...]:
    """Each 4x4 patch as one of 256 tokens, a class token in front; dark patches are masked.

    A token is the brightness of the patch's four quarters, in four levels each.
    """
    quarters = functional.avg_pool2d(images, 2)  # [N, 1, 14, 14]
    levels = (quarters * 4).long().clamp(0, 3)
    corners = [levels[:, 0, i::2, j::2].flatten(1) for i in (0, 1) for j in (0, 1)]  # [N, 49] each
    ids = sum(corner * 4**place for place, corner in enumerate(corners))
    ids = functional.pad(ids, (1, 0), value=4**4)
    return ids, (ids != 0).long()


class InvertedResidual(nn.Sequential):
    """Widen, convolve each channel alone, narrow without activation; a shortcut if it fits."""

    def __init__(self, inputs: int, outputs: int, stride: int, factor: int = 4) -> None:
        inner = inputs * factor
        super().__init__(
            nn.Conv2d(inputs, inner, 1, bias=False), nn.BatchNorm2d(inner), nn.ReLU6(),
            nn.Conv2d(inner, inner, 3, stride, 1, groups=inner, bias=False),
            nn.BatchNorm2d(inner), nn.ReLU6(),
            nn.Conv2d(inner, outputs, 1, bias=False), nn.BatchNorm2d(outputs),
        )  # fmt: skip
        self.shortcut = inputs == outputs and stride == 1

    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x)
        return x + y if self.shortcut else y


def mobilenet(width: int = 16) -> nn.Module:
    """MobileNetV2 at a width that two cores can train."""
    inner = [width, width, width * 3 // 2, width * 3 // 2, width * 5 // 2, width * 5 // 2]
    last, strides = 4 * width, (1, 2, 1, 2, 1, 1)
    return nn.Sequential(
        nn.Conv2d(1, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU6(),
        *map(InvertedResidual, inner, [*inner[1:], last], strides),
        nn.Conv2d(last, 2 * last, 1, bias=False), nn.BatchNorm2d(2 * last), nn.ReLU6(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2 * last, CLASSES),
    )  # fmt: skip


class PreActivation(nn.Module):
    """Normalize and rectify before each convolution; a projected shortcut starts there too."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.BatchNorm2d(inputs), nn.BatchNorm2d(outputs)
        self.relu1, self.relu2 = nn.ReLU(), nn.ReLU()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        projects = stride != 1 or inputs != outputs
        self.shortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=False) if projects else None

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu1(self.norm1(x))
        shortcut = x if self.shortcut is None else self.shortcut(y)
        return shortcut + self.conv2(self.relu2(self.norm2(self.conv1(y))))


def preact(width: int = 16, channels: int = 1) -> nn.Module:
    """PreActResNet-18: eight blocks in four stages; images of so many channels."""
    stages, blocks, inputs = (width, 2 * width, 4 * width, 8 * width), [], width
    for stage, outputs in enumerate(stages):
        blocks += [
            PreActivation(inputs, outputs, 1 if stage == 0 else 2),
            PreActivation(outputs, outputs, 1),
        ]
        inputs = outputs
    return nn.Sequential(
        nn.Conv2d(channels, width, 3, 1, 1, bias=False), *blocks,
        nn.BatchNorm2d(inputs), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(inputs, CLASSES),
    )  # fmt: skip


VGG16 = (1, 1, "P", 2, 2, "P", 4, 4, 4, "P", 8, 8, 8, "P", 8, 8, 8, "P")
"""Channels of its convolutions, as multiples of the width, and where it pools."""


def vgg(
    pool: Callable[[int], nn.Module], width: int = 16, channels: int = 1, size: int = 28
) -> nn.Module:
    """VGG-16; the first convolution pads images to 32x32, so that five pools leave one pixel."""
    layers: list[nn.Module] = []
    inputs = channels
    for entry in VGG16:
        if isinstance(entry, str):
            layers.append(pool(2))
            continue
        outputs = entry * width
        padding = 1 if layers else 1 + (32 - size) // 2
        layers += [
            nn.Conv2d(inputs, outputs, 3, 1, padding, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
        ]
        inputs = outputs
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(inputs, CLASSES))


@dataclass(frozen=True)
class Recipe:
    """How a network is built, fed and trained."""

    build: Callable[[], nn.Module]
    epochs: int
    names: Sequence[str] = ("image",)
    inputs: Inputs = image_input
    adam: bool = False


RECIPES = {
    "vit": Recipe(Vit, 6, adam=True),
    "bert": Recipe(Bert, 6, ("ids", "attention_mask"), tokens, adam=True),
    "mobilenet": Recipe(mobilenet, 9),
    "preact": Recipe(preact, 4),
    "vgg-avg": Recipe(lambda: vgg(nn.AvgPool2d), 5),
    "vgg-max": Recipe(lambda: vgg(nn.MaxPool2d), 5),
    "preact-32": Recipe(lambda: preact(32), 4),
    "vgg-avg-32": Recipe(lambda: vgg(nn.AvgPool2d, 32), 5),
    "vgg-max-32": Recipe(lambda: vgg(nn.MaxPool2d, 32), 5),
    "mobilenet-32": Recipe(lambda: mobilenet(32), 7),
}


def make(name: str, data: Path, out: Path) -> None:
    """Train one network and write its three files."""
    recipe = RECIPES[name]
    torch.manual_seed(0)
    images, labels = read(data, "train")
    test_images, test_labels = read(data, "t10k")
    model, path = recipe.build(), out / f"{name}.onnx"
    if recipe.adam:
        optimizer: torch.optim.Optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.02)
        peak = 2e-3
    else:
        optimizer = torch.optim.SGD(
            model.parameters(), momentum=0.9, weight_decay=5e-4, nesterov=True
        )
        peak = 0.15
    train(model, images, labels, optimizer, peak, recipe.epochs, recipe.inputs)
    export(model, path, recipe.names, recipe.inputs(torch.tensor(images[:1]).float() / 255))
    save(out / f"{name}-calibrate.npz", recipe, images[:CALIBRATION_IMAGES])
    save(out / f"{name}-test.npz", recipe, test_images, labels=test_labels)
    logits = onnx_logits(path, test_images, recipe.names, recipe.inputs)
    print(f"{name}: {accuracy(logits, test_labels):.2%} of {len(test_labels)} test images")


def trained(name: str, data: Path, out: Path = CACHE) -> list[Path]:
    """The three files of a network: the model, calibration and test data; trained only once."""
    if name not in RECIPES:
        raise SystemExit(f"there is no network {name!r}; take one of {', '.join(RECIPES)}")
    out.mkdir(parents=True, exist_ok=True)
    files = [out / f"{name}{ending}" for ending in (".onnx", "-calibrate.npz", "-test.npz")]
    if not files[-1].exists():  # it is written last
        make(name, data, out)
    return files


def save(path: Path, recipe: Recipe, images: Bytes, **more: Bytes) -> None:
    """Write what the network is fed for these images."""
    arrays = recipe.inputs(torch.tensor(images).float() / 255)
    np.savez_compressed(
        path, **dict(zip(recipe.names, map(np.asarray, arrays), strict=True)), **more
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of the idx.gz files")
    parser.add_argument("--out", type=Path, default=CACHE, help="folder to write into")
    parser.add_argument("names", nargs="+", choices=RECIPES)
    options = parser.parse_args()
    for name in options.names:
        trained(name, options.data, options.out)


if __name__ == "__main__":
    main()
