"""Layers over one axis that ONNX has with two."""

import numpy as np
import pytest

from onnxsnn import IntegrateAndFire, convert
from onnxsnn.export.network import read_network
from onnxsnn.export.one_axis import with_one_axis
from tests.networks import IntegerBuilder


def network(folder, shape, *, unsqueeze=True, **attrs):
    b = IntegerBuilder(shape)
    if unsqueeze:
        b.op("Unsqueeze", b.last, b.constant([2], np.int64))
    b.op("Conv", b.last, b.normal(4, 2, 1, 3), b.normal(4), **attrs)
    b.clip(2.0)
    b.op("AveragePool", kernel_shape=[1, 2], strides=[1, 2])
    path = b.save(folder / "m.onnx")
    return read_network(convert(path, threshold="trained", neuron=IntegrateAndFire(0.0)).snn)


def test_layers_have_the_settings_of_their_axis(tmp_path):
    attrs = {"pads": [0, 1, 0, 2], "dilations": [1, 2]}
    changed = with_one_axis(network(tmp_path, (2, 9), **attrs))
    conv, pool = (o for o in changed.operations if o.operator in ("Conv", "AveragePool"))
    assert conv.arrays["weight"].shape == (4, 2, 3)
    assert (conv.settings["pads"], conv.settings["dilations"]) == ([1, 2], [2])
    assert (conv.shape, pool.shape, pool.settings["strides"]) == ([4, 8], [4, 4], [2])


@pytest.mark.parametrize(
    ("shape", "changes"),
    [
        ((2, 1, 9), {"unsqueeze": False}),
        ((2, 9), {"pads": [1, 0, 0, 0]}),
    ],
)
def test_what_has_two_axes_keeps_them(shape, changes, tmp_path):
    before = network(tmp_path, shape, **changes)
    (conv,) = (o for o in with_one_axis(before).operations if o.operator == "Conv")
    assert len(conv.shape) == 3
