"""Fit curves: measured against rates that are computed by hand, and against the bound."""

import numpy as np
import pytest
from hypothesis import given, settings

from onnxsnn import Runner, convert, load_source
from onnxsnn.analysis.fit_curve import fit_curves, rate_model
from onnxsnn.errors import UsageError
from onnxsnn.neurons import RECTIFYING_NEURONS, IntegrateAndFire
from onnxsnn.session import Session
from tests.models import Builder, dataset, uniform
from tests.networks import STRUCTURES, networks


def converted(builder, tmp_path, count, **ways):
    """An SNN, and the samples that it was calibrated on."""
    source = load_source(builder.save(tmp_path / "m.onnx"))
    (spec,) = source.inputs
    x = uniform(count, *spec.shape[1:])
    return convert(source, dataset(x=x), **{"timesteps": 8, "threshold": "max"} | ways).snn, x


def one_layer():
    b = Builder((3, 8, 8))
    b.conv(5)
    b.relu()
    b.op("Flatten")
    b.gemm(4, inputs=5 * 64)
    return b


def test_curve_is_the_distance_of_rates_from_the_rate_norm_layer(tmp_path):
    snn, x = converted(one_layer(), tmp_path, 20)
    (layer,) = snn.spikes
    (current,) = (node.input[0] for node in snn.model.graph.node if node.name == layer)
    runner = Runner(snn, taps=[current, snn.spikes[layer]])
    steps = list(runner.steps(x, 8))
    rate = np.clip(steps[0][current] / snn.thresholds[layer], 0, 1)
    count, expected = 0.0, []
    for t, outputs in enumerate(steps, start=1):
        count = count + outputs[snn.spikes[layer]]
        expected.append(np.square(count / t - rate).sum() / np.square(rate).sum())
    (curve,) = fit_curves(snn, dataset(x=x))
    np.testing.assert_allclose(curve.values, expected, rtol=1e-4)
    assert curve.omega == pytest.approx(rate.sum() / np.square(rate).sum(), rel=1e-4)
    np.testing.assert_allclose(curve.bound, [2 * curve.omega / t for t in range(1, 9)])


@settings(max_examples=10, deadline=None)
@given(networks())
def test_curve_of_the_first_layer_is_below_its_bound(tmp_path_factory, network):
    tmp_path = tmp_path_factory.mktemp("bound")
    snn, x = converted(network, tmp_path, 10, neuron=IntegrateAndFire(initial_potential=0.0))
    curve = fit_curves(snn, dataset(x=x), 16)[0]
    assert np.all(np.array(curve.values) < curve.bound)


@pytest.mark.parametrize("neuron", RECTIFYING_NEURONS)
@pytest.mark.parametrize("structure", ["mobilenet", "vgg", "transformer", "unet"])
def test_rates_go_to_the_rate_norm_layers(tmp_path, structure, neuron):
    """In every layer, of any neuron, through encoders, pooling and compensated operators."""
    snn, x = converted(STRUCTURES[structure](), tmp_path, 8, neuron=RECTIFYING_NEURONS[neuron]())
    curves = fit_curves(snn, dataset(x=x), 128)
    assert [curve.layer for curve in curves] == list(snn.spikes)
    for curve in curves:
        assert curve.values[-1] < 0.01
        assert curve.values[-1] < curve.values[0] or curve.values[0] < 1e-6


def test_rate_model_computes_the_ann_where_nothing_is_clipped(tmp_path):
    snn, x = converted(STRUCTURES["vgg"](), tmp_path, 8)
    model = rate_model(snn)
    model.graph.output.extend(t for t in snn.model.graph.output if t.name in snn.outputs)
    expected = Session(load_source(tmp_path / "m.onnx").model).run({"x": x})
    found = Session(model).run({"x": x}, snn.outputs)
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, rtol=1e-3, atol=1e-4)


def test_no_timesteps(tmp_path):
    snn, x = converted(one_layer(), tmp_path, 2)
    with pytest.raises(UsageError, match="1 or more"):
        fit_curves(snn, dataset(x=x), 0)
