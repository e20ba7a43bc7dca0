"""convertibility: the fate of every node of the source, and what drives the weights."""

import numpy as np
import pytest

from onnxsnn.analysis.convertibility import convertibility
from tests.models import Builder
from tests.networks import STRUCTURES, residual_network


def by_name(report):
    return {row.name: row for row in report.rows}


def test_every_node_of_the_source_has_a_fate(tmp_path):
    b = residual_network()
    report = convertibility(b.save(tmp_path / "m.onnx"))
    assert report.convertible
    assert list(by_name(report)) == [node.name for node in b.nodes]
    assert {row.operator: row.fate for row in report.rows} == {
        "Conv": "linear", "BatchNormalization": "rewritten", "Relu": "rewritten",
        "Add": "linear", "MaxPool": "compensated", "AveragePool": "linear",
        "Flatten": "shape", "Gemm": "linear",
    }  # fmt: skip
    assert sum(report.fates.values()) == len(b.nodes)


def test_first_layer_is_driven_by_the_input_and_the_others_by_spikes(tmp_path):
    report = convertibility(residual_network().save(tmp_path / "m.onnx"))
    driven = [row.driven for row in report.rows if row.driven]
    assert driven == ["input", *["spikes"] * 4]
    assert report.macs["input"] == 6 * 64 * 27
    assert report.share("input") + report.share("spikes") == pytest.approx(1.0)
    assert (report.rectifiers, report.encoders, report.compensated) == (4, 0, {})


def test_products_are_those_of_a_sample_where_the_batch_stays_fixed(tmp_path):
    b = Builder((6, 8), batch=4)
    b.op("Reshape", b.last, b.constant([4, 48], np.int64))
    b.gemm(10, inputs=48)
    b.relu()
    b.op("Sub", b.last, b.op("ReduceMean", axes=[0]))  # samples are not treated alone
    b.gemm(3, inputs=10)
    assert convertibility(b.save(tmp_path / "m.onnx")).macs == {"input": 480, "spikes": 30}


def test_attention_stays_analog_and_is_counted(tmp_path):
    report = convertibility(STRUCTURES["transformer"]().save(tmp_path / "m.onnx"))
    assert report.macs["analog"] == 2 * 5 * 5 * 8
    assert report.compensated["Softmax"] == 1
    assert report.rectifiers == 0
    assert report.encoders > 0
    assert sum(report.share(driven) for driven in report.macs) == pytest.approx(1.0)


def test_what_is_computed_once_is_not_compensated(tmp_path):
    b = Builder((3, 6, 6))
    b.conv(4)
    b.op("Sigmoid")
    b.conv(4)
    b.op("Tanh")
    b.conv(4)
    report = convertibility(b.save(tmp_path / "m.onnx"))
    assert report.compensated == {"Tanh": 1}
    assert report.fates["compensated"] == 1


def test_attention_before_any_neuron_is_driven_by_the_input(tmp_path):
    b = Builder((5, 8))
    query = b.op("MatMul", "x", b.normal(8, 8))
    b.op("MatMul", query, b.op("Transpose", "x", perm=[0, 2, 1]))
    b.op("Softmax", axis=-1)
    b.op("MatMul", b.last, "x")
    b.op("MatMul", b.last, b.normal(8, 4))
    b.op("Relu")
    report = convertibility(b.save(tmp_path / "m.onnx"))
    assert "analog" not in report.macs
    assert report.compensated == {}


def test_refusal_names_the_node_and_why(tmp_path):
    b = Builder((3, 6, 6))
    b.conv(4)
    b.relu()
    b.op("RandomNormalLike")
    report = convertibility(b.save(tmp_path / "m.onnx"))
    assert not report.convertible
    assert "randomnormallike2" in report.problem
    assert by_name(report)["randomnormallike2"].fate == "refused"
    assert "random" in by_name(report)["randomnormallike2"].reason


def test_nothing_that_would_spike_is_a_problem_too(tmp_path):
    b = Builder((3,))
    b.gemm(4)
    assert "nothing in it would spike" in convertibility(b.save(tmp_path / "m.onnx")).problem


def test_nodes_without_names_are_told_apart(tmp_path):
    b = Builder((3, 6, 6))
    b.conv(4)
    b.relu()
    b.conv(4)
    b.relu()
    b.head()
    for node in b.nodes:
        node.name = ""
    report = convertibility(b.save(tmp_path / "m.onnx"))
    assert len(by_name(report)) == len(b.nodes)
    assert [row.driven for row in report.rows if row.driven] == ["input", "spikes", "spikes"]


def test_sizes_that_are_open_are_said_to_be_assumed(tmp_path):
    b = Builder((3, "H", "W"))
    b.conv(4)
    b.relu()
    b.head()
    report = convertibility(b.save(tmp_path / "m.onnx"))
    assert report.assumed == 64
    assert report.unsized == 0
