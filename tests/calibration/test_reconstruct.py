"""reconstruct_weights: a layer makes up for what the spikes before it do wrong."""

import numpy as np
import pytest

from onnxsnn.calibration.cut import Bench
from onnxsnn.calibration.reconstruct import (
    _Observations,
    _regression,
    _Ridge,
    fitted_tensor,
    reconstruct_weights,
)
from onnxsnn.neurons import IntegrateAndFire
from onnxsnn.passes.relu_to_ratenorm import relu_to_ratenorm
from onnxsnn.ratenorm import rate_norms, set_threshold
from onnxsnn.weights import weight_layer
from tests.models import Builder, dataset, outputs_of, uniform

T = 4
OBSERVATIONS, EQUATIONS = 2**13, 2**9


def prepared(builder, thresholds):
    """A graph with these thresholds, layer by layer, and the ANN."""
    graph = builder.graph()
    relu_to_ratenorm(graph)
    reference = graph.copy()
    for node, theta in zip(rate_norms(graph), thresholds, strict=True):
        shape = node.inputs[1].values.shape
        set_threshold(graph, node, np.broadcast_to(theta, shape).astype(np.float32))
    return graph, reference


def fit_last(graph, reference, x, waiting=(), equations=EQUATIONS):
    bench = Bench(graph, reference, dataset(x=x), IntegrateAndFire(), T)
    *_, node = (n for n in graph.nodes if weight_layer(graph, n) is not None)
    target = fitted_tensor(graph, node, waiting)
    layer = weight_layer(graph, node)
    return reconstruct_weights(bench, layer, target, OBSERVATIONS, equations)


def mean_and_target(graph, reference, name, x):
    """A tensor's mean in the SNN, and its value in the ANN."""
    bench = Bench(graph, reference, dataset(x=x), IntegrateAndFire(), T)
    pieces = [
        (np.mean([current for (current,) in steps], axis=0), value)
        for steps, (value,) in bench.observe([name])
    ]
    return [np.concatenate(column) for column in zip(*pieces, strict=True)]


def error(graph, reference, x):
    """Of the SNN, squared, against the ANN."""
    mean, target = mean_and_target(graph, reference, graph.outputs[0].name, x)
    return float(np.square(mean - target).mean())


def two_layers():
    b = Builder((3, 8, 8))
    b.conv(6)
    b.relu()
    b.conv(4)
    return b


@pytest.mark.parametrize("theta", [0.4, 1.0, 3.0])
def test_clipped_and_rounded_rates_are_made_up_for(theta):
    """On samples that were not seen."""
    graph, reference = prepared(two_layers(), [theta])
    fresh = uniform(50, 3, 8, 8, seed=1)
    before = error(graph, reference, fresh)
    assert fit_last(graph, reference, uniform(60, 3, 8, 8))
    assert error(graph, reference, fresh) < 0.97 * before


@pytest.mark.parametrize(("kernel", "stride", "group"), [(2, 2, 1), (3, 2, 2), (3, 1, 3)])
def test_transposed_convolution_makes_up_for_them_too(kernel, stride, group):
    b = Builder((3, 6, 6))
    b.conv(6)
    b.relu()
    b.conv_transpose(6, kernel, group, stride)
    graph, reference = prepared(b, [0.4])
    fresh = uniform(50, 3, 6, 6, seed=1)
    before = error(graph, reference, fresh)
    assert fit_last(graph, reference, uniform(60, 3, 6, 6))
    assert error(graph, reference, fresh) < 0.9 * before


def test_inputs_of_a_transposed_convolution_are_seen_as_often_as_those_of_others():
    """Of a stride of 2, every fourth row holds an input: four times as many are looked at."""
    b = Builder((3, 6, 6))
    b.conv(8)
    b.relu()
    b.conv_transpose(6, kernel=4, stride=2)
    x, fresh, errors = uniform(60, 3, 6, 6), uniform(50, 3, 6, 6, seed=1), []
    for equations in (16, 32, 128):
        graph, reference = prepared(b, [0.4])
        fit_last(graph, reference, x, equations=equations)
        errors.append(error(graph, reference, fresh))
    assert errors[1] == errors[2] < 0.9 * errors[0]


def activation_error(graph, reference, x):
    """As `error`, behind the rectifier that reads the last layer of weights."""
    *_, node = (n for n in graph.nodes if weight_layer(graph, n) is not None)
    mean, target = mean_and_target(graph, reference, node.outputs[0].name, x)
    return float(np.square(np.maximum(mean, 0) - np.maximum(target, 0)).mean())


def with_rectifier(rectified):
    """Two layers, whose second output one rectifier reads, or another node too."""
    b = two_layers()
    second = b.last
    b.relu()
    if not rectified:
        b.op("Add", b.last, second)
    return b


def test_what_a_rectifier_clips_need_not_be_met():
    """Weights that may give any negative value for one give the others better."""
    fresh, errors = uniform(100, 3, 8, 8, seed=1), []
    for rectified in (True, False):
        graph, reference = prepared(with_rectifier(rectified), [0.5, 1.0])
        fit_last(graph, reference, uniform(100, 3, 8, 8))
        errors.append(activation_error(graph, reference, fresh))
    assert errors[0] < 0.98 * errors[1]


def test_what_is_clipped_on_either_side_is_met_by_what_is_clipped_too():
    reached = np.float32([[[5.0], [1.0], [-3.0], [1.0], [1.0]]])
    wanted = np.float32([[[3.0], [3.0], [-1.0], [-1.0], [1.5]]])
    seen = _Observations(np.zeros((1, 5, 2), np.float32), reached, wanted)
    limits = np.float32(0), np.float32(2)
    np.testing.assert_array_equal(seen.residual(limits)[0, :, 0], [0, 1, 0, -1, 0.5])


def test_a_single_channel_that_is_clipped_on_either_side():
    """Its limit is an array of one value, of as many axes as a map."""
    b = two_layers()
    b.relu()
    b.conv(1)
    b.clip(0.5)
    graph, reference = prepared(b, [0.4, 1.0, 0.5])
    fresh = uniform(50, 3, 8, 8, seed=1)
    before = error(graph, reference, fresh)
    assert fit_last(graph, reference, uniform(60, 3, 8, 8))
    assert error(graph, reference, fresh) < 0.97 * before


def test_nothing_changes_where_the_rates_are_exact():
    """Inputs of 0 and 1 through an identity: every rate is 0 or 1."""
    b = Builder((4,))
    b.op("Gemm", b.last, b.constant(np.eye(4)))
    b.relu()
    b.gemm(3)
    graph, reference = prepared(b, [1.0])
    x = np.random.default_rng(0).integers(0, 2, (40, 4)).astype(np.float32)
    weights = graph.nodes[-1].inputs[1].values.copy()
    fit_last(graph, reference, x)
    np.testing.assert_allclose(graph.nodes[-1].inputs[1].values, weights, atol=1e-6)


def test_noise_is_not_fitted():
    """With few samples of many inputs nothing is gained on those held out, or little is done."""
    b = Builder((64,))
    b.gemm(256)
    b.relu()
    b.gemm(3)
    graph, reference = prepared(b, [1.0])
    fresh = uniform(200, 64, seed=1)
    before = error(graph, reference, fresh)
    fit_last(graph, reference, uniform(24, 64))
    assert error(graph, reference, fresh) < 1.1 * before


def test_what_samples_that_are_held_out_contradict_is_not_fitted():
    rows = np.random.default_rng(0).normal(size=(1, 40, 3)).astype(np.float32)
    wanted = rows @ np.float32([[[1.0], [-2.0], [0.5]]])
    fitted, contrary = (_Observations(rows, 0 * wanted, sign * wanted) for sign in (1, -1))
    assert _regression([fitted, fitted], None, shifts=False) is not None
    assert _regression([fitted, contrary], None, shifts=False) is None


def shortcut():
    """conv, relu, conv; beside it a shortcut, whose error comes into the sum."""
    b = Builder((3, 8, 8))
    b.conv(6)
    first = b.relu()
    b.conv(6)
    b.relu()
    b.conv(6)
    b.op("Add", b.last, first)
    return b


def test_the_last_layer_before_a_sum_makes_up_for_the_shortcut():
    graph, reference = prepared(shortcut(), [0.5, 1.0])
    alone, _ = prepared(shortcut(), [0.5, 1.0])
    fresh = uniform(50, 3, 8, 8, seed=1)
    fit_last(graph, reference, uniform(60, 3, 8, 8))
    everything = {id(node) for node in alone.nodes}  # so the sum has to wait
    fit_last(alone, reference, uniform(60, 3, 8, 8), everything)
    assert error(graph, reference, fresh) < error(alone, reference, fresh)


def test_the_ann_is_left_as_it_is():
    graph, reference = prepared(two_layers(), [0.5])
    x = uniform(20, 3, 8, 8)
    before = outputs_of(reference, x=x)
    fit_last(graph, reference, x)
    for name, values in outputs_of(reference, x=x).items():
        np.testing.assert_array_equal(values, before[name])


def test_few_positions_of_many_inputs():
    """As many equations as positions; of a thousand positions, 40 tell less than all."""
    b = Builder((3, 8, 8))
    b.conv(24)
    b.relu()
    b.conv(4)
    fresh, errors = uniform(50, 3, 8, 8, seed=1), []
    for equations in (None, 40, EQUATIONS):
        graph, reference = prepared(b, [0.5])
        if equations:
            assert fit_last(graph, reference, uniform(60, 3, 8, 8), equations=equations)
        errors.append(error(graph, reference, fresh))
    assert errors[2] < errors[1] < errors[0]


def test_the_same_change_of_few_equations_or_many():
    """Of rows or of inputs, whichever are fewer."""
    random = np.random.default_rng(0)
    rows, residual = (random.standard_normal((2, 30, n)).astype(np.float32) for n in (29, 3))
    wide = np.concatenate([rows, np.zeros((2, 30, 10), np.float32)], axis=2)
    found = []
    for values, amount in ((rows, 0.3), (wide, 0.3 * 39 / 29)):
        ridge = _Ridge(values, shifts=True)
        solution = ridge.solution(residual, amount)
        weights, bias = ridge.change(*solution)
        (gained,) = ridge.gains(residual, [amount], values[:, ::-1])
        np.testing.assert_allclose(gained, values[:, ::-1] @ weights + bias, atol=1e-4)
        np.testing.assert_allclose(ridge.gained(*solution), gained[:, ::-1], atol=1e-4)
        found.append((weights, bias))
    np.testing.assert_allclose(found[1][0][:, :29], found[0][0], atol=1e-4)
    np.testing.assert_allclose(found[1][0][:, 29:], 0, atol=1e-6)
    np.testing.assert_allclose(found[1][1], found[0][1], atol=1e-4)


def test_what_errs_everywhere_alike_enters_the_bias():
    """A neuron that can tell nothing apart, behind which all that can be met is the mean."""
    graph, reference = prepared(two_layers(), [1e3])
    x, fresh = uniform(60, 3, 8, 8), uniform(50, 3, 8, 8, seed=1)
    assert fit_last(graph, reference, x)
    mean, target = mean_and_target(graph, reference, graph.outputs[0].name, fresh)
    axes = (0, 2, 3)
    np.testing.assert_allclose(mean.mean(axes), target.mean(axes), atol=0.05 * target.std())


def test_from_fewer_than_sixteen_positions_nothing_is_learnt():
    b = Builder((6,))
    b.gemm(8)
    b.relu()
    b.gemm(8)
    for samples, learnt in ((15, False), (64, True)):
        graph, reference = prepared(b, [0.2])
        assert fit_last(graph, reference, uniform(samples, 6)) is learnt


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("samples", [1, 2, 5])
def test_few_samples(samples):
    graph, reference = prepared(two_layers(), [0.5])
    fit_last(graph, reference, uniform(samples, 3, 8, 8))
    assert np.isfinite(error(graph, reference, uniform(4, 3, 8, 8)))


def test_from_what_overflows_nothing_is_learnt():
    graph, reference = prepared(two_layers(), [1e20])
    assert not fit_last(graph, reference, 1e20 * uniform(8, 3, 8, 8))
