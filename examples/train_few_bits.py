"""Train a network of few bits with Brevitas, and write it as QONNX, for an SNN of few steps.

An activation of b bits has 2^b - 1 levels above 0, and a neuron as many rates in 2^b - 1 steps. By
the thresholds that were trained, with signed neurons, the SNN rounds where the network did. The
network is a VGG-16 on Fashion-MNIST, its weights of 4 bits, but for the first and the last layer's.

Run it with the folder that holds the four idx.gz files of Fashion-MNIST:

    pip install onnxsnn[torch] brevitas qonnx onnxoptimizer
    python examples/train_few_bits.py --data fashion-mnist --bits 2
    onnxsnn convert benchmarks/cache/vgg-2-bits.onnx -T 3 --threshold trained --neuron signed
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
from train_networks import CACHE, RECIPES

WEIGHT_BITS, OUTER_WEIGHT_BITS = 4, 8


def of_few_bits(model: nn.Module, bits: int) -> nn.Module:
    """The same network with activations and weights of few bits, in place."""
    for name, child in list(model.named_children()):
        if isinstance(child, nn.ReLU):
            setattr(model, name, quantized.QuantReLU(bit_width=bits))
        elif isinstance(child, nn.Conv2d):
            setattr(model, name, _convolution(child))
        elif isinstance(child, nn.Linear):
            size = child.in_features, child.out_features
            setattr(
                model, name, quantized.QuantLinear(*size, True, weight_bit_width=OUTER_WEIGHT_BITS)
            )
        else:
            of_few_bits(child, bits)
    return model


def _convolution(layer: nn.Conv2d) -> nn.Module:
    return quantized.QuantConv2d(
        layer.in_channels,
        layer.out_channels,
        layer.kernel_size,
        stride=layer.stride,
        padding=layer.padding,
        bias=layer.bias is not None,
        weight_bit_width=OUTER_WEIGHT_BITS if layer.in_channels == 1 else WEIGHT_BITS,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of the idx.gz files")
    parser.add_argument("--out", type=Path, default=CACHE, help="folder to write into")
    parser.add_argument("--bits", type=int, default=2, help="of activations")
    parser.add_argument("--epochs", type=int, default=5)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    model = of_few_bits(RECIPES["vgg-avg"].build(), options.bits)
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=1e-4)
    train(model, *read(options.data, "train"), optimizer, 3e-3, options.epochs)
    path = options.out / f"vgg-{options.bits}-bits.onnx"
    export_qonnx(model, args=torch.zeros(1, 1, 28, 28), export_path=path, dynamo=False)


if __name__ == "__main__":
    main()
