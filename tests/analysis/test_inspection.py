"""inspect: source, intermediate and SNN files alike."""

import onnx
import pytest

from onnxsnn import convert, inspect, load_source
from onnxsnn.analysis.convertibility import convertibility
from onnxsnn.errors import ModelError
from tests.models import Builder, dataset, uniform
from tests.networks import residual_network

X = uniform(8, 3, 8, 8)


@pytest.fixture
def path(tmp_path):
    return residual_network().save(tmp_path / "model.onnx")


def by_operator(inspection, operator):
    return [row for row in inspection.rows if row.operator == operator]


def test_every_node_of_a_source_has_a_role(path):
    inspection = inspect(path)
    assert inspection.kind == "source"
    assert len(inspection.rows) == len(onnx.load(path).graph.node)
    assert {row.role for row in by_operator(inspection, "Relu")} == {"rewritten"}
    assert {row.role for row in by_operator(inspection, "Conv")} == {"linear"}
    assert by_operator(inspection, "MaxPool")[0].role == "compensated"
    assert by_operator(inspection, "Flatten")[0].role == "shape"


def test_neurons_and_parameters_are_counted(path):
    inspection = inspect(path)
    assert [row.neurons for row in by_operator(inspection, "Relu")] == [384, 384, 128, 10]
    assert inspection.neurons == 384 + 384 + 128 + 10
    floats = onnx.load(path).graph.initializer
    assert inspection.parameters == sum(onnx.numpy_helper.to_array(t).size for t in floats)


def network(*operators):
    """Layers of weights with these operators in between."""
    b = Builder((6,))
    for operator in operators:
        b.gemm(8)
        b.op(operator)
    b.gemm(4)
    return b


@pytest.mark.parametrize(
    ("operators", "encodes"),
    [
        (["Tanh"], True),
        (["Sigmoid", "Softplus"], True),
        ([], False),
        (["Identity"], False),
        (["Relu"], False),
        (["Relu", "Tanh"], False),
        (["Tanh", "RandomNormalLike"], False),
    ],
)
def test_source_without_rectifiers_says_whether_it_gets_neurons(tmp_path, operators, encodes):
    path = network(*operators).save(tmp_path / "m.onnx")
    inspection, report = inspect(path), convertibility(path)
    assert inspection.encodes == encodes
    if not inspection.neurons:
        assert encodes == report.convertible


def test_output_that_no_weights_read_gets_no_neurons(tmp_path):
    b = Builder((6,))
    b.gemm(8)
    b.op("Softmax")
    assert not inspect(b.save(tmp_path / "m.onnx")).encodes


def test_layers_of_unknown_sizes_are_counted_apart(tmp_path):
    b = Builder((3, "H", "W"))
    b.conv(8)
    b.relu()
    b.head(10)
    b.relu()
    inspection = inspect(b.save(tmp_path / "m.onnx"))
    assert (inspection.neurons, inspection.unsized) == (10, 1)


def test_snn_has_thresholds_p_and_omega(path, tmp_path):
    convert(load_source(path), dataset(x=X), timesteps=4, delay=1).snn.save(tmp_path / "snn.onnx")
    inspection = inspect(tmp_path / "snn.onnx")
    assert inspection.kind == "snn"
    assert inspection.metadata["delay"] == 1
    neurons = by_operator(inspection, "IntegrateAndFire")
    assert len(neurons) == 4
    for row in neurons:
        assert row.role == "neuron"
        assert row.threshold > 0
        assert 0 < row.p < 2
        assert row.omega >= 1
    assert inspection.neurons == 906
    assert inspection.metadata["timesteps"] == 4
    assert inspection.roles["state"] >= 3


def test_intermediate_has_thresholds_once_they_are_set(path, tmp_path):
    def keep(name, model):
        onnx.save(model, tmp_path / f"{name}.onnx")

    convert(load_source(path), dataset(x=X), keep=keep)
    before = by_operator(inspect(tmp_path / "relu_to_ratenorm.onnx"), "RateNorm")
    after = by_operator(inspect(tmp_path / "set_thresholds.onnx"), "RateNorm")
    assert inspect(tmp_path / "relu_to_ratenorm.onnx").kind == "intermediate"
    assert {row.threshold for row in before} == {None}
    assert all(row.threshold > 0 and row.omega > 0 for row in after)


def test_refused_nodes_are_shown_with_the_reason(tmp_path):
    b = Builder((3,))
    b.relu()
    b.op("RandomNormalLike")
    (row,) = by_operator(inspect(b.save(tmp_path / "m.onnx")), "RandomNormalLike")
    assert row.role == "refused"
    assert "random" in row.reason


def test_constant_and_static_nodes_are_told_apart(tmp_path):
    b = Builder((3,))
    scale = b.op("Exp", b.constant(1.0))
    b.op("Mul", b.op("Sigmoid", "x"), scale)
    b.relu()
    inspection = inspect(b.save(tmp_path / "m.onnx"))
    assert by_operator(inspection, "Exp")[0].role == "constant"
    assert by_operator(inspection, "Sigmoid")[0].role == "static"


def test_missing_file_is_refused(tmp_path):
    with pytest.raises(ModelError, match="cannot be read"):
        inspect(tmp_path / "gone.onnx")
