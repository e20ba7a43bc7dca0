"""SpikingModel: saved and loaded whole, its states and metadata with it."""

import numpy as np
import onnx
import pytest

from onnxsnn import Runner, SpikingModel, convert
from onnxsnn.errors import ModelError
from onnxsnn.graph import to_model
from onnxsnn.model import is_spiking, kind_of
from tests.models import dataset, uniform
from tests.networks import residual_network

X = uniform(6, 3, 8, 8)


@pytest.fixture
def path(tmp_path):
    return residual_network().save(tmp_path / "model.onnx")


def test_saved_and_loaded_it_is_the_same(path, tmp_path):
    before = convert(path, dataset(x=X), timesteps=4).snn
    before.save(tmp_path / "snn.onnx")
    after = SpikingModel.load(tmp_path / "snn.onnx")
    assert after.layers == before.layers
    assert after.metadata == before.metadata
    assert after.model == before.model
    for mine, its in zip(after.states, before.states, strict=True):
        assert (mine.input, mine.output, mine.role) == (its.input, its.output, its.role)
        np.testing.assert_array_equal(mine.default, its.default)


def test_graph_and_back_keeps_what_it_computes(path):
    snn = convert(path, dataset(x=X), timesteps=4).snn
    again = SpikingModel.build(snn.graph(), snn.states, snn.metadata, snn.layers)
    assert to_model(again.graph()).graph.node == to_model(snn.graph()).graph.node
    for left, right in zip(*(Runner(s).run(X).outputs.values() for s in (snn, again)), strict=True):
        np.testing.assert_array_equal(left, right)


def test_kinds_are_told_apart(path):
    kept = {}
    snn = convert(path, dataset(x=X), keep=kept.__setitem__).snn
    assert kind_of(onnx.load(path)) == "source"
    assert kind_of(kept["relu_to_ratenorm"]) == "intermediate"
    assert kind_of(snn.model) == "snn"
    assert is_spiking(snn.model)


def test_ann_is_no_snn(path):
    with pytest.raises(ModelError, match="no SNN but an ANN; convert it first"):
        SpikingModel.load(path)


def test_other_format_is_refused(path, tmp_path):
    snn = convert(path, dataset(x=X)).snn
    for entry in snn.model.metadata_props:
        if entry.key == "onnxsnn.format":
            entry.value = "99"
    snn.save(tmp_path / "snn.onnx")
    with pytest.raises(ModelError, match="format 99"):
        SpikingModel.load(tmp_path / "snn.onnx")


def test_damaged_metadata_are_refused(path, tmp_path):
    snn = convert(path, dataset(x=X)).snn
    for entry in snn.model.metadata_props:
        if entry.key == "onnxsnn.states":
            entry.value = '[{"input": "gone", "output": "x", "role": "sum"}]'
    snn.save(tmp_path / "snn.onnx")
    with pytest.raises(ModelError, match="metadata are damaged"):
        SpikingModel.load(tmp_path / "snn.onnx")
