"""How fast an SNN runs, beside as many passes of its ANN, and what memory it takes.

T steps of a batch are timed right after passes of the ANN over the same batch, again and
again, and what is given is the median of the ratios: whatever else the machine does at the
time is in both. Memory is the peak of a process of its own that does nothing but run.
"""

from __future__ import annotations

import multiprocessing
import signal
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from onnxsnn.arrays import Array
from onnxsnn.calibration.synthetic import input_noise
from onnxsnn.data import Dataset
from onnxsnn.errors import UsageError
from onnxsnn.files import write_arrays
from onnxsnn.model import SpikingModel
from onnxsnn.runtime.runner import Runner
from onnxsnn.session import SampleSession, Session
from onnxsnn.source import Source

__all__ = [
    "BenchRow",
    "bench",
    "feeds_of",
    "interleaved",
    "median_ratio",
    "peak_memory",
    "peak_of_process",
]

_REPEATS = 5
_PASSES = 8  # of the ANN in a row, at most
_HOLDS_SIGNALS = hasattr(signal, "pthread_sigmask")  # Windows does not
_PAUSE = 0.06  # seconds; ONNX Runtime's threads spin for a while, in the way of other sessions


@dataclass(frozen=True)
class BenchRow:
    """One batch size and number of timesteps.

    Attributes:
        batch: samples.
        timesteps: T.
        throughput: samples per second, T steps each.
        step_ms: milliseconds per timestep, of the whole batch.
        ann_ms: milliseconds per pass of the ANN; None without one.
        ratio: T steps over T passes of the ANN, the median of ratios; None without one.
        memory: peak of a process that runs it, in bytes, Python and its libraries with it.
    """

    batch: int
    timesteps: int
    throughput: float
    step_ms: float
    ann_ms: float | None
    ratio: float | None
    memory: int | None


def bench(
    snn: SpikingModel,
    batches: Sequence[int],
    timesteps: Sequence[int],
    *,
    ann: Source | None = None,
    data: Dataset | None = None,
    threads: int | None = None,
    memory: int | None = None,
    progress: Callable[[int, int], None] = lambda _done, _all: None,
) -> list[BenchRow]:
    """Measure every batch size with every number of timesteps.

    Args:
        snn: an SNN.
        batches: numbers of samples.
        timesteps: numbers of steps.
        ann: the ANN that it was converted from.
        data: what to run on; noise, else.
        threads: for ONNX Runtime; None lets it choose.
        memory: bytes for the tensors of one run, see Runner.
        progress: called with the rows done and all.

    Raises:
        UsageError: a batch or a number of timesteps is below 1.
        UnsupportedError: an input has an open size, and there are no data.
    """
    if min(*batches, *timesteps, 1) < 1:
        raise UsageError("a batch has 1 sample or more, and T is 1 or more")
    runner = Runner(snn, threads=threads, memory=memory)
    session = SampleSession(ann.model, threads) if ann is not None else None
    rows = []
    for batch in batches:
        feeds = feeds_of(snn, batch, data)
        for steps in timesteps:
            rows.append(_row(runner, session, feeds, steps, threads, memory))
            progress(len(rows), len(batches) * len(timesteps))
    return rows


def feeds_of(snn: SpikingModel, batch: int, data: Dataset | None = None) -> dict[str, Array]:
    """A batch of the data, or of noise, repeated as often as it takes."""
    if data is not None:
        feeds, _ = next(data.batches(batch))
    else:
        feeds = next(input_noise(snn))
    return {name: np.resize(values, (batch, *values.shape[1:])) for name, values in feeds.items()}


def _row(
    runner: Runner,
    session: Session | None,
    feeds: Mapping[str, Array],
    timesteps: int,
    threads: int | None,
    memory: int | None,
) -> BenchRow:
    passes = min(timesteps, _PASSES)
    ways: dict[str, tuple[Callable[[], object], int]] = {
        "snn": (lambda: runner.run(feeds, timesteps), timesteps)
    }
    if session is not None:
        ways["ann"] = (lambda: [session.run(feeds) for _ in range(passes)], passes)
    seconds = interleaved(ways)
    batch = len(next(iter(feeds.values())))
    step = statistics.median(seconds["snn"])
    return BenchRow(
        batch=batch,
        timesteps=timesteps,
        throughput=batch / (step * timesteps),
        step_ms=1e3 * step,
        ann_ms=1e3 * statistics.median(seconds["ann"]) if session is not None else None,
        ratio=median_ratio(seconds["snn"], seconds["ann"]) if session is not None else None,
        memory=peak_memory(runner.model, feeds, timesteps, threads, memory),
    )


def interleaved(
    ways: Mapping[str, tuple[Callable[[], object], int]], repeats: int = _REPEATS
) -> dict[str, list[float]]:
    """By way, seconds per step of each repetition; the ways take turns.

    Args:
        ways: by name, what to run, and how many steps that is.
        repeats: how often, after one round that is not counted.
    """
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for repeat in range(repeats + 1):
        for name, (run, steps) in ways.items():
            time.sleep(_PAUSE)
            start = time.perf_counter()
            run()
            taken = time.perf_counter() - start
            if repeat:
                seconds[name].append(taken / steps)
    return seconds


def median_ratio(values: Sequence[float], others: Sequence[float]) -> float:
    """The median of the ratios of what was measured in the same round."""
    return statistics.median(a / b for a, b in zip(values, others, strict=True))


def peak_memory(
    snn: SpikingModel,
    feeds: Mapping[str, Array],
    timesteps: int,
    threads: int | None = None,
    memory: int | None = None,
) -> int | None:
    """The most bytes that a process of its own holds that loads and runs an SNN.

    None where the system does not tell.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "snn.onnx"
        snn.save(path)
        write_arrays(feeds, path.with_suffix(".npz"))
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(1, mp_context=context, initializer=_end_quietly) as pool:
            with _interrupts_held():
                peak = pool.submit(_run_alone, path, timesteps, threads, memory)
            return peak.result()


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Keep Ctrl-C back, here and in processes that are started, which let it in when they can."""
    if _HOLDS_SIGNALS:
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        if _HOLDS_SIGNALS:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _end_quietly() -> None:
    """Let Ctrl-C end this process without a traceback: the one that started it says so."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    if _HOLDS_SIGNALS:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


def _run_alone(path: Path, timesteps: int, threads: int | None, memory: int | None) -> int | None:
    """Run the SNN in this process; its peak in bytes."""
    with np.load(path.with_suffix(".npz")) as arrays:
        feeds = dict(arrays)
    Runner(path, threads=threads, memory=memory).run(feeds, timesteps)
    return peak_of_process()


def peak_of_process() -> int | None:
    """The most memory that this process has held, in bytes; None where the system does not say."""
    status = Path("/proc/self/status")  # of this process alone; getrusage counts its parent's
    lines = status.read_text().splitlines() if status.exists() else []
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM")), None)
