"""Models as ONNX Runtime's optimizer saves them are those that they were made of."""

import onnx
import onnxruntime as ort
import pytest

from onnxsnn import convert, load_source
from onnxsnn.errors import UnsupportedError
from onnxsnn.fused import take_apart
from onnxsnn.graph import to_model
from onnxsnn.session import Session
from tests.models import Builder, assert_same, dataset, uniform
from tests.networks import STRUCTURES


def optimized(path):
    """The same model, as a session writes it, without what suits this machine alone."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(path.with_suffix(".optimized.onnx"))
    ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return path.with_suffix(".optimized.onnx")


@pytest.mark.parametrize("structure", STRUCTURES)
def test_optimized_models_are_what_they_were(tmp_path, structure):
    path = STRUCTURES[structure]().save(tmp_path / "m.onnx")
    plain, source = load_source(path), load_source(optimized(path))
    (spec,) = plain.inputs
    x = uniform(8, *spec.shape[1:])
    given = Session(to_model(source.graph())).run({"x": x})
    assert_same(Session(plain.model).run({"x": x}), given, 1e-4)
    layers = [
        sorted(layer.neuron for layer in convert(each, dataset(x=x), timesteps=4).snn.layers)
        for each in (plain, source)
    ]
    assert layers[0] == layers[1]


def fused(b, operator, *inputs, **attrs):
    """The model, an operator of ONNX Runtime's own behind what is there."""
    b.op(operator, *inputs, domain="com.microsoft", **attrs)
    return b.unchecked()


ACTIVATIONS = {
    "Relu": (), "Tanh": (), "Sigmoid": (), "LeakyRelu": (0.2,), "Clip": (0.0, 0.4),
    "HardSigmoid": (0.3, 0.4),
}  # fmt: skip


def convolution(b, activation):
    weights = b.normal(4, 3, 3, 3), b.normal(4), b.op("Conv", "x", b.normal(4, 3, 3, 3))
    values = ACTIVATIONS[activation]
    attrs = {"activation_params": values} if values else {}
    return fused(b, "FusedConv", "x", *weights, activation=activation, **attrs)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_convolutions_with_a_sum_and_an_activation(activation):
    model = convolution(Builder((3, 6, 6)), activation)
    x = uniform(2, 3, 6, 6)
    apart = take_apart(model)
    assert {node.domain for node in apart.graph.node} == {""}
    assert_same(Session(model).run({"x": x}), Session(apart).run({"x": x}), 1e-5)


def gelu(b):
    return fused(b, "Gelu", "x")


def bias_gelu(b):
    return fused(b, "BiasGelu", "x", b.normal(6))


def fast_gelu(b):
    return fused(b, "FastGelu", "x", b.normal(6))


def quick_gelu(b):
    return fused(b, "QuickGelu", "x", alpha=1.5)


def product(b):
    return fused(b, "FusedMatMul", "x", "x", transA=1, alpha=0.5)


def product_of_transposed(b):
    return fused(b, "FusedMatMul", "x", b.normal(7, 6), transB=1)


@pytest.mark.parametrize(
    "build", [gelu, bias_gelu, fast_gelu, quick_gelu, product, product_of_transposed]
)
def test_each_gives_what_it_gave(build):
    model, x = build(Builder((5, 6))), uniform(2, 5, 6)
    assert_same(Session(model).run({"x": x}), Session(take_apart(model)).run({"x": x}), 1e-4)


def test_others_are_left_and_refused_by_name(tmp_path):
    model = fused(Builder((4, 4)), "Inverse", "x")
    assert take_apart(model) is model
    onnx.save(model, tmp_path / "m.onnx")
    with pytest.raises(UnsupportedError, match=r"Inverse.*com\.microsoft"):
        convert(tmp_path / "m.onnx", dataset(x=uniform(3, 4, 4)))
