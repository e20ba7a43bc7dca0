"""What `evaluate --json` prints, and a report holds: the same figures under the same names."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from onnxsnn.analysis.energy import Energy
from onnxsnn.analysis.evaluate import Evaluation
from onnxsnn.analysis.layers import Analysis
from onnxsnn.analysis.target import SpikeRatio, target_of

__all__ = ["evaluation_as_dict"]


def evaluation_as_dict(
    evaluation: Evaluation,
    analysis: Analysis | None,
    energy: Energy | None,
    spike_ratio: SpikeRatio | None = None,
) -> dict[str, Any]:
    """An evaluation, its target, and what else was asked for, ready for JSON."""
    target = target_of(evaluation)
    summary = {**asdict(evaluation), "target": None if target is None else asdict(target)}
    if analysis is not None:
        summary["analysis"] = asdict(analysis)
        for layer, row in zip(analysis.layers, summary["analysis"]["layers"], strict=True):
            if layer.curve is not None:
                row["curve"]["bound"] = layer.curve.bound
    if energy is not None:
        summary["energy"] = asdict(energy)
    if spike_ratio is not None:
        summary["spike_ratio"] = asdict(spike_ratio)
    return summary
