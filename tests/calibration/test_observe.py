"""calibrate: statistics of every RateNorm's input, in one streaming pass."""

import numpy as np
import pytest

from onnxsnn.calibration.observe import calibrate
from onnxsnn.errors import DataError
from onnxsnn.passes.clean import clean
from onnxsnn.passes.encode import encode
from onnxsnn.passes.relu_to_ratenorm import relu_to_ratenorm
from onnxsnn.ratenorm import rate_norms
from tests.models import Builder, outputs_of, uniform


def rated(b):
    graph, _ = clean(b.graph())
    relu_to_ratenorm(graph)
    return graph


def two_layers():
    b = Builder((3, 8, 8))
    b.conv(4)
    b.relu()
    b.conv(5)
    b.relu()
    b.head()
    return b


def test_statistics_are_those_of_the_pre_activations():
    b = two_layers()
    graph = rated(b)
    x = uniform(10, 3, 8, 8)
    statistics = calibrate(graph, ({"x": x[i : i + 4]} for i in range(0, 10, 4)))
    raw = [n.input[0] for n in b.model().graph.node if n.op_type == "Relu"]
    expected = outputs_of(b.model(*raw), x=x)
    for node, name in zip(rate_norms(graph), raw, strict=True):
        by_channel = np.moveaxis(expected[name], 1, 0).reshape(expected[name].shape[1], -1)
        np.testing.assert_allclose(statistics[node.name].maximum, by_channel.max(1).clip(0), 1e-5)
        np.testing.assert_allclose(statistics[node.name].mean, by_channel.mean(1), atol=1e-5)
        assert statistics[node.name].total == by_channel.shape[1]


def test_magnitudes_are_counted_where_values_of_either_sign_are_encoded():
    b = Builder((2,))
    b.op("MatMul", b.last, b.constant(np.eye(2)))
    b.op("Tanh")
    b.op("MatMul", b.last, b.constant(np.eye(2)))
    graph = rated(b)
    encode(graph)
    x = np.array([[-2.0, 0.5], [1.0, 0.0]], np.float32)
    (statistics,) = calibrate(graph, [{"x": x}]).values()
    assert statistics.signed
    np.testing.assert_allclose(statistics.maximum, np.tanh([2.0, 0.5]), rtol=1e-5)


def test_graph_is_left_as_it_was():
    graph = rated(two_layers())
    outputs = [tensor.name for tensor in graph.outputs]
    calibrate(graph, [{"x": uniform(2, 3, 8, 8)}])
    assert [tensor.name for tensor in graph.outputs] == outputs


def test_progress_is_told_after_every_batch():
    seen = []
    feeds = [{"x": uniform(n, 3, 8, 8)} for n in (4, 2)]
    calibrate(rated(two_layers()), feeds, progress=seen.append)
    assert seen == [4, 6]


def test_no_samples_are_refused():
    with pytest.raises(DataError, match="no samples"):
        calibrate(rated(two_layers()), [])


def test_activation_that_is_not_finite_is_refused_by_node():
    b = Builder((2,))
    b.op("Log")
    b.relu()
    with pytest.raises(DataError, match="relu1"):
        calibrate(rated(b), [{"x": np.zeros((1, 2), np.float32)}])


def test_fixed_batch_is_fed_in_pieces_and_counts_no_filling_twice():
    b = Builder((3,), batch=2)
    b.relu()
    statistics = calibrate(rated(b), [{"x": uniform(5, 3)}])
    assert statistics["relu0"].total == 5
