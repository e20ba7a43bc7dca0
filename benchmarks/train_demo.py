"""Train the network that the demo converts, and write it with its data into the package.

The network is a small ResNet for Fashion-MNIST: four convolutions, each with batch
normalization, a residual block whose Add is followed by ReLU, average pooling only. It is
shallow and wide rather than deep and thin, which suits few timesteps. It takes images
scaled to 0..1 and is exported in inference mode with BatchNormalization left in the graph,
for the converter to fold. The weights of the last epoch are kept: the test images choose
nothing.

Run it with the folder that holds the four idx.gz files of Fashion-MNIST:

    pip install onnxsnn[torch]
    python benchmarks/train_demo.py --data fashion-mnist

It writes `model.onnx` and `data.npz` (every tenth test image, with its label; 256
training images for calibration) and prints the accuracy that ONNX Runtime measures.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from fashion import Bytes, accuracy, export, onnx_logits, read, train
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

DEMO = Path(__file__).parent.parent / "onnxsnn" / "demo"
CLASSES = 10
TEST_IMAGE_STEP = 10
CALIBRATION_IMAGES = 256
SIZE_LIMIT = 1_000_000  # bytes, both files together


def convolution(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> list[nn.Module]:
    """A padded convolution without bias, and its batch normalization."""
    return [
        nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(outputs),
    ]


class Residual(nn.Module):
    """relu(x + body(x)), the body being two convolutions."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        first, second = convolution(channels, channels), convolution(channels, channels)
        self.body = nn.Sequential(*first, nn.ReLU(), *second)

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(x + self.body(x))


def network() -> nn.Sequential:
    """The demo's network: images [N, 1, 28, 28] in 0..1 to logits [N, 10]."""
    return nn.Sequential(
        *convolution(1, 36, kernel=5, stride=2),  # [N, 36, 14, 14]
        nn.ReLU(),
        Residual(36),
        nn.AvgPool2d(2),
        *convolution(36, 96),  # [N, 96, 7, 7]
        nn.ReLU(),
        nn.AvgPool2d(3, stride=2),  # [N, 96, 3, 3]
        nn.Flatten(),
        nn.Linear(96 * 9, CLASSES),
    )


@torch.no_grad()
def torch_logits(model: nn.Module, images: Bytes) -> NDArray[np.float32]:
    """What the trained model says of the images, [N, 10]."""
    batches = torch.tensor(images).split(1000)
    return np.concatenate([model(batch.float() / 255).numpy() for batch in batches])


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the demo's network and write its files.")
    parser.add_argument("--data", type=Path, required=True, help="folder of the idx.gz files")
    parser.add_argument("--out", type=Path, default=DEMO, help="folder to write into")
    parser.add_argument("--epochs", type=int, default=14)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()

    torch.manual_seed(0)
    torch.set_num_threads(options.threads)
    train_images, train_labels = read(options.data, "train")
    test_images, test_labels = read(options.data, "t10k")

    model, start = network(), time.perf_counter()
    optimizer = torch.optim.SGD(model.parameters(), momentum=0.9, weight_decay=5e-4, nesterov=True)
    train(model, train_images, train_labels, optimizer, 0.2, options.epochs)
    print(f"trained in {time.perf_counter() - start:.0f} s")

    model_path, data_path = options.out / "model.onnx", options.out / "data.npz"
    export(model, model_path, ["image"], [torch.zeros(1, 1, 28, 28)])
    shipped = slice(None, None, TEST_IMAGE_STEP)
    np.savez_compressed(
        data_path,
        test_images=test_images[shipped],
        test_labels=test_labels[shipped],
        calibration_images=train_images[:CALIBRATION_IMAGES],
    )

    expected, logits = (
        torch_logits(model, test_images),
        onnx_logits(model_path, test_images, ["image"]),
    )
    print(f"parameters: {sum(p.numel() for p in model.parameters())}")
    print(f"largest difference from torch: {np.abs(logits - expected).max():.2g}")
    print(f"accuracy on {len(logits)} in torch: {accuracy(expected, test_labels):.2%}")
    print(f"accuracy on {len(logits)}: {accuracy(logits, test_labels):.2%}")
    print(f"accuracy on the shipped: {accuracy(logits[shipped], test_labels[shipped]):.2%}")
    size = model_path.stat().st_size + data_path.stat().st_size
    print(f"{model_path.name} and {data_path.name}: {size} bytes")
    if size > SIZE_LIMIT:
        raise SystemExit(f"the demo's files may have {SIZE_LIMIT} bytes")


if __name__ == "__main__":
    main()
