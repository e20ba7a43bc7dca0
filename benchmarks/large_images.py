"""Time and memory of networks of ImageNet's size: converting one, and its first run and later ones.

The graphs come with the onnx package, structure only, and get random weights (real_models.py);
images are smooth noise of 224 x 224. The peak is that of the whole process. Each network has a
process of its own.

    python benchmarks/large_images.py                # ResNet-50 and VGG-19
    python benchmarks/large_images.py densenet121 --images 16
"""

from __future__ import annotations

import argparse
import time
from multiprocessing import get_context

import numpy as np
from real_models import classic, smooth
from rich.console import Console
from rich.table import Table

from onnxsnn import Dataset, Runner, convert, load_source
from onnxsnn.analysis.bench import peak_of_process
from onnxsnn.session import Session


def measured(name: str, images: int, timesteps: int) -> tuple[float, ...]:
    """Seconds of the ANN, the conversion, the first run and the second, of two images; GiB."""
    random = np.random.default_rng(0)
    source = load_source(classic(name)())
    (spec,) = source.inputs
    data = Dataset({spec.name: np.stack([smooth(random, 3, 224, 224) for _ in range(images)])})
    clock = [time.perf_counter()]
    Session(source.model).run(data.inputs)
    clock.append(time.perf_counter())
    runner = Runner(convert(source, data, timesteps=timesteps).snn)
    clock.append(time.perf_counter())
    for _ in range(2):
        runner.run(data.slice(0, 2).inputs)
        clock.append(time.perf_counter())
    return (*np.diff(clock).tolist(), (peak_of_process() or np.nan) / 2**30)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", default=["resnet50", "vgg19"], metavar="NAME")
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--timesteps", type=int, default=8)
    chosen = parser.parse_args()
    table = Table("Network", "ANN s", "Conversion s", "First run s", "Second run s", "Peak GiB")
    for name in chosen.names:
        with get_context("spawn").Pool(1) as pool:
            found = pool.apply(measured, (name, chosen.images, chosen.timesteps))
        table.add_row(name, *(f"{value:.1f}" for value in found))
    Console(width=100).print(table)
    print(f"{chosen.images} images of 224 x 224, T = {chosen.timesteps}, IF neurons (1 bit)")


if __name__ == "__main__":
    main()
