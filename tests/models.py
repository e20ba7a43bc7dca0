"""Small models for tests: each test builds the one it needs, in a few lines."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.capi.onnxruntime_pybind11_state import NotImplemented as NoKernel

from onnxsnn.data import Dataset
from onnxsnn.errors import OnnxSnnError
from onnxsnn.graph import Array, Graph, from_model, to_model
from onnxsnn.session import Session

OLD_RUNTIME = tuple(map(int, ort.__version__.split(".")[:2])) < (1, 24)


@contextmanager
def kernels_of_today() -> Iterator[None]:
    """Skips the test where ONNX Runtime is too old to run the model that it is about.

    The last version for Python 3.10 has no ConvInteger of signed weights, no LayerNormalization of
    one value and no Max of bytes, and its FusedConv fails on sums.
    """
    try:
        yield
    except (OnnxSnnError, NoKernel) as error:
        if not OLD_RUNTIME:
            raise
        pytest.skip(f"ONNX Runtime {ort.__version__}: {error}")


def optimized(path: Path, level: str = "EXTENDED") -> Path:
    """The same model, as a session writes it; by default without what suits this machine alone."""
    options = ort.SessionOptions()
    options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, f"ORT_ENABLE_{level}")
    options.optimized_model_filepath = str(path.with_suffix(".optimized.onnx"))
    ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return path.with_suffix(".optimized.onnx")


class Builder:
    """Builds a model node by node; each method reads the tensor last made, unless told."""

    def __init__(
        self, shape: tuple[int | str, ...], seed: int = 0, batch: int | str = "N", opset: int = 17
    ) -> None:
        self.random = np.random.default_rng(seed)
        self.opset = opset
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, *shape])]
        self.last = "x"
        self.channels = shape[0]

    def op(self, operator: str, *inputs: str, count: int = 1, **attrs: Any) -> str:
        """Any node; the tensor last made is its input where none is named."""
        number = len(self.nodes)
        outputs = [f"t{number}"] + [f"t{number}_{i}" for i in range(1, count)]
        name = f"{operator.lower()}{number}"
        self.nodes.append(
            helper.make_node(operator, list(inputs) or [self.last], outputs, name, **attrs)
        )
        self.last = outputs[0]
        return self.last

    def constant(self, values: Any, dtype: Any = np.float32) -> str:
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(values, dtype), name))
        return name

    def normal(self, *shape: int, scale: float = 1.0) -> str:
        return self.constant(self.random.normal(0.0, scale, shape))

    def conv(self, outputs: int, kernel: int = 3, group: int = 1, bias: bool = True, **attrs: Any):
        attrs.setdefault("pads", [kernel // 2] * 4)
        fan = self.channels // group
        weight = self.normal(outputs, fan, kernel, kernel, scale=(fan * kernel**2) ** -0.5)
        more = [self.normal(outputs, scale=0.1)] if bias else []
        self.channels = outputs
        return self.op("Conv", self.last, weight, *more, group=group, **attrs)

    def conv_transpose(self, outputs: int, kernel: int = 2, group: int = 1, stride: int = 2) -> str:
        weight = self.normal(self.channels, outputs // group, kernel, kernel, scale=0.3)
        bias, self.channels = self.normal(outputs, scale=0.1), outputs
        return self.op(
            "ConvTranspose", self.last, weight, bias, group=group, strides=[stride, stride]
        )

    def batchnorm(self, shift: float = 1.0) -> str:
        c = self.channels
        gamma = self.constant(self.random.uniform(0.5, 1.5, c) * self.random.choice([-1, 1, 1], c))
        mean, beta = self.normal(c, scale=0.3 * shift), self.normal(c, scale=0.3 * shift)
        variance = self.constant(self.random.uniform(0.5, 2.0, c))
        return self.op("BatchNormalization", self.last, gamma, beta, mean, variance)

    def gemm(self, outputs: int, inputs: int | None = None, **attrs: Any) -> str:
        inputs = self.channels if inputs is None else inputs
        shape = (outputs, inputs) if attrs.setdefault("transB", 1) else (inputs, outputs)
        weight = self.normal(*shape, scale=inputs**-0.5)
        self.channels = outputs
        return self.op("Gemm", self.last, weight, self.normal(outputs, scale=0.1), **attrs)

    def relu(self) -> str:
        return self.op("Relu")

    def clip(self, high: float) -> str:
        return self.op("Clip", self.last, self.constant(0.0), self.constant(high))

    def head(self, classes: int = 4) -> str:
        """Global average pooling and a linear read-out."""
        self.op("GlobalAveragePool")
        self.op("Flatten")
        return self.gemm(classes)

    def unchecked(self) -> onnx.ModelProto:
        """The model with operators of ONNX Runtime's own, whose shapes onnx cannot infer."""
        sizes = [None] * len(self.inputs[0].type.tensor_type.shape.dim)
        outputs = [helper.make_tensor_value_info(self.last, TensorProto.FLOAT, sizes)]
        graph = helper.make_graph(self.nodes, "test", self.inputs, outputs, self.constants)
        opsets = [helper.make_opsetid("", self.opset), helper.make_opsetid("com.microsoft", 1)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=8)

    def model(self, *outputs: str) -> onnx.ModelProto:
        """The model, its outputs those named or the tensor last made; checked."""
        inferred = onnx.shape_inference.infer_shapes(self.undeclared(*outputs))
        onnx.checker.check_model(inferred)
        return inferred

    def undeclared(self, *outputs: str) -> onnx.ModelProto:
        """The same, whose outputs say neither type nor shape."""
        graph = helper.make_graph(
            self.nodes,
            "test",
            self.inputs,
            [helper.make_empty_tensor_value_info(name) for name in outputs or [self.last]],
            self.constants,
        )
        opsets = [helper.make_opsetid("", self.opset)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=8)

    def graph(self, *outputs: str) -> Graph:
        return from_model(self.model(*outputs))

    def save(self, path: Path, *outputs: str) -> Path:
        onnx.save(self.model(*outputs), path)
        return path


def outputs_of(model: onnx.ModelProto | Graph, **feeds: Array) -> dict[str, Array]:
    """The outputs of a model or graph in ONNX Runtime."""
    proto = model if isinstance(model, onnx.ModelProto) else to_model(model)
    return Session(proto).run(feeds)


def assert_same(before: dict[str, Array], after: dict[str, Array], tolerance: float = 1e-5) -> None:
    """Outputs by name are equal, up to `tolerance` of the greatest value."""
    assert before.keys() == after.keys()
    for name, values in before.items():
        scale = np.abs(values).max() + 1e-12
        np.testing.assert_allclose(after[name] / scale, values / scale, atol=tolerance, rtol=0)


def uniform(*shape: int, seed: int = 0) -> Array:
    """Inputs in [-1, 1], float32."""
    return np.random.default_rng(seed).uniform(-1, 1, shape).astype(np.float32)


def dataset(**inputs: Array) -> Dataset:
    """A data set without labels."""
    return Dataset(inputs, None)
