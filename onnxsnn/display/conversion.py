"""What a conversion did."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.markup import escape

from onnxsnn.analysis.evaluate import Evaluation
from onnxsnn.convert import Conversion
from onnxsnn.display.base import new_table, number, percent, show_bits, stdout
from onnxsnn.figures import counted
from onnxsnn.neurons import IntegrateAndFire, TernaryIntegrateAndFire

__all__ = ["show_conversion"]


def show_conversion(conversion: Conversion, target: str, measured: Evaluation | None) -> None:
    """What each pass did, the layers, where the SNN is, and what it keeps of the ANN."""
    console = stdout()
    passes = new_table("Pass", "What it did", "Verified")
    for report in conversion.reports:
        done = ", ".join(f"{action} ({count})" for action, count in report.actions.items())
        difference = conversion.differences.get(report.name)
        verified = "" if difference is None else f"{difference:.1e}"
        passes.add_row(report.name, done or "nothing to do", verified)
    if not conversion.differences:
        passes.columns.pop()
    console.print(passes)
    layers = new_table("Spiking layer", "Neuron", "Channels", "Threshold", "p", "Omega", "From")
    for layer in conversion.snn.layers:
        layers.add_row(
            escape(layer.name),
            layer.neuron,
            str(layer.channels),
            f"{layer.threshold:.4g}",
            number(layer.p),
            number(layer.omega),
            layer.origin,
        )
    console.print(layers)
    snn = conversion.snn
    if snn.metadata["statistics"] != "data":
        console.print(f"p and Omega: of {snn.metadata['statistics']}, and not of data")
    bits = snn.metadata["bits_per_spike"]
    if "integer" in snn.metadata:
        console.print(_cost(snn.metadata["integer"]), soft_wrap=True)
    console.print(
        f"{escape(target)}: thresholds for T = {snn.timesteps}, {show_bits(bits)}", soft_wrap=True
    )
    if {layer.neuron for layer in snn.layers} == _SIGNED_IN_PART:
        console.print(
            "its encoders send spikes of either sign: --neuron signed takes no more bits, and "
            "fewer timesteps",
            soft_wrap=True,
        )
    if measured is not None:
        console.print(_kept(measured), soft_wrap=True)


def _kept(measured: Evaluation) -> str:
    """What an SNN keeps of its ANN after all timesteps, in a line."""
    last = measured.rows[-1]
    said = [f"{last.spikes:,.0f} spikes a sample"]
    if last.error is not None:
        said.insert(0, f"outputs differ from the ANN's by {percent(last.error)}")
    if last.agreement is not None:
        said.insert(0, f"{percent(last.agreement)} keep the ANN's class")
    samples = counted(measured.samples, "sample")
    return f"on {samples} of the data, after {last.timesteps} steps: {', '.join(said)}"


_SIGNED_IN_PART = {IntegrateAndFire.name, TernaryIntegrateAndFire.name}


def _cost(cost: Mapping[str, Any]) -> str:
    """What 8 bits cost, in a line."""
    said = []
    if cost["error"] is not None:
        said.append(f"outputs differ by {percent(cost['error'])}")
    if cost["agreement"] is not None:
        said.append(
            f"{percent(cost['agreement'])} keep their class; the ANN's class have "
            f"{percent(cost['ann_agreement'])}, before {percent(cost['snn_agreement'])}"
        )
    if not said:
        return "what 8 bits cost is not known, as no output can be compared, or all are 0"
    samples = counted(cost["samples"], "sample") + (" of noise" if cost["random"] else "")
    return f"8 bits cost, on {samples}: {', '.join(said)}"
