"""convert: the pipeline whole, its choices, and the laws that an SNN obeys."""

import importlib

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from onnx.backend.test.case.node import collect_testcases

from onnxsnn import (
    BurstIntegrateAndFire,
    IntegrateAndFire,
    MultiThreshold,
    Runner,
    SignedIntegrateAndFire,
    SpikingModel,
    convert,
    load_source,
)
from onnxsnn.errors import DataError, ModelError, UnsupportedError, UsageError
from onnxsnn.session import SampleSession, Session
from onnxsnn.source import Source
from onnxsnn.thresholds import METHODS
from tests.loops import BODIES, recurrent
from tests.models import Builder, assert_same, dataset, outputs_of, uniform
from tests.networks import STRUCTURES, average_network, networks, residual_network

X = uniform(24, 3, 8, 8)
quick = settings(
    max_examples=15,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)


@pytest.fixture
def source(tmp_path):
    return load_source(residual_network().save(tmp_path / "model.onnx"))


def ann(b, x):
    return Session(b.model()).run({"x": x})[b.last]


def relative_error(values, expected):
    return np.linalg.norm(values - expected) / np.linalg.norm(expected)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_converges_or_clips_little(source, method):
    data = None if method == "gaussian" else dataset(x=X)
    snn = convert(source, data, timesteps=64, threshold=method).snn
    outputs = Runner(snn).run(X).outputs
    (values,) = outputs.values()
    assert relative_error(values, ann(residual_network(), X)) < (
        0.6 if method == "gaussian" else 0.3
    )


def test_inputs_that_nothing_reads_are_left_out(tmp_path):
    b = residual_network()
    for name in ("mean", "deviation"):
        b.inputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 3]))
    source = load_source(b.save(tmp_path / "model.onnx"))
    assert [spec.name for spec in source.inputs] == ["x"]
    conversion = convert(source, dataset(x=X), timesteps=64)
    assert conversion.warnings == [
        f"input {name!r} is read by nothing, and left out" for name in ("mean", "deviation")
    ]
    (values,) = Runner(conversion.snn).run(X).outputs.values()
    assert relative_error(values, ann(residual_network(), X)) < 0.1


def test_an_input_that_a_branch_alone_reads_stays(tmp_path):
    model = onnx.parser.parse_model("""
    <ir_version: 8, opset_import: ["": 17]>
    g (float[N,4] x, float[N,4] z, bool flag) => (float[N,4] y)
    {
        y = If(flag) <
            then_branch = yes () => (float[N,4] a) { a = Relu(z) },
            else_branch = no () => (float[N,4] b) { b = Relu(x) }
        >
    }""")
    onnx.save(model, tmp_path / "model.onnx")
    assert [spec.name for spec in load_source(tmp_path / "model.onnx").inputs] == ["x", "z", "flag"]


def test_file_runs_in_stock_onnxruntime_with_nothing_of_ours(source, tmp_path):
    convert(source, dataset(x=X), timesteps=8).snn.save(tmp_path / "snn.onnx")

    session = ort.InferenceSession(str(tmp_path / "snn.onnx"))
    states = [tensor.name for tensor in session.get_overridable_initializers()]
    names = [tensor.name for tensor in session.get_outputs()]
    feeds = {"x": X}
    for _ in range(8):
        outputs = dict(zip(names, session.run(None, feeds), strict=True))
        feeds = {"x": X} | {state: outputs[f"{state}.next"] for state in states}

    ours = Runner(tmp_path / "snn.onnx").run(X, 8).outputs
    (name,) = ours
    np.testing.assert_array_equal(outputs[name], ours[name])


def test_file_is_valid_in_full(source, tmp_path):
    convert(source, dataset(x=X)).snn.save(tmp_path / "snn.onnx")
    onnx.checker.check_model(tmp_path / "snn.onnx", full_check=True)


def test_inputs_and_outputs_are_the_source_s_followed_by_the_states(source):
    snn = convert(source, dataset(x=X)).snn
    for mine, its in ((snn.model.graph.input, source.model.graph.input),
                      (snn.model.graph.output, source.model.graph.output)):  # fmt: skip
        assert mine[0].name == its[0].name
        assert mine[0].type.tensor_type.elem_type == its[0].type.tensor_type.elem_type
        assert len(mine) == 1 + len(snn.states)


def test_spikes_are_zeros_and_ones(source):
    snn = convert(source, dataset(x=X), timesteps=4).snn
    runner = Runner(snn, taps=list(snn.spikes.values()))
    for outputs in runner.steps(X, 4):
        for name in snn.spikes.values():
            assert set(np.unique(outputs[name])) <= {0.0, 1.0}


def test_thresholds_are_folded_into_weights_but_for_the_residual_add(source):
    snn = convert(source, dataset(x=X)).snn
    assert sum(node.op_type == "Mul" for node in snn.model.graph.node) == 1


def test_initial_potential_and_timesteps_are_in_the_metadata(source):
    snn = convert(source, dataset(x=X), timesteps=5, neuron=IntegrateAndFire(0.0)).snn
    assert snn.timesteps == 5
    assert snn.metadata["neuron"] == {"model": "if", "initial_potential": 0.0}
    assert snn.metadata["source_sha256"] == source.digest
    assert snn.metadata["bits_per_spike"] == 1


def test_metadata_say_where_thresholds_come_from(source):
    metadata = convert(source, dataset(x=X), timesteps=2).snn.metadata
    assert (metadata["threshold"], metadata["statistics"]) == ("fit", "data")


def test_layers_say_the_range_of_their_thresholds(source):
    snn = convert(source, dataset(x=X), timesteps=4).snn
    for layer in snn.layers:
        theta = snn.thresholds[layer.name]
        assert layer.lowest == theta.min() < layer.threshold < layer.highest == theta.max()


def test_bits_are_those_of_the_layer_that_sends_most(tmp_path):
    b = Builder((3, 8, 8))
    b.conv(4)
    b.relu()
    b.conv(4)
    b.op("Tanh")
    b.head()
    snn = convert(b.save(tmp_path / "m.onnx"), dataset(x=X), timesteps=2).snn
    assert [layer.neuron for layer in snn.layers] == ["if", "ternary"]
    assert [layer.bits for layer in snn.layers] == [1.0, pytest.approx(np.log2(3))]
    assert snn.metadata["bits_per_spike"] == pytest.approx(np.log2(3))


def test_omega_is_of_all_that_a_burst_may_send(source):
    """Thresholds of a burst are small, and clip nothing."""
    options = {"timesteps": 4, "threshold": "max", "correct": False}
    one_spike, four_spikes = (
        convert(source, dataset(x=X), neuron=BurstIntegrateAndFire(levels=n), **options).snn.layers
        for n in (1, 4)
    )
    for one, four in zip(one_spike, four_spikes, strict=True):
        assert four.omega > 2 * one.omega


def test_per_layer_thresholds_are_equal_within_a_layer(source):
    layers = convert(source, dataset(x=X), per_layer=True).snn.layers
    assert all(layer.lowest == layer.highest for layer in layers)


def test_verify_reports_every_pass_that_keeps_values(source):
    differences = convert(source, dataset(x=X), verify=True).differences
    assert set(differences) >= {"fold_normalization", "relu_to_ratenorm", "absorb_scales"}
    assert max(differences.values()) < 1e-5


def test_verify_says_where_a_network_is_read_otherwise_than_the_runtime_does(tmp_path):
    """Whole numbers that are cut off on both sides are not cut off in the SNN."""
    b = Builder((4,))
    levels = b.constant(0.001), b.constant(0, np.int8)
    b.op("DequantizeLinear", b.op("QuantizeLinear", "x", *levels), *levels)
    b.gemm(5, inputs=4)
    b.relu()
    b.gemm(3, inputs=5)
    path, x = b.save(tmp_path / "m.onnx"), uniform(9, 4)
    said = [convert(path, dataset(x=each), verify=True).warnings for each in (x, x * 0.05)]
    assert ["differ from those of the file" in " ".join(each) for each in said] == [True, False]


def test_verify_names_the_pass_that_does_not(source, monkeypatch):
    pipeline = importlib.import_module("onnxsnn.convert")
    absorb_scales = pipeline.absorb_scales

    def spoil(graph):
        report = absorb_scales(graph)
        weight = next(node for node in graph.nodes if node.op == "Conv").inputs[1]
        weight.values = weight.values * 1.5
        return report

    monkeypatch.setattr(pipeline, "absorb_scales", spoil)
    with pytest.raises(ModelError, match="absorb_scales"):
        convert(source, dataset(x=X), verify=True)


def test_every_intermediate_model_runs(source):
    kept = {}
    convert(source, dataset(x=X), keep=kept.__setitem__)
    assert list(kept) == [
        "clean", "free_batch", "unflatten", "fold_normalization", "relu_to_ratenorm",
        "encode", "set_thresholds", "correct", "absorb_scales",
    ]  # fmt: skip
    for model in kept.values():
        assert Session(model).run({"x": X})


def test_without_data_thresholds_come_from_batchnorm(source):
    conversion = convert(source)
    assert conversion.snn.metadata["statistics"] == "batchnorm"
    assert {layer.origin for layer in conversion.snn.layers} == {"gaussian"}


def test_without_data_or_batchnorm_random_input_is_used_with_a_warning(tmp_path):
    b = Builder((3, 8, 8))
    b.conv(4)
    b.relu()
    b.head()
    conversion = convert(b.save(tmp_path / "m.onnx"))
    assert conversion.snn.metadata["statistics"] == "random input"
    assert "accuracy wants data" in conversion.warnings[0]


def test_without_data_trained_thresholds_are_kept_and_nothing_is_warned_of(tmp_path):
    b = Builder((3, 8, 8))
    b.conv(4)
    b.clip(0.7)
    b.head()
    conversion = convert(b.save(tmp_path / "m.onnx"))
    (layer,) = conversion.snn.layers
    assert layer.origin == "trained"
    assert layer.threshold == pytest.approx(0.7)
    assert not conversion.warnings


def test_trained_is_refused_where_a_rectifier_is_not_clipped(source):
    with pytest.raises(UnsupportedError, match="'trained' needs every rectifier clipped") as caught:
        convert(source, threshold="trained")
    assert "give data" not in str(caught.value)  # with which it would be refused too


def test_gaussian_is_refused_without_batchnorm(tmp_path):
    b = Builder((3,))
    b.relu()
    with pytest.raises(UnsupportedError, match="has none; choose another threshold"):
        convert(b.save(tmp_path / "m.onnx"), threshold="gaussian")


def test_trained_thresholds_are_where_correction_starts(tmp_path):
    source = load_source(average_network().save(tmp_path / "m.onnx"))
    x, fresh = uniform(64, 2, 8, 8), uniform(64, 2, 8, 8, seed=1)
    expected = Session(source.model).run({"x": fresh})
    errors = {}
    for correct, data in ((False, None), (True, dataset(x=x))):
        snn = convert(source, data, timesteps=4, threshold="trained", correct=correct).snn
        assert {layer.origin for layer in snn.layers} == {snn.metadata["threshold"]} == {"trained"}
        ((name, values),) = Runner(snn).run(fresh).outputs.items()
        errors[correct] = relative_error(values, expected[name])
    assert errors[True] < 0.9 * errors[False]


@pytest.mark.parametrize(
    ("method", "message"),
    [("gaussian", "takes no data"), ("trained", "takes data for --correct alone")],
)
def test_methods_without_data_refuse_data(source, method, message):
    with pytest.raises(UsageError, match=f"{message}; leave the data out, or choose another"):
        convert(source, dataset(x=X), threshold=method)


def test_model_without_rectifier_is_refused(tmp_path):
    b = Builder((3,))
    b.gemm(4)
    path = b.save(tmp_path / "m.onnx")
    for data in (None, dataset(x=uniform(4, 3))):
        with pytest.raises(UnsupportedError, match="no rectifier"):
            convert(path, data)


def test_unknown_threshold_and_timesteps_of_zero_are_refused(source):
    with pytest.raises(UsageError, match="none of"):
        convert(source, threshold="best")
    with pytest.raises(UsageError, match="1 or more"):
        convert(source, timesteps=0)


@pytest.mark.parametrize("delay", [1.5, -1, 8])
def test_delays_that_make_no_sense_are_refused(source, delay):
    with pytest.raises(UsageError, match="whole number from 0 to 7"):
        convert(source, dataset(x=X), timesteps=8, delay=delay)


def test_model_with_a_batch_of_one_takes_any_batch(tmp_path):
    path = residual_network(batch=1).save(tmp_path / "m.onnx")
    outputs = Runner(convert(path, dataset(x=X), timesteps=32).snn).run(X).outputs
    (values,) = outputs.values()
    assert relative_error(values, ann(residual_network(), X)) < 0.4


def test_first_scan_is_refused(tmp_path):
    """onnx would call it Scan of another opset, whose inputs have an axis less."""
    (case,) = (case for case in collect_testcases("Scan") if case.name == "test_scan_sum")
    onnx.save(case.model, tmp_path / "m.onnx")
    with pytest.raises(ModelError, match=r"Scan of opset 8 takes a batch.*opset 14 or newer"):
        load_source(tmp_path / "m.onnx").graph()


def test_old_opset_is_brought_up(tmp_path):
    b = Builder((3, 8, 8), opset=9)
    b.conv(4)
    b.batchnorm()
    b.relu()
    b.op("GlobalAveragePool")
    b.op("Flatten")
    b.gemm(3)
    snn = convert(b.save(tmp_path / "m.onnx"), dataset(x=X), timesteps=64).snn
    (values,) = Runner(snn).run(X).outputs.values()
    assert relative_error(values, ann(b, X)) < 0.1


@quick
@given(networks(), st.sampled_from([0.0, 0.5]))
def test_error_falls_as_one_over_t(tmp_path, b, v0):
    """With nothing clipped, the error after T steps is at most a constant over T."""
    x = uniform(8, 2, 6, 6)
    source = load_source(b.save(tmp_path / "m.onnx"))
    snn = convert(source, dataset(x=x), threshold="max", neuron=IntegrateAndFire(v0)).snn
    expected = ann(b, x)
    every = Runner(snn).run(x, 512, every_step=True).every_step
    errors = {t: np.abs(every[t - 1][b.last] - expected).max() for t in (32, 128, 512)}
    scale = np.abs(expected).max()
    worst = max(errors[32], 0.02 * scale)
    assert errors[512] <= worst * 32 / 512 * 4 + 1e-5 * scale  # four: errors jump within 1/T


@quick
@given(networks(), st.sampled_from([0.0, 0.5]), st.integers(1, 15))
def test_error_behind_a_delay_falls_too(tmp_path, b, v0, delay):
    x = uniform(8, 2, 6, 6)
    source = load_source(b.save(tmp_path / "m.onnx"))
    neuron = IntegrateAndFire(v0)
    snn = convert(source, dataset(x=x), threshold="max", neuron=neuron, delay=delay).snn
    expected = ann(b, x)
    every = Runner(snn).run(x, 512, every_step=True).every_step
    errors = {t: np.abs(every[t - 1][b.last] - expected).max() for t in (32, 64, 128, 512)}
    scale = np.abs(expected).max()
    worst = max(max(errors[t], 0.02 * scale) * (t - delay) for t in (32, 64, 128))
    assert errors[512] <= 3 * worst / (512 - delay) + 1e-5 * scale


@quick
@given(networks())
def test_fit_curve_of_the_first_layer_stays_below_its_bound(tmp_path, b):
    """Ding et al. 2021, theorem 2: K(t) < 2 * Omega / t, constant current, v0 = 0."""
    x = uniform(8, 2, 6, 6)
    source = load_source(b.save(tmp_path / "m.onnx"))
    kept = {}
    snn = convert(
        source, dataset(x=x), timesteps=16, neuron=IntegrateAndFire(0.0), keep=kept.__setitem__
    ).snn
    layer, spikes = next(iter(snn.spikes.items()))
    rates = firing_rates(kept["absorb_scales"], layer, x)
    omega = np.abs(rates).sum() / np.square(rates).sum()
    count = np.zeros_like(rates)
    for step, outputs in enumerate(Runner(snn, taps=[spikes]).steps(x, 32), start=1):
        count += outputs[spikes]
        curve = np.square(count / step - rates).sum() / np.square(rates).sum()
        assert curve < 2 * omega / step + 1e-6


def firing_rates(model, layer, x):
    """What the firing rates of a layer converge to: the output of its RateNorm."""
    (name,) = (node.output[0] for node in model.graph.node if node.name == layer)
    model.graph.output.append(onnx.helper.make_empty_tensor_value_info(name))
    return Session(model).run({"x": x})[name]


@quick
@given(networks())
def test_backends_give_the_same_spikes(tmp_path, b):
    """On whole-number weights and thresholds, where rounding allows no difference."""
    x = np.round(4 * uniform(3, 2, 6, 6))
    source = load_source(b.save(tmp_path / "m.onnx"))
    snn = whole_numbers(convert(source, dataset(x=x), timesteps=6).snn)
    taps = list(snn.spikes.values())
    runs = [
        Runner(snn, backend, taps=taps).run(x, 6, every_step=True).every_step
        for backend in ("onnxruntime", "numpy")
    ]
    for left, right in zip(*runs, strict=True):
        for name in taps:
            np.testing.assert_array_equal(left[name], right[name])


def whole_numbers(snn):
    """The same SNN with every float constant rounded to a quarter, thresholds at least that.

    Pooling divides by 1, 2 or 4: sums of such numbers are exact in float32.
    """
    for tensor in snn.model.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT:
            values = np.round(onnx.numpy_helper.to_array(tensor) * 4) / 4
            if ".theta" in tensor.name:
                values = np.maximum(values, 0.25)
            tensor.CopyFrom(onnx.numpy_helper.from_array(values.astype(np.float32), tensor.name))
    return SpikingModel(snn.model, snn.states, snn.metadata, snn.layers)


@pytest.mark.parametrize("name", STRUCTURES)
def test_structure_converges(tmp_path, name):
    """Every shape of network comes to its ANN, and weights behind the first read spikes."""
    b = STRUCTURES[name]()
    source = load_source(b.save(tmp_path / "m.onnx"))
    (spec,) = source.inputs
    x = uniform(8, *spec.shape[1:])
    errors = {}
    for timesteps in (16, 64, 256):
        snn = convert(source, dataset(x=x), timesteps=timesteps, verify=True).snn
        outputs = Runner(snn).run(x).outputs
        errors[timesteps] = relative_error(outputs[b.last], ann(b, x))
    assert errors[256] < errors[64] < errors[16]
    assert errors[256] < 0.03


@pytest.mark.parametrize("correct", [False, None])
def test_many_steps_come_near_on_samples_that_were_not_seen(tmp_path, correct):
    """Few samples to calibrate on: what is beyond their largest activations is not clipped away."""
    b = Builder((8,))
    for width in (24, 24):
        b.gemm(width)
        b.relu()
    b.gemm(3)
    source = load_source(b.save(tmp_path / "m.onnx"))
    seen, fresh = uniform(24, 8), uniform(200, 8, seed=1)
    errors = {}
    for threshold, corrects in (("max", False), ("fit", correct)):
        settings = {"threshold": threshold, "correct": corrects, "timesteps": 512}
        outputs = Runner(convert(source, dataset(x=seen), **settings).snn).run(fresh).outputs
        errors[threshold] = relative_error(outputs[b.last], ann(b, fresh))
    assert errors["fit"] < 0.5 * errors["max"]
    assert errors["fit"] < 0.02


def test_an_output_that_is_a_constant_stays_it(tmp_path):
    b = Builder((8,))
    b.gemm(12)
    b.relu()
    out, anchors = b.gemm(3), b.op("Identity", b.constant([1.0, 2.0]))
    x = uniform(8, 8)
    snn = convert(b.save(tmp_path / "m.onnx", out, anchors), dataset(x=x), timesteps=4).snn
    assert Runner(snn).run(x).outputs[anchors].tolist() == [1.0, 2.0]


def test_strict_takes_rectifiers_and_refuses_the_rest_by_name(tmp_path):
    for name in ("vgg", "hardtanh"):
        convert(STRUCTURES[name]().save(tmp_path / "m.onnx"), dataset(x=X), strict=True)
    other = STRUCTURES["squeeze-excitation"]()
    with pytest.raises(UnsupportedError, match=r"clip2.*\(Clip\).*driven by spikes"):
        convert(other.save(tmp_path / "m.onnx"), dataset(x=X), strict=True)


def test_trained_rounding_sets_the_initial_potential_unless_another_is_asked_for(tmp_path):
    b = Builder((3, 8, 8))
    b.conv(4)
    b.clip(4.0)
    b.op("Floor")
    b.head()
    path = b.save(tmp_path / "m.onnx")
    defaults = {}
    signed = SignedIntegrateAndFire
    for neuron in (None, signed(), IntegrateAndFire(0.5), signed(0.25)):
        snn = convert(path, dataset(x=X), neuron=neuron, correct=False).snn
        defaults[neuron] = snn.potential(next(iter(snn.spikes))).default
    assert not defaults[None].any()
    assert not defaults[signed()].any()
    assert (defaults[IntegrateAndFire(0.5)] > 0).all()
    assert (defaults[signed(0.25)] > 0).all()


@pytest.mark.parametrize(
    ("neuron", "message"),
    [
        (IntegrateAndFire(float("nan")), "initial potential is from 0 to 1"),
        (IntegrateAndFire(5), "initial potential is from 0 to 1"),
        (BurstIntegrateAndFire(levels=0), "levels are a whole number from 1 to 16"),
        (BurstIntegrateAndFire(levels=2.5), "levels are a whole number"),
        (MultiThreshold(digits=0), "digits are a whole number from 1 to 4"),
    ],
)
def test_neurons_that_make_no_sense_are_refused(neuron, message):
    with pytest.raises(UsageError, match=message):
        convert(Source(residual_network().model(), "", []), dataset(x=X), neuron=neuron)


def test_numbers_of_numpy_are_numbers(tmp_path):
    neuron = BurstIntegrateAndFire(np.float32(0.25), levels=np.int64(3))
    source, ways = Source(residual_network().model(), "", []), {"correct": False, "neuron": neuron}
    snn = convert(source, dataset(x=X), timesteps=np.int64(4), delay=np.int64(1), **ways).snn
    snn.save(tmp_path / "m.snn.onnx")
    metadata = SpikingModel.load(tmp_path / "m.snn.onnx").metadata
    assert (metadata["timesteps"], metadata["delay"]) == (4, 1)
    settings = {"model": "burst", "initial_potential": 0.25, "levels": 3}
    assert metadata["neuron"] == settings
    convert(source, dataset(x=X), timesteps=4.0, correct=False).snn.save(tmp_path / "n.snn.onnx")
    assert SpikingModel.load(tmp_path / "n.snn.onnx").timesteps == 4


def test_several_inputs_and_outputs_one_of_them_an_inner_tensor(tmp_path):
    b = Builder((4,))
    b.inputs.append(onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["N", 4]))
    inner = b.op("Relu", b.op("Add", "x", "y"))
    outer = b.gemm(3, inputs=4)
    feeds = {"x": uniform(8, 4), "y": uniform(8, 4, seed=1)}
    source = load_source(b.save(tmp_path / "m.onnx", inner, outer))
    expected = Session(source.model).run(feeds)
    outputs = Runner(convert(source, dataset(**feeds), timesteps=64).snn).run(feeds).outputs
    assert list(outputs) == [inner, outer]
    for name, values in outputs.items():
        assert relative_error(values, expected[name]) < 0.05


def test_model_local_functions_are_inlined(tmp_path):
    b = Builder((3, 8, 8))
    b.conv(4)
    b.op("Twice")
    b.nodes[-1].domain = "local"
    b.relu()
    b.head()
    text = '<domain: "local", opset_import: ["": 17]> Twice (x) => (y) { y = Add (x, x) }'
    graph = onnx.helper.make_graph(
        b.nodes, "test", b.inputs, [onnx.helper.make_empty_tensor_value_info(b.last)], b.constants
    )
    opsets = [onnx.helper.make_opsetid("", 17), onnx.helper.make_opsetid("local", 1)]
    model = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8)
    model.functions.append(onnx.parser.parse_function(text))
    model.graph.output[0].CopyFrom(
        onnx.helper.make_tensor_value_info(b.last, onnx.TensorProto.FLOAT, ["N", 4])
    )
    onnx.save(model, tmp_path / "m.onnx")
    snn = convert(tmp_path / "m.onnx", dataset(x=X), timesteps=64).snn
    expected = Session(model).run({"x": X})[b.last]
    assert relative_error(Runner(snn).run(X).outputs[b.last], expected) < 0.05


def test_what_cannot_be_converted_is_refused_by_node_and_operator(tmp_path):
    b = Builder((3, 8))
    b.op("Trilu")
    b.nodes[-1].domain = "com.microsoft"
    b.relu()
    name = b.nodes[-2].name
    onnx.save(b.unchecked(), tmp_path / "m.onnx")
    message = rf"node '{name}' \(Trilu\) cannot be converted: it is ONNX Runtime's own"
    with pytest.raises(UnsupportedError, match=message):
        convert(tmp_path / "m.onnx", dataset(x=uniform(2, 3, 8)))


def test_rows_that_are_parts_of_one_sample_are_told_of(tmp_path):
    """As many nodes as their neighbours are constants for."""
    b = Builder((4,))
    b.op("MatMul", b.normal(60, 60), b.last)
    b.gemm(6, inputs=4)
    b.relu()
    b.gemm(3)
    onnx.save(b.undeclared(), tmp_path / "m.onnx")
    with pytest.raises(DataError, match=r"takes these 60 rows at once.*make_dynamic_shape_fixed"):
        convert(tmp_path / "m.onnx", dataset(x=uniform(60, 4)))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"data": np.ones((4, 3, 8, 8))}, "data: takes a Dataset, and ndarray came"),
        ({"neuron": "burst"}, "a neuron is an object of onnxsnn.neurons, and 'burst' came"),
    ],
)
def test_arguments_of_another_type_are_refused(source, arguments, message):
    with pytest.raises(UsageError, match=message):
        convert(source, **arguments)
    with pytest.raises(UsageError, match="model: takes a path, and ModelProto came"):
        convert(source.model)


def test_loop_that_draws_random_numbers_is_refused(tmp_path):
    b = Builder((8,))
    body = onnx.parser.parse_graph(
        "body (int64 i, bool go, float[M, 8] h) => (bool on, float[M, 8] next) "
        "{ on = Identity(go) noise = RandomNormalLike(h) next = Add(h, noise) }"
    )
    b.op("Loop", b.constant(3, np.int64), "", b.relu(), body=body)
    b.gemm(4)
    with pytest.raises(UnsupportedError, match=r"RandomNormalLike.* in node 'loop1'.*random"):
        convert(b.save(tmp_path / "m.onnx"), dataset(x=uniform(2, 8)))


@pytest.mark.parametrize("kind", BODIES)
@pytest.mark.parametrize("batch", ["N", 1])
def test_loops_work_on_the_means_of_what_they_read(tmp_path, kind, batch):
    b, x = recurrent(kind, batch), uniform(8, 6, 8)
    snn = convert(b.save(tmp_path / "m.onnx"), dataset(x=x), timesteps=256).snn
    runner = Runner(snn)
    expected = outputs_of(recurrent(kind).model(), x=x)
    assert relative_error(runner.run(x).outputs[b.last], expected[b.last]) < 0.02
    assert not runner.warnings


def test_read_out_of_a_recurrent_layer_reads_spikes(tmp_path):
    b = Builder((6, 8))
    sequence = b.op("Transpose", "x", perm=[1, 0, 2])
    weights = [b.normal(1, 20, inputs, scale=0.5) for inputs in (8, 5)]
    b.op("LSTM", sequence, *weights, hidden_size=5)
    b.op("Flatten", b.op("Transpose", perm=[2, 0, 1, 3]))
    b.gemm(3, inputs=6 * 5)
    x = uniform(8, 6, 8)
    snn = convert(b.save(tmp_path / "m.onnx"), dataset(x=x), timesteps=256).snn
    assert len(snn.layers) == 1
    assert relative_error(Runner(snn).run(x).outputs[b.last], ann(b, x)) < 0.02


@pytest.mark.parametrize(("operator", "gates"), [("LSTM", 4), ("GRU", 3), ("RNN", 1)])
@pytest.mark.parametrize("direction", ["forward", "bidirectional"])
def test_recurrent_layers_work_on_the_means_of_their_sequence(tmp_path, operator, gates, direction):
    ways = 1 + (direction == "bidirectional")
    b = Builder((6, 8))
    b.relu()
    sequence = b.op("Transpose", perm=[1, 0, 2])
    weights = [b.normal(ways, gates * 5, inputs, scale=0.5) for inputs in (8, 5)]
    b.op(operator, sequence, *weights, hidden_size=5, direction=direction)
    b.op("Flatten", b.op("Transpose", perm=[2, 0, 1, 3]))
    b.gemm(12, inputs=6 * ways * 5)
    b.relu()
    b.gemm(3)
    x = uniform(8, 6, 8)
    snn = convert(b.save(tmp_path / "m.onnx"), dataset(x=x), timesteps=256).snn
    runner = Runner(snn)
    assert relative_error(runner.run(x).outputs[b.last], ann(b, x)) < 0.02
    assert not runner.warnings


@pytest.mark.parametrize("axes", [1, 3])
def test_convolutions_and_pooling_of_one_and_three_axes_converge(tmp_path, axes):
    b = Builder((2, *(6,) * axes))
    for _ in range(2):
        weight = b.normal(4, b.channels, *(3,) * axes, scale=0.3)
        b.op("Conv", b.last, weight, pads=[1] * 2 * axes)
        b.channels = 4
        b.relu()
        b.op("MaxPool", kernel_shape=[2] * axes)
    b.head()
    x = uniform(8, 2, *(6,) * axes)
    snn = convert(b.save(tmp_path / "m.onnx"), dataset(x=x), timesteps=128).snn
    assert relative_error(Runner(snn).run(x).outputs[b.last], ann(b, x)) < 0.03


@pytest.mark.parametrize("batch", [1, "N"])
@pytest.mark.parametrize("drop", ["Squeeze", "Reshape"])
def test_networks_that_drop_the_axis_of_one_sample_take_many(tmp_path, drop, batch):
    """`squeeze()` and `view(-1)` before a layer, and again behind the last."""
    b = Builder((3, 8, 8), batch=batch)
    flat = () if drop == "Squeeze" else (b.constant([-1], np.int64),)
    b.conv(6)
    b.relu()
    b.op("GlobalAveragePool")
    b.op(drop, b.last, *flat)
    b.op("MatMul", b.last, b.normal(6, 8))
    b.relu()
    b.op("MatMul", b.last, b.normal(8, 1))
    b.op(drop, b.last, *flat)
    onnx.save(b.undeclared(), tmp_path / "m.onnx")
    source = load_source(tmp_path / "m.onnx")
    conversion = convert(source, dataset(x=X), timesteps=64)
    assert not [warning for warning in conversion.warnings if "stays" in warning]
    expected = SampleSession(source.model).run({"x": X})[b.last]
    found = Runner(conversion.snn).run(X).outputs[b.last]
    assert found.shape == expected.shape == (24,)
    assert relative_error(found, expected) < 0.02


@pytest.mark.parametrize("form", ["value_float", "value_floats", "sparse_value", "sparse"])
def test_constants_of_any_form_are_float32(tmp_path, form):
    """onnx-graphsurgeon would make numbers of them that no operator takes beside float32."""
    b, x = Builder((4,), opset=18), uniform(9, 4)
    places = numpy_helper.from_array(np.array([1, 3]))
    values = numpy_helper.from_array(np.array([0.5, 0.25], np.float32), "k")
    sparse = helper.make_sparse_tensor(values, places, [4])
    values_of = {"value_float": 0.2, "value_floats": [0.1, 0.2, 0.3, 0.4], "sparse_value": sparse}
    if form in values_of:
        b.nodes.append(helper.make_node("Constant", [], ["k"], **{form: values_of[form]}))
    b.op("Max", b.op("Sigmoid", "x"), "k")
    b.gemm(5, inputs=4)
    b.relu()
    b.gemm(3)
    model = b.undeclared()
    if form == "sparse":
        model.graph.sparse_initializer.append(sparse)
    onnx.save(model, tmp_path / "m.onnx")
    source = load_source(tmp_path / "m.onnx")
    assert_same(outputs_of(source.model, x=x), outputs_of(source.graph(), x=x))
    conversion = convert(source, dataset(x=x), timesteps=4, verify=True)
    assert max(conversion.differences.values()) < 1e-5


def test_a_body_may_have_names_that_the_conversion_would_give(tmp_path):
    b, x = Builder((5, 4)), uniform(6, 5, 4)
    b.op("MatMul", b.relu(), b.normal(4, 4))
    body = helper.make_graph(
        [
            helper.make_node("Add", ["one", "part"], ["step"]),
            helper.make_node("Identity", ["step"], ["given"]),
        ],
        "body",
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["N", 4]) for n in ("one", "part")],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["N", 4]) for n in ("step", "given")],
    )
    start = b.op("ReduceMean", b.last, axes=[1], keepdims=0)
    b.op("Scan", start, b.nodes[1].output[0], body=body, num_scan_inputs=1, count=2,
         scan_input_axes=[1], scan_output_axes=[1])  # fmt: skip
    b.op("MatMul", b.relu(), b.normal(4, 3))
    snn = convert(b.save(tmp_path / "m.onnx"), dataset(x=x), timesteps=256).snn
    found = Runner(snn).run(x).outputs[b.last]
    assert_same({"y": outputs_of(b.model(), x=x)[b.last]}, {"y": found}, 0.02)


def test_a_bias_of_each_sample_of_a_fixed_batch_converges(tmp_path):
    b, x = Builder((6,), batch=3), uniform(12, 6)
    b.op("Gemm", "x", b.normal(6, 5), b.normal(3, 1))
    b.relu()
    b.op("Gemm", b.last, b.normal(5, 4), b.normal(3, 4))
    snn = convert(b.save(tmp_path / "m.onnx"), dataset(x=x), timesteps=256).snn
    found, expected = Runner(snn).run(x[:3]).outputs, outputs_of(b.model(), x=x[:3])
    assert_same(expected, found, 0.02)


def test_a_network_that_was_exported_in_training_says_so(tmp_path):
    b = Builder((3, 6, 6))
    b.conv(4)
    b.batchnorm()
    b.nodes[-1].attribute.append(onnx.helper.make_attribute("training_mode", 1))
    b.nodes[-1].output.extend(["mean", "variance"])
    b.relu()
    b.head()
    data = dataset(x=uniform(8, 3, 6, 6))
    warnings = convert(b.save(tmp_path / "m.onnx"), data, timesteps=4).warnings
    (said,) = [line for line in warnings if "normalizes by the samples" in line]
    assert "'batchnormalization1' (BatchNormalization)" in said


def test_verify_compares_nothing_whose_size_the_values_decide(tmp_path):
    b, x = Builder((8,)), uniform(20, 8)
    b.gemm(16, inputs=8)
    b.relu()
    scores = b.gemm(200)
    found = b.op("NonZero", b.op("Greater", scores, b.constant(0.0)))
    conversion = convert(
        b.save(tmp_path / "m.onnx", scores, found), dataset(x=x), timesteps=2, verify=True
    )
    assert max(conversion.differences.values()) < 1e-5


def test_data_of_other_inputs_are_refused_before_anything_is_done(source):
    with pytest.raises(DataError, match=r"inputs are \['x'\], and \['image'\] came"):
        convert(source, dataset(image=X))


@pytest.mark.parametrize("in_nodes", [False, True])
def test_the_digest_of_a_network_is_of_its_weights_beside_it_too(tmp_path, in_nodes):
    digests = []
    for seed in (0, 1):
        b = Builder((4,), seed)
        b.gemm(64, inputs=4)
        b.relu()
        if in_nodes:
            b.nodes[:0] = [helper.make_node("Constant", [], [t.name], value=t) for t in b.constants]
            b.constants.clear()
        onnx.save(b.model(), tmp_path / "m.onnx", save_as_external_data=True, size_threshold=0,
                  location="weights", convert_attribute=True)  # fmt: skip
        digests.append(load_source(tmp_path / "m.onnx").digest)
        (tmp_path / "weights").unlink()
    assert digests[0] != digests[1]
