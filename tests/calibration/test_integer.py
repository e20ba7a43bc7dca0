"""The integer SNN of real networks: what 8 bits cost, measured, and that it is little."""

import numpy as np
import pytest

from onnxsnn import Runner, convert, load_source
from onnxsnn.calibration.integer import integer_network
from onnxsnn.demo import demo_data, demo_source
from onnxsnn.neurons import RECTIFYING_NEURONS, IntegrateAndFire
from onnxsnn.session import Session
from onnxsnn.source import Source
from tests.models import Builder, dataset, uniform
from tests.networks import unet


def accuracy(snn, data):
    runner, right = Runner(snn), 0
    for feeds, labels in data.batches(200):
        right += np.count_nonzero(runner.run(feeds).outputs["logits"].argmax(axis=1) == labels)
    return right / len(data)


@pytest.mark.parametrize("neuron", RECTIFYING_NEURONS)
def test_eight_bits_cost_the_demo_a_point_at_most(neuron):
    calibration, test = demo_data()
    levels = {"levels": 4} if neuron in ("burst", "multi-threshold") else {}
    options = {"timesteps": 8, "neuron": RECTIFYING_NEURONS[neuron](**levels)}
    plain = convert(demo_source(), calibration, **options).snn
    rounded = convert(demo_source(), calibration, **options, integer=True).snn
    assert abs(accuracy(rounded, test) - accuracy(plain, test)) <= 0.01


def test_cost_is_that_of_running_both():
    calibration, _ = demo_data()
    plain = convert(demo_source(), calibration, timesteps=4).snn
    found = integer_network(plain, demo_source(), calibration)
    feeds = next(calibration.batches(len(calibration)))[0]
    before, after = (Runner(snn).run(feeds).outputs["logits"] for snn in (plain, found.snn))
    cost = found.cost
    assert cost.samples == len(calibration)
    assert not cost.random
    assert cost.agreement == pytest.approx(np.mean(before.argmax(1) == after.argmax(1)), abs=0.01)
    error = np.linalg.norm(after - before) / np.linalg.norm(before)
    assert cost.error == pytest.approx(error, rel=0.1)
    classes = Session(demo_source().model).run(feeds)["logits"].argmax(1)
    assert cost.ann_agreement == pytest.approx(np.mean(after.argmax(1) == classes), abs=0.005)
    assert cost.snn_agreement == pytest.approx(np.mean(before.argmax(1) == classes), abs=0.005)
    assert found.snn.metadata["integer"]["agreement"] == cost.agreement


def test_outputs_that_are_no_classes_have_an_error_alone():
    source = Source(unet().model(), "", [])
    snn = convert(source, dataset(x=uniform(4, 3, 8, 8)), timesteps=4, integer=True).snn
    cost = snn.metadata["integer"]
    assert cost["agreement"] is cost["ann_agreement"] is None
    assert 0 < cost["error"] < 0.2


def test_an_output_that_is_one_number_is_compared_batch_by_batch():
    b = Builder((4,))
    b.gemm(3)
    b.relu()
    source = Source(b.model(b.op("ReduceMean", keepdims=0)), "", [])
    snn = convert(source, dataset(x=uniform(120, 4)), timesteps=4, integer=True).snn
    assert snn.metadata["integer"]["agreement"] is None
    assert 0 <= snn.metadata["integer"]["error"] < 0.2


def test_without_data_the_cost_is_that_on_noise():
    b = Builder((2, 6, 6))
    b.conv(4)
    b.clip(2.0)
    b.conv(4)
    b.clip(2.0)
    b.head()
    snn = convert(Source(b.model(), "", []), neuron=IntegrateAndFire(), integer=True).snn
    assert snn.metadata["integer"]["random"]
    assert snn.metadata["integer"]["samples"] == 64


def small():
    b = Builder((4,))
    b.gemm(5, inputs=4)
    b.relu()
    b.gemm(3)
    return b


def cost_of(b, *outputs):
    source, data = Source(b.model(*outputs), "", []), dataset(x=uniform(20, 4))
    return convert(source, data, timesteps=2, integer=True).snn.metadata["integer"]


def test_it_takes_few_of_many_samples_twice_and_says_how_far_it_is():
    source, data, seen = Source(small().model(), "", []), dataset(x=uniform(300, 4)), []
    plain = convert(source, data, timesteps=2).snn
    cost = integer_network(plain, source, data, lambda *counts: seen.append(counts)).cost
    assert cost.samples == 256
    assert seen == sorted(seen)
    assert seen[-1] == (512, 512)


def test_outputs_that_are_zero_in_both_err_by_nothing():
    b = small()
    b.op("Mul", b.last, b.constant(0.0))
    assert cost_of(b)["error"] == 0


def test_outputs_that_were_zero_and_are_not_have_no_error(tmp_path):
    b = Builder((4,))
    b.op("MatMul", "x", b.constant(np.eye(4)))
    b.clip(1.0)
    b.op("MatMul", b.last, b.constant([[-42.375], [-42.375], [-42.25], [127]]))  # rounded, 1
    b.clip(1.0)
    b.op("MatMul", b.last, b.constant([[1.0]]))
    source = load_source(b.save(tmp_path / "m.onnx"))
    snn = convert(source, timesteps=4, threshold="trained").snn
    x = np.ones((8, 4), np.float32)
    found = integer_network(snn, source, dataset(x=x))
    assert not Runner(snn).run(x).outputs[b.last].any()
    assert Runner(found.snn).run(x).outputs[b.last].all()
    assert found.cost.error is None


def test_whole_numbers_have_no_error():
    b = small()
    b.op("ArgMax", axis=1)
    assert cost_of(b)["error"] is None


def test_classes_are_those_of_the_first_output():
    b = small()
    scores = b.last
    mean = b.op("ReduceMean", scores, axes=[1], keepdims=0)
    assert cost_of(b, mean, scores)["agreement"] is None
    assert cost_of(b, scores, mean)["agreement"] > 0.5


def test_outputs_of_as_many_values_as_are_found_have_no_cost():
    b = small()
    flat = b.op("Reshape", b.last, b.constant([-1], np.int64))
    b.op("Compress", flat, b.op("Greater", flat, b.constant(0.0)))
    cost = cost_of(b)
    assert cost["agreement"] is cost["error"] is None
