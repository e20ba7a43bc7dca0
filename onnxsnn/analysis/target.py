"""When an SNN is good enough, and how many spikes that takes: the founding paper's measure."""

from __future__ import annotations

from dataclasses import dataclass

from onnxsnn.analysis.evaluate import Evaluation, Row

__all__ = ["SpikeRatio", "Target", "spike_ratio", "target_of"]

_POINT = 0.01  # of accuracy below the ANN's
_AGREEMENT = 0.99
_ERROR = 0.1


@dataclass(frozen=True)
class Target:
    """What is good enough, and when it is reached.

    Attributes:
        measure: `accuracy`, `agreement` or `error`, the first that there is.
        level: of it: the ANN's accuracy less a point, an agreement of 99 %, an error of 0.1.
        timesteps: the first step after which it is reached; None where it is not.
        spikes: mean spikes per sample until then.
    """

    measure: str
    level: float
    timesteps: int | None
    spikes: float | None


@dataclass(frozen=True)
class SpikeRatio:
    """The spikes until the target, relative to those of a reference.

    Ding et al., IJCAI 2021, section 4, take it as the ratio of energies (after Cao et al.,
    2015), with Max-Norm as the reference.

    Attributes:
        target: of the SNN.
        reference: the same target of the reference.
        ratio: None where one of them does not reach it.
    """

    target: Target
    reference: Target
    ratio: float | None


def target_of(evaluation: Evaluation) -> Target | None:
    """When an SNN is good enough; None where labels are known and the ANN is not."""
    last = evaluation.rows[-1]
    if evaluation.ann_accuracy is not None and last.accuracy is not None:
        return _reached(evaluation, "accuracy", evaluation.ann_accuracy - _POINT)
    if last.agreement is not None:
        return _reached(evaluation, "agreement", _AGREEMENT)
    return None if last.error is None else _reached(evaluation, "error", _ERROR)


def spike_ratio(evaluation: Evaluation, reference: Evaluation) -> SpikeRatio | None:
    """The ratio of two SNNs of one ANN on the same data; None where there is no target."""
    ours, its = target_of(evaluation), target_of(reference)
    if ours is None or its is None:
        return None
    both = ours.spikes is not None and its.spikes
    return SpikeRatio(ours, its, ours.spikes / its.spikes if both else None)  # type: ignore[operator]


def _reached(evaluation: Evaluation, measure: str, level: float) -> Target:
    row = next((row for row in evaluation.rows if _reaches(row, measure, level)), None)
    if row is None:
        return Target(measure, level, None, None)
    return Target(measure, level, row.timesteps, row.spikes)


def _reaches(row: Row, measure: str, level: float) -> bool:
    value = getattr(row, measure)
    if value is None:  # an error that relates to nothing: `relative_error`
        return False
    return bool(value <= level if measure == "error" else value >= level)
