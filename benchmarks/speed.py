"""Speed of SNNs at full width: T steps beside T passes of the ANN, and beside SpikingJelly.

VGG-16 and PreActResNet-18 of CIFAR's shape, with random weights. Their BatchNorms have seen
noise, and thresholds are calibrated on it, so that rates are like those of trained networks;
they are printed. Each row is the median of rounds in which all ways take turns:

    T steps / T passes    the SNN's time over the ANN's in ONNX Runtime, at the same batch
    SpikingJelly / ours   its faster mode's time over ours, where it is installed: its own
                          conversion of the same weights, a step at a time (single), and all
                          steps at once (multi), of T = 16 at most; more is no faster per step

Below: the memory at T = 256 beside T = 16, and the time of a conversion with 512 images beside
the ANN's own over them.

    pip install onnxsnn[torch] spikingjelly==2.0.0 h5py loguru
    python benchmarks/speed.py
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import onnx
import torch
from fashion import export
from rich.console import Console
from rich.table import Table
from torch import nn
from train_networks import preact, vgg

from onnxsnn import Dataset, Runner, convert
from onnxsnn.analysis.bench import interleaved, median_ratio, peak_memory
from onnxsnn.model import SpikingModel
from onnxsnn.session import Session

try:
    import peers
except ImportError:
    peers = None  # type: ignore[assignment]

NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "VGG-16": lambda: vgg(nn.AvgPool2d, 64, channels=3, size=32),
    "PreActResNet-18": lambda: preact(64, channels=3),
}
SNNS: dict[str, Callable[[Path, Dataset], SpikingModel]] = {
    "fp32": lambda path, data: convert(path, data, timesteps=16, correct=False).snn,
    "integer": lambda path, data: (
        convert(path, data, timesteps=16, correct=False, integer=True).snn
    ),
}
CALIBRATION = 64
PEER_STEPS = 16
COLUMNS = (
    "Network", "SNN", "Batch", "T", "ANN ms", "Step ms", "T steps / T passes",
    "SpikingJelly single", "multi", "SpikingJelly / ours",
)  # fmt: skip


def images(count: int) -> np.ndarray:
    return np.random.default_rng(count).random((count, 3, 32, 32), np.float32)


def network(name: str, path: Path) -> nn.Module:
    """A network with random weights, its BatchNorms with the moments of noise; written too."""
    torch.manual_seed(0)
    model = NETWORKS[name]().train()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # the mean over all batches
    with torch.no_grad():
        for batch in torch.from_numpy(images(128)).split(32):
            model(batch)
    export(model.eval(), path, ["image"], [torch.zeros(1, 3, 32, 32)])
    return model


def run_ann(session: Session, x: np.ndarray, passes: int) -> None:
    for _ in range(passes):
        session.run({"image": x})


def ways(
    session: Session,
    runners: Mapping[str, Runner],
    others: Mapping[str, Callable[[torch.Tensor, int], object]],
    x: np.ndarray,
    timesteps: int,
) -> dict[str, tuple[Callable[[], object], int]]:
    """What takes turns: by name, what to run, and how many steps that is."""
    passes = min(timesteps, 8)
    found: dict[str, tuple[Callable[[], object], int]] = {
        "ann": (lambda: run_ann(session, x, passes), passes)
    }
    for name, runner in runners.items():
        found[name] = (lambda runner=runner: runner.run(x, timesteps), timesteps)
    steps, tensor = min(timesteps, PEER_STEPS), torch.from_numpy(x)
    for name, run in others.items():
        found[name] = (lambda run=run: run(tensor, steps), steps)
    return found


def add_rows(
    table: Table, label: str, seconds: Mapping[str, list[float]], snns: Mapping[str, Runner],
    batch: int, timesteps: int,
) -> None:  # fmt: skip
    median = {name: 1e3 * statistics.median(values) for name, values in seconds.items()}
    modes = [name for name in ("single", "multi") if name in seconds]
    for name in snns:
        row = [label, name, str(batch), str(timesteps), f"{median['ann']:.1f}"]
        row += [f"{median[name]:.1f}", f"{median_ratio(seconds[name], seconds['ann']):.2f}"]
        if modes:
            best = min(modes, key=median.__getitem__)
            row += [f"{median[mode]:.1f}" for mode in modes]
            row.append(f"{median_ratio(seconds[best], seconds[name]):.2f}")
        table.add_row(*row)


def speed(label: str, chosen: argparse.Namespace, folder: Path, table: Table) -> None:
    """The rows of one network; prints the firing rates."""
    path = folder / f"{label}.onnx"
    model, data = network(label, path), Dataset({"image": images(CALIBRATION)})
    snns = {name: make(path, data) for name, make in SNNS.items()}
    for name, snn in snns.items():
        rates = Runner(snn, rates=True).run(images(16), 16).rates.values()
        print(f"{label}, {name}: mean firing rates of layers {min(rates):.3f} to {max(rates):.3f}")
    runners = {name: Runner(snn) for name, snn in snns.items()}
    others = {} if peers is None else peers.modes(model, images(CALIBRATION))
    session = Session(onnx.load(path))
    for batch in chosen.batches:
        for timesteps in chosen.timesteps:
            turns = ways(session, runners, others, images(batch), timesteps)
            seconds = interleaved(turns, chosen.repeats)
            add_rows(table, label, seconds, runners, batch, timesteps)


def memory(label: str, path: Path) -> None:
    snn = convert(path, Dataset({"image": images(CALIBRATION)}), timesteps=16, correct=False).snn
    few, many = (peak_memory(snn, {"image": images(64)}, steps) for steps in (16, 256))
    if few and many:
        print(
            f"{label}: memory at batch 64: {few / 2**20:,.0f} MiB at T = 16, "
            f"{many / 2**20:,.0f} MiB at T = 256, {many / few:.2f} times that"
        )


def conversion(path: Path, count: int = 512) -> None:
    data, session = Dataset({"image": images(count)}), Session(onnx.load(path))

    def run() -> None:
        for feeds, _ in data.batches(32):
            session.run(feeds)

    turns = {"ann": (run, 1), "convert": (lambda: convert(path, data, timesteps=16), 1)}
    ann, ours = (statistics.median(values) for values in interleaved(turns, 3).values())
    print(f"conversion with {count} images: {ours:.1f} s, the ANN over them {ann:.1f} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 16, 64])
    parser.add_argument("--timesteps", type=int, nargs="+", default=[4, 16, 64])
    parser.add_argument("--repeats", type=int, default=3)
    chosen = parser.parse_args()
    table = Table()
    for column in COLUMNS if peers else COLUMNS[:-3]:
        table.add_column(column, justify="right" if column in COLUMNS[2:] else "left")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for label in chosen.networks:
            start = time.perf_counter()
            speed(label, chosen, folder, table)
            print(f"{label}: measured in {time.perf_counter() - start:.0f} s", flush=True)
        Console(width=120).print(table)
        for label in chosen.networks:
            memory(label, folder / f"{label}.onnx")
        conversion(folder / f"{chosen.networks[0]}.onnx")


if __name__ == "__main__":
    main()
