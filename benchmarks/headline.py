"""Timesteps and spikes until an SNN is within a point of its ANN: the founding paper's headline.

Ding et al. (IJCAI 2021, section 4) count the steps that VGG-16 takes to reach 90 % on CIFAR-10,
and all spikes fired until then, relative to those of Max-Norm. Here the accuracy to reach is the
ANN's less one point, on any classifier, and reached is the first step after which the SNN has it:

    max, percentile, ril    as there: a threshold per layer, v0 = 0; one SNN runs until it is there
    fit, fit+correct,       ours: thresholds and v0 per channel; an SNN of its own for
    each with +anytime      each T of --timesteps, up to the first that is there within T

The first three are looked for on few samples first; where those do not get there within --most
steps, the others are not run.

    python benchmarks/headline.py --network vgg-avg --fashion-mnist fashion-mnist
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from dataclasses import dataclass

from classifier import classifier_and_data, new_parser, way_of
from rich.table import Table

from onnxsnn import Dataset, IntegrateAndFire, SpikingModel, convert
from onnxsnn.analysis.evaluate import evaluate
from onnxsnn.analysis.target import Target, target_of
from onnxsnn.display.base import new_table, percent, stdout
from onnxsnn.source import Source

FOUNDING = ["max", "percentile", "ril"]
OURS = ["fit", "fit+anytime", "fit+correct", "fit+correct+anytime"]
TIMESTEPS = [*range(1, 9), 10, 12, 16, 24, 32]
FEW = 500
FIRST = 16  # steps that are tried first; then half as many again, and again
GROWTH = 1.5
SLACK = 1.2  # more samples may take so much longer than few


@dataclass(frozen=True)
class Found:
    """When one way is there.

    Attributes:
        way: as on the command line.
        name: of the way, with what else it was converted for.
        neuron: the neuron model, and where it starts.
        bits: per spike.
        target: what is to be reached, and when it is.
        tried: steps that were run.
        samples: that were run.
    """

    way: str
    name: str
    neuron: str
    bits: float
    target: Target
    tried: int
    samples: int


def options() -> argparse.Namespace:
    parser = new_parser(__doc__.splitlines()[0])
    parser.add_argument("--ways", nargs="+", choices=FOUNDING + OURS, default=FOUNDING + OURS)
    parser.add_argument("--timesteps", type=int, nargs="+", default=TIMESTEPS, help="of ours")
    parser.add_argument("--most", type=int, default=512, help="steps of the others")
    return parser.parse_args()


def reached(snn: SpikingModel, source: Source, test: Dataset, timesteps: int) -> Target:
    """The target, and when it is reached within so many steps."""
    target = target_of(evaluate(snn, test, ann=source, timesteps=timesteps))
    assert target is not None  # the ANN is there to compare with
    return target


def searched(
    snn: SpikingModel, source: Source, test: Dataset, first: int, most: int
) -> tuple[Target, int]:
    """The target and the steps that were run, more and more until it is reached."""
    steps = min(first, most)
    while (target := reached(snn, source, test, steps)).timesteps is None and steps < most:
        steps = min(int(steps * GROWTH) + 1, most)
    return target, steps


def founding(
    threshold: str, source: Source, calibration: Dataset, test: Dataset, most: int
) -> Found:
    """A way of the founding paper, whose thresholds are those of any T."""
    neuron = IntegrateAndFire(0.0)
    snn = convert(source, calibration, threshold=threshold, neuron=neuron, per_layer=True).snn
    few = test.slice(0, FEW)
    target, steps = searched(snn, source, few, FIRST, most)
    if target.timesteps is not None and len(few) < len(test):
        few = test
        target, steps = searched(snn, source, test, int(target.timesteps * SLACK) + 1, most)
    bits = snn.metadata["bits_per_spike"]
    name = f"{threshold}, per layer"
    return Found(threshold, name, "if, v0 = 0", bits, target, steps, len(few))


def ours(
    text: str, source: Source, calibration: Dataset, test: Dataset, timesteps: list[int]
) -> Found:
    """One of our ways, at the first T that is enough."""
    way = way_of(text)
    for steps in sorted(timesteps):
        snn = way.convert(source, calibration, steps)
        target = reached(snn, source, test, steps)
        if target.timesteps is not None:
            break
    name = f"{way}, T = {steps}"
    bits = snn.metadata["bits_per_spike"]
    return Found(text, name, "if, v0 fitted", bits, target, steps, len(test))


def measured(
    chosen: argparse.Namespace, source: Source, calibration: Dataset, test: Dataset
) -> Iterator[Found]:
    for way in chosen.ways:
        start = time.perf_counter()
        if way in FOUNDING:
            yield founding(way, source, calibration, test, chosen.most)
        else:
            yield ours(way, source, calibration, test, chosen.timesteps)
        print(f"{way}: measured in {time.perf_counter() - start:.0f} s", flush=True)


def as_table(rows: list[Found]) -> Table:
    """How many times fewer steps than those of `max`, and spikes relative to its spikes."""
    most = next((row.target for row in rows if row.way == "max"), None)
    table = new_table(
        "Way", "Neuron", "Bits per spike", "Steps", "Max's steps / these", "Spikes per sample",
        "Spikes / max's", "Samples",
    )  # fmt: skip
    for row in rows:
        target = row.target
        table.add_row(
            row.name,
            row.neuron,
            f"{row.bits:.3g}",
            f"> {row.tried}" if target.timesteps is None else str(target.timesteps),
            ratio(most and most.timesteps, target.timesteps, 1),
            "" if target.spikes is None else f"{target.spikes:,.0f}",
            ratio(target.spikes, most and most.spikes, 3),
            f"{row.samples:,}",
        )
    return table


def ratio(value: float | None, reference: float | None, places: int) -> str:
    return f"{value / reference:.{places}f}" if value and reference else ""


def main() -> None:
    chosen = options()
    source, unlabelled, test = classifier_and_data(chosen)
    calibration = unlabelled.slice(0, chosen.samples)
    rows = list(measured(chosen, source, calibration, test))
    stdout().print(as_table(rows))
    target = rows[-1].target
    print(
        f"{chosen.model.name}: steps until the {target.measure} is {percent(target.level)}; "
        f"{len(calibration)} calibration samples without labels"
    )


if __name__ == "__main__":
    main()
