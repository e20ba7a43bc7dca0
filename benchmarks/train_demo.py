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
import gzip
import time
from pathlib import Path

import numpy as np
import onnxruntime as ort
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

Bytes = NDArray[np.uint8]

DEMO = Path(__file__).parent.parent / "onnxsnn" / "demo"
CLASSES = 10
TEST_IMAGE_STEP = 10
CALIBRATION_IMAGES = 256
SIZE_LIMIT = 1_000_000  # bytes, both files together


def read_images(path: Path) -> Bytes:
    """Images of an idx3 file, [N, 1, 28, 28]."""
    return np.frombuffer(gzip.decompress(path.read_bytes()), np.uint8, offset=16).reshape(
        -1, 1, 28, 28
    )


def read_labels(path: Path) -> Bytes:
    """Labels of an idx1 file, [N]."""
    return np.frombuffer(gzip.decompress(path.read_bytes()), np.uint8, offset=8)


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


def train(model: nn.Module, images: Tensor, labels: Tensor, epochs: int, batch: int = 128) -> None:
    """One-cycle SGD on augmented images; leaves the model in inference mode."""
    steps = -(-len(images) // batch)
    optimizer = torch.optim.SGD(model.parameters(), momentum=0.9, weight_decay=5e-4, nesterov=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=0.2, epochs=epochs, steps_per_epoch=steps
    )
    model.train()
    for epoch in range(epochs):
        total, start = 0.0, time.perf_counter()
        for chosen in torch.randperm(len(images)).split(batch):
            optimizer.zero_grad()
            logits = model(augment(images[chosen].float() / 255))
            loss = functional.cross_entropy(logits, labels[chosen])
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item()
        seconds = time.perf_counter() - start
        print(f"epoch {epoch + 1}/{epochs}: loss {total / steps:.4f}, {seconds:.0f} s", flush=True)
    model.eval()


def export(model: nn.Module, path: Path) -> None:
    """Write the model as ONNX, opset 17; PRESERVE keeps the exporter from folding BatchNorm."""
    torch.onnx.export(
        model,
        (torch.zeros(1, 1, 28, 28),),
        path,
        dynamo=False,
        training=torch.onnx.TrainingMode.PRESERVE,
        do_constant_folding=False,
        opset_version=17,
        input_names=["image"],
        output_names=["logits"],
        dynamic_axes={"image": {0: "N"}, "logits": {0: "N"}},
    )


@torch.no_grad()
def torch_logits(model: nn.Module, images: Bytes) -> NDArray[np.float32]:
    """What the trained model says of the images, [N, 10]."""
    batches = torch.tensor(images).split(1000)
    return np.concatenate([model(batch.float() / 255).numpy() for batch in batches])


def onnx_logits(path: Path, images: Bytes) -> NDArray[np.float32]:
    """What the exported model says of the images in ONNX Runtime, [N, 10]."""
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    batches = np.split(images, range(1000, len(images), 1000))
    feeds = ({"image": batch.astype(np.float32) / 255} for batch in batches)
    return np.concatenate([session.run(["logits"], feed)[0] for feed in feeds])


def accuracy(logits: NDArray[np.float32], labels: Bytes) -> float:
    """The share of images whose greatest logit is the label's."""
    return float((logits.argmax(1) == labels).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the demo's network and write its files.")
    parser.add_argument("--data", type=Path, required=True, help="folder of the idx.gz files")
    parser.add_argument("--out", type=Path, default=DEMO, help="folder to write into")
    parser.add_argument("--epochs", type=int, default=14)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()

    torch.manual_seed(0)
    torch.set_num_threads(options.threads)
    train_images = read_images(options.data / "train-images-idx3-ubyte.gz")
    train_labels = read_labels(options.data / "train-labels-idx1-ubyte.gz")
    test_images = read_images(options.data / "t10k-images-idx3-ubyte.gz")
    test_labels = read_labels(options.data / "t10k-labels-idx1-ubyte.gz")

    model, start = network(), time.perf_counter()
    images, labels = torch.tensor(train_images), torch.tensor(train_labels, dtype=torch.long)
    train(model, images, labels, options.epochs)
    print(f"trained in {time.perf_counter() - start:.0f} s")

    model_path, data_path = options.out / "model.onnx", options.out / "data.npz"
    export(model, model_path)
    shipped = slice(None, None, TEST_IMAGE_STEP)
    np.savez_compressed(
        data_path,
        test_images=test_images[shipped],
        test_labels=test_labels[shipped],
        calibration_images=train_images[:CALIBRATION_IMAGES],
    )

    expected, logits = torch_logits(model, test_images), onnx_logits(model_path, test_images)
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
