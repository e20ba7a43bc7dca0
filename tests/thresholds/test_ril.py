"""Method ril: p per layer, found on outputs and Omega."""

import numpy as np
import pytest

from onnxsnn import convert, load_source
from onnxsnn.errors import UsageError
from onnxsnn.session import Session
from onnxsnn.thresholds.ril import TOLERANCE, _lost
from tests.models import Builder, dataset, uniform
from tests.networks import residual_network

X = uniform(100, 3, 8, 8)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return load_source(residual_network().save(tmp_path_factory.mktemp("ril") / "m.onnx"))


@pytest.fixture(scope="module")
def kept():
    return {}


@pytest.fixture(scope="module")
def snns(source, kept):
    ways = {"max": {}, "ril": {"keep": kept.__setitem__}}
    return {
        name: convert(source, dataset(x=X), timesteps=16, threshold=name, **more).snn
        for name, more in ways.items()
    }


def test_omega_falls_and_p_is_one_number_per_layer(snns):
    before, after = snns["max"].layers, snns["ril"].layers
    assert np.mean([x.omega for x in after]) < 0.9 * np.mean([x.omega for x in before])
    for layer, was in zip(after, before, strict=True):
        theta, full = (s.thresholds[layer.name] for s in (snns["ril"], snns["max"]))
        np.testing.assert_allclose(theta / full, layer.threshold / was.threshold, rtol=1e-5)
        assert 0 < layer.p <= 1
        assert layer.origin == "ril"


def test_classes_of_the_rate_norm_layers_stay(source, snns, kept):  # noqa: ARG001 - fills kept
    expected = next(iter(Session(source.model).run({"x": X}).values())).argmax(axis=1)
    found = next(iter(Session(kept["set_thresholds"]).run({"x": X}).values())).argmax(axis=1)
    assert np.mean(expected != found) <= TOLERANCE


def test_data_are_needed(source):
    with pytest.raises(UsageError, match="on data"):
        convert(source, threshold="ril")


def test_an_output_of_all_samples_together_is_one(tmp_path):
    b = Builder((6,))
    b.gemm(5)
    b.relu()
    b.op("ReduceMean", keepdims=0)
    source = load_source(b.save(tmp_path / "m.onnx"))
    snn = convert(source, dataset(x=uniform(40, 6)), timesteps=8, threshold="ril").snn
    assert 0 < snn.layers[0].p <= 1


def test_the_error_of_outputs_of_one_number_counts():
    values = np.float32([[1.0], [2.0]])
    assert _lost(2 * values, values) == pytest.approx(1.0)
