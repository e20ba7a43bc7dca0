"""Train a network of few bits with Brevitas, and write it as QONNX, for an SNN of few steps.

An activation of b bits has 2^b - 1 levels above 0, and a neuron as many rates in 2^b - 1 steps. By
the thresholds that were trained, with signed neurons, the SNN rounds where the network did.

Run it with the folder that holds the four idx.gz files of Fashion-MNIST:

    pip install onnxsnn[torch] brevitas qonnx onnxoptimizer
    python examples/train_few_bits.py --data fashion-mnist --bits 2
    onnxsnn convert benchmarks/cache/cnn-2-bits.onnx -T 3 --threshold trained --neuron signed
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch
from brevitas import nn as quantized
from brevitas.export import export_qonnx
from torch import nn

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))

from fashion import read, train
from train_networks import CACHE

WEIGHT_BITS, OUTER_WEIGHT_BITS = 4, 8


def network(bits: int) -> nn.Module:
    """Four convolutions and a read-out; the weights of the first and the last have more bits."""

    def layer(read: int, give: int) -> list[nn.Module]:
        width = OUTER_WEIGHT_BITS if read == 1 else WEIGHT_BITS
        return [
            quantized.QuantConv2d(read, give, 3, padding=1, bias=False, weight_bit_width=width),
            nn.BatchNorm2d(give),
            quantized.QuantReLU(bit_width=bits),
        ]

    return nn.Sequential(
        *layer(1, 16), nn.AvgPool2d(2), *layer(16, 32), nn.AvgPool2d(2),
        *layer(32, 64), *layer(64, 64), nn.AvgPool2d(7), nn.Flatten(),
        quantized.QuantLinear(64, 10, True, weight_bit_width=OUTER_WEIGHT_BITS),
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of the idx.gz files")
    parser.add_argument("--out", type=Path, default=CACHE, help="folder to write into")
    parser.add_argument("--bits", type=int, default=2, help="of activations")
    parser.add_argument("--epochs", type=int, default=5)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    model = network(options.bits)
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=1e-4)
    train(model, *read(options.data, "train"), optimizer, 5e-3, options.epochs)
    path = options.out / f"cnn-{options.bits}-bits.onnx"
    export_qonnx(model, args=torch.zeros(1, 1, 28, 28), export_path=path, dynamo=False)


if __name__ == "__main__":
    main()
