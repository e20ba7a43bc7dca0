"""One table: what becomes of every ONNX operator in a spiking network.

A tensor is *static* where it is the same at every timestep (it depends on constants and on
the constant input current only), and *varying* behind the first neuron. What an operator
does to a varying tensor decides its fate, so the table decides per node, not per name: Mul
by a static tensor is linear, the Mul of two varying ones is not.

    linear        per timestep, exact: the mean of its outputs is its output of the mean
    shape         linear, and moves values only
    rewritten     a pass turns it into something else: rectifiers, normalization
    compensated   any other deterministic function: applied to the running mean of its input
                  (expectation compensation; ECMT, Huang et al. 2024)
    refused       cannot be converted, with the reason

Beside these, `neuron` and `state` are roles of onnxsnn's own operators, and `static` and
`constant` of nodes that no neuron is before.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np

from onnxsnn import functions
from onnxsnn.arrays import Array
from onnxsnn.errors import UnsupportedError
from onnxsnn.graph import Graph, Node, Tensor, constant, data_input, describe, is_float
from onnxsnn.ratenorm import UNSET_THRESHOLD

__all__ = [
    "DRAWS",
    "LAID_OUT",
    "LONGEST",
    "QUANTIZED",
    "RECTIFIER",
    "TABLE",
    "Fate",
    "Role",
    "Row",
    "Varying",
    "clipped_between",
    "constant_operand",
    "crops",
    "fate",
    "is_laid_out",
    "rectifier_limit",
    "reduced_axes",
    "refuse_unsupported",
    "slice_bounds",
    "values_read",
    "varying_tensors",
]


QUANTIZED = (
    "ConvInteger DequantizeLinear DynamicQuantizeLinear MatMulInteger QLinearConv QLinearMatMul "
    "QuantizeLinear"
)
DRAWS = "Bernoulli Multinomial RandomNormal RandomNormalLike RandomUniform RandomUniformLike"
RECTIFIER = "it rectifies, and becomes a neuron"
LAID_OUT = (
    "ONNX Runtime laid it out for one machine; save the model with graph_optimization_level "
    "ORT_ENABLE_EXTENDED or below"
)
LONGEST = 10**9  # exporters write that, 2^31 - 1 or 2^63 - 1, for the end of an axis


class Role(str, Enum):
    """What becomes of an operator."""

    LINEAR = "linear"
    SHAPE = "shape"
    REWRITTEN = "rewritten"
    COMPENSATED = "compensated"
    REFUSED = "refused"
    NEURON = "neuron"
    STATE = "state"
    STATIC = "static"
    CONSTANT = "constant"


class Varying(Enum):
    """Which inputs of a linear operator may vary over time, at once."""

    ANY = "any"  # jointly linear
    ONE = "one"  # linear in each, so only while the others are static
    FIRST = "first"  # linear in the first; the others say how
    SECOND_AND_THIRD = "second and third"


@dataclass(frozen=True)
class Row:
    """One operator's row in the table.

    Attributes:
        role: its fate where the inputs that vary are those of `varying`.
        varying: for linear and shape operators; others are compensated, whatever varies.
        homogeneous: f(c x) = c f(x) for c >= 0, so that it may be applied to running sums.
        reason: for refused operators.
    """

    role: Role
    varying: Varying = Varying.FIRST
    homogeneous: bool = False
    reason: str = ""


@dataclass(frozen=True)
class Fate:
    """What becomes of one node, and why."""

    role: Role
    reason: str = ""
    homogeneous: bool = False


def _rows(names: str, row: Row) -> dict[str, Row]:
    return dict.fromkeys(names.split(), row)


TABLE: dict[str, Row] = {
    **_rows("Add Sub Sum Mean", Row(Role.LINEAR, Varying.ANY)),
    **_rows("Mul MatMul Gemm Conv ConvTranspose Einsum", Row(Role.LINEAR, Varying.ONE)),
    **_rows(
        "AveragePool Cast CastLike CumSum DFT Div GlobalAveragePool GridSample Neg "
        "ReduceMean ReduceSum Resize RotaryEmbedding STFT Upsample",
        Row(Role.LINEAR),
    ),
    **_rows("BatchNormalization", Row(Role.REWRITTEN)),
    **_rows("Concat", Row(Role.SHAPE, Varying.ANY)),
    **_rows("Where", Row(Role.SHAPE, Varying.SECOND_AND_THIRD)),
    **_rows(
        "CenterCropPad Col2Im Compress DepthToSpace Expand Flatten Gather GatherElements "
        "GatherND Identity Pad Reshape ReverseSequence Slice SpaceToDepth Split Squeeze Tile "
        "Transpose Trilu Unsqueeze",
        Row(Role.SHAPE),
    ),
    **_rows("Scatter ScatterElements ScatterND TensorScatter", Row(Role.COMPENSATED)),
    **_rows(
        "Abs GlobalMaxPool LeakyRelu MaxPool ReduceMax ReduceMin Relu",
        Row(Role.COMPENSATED, homogeneous=True),
    ),
    **_rows(
        "Acos Acosh AffineGrid And ArgMax ArgMin Asin Asinh Atan Atanh Attention BitCast "
        "BitShift BitwiseAnd BitwiseNot BitwiseOr BitwiseXor BlackmanWindow Ceil Celu Clip "
        "Constant ConstantOfShape Cos Cosh CumProd DeformConv Det Elu Equal Erf Exp EyeLike "
        "Floor GRU Gelu GlobalLpPool Greater GreaterOrEqual GroupNormalization HammingWindow "
        "HannWindow HardSigmoid HardSwish Hardmax InstanceNormalization IsInf IsNaN LRN LSTM "
        "LayerNormalization Less LessOrEqual LinearAttention Log LogSoftmax Loop LpNormalization "
        "LpPool Max MaxRoiPool MaxUnpool MeanVarianceNormalization MelWeightMatrix Min Mish "
        "Mod NegativeLogLikelihoodLoss NonMaxSuppression NonZero Not OneHot Or PRelu Pow "
        "RMSNormalization RNN Range Reciprocal ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp "
        "ReduceProd ReduceSumSquare RoiAlign Round Scan Selu Shape Shrink Sigmoid Sign Sin Sinh "
        "Size Softmax SoftmaxCrossEntropyLoss Softplus Softsign Sqrt SwiGLU Swish Tan Tanh "
        "ThresholdedRelu TopK Unique Xor",
        Row(Role.COMPENSATED),
    ),
    **_rows(
        f"{DRAWS} Dropout",
        Row(Role.REFUSED, reason="it draws random numbers; export the model for inference"),
    ),
    **_rows(
        "CausalConvWithState",
        Row(Role.REFUSED, reason="it carries a state from one run to the next"),
    ),
    **_rows(
        "If",
        Row(
            Role.REFUSED,
            reason="its branch is not known; where sizes of inputs decide, give data",
        ),
    ),
    **_rows("SequenceMap", Row(Role.REFUSED, reason="it holds a sub-graph")),
    **_rows(
        QUANTIZED,
        Row(Role.REFUSED, reason="its scales are no constants; convert the float32 model instead"),
    ),
    **_rows(
        "ConcatFromSequence ImageDecoder Optional OptionalGetElement OptionalHasElement "
        "RegexFullMatch SequenceAt SequenceConstruct SequenceEmpty SequenceErase SequenceInsert "
        "SequenceLength SplitToSequence StringConcat StringNormalizer StringSplit TfIdfVectorizer",
        Row(
            Role.REFUSED,
            reason="it works on sequences, strings or files, not on tensors; keep it out of the "
            "network, or, where PyTorch wrote it, export with dynamo=False",
        ),
    ),
}

_STATES = {"RunningSum", "RunningMean", "DelayedMean", "SumIncrement", "MeanIncrement"}


def varying_tensors(graph: Graph, inputs: Collection[str] = ()) -> set[int]:
    """id() of every tensor that varies over time: those behind a rectifier or a neuron.

    The graph must be in topological order; `inputs` names those of its inputs that vary too. A
    shape is static, whatever it is the shape of.
    """
    varying = {id(tensor) for tensor in graph.inputs if tensor.name in inputs}
    for node in graph.nodes:
        fires = rectifier_limit(node) is not None or fate(node, ()).role is Role.NEURON
        if fires or any(id(tensor) in varying for tensor in values_read(node)):
            varying.update(id(tensor) for tensor in node.outputs)
    return varying


def values_read(node: Node) -> list[Tensor]:
    """The inputs of a node whose values it reads, and not their shape or type only."""
    if node.op in ("EyeLike", "Shape", "Size"):
        return []
    return list(node.inputs[:1] if node.op == "CastLike" else node.inputs)


def reduced_axes(node: Node) -> list[int] | None:
    """The axes that a reduction takes together, from the front; None where none are known."""
    given = constant(node.inputs[1]) if len(node.inputs) > 1 else node.attrs.get("axes")
    shape = node.inputs[0].shape
    if given is None or shape is None or not np.size(given):
        return None
    return [int(axis) % len(shape) for axis in np.ravel(given)]


def crops(node: Node) -> bool:
    """Whether a Resize gives a value of its own where what it reads ends."""
    return bool(node.attrs.get("coordinate_transformation_mode") == "tf_crop_and_resize")


def slice_bounds(
    node: Node, read: Callable[[Tensor], Array | None] = constant
) -> list[tuple[Any, Any, Any, Any]] | None:
    """Where a Slice starts and ends on which axis, and its step there, one by one.

    None where one of them is not known, or the bounds are attributes, as in old opsets.

    Args:
        node: the Slice.
        read: gives what an input holds, as far as it is known.
    """
    given = [read(tensor) for tensor in node.inputs[1:]]
    known = [values for values in given if values is not None]
    if len(known) < max(len(given), 2):
        return None
    starts, ends, *more = known
    axes = more[0] if more else range(len(starts))
    steps = more[1] if len(more) > 1 else [1] * len(starts)
    return list(zip(starts, ends, axes, steps, strict=True))


def refuse_unsupported(graph: Graph) -> None:
    """Refuse a graph that holds what cannot be converted.

    Raises:
        UnsupportedError: naming the first such node, its operator, and why.
    """
    for node in graph.nodes:
        what = fate(node, ())
        if what.role is Role.REFUSED:
            raise UnsupportedError(f"{describe(node)} cannot be converted: {what.reason}")
        for inner in (inner for body in node.subgraphs(recursive=True) for inner in body.nodes):
            if inner.op in DRAWS.split():
                reason = TABLE[inner.op].reason
                raise UnsupportedError(f"{describe(inner)} in {describe(node)}: {reason}")


def fate(node: Node, varying: Collection[int]) -> Fate:
    """What becomes of `node`; `varying` holds the id() of every tensor that varies over time."""
    if node.domain == functions.DOMAIN:
        return Fate(Role.STATE if node.op in _STATES else Role.NEURON)
    if is_laid_out(node.op, node.domain):
        return Fate(Role.REFUSED, LAID_OUT)
    if (node.domain or "").startswith(_OF_ONNXRUNTIME):
        return Fate(Role.REFUSED, f"it is ONNX Runtime's own ({node.domain}), {_NOT_APART}")
    if node.domain not in (None, "", "ai.onnx"):
        return Fate(Role.REFUSED, f"its domain {node.domain!r} is not ONNX's own")
    row = TABLE.get(node.op)
    if row is None:
        return Fate(Role.REFUSED, "the operator is not known")
    if rectifier_limit(node) is not None:
        return Fate(Role.REWRITTEN, RECTIFIER)
    if row.role is Role.LINEAR or row.role is Role.SHAPE or node.op == "BatchNormalization":
        return _linear_fate(node, row, varying)
    if row.role is Role.COMPENSATED:
        return Fate(row.role, _ON_SUMS if row.homogeneous else _ON_MEANS, row.homogeneous)
    return Fate(row.role, row.reason)


_OF_ONNXRUNTIME = "com.microsoft"
_NOT_APART = (
    "and cannot be taken apart; save the model before it is optimized, or quantize it in the QDQ "
    "format"
)


def is_laid_out(operator: str, domain: str | None) -> bool:
    """Whether an operator is one that ONNX Runtime writes above ORT_ENABLE_EXTENDED."""
    if domain == f"{_OF_ONNXRUNTIME}.nchwc":
        return True
    return domain == _OF_ONNXRUNTIME and operator.startswith(("Nhwc", "QLinearConv"))


_ON_SUMS = "of running sums, where neurons follow"
_ON_MEANS = "of running means"


def _linear_fate(node: Node, row: Row, varying: Collection[int]) -> Fate:
    moving = [position for position, t in enumerate(values_read(node)) if id(t) in varying]
    allowed = {
        Varying.ANY: True,
        Varying.ONE: len(moving) <= 1,
        Varying.FIRST: moving in ([], [0]),
        Varying.SECOND_AND_THIRD: 0 not in moving,
    }[row.varying]
    if not allowed:
        return Fate(Role.COMPENSATED, "it is not linear in all that varies over time")
    if (
        node.op in ("Cast", "CastLike")
        and moving
        and not (is_float(node.inputs[0]) and is_float(node.outputs[0]))
    ):
        return Fate(Role.COMPENSATED, "it rounds")
    return Fate(row.role)


def rectifier_limit(node: Node) -> Array | None:
    """The value at which a rectifier clips, UNSET_THRESHOLD for one that does not.

    A rectifier is Relu, Clip from 0, or Max with 0, of floats. None for any other node, and
    for one that is a gate: what only multiplies other tensors drives no weights, and need
    not spike (a HardSwish is often written as x * Clip(x + 3, 0, 6) / 6, and the variance of a
    LayerNorm as Max(mean(x * x) - mean(x) ** 2, 0)).
    """
    bounds = clipped_between(node) if node.inputs else None
    if bounds is None or not is_float(node.inputs[0]) or _gates(node.outputs[0]):
        return None
    low, high = bounds
    return high if np.all(low == 0) and np.all(high > 0) else None


def clipped_between(node: Node) -> tuple[Array, Array] | None:
    """Between what a Relu, Clip, Max or Min clips, UNSET_THRESHOLD standing for no bound.

    A bound that is computed is NaN. None for any other node.
    """
    unset = np.array(UNSET_THRESHOLD)
    low, high = -unset, unset
    if node.op == "Relu":
        low = np.zeros(())
    elif node.op == "Clip":
        low, high = _bound(node, 1, -unset), _bound(node, 2, unset)
    elif node.op in ("Max", "Min"):
        operand = constant_operand(node)
        if operand is None:
            return None
        low, high = (operand, unset) if node.op == "Max" else (low, operand)
    else:
        return None
    return low, np.minimum(high, unset)  # float32's greatest is none


def _gates(tensor: Tensor) -> bool:
    """Whether every reader multiplies or divides another tensor, not a constant one, by it."""
    return bool(tensor.outputs) and all(map(_scales_another, tensor.outputs))


def _scales_another(reader: Node) -> bool:
    if reader.op in ("Mul", "Div") and all(constant(t) is None for t in reader.inputs):
        return True
    return reader.op in _KEEPS_GATE and _gates(reader.outputs[0])


_KEEPS_GATE = {
    "Add", "Cast", "Div", "Expand", "Mul", "Pow", "Reciprocal", "Reshape", "Sqrt", "Sub",
    "Transpose", "Unsqueeze",
}  # fmt: skip


def constant_operand(node: Node) -> Array | None:
    """The constant operand of a node of two, where the other is none and keeps its shape.

    None where the other divides it, or is taken from it.
    """
    known = [values for values in map(constant, node.inputs) if values is not None]
    if len(known) != 1 or len(node.inputs) != 2:
        return None
    if node.op in ("Div", "Sub") and constant(node.inputs[0]) is not None:
        return None
    return None if _broadcasts(known[0], data_input(node)) else known[0]


def _broadcasts(values: Array, tensor: Tensor) -> bool:
    """Whether values beside a tensor make its shape a larger one."""
    shape = list(tensor.shape or [None] * values.ndim)
    beside = zip(shape[::-1], values.shape[::-1], strict=False)
    return values.ndim > len(shape) or any(own == 1 and size > 1 for own, size in beside)


def _bound(node: Node, position: int, unset: Array) -> Array:
    """A bound of a Clip, or what stands for none."""
    if len(node.inputs) <= position or node.inputs[position].is_empty():
        return unset
    values = constant(node.inputs[position])
    return np.array(np.nan) if values is None else values  # not constant: equal to nothing
