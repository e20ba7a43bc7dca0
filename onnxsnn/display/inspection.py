"""What is in a graph, and what would become of it."""

from __future__ import annotations

from rich.markup import escape

from onnxsnn.analysis.convertibility import Convertibility
from onnxsnn.analysis.inspection import Inspection
from onnxsnn.display.base import new_table, number, percent, stdout

__all__ = ["show_convertibility", "show_inspection"]


def show_inspection(inspection: Inspection) -> None:
    """One row per node, and the totals."""
    console = stdout()
    table = new_table("Node", "Operator", "Role", "Shape", "Neurons", "Threshold", "p", "Omega")
    for row in inspection.rows:
        shape = (
            "?" if row.shape is None else "x".join("?" if s is None else str(s) for s in row.shape)
        )
        table.add_row(
            escape(row.name),
            row.operator,
            row.role,
            shape,
            "" if row.neurons is None else f"{row.neurons:,}",
            number(row.threshold),
            number(row.p),
            number(row.omega),
        )
    console.print(table)
    roles = ", ".join(f"{role} {count}" for role, count in inspection.roles.items())
    console.print(f"{inspection.kind}: {len(inspection.rows)} nodes ({roles})", soft_wrap=True)
    more = f" (without {inspection.unsized} layers of open sizes)" if inspection.unsized else ""
    console.print(
        f"{inspection.neurons:,} neurons per sample{more}, {inspection.parameters:,} parameters",
        soft_wrap=True,
    )
    if inspection.encodes:
        console.print(
            "convert puts neurons where weights would read what is analog: inspect --convertible "
            "says what they drive",
            soft_wrap=True,
        )
    for row in inspection.rows:
        if row.role == "refused":
            console.print(
                f"refused: {escape(row.name)} ({row.operator}): {escape(row.reason)}",
                soft_wrap=True,
            )
    for key, value in inspection.metadata.items():
        if key not in ("states", "format"):
            console.print(f"{key}: {escape(str(value))}", soft_wrap=True)


def show_convertibility(report: Convertibility) -> None:
    """The fate of every node, and what the multiply-accumulates would be driven by."""
    console = stdout()
    table = new_table("Node", "Operator", "Fate", "Why", "MACs", "Driven by")
    for row in report.rows:
        count = "?" if row.macs is None else f"{row.macs:,}" if row.driven else ""
        table.add_row(
            escape(row.name), row.operator, row.fate, escape(row.reason), count, row.driven
        )
    console.print(table)
    fates = ", ".join(f"{fate} {count}" for fate, count in report.fates.items())
    console.print(f"{len(report.rows)} nodes: {fates}", soft_wrap=True)
    if report.problem is not None:
        console.print(f"cannot be converted: {escape(report.problem)}", soft_wrap=True)
        return
    shares = ", ".join(
        f"{percent(report.share(key))} {driven}"
        for key, driven in _DRIVERS.items()
        if report.macs.get(key)
    )
    sized = "" if report.assumed is None else f" (open sizes taken as {report.assumed})"
    total = sum(report.macs.values())
    console.print(f"{total:,} multiply-accumulates per sample{sized}: {shares}", soft_wrap=True)
    if report.unsized:
        console.print(f"{report.unsized} more layers, whose products are not known")
    console.print(
        f"{report.rectifiers} layers of neurons for rectifiers, {report.encoders} that encode "
        "what is analog"
    )
    analog = ", ".join(f"{operator} {count}" for operator, count in report.compensated.items())
    console.print(f"stays analog, compensated: {analog or 'nothing'}", soft_wrap=True)


_DRIVERS = {
    "spikes": "driven by spikes",
    "input": "by the constant input, once",
    "analog": "analog",
}
