"""unit_neurons: the body that knows a threshold of 1 sends the same spikes, to the last bit."""

import numpy as np
import onnx_graphsurgeon as gs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxsnn.functions import INTEGER, UNIT
from onnxsnn.graph import to_model
from onnxsnn.passes.unit_neurons import unit_neurons
from onnxsnn.session import Session

OPERATOR = "IntegrateAndFire"


def neurons(theta, operator=OPERATOR):
    """A graph of one layer."""
    x, v = (gs.Variable(name, np.float32, ["N"]) for name in ("x", "v"))
    s = gs.Variable("s", np.uint8 if operator.startswith(INTEGER) else np.float32, ["N"])
    after = gs.Variable("v.next", np.float32, ["N"])
    inputs = [x, gs.Constant("theta", np.array(theta, np.float32)), v]
    if operator.startswith(INTEGER):
        inputs += [
            gs.Constant("unit", np.array(1, np.float32)),
            gs.Constant("zero", np.array(3, np.uint8)),
        ]
    node = gs.Node(operator, "layer", inputs=inputs, outputs=[s, after], domain="onnxsnn")
    return gs.Graph([node], [x, v], [s, after], opset=17)


def nearby(value):
    """Floats around a number, one after the other."""
    below = above = np.float32(value)
    found = [below]
    for _ in range(8):
        below, above = np.nextafter(below, np.float32(-9)), np.nextafter(above, np.float32(9))
        found += [below, above]
    return found


EXTREME = [0.0, -0.0, 1e-45, -1e-45, 1e30, -1e30, 3e38, -3e38, np.inf, -np.inf, 0.5, 2.0, -1.0]
VALUES = np.array([*nearby(1), *nearby(-1), *nearby(0.5), *EXTREME], np.float32)


@pytest.mark.parametrize("operator", [OPERATOR, INTEGER + OPERATOR])
def test_around_the_threshold_and_at_the_extremes_spikes_and_potentials_are_the_same(operator):
    feeds = {"x": VALUES, "v": np.zeros_like(VALUES)}
    assert_same(operator, feeds)


floats = st.floats(-4, 4, width=32)


@settings(max_examples=30)
@given(st.lists(st.tuples(floats, floats), min_size=1, max_size=64))
def test_any_current_and_potential(pairs):
    x, v = np.array(pairs, np.float32).T
    assert_same(OPERATOR, {"x": x.copy(), "v": v.copy()})


def assert_same(operator, feeds):
    graph = neurons(1.0, operator)
    expected = Session(to_model(graph)).run(feeds)
    assert unit_neurons(graph).changed
    assert UNIT in graph.nodes[0].op
    for name, values in Session(to_model(graph)).run(feeds).items():
        np.testing.assert_array_equal(values, expected[name])


def test_other_thresholds_are_left():
    graph = neurons([1.0, 2.0])
    assert not unit_neurons(graph).changed
    assert graph.nodes[0].op == OPERATOR
