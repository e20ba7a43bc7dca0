"""The onnxsnn domain: every operator of ours is a model-local function of standard ONNX.

A body is ONNX's own text form, from which `body` makes the function for a model's opset.
Only operators that are the same in every opset since `MINIMUM_OPSET` are used.
"""

from __future__ import annotations

import onnx
import onnx.parser

from onnxsnn.neurons import NEURONS

__all__ = ["BODIES", "DOMAIN", "IR_VERSION", "MINIMUM_OPSET", "VERSION", "body"]

DOMAIN = "onnxsnn"
VERSION = 1
IR_VERSION = 8  # the first that has model-local functions
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

BODIES: dict[str, str] = {
    "RateNorm": _RATE_NORM,  # the Rate Norm Layer: firing rates of an ANN (Ding et al. 2021, eq. 8)
    "SignedRateNorm": _SIGNED_RATE_NORM,  # its counterpart where values can be negative
    "RunningSum": _RUNNING_SUM,
    "RunningMean": _RUNNING_MEAN,
    "SumIncrement": _SUM_INCREMENT,
    "MeanIncrement": _MEAN_INCREMENT,
    **{neuron.operator: neuron.body for neuron in NEURONS.values()},
}


def body(operator: str, opset: int) -> onnx.FunctionProto:
    """The function `operator` of the onnxsnn domain, its body in the given default opset."""
    header = f'<domain: "{DOMAIN}", opset_import: ["": {opset}]>'
    return onnx.parser.parse_function(header + BODIES[operator])
