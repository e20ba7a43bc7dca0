"""Neuron models: one file each, with function body and numpy step."""

from __future__ import annotations

from inspect import signature
from numbers import Integral
from typing import Any

from onnxsnn.errors import UsageError
from onnxsnn.neurons.burst import BurstIntegrateAndFire, SignedBurstIntegrateAndFire
from onnxsnn.neurons.integrate_and_fire import IntegrateAndFire
from onnxsnn.neurons.multi_threshold import MultiThreshold, SignedMultiThreshold
from onnxsnn.neurons.neuron import Neuron
from onnxsnn.neurons.signed import SignedIntegrateAndFire
from onnxsnn.neurons.ternary import TernaryIntegrateAndFire

__all__ = [
    "MOST_DIGITS",
    "MOST_LEVELS",
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
    "check_neuron",
    "neuron_of",
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

MOST_LEVELS, MOST_DIGITS = 16, 4


def neuron_of(name: str, **given: float | None) -> Neuron | None:
    """The neuron of a name and of those settings that are not None; None for the default one.

    Raises:
        UsageError: the neuron has no such setting, or it makes no sense.
    """
    settings: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
    if name == IntegrateAndFire.name and not settings:
        return None
    known = signature(RECTIFYING_NEURONS[name]).parameters
    unknown = [setting for setting in settings if setting not in known]
    if unknown:
        raise UsageError(f"neuron {name!r} has no {unknown[0]}; leave --{unknown[0]} out")
    neuron = RECTIFYING_NEURONS[name](**settings)
    check_neuron(neuron)
    return neuron


def check_neuron(neuron: Neuron) -> None:
    """Refuse settings that make no sense.

    Raises:
        UsageError: it is none, the initial potential is not from 0 to 1, or there are too many
            levels or digits, none, or no whole number of them.
    """
    if isinstance(neuron, type) or not hasattr(neuron, "initial_potential"):
        raise UsageError(f"a neuron is an object of onnxsnn.neurons, and {neuron!r} came")
    if not 0 <= neuron.initial_potential <= 1:
        raise UsageError(f"the initial potential is from 0 to 1 and not {neuron.initial_potential}")
    for setting, most in (("levels", MOST_LEVELS), ("digits", MOST_DIGITS)):
        value = getattr(neuron, setting, 1)
        if not (isinstance(value, Integral) and 1 <= int(value) <= most):
            raise UsageError(f"{setting} are a whole number from 1 to {most}, and not {value}")


NEURONS: dict[str, type[Neuron]] = RECTIFYING_NEURONS | {
    neuron.name: neuron
    for neuron in (TernaryIntegrateAndFire, SignedBurstIntegrateAndFire, SignedMultiThreshold)
}
"""All neurons by name, those that encode values of either sign too."""
