"""Neuron models: one file each, with function body, static response and numpy step."""

from __future__ import annotations

from onnxsnn.neurons.burst import BurstIntegrateAndFire, SignedBurstIntegrateAndFire
from onnxsnn.neurons.integrate_and_fire import IntegrateAndFire
from onnxsnn.neurons.multi_threshold import MultiThreshold, SignedMultiThreshold
from onnxsnn.neurons.neuron import Neuron
from onnxsnn.neurons.signed import SignedIntegrateAndFire
from onnxsnn.neurons.ternary import TernaryIntegrateAndFire

__all__ = [
    "NEURONS",
    "RECTIFYING_NEURONS",
    "BurstIntegrateAndFire",
    "IntegrateAndFire",
    "MultiThreshold",
    "Neuron",
    "SignedBurstIntegrateAndFire",
    "SignedIntegrateAndFire",
    "SignedMultiThreshold",
    "TernaryIntegrateAndFire",
]


RECTIFYING_NEURONS: dict[str, type[Neuron]] = {
    neuron.name: neuron
    for neuron in (
        IntegrateAndFire,
        SignedIntegrateAndFire,
        BurstIntegrateAndFire,
        MultiThreshold,
    )
}
"""The neurons that can stand for a rectifier, by name."""

NEURONS: dict[str, type[Neuron]] = RECTIFYING_NEURONS | {
    neuron.name: neuron
    for neuron in (TernaryIntegrateAndFire, SignedBurstIntegrateAndFire, SignedMultiThreshold)
}
"""All neurons by name, those that encode values of either sign too."""
