"""SpikingModel: saved and loaded whole, its states and metadata with it."""

import numpy as np
import onnx
import pytest

from onnxsnn import Runner, SpikingModel, convert
from onnxsnn.analysis.inspection import inspect
from onnxsnn.errors import ModelError
from onnxsnn.graph import to_model
from onnxsnn.metadata import read_metadata, write_metadata
from onnxsnn.model import is_spiking, kind_of
from onnxsnn.neurons import RECTIFYING_NEURONS
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


def test_every_kind_of_neuron_is_read(path, tmp_path):
    for kind in RECTIFYING_NEURONS.values():
        snn = convert(path, dataset(x=X), timesteps=4, neuron=kind()).snn
        snn.save(tmp_path / "snn.onnx")
        assert SpikingModel.load(tmp_path / "snn.onnx").neurons == snn.neurons


@pytest.fixture(scope="module")
def converted(tmp_path_factory):
    path = residual_network().save(tmp_path_factory.mktemp("damaged") / "model.onnx")
    return convert(path, dataset(x=X), timesteps=4).snn


def first(**changes):
    """A change of the first of several records."""
    return lambda records: [{**records[0], **changes}, *records[1:]]


@pytest.mark.parametrize(
    ("entry", "change"),
    [
        ("timesteps", lambda _: 0),
        ("timesteps", lambda _: "4"),
        ("timesteps", lambda _: None),
        ("threshold", lambda _: 5),
        ("correction", lambda _: []),
        ("delay", lambda _: 4),
        ("bits_per_spike", lambda _: {}),
        ("neuron", lambda _: []),
        ("neuron", lambda _: {"model": ["if"]}),
        ("neuron", lambda neuron: neuron | {"model": "nix"}),
        ("neuron", lambda neuron: neuron | {"initial_potential": "x"}),
        ("states", lambda _: {}),
        ("states", lambda _: [5]),
        ("states", lambda states: states[1:]),
        ("states", first(input="nix")),
        ("states", first(output="nix")),
        ("states", first(more=1)),
        ("layers", lambda _: [[]]),
        ("layers", lambda layers: layers[1:]),
        ("layers", first(name="nix")),
        ("layers", first(scale=[1.0])),
        ("layers", first(bias="x")),
        ("layers", first(more=1)),
    ],
)
def test_damaged_metadata_are_refused(converted, tmp_path, entry, change):
    model = onnx.ModelProto()
    model.CopyFrom(converted.model)
    metadata = read_metadata(model)
    write_metadata(model, metadata | {entry: change(metadata[entry])})
    refuses(model, tmp_path / "snn.onnx", entry)


@pytest.mark.parametrize("entry", ["timesteps", "neuron", "states", "layers"])
def test_missing_metadata_are_refused(converted, tmp_path, entry):
    model = onnx.ModelProto()
    model.CopyFrom(converted.model)
    write_metadata(model, {k: v for k, v in read_metadata(model).items() if k != entry})
    refuses(model, tmp_path / "snn.onnx", entry)


def test_metadata_that_are_no_json_are_refused(converted, tmp_path):
    model = onnx.ModelProto()
    model.CopyFrom(converted.model)
    onnx.helper.set_model_props(model, {"onnxsnn.format": "1", "onnxsnn.warnings": "["})
    refuses(model, tmp_path / "snn.onnx", "warnings")


def refuses(model, path, entry):
    """Reading and inspecting name the file, and what in it is damaged."""
    onnx.save(model, path)
    for read in (SpikingModel.load, inspect):
        with pytest.raises(ModelError, match=f"snn.onnx: .* damaged, in entry '{entry}'; convert"):
            read(path)


def test_damaged_layers_of_an_intermediate_are_refused(path, tmp_path):
    kept = {}
    convert(path, dataset(x=X), keep=kept.__setitem__)
    write_metadata(kept["set_thresholds"], {"layers": [{"name": "nix"}]})
    onnx.save(kept["set_thresholds"], tmp_path / "m.onnx")
    with pytest.raises(ModelError, match="damaged, in entry 'layers'"):
        inspect(tmp_path / "m.onnx")
