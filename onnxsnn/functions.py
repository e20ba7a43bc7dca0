"""The onnxsnn domain: every operator of ours is a model-local function of standard ONNX.

A body is ONNX's own text form, from which `body` makes the function for a model's opset.
Only operators that are the same in every opset since `MINIMUM_OPSET` are used.
"""

from __future__ import annotations

from collections.abc import Iterable

import onnx
import onnx.parser

from onnxsnn.neurons import NEURONS, IntegrateAndFire, Neuron

__all__ = [
    "BODIES",
    "DOMAIN",
    "INTEGER",
    "IR_VERSION",
    "MINIMUM_OPSET",
    "SMOOTH",
    "UNIT",
    "VERSION",
    "body",
    "closure",
]

DOMAIN = "onnxsnn"
VERSION = 1
IR_VERSION = 8  # the first that has model-local functions
INTEGER = "Integer"  # a neuron's operator with this in front has 8-bit spikes
UNIT = "Unit"  # with this, behind "Integer", its threshold is 1; see `passes/unit_neurons.py`
SMOOTH = "Smooth"  # with this, it has no step at its threshold; see `passes/smooth.py`
MINIMUM_OPSET = 14  # the first whose Reshape lets onnx follow computed shapes

_RATE_NORM = """
RateNorm (x, theta) => (r) {
    zero = Constant <value = float {0.0}> ()
    positive = Max (x, zero)
    clipped = Min (positive, theta)
    r = Div (clipped, theta)
}
"""

_SIGNED_RATE_NORM = """
SignedRateNorm (x, theta) => (r) {
    lowest = Neg (theta)
    above = Max (x, lowest)
    clipped = Min (above, theta)
    r = Div (clipped, theta)
}
"""

_RUNNING_SUM = """
RunningSum (x, sum) => (sum_next) {
    sum_next = Add (sum, x)
}
"""

_RUNNING_MEAN = """
RunningMean (x, sum, step) => (mean, sum_next) {
    sum_next = Add (sum, x)
    mean = Div (sum_next, step)
}
"""

_DELAYED_MEAN = """
DelayedMean <delay> (x, sum, step) => (mean, sum_next) {
    late = Constant <value_float: float = @delay> ()
    since = Sub (step, late)
    one = Constant <value = float {1.0}> ()
    begins = Equal (since, one)
    nothing = Constant <value = float {0.0}> ()
    before = Where (begins, nothing, sum)
    sum_next = Add (before, x)
    counted = Greater (since, nothing)
    steps = Where (counted, since, step)
    mean = Div (sum_next, steps)
}
"""  # from step `delay` + 1 on, the mean of what has come since

_SUM_INCREMENT = """
SumIncrement (sum, last) => (x, last_next) {
    x = Sub (sum, last)
    last_next = Identity (sum)
}
"""

_MEAN_INCREMENT = """
MeanIncrement (mean, last, step) => (x, last_next) {
    sum = Mul (mean, step)
    nothing = Sub (sum, sum)
    undefined = IsNaN (nothing)
    last_next = Where (undefined, last, sum)
    x = Sub (last_next, last)
}
"""  # where the mean is infinite or NaN (a log of what has not spiked yet), it waits


def _integer(operator: str, neuron: type[Neuron]) -> str:
    """The body of a neuron whose spikes are bytes: `zero + s / unit`."""
    before = ", ".join(["x", "theta", *neuron.states])
    after = ", ".join(f"{state}_next" for state in neuron.states)
    names = list(neuron().attributes)
    header = f"<{', '.join(names)}>" if names else ""
    given = f"<{', '.join(f'{name}: float = @{name}' for name in names)}>" if names else ""
    return f"""
{INTEGER}{operator} {header} ({before}, unit, zero) => (wire, {after}) {{
    spikes, {after} = {DOMAIN}.{operator} {given} ({before})
    wire = QuantizeLinear (spikes, unit, zero)
}}
"""


def _smooth(neuron: type[Neuron]) -> str:
    """The body of a neuron without a step at its threshold; states but the potential rest."""
    potential, *others = neuron.states
    before = ", ".join(["x", "theta", *neuron.states])
    after = ", ".join(f"{state}_next" for state in neuron.states)
    resting = "\n    ".join(f"{state}_next = Identity ({state})" for state in others)
    return f"""
{SMOOTH}{neuron.operator} ({before}) => (s, {after}) {{
    u = Add ({potential}, x)
    relative = Div (u, theta)
    s = HardSigmoid <alpha: float = 1.0, beta: float = 0.0> (relative)
    charge = Mul (theta, s)
    {potential}_next = Sub (u, charge)
    {resting}
}}
"""


_UNIT_INTEGRATE_AND_FIRE = """
UnitIntegrateAndFire (x, theta, v) => (s, v_next) {
    u = Add (v, x)
    s = HardSigmoid <alpha: float = 16777216.0, beta: float = -16777215.0> (u)
    v_next = Sub (u, s)
}
"""  # of all floats below 1, the greatest is 1 - 2^-24, and gives 0; 1 gives 1, without rounding

BODIES: dict[str, str] = {
    "RateNorm": _RATE_NORM,  # the Rate Norm Layer: firing rates of an ANN (Ding et al. 2021, eq. 8)
    "SignedRateNorm": _SIGNED_RATE_NORM,  # its counterpart where values can be negative
    "RunningSum": _RUNNING_SUM,
    "RunningMean": _RUNNING_MEAN,
    "DelayedMean": _DELAYED_MEAN,
    "SumIncrement": _SUM_INCREMENT,
    "MeanIncrement": _MEAN_INCREMENT,
    **{neuron.operator: neuron.body for neuron in NEURONS.values()},
    **{INTEGER + n.operator: _integer(n.operator, n) for n in NEURONS.values()},
    UNIT + IntegrateAndFire.operator: _UNIT_INTEGRATE_AND_FIRE,
    INTEGER + UNIT + IntegrateAndFire.operator: _integer(
        UNIT + IntegrateAndFire.operator, IntegrateAndFire
    ),
    **{SMOOTH + neuron.operator: _smooth(neuron) for neuron in NEURONS.values()},
}


def body(operator: str, opset: int) -> onnx.FunctionProto:
    """The function `operator` of the onnxsnn domain, its body in the given default opset."""
    own = f', "{DOMAIN}": {VERSION}' if operator.startswith(INTEGER) else ""
    header = f'<domain: "{DOMAIN}", opset_import: ["": {opset}{own}]>'
    return onnx.parser.parse_function(header + BODIES[operator])


def closure(operators: Iterable[str]) -> list[str]:
    """Operators of the domain and those that their bodies call, which come first."""
    found = set(operators)
    found |= {name.removeprefix(INTEGER) for name in found}
    return sorted(found, key=lambda name: (name.startswith(INTEGER), name))
