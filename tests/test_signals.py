"""signals: what drives a layer of weights."""

import onnx
import pytest

from onnxsnn.errors import UnsupportedError
from onnxsnn.passes.clean import clean
from onnxsnn.passes.encode import encode
from onnxsnn.passes.relu_to_ratenorm import relu_to_ratenorm
from onnxsnn.signals import Signal, Signals, analog_nodes, refuse_analog, weighted_input
from tests.models import Builder


def signals_of(b, *names):
    """The signals of tensors by name, behind `relu_to_ratenorm`."""
    graph, _ = clean(b.graph(*dict.fromkeys([*names, b.last])))
    relu_to_ratenorm(graph)
    graph.toposort()
    signals, tensors = Signals(graph), graph.tensors()
    return [signals[tensors[name]] for name in names]


def test_input_current_spikes_and_what_weights_make_of_spikes():
    b = Builder((3, 6, 6))
    names = [b.op("Sqrt", "x"), b.conv(4), b.relu(), b.op("AveragePool", kernel_shape=[2, 2])]
    names.append(b.conv(4))
    assert signals_of(b, *names) == [
        Signal.INPUT, Signal.CURRENT, Signal.SPIKES, Signal.SPIKES, Signal.ANALOG,
    ]  # fmt: skip


def test_linear_layers_of_the_input_stay_a_constant_current():
    b = Builder((3, 6, 6))
    assert signals_of(b, b.conv(4), b.conv(4)) == [Signal.CURRENT, Signal.CURRENT]


@pytest.mark.parametrize("operator", ["Sigmoid", "Erf", "HardSwish", "LeakyRelu", "Softmax"])
def test_what_a_nonlinear_operator_makes_of_weights_is_analog(operator):
    b = Builder((3, 6, 6))
    b.conv(4)
    assert signals_of(b, b.op(operator)) == [Signal.ANALOG]


@pytest.mark.parametrize(
    ("step", "expected"), [("Neg(h)", Signal.INPUT), ("MatMul(h, {})", Signal.ANALOG)]
)
def test_a_loop_over_the_input_makes_analog_values_if_it_holds_weights(step, expected):
    b = Builder((8,))
    step = step.format(b.normal(8, 8))
    body = onnx.parser.parse_graph(
        "body (int64 i, bool go, float[M, 8] h) => (bool on, float[M, 8] next) "
        f"{{ on = Identity(go) next = {step} }}"
    )
    b.op("Loop", b.constant(3, "int64"), "", "x", body=body)
    assert signals_of(b, b.op("Reshape", b.last, b.constant([-1, 8], "int64"))) == [expected]


def test_max_pooling_keeps_spikes_and_a_sum_with_spikes_is_spikes():
    b = Builder((3, 6, 6))
    current = b.conv(4)
    pooled = b.op("MaxPool", b.relu(), kernel_shape=[3, 3], pads=[1, 1, 1, 1])
    assert signals_of(b, pooled, b.op("Add", pooled, current)) == [Signal.SPIKES] * 2


@pytest.mark.parametrize(
    ("axes", "expected"), [([2, 3], Signal.SPIKES), ([-1], Signal.SPIKES), ([1], Signal.ANALOG)]
)
def test_a_maximum_over_axes_keeps_spikes_unless_it_joins_channels(axes, expected):
    b = Builder((3, 6, 6))
    b.conv(4)
    b.relu()
    assert signals_of(b, b.op("ReduceMax", axes=axes)) == [expected]


def test_product_of_spikes_by_another_tensor_is_analog():
    b = Builder((3, 6, 6))
    b.conv(4)
    first = b.relu()
    b.op("MaxPool", kernel_shape=[3, 3], pads=[1, 1, 1, 1])
    assert signals_of(b, b.op("Mul", first, b.last)) == [Signal.ANALOG]


def test_shape_arithmetic_does_not_make_a_reshape_analog():
    b = Builder(("H", 6))
    b.op("MatMul", "x", b.normal(6, 8))
    x = b.last
    sizes = b.op("Gather", b.op("Shape", x), b.constant([1, 0], "int64"))
    shape = b.op("Concat", sizes, b.constant([-1], "int64"), axis=0)
    assert signals_of(b, b.op("Reshape", x, shape)) == [Signal.CURRENT]


def test_layer_of_weights_may_have_them_on_either_side():
    b = Builder((4, 6))
    left = b.op("MatMul", b.normal(1, 5, 4), "x")
    both = b.op("MatMul", b.op("Transpose", "x", perm=[0, 2, 1]), "x")
    makers = {node.outputs[0].name: node for node in b.graph(left, both).nodes}
    assert weighted_input(makers[left]) == 1
    assert weighted_input(makers[both]) is None


def encoded(b):
    graph, _ = clean(b.graph())
    relu_to_ratenorm(graph)
    encode(graph)
    return graph


def test_analog_nodes_are_those_before_a_neuron_only():
    b = Builder((3, 6, 6))
    b.conv(4)
    b.op("Sigmoid")
    b.conv(4)
    b.relu()
    b.head()
    b.op("Softmax", axis=1)
    graph = encoded(b)
    assert [node.op for node in analog_nodes(graph)] == ["Sigmoid"]
    with pytest.raises(UnsupportedError, match=r"sigmoid1.*\(Sigmoid\).*driven by spikes"):
        refuse_analog(graph)


def test_network_of_rectifiers_and_pooling_is_driven_by_spikes_throughout():
    b = Builder((3, 6, 6))
    b.conv(4)
    b.relu()
    b.op("MaxPool", kernel_shape=[2, 2])
    b.conv(4)
    b.conv(4)  # encoded: weights behind weights
    b.relu()
    b.head()
    refuse_analog(encoded(b))


def test_an_einsum_of_one_tensor_is_no_layer_of_weights():
    b = Builder((5, 6))
    b.op("Einsum", "x", equation="nld->ndl")
    assert weighted_input(b.graph().nodes[-1]) is None
