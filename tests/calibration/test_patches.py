"""patches: `row @ weights`, group by group, is what the layer computes there."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxsnn.calibration.patches import by_position, change_weights, has_patches, patches
from onnxsnn.weights import weight_layer
from tests.models import Builder, outputs_of, uniform


def layer_of(graph):
    layer = weight_layer(graph, graph.nodes[-1])
    assert layer is not None
    return layer


def check(graph, x):
    """All rows times the weights, and that a change of the weights changes the layer so."""
    layer = layer_of(graph)
    (output,) = outputs_of(graph, x=x).values()
    wanted = by_position(layer, output) - layer.bias
    count, positions, _ = wanted.shape
    samples, where = (i.reshape(-1) for i in np.indices((count, positions)))
    rows = patches(layer, x, samples, where)
    random = np.random.default_rng(0)
    per_group = layer.outputs // layer.groups
    change = random.normal(size=(*rows.shape[::2], per_group)).astype(np.float32)
    change_weights(layer, change)
    (changed,) = outputs_of(graph, x=x).values()
    difference = by_position(layer, changed) - layer.bias - wanted
    expected = (rows @ change).swapaxes(0, 1).reshape(wanted.shape)
    np.testing.assert_allclose(difference, expected, atol=1e-4, rtol=1e-4)


@settings(max_examples=30, deadline=None)
@given(
    kernel=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    strides=st.lists(st.integers(1, 3), min_size=2, max_size=2),
    dilations=st.lists(st.integers(1, 2), min_size=2, max_size=2),
    pads=st.lists(st.integers(0, 2), min_size=4, max_size=4),
    group=st.sampled_from([1, 2, 4]),
    padding=st.sampled_from(["NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"]),
)
def test_convolutions(kernel, strides, dilations, pads, group, padding):
    b = Builder((4, 7, 6))
    given_pads = {"pads": pads} if padding == "NOTSET" else {"auto_pad": padding}
    if padding.startswith("SAME"):
        dilations = [1, 1]  # ONNX Runtime takes no others there
    b.op(
        "Conv", b.last, b.normal(8, 4 // group, *kernel), b.normal(8),
        strides=strides, dilations=dilations, group=group, **given_pads,
    )  # fmt: skip
    check(b.graph(), uniform(2, 4, 7, 6))


@settings(max_examples=30, deadline=None)
@given(
    kernel=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    strides=st.lists(st.integers(1, 3), min_size=2, max_size=2),
    dilations=st.lists(st.integers(1, 2), min_size=2, max_size=2),
    pads=st.lists(st.integers(0, 3), min_size=4, max_size=4),
    group=st.sampled_from([1, 2, 4]),
    data=st.data(),
)
def test_transposed_convolutions(kernel, strides, dilations, pads, group, data):
    more = [data.draw(st.integers(0, stride - 1)) for stride in strides]
    reach = [d * (k - 1) for d, k in zip(dilations, kernel, strict=True)]
    b = Builder((4, 5, 4))
    b.op(
        "ConvTranspose", b.last, b.normal(4, 8 // group, *kernel), b.normal(8), group=group,
        strides=strides, dilations=dilations, output_padding=more,
        pads=[min(pad, most) for pad, most in zip(pads, 2 * reach, strict=True)],
    )  # fmt: skip
    assert has_patches(layer_of(b.graph()))
    check(b.graph(), uniform(2, 4, 5, 4))


@pytest.mark.parametrize(
    "attributes", [{"auto_pad": "SAME_UPPER"}, {"output_shape": [9]}, {"pads": [3, 3]}]
)
def test_transposed_convolution_whose_padding_is_not_known_has_none(attributes):
    b = Builder((2, 8))
    b.op("ConvTranspose", b.last, b.normal(2, 3, 3), **attributes)
    assert not has_patches(layer_of(b.graph()))


def test_convolution_of_one_axis():
    b = Builder((3, 9))
    b.op("Conv", b.last, b.normal(2, 3, 3), strides=[2], pads=[1, 0])
    check(b.graph(), uniform(3, 3, 9))


@pytest.mark.parametrize("transposed", [0, 1])
def test_gemm(transposed):
    b = Builder((5,))
    b.gemm(3, transB=transposed)
    check(b.graph(), uniform(4, 5))


def test_matmul_of_tokens():
    b = Builder((6, 5))
    b.op("MatMul", b.last, b.normal(5, 3))
    check(b.graph(), uniform(2, 6, 5))
