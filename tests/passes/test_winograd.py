"""winograd: a convolution of 3x3 becomes products over tiles, and values stay the same."""

import numpy as np
import onnx_graphsurgeon as gs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxsnn.passes import winograd as module
from onnxsnn.passes.winograd import _EXACT_F4, _F2, _F4, held_by_products, winograd
from tests.models import Builder, assert_same, outputs_of, uniform

EXACT, IDS = [_F2, _EXACT_F4], ["F(2, 3)", "F(4, 3)"]


def turned(b, *outputs, batch=16):
    """The graph after the pass, and how many convolutions it turned into products."""
    graph = b.graph(*outputs)
    report = winograd(graph, batch)
    return graph, sum(report.actions.values())


def operators(graph):
    return [node.op for node in graph.nodes]


def one(shape, outputs=256, **attrs):
    """A convolution of 3x3."""
    b = Builder(shape)
    b.conv(outputs, **attrs)
    return b


def by_products(algorithm):
    """Whole numbers convolved along an axis, by an algorithm's products and as it is defined."""
    random = np.random.default_rng(0)
    d, g = random.integers(-9, 9, algorithm.outputs + 2), random.integers(-9, 9, 3)
    found = algorithm.give @ ((algorithm.weigh @ g) * (algorithm.read @ d))
    return found, np.correlate(d, g, "valid")


@pytest.mark.parametrize("algorithm", EXACT, ids=IDS)
def test_the_products_give_a_convolution_exactly(algorithm):
    np.testing.assert_array_equal(*by_products(algorithm))


def test_fewer_products_give_it_but_for_rounding():
    assert _F4.products < _EXACT_F4.products
    np.testing.assert_allclose(*by_products(_F4), rtol=1e-13)


@st.composite
def convolutions(draw):
    """A convolution of 3x3 of whole weights and any padding, an input of whole numbers, and N.

    Where that is small, matrices multiply from the left.
    """
    pads = draw(st.lists(st.integers(0, 3), min_size=4, max_size=4))
    least = [max(1, 3 - before - after) for before, after in zip(pads[:2], pads[2:], strict=True)]
    space = [draw(st.integers(size, 11)) for size in least]
    b = Builder((draw(st.integers(1, 3)), *space), draw(st.integers(0, 1000)))
    outputs, biased = draw(st.integers(1, 3)), draw(st.booleans())
    shapes = [(outputs, b.channels, 3, 3), (outputs,)][: 1 + biased]
    constants = [b.constant(b.random.integers(-9, 10, shape)) for shape in shapes]
    b.op("Conv", "x", *constants, pads=pads)
    samples, batch = draw(st.integers(1, 3)), draw(st.sampled_from([4, 100]))
    return b, b.random.integers(-9, 10, (samples, b.channels, *space)).astype(np.float32), batch


def replaced(algorithm, case):
    """What an algorithm gives in the place of a convolution, and what that gives."""
    b, x, batch = case
    graph = b.graph()
    module._replace(graph, graph.nodes[0], algorithm, batch)
    assert "Conv" not in operators(graph)
    (expected,), (found,) = (outputs_of(m, x=x).values() for m in (b.model(), graph))
    return found, expected


@pytest.mark.parametrize("algorithm", EXACT, ids=IDS)
@settings(max_examples=40, deadline=None)
@given(case=convolutions())
def test_values_stay_the_same_for_all_paddings(algorithm, case):
    np.testing.assert_array_equal(*replaced(algorithm, case))


@settings(max_examples=40, deadline=None)
@given(case=convolutions())
def test_values_of_fewer_products_stay_but_for_rounding(case):
    np.testing.assert_allclose(*replaced(_F4, case), rtol=1e-5, atol=5e-3)  # of up to 9 * 27 * 9


@pytest.mark.parametrize("batch", [4, 16])
@pytest.mark.parametrize(
    "b",
    [one((256, 8, 8)), one((512, 6, 9), 512), one((256, 8, 8), bias=False), one((512, 4, 4), 512)],
    ids=["square", "odd", "without bias", "small map"],
)
def test_many_channels_are_turned(b, batch):
    graph, count = turned(b, batch=batch)
    assert count == 1
    assert "Conv" not in operators(graph)
    shape = graph.inputs[0].shape[1:]
    for samples in (1, 5):
        x = uniform(samples, *shape)
        assert_same(outputs_of(b.model(), x=x), outputs_of(graph, x=x))


@pytest.mark.parametrize(("size", "most", "unit"), [(4, 127, 1), (8, 127, 1 / 4), (8, 2000, 1)])
def test_whole_weights_and_spikes_give_the_same_numbers(size, most, unit):
    b = Builder((512, size, size))
    weights = b.constant(unit * b.random.integers(-most, most + 1, (512, 512, 3, 3)))
    b.op("Conv", "x", weights, b.constant(b.random.integers(-999, 999, 512)), pads=[1] * 4)
    graph, count = turned(b)
    assert count == 1
    x = np.random.default_rng(1).integers(0, 2, (3, 512, size, size)).astype(np.float32)
    (expected,), (found,) = (outputs_of(m, x=x).values() for m in (b.model(), graph))
    np.testing.assert_array_equal(found, expected)


def test_what_is_held_is_the_values_of_the_products():
    """36 pairs of products for each of 2 x 3 tiles of 4x4 pixels, of 256 and 128 channels."""
    assert held_by_products(one((256, 8, 12), 128).graph(), 16) == 4 * 36 * 6 * (256 + 128)


@pytest.mark.parametrize(("batch", "values"), [(2, 9), (4, 16), (16, 36)])
def test_the_fewer_rows_read_the_weights_the_fewer_they_become(batch, values):
    """By no products, by those of 2x2 pixels, and of 4x4."""
    graph, _ = turned(one((512, 4, 4), 512), batch=batch)
    constants = [t.values for t in graph.tensors().values() if isinstance(t, gs.Constant)]
    assert max(constant.size for constant in constants) == values * 512 * 512


def test_several_in_a_row_keep_the_names_of_their_tensors():
    b = one((256, 8, 8))
    first = b.relu()
    b.conv(256)
    last = b.conv(256)
    graph, count = turned(b, first, last)
    assert count == 3
    assert [tensor.name for tensor in graph.outputs] == [first, last]
    x = uniform(2, 256, 8, 8)
    assert_same(outputs_of(b.model(first, last), x=x), outputs_of(graph, x=x))


def computed(weights=False, bias=False):
    b = Builder((256, 8, 8))
    names = [b.normal(256, 256, 3, 3), b.normal(256)]
    names = [b.op("Neg", name) if is_computed else name
             for name, is_computed in zip(names, (weights, bias), strict=True)]  # fmt: skip
    b.op("Conv", "x", *names, pads=[1] * 4)
    return b


def automatic():
    b = Builder((256, 8, 8))
    b.op("Conv", "x", b.normal(256, 256, 3, 3), auto_pad="SAME_UPPER")
    return b


def along_one_axis():
    b = Builder((256, 8))
    b.op("Conv", "x", b.normal(256, 256, 3), pads=[1, 1])
    return b


LEFT = {
    "few channels": one((64, 32, 32), 64),
    "few of a large map": one((3, 224, 224), 64),
    "1x1": one((256, 8, 8), kernel=1),
    "5x5": one((256, 8, 8), 32, kernel=5),
    "groups": one((256, 8, 8), group=2),
    "steps of 2": one((256, 8, 8), strides=[2, 2]),
    "dilated": one((256, 8, 8), dilations=[2, 2]),
    "open size": one((256, "H", 8)),
    "weights": computed(weights=True),
    "bias": computed(bias=True),
    "auto_pad": automatic(),
    "one axis": along_one_axis(),
}


@pytest.mark.parametrize("name", LEFT)
def test_what_is_no_less_work_or_not_known_is_left_alone(name):
    before = operators(LEFT[name].graph())
    graph, count = turned(LEFT[name])
    assert count == 0
    assert operators(graph) == before
    assert held_by_products(graph, 16) == 0
