"""Energy: synaptic operations against counts by brute force, and the arithmetic of the models."""

import numpy as np
import onnx
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from onnxsnn import (
    BurstIntegrateAndFire,
    MultiThreshold,
    Runner,
    SignedIntegrateAndFire,
    convert,
    load_source,
)
from onnxsnn.analysis.energy import MODELS, CostModel, energy
from onnxsnn.analysis.fan_out import fan_out
from onnxsnn.analysis.macs import macs
from onnxsnn.analysis.synaptic import instrument
from onnxsnn.errors import UsageError
from onnxsnn.graph import from_model
from onnxsnn.session import Session
from tests.loops import recurrent
from tests.models import Builder, dataset, uniform
from tests.networks import STRUCTURES

T = 5


def layer_of_ones(operator, read, weight, **attrs):
    """A layer all of whose weights are one."""
    constant = numpy_helper.from_array(np.ones(weight, np.float32), "w")
    graph = helper.make_graph(
        [helper.make_node(operator, ["x", "w"], ["y"], "layer", **attrs)],
        "test",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", *read])],
        [helper.make_empty_tensor_value_info("y")],
        [constant],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return onnx.shape_inference.infer_shapes(model)


def weights_met(model, read):
    """By position, the sum of what one spike there gives through weights of one."""
    size = int(np.prod(read))
    spikes = np.eye(size, dtype=np.float32).reshape(size, *read)
    (values,) = Session(model).run({"x": spikes}).values()
    return values.reshape(size, -1).sum(axis=1).reshape(1, *read)


def predicted(model, read):
    (node,) = from_model(model).nodes
    (values,) = Session(model).run({"x": np.zeros((1, *read), np.float32)}).values()
    node.inputs[0].shape, node.outputs[0].shape = [1, *read], list(values.shape)
    return np.broadcast_to(fan_out(node, 0, macs(node)), (1, *read))


sizes = st.integers(1, 3)


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(["Conv", "ConvTranspose"]),
    st.tuples(st.integers(5, 8), st.integers(5, 8)),
    st.tuples(sizes, sizes),
    st.tuples(sizes, sizes),
    st.tuples(st.integers(1, 2), st.integers(1, 2)),
    st.one_of(
        st.lists(st.integers(0, 2), min_size=4, max_size=4),
        st.sampled_from(["SAME_UPPER", "SAME_LOWER", "VALID"]),
    ),
    st.integers(1, 2),
)
def test_fan_out_is_what_a_spike_meets(operator, space, kernel, strides, dilations, pads, group):
    assume(isinstance(pads, list) or dilations == (1, 1))
    first, second = (4, 2 // group) if operator == "Conv" else (2, 4 // group)
    weight = (first, second, *kernel)
    more = {"pads": pads} if isinstance(pads, list) else {"auto_pad": pads}
    if operator == "ConvTranspose":
        assume(isinstance(pads, list))
        assume(all(k > p for k in kernel for p in pads))
    model = layer_of_ones(
        operator,
        (2, *space),
        weight,
        strides=strides,
        dilations=dilations,
        group=group,
        **more,
    )
    read = (2, *space)
    np.testing.assert_allclose(predicted(model, read), weights_met(model, read))


@pytest.mark.parametrize("read", [(6,), (3, 6)])
def test_fan_out_of_a_product_is_its_outputs(read):
    model = layer_of_ones("MatMul", read, (6, 5))
    np.testing.assert_allclose(predicted(model, read), weights_met(model, read))
    assert predicted(model, read).max() == 5


def snn_of(builder, tmp_path, x, **ways):
    source = load_source(builder.save(tmp_path / "m.onnx"))
    return convert(source, dataset(x=x), timesteps=T, **ways).snn


def spikes_in(snn, x, layer):
    """All spikes of a layer, as counts, over the steps."""
    runner = Runner(snn, taps=[snn.spikes[layer]])
    return sum(np.ceil(np.abs(o[snn.spikes[layer]])) for o in runner.steps(x, T))


def operations(snn, x):
    return {row.name: row for row in energy(snn, dataset(x=x)).rows}


X = uniform(12, 3, 8, 8)


@pytest.mark.parametrize("neuron", [None, BurstIntegrateAndFire()])
def test_strided_padded_grouped_convolution_behind_average_pooling(tmp_path, neuron):
    b = Builder((3, 8, 8))
    b.conv(4)
    b.relu()
    b.op("AveragePool", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    b.conv(6, group=2, strides=[2, 2])
    b.relu()
    b.head()
    snn = snn_of(b, tmp_path, X, neuron=neuron)
    first, second = snn.spikes
    b = Builder((4, 8, 8))
    b.op("AveragePool", kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4, count_include_pad=1)
    b.op("Conv", b.last, b.constant(9 * np.ones((6, 2, 3, 3))), group=2, strides=[2, 2],
         pads=[1, 1, 1, 1])  # fmt: skip
    (met,) = Session(b.model()).run({"x": spikes_in(snn, X, first).astype(np.float32)}).values()
    rows = operations(snn, X)
    names = [name for name in rows if "conv" in name]
    assert rows[names[0]].driven == "input"
    assert rows[names[1]].operations == pytest.approx(met.sum() / len(X), rel=1e-5)
    (gemm,) = (row for name, row in rows.items() if "gemm" in name)
    per_sample = spikes_in(snn, X, second).sum() / len(X)
    assert gemm.operations == pytest.approx(4 * per_sample, rel=1e-5)


def spikes_of_maxima(snn, x, layer, delay=0):
    """What MaxPool of 2x2 makes of a layer's spikes: how its maximum of the sums grows.

    After a delay, the sums start again.
    """
    tap = snn.spikes[layer]
    spikes = [outputs[tap] for outputs in Runner(snn, taps=[tap]).steps(x, T)]
    found = 0.0
    for part in filter(len, (spikes[:delay], spikes[delay:])):
        sums = np.cumsum(part, axis=0)  # [T, N, C, H, W]
        rows = np.maximum(sums[..., ::2, :], sums[..., 1::2, :])
        maxima = np.maximum(rows[..., ::2], rows[..., 1::2])
        found += np.ceil(np.abs(np.diff(maxima, axis=0, prepend=0))).sum(axis=0)
    return found


neurons = pytest.mark.parametrize(
    "neuron", [None, SignedIntegrateAndFire(), BurstIntegrateAndFire(), MultiThreshold()]
)


@neurons
def test_max_pooling_passes_its_own_spikes(tmp_path, neuron):
    b = Builder((3, 8, 8))
    b.conv(4)
    b.relu()
    b.op("MaxPool", kernel_shape=[2, 2], strides=[2, 2])
    b.conv(6, pads=[0, 0, 0, 0])
    b.relu()
    b.head()
    snn = snn_of(b, tmp_path, X, neuron=neuron)
    (conv,) = (n for n in snn.model.graph.node if n.op_type == "Conv" and n.input[0] != "x")
    arrived = spikes_of_maxima(snn, X, next(iter(snn.spikes)))
    ones = layer_of_ones("Conv", (4, 4, 4), (6, 4, 3, 3))
    (met,) = Session(ones).run({"x": arrived.astype(np.float32)}).values()
    assert operations(snn, X)[conv.name].operations == pytest.approx(met.sum() / len(X), rel=1e-5)


@neurons
@pytest.mark.parametrize("operator", ["GlobalMaxPool", "ReduceMax"])
@pytest.mark.parametrize("reads_means", [False, True])
def test_a_maximum_of_all_passes_its_own_spikes(tmp_path, neuron, operator, reads_means):
    b = Builder((3, 8, 8), opset=18)
    b.conv(4)
    b.relu()
    b.op(operator, b.last, *([b.constant([2, 3], "int64")] if operator == "ReduceMax" else []))
    b.op("Flatten")
    b.gemm(5)
    if not reads_means:
        b.relu()
        b.gemm(3)
    snn = snn_of(b, tmp_path, X, neuron=neuron)
    tap = next(iter(snn.spikes.values()))
    spikes = [outputs[tap] for outputs in Runner(snn, taps=[tap]).steps(X, T)]
    maxima = np.cumsum(spikes, axis=0).max(axis=(3, 4))  # [T, N, C]
    arrived = np.ceil(np.abs(np.diff(maxima, axis=0, prepend=0))).sum()
    row = next(row for name, row in operations(snn, X).items() if "gemm" in name)
    assert row.driven == "spikes"
    assert row.operations == pytest.approx(5 * arrived / len(X), rel=1e-5)


@neurons
@pytest.mark.parametrize("delay", [0, 1])
def test_max_pooling_in_front_of_the_read_out_passes_its_own_spikes(tmp_path, neuron, delay):
    b = Builder((3, 8, 8))
    b.conv(4)
    b.relu()
    b.op("MaxPool", kernel_shape=[2, 2], strides=[2, 2])
    b.op("Flatten")
    b.gemm(5, inputs=64)
    snn = snn_of(b, tmp_path, X, neuron=neuron, delay=delay)
    arrived = spikes_of_maxima(snn, X, next(iter(snn.spikes)), delay)
    (gemm,) = (row for name, row in operations(snn, X).items() if "gemm" in name)
    assert gemm.driven == "spikes"
    assert gemm.operations == pytest.approx(5 * arrived.sum() / len(X), rel=1e-5)


@pytest.mark.parametrize("behind", ["neuron", "read-out"])
def test_maxima_of_currents_are_no_spikes(tmp_path, behind):
    b = Builder((3, 8, 8))
    b.conv(4)
    b.relu()
    b.conv(4)
    b.op("MaxPool", kernel_shape=[2, 2], strides=[2, 2])
    if behind == "neuron":
        b.relu()
    b.op("Flatten")
    b.gemm(5, inputs=64)
    snn = snn_of(b, tmp_path, X)
    rows = operations(snn, X)
    assert not rows.keys() & snn.spikes.keys()
    assert [row.driven for row in rows.values()][:2] == ["input", "spikes"]


def test_analog_values_in_front_of_an_encoder_are_no_spikes(tmp_path):
    b = Builder((6,))
    b.gemm(8)
    b.relu()
    b.gemm(8)
    b.op("Tanh")
    b.gemm(3)
    snn = snn_of(b, tmp_path, uniform(12, 6))
    relu, encoder = snn.spikes
    rows = operations(snn, uniform(12, 6))
    assert relu not in rows
    assert encoder not in rows
    assert [row.driven for row in rows.values()] == ["input", "spikes", "spikes"]


def test_shortcut_costs_one_operation_per_spike_and_is_seen_by_the_next_weights(tmp_path):
    b = Builder((3, 8, 8))
    b.conv(4)
    first = b.relu()
    b.conv(4)
    b.op("Add", b.last, first)
    b.relu()
    b.head()
    snn = snn_of(b, tmp_path, X)
    first, second = snn.spikes
    rows = operations(snn, X)
    shortcut = spikes_in(snn, X, first).sum() / len(X)
    assert rows[second].operations == pytest.approx(shortcut, rel=1e-5)
    assert rows[second].macs == 0


def test_preactivation_sum_of_two_layers_reaches_the_weights_twice(tmp_path):
    """Spikes of both layers that are added meet the weights behind."""
    b = Builder((6,))
    b.gemm(5)
    left = b.relu()
    b.channels = 6
    b.last = "x"
    b.gemm(5)
    right = b.relu()
    b.op("Add", left, right)
    b.gemm(7)
    b.relu()
    b.gemm(2)
    x = uniform(12, 6)
    snn = snn_of(b, tmp_path, x)
    names = list(snn.spikes)
    both = sum(spikes_in(snn, x, layer).sum() for layer in names[:2]) / len(x)
    found = [row for row in operations(snn, x).values() if row.driven == "spikes"]
    assert found[0].operations == pytest.approx(7 * both, rel=1e-5)


def parted(b):
    b.op("Split", axis=1, count=2)
    return (slice(0, 3),)


def chosen(b):
    shown = b.constant(np.array([True, False, True, True, True, False]).reshape(6, 1, 1), bool)
    b.op("Where", shown, b.last, b.constant(0.0))
    return ([0, 2, 3, 4],)


def pooled(b):
    """Each of 8 x 8 values is in one window, of which the last are not whole."""
    b.op("AveragePool", kernel_shape=[3, 3], strides=[3, 3], ceil_mode=1)
    return (slice(None),)


@pytest.mark.parametrize("between", [parted, chosen, pooled])
def test_spikes_are_followed_to_the_weights_that_they_meet(tmp_path, between):
    b = Builder((3, 8, 8))
    b.conv(6)
    b.relu()
    channels = between(b)
    b.channels = 3 if between is parted else 6
    b.conv(5, kernel=1)
    b.relu()
    b.head()
    snn = snn_of(b, tmp_path, X)
    spikes = spikes_in(snn, X, next(iter(snn.spikes)))
    conv = list(operations(snn, X).values())[1]
    met = sum(float(spikes[:, part].sum()) for part in channels) / len(X)
    assert conv.driven == "spikes"
    assert conv.operations == pytest.approx(5 * met, rel=1e-5)


def test_a_spike_that_is_added_in_many_places_counts_in_each(tmp_path):
    b = Builder((4, 6, 6))
    b.op("GlobalAveragePool")
    b.conv(4, kernel=1)
    b.relu()
    b.op("Add", b.last, b.normal(1, 4, 3, 3))
    b.op("Flatten")
    b.gemm(2, inputs=36)
    x = uniform(12, 4, 6, 6)
    snn = snn_of(b, tmp_path, x)
    met = 9 * 2 * spikes_in(snn, x, next(iter(snn.spikes))).sum() / len(x)
    assert list(operations(snn, x).values())[-1].operations == pytest.approx(met, rel=1e-5)


@pytest.mark.parametrize("structure", STRUCTURES)
def test_every_structure_is_counted_and_computes_what_it_did(tmp_path, structure):
    source = load_source(STRUCTURES[structure]().save(tmp_path / "m.onnx"))
    (spec,) = source.inputs
    x = uniform(4, *spec.shape[1:])
    snn = convert(source, dataset(x=x), timesteps=3).snn
    counted = instrument(snn, {"x": x})
    for name, values in Runner(snn).run(x).outputs.items():
        np.testing.assert_allclose(Runner(counted.snn).run(x).outputs[name], values, rtol=1e-6)
    found = energy(snn, dataset(x=x))
    assert found.ann_macs == sum(row.macs for row in found.rows)
    assert found.synaptic_operations[-1] > 0
    assert found.synaptic_operations == sorted(found.synaptic_operations)
    analog = [row for row in found.rows if row.driven == "analog"]
    # products of two tensors that vary, and an LSTM
    assert bool(analog) == (structure in ("transformer", "recurrent"))
    if structure != "transformer":
        assert any(row.driven == "input" for row in found.rows)


def test_a_delay_changes_no_operations(tmp_path):
    source = load_source(STRUCTURES["transformer"]().save(tmp_path / "m.onnx"))
    (spec,) = source.inputs
    data = dataset(x=uniform(4, *spec.shape[1:]))
    plain, late = (
        energy(convert(source, data, timesteps=T, correct=False, delay=d).snn, data) for d in (0, 2)
    )
    assert late.synaptic_operations == plain.synaptic_operations
    assert late.analog_macs == plain.analog_macs


def test_attention_is_paid_for_in_every_step(tmp_path):
    source = load_source(STRUCTURES["transformer"]().save(tmp_path / "m.onnx"))
    (spec,) = source.inputs
    x = uniform(4, *spec.shape[1:])
    snn = convert(source, dataset(x=x), timesteps=3).snn
    found = energy(snn, dataset(x=x))
    assert found.analog_macs[2] == 3 * found.analog_macs[0] > 0


def test_products_of_the_read_out_are_paid_for_once(tmp_path):
    b, x = Builder((5, 8)), uniform(6, 5, 8)
    b.op("MatMul", "x", b.normal(8, 8))
    b.relu()
    b.op("MatMul", b.last, b.op("Transpose", b.last, perm=[0, 2, 1]))
    found = energy(snn_of(b, tmp_path, x, correct=False), dataset(x=x))
    (row,) = (row for row in found.rows if row.driven == "analog")
    assert row.operations == row.macs == 5 * 5 * 8
    assert found.analog_macs == [row.macs] * T


def test_a_loop_is_said_not_to_be_counted(tmp_path):
    b, x = recurrent("Loop"), uniform(4, 6, 8)
    snn = convert(b.save(tmp_path / "m.onnx"), dataset(x=x), timesteps=3).snn
    found = energy(snn, dataset(x=x))
    assert found.uncounted == ["loop9"]
    assert found.ann_macs == 6 * 8 * 8 + 30 * 4


def test_energies_are_operations_times_costs(tmp_path):
    snn = snn_of(STRUCTURES["vgg"](), tmp_path, X)
    own = CostModel("own", "test", 2.0, 0.5)
    found = energy(snn, dataset(x=X), models=[*MODELS, own])
    assert [e.model.mac for e in found.energies] == [4.6, 12.5, 2.0]
    for result in found.energies:
        assert result.ann == pytest.approx(found.ann_macs * result.model.mac)
        for t in range(T):
            expected = found.input_macs * result.model.mac
            expected += found.synaptic_operations[t] * result.model.ac
            assert result.snn[t] == pytest.approx(expected)
    total = sum(row.operations for row in found.rows if row.driven == "spikes")
    assert found.synaptic_operations[-1] == pytest.approx(total)


@pytest.mark.parametrize("costs", [(-1.0, 0.5), (4.6, -1.0), (np.inf, 0.9), (4.6, np.nan)])
def test_costs_are_finite_and_0_or_more(costs):
    with pytest.raises(UsageError, match="0 pJ or more"):
        CostModel("own", "test", *costs)


def test_no_timesteps_are_refused(tmp_path):
    snn = snn_of(STRUCTURES["vgg"](), tmp_path, X)
    with pytest.raises(UsageError, match="1 or more"):
        energy(snn, dataset(x=X), 0)


@pytest.mark.parametrize(
    "more", [{"output_shape": [12, 9]}, {"output_shape": [13, 12], "auto_pad": "SAME_UPPER"},
             {"output_shape": [13, 12], "output_padding": [1, 1]}]
)  # fmt: skip
def test_fan_out_of_a_transposed_convolution_of_a_given_size(more):
    read = (2, 6, 5)
    model = layer_of_ones("ConvTranspose", read, (2, 3, 3, 4), strides=[2, 2], **more)
    np.testing.assert_allclose(predicted(model, read), weights_met(model, read))


def test_padding_of_named_axes_is_counted(tmp_path):
    b, x = Builder((3, 6, 6), opset=18), uniform(4, 3, 6, 6)
    b.conv(4)
    b.relu()
    b.op("Pad", b.last, b.constant([1, 1], np.int64), "", b.constant([-1], np.int64))
    b.conv(2)
    snn = snn_of(b, tmp_path, x)
    assert energy(snn, dataset(x=x)).synaptic_operations[-1] > 0


def test_a_recurrent_layer_without_its_first_output_is_counted(tmp_path):
    b, x = Builder((7, 6)), uniform(4, 7, 6)
    sequence = b.op("Transpose", b.relu(), perm=[1, 0, 2])
    b.op("GRU", sequence, b.normal(1, 15, 6), b.normal(1, 15, 5), hidden_size=5, count=2)
    b.nodes[-1].output[0] = ""
    b.op("Squeeze", b.nodes[-1].output[1], b.constant([0], np.int64))
    b.gemm(3, inputs=5)
    snn = snn_of(b, tmp_path, x)
    assert energy(snn, dataset(x=x)).analog_macs[-1] > 0


def test_a_constant_output_counts_for_nothing(tmp_path):
    b, x = Builder((6,)), uniform(4, 6)
    b.gemm(5)
    b.relu()
    b.gemm(3)
    given = b.last
    held = b.op("Identity", b.nodes[0].input[1])
    snn = convert(b.save(tmp_path / "m.onnx", given, held), dataset(x=x), timesteps=T).snn
    assert energy(snn, dataset(x=x)).ann_macs == 6 * 5 + 5 * 3
