"""What a pass did."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

__all__ = ["Report"]


@dataclass
class Report:
    """Counts of what a pass did, by kind, and what the user should be warned of.

    Attributes:
        name: the pass.
        actions: what was done, and how often; empty where the graph is as it was.
        warnings: each a sentence, to be printed once.
        preserves_values: whether the graph computes what it did before, up to rounding.
    """

    name: str
    actions: Counter[str] = field(default_factory=Counter)
    warnings: list[str] = field(default_factory=list)
    preserves_values: bool = True

    @property
    def changed(self) -> bool:
        """Whether the pass changed the graph."""
        return bool(self.actions)
