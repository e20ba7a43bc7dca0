"""Train a VGG-16 with Rate Norm Layers on Fashion-MNIST, in two stages, and export it.

The recipe of Ding et al. (IJCAI 2021, section 3). Stage one trains the weights by
cross-entropy, with Rate Norm Layers in place of ReLU and p near 1. Stage two freezes the
weights and trains one p per layer by the rate inference loss, on images without labels: it
lowers the thresholds, for an SNN that needs fewer timesteps. Of its candidates the one of
least Omega is kept whose accuracy, on training images that were held out, stays within half
a point of stage one's.

Run it with the folder that holds the four idx.gz files of Fashion-MNIST:

    pip install onnxsnn[torch]
    python examples/train_ratenorm.py --data fashion-mnist
    cd benchmarks/cache
    onnxsnn convert vgg-rnl.onnx -T 32 --threshold trained

It writes, into benchmarks/cache by default, vgg-rnl.onnx, vgg-rnl-calibrate.npz (512
training images) and vgg-rnl-test.npz (all test images, with labels).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from statistics import mean

import torch
from torch import Tensor, nn

from onnxsnn.torch import omega, rate_inference_loss, rate_norms, replace_relu

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))

from fashion import Bytes, accuracy, export, onnx_logits, read, train
from train_networks import CACHE, CALIBRATION_IMAGES, RECIPES, save

HELD_OUT = 5000  # training images that choose the candidate
UNLABELLED = 10_000  # training images that stage two sees
TOLERANCE = 0.005  # of accuracy
PATIENCE = 3  # candidates in a row beyond the tolerance that end stage two
STEPS, STEPS_PER_CANDIDATE = 600, 20  # of stage two
BATCH = 128
RECIPE = RECIPES["vgg-avg"]


def train_weights(images: Bytes, labels: Bytes, epochs: int) -> nn.Module:
    """Stage one: the network with Rate Norm Layers, p as it was made, in inference mode."""
    model = replace_relu(RECIPE.build())
    for layer in rate_norms(model):
        layer.k.requires_grad_(False)
    weights = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(weights, momentum=0.9, weight_decay=5e-4, nesterov=True)
    train(model, images, labels, optimizer, 0.15, epochs)
    return model


def train_thresholds(model: nn.Module, images: Bytes, held_out: Bytes, labels: Bytes) -> None:
    """Stage two: leave the model, in inference mode, with the best candidate's k's."""
    start, least = measure(model, held_out, labels)
    print(f"stage one: {start:.2%} of the held-out images, mean Omega {least:.2f}")
    best, failures = deepcopy(model.state_dict()), 0
    for step in lower_thresholds(model, images):
        reached, current = measure(model, held_out, labels)
        shares = ", ".join(f"{torch.sigmoid(layer.k):.2f}" for layer in rate_norms(model))
        print(f"step {step}: {reached:.2%}, mean Omega {current:.2f}, p {shares}", flush=True)
        kept = reached >= start - TOLERANCE
        failures = 0 if kept else failures + 1
        if kept and current < least:
            best, least = deepcopy(model.state_dict()), current
        if failures == PATIENCE:
            break
    model.load_state_dict(best)


def lower_thresholds(model: nn.Module, images: Bytes) -> Iterator[int]:
    """Train the k's by the rate inference loss; stop at each candidate with its step."""
    layers, pixels = rate_norms(model), torch.tensor(images)
    expected = torch.cat([logits for logits, _ in inferred(model, images)])
    model.requires_grad_(False)
    optimizer = torch.optim.Adam([layer.k.requires_grad_() for layer in layers], lr=0.03)
    for step in range(1, STEPS + 1):
        chosen = torch.randint(len(pixels), (BATCH,))
        outputs = model(pixels[chosen].float() / 255)
        loss = rate_inference_loss(expected[chosen], outputs, [layer.rates for layer in layers])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % STEPS_PER_CANDIDATE == 0:
            yield step


def inferred(model: nn.Module, images: Bytes) -> Iterator[tuple[Tensor, float]]:
    """For each batch the logits [N, 10], and the mean Omega of the layers."""
    for batch in torch.tensor(images).split(500):
        with torch.no_grad():
            logits = model(batch.float() / 255)
        yield logits, mean(float(omega(layer.rates)) for layer in rate_norms(model))


def measure(model: nn.Module, images: Bytes, labels: Bytes) -> tuple[float, float]:
    """The accuracy, and Omega, the mean over layers and batches."""
    logits, omegas = zip(*inferred(model, images), strict=True)
    return accuracy(torch.cat(logits).numpy(), labels), mean(omegas)


def write(model: nn.Module, data: Path, out: Path) -> None:
    """Export the model, with the data to convert and to evaluate it."""
    images, _ = read(data, "train")
    test_images, test_labels = read(data, "t10k")
    path = out / "vgg-rnl.onnx"
    export(model, path, RECIPE.names, RECIPE.inputs(torch.tensor(images[:1]).float() / 255))
    save(out / "vgg-rnl-calibrate.npz", RECIPE, images[:CALIBRATION_IMAGES])
    save(out / "vgg-rnl-test.npz", RECIPE, test_images, labels=test_labels)
    logits = onnx_logits(path, test_images, RECIPE.names)
    print(f"vgg-rnl: {accuracy(logits, test_labels):.2%} of {len(test_labels)} test images")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of the idx.gz files")
    parser.add_argument("--out", type=Path, default=CACHE, help="folder to write into")
    parser.add_argument("--epochs", type=int, default=5, help="of stage one")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    images, labels = read(options.data, "train")
    seen, seen_labels = images[:-HELD_OUT], labels[:-HELD_OUT]
    model = train_weights(seen, seen_labels, options.epochs)
    test_images, test_labels = read(options.data, "t10k")
    print(f"stage one: {measure(model, test_images, test_labels)[0]:.2%} of the test images")
    train_thresholds(model, seen[:UNLABELLED], images[-HELD_OUT:], labels[-HELD_OUT:])
    write(model, options.data, options.out)


if __name__ == "__main__":
    main()
