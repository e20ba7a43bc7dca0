"""Calibration without data: noise at the normalizations."""

import numpy as np
import onnx
import pytest

from onnxsnn.calibration.observe import calibrate
from onnxsnn.calibration.synthetic import cut_at_normalized, noise, noise_samples
from onnxsnn.errors import UnsupportedError
from onnxsnn.passes.clean import clean
from onnxsnn.passes.fold_normalization import fold_normalization
from onnxsnn.passes.relu_to_ratenorm import relu_to_ratenorm
from tests.models import Builder


def prepared(b):
    graph, _ = clean(b.graph())
    moments = fold_normalization(graph).moments
    relu_to_ratenorm(graph)
    return graph, moments


def test_statistics_behind_a_batchnorm_are_its_beta_and_gamma():
    b = Builder((3, 8, 8))
    b.conv(2)
    gamma, beta = b.constant([2.0, -0.5]), b.constant([0.5, -1.0])
    b.op("BatchNormalization", b.last, gamma, beta, b.constant([3, 4]), b.constant([5, 6]))
    b.relu()
    graph, moments = prepared(b)
    cut = cut_at_normalized(graph, moments)
    assert len(cut.inputs) == 1  # the model's own input is not needed any more
    (statistics,) = calibrate(cut, noise(cut, moments)).values()
    np.testing.assert_allclose(statistics.mean, [0.5, -1.0], atol=0.15)
    np.testing.assert_allclose(statistics.std, [2.0, 0.5], rtol=0.1)


def test_layers_without_batchnorm_see_what_follows_from_those_with():
    b = Builder((3, 8, 8))
    b.conv(4)
    b.batchnorm()
    first = b.relu()
    b.conv(4)
    b.batchnorm()
    b.op("Add", b.last, first)
    b.relu()
    graph, moments = prepared(b)
    statistics = calibrate(cut := cut_at_normalized(graph, moments), noise(cut, moments))
    assert len(statistics) == 2
    assert all(each.active.any() for each in statistics.values())


def test_noise_is_always_the_same():
    graph, moments = prepared(relu())
    first, second = (list(noise(graph, moments)) for _ in range(2))
    for left, right in zip(first, second, strict=True):
        np.testing.assert_array_equal(left["x"], right["x"])


def relu():
    b = Builder((3,))
    b.relu()
    return b


def test_wide_maps_take_fewer_samples():
    counts = []
    for size in (8, 1000, 5000):
        b = Builder((1, size, size))
        b.relu()
        graph, moments = prepared(b)
        counts.append(noise_samples(graph))
        if size < 1000:
            assert sum(len(feeds["x"]) for feeds in noise(graph, moments)) == counts[0]
    assert counts == [256, 128, 16]


def test_input_of_unknown_size_needs_data():
    b = Builder((3, "H", "W"))
    b.conv(4)
    b.relu()
    graph, moments = prepared(b)
    with pytest.raises(UnsupportedError, match=r"'x'.*cannot be resolved.*--data"):
        next(noise(graph, moments))


def test_a_single_number_is_no_noise():
    b = Builder((4,))
    b.inputs.append(onnx.helper.make_tensor_value_info("gain", onnx.TensorProto.FLOAT, []))
    b.op("Mul", b.gemm(8), "gain")
    b.relu()
    graph, moments = prepared(b)
    with pytest.raises(UnsupportedError, match=r"'gain' takes a single number.*fix-inputs"):
        next(noise(graph, moments))


def test_noise_for_whole_numbers_is_zeros_and_ones():
    b = Builder((5,))
    b.inputs[0].type.tensor_type.elem_type = onnx.TensorProto.INT64
    b.op("Gather", b.normal(2, 3), "x")
    b.relu()
    values = next(noise(b.graph(), {}))["x"]
    assert values.dtype == np.int64
    assert set(np.unique(values)) == {0, 1}
