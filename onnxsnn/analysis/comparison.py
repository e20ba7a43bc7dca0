"""Ways of converting a network, beside each other over timesteps, and the best of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain, product

from onnxsnn.analysis.evaluate import Evaluation, Row, evaluate, measure_of
from onnxsnn.convert import convert, takes_data
from onnxsnn.data import Dataset
from onnxsnn.figures import counted
from onnxsnn.model import SpikingModel
from onnxsnn.neurons import IntegrateAndFire, neuron_of
from onnxsnn.pipeline import Pipeline, prepare
from onnxsnn.ratenorm import RECTIFYING, rate_norms, untrained
from onnxsnn.source import Source

__all__ = ["TIMESTEPS", "WAYS", "Comparison", "Way", "compare", "timesteps_for", "ways_for"]

TIMESTEPS = (1, 2, 4, 8, 16, 32)
_CORRECTED = {None: "", True: ", corrected", False: ", uncorrected"}
_OPTION = {None: "", True: " --correct", False: " --no-correct"}
_CLOSE = 0.005  # half a point of accuracy or agreement; of error, in units of the ANN's norm


@dataclass(frozen=True)
class Way:
    """How a network is converted, the timesteps apart."""

    threshold: str = "fit"
    neuron: str = IntegrateAndFire.name
    levels: int | None = None
    correct: bool | None = None
    anytime: bool = False
    digits: int | None = None

    def __str__(self) -> str:
        neuron = "" if self.neuron == IntegrateAndFire.name else f", {self.neuron}"
        levels = "" if self.levels is None else f" {self.levels}"
        digits = "" if self.digits is None else f", {counted(self.digits, 'digit')}"
        anytime = ", anytime" if self.anytime else ""
        return f"{self.threshold}{neuron}{levels}{digits}{_CORRECTED[self.correct]}{anytime}"

    @property
    def options(self) -> str:
        """The options of `onnxsnn convert` that say the same."""
        levels = "" if self.levels is None else f" --levels {self.levels}"
        digits = "" if self.digits is None else f" --digits {self.digits}"
        correct = _OPTION[self.correct] + (" --anytime" if self.anytime else "")
        return f"--threshold {self.threshold} --neuron {self.neuron}{levels}{digits}{correct}"

    def convert(self, source: Source, data: Dataset, timesteps: int) -> SpikingModel:
        """The network converted in this way, for T steps, without data where it takes none."""
        return convert(
            source,
            data if takes_data(self.threshold, self.correct) else None,
            timesteps=timesteps,
            threshold=self.threshold,
            neuron=neuron_of(self.neuron, levels=self.levels, digits=self.digits),
            correct=self.correct,
            anytime=self.anytime,
        ).snn


WAYS = (
    Way("max"),
    Way("percentile"),
    Way("fit"),
    Way("fit", correct=True),
    Way("fit", "signed", correct=True),
    Way("fit", "burst", 4),
    Way("fit", "multi-threshold", 8),
)


_TRAINED = Way("trained"), Way("trained", "signed")


def ways_for(source: Source, data: Dataset) -> tuple[Way, ...]:
    """WAYS, and the thresholds of training where every rectifier has one.

    Raises:
        UnsupportedError: the model cannot be converted.
    """
    graph = prepare(source, Pipeline(None), data).graph
    rectifies = any(node.op == RECTIFYING for node in rate_norms(graph))
    return WAYS + _TRAINED if rectifies and not untrained(graph) else WAYS


def timesteps_for(source: Source) -> tuple[int, ...]:
    """TIMESTEPS, and as many as the network rounds to, where those are few."""
    levels = () if source.few_levels is None else (source.few_levels,)
    return tuple(sorted({*TIMESTEPS, *levels}))


@dataclass(frozen=True)
class Comparison:
    """What came of it.

    Attributes:
        rows: by way, one row per number of timesteps converted for and run.
        bits: by way, bits per spike.
        ann_accuracy: None without labels.
        samples: number of samples that were run.
    """

    rows: dict[Way, list[Row]]
    bits: dict[Way, float]
    ann_accuracy: float | None
    samples: int

    @property
    def measure(self) -> str:
        """What ways are compared by; see `Row.measure`.

        Raises:
            DataError: a row has none.
        """
        return measure_of(chain.from_iterable(self.rows.values()))

    def value(self, row: Row) -> float:
        """The measure of a row."""
        return float(getattr(row, self.measure))

    @property
    def rule(self) -> str:
        """What `best` goes by, in words."""
        points = f"{_CLOSE:g}" if self.measure == "error" else f"{100 * _CLOSE:g} points"
        top = "the best" if self.ann_accuracy is None else "the ANN, or of the best"
        return f"the fewest timesteps, then bits, then spikes, within {points} of {top}"

    @property
    def best(self) -> tuple[Way, int]:
        """The way and T of fewest timesteps, then bits, then spikes, that are close to the top.

        The top is the ANN's accuracy where a way comes close to it, else the best of all.
        """
        sign = -1.0 if self.measure == "error" else 1.0
        cells = [(way, row) for way, rows in self.rows.items() for row in rows]
        scores = {(way, row.timesteps): sign * self.value(row) for way, row in cells}
        top = max(scores.values())
        if self.ann_accuracy is not None:
            top = min(top, self.ann_accuracy)
        close = [(w, r) for w, r in cells if scores[w, r.timesteps] >= top - _CLOSE]
        way, row = min(close, key=lambda c: (c[1].timesteps, self.bits[c[0]], c[1].spikes))
        return way, row.timesteps


def compare(
    source: Source,
    calibration: Dataset,
    test: Dataset,
    ways: Sequence[Way] = WAYS,
    timesteps: Sequence[int] = TIMESTEPS,
    progress: Callable[[int, int], None] = lambda _done, _all: None,
) -> Comparison:
    """Convert a network in every way for every T, and run each for its T steps.

    Args:
        source: the trained network.
        calibration: unlabelled samples.
        test: samples to run; without labels the SNN is compared with the ANN.
        ways: to compare.
        timesteps: to convert for, and to run.
        progress: called with the cells done and the cells in all.
    """
    rows: dict[Way, list[Row]] = {way: [] for way in ways}
    bits: dict[Way, float] = {}
    results: dict[bytes, Evaluation] = {}  # by graph: what is the same for every T runs once
    for done, (way, steps) in enumerate(product(ways, sorted(timesteps, reverse=True))):
        snn = way.convert(source, calibration, steps)
        graph = snn.model.graph.SerializeToString()
        if graph not in results:
            results[graph] = evaluate(snn, test, ann=source, timesteps=steps)
        rows[way].insert(0, results[graph].rows[steps - 1])
        bits[way] = results[graph].bits_per_spike
        progress(done + 1, len(ways) * len(timesteps))
    return Comparison(rows, bits, results[graph].ann_accuracy, len(test))
