"""What an SNN and its ANN would spend on operations, by models from the literature.

    E_ANN = MACs * e_MAC
    E_SNN = (MACs that a constant current or analog values drive) * e_MAC
            + (synaptic operations) * e_AC

These are models, and no measurements: memory, communication and leakage are not in them, and
a chip has its own costs. Operations are counted, not estimated from mean rates: each spike by
the weights that it really meets (`synaptic.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from onnxsnn.analysis.synaptic import Instrumented, instrument
from onnxsnn.arrays import Floats
from onnxsnn.data import Dataset
from onnxsnn.errors import UsageError
from onnxsnn.model import SpikingModel
from onnxsnn.runtime.dataset import batches
from onnxsnn.runtime.runner import Runner

__all__ = ["MODELS", "CostModel", "Energy", "ModelledEnergy", "OperationRow", "energy"]


@dataclass(frozen=True)
class CostModel:
    """What operations cost.

    Attributes:
        name: what it is called.
        source: where the numbers are from.
        mac: of a multiply-accumulate, in pJ.
        ac: of a synaptic operation, an accumulate, in pJ.
    """

    name: str
    source: str
    mac: float
    ac: float

    def __post_init__(self) -> None:
        if not (0 <= self.mac < np.inf and 0 <= self.ac < np.inf):
            raise UsageError(f"energies are 0 pJ or more, and not {self.mac} and {self.ac}")


MODELS = (
    CostModel(
        "45 nm CMOS",
        "Horowitz, ISSCC 2014: float32, 3.7 pJ to multiply and 0.9 pJ to add",
        4.6,
        0.9,
    ),
    CostModel(
        "Processor and ROLLS chip",
        "77 fJ per synaptic operation of the neuromorphic chip ROLLS (Qiao et al., Frontiers in "
        "Neuroscience 2015) against 12.5 pJ per FLOP, a MAC taken as one, as Bu, Li and Yu "
        "(CVPR 2025, appendix F) compare them",
        12.5,
        0.077,
    ),
)


@dataclass(frozen=True)
class OperationRow:
    """One node with products, or one neuron that spikes reach past all weights.

    Attributes:
        name: the node's.
        driven: `spikes`, `input` (a constant current: computed once) or `analog`.
        macs: of the ANN, per sample.
        operations: of the SNN, per sample and all steps: synaptic ones where spikes drive it,
            else multiply-accumulates.
    """

    name: str
    driven: str
    macs: int
    operations: float


@dataclass(frozen=True)
class ModelledEnergy:
    """What a cost model says, in pJ per sample.

    Attributes:
        model: the costs.
        ann: of the ANN.
        snn: of the SNN until each step, [T].
    """

    model: CostModel
    ann: float
    snn: list[float]


@dataclass(frozen=True)
class Energy:
    """Operations per sample, and what models make of them.

    Attributes:
        samples: number of samples that were run.
        timesteps: T.
        ann_macs: multiply-accumulates of the ANN, padding counted as it is everywhere.
        input_macs: of the SNN's layers that a constant current drives, once.
        analog_macs: of the SNN on analog values, until each step, [T].
        synaptic_operations: until each step, [T].
        rows: by node.
        energies: by model.
        uncounted: nodes whose operations are in none of these: Loops and Scans.
    """

    samples: int
    timesteps: int
    ann_macs: int
    input_macs: int
    analog_macs: list[int]
    synaptic_operations: list[float]
    rows: list[OperationRow]
    energies: list[ModelledEnergy]
    uncounted: list[str] = field(default_factory=list)


def energy(
    snn: SpikingModel,
    data: Dataset,
    timesteps: int | None = None,
    *,
    models: Sequence[CostModel] = MODELS,
    progress: Callable[[int, int], None] = lambda _done, _all: None,
) -> Energy:
    """Count the operations of an SNN on data.

    The ANN's multiply-accumulates are those of the same layers, so that it is not needed.

    Raises:
        UsageError: timesteps below 1.
        DataError: the data do not fit the model.
    """
    steps, snn = snn.steps(timesteps), snn.unrounded()
    counted = instrument(snn, next(data.batches(1))[0])
    taps = list(counted.counters.values())
    runner, totals = Runner(counted.snn, taps=taps), np.zeros((len(taps), steps))  # by tap and step
    for feeds, _ in batches(snn, data, progress):
        for step, outputs in enumerate(runner.steps(feeds, steps)):
            totals[:, step] += [outputs[name].sum(dtype=np.float64) for name in taps]
    means = dict(zip(counted.counters, totals / len(data), strict=True))
    return _summary(counted, means, len(data), steps, models)


def _summary(
    counted: Instrumented,
    means: dict[str, Floats],
    samples: int,
    steps: int,
    models: Sequence[CostModel],
) -> Energy:
    """The counts as sums over nodes, and their energies."""
    ann = sum(counted.macs.values())
    once = sum(counted.macs[name] for name in counted.static)
    read_out = sum(counted.macs[n] for n, repeated in counted.analog.items() if not repeated)
    every = sum(counted.macs[n] for n, repeated in counted.analog.items() if repeated)
    analog = [read_out + every * t for t in range(1, steps + 1)]
    spikes = np.cumsum(sum(means.values(), np.zeros(steps))).tolist()
    return Energy(
        samples=samples,
        timesteps=steps,
        ann_macs=ann,
        input_macs=once,
        analog_macs=analog,
        synaptic_operations=spikes,
        rows=[_row(counted, name, means, steps) for name in {**counted.macs, **means}],
        energies=[
            ModelledEnergy(
                model,
                ann * model.mac,
                [
                    (once + macs) * model.mac + operations * model.ac
                    for macs, operations in zip(analog, spikes, strict=True)
                ],
            )
            for model in models
        ],
        uncounted=counted.uncounted,
    )


def _row(counted: Instrumented, name: str, means: dict[str, Floats], steps: int) -> OperationRow:
    macs = counted.macs.get(name, 0)
    if name in means:
        return OperationRow(name, "spikes", macs, float(means[name].sum()))
    if name in counted.static:
        return OperationRow(name, "input", macs, macs)
    return OperationRow(name, "analog", macs, macs * (steps if counted.analog[name] else 1))
