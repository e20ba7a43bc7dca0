"""What scikit-learn's pipelines have around a network (domain ai.onnx.ml), in ONNX's own operators.

In front of the network features are scaled, made one length, chosen or encoded; behind it a linear
model may weigh what several networks say, the name of the class is looked up, and a map from names
to probabilities made (ZipMap): that output becomes the array of them. An output of text is left
out, with all that only it needs.

https://onnx.ai/onnx/operators/#ai-onnx-ml says what the operators are. Others that are models of
their own, such as trees, are not networks, and stay.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import deepcopy
from functools import partial
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from onnxsnn.dialects.opsets import to_opset
from onnxsnn.dialects.parts import Parts, constants_of, read_by, replace_nodes
from onnxsnn.errors import ModelError
from onnxsnn.functions import MINIMUM_OPSET
from onnxsnn.graph import opset_of

__all__ = ["without_classical"]

_DOMAIN = "ai.onnx.ml"
_CLASSIFIER, _MAP = "LinearClassifier", "ZipMap"
_ENCODERS = {"LabelEncoder", "OneHotEncoder"}  # of numbers or of text
_AXES_READ = 18  # since when every reduction reads its axes, as sums do before


def without_classical(model: onnx.ModelProto) -> tuple[onnx.ModelProto, list[str]]:
    """A model with such operators in parts, and what the user should know of it.

    Returns:
        the model, which is that given where there is nothing to do, and warnings.

    Raises:
        ModelError: an input is text, or all outputs are, or onnx cannot bring the model to an opset
            that has what stands for such an operator.
    """
    _refuse_text(model.graph)
    texts = [tensor.name for tensor in model.graph.output if _is_text(tensor)]
    has_rule = any(_has_rule(node) for node in model.graph.node)
    if not texts and not has_rule:
        return model, []
    plain = deepcopy(to_opset(model, MINIMUM_OPSET) if has_rule else model)
    _leave_out(plain.graph, texts)
    maps = [node for node in plain.graph.node if node.op_type == _MAP]
    ranks = {name: len(tensor.dims) for name, tensor in constants_of(plain.graph).items()}
    replace_nodes(plain.graph, partial(_parts, ranks=ranks, opset=opset_of(plain)))
    _declare_arrays(plain.graph, maps)
    warnings = [f"output {name!r} is text, and left out" for name in texts]
    return plain, warnings + [
        f"output {node.output[0]!r} is an array, and no map from names of classes" for node in maps
    ]


def _refuse_text(graph: onnx.GraphProto) -> None:
    for tensor in graph.input:
        if _is_text(tensor):
            raise ModelError(
                f"input {tensor.name!r} is text, which no network reads; encode it as numbers "
                "before, and export what follows"
            )


def _is_text(tensor: onnx.ValueInfoProto) -> bool:
    return bool(tensor.type.tensor_type.elem_type == TensorProto.STRING)


def _has_rule(node: onnx.NodeProto) -> bool:
    if node.domain != _DOMAIN or node.op_type not in _RULES:
        return False
    given = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    if node.op_type in _ENCODERS:
        return not any(name.endswith(("_strings", "_tensor")) for name in given)
    scores, rows = given.get("post_transform", b"NONE"), len(given.get("intercepts", ()))
    if node.op_type == _CLASSIFIER and rows < 2:  # ONNX Runtime has ways of its own with others
        return bool(rows and scores == b"LOGISTIC")
    return scores in (_SCORES if node.op_type == _CLASSIFIER else {b"NONE"})


def _leave_out(graph: onnx.GraphProto, names: list[str]) -> None:
    """Leave outputs out, and the nodes and constants that nothing else needs."""
    if not names:
        return
    outputs = [tensor for tensor in graph.output if tensor.name not in names]
    if not outputs:
        raise ModelError(
            f"all that the model gives is text ({', '.join(names)}); "
            "export it with the scores of its classes as an output"
        )
    needed = {tensor.name for tensor in outputs}
    kept = []
    for node in reversed(graph.node):
        if needed.intersection(node.output):
            needed.update(read_by(node))
            kept.append(node)
    constants = [tensor for tensor in graph.initializer if tensor.name in needed]
    for name, entries in (("output", outputs), ("node", kept[::-1]), ("initializer", constants)):
        graph.ClearField(name)
        getattr(graph, name).extend(entries)


def _parts(node: onnx.NodeProto, ranks: Mapping[str, int], opset: int) -> list[onnx.NodeProto]:
    """What a node is made of; the node alone where there is no rule."""
    if not _has_rule(node):
        return [node]
    parts = _Parts(node, ranks, opset)
    parts.give(0, _RULES[node.op_type](parts))
    return parts.nodes


def _declare_arrays(graph: onnx.GraphProto, maps: list[onnx.NodeProto]) -> None:
    """Let outputs that were maps be arrays, [samples, classes]."""
    for node in maps:
        names = [helper.get_attribute_value(attribute) for attribute in node.attribute]
        shape = [None, max(map(len, names))]
        for tensor in graph.output:
            if tensor.name == node.output[0]:
                made = helper.make_tensor_value_info(tensor.name, TensorProto.FLOAT, shape)
                tensor.CopyFrom(made)


class _Parts(Parts):
    """The nodes that stand for one, and what rules ask of the model.

    Attributes:
        ranks: of constants, by name.
        opset: of the model.
    """

    def __init__(self, node: onnx.NodeProto, ranks: Mapping[str, int], opset: int) -> None:
        super().__init__(node)
        self.ranks, self.opset = ranks, opset

    def values(self, given: Any) -> str:
        """What an attribute holds as a constant: float32, or whole numbers."""
        values = np.array(given)
        return self.array(values.astype(np.float32 if values.dtype.kind == "f" else np.int64))


def _scaler(parts: _Parts) -> str:
    """(x - offset) scale."""
    x = parts.floats(parts.read(0))
    if parts.attributes.get("offset"):
        x = parts.add("Sub", x, parts.values(parts.attributes["offset"]))
    if parts.attributes.get("scale"):
        x = parts.add("Mul", x, parts.values(parts.attributes["scale"]))
    return x


def _binarizer(parts: _Parts) -> str:
    """1 above the threshold, else 0."""
    threshold = parts.number(parts.attributes.get("threshold", 0.0))
    return parts.floats(parts.add("Greater", parts.floats(parts.read(0)), threshold))


def _normalizer(parts: _Parts) -> str:
    """Rows over their greatest value, the sum of their sizes, or their length; 0 stays."""
    kind, x = parts.attributes.get("norm", b"MAX"), parts.floats(parts.read(0))
    if kind == b"MAX":
        norm = _greatest(parts, x)
    elif kind == b"L1":
        norm = _row_sums(parts, parts.add("Abs", x))
    else:
        norm = parts.add("Sqrt", _row_sums(parts, parts.add("Mul", x, x)))
    is_zero = parts.add("Equal", norm, parts.number(0.0))
    return parts.add("Div", x, parts.add("Where", is_zero, parts.number(1.0), norm))


def _row_sums(parts: _Parts, tensor: str) -> str:
    return parts.add("ReduceSum", tensor, parts.whole(-1))


def _greatest(parts: _Parts, tensor: str) -> str:
    if parts.opset < _AXES_READ:
        return parts.add("ReduceMax", tensor, axes=[-1])
    return parts.add("ReduceMax", tensor, parts.whole(-1))


def _imputer(parts: _Parts) -> str:
    """Others in the place of values that stand for none."""
    x = parts.read(0)
    kind = "float" if "imputed_value_floats" in parts.attributes else "int64"
    missing = parts.attributes.get(f"replaced_value_{kind}", 0.0 if kind == "float" else 0)
    if np.isnan(missing):
        is_missing = parts.add("IsNaN", x)
    else:
        is_missing = parts.add("Equal", x, parts.values(missing))
    return parts.add(
        "Where", is_missing, parts.values(parts.attributes[f"imputed_value_{kind}s"]), x
    )


def _chosen(parts: _Parts) -> str:
    """Columns by number; of a vector, as one row."""
    x, places = parts.inputs
    chosen = parts.add("Gather", x, parts.add("Reshape", places, parts.whole(-1)), axis=-1)
    is_vector = parts.ranks.get(x) == 1
    return parts.add("Reshape", chosen, parts.whole(1, -1)) if is_vector else chosen


def _joined(parts: _Parts) -> str:
    """Columns side by side, as floats."""
    pieces = [parts.add("Reshape", parts.floats(x), parts.whole(0, -1)) for x in parts.inputs]
    return parts.add("Concat", *pieces, axis=1)


def _one_hot(parts: _Parts) -> str:
    """1 where the value is a category; categories lie along an axis more, the last."""
    value = parts.add("Unsqueeze", parts.read(0), parts.whole(-1))
    wholes = parts.add("Cast", value, to=TensorProto.INT64)
    return parts.floats(parts.add("Equal", wholes, parts.values(parts.attributes["cats_int64s"])))


def _encoded(parts: _Parts) -> str:
    """The value that belongs to a key, or to all others."""
    keys, values = (
        next(name for name in parts.attributes if name.startswith(kind))
        for kind in ("keys_", "values_")
    )
    kind = values.removeprefix("values_").removesuffix("s")
    usual = parts.attributes.get(f"default_{kind}", -1 if kind == "int64" else -0.0)
    key = parts.add("Unsqueeze", parts.read(0), parts.whole(-1))
    place = parts.add("Equal", key, parts.values(parts.attributes[keys]))
    hits = parts.add("Cast", place, to=TensorProto.INT32)
    at = parts.add("ArgMax", hits, axis=-1, keepdims=0)
    count = parts.add("ReduceSum", hits, parts.whole(-1), keepdims=0)
    is_known = parts.add("Cast", count, to=TensorProto.BOOL)
    found = parts.add("Gather", parts.values(parts.attributes[values]), at)
    return parts.add("Where", is_known, found, parts.values(usual))


def _regressed(parts: _Parts) -> str:
    """Linear in what is read."""
    return _linear(parts, parts.attributes.get("targets", 1))


def _classified(parts: _Parts) -> str:
    """The class of the greatest score, which are linear in what is read; two may have one score."""
    scores = _linear(parts, len(parts.attributes["intercepts"]))
    if len(parts.attributes["intercepts"]) == 1:
        scores = parts.add("Concat", parts.add("Neg", scores), scores, axis=1)
    scores = _SCORES[parts.attributes.get("post_transform", b"NONE")](parts, scores)
    parts.give(1, scores)
    best = parts.add("ArgMax", scores, axis=1, keepdims=0)
    labels = parts.attributes.get("classlabels_ints")
    return parts.add("Gather", parts.values(labels), best) if labels else best


def _linear(parts: _Parts, rows: int) -> str:
    weights = np.array(parts.attributes["coefficients"], np.float32).reshape(rows, -1)
    product = parts.add("MatMul", parts.floats(parts.read(0)), parts.array(weights.T.copy()))
    shift = parts.attributes.get("intercepts")
    return parts.plus(product, parts.values(shift) if shift else "")


def _array(parts: _Parts) -> str:
    """What the map is made of."""
    return parts.read(0)


_SCORES: dict[bytes, Callable[[_Parts, str], str]] = {
    b"LOGISTIC": lambda parts, scores: parts.add("Sigmoid", scores),
    b"NONE": lambda _parts, scores: scores,
    b"SOFTMAX": lambda parts, scores: parts.add("Softmax", scores, axis=-1),
}

_RULES: dict[str, Callable[[_Parts], str]] = {
    "ArrayFeatureExtractor": _chosen,
    "Binarizer": _binarizer,
    "FeatureVectorizer": _joined,
    "Imputer": _imputer,
    "LabelEncoder": _encoded,
    _CLASSIFIER: _classified,
    "LinearRegressor": _regressed,
    "Normalizer": _normalizer,
    "OneHotEncoder": _one_hot,
    "Scaler": _scaler,
    _MAP: _array,
}
