"""The demo: a network and data that come with the package, and a table of methods."""

import json
import re
from importlib.resources import files
from pathlib import Path

import pytest
from click.testing import CliRunner

from onnxsnn import demo
from onnxsnn.analysis.comparison import Way, compare
from onnxsnn.cli import main
from onnxsnn.demo import DEMO_WAYS, demo_data, demo_source


def test_data_and_network_are_under_a_megabyte():
    folder = files("onnxsnn.demo")
    sizes = [len((folder / name).read_bytes()) for name in ("model.onnx", "data.npz")]
    assert sum(sizes) < 1_000_000


def test_network_has_batchnorm_a_residual_add_and_pooling():
    operators = {node.op_type for node in demo_source().model.graph.node}
    assert {"Conv", "BatchNormalization", "Relu", "Add"} <= operators
    assert any("Pool" in operator for operator in operators)


def test_data_are_a_thousand_labelled_images_and_unlabelled_ones_to_calibrate_on():
    calibration, test = demo_data()
    assert len(test) == 1000
    assert set(test.labels) == set(range(10))
    assert calibration.labels is None
    feed = next(test.batches(10))[0]["image"]
    assert 0 <= feed.min() < feed.max() <= 1


def test_fit_is_ahead_of_the_other_methods_and_near_the_ann():
    calibration, test = demo_data()
    comparison = compare(demo_source(), calibration, test, DEMO_WAYS, (1, 4, 16))
    one, few, many = (
        {str(way): rows[i].accuracy for way, rows in comparison.rows.items()} for i in range(3)
    )
    for values in (one, few):
        assert values["fit"] > max(values["max"], values["percentile"], values["bound"])
    assert min(one["fit, corrected"], one["fit, signed, corrected"]) > one["fit"]
    assert comparison.ann_accuracy > 0.9
    assert many["fit, corrected"] > comparison.ann_accuracy - 0.01


@pytest.fixture
def small_demo(tmp_path, monkeypatch):
    """The demo in a folder of its own, of one way, few samples and few steps."""
    monkeypatch.chdir(tmp_path)
    few = [data.slice(0, 40) for data in demo_data()]
    settings = {"DEMO_WAYS": (Way("max"),), "DEMO_TIMESTEPS": (2,), "REPORTED": Way("fit")}
    for name, value in {**settings, "REPORTED_TIMESTEPS": 2, "demo_data": lambda: few}.items():
        monkeypatch.setattr(demo, name, value)
    return CliRunner()


def test_it_ends_by_writing_the_report_and_says_where(small_demo):
    result = small_demo.invoke(main, ["demo"])
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[-1] == "report: demo-report.html"
    text = Path("demo-report.html").read_text()
    assert text.startswith("<!doctype html>")
    assert "<h1>The demo network</h1>" in text


def test_its_report_goes_where_it_is_told(small_demo):
    result = small_demo.invoke(main, ["demo", "--json", "--report", "r.html"])
    assert json.loads(result.stdout)["report"] == "r.html"
    assert Path("r.html").exists()


def test_make_demo_runs_it():
    makefile = (Path(__file__).parents[2] / "Makefile").read_text()
    assert re.search(r"^demo:.*\n\t\$\(BIN\)/onnxsnn demo$", makefile, re.MULTILINE)
