"""Transposes that files for others do without."""

import numpy as np
import pytest

from onnxsnn import IntegrateAndFire, convert
from onnxsnn.export.network import read_network
from onnxsnn.export.reordered import without_transposes
from tests.networks import channels_last


def read(b, folder, *outputs):
    path = b.save(folder / "m.onnx", *outputs)
    return read_network(convert(path, threshold="trained", neuron=IntegrateAndFire(0.0)).snn)


def transposes(network):
    return [o for o in network.operations if o.operator == "Transpose"]


def test_columns_come_in_the_order_in_front(tmp_path):
    b = channels_last()
    b.gemm(5, inputs=192)
    network = read(b, tmp_path)
    changed = without_transposes(network)
    assert (len(transposes(network)), transposes(changed)) == (2, [])
    assert (network.inputs, changed.inputs) == ({"x": [6, 8, 2]}, {"x": [2, 6, 8]})
    assert changed.losses == ["the order of the axes of input 'x': samples are [2, 6, 8], "
                              "not [6, 8, 2]"]  # fmt: skip
    features = np.random.default_rng(0).normal(size=(4, 6, 8))
    before, after = (n.operations[-1].arrays["weight"] for n in (network, changed))
    expected = before @ features.transpose(1, 2, 0).reshape(-1)
    np.testing.assert_allclose(after @ features.reshape(-1), expected)


def test_an_input_that_others_read_stays(tmp_path):
    b = channels_last()
    first = b.gemm(4, inputs=192)
    b.op("Flatten", "x")
    b.op("Add", b.gemm(4, inputs=96), first)
    network = read(b, tmp_path)
    assert without_transposes(network).inputs == network.inputs


@pytest.mark.parametrize("reader", ["neurons", "output"])
def test_what_more_than_weights_reads_stays(reader, tmp_path):
    b = channels_last()
    flat = b.clip(1.0) if reader == "neurons" else b.last
    scores = b.gemm(5, inputs=192)
    changed = without_transposes(read(b, tmp_path, *([flat] if reader == "output" else []), scores))
    assert [o.settings["order"] for o in transposes(changed)] == [[1, 2, 0]]
