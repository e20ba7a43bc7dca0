"""correct_network: each layer fitted, front to back, to what the SNN really emits."""

import numpy as np
import pytest

from onnxsnn import Runner, convert, load_source
from onnxsnn.calibration import correct as correction
from onnxsnn.calibration import cut
from onnxsnn.calibration.cut import Bench
from onnxsnn.errors import UsageError
from onnxsnn.neurons import RECTIFYING_NEURONS, IntegrateAndFire
from onnxsnn.session import Session
from tests.models import Builder, dataset, uniform
from tests.networks import STRUCTURES, residual_network

X = uniform(100, 3, 8, 8)
T = 6


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return load_source(residual_network().save(tmp_path_factory.mktemp("correct") / "m.onnx"))


def relative_error(source, snn, x=X):
    """||SNN - ANN|| / ||ANN||, of the first output."""
    ((name, values),) = list(Runner(snn).run(x, snn.timesteps).outputs.items())[:1]
    expected = Session(source.model).run({"x": x})[name]
    return np.linalg.norm(values - expected) / np.linalg.norm(expected)


@pytest.mark.parametrize(("timesteps", "left"), [(2, 0.8), (6, 0.95)])
def test_samples_that_were_not_seen_come_nearer_to_the_ann(source, timesteps, left):
    fresh = uniform(100, 3, 8, 8, seed=1)
    errors = [
        relative_error(
            source, convert(source, dataset(x=X), timesteps=timesteps, correct=c).snn, fresh
        )
        for c in (False, True)
    ]
    assert errors[1] < left * errors[0]


@pytest.mark.parametrize(("timesteps", "left"), [(2, 0.9), (6, 0.97)])
def test_a_quick_correction_is_the_default_and_brings_most_of_it(source, timesteps, left):
    """On samples that were not seen."""
    fresh = uniform(100, 3, 8, 8, seed=1)
    errors = {}
    for correct in (False, None, True):
        conversion = convert(source, dataset(x=X), timesteps=timesteps, correct=correct)
        errors[correct] = relative_error(source, conversion.snn, fresh)
    assert errors[None] < left * errors[False]
    assert errors[True] < 1.1 * errors[None]


@pytest.mark.parametrize("correct", [None, True])
def test_asked_for_few_steps_come_nearer_to_the_ann(source, correct):
    """The SNN is fitted to 16 steps, and its outputs after the first 4 are looked at."""
    fresh = uniform(100, 3, 8, 8, seed=1)
    expected = next(iter(Session(source.model).run({"x": fresh}).values()))
    errors = []
    for anytime in (True, False):
        conversion = convert(source, dataset(x=X), timesteps=16, correct=correct, anytime=anytime)
        assert conversion.snn.metadata["anytime"] is anytime
        early = next(iter(Runner(conversion.snn).run(fresh, 4).outputs.values()))
        errors.append(np.linalg.norm(early - expected))
    assert errors[0] < 0.95 * errors[1]


@pytest.mark.parametrize("options", [{"correct": False}, {"threshold": "max"}, {"delay": 1}])
def test_what_is_not_corrected_cannot_be_right_at_any_time(source, options):
    with pytest.raises(UsageError, match="--anytime"):
        convert(source, dataset(x=X), timesteps=T, anytime=True, **options)


def actions(source, timesteps=T, **options):
    """What the correction says that it did; None where there was none."""
    reports = convert(source, timesteps=timesteps, **options).reports
    return next((dict(r.actions) for r in reports if r.name == "correct"), None)


@pytest.mark.parametrize("correct", [None, True])
def test_neurons_and_weights_are_fitted(source, correct):
    done = actions(source, data=dataset(x=X), correct=correct)
    assert done["layers fitted to their currents"] == 4
    assert 1 <= done["layers of weights fitted to their spikes"] <= 4


def test_weights_of_many_inputs_are_fitted_quickly(tmp_path):
    """To fewer positions than there are inputs of an output."""
    b = Builder((3, 8, 8))
    b.conv(80)
    b.relu()
    b.conv(4)
    source = load_source(b.save(tmp_path / "m.onnx"))
    done = actions(source, timesteps=1, data=dataset(x=X))
    assert done["layers of weights fitted to their spikes"] == 1


@pytest.mark.parametrize(
    "options",
    [
        {"correct": False},
        {"delay": 2},
        {"threshold": "max"},
        {"threshold": "percentile"},
        {"neuron": IntegrateAndFire(0.25)},
    ],
)
def test_what_is_asked_for_is_not_corrected_quickly(source, options):
    conversion = convert(source, dataset(x=X), timesteps=T, **options)
    assert conversion.snn.metadata["correction"] == "none"
    assert actions(source, data=dataset(x=X), **options) is None


def test_without_data_nothing_is_corrected(source):
    assert convert(source).snn.metadata["correction"] == "none"


def samples_seen(monkeypatch, source, x, timesteps):
    """How many samples a quick correction takes."""
    seen = []

    def bench(graph, reference, data, *rest):
        seen.append(len(data))
        return Bench(graph, reference, data, *rest)

    monkeypatch.setattr(correction, "Bench", bench)
    convert(source, dataset(x=x), timesteps=timesteps)
    return seen


@pytest.mark.parametrize(
    ("timesteps", "samples"), [(1, 64), (8, 64), (10, 51), (16, 32), (400, 32)]
)
def test_a_quick_correction_takes_few_samples(source, monkeypatch, timesteps, samples):
    monkeypatch.setattr(correction, "_PRODUCTS", 0)
    assert samples_seen(monkeypatch, source, X, timesteps) == [samples]


@pytest.mark.parametrize(("passes", "samples"), [(1, 51), (51, 51), (90, 90), (10**6, 256)])
def test_but_more_where_they_take_little_time(tmp_path, monkeypatch, passes, samples):
    b = Builder((3, 8, 8))
    b.conv(6)
    b.relu()
    b.op("Flatten")
    b.gemm(4, inputs=384)
    source = load_source(b.save(tmp_path / "m.onnx"))
    products = 6 * 8 * 8 * 3 * 3 * 3 + 4 * 384
    monkeypatch.setattr(correction, "_PRODUCTS", passes * 10 * products)
    assert samples_seen(monkeypatch, source, uniform(300, 3, 8, 8), 10) == [samples]


@pytest.mark.parametrize(
    ("hidden", "room", "samples"), [(0, 10, 16), (0, 20, 20), (0, 90, 64), (8, 10, 64)]
)
def test_of_wide_maps_a_quick_correction_takes_fewer(tmp_path, monkeypatch, hidden, room, samples):
    """But as many as before where a layer has but one value of each channel in a sample."""
    b = Builder((1, 24, 24))
    b.conv(4)
    b.relu()
    b.op("Flatten")
    b.gemm(hidden or 3, inputs=4 * 24 * 24)
    if hidden:
        b.relu()
        b.gemm(3)
    monkeypatch.setattr(correction, "_WIDE_VALUES", room * 4 * 24 * 24)
    monkeypatch.setattr(correction, "_PRODUCTS", 0)
    source = load_source(b.save(tmp_path / "m.onnx"))
    assert samples_seen(monkeypatch, source, uniform(80, 1, 24, 24), T) == [samples]


def test_a_layer_of_wide_maps_is_fitted_to_fewer_where_another_takes_all(tmp_path, monkeypatch):
    monkeypatch.setattr(cut, "_batch_size", lambda _graph, _data: 4)
    monkeypatch.setattr(correction, "_WIDE_VALUES", 0)
    monkeypatch.setattr(correction, "_PRODUCTS", 0)
    taken = []
    some = Bench.some
    monkeypatch.setattr(Bench, "some", lambda bench, few: taken.append(few) or some(bench, few))
    b = Builder((1, 24, 24))
    b.conv(4)
    b.relu()
    b.conv(4)
    b.relu()
    b.op("Flatten")
    b.gemm(8, inputs=4 * 24 * 24)
    b.relu()
    b.gemm(3)
    source = load_source(b.save(tmp_path / "m.onnx"))
    convert(source, dataset(x=uniform(80, 1, 24, 24)), timesteps=T)
    assert taken == [16, 16, 16, 512, 512, 512]
    taken.clear()
    convert(source, dataset(x=uniform(80, 1, 24, 24)), timesteps=T, correct=True)
    assert taken == [80] * 6


def test_from_too_few_values_nothing_is_learnt(tmp_path):
    b = Builder((6,))
    b.gemm(8)
    b.relu()
    b.gemm(8)
    b.relu()
    b.gemm(3)
    source = load_source(b.save(tmp_path / "m.onnx"))
    for samples, same in ((8, True), (64, False)):
        data = dataset(x=uniform(samples, 6))
        plain, quick = (convert(source, data, timesteps=T, correct=c).snn for c in (False, None))
        pairs = zip(plain.thresholds.values(), quick.thresholds.values(), strict=True)
        assert all(np.array_equal(*pair) for pair in pairs) is same


def test_other_constants_and_as_many_states(source):
    before, after = (
        convert(source, dataset(x=X), timesteps=T, correct=c).snn for c in (False, True)
    )
    assert [s.role for s in after.states] == [s.role for s in before.states]
    assert [snn.metadata["correction"] for snn in (before, after)] == ["none", "whole"]
    assert [layer.threshold for layer in after.layers] != [x.threshold for x in before.layers]


@pytest.mark.parametrize("structure", ["residual", "resnet-v1", "resnet-v2", "vgg"])
def test_biases_enter_weights_and_shifts_on_any_side_of_a_shortcut(tmp_path, structure):
    """What comes of it are plain neurons: no node more than before."""
    source = load_source(STRUCTURES[structure]().save(tmp_path / "m.onnx"))
    before, after = (
        convert(source, dataset(x=X), timesteps=T, correct=c).snn for c in (False, True)
    )
    assert len(after.model.graph.node) == len(before.model.graph.node)


def test_one_threshold_per_layer_stays_one(source):
    snn = convert(source, dataset(x=X), timesteps=T, correct=True, per_layer=True).snn
    assert all(np.ptp(theta) == 0 for theta in snn.thresholds.values())
    plain = convert(source, dataset(x=X), timesteps=T, per_layer=True).snn
    assert relative_error(source, snn) < relative_error(source, plain)


def test_data_and_progress(source):
    seen = []
    convert(
        source,
        dataset(x=X),
        timesteps=2,
        correct=True,
        progress=lambda *counts: seen.append(counts),
    )
    stages = 4 + 4  # layers of neurons, and of weights behind any
    assert seen[-stages:] == [(i, stages) for i in range(1, stages + 1)]


def test_the_source_is_left_as_it_is(source):
    before = source.model.SerializeToString()
    convert(source, dataset(x=X), timesteps=2, correct=True)
    assert source.model.SerializeToString() == before


@pytest.mark.parametrize("neuron", [n for n in RECTIFYING_NEURONS if n != "multi-threshold"])
@pytest.mark.parametrize("structure", ["mobilenet", "densenet"])
def test_every_neuron_comes_nearer(tmp_path, neuron, structure):
    """In a network with encoders too. (Multi-threshold neurons leave little to correct.)"""
    source = load_source(STRUCTURES[structure]().save(tmp_path / "m.onnx"))
    errors = []
    for correct in (False, True):
        snn = convert(
            source, dataset(x=X), timesteps=3, neuron=RECTIFYING_NEURONS[neuron](), correct=correct
        ).snn
        errors.append(relative_error(source, snn))
    assert errors[1] < errors[0]


def test_a_layer_that_reads_the_input(tmp_path):
    b = Builder((3, 8, 8))
    b.relu()
    b.conv(4)
    b.relu()
    b.op("Flatten")
    b.gemm(4, inputs=256)
    source = load_source(b.save(tmp_path / "m.onnx"))
    errors = [
        relative_error(source, convert(source, dataset(x=X), timesteps=3, correct=c).snn)
        for c in (False, True)
    ]
    assert errors[1] < errors[0]


@pytest.mark.parametrize("structure", STRUCTURES)
def test_every_structure_is_corrected(tmp_path, structure):
    source = load_source(STRUCTURES[structure]().save(tmp_path / "m.onnx"))
    (spec,) = source.inputs
    x = uniform(32, *spec.shape[1:])
    snn = convert(source, dataset(x=x), timesteps=4, correct=True).snn
    plain = convert(source, dataset(x=x), timesteps=4).snn
    assert relative_error(source, snn, x) < 1.2 * relative_error(source, plain, x)


def test_correction_needs_data(source):
    with pytest.raises(UsageError, match="corrected on data"):
        convert(source, correct=True)


def flattened_tokens():
    """Tokens of all samples along one axis."""
    b = Builder((5, 8))
    b.op("Reshape", "x", b.constant([-1, 8], np.int64))
    b.gemm(8, inputs=8)
    b.relu()
    b.gemm(8, inputs=8)
    b.relu()
    b.op("Reshape", b.last, b.constant([-1, 5, 8], np.int64))
    b.op("MatMul", b.last, b.normal(8, 8, scale=0.4))
    b.relu()
    b.op("MatMul", b.last, b.normal(8, 4, scale=0.4))
    return b


def sequence_first():
    b = Builder((5, 8))
    b.op("Transpose", "x", perm=[1, 0, 2])
    for _ in range(3):
        b.op("MatMul", b.last, b.normal(8, 8, scale=0.4))
        b.relu()
    b.op("Transpose", b.last, perm=[1, 0, 2])
    b.op("MatMul", b.last, b.normal(8, 4, scale=0.4))
    return b


def split_channels():
    """Half of the channels go on, both halves meet again."""
    b = Builder((3, 8, 8))
    b.conv(8)
    b.op("Sigmoid")
    second = f"t{len(b.nodes)}_1"
    first = b.op("Split", b.last, count=2, axis=1)
    b.channels, b.last = 4, second
    b.conv(4)
    b.op("Concat", first, second, b.relu(), axis=1)
    b.channels = 12
    b.conv(6)
    b.relu()
    b.head()
    return b


def rectified_branch():
    """A sum of a rectified branch, and of one whose weights come last."""
    b = Builder((3, 8, 8))
    b.conv(6)
    trunk = b.relu()
    b.conv(6)
    branch = b.relu()
    b.last = trunk
    b.op("Add", branch, b.conv(6))
    b.relu()
    b.conv(6)
    b.relu()
    b.head()
    return b


GRAPHS = STRUCTURES | {
    f.__name__: f for f in (flattened_tokens, sequence_first, split_channels, rectified_branch)
}


@pytest.mark.parametrize("correct", [None, True])
@pytest.mark.parametrize("graph", GRAPHS)
def test_what_is_observed_from_records_is_what_the_networks_give(
    tmp_path, monkeypatch, graph, correct
):
    """Wherever it is observed: records are of what has been changed, and of all samples."""
    source = load_source(GRAPHS[graph]().save(tmp_path / "m.onnx"))
    (spec,) = source.inputs
    monkeypatch.setattr(Bench, "observe", checked(Bench.observe))
    monkeypatch.setattr(Bench, "observe_means", checked_means(Bench.observe_means))
    snn = convert(source, dataset(x=uniform(60, *spec.shape[1:])), timesteps=3, correct=correct).snn
    assert snn.metadata["correction"] == ("whole" if correct else "quick")


def checked(observe):
    """`Bench.observe`, which compares what it gives with what comes of no records."""

    def observed(bench, names, wanted=None):
        pieces = [(list(steps), values) for steps, values in observe(bench, names, wanted)]
        records, bench._records = bench._records, {}
        fresh = [(list(steps), values) for steps, values in observe(bench, names, wanted)]
        bench._records = records
        for (steps, values), (expected_steps, expected) in zip(pieces, fresh, strict=True):
            for i in range(len(names)):
                currents, others = (np.stack([s[i] for s in x]) for x in (steps, expected_steps))
                np.testing.assert_allclose(currents, others, atol=1e-4 * np.abs(others).max())
                assert wanted or values[i].shape == currents.shape[1:]
            for value, other in zip(values, expected, strict=True):
                np.testing.assert_allclose(value, other, atol=1e-4)
        yield from ((iter(steps), values) for steps, values in pieces)

    return observed


def checked_means(observe_means):
    """`Bench.observe_means`, which compares what it gives with the means of all steps."""

    def observed(bench, names, wanted):
        whole = [([*steps], values) for steps, values in bench.observe(names, wanted)]
        for (means, values), (steps, others) in zip(
            observe_means(bench, names, wanted), whole, strict=True
        ):
            for i, mean in enumerate(means):
                expected = np.mean([step[i] for step in steps], axis=0)
                np.testing.assert_allclose(mean, expected, atol=1e-4 * np.abs(expected).max())
            for value, other in zip(values, others, strict=True):
                np.testing.assert_array_equal(value, other)
            yield means, values

    return observed


def test_samples_in_order_of_class_are_all_learnt_from(source, monkeypatch):
    taken = []
    monkeypatch.setattr(correction, "_PRODUCTS", 0)
    monkeypatch.setattr(
        correction,
        "Bench",
        lambda graph, reference, data, *rest: (
            taken.append(data.inputs["x"][:, 0, 0, 0]) or Bench(graph, reference, data, *rest)
        ),
    )
    x = np.repeat(np.arange(200, dtype=np.float32), 3 * 8 * 8).reshape(200, 3, 8, 8) / 200
    convert(source, dataset(x=x), timesteps=400)
    assert taken[0].min() == 0
    assert taken[0].max() > 0.95
    np.testing.assert_allclose(np.diff(taken[0]), 1 / 32, atol=1 / 199)


def test_samples_left_out_for_want_of_room_are_said(source, monkeypatch):
    monkeypatch.setattr(cut, "_batch_size", lambda _graph, _data: 4)
    monkeypatch.setattr(cut, "_RECORDED", 2**16)
    done = actions(source, data=dataset(x=X))
    assert 0 < done["samples left out, for want of room"] < len(X)
    assert done["layers fitted to their currents"] == 4


def test_classes_as_an_output_are_not_compared(tmp_path):
    b = residual_network()
    logits = b.last
    classes = b.op("ArgMax", axis=1)
    for outputs in ((logits, classes), (classes,)):
        source = load_source(b.save(tmp_path / "m.onnx", *outputs))
        snn = convert(source, dataset(x=X[:20]), timesteps=2, correct=True).snn
        assert list(snn.outputs) == list(outputs)
