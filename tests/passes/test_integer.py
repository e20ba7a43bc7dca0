"""The integer step graph: its spikes are the step graph's where nothing has to be rounded."""

import numpy as np
import pytest
from hypothesis import given, settings

from onnxsnn import Runner, SpikingModel, convert
from onnxsnn.export import loop_model
from onnxsnn.neurons import (
    BurstIntegrateAndFire,
    IntegrateAndFire,
    MultiThreshold,
    Neuron,
    SignedIntegrateAndFire,
)
from onnxsnn.passes.integer import rounding_layers
from onnxsnn.runtime.step_graph import StepGraph
from onnxsnn.session import make_session
from onnxsnn.source import Source
from tests.models import Builder, dataset, uniform
from tests.networks import STRUCTURES, IntegerBuilder, eighths, integer_networks

STEPS = 5


def both(b: Builder, neuron: Neuron | None = None) -> tuple[SpikingModel, SpikingModel]:
    """The SNN of a network whose thresholds are trained, and its integer SNN."""
    source, options = Source(b.model(), "", []), {"timesteps": STEPS, "neuron": neuron}
    return convert(source, **options).snn, convert(source, **options, integer=True).snn


def operators(snn):
    return [node.op_type for node in snn.model.graph.node]


def run(snn, x, backend="onnxruntime"):
    """Outputs after every step, and spikes by layer."""
    result = Runner(snn, backend, rates=True).run(x, STEPS, every_step=True)
    return result.every_step, result.spikes


def assert_same_spikes(snn, other, x, backend="onnxruntime"):
    (outputs, spikes), (others, other_spikes) = run(snn, x), run(other, x, backend)
    assert spikes.keys() == other_spikes.keys()
    for layer, counts in spikes.items():
        np.testing.assert_array_equal(counts, other_spikes[layer], layer)
    for step, other_step in zip(outputs, others, strict=True):
        for name, values in step.items():
            np.testing.assert_allclose(other_step[name], values, rtol=1e-6, atol=1e-5)


@settings(max_examples=15)
@given(integer_networks(exclude=["mean"]))
def test_whole_weights_give_the_same_spikes(b):
    plain, rounded = both(b, IntegrateAndFire())
    assert_same_spikes(plain, rounded, eighths(3, 2, 6, 6, seed=1))


@pytest.mark.parametrize(
    "neuron", [SignedIntegrateAndFire(), BurstIntegrateAndFire(levels=4), MultiThreshold(levels=2)]
)
@settings(max_examples=5)
@given(b=integer_networks(exclude=["mean"]))
def test_other_neurons_give_the_same_spikes(neuron, b):
    plain, rounded = both(b, neuron)
    assert_same_spikes(plain, rounded, eighths(3, 2, 6, 6, seed=1))


def layers(*more):
    """Two convolutions with something between or around them, and a linear read-out."""
    b = IntegerBuilder((2, 6, 6))
    b.conv(4)
    b.clip(2.0)
    for step in more:
        step(b)
    b.clip(4.0)
    b.op("GlobalAveragePool")
    b.op("Flatten")
    b.gemm(3)
    return b


def residual(b):
    skip = b.last
    b.conv(4)
    b.op("Add", b.last, skip)


def pooled(b):
    b.op("AveragePool", kernel_shape=[2, 2], strides=[2, 2])
    b.conv(3, kernel=1, pads=[0] * 4)


def pooled_by_maximum(b):
    b.op("MaxPool", kernel_shape=[2, 2], strides=[2, 2])
    b.conv(4)


def upsampled(b):
    """Beside what was there before, as U-Nets and detectors read it."""
    skip = b.last
    b.op("MaxPool", kernel_shape=[2, 2], strides=[2, 2])
    b.op("Resize", b.last, "", b.constant([1, 1, 2, 2]), mode="nearest")
    b.op("Concat", skip, b.last, axis=1)
    b.channels *= 2
    b.conv(4)


def of_all_points(b):
    """As PointNets see the whole beside each point."""
    points = b.last
    most = b.op("ReduceMax", axes=[2, 3])
    b.op("Concat", points, b.op("Expand", most, b.constant([1, 1, 6, 6], np.int64)), axis=1)
    b.channels *= 2
    b.conv(4)


def in_blocks(b):
    b.op("SpaceToDepth", blocksize=2)
    b.channels *= 4
    b.conv(4)


def shuffled_and_repeated(b):
    b.op("Gather", b.last, b.constant([2, 0, 3, 1], np.int64), axis=1)
    b.op("Tile", b.last, b.constant([1, 2, 1, 1], np.int64))
    b.channels *= 2
    b.conv(4)


def between(mode):
    """A U-Net's bilinear upsampling, beside what was there before."""

    def step(b):
        skip = b.last
        b.op("MaxPool", kernel_shape=[2, 2], strides=[2, 2])
        sizes = {"mode": "linear", "coordinate_transformation_mode": mode}
        b.op("Resize", b.last, "", b.constant([1, 1, 2, 2]), **sizes)
        b.op("Concat", skip, b.last, axis=1)
        b.channels *= 2
        b.conv(2, kernel=1, pads=[0] * 4)

    return step


def spread_by_lines(b):
    """The whole image beside each place, as in DeepLab's pyramids."""
    skip = b.last
    b.op("GlobalMaxPool")
    b.op("Resize", b.last, "", b.constant([1, 1, 6, 6]), mode="linear")
    b.op("Concat", skip, b.last, axis=1)
    b.channels *= 2
    b.conv(4)


def pooled_by_one_maximum(b):
    b.op("GlobalMaxPool")
    b.conv(4)


def padded(b):
    """As Keras pads in front of a MaxPool."""
    b.op("Pad", b.last, b.constant([0, 0, 1, 1, 0, 0, 1, 1], np.int64), "")
    b.op("MaxPool", kernel_shape=[3, 3], strides=[2, 2])
    b.conv(4)


def reflected(b):
    b.op("Pad", b.last, b.constant([0, 0, 1, 1, 0, 0, 1, 1], np.int64), mode="reflect")
    b.conv(4, pads=[0] * 4)


def more_channels(b):
    b.op("Pad", b.last, b.constant([0, 1, 0, 0, 0, 2, 0, 0], np.int64), b.constant(0.0))
    b.channels += 3
    b.conv(4)


def spread(b):
    b.op("MaxPool", kernel_shape=[6, 6])
    b.op("Expand", b.last, b.constant([1, 1, 3, 3], np.int64))
    b.conv(4)


def one_channel(b):
    b.conv(1)
    b.op("Add", b.last, b.constant([[[1.0]]]))
    b.op("Add", b.last, b.op("Identity"))


NETWORKS = {
    "one channel": one_channel,
    "average pooling": pooled,
    "MaxPool": pooled_by_maximum,
    "GlobalMaxPool": pooled_by_one_maximum,
    "ReduceMax": of_all_points,
    "repeated": shuffled_and_repeated,
    "blocks": in_blocks,
    "linear": between("half_pixel"),
    "linear from corners": between("asymmetric"),
    "linear from one": spread_by_lines,
    "nearest": upsampled,
    "expanded": spread,
    "zeros around": padded,
    "reflected": reflected,
    "channels of zeros": more_channels,
    "stride": lambda b: b.conv(5, strides=[2, 2]),
    "groups": lambda b: b.conv(8, group=2),
    "depthwise": lambda b: b.conv(4, group=4),
    "no bias": lambda b: b.conv(4, bias=False),
    "uneven pads": lambda b: b.conv(4, pads=[0, 1, 2, 1]),
    "same": lambda b: b.conv(4, pads=None, auto_pad="SAME_UPPER", strides=[2, 2]),
    "dilation": lambda b: b.conv(4, dilations=[2, 2]),
    "residual": residual,
}


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("backend", ["onnxruntime", "numpy"])
def test_each_kind_of_layer_gives_the_same_spikes(name, backend):
    plain, rounded = both(layers(NETWORKS[name]), IntegrateAndFire())
    assert "QLinearConv" in operators(rounded)
    assert_same_spikes(plain, rounded, eighths(3, 2, 6, 6, seed=1), backend)


@pytest.mark.parametrize("shape", [(5,), (3, 5)])
def test_products_of_matrices_give_the_same_spikes(shape):
    b = IntegerBuilder(shape)
    for outputs, threshold in ((6, 2.0), (7, 4.0), (3, None)):
        if len(shape) == 1:
            b.gemm(outputs, transB=outputs % 2)
        else:
            b.op("MatMul", b.last, b.normal(b.channels if outputs != 6 else 5, outputs))
            b.channels = outputs
        if threshold:
            b.clip(threshold)
    plain, rounded = both(b)
    assert "MatMulInteger" in operators(rounded)
    assert_same_spikes(plain, rounded, eighths(4, *shape, seed=1))


@pytest.mark.parametrize("name", NETWORKS)
def test_unrounded_gives_the_step_graph_back(name):
    plain, rounded = both(layers(NETWORKS[name]), IntegrateAndFire())
    back = rounded.unrounded()
    assert not {"QLinearConv", "DequantizeLinear", "QuantizeLinear"} & {*operators(back)}
    for layer, theta in plain.thresholds.items():
        np.testing.assert_allclose(
            back.thresholds[layer], np.broadcast_to(theta, back.thresholds[layer].shape), rtol=1e-6
        )
    assert_same_spikes(plain, back, eighths(3, 2, 6, 6, seed=1))


def structure(name, timesteps=STEPS, **options):
    """An SNN of a structure of random weights, and inputs of it."""
    b = STRUCTURES[name]()
    sizes = [size.dim_value for size in b.inputs[0].type.tensor_type.shape.dim[1:]]
    x = uniform(4, *sizes)
    source = Source(b.model(), "", [])
    return convert(source, dataset(x=x), timesteps=timesteps, **options).snn, x


@pytest.mark.parametrize("name", STRUCTURES)
def test_every_structure_is_near_its_step_graph_and_runs_in_every_way(name):
    plain, x = structure(name)
    rounded, _ = structure(name, integer=True)
    assert {"QLinearConv", "MatMulInteger"} & {*operators(rounded)}
    runner = Runner(rounded)
    assert runner.warnings == Runner(plain).warnings
    (values,) = runner.run(x, STEPS).outputs.values()
    stepping = StepGraph(rounded.model, rounded.states, rounded.outputs)
    steps = stepping.advance(stepping.prepare({"x": x}), {}, STEPS, every_step=True)[0]
    (stepped,) = steps.values()
    np.testing.assert_allclose(values, stepped[-1], rtol=1e-4, atol=1e-4)
    feeds = {"x": x, "timesteps": np.array(STEPS, np.int64)}
    (looped,) = make_session(loop_model(rounded)).run(None, feeds)
    np.testing.assert_allclose(looped, stepped[-1], rtol=1e-5, atol=1e-5)
    (numbers,) = Runner(rounded, "numpy").run(x, STEPS).outputs.values()
    assert np.linalg.norm(numbers - values) <= 0.1 * np.linalg.norm(values)
    (back,) = Runner(rounded.unrounded()).run(x, STEPS).outputs.values()
    (expected,) = Runner(plain).run(x, STEPS).outputs.values()
    for found in (values, back):
        assert np.linalg.norm(found - expected) <= 0.3 * np.linalg.norm(expected)


def test_sums_halfway_between_two_bytes_are_rounded_alike_by_every_runtime():
    b = Builder((2, 6, 6))
    for channels in (8, 16, 16):
        b.conv(channels)
        b.relu()
    b.head()
    x = eighths(40, 2, 6, 6)
    snn = convert(Source(b.model(), "", []), dataset(x=x), timesteps=STEPS, integer=True).snn
    assert_same_spikes(snn, snn, x, "numpy")


def rounding(rounded):
    plain = rounded.unrounded().graph()
    plain.toposort()
    return rounding_layers(rounded.graph(), plain, rounded.neurons)


@pytest.mark.parametrize("name", NETWORKS)
def test_layers_of_few_whole_weights_round_nothing(name):
    _, rounded = both(layers(NETWORKS[name]), IntegrateAndFire())
    assert rounding(rounded) == []


def test_layers_that_round_are_named():
    rounded, x = structure("vgg", integer=True)
    (layer,) = rounding(rounded)
    assert layer in [
        node.name for node in rounded.model.graph.node if node.op_type == "QLinearConv"
    ]
    _, spikes = run(rounded, x)
    _, others = run(rounded.unrounded(), x)
    assert any(np.any(spikes[name] != others[name]) for name in spikes)


def test_an_integer_snn_is_read_as_it_was_written(tmp_path):
    rounded, x = structure("resnet-v2", integer=True)
    rounded.save(tmp_path / "m.snn.onnx")
    read = SpikingModel.load(tmp_path / "m.snn.onnx")
    assert read.layers == rounded.layers
    assert_same_spikes(rounded, read, x)
    assert read.unrounded().metadata == {
        key: value for key, value in rounded.metadata.items() if key != "integer"
    }


def test_currents_are_in_thresholds_and_the_grid_says_what_these_were():
    plain, rounded = both(layers(NETWORKS["stride"]), IntegrateAndFire())
    for layer in rounded.layers:
        theta = rounded.thresholds[layer.name]
        np.testing.assert_array_equal(theta, np.ones_like(theta))
        np.testing.assert_array_equal(plain.thresholds[layer.name].reshape(-1), layer.grid)


def test_what_stays_in_float32_is_told():
    b = layers(NETWORKS["residual"])
    reports = convert(Source(b.model(), "", []), timesteps=STEPS, integer=True).reports
    assert reports[-2].name == "unit_thresholds"
    actions = reports[-1].actions
    assert actions["Conv turned into QLinearConv"] == 1
    assert actions["Conv left in float32"] == actions["Gemm left in float32"] == 1


def test_fifths_between_corners_are_whole_numbers():
    """Of two runtimes, whose float32 sums of fifths differ, neurons at their threshold may too."""
    plain, rounded = both(layers(between("align_corners")), IntegrateAndFire())
    assert operators(rounded).count("QLinearConv") == 1
    (_, spikes), (_, others) = (run(snn, eighths(3, 2, 6, 6, seed=1)) for snn in (plain, rounded))
    for layer, counts in spikes.items():
        np.testing.assert_allclose(others[layer], counts, atol=2)


@pytest.mark.parametrize(
    ("scales", "attrs"),
    [
        ([1, 1, 1.5, 1.5], {}),
        ([1, 1, 2.1, 2], {}),
        ([1, 1, 16, 16], {}),
        ([1, 1, 2, 2], {"coordinate_transformation_mode": "tf_crop_and_resize"}),
        ([1, 1, 2, 2], {"mode": "cubic"}),
    ],
)
def test_what_a_resize_makes_of_spikes_may_be_no_few_whole_numbers(scales, attrs):
    def resized(b):
        b.op("MaxPool", kernel_shape=[2, 2], strides=[2, 2])
        region = b.constant([0, 0, 0, 0, 1, 1, 1, 1])
        b.op("Resize", b.last, region, b.constant(scales), **{"mode": "linear"} | attrs)
        b.conv(4)

    _, rounded = both(layers(resized), IntegrateAndFire())
    assert "QLinearConv" not in operators(rounded)


def test_spikes_beside_means_of_some_give_the_same_spikes():
    """They are multiples of another unit, which divides that of the spikes."""

    def beside(b):
        spikes = b.last
        means = b.op("AveragePool", kernel_shape=[2, 2], strides=[2, 2])
        b.last = spikes
        b.conv(4, strides=[2, 2])
        b.op("Concat", b.clip(2.0), means, axis=1)
        b.channels = 8
        b.conv(4)

    plain, rounded = both(layers(beside), IntegrateAndFire())
    assert operators(rounded).count("QLinearConv") == 3  # a sum over windows among them
    assert_same_spikes(plain, rounded, eighths(3, 2, 6, 6, seed=1))


MEANS = [
    ({"pads": [1] * 4}, False),
    ({"pads": [1] * 4, "count_include_pad": 1}, True),
    ({"ceil_mode": 1}, False),
    ({"auto_pad": "SAME_UPPER"}, False),
    ({"auto_pad": "VALID"}, True),
]


@pytest.mark.parametrize(("attrs", "whole"), MEANS)
def test_means_become_sums_where_every_window_divides_by_the_same_number(attrs, whole):
    def averaged(b):
        b.op("AveragePool", kernel_shape=[4, 4], strides=[4, 4], **attrs)
        b.conv(3, kernel=1, pads=[0] * 4)

    plain, rounded = both(layers(averaged), IntegrateAndFire())
    assert ("QLinearConv" in operators(rounded)) is whole
    assert_same_spikes(plain, rounded, eighths(3, 2, 6, 6, seed=1))


def test_spikes_of_too_many_sizes_stay_in_float32():
    _, rounded = both(layers(NETWORKS["stride"]), MultiThreshold(levels=8, digits=1))
    assert "QLinearConv" not in operators(rounded)


@pytest.mark.parametrize("name", [n for n in NETWORKS if n != "linear"])  # which has too many
def test_spikes_of_eight_sizes_of_two_digits_are_bytes(name):
    """Their sums are many, and rounded where the currents' bytes hold fewer."""
    plain, rounded = both(layers(NETWORKS[name]), MultiThreshold(levels=8))
    assert "QLinearConv" in operators(rounded)
    (expected, _), (outputs, _) = (
        run(snn, eighths(3, 2, 6, 6, seed=1)) for snn in (plain, rounded)
    )
    (ours,), (wanted,) = outputs[-1].values(), expected[-1].values()
    assert np.linalg.norm(ours - wanted) < 0.02 * np.linalg.norm(wanted)
