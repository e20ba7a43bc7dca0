"""What becomes of timm's architectures: exported by both of PyTorch's exporters, converted, run.

Weights are random (timm's initial ones, the statistics of BatchNorm from the samples), so that
errors say little of trained networks; what the table tells is whether a graph as it is exported
today converts, how much of it spikes drive, and whether its timesteps are run many at once.
Thresholds come from eight samples of smooth noise, by `fit`; integrate-and-fire neurons (1 bit per
spike), ternary where values can be negative (1.58).

    pip install onnxsnn[torch] onnxscript timm
    python benchmarks/architectures.py                          # a small one of many families
    python benchmarks/architectures.py convnext_atto vit_tiny_patch16_224
"""

from __future__ import annotations

import argparse
import logging
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import timm
import torch
from real_models import smooth
from rich.table import Table
from torch import nn

from onnxsnn import Dataset, convert, evaluate, load_source
from onnxsnn.analysis.convertibility import convertibility
from onnxsnn.display.base import new_table, percent, stdout
from onnxsnn.errors import OnnxSnnError

CALIBRATION, TEST = 8, 2
TIMESTEPS = 16
NAMES = [
    "test_vit", "test_resnet", "test_convnext", "test_efficientnet", "test_nfnet", "test_byobnet",
    "test_coatnet", "test_mambaout", "starnet_s050", "mobilenetv3_small_050", "mobilevit_xxs",
    "edgenext_xx_small", "ese_vovnet19b_slim_dw", "repghostnet_050", "efficientvit_m0",
    "ghostnet_050", "regnetx_002",
]  # fmt: skip


def network(name: str) -> nn.Module:
    """An untrained network of timm."""
    torch.manual_seed(0)
    return timm.create_model(name, pretrained=False).eval()


def normalize(model: nn.Module, samples: torch.Tensor) -> None:
    """Set the statistics of every BatchNorm to those of the samples."""
    layers = [m for m in model.modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d)]
    for layer in layers:
        layer.momentum = 1.0
        layer.train()
    with torch.no_grad():
        model(samples)
    model.eval()


def export(model: nn.Module, samples: torch.Tensor, path: Path, dynamo: bool) -> None:
    """Write the network as ONNX, its batch open."""
    shapes = {"dynamic_shapes": ({0: torch.export.Dim("N")},), "external_data": False}
    axes = {"dynamic_axes": {"x": {0: "N"}}}
    torch.onnx.export(
        model, (samples,), path, dynamo=dynamo, input_names=["x"], verbose=False,
        **(shapes if dynamo else axes),
    )  # fmt: skip


def cells(path: Path, data: Dataset) -> list[str]:
    """What a row says of an exported network: refused, or what became of it."""
    calibration, test = data.slice(0, CALIBRATION), data.slice(CALIBRATION, None)
    try:
        source = load_source(path)
        snn = convert(source, calibration, timesteps=TIMESTEPS).snn
    except OnnxSnnError as error:
        return [f"refused: {error}", "", "", ""]
    result = evaluate(snn, test, ann=source, timesteps=TIMESTEPS)
    return [
        str(len(snn.layers)),
        percent(convertibility(path).share("spikes")),
        f"{result.rows[-1].error:.4f}",
        "one by one" if result.warnings else "many at once",
    ]


def rows(names: Sequence[str]) -> Table:
    table = new_table("Network", "Exporter", "Spiking layers", "Driven", "Error", "Timesteps run")
    for name in names:
        model = network(name)
        random = np.random.default_rng(0)
        shape = model.default_cfg["input_size"]
        samples = np.stack([smooth(random, *shape) for _ in range(CALIBRATION + TEST)])
        normalize(model, torch.from_numpy(samples))
        for dynamo in (False, True):
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / f"{name}.onnx"
                export(model, torch.from_numpy(samples), path, dynamo)
                found = cells(path, Dataset({"x": samples}))
            exporter = "newer" if dynamo else "older"
            table.add_row(name, exporter, *found)
            print(name, exporter, *found, flush=True)
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", default=NAMES, metavar="NAME")
    chosen = parser.parse_args()
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    stdout().print(rows(chosen.names))


if __name__ == "__main__":
    main()
