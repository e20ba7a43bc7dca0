"""set_thresholds: whose threshold each channel gets."""

import numpy as np
import pytest

from onnxsnn.calibration.observe import calibrate
from onnxsnn.neurons import BurstIntegrateAndFire, IntegrateAndFire, MultiThreshold
from onnxsnn.passes.clean import clean
from onnxsnn.passes.relu_to_ratenorm import relu_to_ratenorm
from onnxsnn.passes.set_thresholds import set_thresholds
from onnxsnn.ratenorm import rate_norms, threshold_of
from onnxsnn.thresholds import METHODS
from tests.models import Builder

BINARY = IntegrateAndFire()


def thresholds(b, x, method="max", neuron=BINARY, **options):
    """Thresholds of the first layer, the graph and the report."""
    graph, _ = clean(b.graph())
    relu_to_ratenorm(graph)
    statistics = calibrate(graph, [{"x": x}])
    report = set_thresholds(graph, statistics, (method, METHODS[method]), neuron, 8, **options)
    return threshold_of(rate_norms(graph)[0]).ravel(), graph, report


X = np.array([[1.0, -1.0, 4.0], [2.0, -2.0, 0.0]], np.float32)


def relu():
    b = Builder((3,))
    b.relu()
    return b


def test_each_channel_has_its_own_and_a_dead_one_its_layer_s():
    values, _, report = thresholds(relu(), X)
    np.testing.assert_allclose(values, [2.0, 4.0, 4.0])
    assert report.origins == {"relu0": "max"}
    assert not report.warnings


def test_per_layer_is_one_for_all():
    values, _, _ = thresholds(relu(), X, per_layer=True)
    np.testing.assert_allclose(values, [4.0, 4.0, 4.0])


def test_layer_that_was_never_active_gets_one_and_a_warning():
    values, _, report = thresholds(relu(), -np.abs(X) - 1)
    np.testing.assert_array_equal(values, [1, 1, 1])
    assert "relu0" in report.warnings[0]


def test_trained_threshold_is_an_upper_limit():
    b = Builder((3,))
    b.clip(3.0)
    values, _, _ = thresholds(b, X)
    np.testing.assert_allclose(values, [2.0, 3.0, 3.0])


def test_trained_threshold_is_kept_on_request():
    b = Builder((3,))
    b.clip(3.0)
    values, _, report = thresholds(b, X, keep_trained=True)
    np.testing.assert_allclose(values, [3.0, 3.0, 3.0])
    assert report.origins == {"clip0": "trained"}


@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("neuron", [BurstIntegrateAndFire(levels=4), MultiThreshold(levels=7)])
def test_neuron_emits_as_much_in_a_step_as_was_trained_and_no_more(neuron, keep):
    b = Builder((3,))
    b.clip(1.0)
    values, _, _ = thresholds(b, X, neuron=neuron, keep_trained=keep)
    np.testing.assert_allclose(values * neuron.greatest_spike, [1.0, 1.0, 1.0])


def test_product_behind_the_rate_has_the_same_threshold():
    _, graph, report = thresholds(relu(), X)
    norm, product = graph.nodes
    assert product.inputs[1] is norm.inputs[1]
    assert not report.preserves_values


def test_channel_of_next_to_nothing_has_its_layer_s():
    x = X * np.array([1e-30, 1, 1], np.float32)
    values, _, _ = thresholds(relu(), x)
    np.testing.assert_allclose(values, [4.0, 4.0, 4.0])
