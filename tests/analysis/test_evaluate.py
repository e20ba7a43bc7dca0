"""evaluate: accuracy, agreement, error, rates and spikes at every timestep."""

from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import onnx
import pytest

from onnxsnn import Dataset, Runner, convert, evaluate, load_source
from onnxsnn.analysis import evaluate as evaluation
from onnxsnn.analysis.layers import analyse
from onnxsnn.errors import DataError, UsageError
from onnxsnn.runtime import time_batched
from onnxsnn.session import Session
from tests.models import Builder, dataset, uniform
from tests.networks import residual_network

X = uniform(120, 3, 8, 8)  # more than two batches


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    """The SNN, its source, and the ANN's own classes as labels."""
    path = residual_network().save(tmp_path_factory.mktemp("evaluate") / "model.onnx")
    source = load_source(path)
    snn = convert(source, dataset(x=X[:32]), timesteps=8).snn
    labels = Session(source.model).run({"x": X})[snn.outputs[0]].argmax(axis=1)
    return snn, source, labels


def test_rows_are_what_a_run_gives(network):
    snn, source, labels = network
    wrong = np.where(np.arange(len(X)) < 30, (labels + 1) % 4, labels)
    result = evaluate(snn, Dataset({"x": X}, wrong), ann=source)
    assert [row.timesteps for row in result.rows] == list(range(1, 9))
    assert result.samples == len(X)
    assert result.ann_accuracy == pytest.approx(0.75)

    runner = Runner(snn, rates=True)
    every = runner.run(X, 8, every_step=True).every_step
    expected = Session(source.model).run({"x": X})[snn.outputs[0]]
    for row, outputs in zip(result.rows, every, strict=True):
        values = outputs[snn.outputs[0]]
        assert row.accuracy == pytest.approx(np.mean(values.argmax(1) == wrong))
        assert row.agreement == pytest.approx(np.mean(values.argmax(1) == labels))
        error = np.linalg.norm(values - expected) / np.linalg.norm(expected)
        assert row.error == pytest.approx(error, rel=1e-4)
    total = sum(counts.sum() for counts in runner.spikes.values())
    assert result.rows[-1].spikes == pytest.approx(total / len(X))
    for layer, rate in runner.rates().items():
        assert result.layer_rates[layer] == pytest.approx(rate)


def test_spikes_grow_and_error_shrinks(network):
    snn, source, _ = network
    rows = evaluate(snn, dataset(x=X), ann=source, timesteps=32).rows
    assert all(a.spikes <= b.spikes for a, b in pairwise(rows))
    assert rows[-1].error < rows[0].error
    assert rows[0].accuracy is None


def test_rates_of_layers_are_of_all_steps_beside_early_exit_too(network):
    snn, source, _ = network
    plain, early = (
        evaluate(snn, dataset(x=X[:24]), ann=source, margin=margin) for margin in (None, 0.01)
    )
    assert early.early_exit.saved > 0
    assert early.layer_rates == plain.layer_rates


def test_early_exit_saves_nothing_where_nothing_fires(tmp_path):
    b = Builder((4,))
    b.op("MatMul", "x", b.constant(np.eye(4)))
    b.relu()
    b.gemm(3)
    source = load_source(b.save(tmp_path / "m.onnx"))
    snn = convert(source, dataset(x=uniform(8, 4)), timesteps=4, correct=False).snn
    result = evaluate(snn, dataset(x=np.zeros((4, 4), np.float32)), ann=source, margin=0.0)
    assert result.rows[-1].spikes == 0
    assert result.early_exit.saved == 0


def test_without_an_ann_there_is_accuracy_only(network):
    snn, _, labels = network
    row = evaluate(snn, Dataset({"x": X}, labels)).rows[-1]
    assert row.accuracy is not None
    assert row.agreement is None
    assert row.error is None


def test_outputs_without_classes_have_an_error_only(tmp_path):
    b = Builder((3, 8, 8))
    b.conv(4)
    b.relu()
    b.conv(2)
    source = load_source(b.save(tmp_path / "m.onnx"))
    snn = convert(source, dataset(x=X[:8])).snn
    row = evaluate(snn, dataset(x=X[:8]), ann=source).rows[-1]
    assert row.agreement is None
    assert row.error > 0
    with pytest.raises(DataError, match="one score per class"):
        evaluate(snn, Dataset({"x": X[:8]}, np.zeros(8, np.int64)), ann=source)


def test_label_that_is_no_class_is_refused(network):
    snn, _, labels = network
    with pytest.raises(DataError, match="label 9 is no class of the model, which has 4"):
        evaluate(snn, Dataset({"x": X}, np.full_like(labels, 9)))


def test_nothing_to_compare_with_is_refused(network):
    with pytest.raises(UsageError, match="nothing to compare"):
        evaluate(network[0], dataset(x=X))
    with pytest.raises(UsageError, match="1 or more"):
        evaluate(network[0], dataset(x=X), ann=network[1], timesteps=0)
    with pytest.raises(UsageError, match="snn: takes a SpikingModel, and str came"):
        evaluate("m.snn.onnx", dataset(x=X), ann=network[1])


def test_progress_is_told(network):
    seen = []
    evaluate(network[0], dataset(x=X), ann=network[1], progress=lambda *a: seen.append(a))
    assert seen == [(50, 120), (100, 120), (120, 120)]


def test_ann_of_other_outputs_is_refused(network, tmp_path):
    b = Builder((3, 8, 8))
    b.conv(4)
    b.relu()
    other = load_source(b.save(tmp_path / "other.onnx"))
    with pytest.raises(DataError, match="outputs"):
        evaluate(network[0], dataset(x=X), ann=other)


def test_ann_of_other_inputs_is_refused(network, tmp_path):
    b = Builder((3, 8, 8))
    b.conv(4)
    b.head()
    model = onnx.load(b.save(tmp_path / "other.onnx"))
    model.graph.input[0].name = model.graph.node[0].input[0] = "image"
    onnx.save(model, tmp_path / "other.onnx")
    with pytest.raises(DataError, match=r"SNN's inputs are \['x'\], and the ANN's \['image'\]"):
        evaluate(network[0], dataset(x=X), ann=load_source(tmp_path / "other.onnx"))


def test_ann_whose_outputs_have_another_shape_is_refused(network, tmp_path):
    b = Builder((3, 8, 8))
    b.conv(4)
    b.head(1)
    while b.last != network[0].outputs[0]:
        b.op("Identity")
    other = load_source(b.save(tmp_path / "other.onnx"))
    with pytest.raises(DataError, match=r"\[50, 4\] in the SNN, and \[50, 1\] in the ANN"):
        evaluate(network[0], dataset(x=X), ann=other)


@pytest.mark.parametrize("samples", [1, 2, 20])
def test_samples_behind_another_axis_are_those_of_an_ann_that_takes_one_at_a_time(samples):
    """It gives [20, 1, 3] of each; the SNN gives [20, samples, 3] of several."""
    together = uniform(20, samples, 3)
    one_by_one = np.stack([together[:, [sample]] for sample in range(samples)])
    assert evaluation.squared_error({"y": together}, {"y": one_by_one}) == 0
    assert evaluation.squared_error({"y": together + 1}, {"y": one_by_one}) == pytest.approx(
        together.size, rel=1e-5
    )


def test_rows_of_samples_are_those_of_an_snn_that_has_them_in_front():
    """A state, say: the ANN gives [2, 1, 3] of each of four samples, and so [8, 1, 3]."""
    together = uniform(4, 2, 1, 3)
    assert evaluation.squared_error({"y": together}, {"y": together.reshape(8, 1, 3)}) == 0
    with pytest.raises(DataError, match="give the ANN that it was converted from"):
        evaluation.squared_error({"y": together}, {"y": together[:3].reshape(6, 1, 3)})


def test_ann_of_another_batch_than_it_declares_is_refused(network, tmp_path):
    b = Builder((3, 8, 8))
    b.op("Reshape", "x", b.constant([2, -1], np.int64))
    b.op("MatMul", b.last, b.normal(25 * 192, 4))
    while b.last != network[0].outputs[0]:
        b.op("Identity")
    other = load_source(b.save(tmp_path / "other.onnx"))
    with pytest.raises(DataError, match="holds 2 rows for 50 samples"):
        evaluate(network[0], dataset(x=X[:50]), ann=other)


def test_speedup_counts_runs_and_neither_sessions_nor_measures(network, monkeypatch):
    now = [0.0]

    def takes(seconds, place, name):
        function = getattr(place, name)

        def slow(*arguments, **options):
            now[0] += seconds
            return function(*arguments, **options)

        monkeypatch.setattr(place, name, slow)

    takes(1000.0, time_batched, "make_session")
    takes(1000.0, evaluation, "squared_error")
    takes(1.0, time_batched, "run_bound")
    monkeypatch.setattr(evaluation, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    snn, source, _ = network
    early = evaluate(snn, dataset(x=X[:5]), ann=source, margin=np.inf).early_exit
    assert early.speedup == pytest.approx(2 / 5)  # before the steps; all at once, or 4


@pytest.mark.parametrize("to", [onnx.TensorProto.BOOL, onnx.TensorProto.UINT8])
def test_outputs_of_truths_and_of_unsigned_numbers_have_an_error(tmp_path, to):
    b = Builder((6,))
    b.gemm(8)
    b.relu()
    b.gemm(3)
    b.relu()
    b.op("Cast", to=to)
    source = load_source(b.save(tmp_path / "m.onnx"))
    data = dataset(x=3 * uniform(20, 6))
    snn = convert(source, data, timesteps=2).snn
    error = evaluate(snn, data, ann=source).rows[-1].error
    expected = Session(source.model).run(data.inputs)[snn.outputs[0]].astype(float)
    found = Runner(snn).run(data.inputs).outputs[snn.outputs[0]].astype(float)
    assert (found < expected).any()
    wanted = np.linalg.norm(found - expected) / np.linalg.norm(expected)
    assert error == pytest.approx(wanted)
    assert analyse(snn, data, source).plain.error == pytest.approx(wanted)


def test_an_ann_that_gives_nan_says_so(tmp_path):
    b = Builder((6,))
    b.gemm(8)
    b.relu()
    scores = b.gemm(3)
    b.op("Log", scores)
    source = load_source(b.save(tmp_path / "m.onnx", scores, b.last))
    data = dataset(x=uniform(20, 6))
    result = evaluate(convert(source, data, timesteps=2).snn, data, ann=source)
    assert result.rows[-1].error is None
    assert any("no number" in line for line in result.warnings)
