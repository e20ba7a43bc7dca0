"""The few HTML elements that the sections are made of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape

from onnxsnn.strict_json import to_json

__all__ = ["details", "figure", "plot", "section", "table"]

_Value = float | int | None


def figure(key: str, value: _Value, text: Callable[..., str] = str) -> str:
    """A number of the evaluation, for people and, by its key in the JSON, for programs."""
    if value is None:
        return ""
    return f'<data data-key="{escape(key)}" value="{to_json(value)}">{escape(text(value))}</data>'


def section(identity: str, heading: str, lead: str, *content: str) -> str:
    """A section of the page: a heading, one paragraph, and what it is about."""
    return (
        f'<section id="{identity}" aria-labelledby="{identity}-h"><h2 id="{identity}-h">'
        f"{escape(heading)}</h2><p class=lead>{lead}</p>{''.join(content)}</section>"
    )


def plot(drawing: str, caption: str) -> str:
    """A drawing with what it shows below."""
    return f"<figure>{drawing}<figcaption>{caption}</figcaption></figure>"


def table(
    caption: str,
    columns: Sequence[tuple[str, str]],
    rows: Sequence[Sequence[str]],
    marked: Sequence[int] = (),
) -> str:
    """A table that scrolls sideways by keyboard where it is too wide.

    Args:
        caption: for those who hear the page.
        columns: heading and class of each; the first heads its rows.
        rows: cells in HTML.
        marked: rows to point out.
    """
    head = "".join(f'<th scope=col class="{kind}">{escape(name)}</th>' for name, kind in columns)
    body = []
    for index, row in enumerate(rows):
        (_, first), *others = columns
        cells = "".join(
            f'<td class="{kind}">{cell}</td>'
            for cell, (_, kind) in zip(row[1:], others, strict=True)
        )
        mark = " class=marked" if index in marked else ""
        body.append(f'<tr{mark}><th scope=row class="{first}">{row[0]}</th>{cells}</tr>')
    label = escape(caption)
    return (
        f'<div class=scroll role=region tabindex=0 aria-label="{label}"><table>'
        f"<caption>{label}</caption><thead><tr>{head}</tr></thead>"
        f"<tbody>{''.join(body)}</tbody></table></div>"
    )


def details(summary: str, content: str) -> str:
    """What is folded away until it is asked for."""
    return f"<details><summary>{escape(summary)}</summary>{content}</details>"
