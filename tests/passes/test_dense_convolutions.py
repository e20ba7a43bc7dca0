"""dense_convolutions: a kernel as large as its map becomes a Gemm, and values stay the same."""

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxsnn.passes.dense_convolutions import dense_convolutions
from tests.models import Builder, assert_same, outputs_of, uniform


def operators(graph):
    return [node.op for node in graph.nodes]


def turned(b, *outputs):
    """The graph after the pass, and how many convolutions it turned into products."""
    graph = b.graph(*outputs)
    report = dense_convolutions(graph)
    return graph, sum(report.actions.values())


@st.composite
def convolutions(draw):
    """A convolution of one or two axes of space, of any attributes, and the shape it reads."""
    axes, group = draw(st.integers(1, 2)), draw(st.integers(1, 3))
    several = lambda least, most: draw(  # noqa: E731
        st.lists(st.integers(least, most), min_size=axes, max_size=axes)
    )
    kernel, dilations = several(1, 3), several(1, 2)
    space, pads = several(1, 4), [*several(0, 2), *several(0, 2)]
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    space = [
        max(size, r - before - after)
        for size, r, before, after in zip(space, reach, pads[:axes], pads[axes:], strict=True)
    ]
    b = Builder((group * draw(st.integers(1, 2)), *space), draw(st.integers(0, 1000)))
    outputs = group * draw(st.integers(1, 3))
    more = [b.normal(outputs)] if draw(st.booleans()) else []
    weights = b.normal(outputs, b.channels // group, *kernel)
    attrs = {"strides": several(1, 3), "dilations": dilations, "pads": pads, "group": group}
    b.op("Conv", "x", weights, *more, **attrs)
    return b, (b.channels, *space)


@settings(max_examples=60, deadline=None)
@given(case=convolutions(), samples=st.integers(1, 3))
def test_values_stay_the_same_for_all_attributes(case, samples):
    b, shape = case
    graph, count = turned(b)
    assert operators(graph) == (["Flatten", "Gemm", "Reshape"] if count else ["Conv"])
    x = uniform(samples, *shape)
    assert_same(outputs_of(b.model(), x=x), outputs_of(graph, x=x))


def small(outputs=8, **attrs):
    """A kernel of 3x3 on a map of 2x2."""
    b = Builder((8, 2, 2))
    b.conv(outputs, **attrs)
    return b


@pytest.mark.parametrize(
    "attrs",
    [
        {},
        {"bias": False},
        {"strides": [2, 2]},
        {"dilations": [2, 2], "pads": [2, 2, 2, 2]},
        {"kernel": 5},
    ],
    ids=str,
)
def test_a_kernel_larger_than_its_map_is_turned(attrs):
    b = small(**attrs)
    graph, count = turned(b)
    assert count == 1
    assert operators(graph) == ["Flatten", "Gemm", "Reshape"]
    for samples in (1, 5):
        x = uniform(samples, 8, 2, 2)
        assert_same(outputs_of(b.model(), x=x), outputs_of(graph, x=x))


def test_several_in_a_row_keep_the_names_of_their_tensors():
    b = small()
    first = b.relu()
    b.conv(8)
    last = b.conv(8)
    graph, count = turned(b, first, last)
    assert count == 3
    assert [tensor.name for tensor in graph.outputs] == [first, last]
    x = uniform(3, 8, 2, 2)
    assert_same(outputs_of(b.model(first, last), x=x), outputs_of(graph, x=x))


def quantized(outputs=8, shape=(8, 2, 2), zero=3, weight_zero=0, shift=True, seed=0):
    """A quantized convolution of 3x3, of bytes of a few levels."""
    b = Builder(shape, seed)
    b.op("Cast", "x", to=onnx.TensorProto.UINT8)
    weights = b.random.integers(-127, 128, (outputs, b.channels, 3, 3))
    scales = b.random.uniform(0.01, 0.1, outputs)
    constants = [
        (0.5, np.float32), (zero, np.uint8), (weights, np.int8), (scales, np.float32),
        (weight_zero * np.ones(outputs), np.int8), (0.7, np.float32), (128, np.uint8),
        (b.random.integers(-999, 999, outputs), np.int32),
    ]  # fmt: skip
    names = [b.constant(*constant) for constant in constants[: 7 + shift]]
    b.op("QLinearConv", b.last, *names, pads=[1] * 4)
    return b


@settings(max_examples=30, deadline=None)
@given(zero=st.integers(0, 4), shift=st.booleans(), seed=st.integers(0, 1000))
def test_a_quantized_convolution_gives_the_same_bytes(zero, shift, seed):
    b = quantized(zero=zero, shift=shift, seed=seed)
    graph, count = turned(b)
    assert count == 1
    assert "QLinearConv" not in operators(graph)
    x = b.random.integers(0, 9, (5, 8, 2, 2)).astype(np.float32)
    (expected,), (found,) = (outputs_of(m, x=x).values() for m in (b.model(), graph))
    assert len(np.unique(expected)) > 9
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, expected)


def computed_weights():
    b = Builder((8, 2, 2))
    b.op("Conv", "x", b.op("Neg", b.normal(8, 8, 3, 3)), pads=[1] * 4)
    return b


def computed_bias():
    b = Builder((8, 2, 2))
    weights = b.normal(8, 8, 3, 3)
    b.op("Conv", "x", weights, b.op("Neg", b.normal(8)), pads=[1] * 4)
    return b


def one(shape, **attrs):
    b = Builder(shape)
    b.conv(8, **attrs)
    return b


def transposed():
    b = Builder((8, 2, 2))
    b.conv_transpose(8, kernel=3)
    return b


@pytest.mark.parametrize(
    "b",
    [
        one((8, 8, 8)),
        one((8, 2, 2), kernel=1),
        one((8, 2, 2), group=8),
        one((8, "H", "W")),
        computed_weights(),
        computed_bias(),
        transposed(),
        quantized(shape=(8, 8, 8)),
        quantized(weight_zero=1),
    ],
    ids=[
        "large map",
        "1x1",
        "depthwise",
        "open size",
        "weights",
        "bias",
        "transposed",
        "quantized, large map",
        "quantized, weights with a zero point",
    ],
)
def test_what_is_no_less_work_or_not_known_is_left_alone(b):
    before = operators(b.graph())
    graph, count = turned(b)
    assert count == 0
    assert operators(graph) == before


def test_a_matrix_that_takes_much_more_memory_than_the_kernel_is_not_made():
    """One channel of 4x4 in, 4x4 out: fewer values than the kernel's 25, ten times its memory."""
    graph, count = turned(one((1, 4, 4), kernel=5))
    assert count == 0
    assert operators(graph) == ["Conv"]


def test_names_that_are_taken_are_not_taken_again():
    b = small()
    graph = b.graph()
    flat = gs.Variable("x.flat", np.float32)
    graph.nodes.append(gs.Node("Flatten", inputs=[graph.inputs[0]], outputs=[flat]))
    graph.outputs.append(flat)
    dense_convolutions(graph)
    x = uniform(2, 8, 2, 2)
    outputs = outputs_of(graph, x=x)
    np.testing.assert_array_equal(outputs.pop("x.flat"), x.reshape(2, -1))
    assert_same(outputs_of(b.model(), x=x), outputs)
