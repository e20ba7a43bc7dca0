"""Plots as inline SVG: lines over timesteps, bars, histograms, rasters. Colours are the page's.

Every plot has a title and a description for those who cannot see it; values stand beside it as
text, or in a table. Sizes are in units of the view box, which the page scales.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

__all__ = ["Axis", "Line", "bars", "histogram", "lines", "raster"]

_POINTS = 64  # of a line: more are thinned out
_LABEL_GAP = 13.0


@dataclass(frozen=True)
class Line:
    """One line over the timesteps.

    Attributes:
        values: after each step, [T].
        style: the class of its stroke: `accent`, `ink`, `muted` or `faint`, maybe with `dashed`.
        label: written at its end; none if empty.
        dots: whether each step is marked; one alone always is.
    """

    values: Sequence[float]
    style: str
    label: str = ""
    dots: bool = False


@dataclass(frozen=True)
class Axis:
    """The vertical axis.

    Attributes:
        low, high: its ends.
        ticks: values that are marked.
        text: how a value is written.
        logarithmic: whether equal distances are equal ratios.
    """

    low: float
    high: float
    ticks: Sequence[float]
    text: Callable[[float], str]
    logarithmic: bool = False

    def place(self, value: float, height: float) -> float:
        """How far below the top a value lies; what is no number, or infinite, at the top."""
        if not math.isfinite(value):
            return 0.0
        low, high, value = (
            (math.log10(max(v, 1e-300)) if self.logarithmic else v)
            for v in (self.low, self.high, value)
        )
        share = (value - low) / ((high - low) or 1.0)
        return round(height * (1 - min(max(share, 0.0), 1.0)), 1)


def lines(
    title: str,
    description: str,
    drawn: Sequence[Line],
    axis: Axis,
    *,
    size: tuple[int, int] = (440, 250),
    right: int = 64,
    guide: tuple[float, str] | None = None,
) -> str:
    """Lines over timesteps.

    Args:
        title: what it is.
        description: what is to be seen.
        drawn: the lines, the first on top.
        axis: the vertical one.
        size: of the view box.
        right: space for the labels of lines.
        guide: a level that is drawn dashed, and its label.
    """
    width, height = size
    left, top, bottom = 42, 12, 26
    across, down = width - left - right, height - top - bottom
    steps = max(len(line.values) for line in drawn)
    x = _spread(steps, across)
    parts = [f'<g transform="translate({left} {top})">']
    for tick in axis.ticks:
        y = axis.place(tick, down)
        parts.append(f'<path class="grid" d="M0 {y}H{across}"/>')
        parts.append(f'<text x="-7" y="{y + 4}" text-anchor="end">{axis.text(tick)}</text>')
    parts += _step_labels(_step_ticks(steps), x, down + 18)
    labels = [(line.label, line.values[-1], line.style) for line in drawn if line.label]
    if guide is not None:
        y = axis.place(guide[0], down)
        parts.append(f'<path class="line dashed muted" d="M0 {y}H{across}"/>')
        labels.append((guide[1], guide[0], "muted"))
    parts += [_path(line, x, axis, down) for line in reversed(drawn)]
    spots = _apart([axis.place(value, down) for _, value, _ in labels])
    for (label, _, style), y in zip(labels, spots, strict=True):
        kind = f"label {style.split()[0]}"
        parts.append(f'<text class="{kind}" x="{across + 8}" y="{y + 4}">{escape(label)}</text>')
    parts.append("</g>")
    return _svg(title, description, size, "".join(parts))


def _spread(steps: int, across: float) -> list[float]:
    """Where the steps are: evenly, and from 24 on by their logarithms."""
    if steps == 1:
        return [round(across / 2, 1)]
    if steps < 24:
        return [round(across * t / (steps - 1), 1) for t in range(steps)]
    return [round(across * math.log(t + 1) / math.log(steps), 1) for t in range(steps)]


def _step_ticks(steps: int) -> list[int]:
    powers = [2**k for k in range(steps.bit_length())]
    if steps < 24:
        return [t for t in powers if steps - t >= max(1, steps // 10)] + [steps]
    return [t for t in powers if t == steps or steps / t > 1.4] + [steps] * (steps not in powers)


def _step_labels(steps: Sequence[int], x: Sequence[float], y: int) -> list[str]:
    """The numbers of steps, below their places."""
    return [
        f'<text x="{x[step - 1]}" y="{y}" text-anchor="middle">'
        f"{f'T = {step}' if step == 1 else step}</text>"
        for step in steps
    ]


def _thinned(count: int) -> list[int]:
    """Which of so many points are drawn: all, or the first, the last and enough between."""
    if count <= _POINTS:
        return list(range(count))
    return sorted({round(count ** (k / (_POINTS - 1))) - 1 for k in range(_POINTS)})


def _path(line: Line, x: Sequence[float], axis: Axis, down: float) -> str:
    shown = _thinned(len(line.values))
    points = [(t, x[t], axis.place(line.values[t], down)) for t in shown]
    track = "L".join(f"{a} {b}" for _, a, b in points)
    path = f'<path class="line {line.style}" d="M{track}"/>'
    if not line.dots and len(points) > 1:
        return path
    return path + "".join(
        f'<circle class="dot {line.style}" cx="{a}" cy="{b}" r="3"><title>T = {t + 1}: '
        f"{axis.text(line.values[t])}</title></circle>"
        for t, a, b in points
    )


def _apart(places: Sequence[float]) -> list[float]:
    """The same places, moved down until no two are nearer than a line of text."""
    found = list(places)
    order = sorted(range(len(found)), key=lambda i: found[i])
    for before, after in itertools.pairwise(order):
        found[after] = round(max(found[after], found[before] + _LABEL_GAP), 1)
    return found


def bars(title: str, parts: Sequence[tuple[float, str]], low: float, high: float) -> str:
    """A horizontal bar of parts, those below zero to the left; it fills its cell.

    Args:
        title: what it says, in words.
        parts: size and style of each.
        low, high: the ends of the scale, 0 between them or at one.
    """
    scale = 1000 / ((high - low) or 1.0)
    ends = {True: 0.0, False: 0.0}
    drawn = []
    for value, style in parts:
        start = ends[value < 0]
        ends[value < 0] = start + value
        left, width = scale * (min(start, start + value) - low), scale * abs(value)
        if width >= 0.5:
            drawn.append(
                f'<rect class="{style}" x="{left:.0f}" width="{max(width, 1):.0f}" height="10"/>'
            )
    zero = f'<path class="zero" d="M{-scale * low:.0f} -2V12"/>' if low < 0 else ""
    return (
        f'<svg class="bar" viewBox="0 -2 1000 14" preserveAspectRatio="none" role="img" '
        f'aria-label="{escape(title)}">{"".join(drawn)}{zero}</svg>'
    )


def histogram(title: str, shares: Sequence[float], greatest: float) -> str:
    """A row of columns as high as their shares, `greatest` filling it; it fills its cell."""
    width = 1000 / len(shares)
    columns = "".join(
        f'<rect class="accent" x="{i * width:.0f}" y="{30 - height:.1f}" '
        f'width="{max(width - 6, 2):.0f}" height="{height:.1f}"/>'
        for i, share in enumerate(shares)
        if (height := max(0.5, 30 * min(share / (greatest or 1.0), 1.0))) and share > 0
    )
    return (
        '<svg class="bar tall" viewBox="0 0 1000 31" preserveAspectRatio="none" role="img" '
        f'aria-label="{escape(title)}"><rect class="base" y="30" width="1000" height="1"/>'
        f"{columns}</svg>"
    )


def raster(title: str, description: str, rows: Sequence[Sequence[float]]) -> str:
    """A row per neuron and a stroke per spike; negative spikes are grey.

    Args:
        title: what it is.
        description: what is to be seen.
        rows: by neuron, its spikes in each step, [T].
    """
    steps, pitch, width, left = len(rows[0]), 11, 340, 6
    x = [round(left + (width - 2 * left) * (t + 0.5) / steps, 1) for t in range(steps)]
    stroke = round(min(5.0, 0.5 * (width - 2 * left) / steps), 1)
    parts = []
    for y, spikes in zip(range(0, pitch * len(rows), pitch), rows, strict=True):
        parts.append(f'<path class="grid" d="M{left} {y + pitch / 2}H{width - left}"/>')
        for kind, sign in (("spike", 1), ("spike negative", -1)):
            at = [f"M{x[t]} {y + 1}v{pitch - 2}" for t, s in enumerate(spikes) if s * sign > 0]
            if at:
                track = "".join(at)
                parts.append(f'<path class="{kind}" stroke-width="{stroke}" d="{track}"/>')
    y = pitch * len(rows) + 15
    parts += _step_labels(sorted({1, steps}), x, y)
    return _svg(title, description, (width, y + 4), "".join(parts))


def _svg(title: str, description: str, size: tuple[int, int], content: str) -> str:
    return (
        f'<svg class="plot" viewBox="0 0 {size[0]} {size[1]}" role="img" '
        f'aria-label="{escape(f"{title}. {description}")}"><title>{escape(title)}</title>'
        f"<desc>{escape(description)}</desc>{content}</svg>"
    )
