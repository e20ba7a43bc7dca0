"""Transposes that files for others do without."""

import numpy as np

from onnxsnn import IntegrateAndFire, convert
from onnxsnn.export.network import read_network
from onnxsnn.export.reordered import without_moves
from tests.networks import IntegerBuilder, channels_last


def read(b, folder, *outputs):
    path = b.save(folder / "m.onnx", *outputs)
    return read_network(convert(path, threshold="trained", neuron=IntegrateAndFire(0.0)).snn)


def transposes(network):
    return [o for o in network.operations if o.operator == "Transpose"]


def test_columns_come_in_the_order_in_front(tmp_path):
    b = channels_last()
    b.gemm(5, inputs=192)
    network = read(b, tmp_path)
    changed = without_moves(network)
    assert (len(transposes(network)), transposes(changed)) == (2, [])
    assert (network.inputs, changed.inputs) == ({"x": [6, 8, 2]}, {"x": [2, 6, 8]})
    assert changed.losses == ["the order of the axes of input 'x': samples are [2, 6, 8], "
                              "not [6, 8, 2]"]  # fmt: skip
    features = np.random.default_rng(0).normal(size=(4, 6, 8))
    before, after = (n.operations[-1].arrays["weight"] for n in (network, changed))
    expected = before @ features.transpose(1, 2, 0).reshape(-1)
    np.testing.assert_allclose(after @ features.reshape(-1), expected)


def test_an_input_whose_order_others_need_stays(tmp_path):
    b = channels_last()
    first = b.gemm(4, inputs=192)
    b.op("MatMul", "x", b.normal(2, 3))
    b.op("Flatten")
    b.op("Add", b.gemm(4, inputs=144), first)
    network = read(b, tmp_path)
    assert without_moves(network).inputs == network.inputs


def test_an_output_is_no_other_vector(tmp_path):
    b = channels_last()
    flat = b.last
    changed = without_moves(read(b, tmp_path, flat, b.gemm(5, inputs=192)))
    assert changed.shapes[flat] == [192]
    assert [o.shape for o in transposes(changed)] == [[192]]


def test_an_order_that_two_readers_share_is_left_out_for_both(tmp_path):
    """A Flatten of the input itself has the order of its columns."""
    b = channels_last()
    first = b.gemm(4, inputs=192)
    b.op("Flatten", "x")
    b.op("Add", b.gemm(4, inputs=96), first)
    changed = without_moves(read(b, tmp_path))
    assert (changed.inputs, transposes(changed)) == ({"x": [2, 6, 8]}, [])


def test_arrays_of_channels_stay_arrays_of_channels(tmp_path):
    b = IntegerBuilder((6, 8, 2))
    b.op("Mul", b.last, b.constant([2.0, 0.5]))
    b.op("Transpose", perm=[0, 3, 1, 2])
    b.channels = 2
    b.conv(4)
    b.clip(2.0)
    network = read(b, tmp_path)
    scale, *_ = (o for o in without_moves(network).operations if o.operator == "Scale")
    np.testing.assert_array_equal(scale.arrays["scale"], [[[2.0]], [[0.5]]])


def test_a_flattened_input_is_not_asked_for_in_another_order(tmp_path):
    """[6, 8, 2] in a row, and then channels first: more than an order of axes."""
    b = IntegerBuilder((96,))
    b.op("Reshape", b.last, b.constant([-1, 6, 8, 2], np.int64))
    b.op("Transpose", perm=[0, 3, 1, 2])
    b.channels = 2
    b.conv(4)
    b.clip(2.0)
    network = read(b, tmp_path)
    assert without_moves(network).inputs == {"x": [96]}
