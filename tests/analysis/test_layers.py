"""analyse: the error of each layer, split into parts that add up, and which layer costs most."""

import sys

import numpy as np
import onnx
import pytest

from onnxsnn import Dataset, Runner, SpikingModel, convert, evaluate, load_source
from onnxsnn.analysis.exact_layer import with_exact_layer
from onnxsnn.analysis.layers import analyse
from onnxsnn.errors import DataError, UnsupportedError, UsageError
from onnxsnn.neurons import RECTIFYING_NEURONS
from onnxsnn.passes.set_thresholds import set_thresholds
from onnxsnn.ratenorm import rate_norms, set_threshold
from onnxsnn.session import Session
from tests.models import Builder, dataset, uniform
from tests.networks import STRUCTURES, cancelling_network, residual_network

X = uniform(60, 3, 8, 8)
T = 8


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return load_source(residual_network().save(tmp_path_factory.mktemp("layers") / "m.onnx"))


def labelled(source):
    """The samples, the ANN's own classes as labels."""
    (values,) = Session(source.model).run({"x": X}).values()
    return Dataset({"x": X}, values.argmax(axis=1))


def total(split):
    return split.clipping + split.quantization + split.unevenness + split.inherited


def measured_errors(source, snn, x, steps):
    """By layer of a ReLU network: the mean output less the activation, over ||a||, from scratch."""
    model = onnx.ModelProto()
    model.CopyFrom(source.model)
    relus = {node.name: node.output[0] for node in model.graph.node if node.op_type == "Relu"}
    del model.graph.output[:]
    model.graph.output.extend(
        onnx.helper.make_empty_tensor_value_info(name) for name in relus.values()
    )
    activations = Session(model).run({"x": x})
    runner = Runner(snn, taps=list(snn.spikes.values()))
    counts = dict.fromkeys(relus, 0.0)
    for outputs in runner.steps(x, steps):
        for layer in relus:
            counts[layer] = counts[layer] + outputs[snn.spikes[layer]]
    return {
        layer: (snn.scales[layer] * counts[layer] / steps - activations[name], activations[name])
        for layer, name in relus.items()
    }


@pytest.mark.parametrize("correct", [False, True])
@pytest.mark.parametrize("neuron", RECTIFYING_NEURONS)
def test_parts_add_up_to_the_error_that_is_measured(source, neuron, correct):
    model = RECTIFYING_NEURONS[neuron]()
    snn = convert(source, dataset(x=X), timesteps=T, neuron=model, correct=correct).snn
    analysis = analyse(snn, dataset(x=X), source)
    expected = measured_errors(source, snn, X, T)
    assert [layer.layer for layer in analysis.layers] == list(snn.spikes)
    for layer in analysis.layers:
        error, activation = expected[layer.layer]
        square = np.square(error).sum() / np.square(activation).sum()
        assert layer.squared.error == pytest.approx(square, rel=1e-3)
        assert total(layer.squared) == pytest.approx(square, rel=0.01)
        mean = error.sum() / activation.sum()
        assert total(layer.mean) == pytest.approx(mean, rel=0.01, abs=1e-5)


@pytest.mark.parametrize("structure", STRUCTURES)
def test_parts_add_up_in_every_structure(tmp_path, structure):
    """Through encoders, poolings, compensated operators and trained thresholds."""
    source = load_source(STRUCTURES[structure]().save(tmp_path / "m.onnx"))
    (spec,) = source.inputs
    x = uniform(20, *spec.shape[1:])
    snn = convert(source, dataset(x=x), timesteps=4).snn
    for layer in analyse(snn, dataset(x=x), source).layers:
        assert total(layer.squared) == pytest.approx(layer.squared.error, rel=0.01)
        assert total(layer.mean) == pytest.approx(layer.mean.error, rel=0.01, abs=1e-5)


def one_layer(tmp_path):
    b = Builder((3, 8, 8))
    b.conv(5)
    b.relu()
    b.op("Flatten")
    b.gemm(4, inputs=5 * 64)
    return load_source(b.save(tmp_path / "m.onnx"))


def test_first_layer_has_its_own_error_only(tmp_path):
    """Its current is that of the ANN, and arrives evenly."""
    source = one_layer(tmp_path)
    snn = convert(source, dataset(x=X), timesteps=T).snn
    (layer,) = analyse(snn, dataset(x=X), source).layers
    assert layer.squared.unevenness == pytest.approx(0, abs=1e-3 * layer.squared.error)
    assert layer.squared.inherited == pytest.approx(0, abs=1e-3 * layer.squared.error)
    assert layer.squared.error > 0


def test_more_steps_take_away_quantization_and_leave_clipping(tmp_path):
    source = one_layer(tmp_path)
    snn = convert(source, dataset(x=X), timesteps=2).snn
    few, many = (analyse(snn, dataset(x=X), source, t).layers[0].squared for t in (2, 64))
    assert abs(many.quantization) < 0.1 * abs(few.quantization)
    assert many.clipping == pytest.approx(many.error, rel=0.05)


def spoil(monkeypatch, position, factor):
    """Let the next conversions set one layer's thresholds a factor off."""

    def spoilt(graph, *arguments, **options):
        report = set_thresholds(graph, *arguments, **options)
        node = rate_norms(graph)[position]
        set_threshold(graph, node, factor * node.inputs[1].values)
        return report

    monkeypatch.setattr(sys.modules["onnxsnn.convert"], "set_thresholds", spoilt)


@pytest.mark.parametrize(("factor", "part"), [(0.15, "clipping"), (20.0, "quantization")])
@pytest.mark.parametrize("position", range(4))
def test_a_spoilt_threshold_is_named(source, monkeypatch, position, factor, part):
    spoil(monkeypatch, position, factor)
    snn = convert(source, dataset(x=X), timesteps=T, correct=False).snn
    analysis = analyse(snn, labelled(source), source)
    assert analysis.measure == "accuracy"
    assert analysis.costliest == list(snn.spikes)[position]
    squared = analysis.layers[position].squared
    own = {name: getattr(squared, name) for name in ("clipping", "quantization", "unevenness")}
    assert max(own, key=own.get) == part


@pytest.mark.parametrize("position", range(4))
def test_a_threshold_that_is_spoilt_in_the_file_is_named(source, tmp_path, position):
    """A spike stays worth what it was, so the layer gives too much."""
    convert(source, dataset(x=X), timesteps=T).snn.save(tmp_path / "m.snn.onnx")
    snn = SpikingModel.load(tmp_path / "m.snn.onnx")
    layer = list(snn.spikes)[position]
    (node,) = (node for node in snn.model.graph.node if node.name == layer)
    (theta,) = (t for t in snn.model.graph.initializer if t.name == node.input[1])
    theta.CopyFrom(
        onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(theta) * 0.2, theta.name)
    )
    analysis = analyse(snn, labelled(source), source)
    assert analysis.costliest == layer
    assert total(analysis.layers[position].squared) == pytest.approx(
        analysis.layers[position].squared.error, rel=0.01
    )


def test_without_labels_layers_are_compared_by_agreement_or_error(source, tmp_path):
    snn = convert(source, dataset(x=X), timesteps=T).snn
    assert analyse(snn, dataset(x=X), source).measure == "agreement"
    b = Builder((3, 8, 8))
    b.conv(4)
    b.relu()
    b.conv(2)
    image = load_source(b.save(tmp_path / "image.onnx"))
    snn = convert(image, dataset(x=X), timesteps=2, correct=False).snn  # with the ANN's weights
    analysis = analyse(snn, dataset(x=X), image)
    assert analysis.measure == "error"
    assert analysis.layers[0].gain == pytest.approx(analysis.plain.error, abs=1e-5)
    assert analysis.layers[0].exact.error < 1e-5


def test_labels_say_nothing_of_outputs_without_classes(tmp_path):
    b = Builder((3, 8, 8))
    b.conv(4)
    b.relu()
    b.conv(2)
    image = load_source(b.save(tmp_path / "image.onnx"))
    snn = convert(image, dataset(x=X), timesteps=2, correct=False).snn
    analysis = analyse(snn, Dataset({"x": X}, np.zeros(len(X), np.int64)), image)
    assert analysis.measure == "error"
    assert analysis.plain.accuracy is None


def test_no_layer_costs_anything_where_nothing_is_lost(tmp_path):
    b = Builder((3,))
    b.op("MatMul", "x", b.constant(np.eye(3)))
    b.clip(1.0)
    b.op("MatMul", b.last, b.constant(np.eye(3)))
    exact, data = load_source(b.save(tmp_path / "m.onnx")), dataset(x=np.eye(3, dtype=np.float32))
    snn = convert(exact, threshold="trained", timesteps=4).snn
    analysis = analyse(snn, data, exact)
    assert analysis.plain.agreement == 1
    assert analysis.costliest is None


def test_currents_that_a_correction_added_are_no_part_of_an_exact_layer(tmp_path):
    source = one_layer(tmp_path)
    snn = convert(source, dataset(x=X), timesteps=T, correct=True, anytime=True).snn
    assert np.abs(snn.layers[0].bias).max() > 1e-3
    (layer,) = analyse(snn, dataset(x=X), source).layers
    assert layer.exact.error < 1e-4


@pytest.mark.parametrize("structure", STRUCTURES)
def test_exact_layer_fed_its_own_spikes_changes_nothing(tmp_path, structure):
    """The graph behind a layer is the network behind the layer, states and all."""
    source = load_source(STRUCTURES[structure]().save(tmp_path / "m.onnx"))
    (spec,) = source.inputs
    x = uniform(4, *spec.shape[1:])
    snn = convert(source, dataset(x=x), timesteps=3).snn
    for layer, spikes in snn.spikes.items():
        plain = Runner(snn, taps=[spikes])
        exact = Runner(with_exact_layer(snn, layer))
        for outputs in plain.steps(x, 3):
            known = {spec.name: x, spikes: outputs[spikes]}
            found = exact.step({s.name: known[s.name] for s in exact.model.inputs})
            for name in snn.outputs:
                np.testing.assert_allclose(found[name], outputs[name], rtol=1e-4, atol=1e-5)


def test_exact_layer_drops_what_is_before_it(source):
    snn = convert(source, dataset(x=X), timesteps=T).snn
    *_, last = snn.spikes
    exact = with_exact_layer(snn, last)
    assert [spec.name for spec in exact.inputs] == [snn.spikes[last]]
    assert len(exact.states) < len(snn.states)
    assert exact.spikes == {}


def test_distribution_of_rates(tmp_path):
    """Three channels: one never fires, one always, one at a quarter of the steps."""
    b = Builder((3,))
    b.relu()
    b.gemm(2)
    source = load_source(b.save(tmp_path / "m.onnx"))
    x = np.tile(np.array([-1.0, 9.0, 0.25], np.float32), (6, 1))
    calibration = dataset(x=np.ones((4, 3), np.float32))
    snn = convert(source, calibration, timesteps=4, threshold="max").snn
    (layer,) = analyse(snn, dataset(x=x), source).layers
    found = layer.distribution
    assert (found.channels, found.dead, found.saturated) == (3, 1, 1)
    assert found.silent == pytest.approx(1 / 3)
    np.testing.assert_allclose(found.rates, [0, 0.25, 0.5, 0.75, 1])
    np.testing.assert_allclose(found.shares, [1 / 3, 1 / 3, 0, 0, 1 / 3])


def test_many_samples_are_cut(source):
    seen = []
    snn = convert(source, dataset(x=X), timesteps=2).snn
    analysis = analyse(
        snn, dataset(x=X), source, samples=7, progress=lambda *counts: seen.append(counts)
    )
    assert analysis.samples == 7
    assert seen == [(7, 7)]


def means_of_all(folder, scale=1.0):
    """A network whose output is one number for all samples."""
    b = Builder((6,))
    b.gemm(8)
    b.relu()
    b.op("Mul", b.gemm(3), b.constant(scale))
    b.op("ReduceMean", keepdims=0)
    source, x = load_source(b.save(folder / "m.onnx")), dataset(x=uniform(20, 6))
    return convert(source, x, timesteps=T).snn, source, x


def test_an_output_of_one_number_for_all_samples_has_an_error(tmp_path):
    snn, source, x = means_of_all(tmp_path)
    found = analyse(snn, x, source)
    assert found.measure == "error"
    assert found.samples == 20
    assert found.plain.error == pytest.approx(evaluate(snn, x, ann=source).rows[-1].error, rel=1e-4)


def test_outputs_that_are_all_0_have_an_error_of_0(tmp_path):
    snn, source, x = means_of_all(tmp_path, scale=0.0)
    assert analyse(snn, x, source).plain.error == 0
    assert evaluate(snn, x, ann=source).rows[-1].error == 0


def test_an_exact_layer_that_alone_has_outputs_of_0_is_said(tmp_path):
    source = load_source(cancelling_network().save(tmp_path / "m.onnx"))
    x = dataset(x=np.full((3, 1), 0.25, np.float32))  # the first clip gives 0.5 after 4 steps
    snn = convert(source, timesteps=4, threshold="trained").snn
    with pytest.raises(DataError, match="all 0, or infinite"):
        analyse(snn, x, source)


def test_outputs_without_an_axis_of_samples_are_refused(tmp_path):
    b = Builder((3, 6), batch=1)
    b.op("Squeeze", b.last, b.constant([0], np.int64))
    b.op("CumSum", b.last, b.constant(0, np.int64))
    b.relu()
    source, x = load_source(b.save(tmp_path / "m.onnx")), dataset(x=uniform(5, 3, 6))
    with pytest.raises(UnsupportedError, match=f"output '{b.last}' has no axis for more"):
        analyse(convert(source, x, timesteps=T).snn, x, source)


def test_mistakes_are_named(source, tmp_path):
    snn = convert(source, dataset(x=X), timesteps=2).snn
    with pytest.raises(UsageError, match="1 or more"):
        analyse(snn, dataset(x=X), source, 0)
    with pytest.raises(DataError, match="other layers"):
        analyse(snn, dataset(x=X), one_layer(tmp_path))
