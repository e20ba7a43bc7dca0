"""NIR files: what they hold, and that others read the same network from them."""

import warnings

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from onnxsnn import IntegrateAndFire, Runner, SignedIntegrateAndFire, convert
from onnxsnn.errors import UnsupportedError
from onnxsnn.export import export_nir, nir_graph
from onnxsnn.export.network import Operation
from onnxsnn.export.nir_nodes import RULES
from tests.export.simulate import convolve, windows
from tests.models import Builder, dataset, uniform
from tests.networks import (
    IntegerBuilder,
    average_network,
    channels_last,
    eighths,
    integer_networks,
    residual_network,
)

nir = pytest.importorskip("nir", reason="nir is not installed: pip install 'onnxsnn[nir]'")


def trained(b, folder, timesteps=6, neuron=None, **ways):
    """The SNN of a network whose thresholds are its own, every potential 0 at first."""
    ways = ways or {"threshold": "trained"}
    path = b.save(folder / "m.onnx")
    return convert(path, timesteps=timesteps, neuron=neuron or IntegrateAndFire(0.0), **ways).snn


def simulate(graph, x, timesteps):
    """Mean output, and spikes per sample and layer, of a NIR graph with subtractive reset."""
    before = {name: [a for a, b in graph.edges if b == name] for name in graph.nodes}
    order, potentials, spikes, total = [], {}, {}, 0.0
    while len(order) < len(graph.nodes):
        order += [n for n in graph.nodes if n not in order and set(before[n]) <= set(order)]
    for _ in range(timesteps):
        values = {}
        for name in order:
            node = graph.nodes[name]
            read = x if isinstance(node, nir.Input) else sum(values[n] for n in before[name])
            if isinstance(node, nir.IF):
                charged = potentials.get(name, 0.0) + read
                values[name] = (charged >= node.v_threshold).astype(np.float32)
                potentials[name] = charged - node.v_threshold * values[name]
                fired = values[name].reshape(len(x), -1).sum(1)
                spikes[name] = spikes.get(name, 0.0) + fired
            else:
                values[name] = FUNCTIONS[type(node).__name__](node, read)
        (output,) = (values[name] for name in graph.outputs)
        total = total + output
    return total / timesteps, spikes


FUNCTIONS = {
    "Input": lambda _, x: x,
    "Output": lambda _, x: x,
    "Affine": lambda node, x: x @ node.weight.T + node.bias,
    "Flatten": lambda _, x: x.reshape(len(x), -1),
    "Scale": lambda node, x: x * node.scale,
    "SumPool2d": lambda node, x: windows(
        x, list(node.kernel_size), node.stride, [*node.padding, *node.padding]
    ).sum((-2, -1)),
    "Conv2d": lambda node, x: convolve(
        x, node.weight, node.bias, node.stride, [*node.padding, *node.padding], [*node.dilation]
    ),
    "Conv1d": lambda node, x: convolve(
        x[..., None, :], node.weight[..., None, :], node.bias,
        [1, node.stride], [0, node.padding] * 2, [1, node.dilation],
    )[..., 0, :],
}  # fmt: skip


def assert_same(snn, graph, x, timesteps, order=None):
    """The graph has the SNN's spikes, layer by layer, and its output; order is that of its axes."""
    outputs, spikes = simulate(graph, x.transpose(order or range(x.ndim)), timesteps)
    result = Runner(snn, rates=True).run(x, timesteps)
    assert spikes.keys() == result.spikes.keys()
    for layer, counts in result.spikes.items():
        np.testing.assert_array_equal(spikes[layer], counts)
    (expected,) = result.outputs.values()
    np.testing.assert_allclose(outputs, expected, atol=1e-5)


@given(b=integer_networks(exclude=["max"]), timesteps=st.integers(1, 8))
def test_file_has_the_spikes_of_the_snn(tmp_path_factory, b, timesteps):
    folder = tmp_path_factory.mktemp("nir")
    snn = trained(b, folder)
    assert export_nir(snn, folder / "m.nir") == []
    assert_same(snn, nir.read(folder / "m.nir"), eighths(3, 2, 6, 6), timesteps)


@pytest.mark.parametrize(
    "layer",
    [
        {"group": 4},
        {"group": 2, "dilations": [2, 1], "pads": [2, 1, 2, 1]},
        {"strides": [2, 2], "pads": [0, 1, 1, 0]},
        {"auto_pad": "SAME_UPPER", "strides": [2, 2], "pads": []},
        {"auto_pad": "SAME_LOWER", "strides": [3, 2], "pads": []},
    ],
    ids=str,
)
def test_convolutions_of_every_kind(layer, tmp_path):
    b = IntegerBuilder((2, 8, 8))
    b.conv(4)
    b.clip(2.0)
    group, attrs = layer.get("group", 1), {k: v for k, v in layer.items() if k != "group" and v}
    if "auto_pad" in attrs:
        b.op("Conv", b.last, b.normal(4, 4, 3, 3), b.normal(4), **attrs)
    else:
        b.conv(4, group=group, **attrs)
    b.clip(4.0)
    b.op("GlobalAveragePool")
    b.op("Flatten")
    b.gemm(3)
    snn = trained(b, tmp_path)
    graph, _ = nir_graph(snn)
    assert {node.groups for node in graph.nodes.values() if isinstance(node, nir.Conv2d)} == {1}
    assert_same(snn, graph, eighths(3, 2, 8, 8), 7)


def of_kernel(*kernel, operator="Conv", **attrs):
    """A convolution or pooling of a kernel, behind spikes and in front of others."""
    b = IntegerBuilder((2, 8, 8))
    b.conv(4)
    b.clip(2.0)
    if operator == "Conv":
        b.op("Conv", b.last, b.normal(4, 4, *kernel), b.normal(4), **attrs)
    else:
        b.op(operator, kernel_shape=kernel, **attrs)
    b.clip(4.0)
    b.op("GlobalAveragePool")
    b.op("Flatten")
    b.gemm(3)
    return b


@pytest.mark.parametrize(
    ("b", "square"),
    [
        (of_kernel(1, 7, pads=[0, 3, 0, 3]), 7),
        (of_kernel(3, 5, pads=[1, 2, 1, 2]), 5),
        (of_kernel(1, 3, strides=[2, 3], dilations=[1, 2]), 3),
        (of_kernel(3, 2, strides=[2, 1]), 4),
        (of_kernel(3, 2, strides=[1, 2]), 3),
        (of_kernel(3, 2, pads=[1, 0, 1, 1]), 3),
        (of_kernel(2, 2, pads=[0, 0, 0, 1], strides=[2, 1]), 3),
        (of_kernel(2, 2, pads=[0, 0, 1, 1]), 3),
        (of_kernel(2, 4, operator="AveragePool", pads=[0, 1, 1, 2], count_include_pad=1), 5),
    ],
)
def test_kernels_that_are_not_square_become_square(b, square, tmp_path):
    snn = trained(b, tmp_path)
    export_nir(snn, tmp_path / "m.nir")
    graph = nir.read(tmp_path / "m.nir")
    sizes = {n.weight.shape[2:] for n in graph.nodes.values() if isinstance(n, nir.Conv2d)}
    assert (square, square) in sizes
    assert all(height == width for height, width in sizes)
    assert_same(snn, graph, eighths(3, 2, 8, 8), 7)


two = st.tuples(st.integers(1, 4), st.integers(1, 4))
small = st.tuples(st.integers(1, 2), st.integers(1, 2))


@given(two, st.lists(st.integers(0, 3), min_size=4, max_size=4), two, small, st.integers(0, 99))
@example((1, 2), [0, 1, 1, 0], (3, 3), (2, 2), 0)  # refused, though dilations are below strides
def test_a_square_kernel_gives_the_same_or_is_refused(kernel, pads, strides, dilations, seed):
    """Never refused where a stride leaves room for a tap more: for two dilations."""
    weight = np.random.default_rng(seed).integers(-2, 3, (3, 2, *kernel)).astype(np.float32)
    x, bias = eighths(1, 2, 9, 10, seed=seed), np.zeros(3, np.float32)
    expected = convolve(x, weight, bias, strides, pads, dilations)
    settings = {"strides": strides, "pads": pads, "dilations": dilations, "groups": 1}
    arrays = {"weight": weight, "bias": bias}
    shape = {"y": [*expected.shape[1:]]}
    operation = Operation("conv", "Conv", ["x"], shape, settings, arrays)
    try:
        ((node,), _) = RULES["Conv"](nir, operation, [2, 9, 10], 1.0)
    except UnsupportedError:
        assert any(2 * d > s for d, s in zip(dilations, strides, strict=True))
        return
    np.testing.assert_array_equal(FUNCTIONS["Conv2d"](node, x), expected)
    np.testing.assert_array_equal(node.output_type["output"], expected.shape[1:])


@pytest.mark.parametrize("attrs", [{}, {"pads": [0, 0, 0, 2]}])
def test_kernels_that_cannot_be_square_are_refused_by_name(attrs, tmp_path):
    snn = trained(of_kernel(3, 2, **attrs), tmp_path)
    for allow_loss in (False, True):
        with pytest.raises(UnsupportedError, match=r"node 'conv2' \(Conv\): no taps of zero") as e:
            nir_graph(snn, allow_loss=allow_loss)
        assert "use a square kernel" in str(e.value)


def test_scales_and_shifts_without_weights_are_pointwise_convolutions(tmp_path):
    b = IntegerBuilder((2, 6, 6))
    b.conv(4)
    b.clip(2.0)
    left = b.op("Mul", b.last, b.constant(np.full((4, 1, 1), 4.0)))
    right = b.conv(4)
    b.op("Add", left, right)
    b.op("Add", b.last, b.normal(4, 1, 1))
    b.clip(8.0)
    b.op("AveragePool", kernel_shape=[2, 2], strides=[2, 2])
    b.clip(4.0)
    b.op("Flatten")
    b.gemm(3, inputs=36)
    snn = trained(b, tmp_path)
    graph, _ = nir_graph(snn)
    assert not any(isinstance(node, nir.Scale) for node in graph.nodes.values())
    assert_same(snn, graph, eighths(3, 2, 6, 6), 7)


def test_tensor_plus_itself_is_two_edges(tmp_path):
    b = IntegerBuilder((4,))
    b.gemm(4)
    b.clip(2.0)
    b.op("Add", b.last, b.last)
    b.gemm(3)
    snn = trained(b, tmp_path)
    assert_same(snn, nir_graph(snn)[0], eighths(3, 4), 5)


def more_layers(b, channels):
    b.channels = channels
    b.conv(4)
    b.clip(4.0)
    b.head(3)


def assert_nothing_lost(b, folder, x):
    snn = trained(b, folder)
    graph, losses = nir_graph(snn)
    assert losses == []
    assert_same(snn, graph, x, 7)


def test_concat_and_pad_put_channels_in_place(tmp_path):
    b = IntegerBuilder((2, 6, 6))
    b.conv(4)
    early = b.clip(2.0)
    b.conv(3, pads=[0, 0, 0, 0])
    b.clip(2.0)
    around = b.op("Pad", b.last, b.constant([0, 0, 0, 1, 0, 0, 2, 1], np.int64))
    deeper = b.op("Pad", early, b.constant([0, 1, 0, 0, 0, 2, 0, 0], np.int64))
    pooled = b.op("AveragePool", early, kernel_shape=[1, 1])
    b.op("Concat", around, deeper, pooled, axis=1)
    more_layers(b, 14)
    assert_nothing_lost(b, tmp_path, eighths(3, 2, 6, 6))


def test_parts_of_channels_are_weights(tmp_path):
    b = IntegerBuilder((2, 6, 6))
    b.conv(6)
    spikes = b.clip(2.0)
    steps = (b.constant([v], np.int64) for v in (4, -9, 1, -2))
    second = b.op("Slice", spikes, *steps)
    first = b.op("Split", spikes, b.constant([2, 4], np.int64), count=2, axis=1)
    b.op("Gather", f"{first}_1", b.constant([3, 0, -2], np.int64), axis=1)
    b.op("Concat", b.last, second, first, axis=1)
    more_layers(b, 8)
    assert_nothing_lost(b, tmp_path, eighths(3, 2, 6, 6))


def test_parts_of_places_are_refused(tmp_path):
    b = IntegerBuilder((2, 6, 6))
    b.conv(6)
    b.clip(2.0)
    b.op("Slice", b.last, *(b.constant([v], np.int64) for v in (1, 5, 3)))
    b.conv(4)
    b.clip(4.0)
    b.head(3)
    with pytest.raises(UnsupportedError, match=r"nothing for node 'slice2' \(Slice\)"):
        nir_graph(trained(b, tmp_path))


def test_concat_of_vectors_is_a_sum_of_affines(tmp_path):
    b = IntegerBuilder((4,))
    b.gemm(5)
    first = b.clip(2.0)
    b.gemm(3)
    b.op("Concat", b.clip(2.0), first, axis=1)
    b.gemm(2, inputs=8)
    snn = trained(b, tmp_path)
    assert_same(snn, nir_graph(snn)[0], eighths(3, 4), 5)


def test_channels_last_come_first(tmp_path):
    b = channels_last()
    b.gemm(5, inputs=192)
    b.clip(4.0)
    b.gemm(3)
    snn = trained(b, tmp_path)
    graph, (loss,) = nir_graph(snn)
    assert "order of the axes of input 'x'" in loss
    assert_same(snn, graph, eighths(3, 6, 8, 2), 6, order=(0, 3, 1, 2))


def rescaled():
    """Images are scaled and shifted channels last, and so are features behind the Flatten."""
    b = channels_last(rescaled=True)
    b.op("Add", b.last, b.normal(192))
    b.clip(4.0)
    b.gemm(3, inputs=192)
    return b


def gray():
    """A Reshape gives the channel; what is flattened channels last is joined with more."""
    b = IntegerBuilder((6, 8, 1))
    b.op("Sub", b.last, b.constant(0.5))
    b.op("Reshape", b.last, b.constant([-1, 1, 6, 8], np.int64))
    b.channels = 1
    b.conv(4)
    early = b.clip(2.0)
    b.conv(3)
    late = b.clip(2.0)
    flat = [
        b.op("Flatten", b.op("Transpose", features, perm=[0, 2, 3, 1]))
        for features in (late, early)
    ]
    b.op("Concat", *flat, axis=1)
    b.gemm(5, inputs=336)
    b.clip(4.0)
    b.gemm(3)
    return b


def twice():
    """Inputs are joined and cut channels last."""
    b = IntegerBuilder((6, 8, 2))
    b.op("Concat", "x", "x", axis=3)
    b.op("Slice", b.last, *(b.constant(v, np.int64) for v in ([0, 1], [2**31 - 1, 4], [0, 3])))
    b.op("Transpose", perm=[0, 3, 1, 2])
    b.channels = 3
    b.conv(4)
    b.clip(2.0)
    b.head(3)
    return b


@pytest.mark.parametrize("network", [rescaled, gray, twice])
def test_moves_between_channels_last_and_first_are_left_out(network, tmp_path):
    snn = trained(network(), tmp_path)
    graph, (loss,) = nir_graph(snn)
    assert "of input 'x': samples are" in loss
    channels = snn.inputs[0].shape[-1]
    assert_same(snn, graph, eighths(3, 6, 8, channels), 6, order=(0, 3, 1, 2))


def test_a_map_that_comes_out_channels_last_comes_channels_first(tmp_path):
    b = IntegerBuilder((2, 6, 8))
    b.conv(4)
    b.clip(2.0)
    b.conv(3)
    b.op("Transpose", perm=[0, 2, 3, 1])
    snn = trained(b, tmp_path)
    graph, (loss,) = nir_graph(snn)
    assert loss == (
        f"the order of the axes of output {b.last!r}: samples are [3, 6, 8], not [6, 8, 3]"
    )
    x = eighths(3, 2, 6, 8)
    outputs, _ = simulate(graph, x, 5)
    expected = Runner(snn).run(x, 5).outputs[b.last]
    np.testing.assert_allclose(outputs.transpose(0, 2, 3, 1), expected, atol=1e-5)


def layer_of_one_axis(b, kernel, *before):
    """As tf2onnx writes a layer of tf.nn.conv1d over [size, channels], and its bias."""
    for operator, *inputs in before:
        b.op(operator, b.last, *inputs)
    b.op("Unsqueeze", b.last, b.constant([1], np.int64))
    b.op("Transpose", perm=[0, 3, 1, 2])
    b.op("Conv", b.last, b.normal(4, b.channels, 1, kernel))
    b.channels = 4
    b.op("Squeeze", b.last, b.constant([2], np.int64))
    b.op("Add", b.last, b.normal(4, 1))
    return b.last


def causal(b):
    return ("Pad", b.constant([0, 2, 0, 0, 0, 0], np.int64))


def test_layers_of_one_axis_that_are_written_with_two_are_conv1d(tmp_path):
    b = IntegerBuilder((8, 3))
    b.channels = 3
    layer_of_one_axis(b, 3, causal(b))
    b.clip(2.0)
    spikes = b.op("Transpose", perm=[0, 2, 1])
    layer_of_one_axis(b, 3, causal(b))
    b.clip(2.0)
    branch = b.op("Transpose", perm=[0, 2, 1])
    b.op("Add", spikes, branch)
    summed = b.clip(4.0)
    b.op("Concat", summed, branch, axis=2)
    b.channels = 8
    layer_of_one_axis(b, 1)
    b.clip(4.0)
    b.op("Transpose", perm=[0, 2, 1])
    b.op("ReduceMean", axes=[1], keepdims=0)
    b.gemm(3)
    snn = trained(b, tmp_path)
    graph, (loss,) = nir_graph(snn)
    assert loss == "the order of the axes of input 'x': samples are [3, 8], not [8, 3]"
    assert not any(isinstance(node, nir.Conv2d) for node in graph.nodes.values())
    assert_same(snn, graph, eighths(3, 8, 3), 6, order=(0, 2, 1))


@pytest.mark.parametrize(
    "pool",
    [
        {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]},
        {"kernel_shape": [2, 2], "pads": [0, 0, 1, 1], "strides": [2, 3]},
        {"kernel_shape": [3, 3], "auto_pad": "SAME_UPPER", "strides": [2, 2]},
    ],
)
def test_pooling_that_leaves_pads_out_is_scaled_at_the_edges(pool, tmp_path):
    b = IntegerBuilder((2, 8, 8))
    b.conv(4)
    b.clip(2.0)
    b.op("AveragePool", **pool)
    b.conv(4)
    b.clip(4.1)
    b.head(3)
    snn = trained(b, tmp_path)
    graph, losses = nir_graph(snn)
    assert losses == []
    assert_same(snn, graph, eighths(3, 2, 8, 8), 6)


def test_concat_of_places_is_refused(tmp_path):
    b = IntegerBuilder((2, 6, 6))
    b.conv(4)
    b.clip(2.0)
    b.op("Concat", b.last, b.last, axis=3)
    b.conv(4)
    b.clip(2.0)
    b.head()
    with pytest.raises(UnsupportedError, match=r"nothing for node 'concat\d' \(Concat\)"):
        nir_graph(trained(b, tmp_path))


@pytest.mark.parametrize("pool", [{}, {"kernel_shape": [2], "strides": [2]}])
def test_difference_of_one_axis_behind_pooling(pool, tmp_path):
    """Its factor, and the sign, are those of what is subtracted alone."""
    b = IntegerBuilder((2, 8))
    b.op("Conv", b.last, b.normal(4, 2, 3), b.normal(4), pads=[1, 1])
    b.clip(2.0)
    left = b.op("AveragePool", **pool) if pool else b.last
    b.op("Conv", b.last, b.normal(4, 4, 3), b.normal(4), pads=[1, 1])
    b.op("Sub", left, b.clip(2.0))
    b.op("Conv", b.last, b.normal(4, 4, 1), b.normal(4))
    b.clip(4.0)
    b.channels = 4
    b.head(3)
    assert_nothing_lost(b, tmp_path, eighths(3, 2, 8))


def test_thresholds_and_pooling_are_as_readers_want_them(tmp_path):
    graph, losses = nir_graph(trained(average_network(), tmp_path))
    neurons = [node for node in graph.nodes.values() if isinstance(node, nir.IF)]
    assert losses == []
    assert [n.v_threshold.shape for n in neurons] == [(4, 8, 8), (6, 4, 4), (5,)]
    assert all(n.metadata["reset"] == "subtract v_threshold" for n in neurons)
    assert not {type(n).__name__ for n in graph.nodes.values()} & {"AvgPool2d", "Scale"}
    assert graph.metadata["timesteps"] == 6


def test_losses_are_listed_and_refused_unless_allowed(tmp_path):
    b = average_network()
    b.op("Softmax", axis=1)
    snn = trained(b, tmp_path, neuron=SignedIntegrateAndFire())
    message = r"SignedIntegrate.*before the first step.*clip1.*Softmax.*--allow-loss"
    with pytest.raises(UnsupportedError, match=message):
        export_nir(snn, tmp_path / "m.nir")
    assert not (tmp_path / "m.nir").exists()
    losses = export_nir(snn, tmp_path / "m.nir", allow_loss=True)
    assert len(losses) == 3
    graph = nir.read(tmp_path / "m.nir")
    (potential,) = {float(n.metadata["v0"].max() / n.v_threshold.max())
                    for n in graph.nodes.values() if isinstance(n, nir.IF)}  # fmt: skip
    assert potential == 0.5


def test_a_delay_is_a_loss(tmp_path):
    snn = trained(average_network(), tmp_path, threshold="trained", delay=2)
    with pytest.raises(UnsupportedError, match=r"steps that the outputs leave out.*--allow-loss"):
        nir_graph(snn)
    _, losses = nir_graph(snn, allow_loss=True)
    assert len(losses) == 1


def test_what_the_rest_needs_cannot_be_left_out(tmp_path):
    path = residual_network().save(tmp_path / "m.onnx")
    snn = convert(path, dataset(x=uniform(4, 3, 8, 8)), neuron=IntegrateAndFire(0.0)).snn
    for allow_loss in (False, True):
        with pytest.raises(UnsupportedError, match=r"MaxPool.*left out"):
            nir_graph(snn, allow_loss=allow_loss)


def test_outputs_that_nir_has_nothing_for_are_left_out_beside_others(tmp_path):
    b = IntegerBuilder((2, 6, 6))
    b.conv(4)
    features = b.clip(2.0)
    scores = b.head(3)
    label = b.op("ArgMax", axis=1)
    b.op("Conv", features, b.normal(4, 4, 3, 3))
    found = b.op("MaxPool", kernel_shape=[2, 2])
    path = b.save(tmp_path / "m.onnx", label, scores, found)
    snn = convert(path, threshold="trained", neuron=IntegrateAndFire(0.0)).snn
    message = rf"outputs behind .*ArgMax.*nothing \({label}, {found}\); --allow-loss"
    with pytest.raises(UnsupportedError, match=message):
        nir_graph(snn)
    graph, losses = nir_graph(snn, allow_loss=True)
    assert len(losses) == 1
    assert [*graph.outputs] == ["output"]
    assert sum(isinstance(node, nir.IF) for node in graph.nodes.values()) == 1
    x = eighths(3, 2, 6, 6)
    expected = Runner(snn).run(x, 5).outputs[scores]
    np.testing.assert_allclose(simulate(graph, x, 5)[0], expected, atol=1e-5)


def test_a_transpose_that_keeps_the_shape_is_not_left_out(tmp_path):
    b = IntegerBuilder((2, 6, 6))
    b.conv(4)
    b.clip(2.0)
    b.op("Transpose", perm=[0, 1, 3, 2])
    b.conv(4)
    b.clip(2.0)
    b.head(3)
    with pytest.raises(UnsupportedError, match=r"nothing for node 'transpose2' \(Transpose\)"):
        nir_graph(trained(b, tmp_path), allow_loss=True)


def test_sum_that_broadcasts_is_refused(tmp_path):
    b = IntegerBuilder((2, 6, 6))
    b.conv(4)
    features = b.clip(2.0)
    b.op("Add", features, b.op("GlobalAveragePool"))
    b.conv(4)
    b.clip(2.0)
    b.head()
    with pytest.raises(UnsupportedError, match=r"nothing for node 'add\d' \(Add\)"):
        nir_graph(trained(b, tmp_path))


def test_shift_that_broadcasts_is_refused(tmp_path):
    b = IntegerBuilder((1, 6, 6))
    b.clip(2.0)
    b.op("Add", b.last, b.constant(np.ones((1, 4, 1, 1))))
    b.channels = 4
    b.conv(4)
    b.clip(2.0)
    b.head()
    with pytest.raises(UnsupportedError, match=r"nothing for node 'add\d' \(Shift\)"):
        nir_graph(trained(b, tmp_path))


def test_open_sizes_are_refused_by_name(tmp_path):
    b = Builder((2, "H", "W"))
    b.conv(3)
    b.relu()
    b.head()
    snn = trained(b, tmp_path, threshold="fit", data=dataset(x=uniform(4, 2, 8, 8)))
    with pytest.raises(UnsupportedError, match="size of 'x' is not fixed"):
        nir_graph(snn)


@pytest.fixture
def example(tmp_path):
    """An SNN with thresholds per channel from data, its NIR file, samples, and what it does."""
    x = uniform(4, 2, 8, 8)
    snn = trained(average_network(), tmp_path, 8, threshold="fit", data=dataset(x=x))
    export_nir(snn, tmp_path / "m.nir")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield x, nir.read(tmp_path / "m.nir"), Runner(snn, rates=True).run(x, 8)


def assert_counts(result, counts, outputs):
    """Another simulator's spikes [N, T, ...] and outputs [N, T, ...] are the Runner's."""
    assert counts.keys() == result.spikes.keys()
    for layer, spikes in counts.items():
        fired = spikes.reshape(len(spikes), -1).sum(1)
        assert fired.all()
        np.testing.assert_array_equal(fired, result.spikes[layer])
    (expected,) = result.outputs.values()
    np.testing.assert_allclose(outputs.mean(1), expected, atol=1e-5)


@pytest.mark.slow
def test_sinabs_fires_the_same_spikes(example):
    """Told that a neuron fires once a step, and that its potential has no minimum."""
    x, graph, result = example
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    pytest.importorskip("sinabs", reason="sinabs is not installed: pip install sinabs")
    import sinabs.activation
    import sinabs.layers
    import sinabs.nir

    network = sinabs.nir.from_nir(graph, batch_size=len(x))
    counts = {}
    for name, module in network.named_modules():
        if isinstance(module, sinabs.layers.IAFSqueeze):
            module.min_v_mem = None  # from_nir sets it to minus the threshold
            module.spike_fn = sinabs.activation.SingleSpike
            module.register_forward_hook(lambda _m, _i, out, name=name: counts.update({name: out}))
    with torch.no_grad():
        output, *_ = network(torch.tensor(x).repeat_interleave(8, 0))
    by_step = {name: spikes.reshape(len(x), 8, -1).numpy() for name, spikes in counts.items()}
    assert_counts(result, by_step, output.reshape(len(x), 8, -1).numpy())


@pytest.mark.slow
def test_norse_fires_the_same_spikes(example):
    """Told to reset by subtraction, with its own function for that."""
    x, graph, result = example
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    pytest.importorskip("norse", reason="norse is not installed: pip install norse")
    from norse.torch.functional.iaf import IAFFeedForwardState
    from norse.torch.functional.reset import reset_subtract
    from norse.torch.functional.threshold import threshold
    from norse.torch.module.iaf import IAFCell
    from norse.torch.utils.import_nir import from_nir

    def subtractive(current, state, p, _dt):
        v = state.v + current
        z = threshold(v - p.v_th, p.method, p.alpha)
        return z, IAFFeedForwardState(reset_subtract(z, v, p.v_reset, p.v_th))

    network, fired = from_nir(graph), {}
    for name, module in network.named_modules():
        if isinstance(module, IAFCell):
            module.activation = subtractive
            module.register_forward_hook(
                lambda _m, _i, out, name=name: fired.setdefault(name, []).append(out[0].numpy())
            )
    outputs = []
    with torch.no_grad():
        for sample in torch.tensor(x):  # norse flattens the batch too, so one by one
            state = None
            for _ in range(8):
                output, state = network(sample, state)
                outputs.append(output.numpy())
    by_step = {name: np.stack(steps).reshape(len(x), 8, -1) for name, steps in fired.items()}
    assert_counts(result, by_step, np.stack(outputs).reshape(len(x), 8, -1))
