"""Time and memory of converting a VGG-16 of CIFAR's shape with 256 calibration images.

The network has the founding paper's shape, 15 M parameters, with random weights (He), and
is calibrated on uniform noise: neither speed nor memory depends on what is learned. The
peak is that of the whole process, Python and its libraries with it.

    python benchmarks/convert_vgg16.py
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from rich.console import Console
from rich.table import Table

from onnxsnn import Dataset, convert
from onnxsnn.analysis.bench import peak_of_process

WIDTHS = (64, 64, "pool", 128, 128, "pool", 256, 256, 256, "pool", 512, 512, 512, "pool",
          512, 512, 512, "pool")  # fmt: skip


def vgg16(classes: int = 10) -> onnx.ModelProto:
    """VGG-16 with BatchNormalization and average pooling, images [N, 3, 32, 32] to logits."""
    random = np.random.default_rng(0)
    nodes: list[onnx.NodeProto] = []
    weights: list[onnx.TensorProto] = []
    last, channels = "image", 3

    def constant(values: np.ndarray) -> str:
        weights.append(numpy_helper.from_array(values.astype(np.float32), f"w{len(weights)}"))
        return weights[-1].name

    def node(operator: str, *inputs: str, **attributes: object) -> str:
        nodes.append(helper.make_node(operator, [last, *inputs], [f"t{len(nodes)}"], **attributes))
        return nodes[-1].output[0]

    for width in WIDTHS:
        if width == "pool":
            last = node("AveragePool", kernel_shape=[2, 2], strides=[2, 2])
            continue
        scale = np.sqrt(2 / (9 * channels))
        last = node(
            "Conv", constant(random.normal(0, scale, (width, channels, 3, 3))), pads=[1] * 4
        )
        ones, zeros = constant(np.ones(width)), constant(np.zeros(width))
        last = node("BatchNormalization", ones, zeros, zeros, ones)
        last = node("Relu")
        channels = width
    last = node("Flatten")
    last = node(
        "Gemm", constant(random.normal(0, 0.05, (channels, classes))), constant(np.zeros(classes))
    )
    graph = helper.make_graph(
        nodes,
        "vgg16",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 3, 32, 32])],
        [helper.make_tensor_value_info(last, TensorProto.FLOAT, ["N", classes])],
        weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--timesteps", type=int, default=16)
    parser.add_argument("--correct", action=argparse.BooleanOptionalAction, help="as of convert")
    options = parser.parse_args()
    images = np.random.default_rng(1).random((options.images, 3, 32, 32), np.float32)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "vgg16.onnx"
        onnx.save(vgg16(), path)
        start = time.perf_counter()
        data = Dataset({"image": images})
        snn = convert(path, data, timesteps=options.timesteps, correct=options.correct).snn
        snn.save(Path(folder) / "snn.onnx")
        seconds = time.perf_counter() - start
    parameters = sum(np.prod(tensor.dims) for tensor in vgg16().graph.initializer)
    peak = (peak_of_process() or np.nan) / 2**30
    table = Table("Parameters", "Images", "T", "Seconds", "Peak GiB")
    row = (f"{parameters / 1e6:.1f} M", options.images, options.timesteps, f"{seconds:.1f}")
    table.add_row(*map(str, row), f"{peak:.2f}")
    Console().print(table)


if __name__ == "__main__":
    main()
