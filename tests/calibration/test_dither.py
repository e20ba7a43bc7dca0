"""Initial potentials that alternate, and where a correction keeps them."""

import numpy as np
import pytest

from onnxsnn import Runner, SpikingModel, convert, load_source
from onnxsnn.calibration import correct as correction
from onnxsnn.calibration.dither import alternates, alternations, are_alike, are_mixed, behind
from onnxsnn.neurons import IntegrateAndFire, MultiThreshold, SignedIntegrateAndFire
from onnxsnn.passes.relu_to_ratenorm import relu_to_ratenorm
from onnxsnn.ratenorm import rate_norms
from onnxsnn.session import Session
from tests.models import Builder, dataset, uniform


def test_neighbours_along_every_axis_differ_ever_more_and_the_mean_is_zero():
    found = list(alternations(["N", 2, 8, 10]))
    assert np.all(np.diff([np.abs(amounts).max() for amounts in found]) > 0)
    for amounts in found:
        assert amounts.shape == (1, 2, 8, 10)
        assert amounts.dtype == np.float32
        for axis in (1, 2, 3):
            assert np.array_equal(np.delete(amounts, -1, axis), -np.delete(amounts, 0, axis))
        assert np.all(amounts != 0)
        assert amounts.mean() == 0


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        (["N", 2, 8, 8], True),
        (["N", 2, 64], True),
        (["N", 2, 8, 7], False),
        (["N", 2, None, 8], False),
        (["N", 2, "h", "w"], False),
        (["N", None, 8, 8], False),
        (["N", 64], False),
        (["N"], False),
        ([], False),
        (None, False),
    ],
)
def test_large_maps_of_known_sizes_alternate(shape, expected):
    assert alternates(shape) == expected


def test_the_next_neurons_and_outputs_that_no_later_ones_have_a_say_in():
    b = Builder((3, 8, 8))
    b.conv(8)
    spikes = b.relu()
    b.op("MaxPool", kernel_shape=[2, 2])
    b.conv(4)
    pooled = b.relu()
    b.channels, b.last = 8, spikes
    shallow = b.conv(4, kernel=1)
    b.channels, b.last = 8, spikes
    b.conv(8)
    next_one = b.relu()
    b.op("Concat", spikes, next_one, axis=1)
    b.channels = 16
    b.conv(4)
    deep = b.relu()
    graph = b.graph(pooled, shallow, deep)
    relu_to_ratenorm(graph)
    first, *later = rate_norms(graph)
    assert set(behind(graph, first.outputs[0], later)) == {pooled, shallow, next_one}


def shifted(b):
    b.op("Add", b.op("Mul", b.last, b.constant(2.0)), b.constant(1.0))
    b.conv(4, kernel=1)


def beside(b):
    spikes = b.last
    b.conv(8, kernel=1)
    b.op("Concat", spikes, b.last, axis=1)


def residual(b):
    spikes = b.last
    b.conv(8, kernel=1)
    b.op("Add", spikes, b.conv(8))


@pytest.mark.parametrize(
    ("read", "expected"),
    [
        (lambda b: b.conv(4, kernel=1), False),
        (shifted, False),
        (beside, False),
        (lambda b: b.conv(4), True),
        (lambda b: b.conv(8, group=8), True),
        (lambda b: b.op("MaxPool", kernel_shape=[2, 2]), True),
        (lambda b: b.op("GlobalAveragePool"), True),
        (residual, True),
    ],
)
def test_what_reads_several_positions_at_once_mixes_them(read, expected):
    b = Builder((3, 8, 8))
    b.conv(8)
    b.relu()
    read(b)
    b.relu()
    b.conv(2)  # behind the next neurons, it does not count
    graph = b.graph(b.last)
    relu_to_ratenorm(graph)
    assert are_mixed(rate_norms(graph)[0].outputs[0]) == expected


@pytest.mark.parametrize(("size", "samples"), [(8, 64), (32, 64), (64, 16), (128, 4), (160, 4)])
def test_large_maps_are_judged_by_fewer_samples(tmp_path, monkeypatch, size, samples):
    b = Builder((1, size, size))
    b.conv(64)
    b.relu()
    b.op("AveragePool", kernel_shape=[4, 4], strides=[4, 4])
    asked = []
    monkeypatch.setattr(correction, "are_alike", lambda _: True)
    monkeypatch.setattr(correction, "_error", lambda *given: asked.append(given[-1]) or 0.0)
    convert(b.save(tmp_path / "m.onnx"), dataset(x=uniform(4, 1, size, size)), timesteps=2)
    assert set(asked) == {samples}


@pytest.mark.parametrize("correct", [None, True])
def test_maps_that_are_read_pixel_by_pixel_go_without(tmp_path, correct):
    b = Builder((1, 16, 16))
    b.conv(8, kernel=1)
    b.relu()
    b.conv(1, kernel=1)
    snn = convert(b.save(tmp_path / "m.onnx"), dataset(x=smooth(0)), timesteps=2, correct=correct)
    for state in snn.snn.states:
        assert np.asarray(state.default).shape[2:] in ((), (1, 1))


def smooth(seed, channels=1):
    """Images whose neighbouring pixels are alike, [N, C, 16, 16]."""
    x = uniform(200, channels, 16, 16, seed=seed).cumsum(2).cumsum(3)
    return ((x - x.mean()) / x.std()).astype(np.float32)


def test_neighbours_are_alike_in_pictures_along_every_axis():
    noise = uniform(200, 2, 16, 16)
    assert are_alike(smooth(0, 2))
    assert are_alike(noise.cumsum(2)[:, :, :, 0])
    assert not are_alike(noise)
    assert not are_alike(noise.cumsum(2))
    assert not are_alike(noise.cumsum(3))
    assert not are_alike(np.ones_like(noise))


def pooled(path):
    """A network whose outputs are of means over 4 x 4 neighbours."""
    b = Builder((1, 16, 16))
    b.conv(8)
    b.relu()
    b.op("AveragePool", kernel_shape=[4, 4], strides=[4, 4])
    b.op("Flatten")
    b.gemm(4, inputs=8 * 4 * 4)
    return load_source(b.save(path))


def error(source, snn, x):
    """The squared error of the SNN's outputs."""
    (values,) = Runner(snn).run(x, snn.timesteps).outputs.values()
    (expected,) = Session(source.model).run({"x": x}).values()
    return np.square(values - expected).sum()


def by_position(snn):
    """How many layers start with a potential of its own for every position."""
    return sum(s.role == "potential" and s.default[0, 0].size > 1 for s in snn.states)


@pytest.mark.parametrize("way", [{"correct": True, "timesteps": 2}, {"timesteps": 4}])
@pytest.mark.parametrize("neuron", [IntegrateAndFire(), SignedIntegrateAndFire()])
def test_images_that_were_not_seen_come_nearer_to_the_ann(tmp_path, monkeypatch, neuron, way):
    source = pooled(tmp_path / "m.onnx")
    options = {"neuron": neuron, **way}
    snn = convert(source, dataset(x=smooth(0)), **options).snn
    monkeypatch.setattr(correction, "alternates", lambda _: False)
    without = convert(source, dataset(x=smooth(0)), **options).snn
    assert (by_position(snn), by_position(without)) == (1, 0)
    assert error(source, snn, smooth(1)) < 0.9 * error(source, without, smooth(1))


@pytest.mark.parametrize("correct", [None, True])
def test_many_sizes_or_steps_and_maps_of_noise_go_without(tmp_path, correct):
    source = pooled(tmp_path / "m.onnx")
    fine = {"timesteps": 2, "correct": correct, "neuron": MultiThreshold(levels=4)}
    assert by_position(convert(source, dataset(x=smooth(0)), **fine).snn) == 0
    if correct is None:
        assert by_position(convert(source, dataset(x=smooth(0)), timesteps=9).snn) == 0
    noise = dataset(x=uniform(200, 1, 16, 16))
    assert by_position(convert(source, noise, timesteps=2, correct=correct).snn) == 0


def test_an_output_of_one_number_for_all_samples_judges_nothing(tmp_path):
    b = Builder((1, 16, 16))
    b.conv(8)
    b.relu()
    b.op("ReduceMean", keepdims=0)
    source = load_source(b.save(tmp_path / "m.onnx"))
    assert by_position(convert(source, dataset(x=smooth(0)), timesteps=2).snn) == 0


def test_a_file_keeps_them(tmp_path):
    source, x = pooled(tmp_path / "m.onnx"), smooth(1)
    snn = convert(source, dataset(x=smooth(0)), timesteps=2, correct=True).snn
    snn.save(tmp_path / "s.onnx")
    loaded = SpikingModel.load(tmp_path / "s.onnx")
    assert by_position(loaded) == 1
    assert error(source, loaded, x) == error(source, snn, x)
