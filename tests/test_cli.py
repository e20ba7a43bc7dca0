"""The command line: what it prints and writes, and one line for every mistake."""

import csv
import io
import json
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner

from onnxsnn.analysis.comparison import Way, compare
from onnxsnn.cli import main
from onnxsnn.data import Preprocessing, load
from onnxsnn.model import SpikingModel
from onnxsnn.source import load_source
from tests.models import Builder, assert_same, uniform
from tests.networks import STRUCTURES, residual_network

X = uniform(20, 3, 8, 8)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working folder with a model, samples and labels."""
    monkeypatch.chdir(tmp_path)
    residual_network().save(tmp_path / "model.onnx")
    np.save("x.npy", X)
    np.savez("test.npz", x=X, y=np.arange(20) % 4)
    return tmp_path


def call(*arguments, code=0):
    """Run the command line; the exit code is checked. Gives standard output."""
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exit_code == code, result.output
    return result.stdout


def fails(*arguments, code=1):
    """The one line of a mistake; no traceback, nothing else on standard error."""
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exit_code == code, result.output
    assert result.exception is None or isinstance(result.exception, SystemExit)
    lines = result.stderr.strip().splitlines()
    if code == 1:
        assert len(lines) == 1
    return lines[-1]


@pytest.fixture
def snn(folder):
    call("convert", "model.onnx", "--data", "x.npy", "-T", 4)
    return folder / "model.snn.onnx"


def test_convert_alone_works(folder):
    output = call("convert", "model.onnx")
    assert "model.snn.onnx" in output
    assert SpikingModel.load(folder / "model.snn.onnx").timesteps == 16


def test_convert_takes_every_option(folder):
    call(
        "convert", "model.onnx", "--data", "x.npy", "--timesteps", 5, "--threshold", "percentile",
        "--initial-potential", 0, "--per-layer", "--output", "mine.onnx", "--keep-intermediate",
        "--verify", "--limit", 8, "--scale", "1/2", "--mean", "0.1", "--std", "0.5",
        "--layout", "nchw", "--delay", 2,
    )  # fmt: skip
    metadata = SpikingModel.load("mine.onnx").metadata
    assert metadata["threshold"] == "percentile"
    assert metadata["per_layer"] is True
    assert metadata["delay"] == 2
    assert metadata["neuron"]["initial_potential"] == 0
    names = sorted(path.name for path in (folder / "mine.passes").iterdir())
    assert names == [
        "1-clean.onnx", "2-free_batch.onnx", "3-unflatten.onnx", "4-fold_normalization.onnx",
        "5-relu_to_ratenorm.onnx", "6-encode.onnx", "7-set_thresholds.onnx",
        "8-absorb_scales.onnx",
    ]  # fmt: skip
    for name in names:
        onnx.checker.check_model(folder / "mine.passes" / name, full_check=True)


def test_convert_needs_no_labels_and_does_not_mind_any(folder):
    np.savez("onehot.npz", x=X, y=np.eye(20))
    call("convert", "model.onnx", "--data", "onehot.npz")
    assert "one per sample" in fails("evaluate", "model.snn.onnx", "--data", "onehot.npz")
    assert folder.exists()


def test_targets_that_are_no_labels_can_be_left_out(snn):
    np.savez("targets.npz", x=X, y=uniform(20, 2))
    call("run", snn, "--data", "targets.npz")
    compared = ("evaluate", snn, "--data", "targets.npz", "--ann", "model.onnx")
    assert "one per sample" in fails(*compared)
    rows = json.loads(call(*compared, "--no-labels", "--json"))["rows"]
    assert rows[0]["accuracy"] is None
    assert rows[0]["error"] > 0


def test_samples_to_calibrate_on_need_no_array_of_labels(snn):
    np.savez("named.npz", x=X, right=np.arange(20) % 4)
    evaluate = ("evaluate", snn, "--data", "named.npz", "--label-array", "right", "--early-exit")
    np.savez("unlabelled.npz", x=X)
    assert "20 samples of unlabelled.npz" in call(*evaluate, "--calibrate", "unlabelled.npz")


@pytest.mark.usefixtures("folder")
def test_convert_prints_json():
    result = json.loads(call("convert", "model.onnx", "--data", "x.npy", "--json", "--verify"))
    assert result["output"] == "model.snn.onnx"
    assert len(result["layers"]) == 4
    assert result["correction"] == "quick"
    assert result["differences"]["absorb_scales"] < 1e-5


@pytest.mark.parametrize(
    ("option", "correction"), [("--correct", "whole"), ("--no-correct", "none")]
)
@pytest.mark.usefixtures("folder")
def test_convert_corrects_all_or_nothing(option, correction):
    result = json.loads(call("convert", "model.onnx", "--data", "x.npy", "--json", option))
    assert result["correction"] == correction


@pytest.mark.usefixtures("folder")
def test_convert_says_what_the_snn_keeps_of_the_ann():
    np.save("many.npy", uniform(100, 3, 8, 8))
    command = ("convert", "model.onnx", "--data", "many.npy", "-T", 4)
    said = call(*command).splitlines()[-1]
    kept = json.loads(call(*command, "--json"))["measured"]
    rows = ("evaluate", "model.snn.onnx", "--data", "many.npy", "--limit", 64, "--ann")
    last = json.loads(call(*rows, "model.onnx", "--json"))["rows"][-1]
    assert kept == {"samples": 64} | {key: last[key] for key in ("agreement", "error", "spikes")}
    assert said == (
        f"on 64 samples of the data, after 4 steps: {kept['agreement']:.2%} keep the ANN's class, "
        f"outputs differ from the ANN's by {kept['error']:.2%}, "
        f"{kept['spikes']:,.0f} spikes a sample"
    ).replace("%", " %")
    assert json.loads(call("convert", "model.onnx", "--json"))["measured"] is None


def test_what_cannot_be_measured_costs_a_warning_and_not_the_conversion(folder):
    b = Builder((6,))
    b.gemm(8)
    b.relu()
    b.gemm(4)
    b.op("Reshape", b.last, b.constant([2, -1], np.int64))
    b.save(folder / "halves.onnx")
    np.save("six.npy", uniform(20, 6))
    result = CliRunner().invoke(main, ["convert", "halves.onnx", "--data", "six.npy", "--json"])
    assert result.stderr.count("could not be measured") == 1
    assert json.loads(result.stdout)["measured"] is None
    assert SpikingModel.load("halves.snn.onnx").timesteps == 16


@pytest.mark.usefixtures("folder")
def test_convert_to_integers_says_what_it_costs():
    command = ("convert", "model.onnx", "--data", "x.npy", "-T", 4, "--integer")
    assert "8 bits cost, on 20 samples" in call(*command)
    report = json.loads(call(*command, "--json"))
    assert 0 <= report["integer"]["agreement"] <= 1
    assert report["passes"]["integer"]["Conv turned into QLinearConv"] == 2
    evaluation = ("evaluate", "model.snn.onnx", "--data", "test.npz", "--ann", "model.onnx")
    assert "20 samples" in call(*evaluation, "--analyse", "--energy")
    assert "QLinearConv" in call("inspect", "model.snn.onnx")
    call("export", "model.snn.onnx", "--npz")


def test_warning_is_printed_once_and_counted(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    b = Builder((3,))
    b.relu()
    b.save(tmp_path / "m.onnx")
    result = CliRunner().invoke(main, ["convert", "m.onnx", "--json"])
    assert result.stderr.count("accuracy wants data") == 1
    assert len(json.loads(result.stdout)["warnings"]) == 1


@pytest.mark.parametrize("which", ["model.onnx", "model.snn.onnx", "passes"])
def test_inspect_prints_every_kind_of_file(folder, which):
    call("convert", "model.onnx", "--data", "x.npy", "--keep-intermediate")
    path = folder / which
    if which == "passes":
        path = folder / "model.snn.passes" / "7-set_thresholds.onnx"
    text, parsed = call("inspect", path), json.loads(call("inspect", path, "--json"))
    assert "neurons per sample" in text
    assert all(row["name"] in text for row in parsed["rows"])
    assert parsed["neurons"] == 906


@pytest.mark.parametrize("backend", ["onnxruntime", "numpy"])
def test_run_writes_the_outputs(folder, snn, backend):
    call("run", snn, "--data", "x.npy", "--timesteps", 6, "-o", "y.npy", "--backend", backend)
    assert np.load("y.npy").shape == (20, 4)
    call("run", snn, "--data", "x.npy", "-o", "all.npz", "--every-step", "--backend", backend)
    (name,) = np.load("all.npz").files
    assert np.load("all.npz")[name].shape == (4, 20, 4)
    assert folder.exists()


def test_run_prints_rates(snn):
    result = json.loads(call("run", snn, "--data", "x.npy", "--json"))
    assert result["timesteps"] == 4
    assert result["samples"] == 20
    assert all(0 <= rate <= 1 for rate in result["rates"].values())
    assert list(result["outputs"].values()) == [[20, 4]]
    assert "spikes per sample" in call("run", snn, "--data", "x.npy")


def test_evaluate_prints_a_table_json_and_csv(snn):
    options = ("evaluate", snn, "--data", "test.npz", "--ann", "model.onnx", "--timesteps", 6)
    text = call(*options, "--csv", "table.csv")
    assert "Agreement" in text
    parsed = json.loads(call(*options, "--json"))
    rows = list(csv.DictReader(Path("table.csv").read_text().splitlines()))
    assert len(rows) == len(parsed["rows"]) == 6
    for row, expected in zip(rows, parsed["rows"], strict=True):
        assert float(row["accuracy"]) == pytest.approx(expected["accuracy"])
        assert float(row["error"]) == pytest.approx(expected["error"])


def test_evaluate_analyses_and_counts_operations(snn):
    options = (
        "evaluate",
        snn,
        "--data",
        "test.npz",
        "--ann",
        "model.onnx",
        "--analyse",
        "--energy",
    )
    text = call(*options)
    for words in ("Quantization", "Dead", "2 Omega / T", "Model, not a measurement"):
        assert words in text
    parsed = json.loads(call(*options, "--json"))
    for layer in parsed["analysis"]["layers"]:
        parts = dict(layer["squared"])
        assert sum(parts.values()) == pytest.approx(2 * parts["error"], rel=0.01)
        assert layer["layer"] in text
    assert parsed["energy"]["synaptic_operations"][-1] > 0
    assert parsed["target"]["measure"] == "accuracy"


def test_evaluate_relates_spikes_to_a_reference(snn):
    call("convert", "model.onnx", "--data", "x.npy", "-T", 4, "--threshold", "max", "-o", "r.onnx")
    options = ("evaluate", snn, "--data", "x.npy", "--ann", "model.onnx", "-T", 64, "--energy")
    found = json.loads(call(*options, "--reference", "r.onnx", "--json"))["spike_ratio"]
    ours, its = found["target"], found["reference"]
    assert ours["measure"] == its["measure"] == "agreement"
    assert found["ratio"] == pytest.approx(ours["spikes"] / its["spikes"])
    ratio = f"{found['ratio']:.3f}"
    assert f"until agreement 0.99: {ratio}" in call(*options, "--reference", "r.onnx")
    itself = json.loads(call(*options, "--reference", snn, "--json"))["spike_ratio"]
    assert itself["ratio"] == 1.0


def test_ann_that_is_another_file_is_said_once(folder, snn):
    residual_network(seed=1).save(folder / "other.onnx")
    for command in ("evaluate", "report"):
        for ann, count in (("other.onnx", 1), ("model.onnx", 0)):
            arguments = [command, str(snn), "--data", "test.npz", "--ann", ann]
            result = CliRunner().invoke(main, arguments)
            assert result.exit_code == 0
            line = "other.onnx: is not the file that the SNN was converted from"
            assert result.stderr.count(line) == count


def test_what_needs_more_says_so(snn):
    options = ("evaluate", snn, "--data", "test.npz")
    assert "--ann" in fails(*options, "--analyse", code=2)
    assert "--energy" in fails(*options, "--reference", snn, code=2)
    assert "--ann" in fails(*options, "--energy", "--reference", snn, code=2)
    gone = ("--ann", "model.onnx", "--energy", "--reference", "gone.onnx")
    assert "gone.onnx: cannot be read" in fails(*options, *gone)
    assert "both" in fails(*options, "--energy", "--mac-energy", 3, code=2)


@pytest.mark.usefixtures("snn")
@pytest.mark.parametrize(
    ("command", "option", "needed"),
    [
        ("convert model.onnx", "--agreement 0.9", "-T auto"),
        ("convert model.onnx -T 4", "--error 0.2", "-T auto"),
        ("convert model.onnx", "--scale 1/255", "--data"),
        ("bench model.snn.onnx", "--limit 3", "--data"),
        ("evaluate model.snn.onnx --data test.npz", "--calibrate x.npy", "--early-exit"),
        ("evaluate model.snn.onnx --data test.npz", "--agreement 0.9", "--early-exit"),
        ("evaluate model.snn.onnx --data test.npz", "--ac-energy 3", "--energy"),
        ("run model.snn.onnx --data x.npy", "--every-step", "-o"),
    ],
)
def test_options_that_would_do_nothing_are_refused(command, option, needed):
    line = fails(*command.split(), *option.split(), code=2)
    assert f"{option.split()[0]} is for {needed}; give both, or neither" in line


def test_version_and_help_are_there():
    assert "0." in call("--version")
    for command in ("convert", "inspect", "run", "evaluate", "demo"):
        assert command in call("--help")
        assert call(command, "--help")


def test_the_package_is_a_command():
    asked = subprocess.run(
        [sys.executable, "-m", "onnxsnn", "--help"], capture_output=True, text=True, check=True
    )
    assert asked.stdout.startswith("Usage: onnxsnn ")


def test_file_that_is_not_onnx(folder):
    (folder / "text.onnx").write_text("This is no ONNX file, whatever its name says.")
    assert "text.onnx: is not an ONNX file" in fails("convert", "text.onnx")
    assert "text.onnx: is not an ONNX file" in fails("inspect", "text.onnx")


def test_empty_file(folder):
    (folder / "empty.onnx").touch()
    assert "empty.onnx: is not an ONNX file, or is cut short" in fails("convert", "empty.onnx")


@pytest.mark.parametrize("share", [0.3, 0.9, 0.99])
def test_truncated_file(folder, share):
    content = (folder / "model.onnx").read_bytes()
    (folder / "cut.onnx").write_bytes(content[: int(share * len(content))])
    assert "cut.onnx: " in fails("convert", "cut.onnx")
    assert not (folder / "cut.snn.onnx").exists()


def test_missing_file(folder):
    assert "gone.onnx: cannot be read: No such file" in fails("convert", "gone.onnx")
    assert folder.exists()


def test_folder_as_a_model(folder):
    assert "cannot be read" in fails("convert", folder)


def test_missing_external_data(folder):
    model = residual_network().model()
    onnx.save(
        model, "external.onnx", save_as_external_data=True, location="weights.bin",
        size_threshold=0,
    )  # fmt: skip
    call("convert", "external.onnx", "--data", "x.npy")
    (folder / "weights.bin").unlink()
    message = fails("convert", "external.onnx")
    assert "external.onnx: its external data cannot be read" in message
    assert "weights.bin" in message


def test_unsupported_operator_is_named_with_its_node(folder):
    b = Builder((3,))
    b.relu()
    b.op("RandomNormalLike")
    b.save(folder / "m.onnx")
    message = fails("convert", "m.onnx")
    assert "randomnormallike1" in message
    assert "RandomNormalLike" in message


def test_operator_of_an_unknown_domain_is_refused(folder):
    model = residual_network().model()
    model.graph.node[0].domain = "com.example"
    model.opset_import.append(onnx.helper.make_opsetid("com.example", 1))
    onnx.save(model, folder / "m.onnx")
    assert "m.onnx: ONNX Runtime does not take the model" in fails("convert", "m.onnx")


def test_shape_that_cannot_be_resolved(folder):
    b = Builder(("C", 8, 8))
    b.relu()
    b.save(folder / "m.onnx")
    assert "cannot be resolved" in fails("convert", "m.onnx")
    model = residual_network().model()
    model.graph.input[0].type.tensor_type.ClearField("shape")
    onnx.save(model, folder / "n.onnx")
    assert "n.onnx: is not valid ONNX: Field 'shape'" in fails("convert", "n.onnx")


@pytest.mark.parametrize(("value", "name"), [(np.nan, "NaN"), (-np.inf, "infinity")])
def test_weights_that_are_no_numbers(folder, value, name):
    for is_last in (False, True):
        b = Builder((3,))
        b.gemm(3)
        if is_last:
            b.relu()
        b.op("MatMul", b.last, b.constant([[value], [1.0], [2.0]]))
        b.relu()
        b.save(folder / "m.onnx")
        assert f"holds {name}" in fails("convert", "m.onnx")


def test_old_opset(folder):
    model = residual_network().model()
    model.opset_import[0].version = 6
    onnx.save(model, folder / "m.onnx")
    message = fails("convert", "m.onnx")
    assert "m.onnx: " in message


def test_empty_data(folder):
    np.save("none.npy", X[:0])
    assert "none.npy: the data hold no samples" in fails(
        "convert", "model.onnx", "--data", "none.npy"
    )
    assert not (folder / "model.snn.onnx").exists()


def test_data_of_the_wrong_shape_or_dtype(folder):
    np.save("small.npy", X[:, :, :4])
    np.save("words.npy", np.array(["a", "b"]))
    np.save("nan.npy", np.full_like(X, np.nan))
    assert "[20, 3, 4, 8]" in fails("convert", "model.onnx", "--data", "small.npy")
    assert "numbers are needed" in fails("convert", "model.onnx", "--data", "words.npy")
    assert "NaN" in fails("convert", "model.onnx", "--data", "nan.npy")
    assert folder.exists()


def test_labels_that_do_not_match(snn):
    np.save("few.npy", np.zeros(3, int))
    np.save("big.npy", np.full(20, 77))
    evaluate = ("evaluate", snn, "--data", "x.npy")
    assert "20 samples and 3 labels" in fails(*evaluate, "--labels", "few.npy")
    assert "label 77 is no class" in fails(*evaluate, "--labels", "big.npy")
    assert "give labels, or the ANN" in fails(*evaluate, code=2)


def test_data_that_overflow_are_refused(folder):
    b = Builder((2,))
    b.op("MatMul", "x", b.constant(10 * np.eye(2)))
    b.op("MatMul", b.last, b.constant([[1.0] * 3, [-1.0] * 3]))
    b.relu()
    b.gemm(3, inputs=3)
    b.save(folder / "m.onnx")
    call("convert", "m.onnx", "-T", 4)
    np.savez("huge.npz", x=np.full((20, 2), 3e38), y=np.zeros(20, int))
    for command in ("run", "evaluate", "fit-curve"):
        assert "(in layer 'relu2')" in fails(command, "m.snn.onnx", "--data", "huge.npz")


def test_layers_that_were_never_active_have_no_fit_curve(folder):
    b = Builder((4,))
    b.op("Add", b.gemm(3), b.constant(-100.0))
    b.relu()
    b.gemm(3)
    b.save(folder / "dead.onnx")
    np.save("four.npy", uniform(20, 4))
    call("convert", "dead.onnx", "--data", "four.npy", "-T", 4)
    command = ("fit-curve", "dead.snn.onnx", "--data", "four.npy")
    assert "no layer was active" in call(*command)
    assert json.loads(call(*command, "--json")) == []


def test_json_has_no_infinity(folder):
    b = Builder((6,))
    b.gemm(8)
    b.relu()
    b.gemm(3)
    b.relu()
    b.op("Log")
    b.save(folder / "log.onnx")
    np.save("six.npy", uniform(20, 6))
    call("convert", "log.onnx", "--data", "six.npy", "-T", 2)
    command = ("evaluate", "log.snn.onnx", "--data", "six.npy", "--ann", "log.onnx", "--json")
    rows = json.loads(call(*command), parse_constant=pytest.fail)["rows"]
    assert [row["error"] for row in rows] == [None, None]


@pytest.mark.parametrize("steps", [0, -3, 10**9, 10**30])
def test_timesteps_that_cannot_be_run(snn, steps):
    for command in (
        ("convert", "model.onnx"),
        ("run", snn, "--data", "x.npy"),
        ("evaluate", snn, "--data", "test.npz"),
        ("fit-curve", snn, "--data", "x.npy"),
    ):
        assert "1 or more, 16777216 at most" in fails(*command, "--timesteps", steps, code=2)


def test_snn_given_to_convert_and_ann_to_run(snn):
    assert "is converted already (snn)" in fails("convert", snn)
    assert "is converted already (snn)" in fails(
        "evaluate", snn, "--data", "test.npz", "--ann", snn
    )
    for command in ("run", "evaluate"):
        message = fails(command, "model.onnx", "--data", "test.npz")
        assert "is no SNN but an ANN" in message


def test_output_that_cannot_be_written(folder, snn):
    (folder / "taken").mkdir()
    for target in ("taken", "gone/snn.onnx", "gone/../model.onnx"):
        assert "cannot be written" in fails("convert", "model.onnx", "-o", target)
    (folder / "mine.passes").touch()
    kept = ("convert", "model.onnx", "-o", "mine.onnx", "--keep-intermediate")
    assert "mine.passes: File exists" in fails(*kept)
    inside = ("convert", "model.onnx", "-o", "x.passes", "--keep-intermediate")
    assert "choose another output" in fails(*inside, code=2)
    assert not (folder / "x.passes").exists()
    for target in ("gone/y.npy", "gone/../x.npy"):
        assert "cannot be written" in fails("run", snn, "--data", "x.npy", "-o", target)
    assert "cannot be written" in fails(
        "evaluate", snn, "--data", "test.npz", "--csv", "gone/t.csv"
    )


def test_outputs_over_what_is_read_are_refused(folder, snn):
    (folder / "link.onnx").symlink_to("model.onnx")
    (folder / "odd.onnx").symlink_to("gone/../model.onnx")
    (folder / "y.csv").write_text("0\n" * 20)
    before = {path: path.read_bytes() for path in folder.iterdir() if path.exists()}
    for command in (
        ("convert", "model.onnx", "-o", "model.onnx"),
        ("convert", "model.onnx", "-o", "link.onnx"),
        ("convert", "model.onnx", "-o", "odd.onnx"),
        ("convert", "model.onnx", "--data", "x.npy", "-o", folder / "x.npy"),
        ("run", snn, "--data", "x.npy", "-o", "x.npy"),
        ("run", snn, "--data", "test.npz", "-o", "test.npz"),
        ("evaluate", snn, "--data", "x.npy", "--labels", "y.csv", "--csv", "y.csv"),
        ("report", snn, "--ann", "model.onnx", "--data", "test.npz", "-o", "model.onnx"),
        ("export", snn, "--npz", "-o", snn),
        ("fix-inputs", "model.onnx", "gain=2", "-o", "model.onnx"),
    ):
        assert "is a file that is read here" in fails(*command, code=2)
    assert {path: path.read_bytes() for path in before} == before


def test_outputs_over_what_is_read_without_being_named_are_refused(folder, snn):
    model = onnx.load("model.onnx")
    onnx.save(model, "large.onnx", save_as_external_data=True, location="w.bin", size_threshold=0)
    pixels = np.zeros((20, 3 * 8 * 8), np.uint8)
    (folder / "t-images-idx2-ubyte").write_bytes(
        bytes([0, 0, 8, 2, *(20).to_bytes(4, "big"), *(192).to_bytes(4, "big")]) + pixels.tobytes()
    )
    (folder / "t-labels-idx1-ubyte").write_bytes(bytes(28))
    (folder / "classes" / "a").mkdir(parents=True)
    (folder / "classes" / "a" / "0.png").write_bytes(b"0")
    csv = ("evaluate", snn, "--csv")
    for command in (
        ("convert", "large.onnx", "-o", "w.bin"),
        (*csv, "t-labels-idx1-ubyte", "--data", "t-images-idx2-ubyte"),
        (*csv, "classes/a/0.png", "--data", "classes"),
    ):
        assert "is a file that is read here" in fails(*command, code=2)
    assert (folder / "w.bin").stat().st_size > 1000


def test_intermediates_of_an_earlier_conversion_go_when_there_are_new_ones(folder):
    kept = ("convert", "--keep-intermediate", "-o", "m.snn.onnx")
    call(*kept, "model.onnx", "--data", "x.npy")
    passes = folder / "m.snn.passes"
    (passes / "99-older.onnx").write_bytes(b"")
    (passes / "9-my-own.onnx").write_bytes(b"")
    (folder / "model.onnx").rename(passes / "77-model.onnx")
    b = Builder((3,))
    b.gemm(4)
    b.save(folder / "linear.onnx")
    fails(*kept, "linear.onnx")
    assert (passes / "99-older.onnx").exists()
    call(*kept, passes / "77-model.onnx")
    names = {path.name for path in passes.iterdir()}
    assert {"77-model.onnx", "9-my-own.onnx", "1-clean.onnx"} <= names
    assert "99-older.onnx" not in names


def test_outputs_replace_what_is_not_read(folder, snn):
    (folder / "y.npy").write_text("old")
    call("run", snn, "--data", "x.npy", "-o", "y.npy")
    assert np.load("y.npy").shape == (20, 4)


def test_memory_that_does_not_suffice_is_said(snn, monkeypatch):
    def starve(*_, **__):
        raise MemoryError("Unable to allocate 1 TiB")

    monkeypatch.setattr("onnxsnn.cli.run.run_dataset", starve)
    line = fails("run", snn, "--data", "x.npy")
    assert line.startswith("Error: out of memory: Unable to allocate 1 TiB; give fewer")


class Full(io.StringIO):
    """A standard output on a disk without space."""

    def write(self, _):
        raise OSError(28, "No space left on device")


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_standard_output_that_is_full_or_closed(snn, options, monkeypatch, capsys):
    for output, code, message in (
        (Full(), 1, "Error: standard output: No space left on device\n"),
        (None, 0, ""),
    ):
        monkeypatch.setattr("sys.stdout", output)
        with pytest.raises(SystemExit) as ended:
            main(["inspect", str(snn), *options])
        assert ended.value.code == code
        assert capsys.readouterr().err == message


def test_outputs_in_a_format_that_is_none(snn):
    assert ".npy or .npz" in fails("run", snn, "--data", "x.npy", "-o", "y.txt", code=2)


def test_options_that_make_no_sense(folder):
    for option, value in (("--scale", "half"), ("--mean", "a,b"), ("--std", "0"),
                          ("--threshold", "best"), ("--initial-potential", "2"),
                          ("--initial-potential", "nan"),
                          ("--limit", "0"), ("--layout", "chwn")):  # fmt: skip
        fails("convert", "model.onnx", "--data", "x.npy", option, value, code=2)
    assert not (folder / "model.snn.onnx").exists()


def test_nothing_is_left_half_written(folder, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("onnxsnn.files.os.fdopen", full)
    assert "No space left" in fails("convert", "model.onnx", "--data", "x.npy")
    assert sorted(path.name for path in folder.iterdir()) == ["model.onnx", "test.npz", "x.npy"]


@pytest.mark.usefixtures("folder")
def test_inspect_says_before_converting_what_would_become_of_every_node():
    text = call("inspect", "model.onnx", "--convertible")
    assert "driven by spikes" in text
    assert "stays analog, compensated: nothing" in text
    parsed = json.loads(call("inspect", "model.onnx", "--convertible", "--json"))
    assert parsed["convertible"] is True
    assert parsed["macs"]["spikes"] > 0


def test_inspect_exits_with_1_where_something_refuses(folder):
    b = Builder((3, 8, 8))
    b.conv(4)
    b.op("Dropout", b.last, b.constant(0.5), b.constant(True, bool))
    b.relu()
    b.save(folder / "random.onnx")
    text = call("inspect", "random.onnx", "--convertible", code=1)
    assert "cannot be converted: node 'dropout1' (Dropout)" in text
    assert "random numbers" in text


@pytest.mark.parametrize(
    ("arguments", "settings", "bits"),
    [
        (("--neuron", "signed"), {"model": "signed", "initial_potential": 0.5}, 1.585),
        (("--neuron", "burst", "--levels", 3),
         {"model": "burst", "initial_potential": 0.5, "levels": 3}, 2.0),
        (("--neuron", "multi-threshold", "--levels", 4),
         {"model": "multi-threshold", "initial_potential": 0.0, "levels": 4, "digits": 2}, 3.170),
        (("--neuron", "multi-threshold", "--digits", 1),
         {"model": "multi-threshold", "initial_potential": 0.0, "levels": 8, "digits": 1}, 4.087),
    ],
)  # fmt: skip
@pytest.mark.usefixtures("folder")
def test_neuron_and_its_levels_are_options_and_in_the_metadata(arguments, settings, bits):
    text = call("convert", "model.onnx", "--data", "x.npy", *arguments)
    metadata = SpikingModel.load("model.snn.onnx").metadata
    assert metadata["neuron"] == settings
    assert metadata["bits_per_spike"] == pytest.approx(bits, abs=1e-3)
    assert "bits per spike" in text


@pytest.mark.parametrize(
    ("structure", "neuron", "said"),
    [("mobilenet", "if", True), ("mobilenet", "signed", False), ("vgg", "if", False)],
)
@pytest.mark.usefixtures("folder")
def test_signed_neurons_are_hinted_at_where_they_take_no_more_bits(structure, neuron, said):
    STRUCTURES[structure]().save(Path("structure.onnx"))
    text = call("convert", "structure.onnx", "--neuron", neuron)
    assert ("--neuron signed takes no more bits" in text) == said


@pytest.mark.parametrize("neuron", ["if", "signed", "burst"])
@pytest.mark.usefixtures("folder")
def test_neurons_start_as_trained_unless_told(neuron):
    b = Builder((3, 8, 8))
    b.conv(4)
    b.clip(4.0)
    b.op("Floor")
    b.head()
    b.save(Path("floors.onnx"))
    starts = []
    for told in ((), ("--initial-potential", 0.5)):
        call("convert", "floors.onnx", "--neuron", neuron, *told)
        snn = SpikingModel.load("floors.snn.onnx")
        (layer,) = snn.spikes
        starts.append(float((snn.potential(layer).default / snn.thresholds[layer]).max()))
    assert starts[1] > starts[0] == 0


@pytest.mark.parametrize("kind", ["sequence", "optional"])
@pytest.mark.usefixtures("folder")
def test_inputs_that_are_no_tensors_are_refused(kind):
    tensor = onnx.helper.make_tensor_type_proto(onnx.TensorProto.FLOAT, ["N", 4])
    types = {
        "sequence": onnx.helper.make_sequence_type_proto,
        "optional": onnx.helper.make_optional_type_proto,
    }
    operators = {
        "sequence": ("SequenceAt", ["s", "zero"]),
        "optional": ("OptionalGetElement", ["s"]),
    }
    given = onnx.helper.make_value_info("s", types[kind](tensor))
    operator, inputs = operators[kind]
    nodes = [
        onnx.helper.make_node("Constant", [], ["zero"], value_int=0),
        onnx.helper.make_node(operator, inputs, ["x"]),
        onnx.helper.make_node("Relu", ["x"], ["y"]),
    ]
    y = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["N", 4])
    graph = onnx.helper.make_graph(nodes, "g", [given], [y])
    opset = [onnx.helper.make_opsetid("", 18)]
    onnx.save(onnx.helper.make_model(graph, opset_imports=opset, ir_version=8), "odd.onnx")
    for command in (("convert",), ("inspect", "--convertible")):
        assert "input 's' is a sequence, or may be left out" in fails(*command, "odd.onnx")
    assert f"refused:  ({operator})" in call("inspect", "odd.onnx")


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("setting", ["levels", "digits"])
def test_settings_that_a_neuron_does_not_have_are_refused(setting):
    error = fails("convert", "model.onnx", f"--{setting}", 4, code=2)
    assert f"neuron 'if' has no {setting}; leave --{setting} out" in error


@pytest.mark.usefixtures("folder")
def test_timesteps_may_be_found():
    call("convert", "model.onnx", "--data", "x.npy", "--timesteps", "auto", "--agreement", 0.9)
    network = SpikingModel.load("model.snn.onnx")
    text = call("evaluate", "model.snn.onnx", "--data", "x.npy", "--ann", "model.onnx", "--json")
    assert json.loads(text)["rows"][network.timesteps - 1]["agreement"] >= 0.9


@pytest.mark.parametrize("options", [(), ("--integer",), ("--correct",)])
def test_timesteps_that_are_found_are_converted_for_once(folder, monkeypatch, options):
    tried = []
    module = sys.modules["onnxsnn.cli.convert"]
    convert = module.convert

    def counted(*arguments, **ways):
        tried.append(ways["timesteps"])
        return convert(*arguments, **ways)

    monkeypatch.setattr(module, "convert", counted)
    command = ("convert", "model.onnx", "--data", "x.npy", *options, "-T")
    call(*command, "auto", "--agreement", 0.8, "--limit", 8)
    path = folder / "model.snn.onnx"
    found, number = path.read_bytes(), SpikingModel.load(path).timesteps
    assert tried.count(number) == 1
    call(*command, number, "--limit", 8)
    assert path.read_bytes() == found


def test_passes_of_the_timesteps_that_are_found_are_kept_and_verified(folder):
    command = ("convert", "model.onnx", "--data", "x.npy", "-T", "auto", "--agreement", 0.5)
    assert json.loads(call(*command, "--verify", "--json"))["differences"]
    call(*command, "--keep-intermediate")
    assert len(list((folder / "model.snn.passes").iterdir())) > 5


@pytest.mark.parametrize("options", [(), ("--integer",)])
def test_target_that_is_not_met_is_said_once(folder, options):
    b = Builder((3, 4, 4))
    b.conv(4)
    b.relu()
    b.save(folder / "m.onnx")
    np.save("small.npy", uniform(2, 3, 4, 4))
    command = ["convert", "m.onnx", "--data", "small.npy", "-T", "auto", "--error", "1e-6"]
    result = CliRunner().invoke(main, [*command, "--json", *options])
    line = "even 256 timesteps do not meet the target on these data"
    assert result.stderr.count(line) == 1
    assert json.loads(result.stdout)["warnings"].count(line) == 1


@pytest.mark.usefixtures("folder")
def test_a_delay_may_be_estimated():
    command = ("convert", "model.onnx", "--data", "x.npy", "--threshold", "max", "--delay", "auto")
    assert 0 < json.loads(call(*command, "--json"))["delay"] <= 8
    assert "averaged from step" in call(*command)


@pytest.mark.usefixtures("folder")
def test_timesteps_are_found_on_data_for_thresholds_that_take_none():
    b = Builder((3, 8, 8))
    b.conv(8)
    b.batchnorm()
    b.relu()
    b.head()
    b.save(Path("normalized.onnx"))
    command = ("convert", "normalized.onnx", "--threshold", "gaussian", "-T", "auto", "--json")
    found = json.loads(call(*command, "--data", "x.npy", "--agreement", 0.9))
    assert found["threshold"] == "gaussian"
    assert 1 <= found["timesteps"] <= 64


@pytest.mark.usefixtures("folder")
def test_delays_that_make_no_sense_are_refused():
    command = ("convert", "model.onnx", "--data", "x.npy", "-T", 4)
    for delay in (4, -1):
        assert "from 0 to 3" in fails(*command, "--delay", delay, code=2)
    for delay in (1, "auto"):
        assert "--correct" in fails(*command, "--correct", "--delay", delay, code=2)
    assert "--delay auto" in fails(*command[:4], "-T", "auto", "--delay", 1, code=2)


@pytest.mark.usefixtures("folder")
def test_timesteps_are_found_on_data_only():
    assert "--data" in fails("convert", "model.onnx", "--timesteps", "auto", code=2)
    assert "x" in fails("convert", "model.onnx", "--timesteps", "x", code=2)


def test_compare_prints_every_way_and_the_line_that_converts_in_the_best(folder):
    text = call("compare", "model.onnx", "--data", "x.npy", "-T", 1, "-T", 4, "--plot", "p.svg")
    for way in ("max", "fit, corrected", "fit, burst 4", "fit, multi-threshold 8"):
        assert way in text
    command = text.splitlines()[-1].split()
    assert command[:3] == ["onnxsnn", "convert", "model.onnx"]
    call(*command[1:])
    assert (folder / "p.svg").read_text().startswith("<?xml")
    parsed = json.loads(call("compare", "model.onnx", "--data", "x.npy", "-T", 2, "--json"))
    assert parsed["best"]["timesteps"] == 2
    assert len(parsed["ways"]) == 7


@pytest.mark.parametrize("limit", [2, 7, 11, 18, 19, 30])
@pytest.mark.usefixtures("folder")
def test_line_of_compare_calibrates_on_what_compare_did_of_limited_data(monkeypatch, limit):
    monkeypatch.setattr("onnxsnn.cli.compare.ways_for", lambda *_: (Way("fit"),))
    given = []
    monkeypatch.setattr("onnxsnn.cli.compare.compare", lambda *a: given.append(a) or compare(*a))
    text = call("compare", "model.onnx", "--data", "test.npz", "-T", 2, "--limit", limit)
    (_, samples, test, *_), line = given[0], shlex.split(text.splitlines()[-1])
    source, count = load_source("model.onnx"), int(line[line.index("--limit") + 1])
    chosen = load("test.npz", source.inputs, labelled=False, limit=count)
    np.testing.assert_array_equal(chosen.inputs["x"], samples.inputs["x"])
    assert len(samples) + len(test) in range(limit - 3, limit + 1) or limit > 20
    assert not {v.tobytes() for v in samples.inputs["x"]} & {v.tobytes() for v in test.inputs["x"]}


@pytest.mark.parametrize("calibrate", [None, "calibrate them.npz"])
def test_line_of_compare_reads_the_data_as_compare_did(folder, monkeypatch, calibrate):
    (folder / "model.onnx").rename("my model.onnx")
    for name in ("the data.npz", "calibrate them.npz"):
        np.savez(name, a=X.transpose(0, 2, 3, 1), b=X, c=np.arange(20) % 4)
    monkeypatch.setattr("onnxsnn.cli.compare.ways_for", lambda *_: (Way("fit"),))
    command = (
        "compare", "my model.onnx", "--data", "the data.npz", "-T", 4, "--scale", "1/2",
        "--mean", "-0.1,0.2,0", "--std", "0.5", "--layout", "nhwc", "--array", "a",
        "--label-array", "c", "--limit", 16,
    )  # fmt: skip
    text = call(*command, *(("--calibrate", calibrate) if calibrate else ()))
    call(*shlex.split(text.splitlines()[-1])[1:])
    prepared = Preprocessing(0.5, (-0.1, 0.2, 0.0), (0.5,), "nhwc")
    source = load_source("my model.onnx")
    samples = load("the data.npz", source.inputs, preprocessing=prepared, array="a", labelled=False)
    expected = Way("fit").convert(source, samples.spread(16 if calibrate else 4), 4)
    found = SpikingModel.load("my model.snn.onnx").model.graph
    assert found.SerializeToString() == expected.model.graph.SerializeToString()


def test_evaluate_with_early_exit_says_what_it_saves(snn):
    options = ("evaluate", snn, "--data", "test.npz", "--ann", "model.onnx", "--early-exit")
    text = call(*options, "--calibrate", "x.npy", "--agreement", 0.8)
    parsed = json.loads(call(*options, "--calibrate", "x.npy", "--agreement", 0.8, "--json"))
    early, whole = parsed["early_exit"], parsed["rows"][-1]
    assert 1 <= early["timesteps"] < 4
    call(*options, "--calibrate", "x.npy", "--agreement", 0.8, "--csv", "t.csv")
    *steps, last = csv.DictReader(Path("t.csv").read_text().splitlines())
    assert [row["timesteps"] for row in steps] == ["1", "2", "3", "4"]
    assert [row["margin"] for row in steps] == [""] * 4
    assert {name: float(last[name]) for name in ("timesteps", "agreement", "margin", "spikes")} == {
        name: early[name] for name in ("timesteps", "agreement", "margin", "spikes")
    }
    assert early["saved"] == pytest.approx(1 - early["spikes"] / whole["spikes"])
    assert 0 < early["saved"] < 1
    assert early["agreement"] >= whole["agreement"] - 0.2
    assert f"mean T = {early['timesteps']:.2f}" in text
    assert "calibrated on 20 samples of x.npy" in text


def test_early_exit_calibrates_on_a_part_of_the_data_that_is_not_measured(snn):
    options = ("evaluate", snn, "--data", "test.npz")
    text = call(*options, "--early-exit")
    assert "calibrated on 5 samples of test.npz, the rest of which ran" in text
    assert json.loads(call(*options, "--early-exit", "--json"))["samples"] == 15
    assert json.loads(call(*options, "--json"))["early_exit"] is None


def test_options_of_early_exit_that_make_no_sense(snn):
    options = ("evaluate", snn, "--data", "test.npz", "--agreement", 2)
    assert "--early-exit" in fails(*options, "--calibrate", "x.npy", code=2)
    assert "shares" in fails(*options, "--early-exit", code=2)


def test_one_sample_is_too_few_to_calibrate_and_to_run(snn):
    options = ("--data", "test.npz", "--limit", 1)
    for command in (("evaluate", snn, "--early-exit"), ("compare", "model.onnx")):
        assert "test.npz: one sample cannot calibrate and be run too" in fails(*command, *options)


def settings_model(path):
    b = Builder((6,))
    b.inputs.append(onnx.helper.make_tensor_value_info("gain", onnx.TensorProto.FLOAT, []))
    b.op("Mul", b.gemm(8), "gain")
    b.relu()
    b.gemm(3, inputs=8)
    return b.save(path)


def test_inputs_that_are_settings_become_constants(folder):
    settings_model(folder / "m.onnx")
    np.savez("d.npz", x=np.ones((20, 6), np.float32), gain=np.float32(2))
    line = fails("convert", "m.onnx", "--data", "d.npz")
    assert "'gain' takes a single number" in line
    assert "onnxsnn fix-inputs MODEL gain=NUMBER" in line
    assert call("fix-inputs", "m.onnx", "gain=2") == "m.fixed.onnx: constants: gain\n"
    call("convert", "m.fixed.onnx", "--data", "d.npz", "-T", 4)
    call("evaluate", "m.fixed.snn.onnx", "--ann", "m.fixed.onnx", "--data", "d.npz")


def test_settings_that_make_no_sense_are_said(folder):
    settings_model(folder / "m.onnx")
    assert "'gain' is not of the form NAME=NUMBER" in fails("fix-inputs", "m.onnx", "gain", code=2)
    assert "no input 'rate'" in fails("fix-inputs", "m.onnx", "rate=3", code=2)
    assert "more than once" in fails("fix-inputs", "m.onnx", "gain=2", "gain=3", code=2)
    assert "cannot hold 1e+300" in fails("fix-inputs", "m.onnx", "gain=1e300", code=2)
    assert "'gain.npy' is not of the form" in fails("fix-inputs", "m.onnx", "gain.npy", code=2)
    assert "gone.npy: cannot be read: No such" in fails("fix-inputs", "m.onnx", "gain=gone.npy")
    Path("text.npy").write_text("2")
    assert "text.npy: cannot be read: " in fails("fix-inputs", "m.onnx", "gain=text.npy")
    np.save("three.npy", np.ones(3))
    three = ("fix-inputs", "m.onnx", "gain=three.npy")
    assert "takes an array of shape [], and one of [3] came" in fails(*three, code=2)
    assert "is a file that is read here" in fails(*three, "-o", "three.npy", code=2)


def test_settings_may_be_arrays(folder):
    """As where Keras's means and variances are inputs; names hold = as other tools write them."""
    b = Builder((6,))
    for name in ("mean", "a=b"):
        b.inputs.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, 6]))
    b.op("Div", b.op("Sub", "x", "mean"), "a=b")
    b.gemm(8, inputs=6)
    b.relu()
    b.save(folder / "m.onnx")
    (folder / "seed=1").mkdir()
    mean, spread = np.arange(6.0).reshape(1, 6), np.arange(1, 7).reshape(1, 6)
    np.save("seed=1/mean.npy", mean)
    np.save("std.npy", spread)
    np.savez("d.npz", x=np.ones((20, 6), np.float32), mean=mean)
    assert "a=b=NUMBER, or a=b=FILE.npy" in fails("convert", "m.onnx", "--data", "d.npz")
    settings = ("mean=seed=1/mean.npy", "a=b=std.npy")
    assert call("fix-inputs", "m.onnx", *settings) == "m.fixed.onnx: constants: mean, a=b\n"
    fixed = {
        t.name: onnx.numpy_helper.to_array(t) for t in onnx.load("m.fixed.onnx").graph.initializer
    }
    assert_same(
        {"mean": mean.astype(np.float32), "a=b": spread.astype(np.float32)},
        {name: fixed[name] for name in ("mean", "a=b")},
        0,
    )
    call("convert", "m.fixed.onnx", "--data", "d.npz", "--array", "x", "-T", 4)


@pytest.mark.parametrize(
    "arguments",
    [
        ("convert", "model.onnx", "--data", "x.npy"),
        ("run", "model.snn.onnx", "--data", "x.npy"),
        ("fit-curve", "model.snn.onnx", "--data", "x.npy"),
        ("bench", "model.snn.onnx", "--data", "x.npy"),
        ("evaluate", "model.snn.onnx", "--data", "x.npy", "--ann", "model.onnx", "--no-labels"),
    ],
)
@pytest.mark.usefixtures("snn")
def test_labels_that_are_not_read_are_refused(arguments):
    assert "labels are not read here" in fails(*arguments, "--labels", "gone.npy", code=2)


@pytest.mark.parametrize(
    ("command", "reads_labels"),
    [("convert", False), ("run", False), ("fit-curve", False), ("bench", False),
     ("evaluate", True), ("compare", True), ("report", True)],
)  # fmt: skip
def test_labels_are_in_the_help_where_they_are_read(command, reads_labels):
    assert ("--labels" in call(command, "--help")) == reads_labels


def test_one_array_is_not_samples_and_labels(snn):
    evaluate = ("evaluate", snn, "--data", "test.npz")
    assert "'x' cannot hold the samples and the labels" in fails(*evaluate, "--label-array", "x")
    both = ("--label-array", "y", "--array", "y")
    assert "'y' cannot hold the samples and the labels" in fails(*evaluate, *both)
    assert "no array 'q', but x, y" in fails(*evaluate, "--array", "q")


def test_standard_output_is_no_file(snn):
    line = fails("evaluate", snn, "--data", "test.npz", "--csv", "-", code=2)
    assert "standard output is no place for files" in line
    assert not Path("-").exists()


@pytest.mark.parametrize("command", ["convert -", "convert m.onnx --data -", "inspect -"])
def test_standard_input_is_no_file(command):
    assert "standard input is not read; give a file's name" in fails(*command.split(), code=2)


def test_report_of_a_name_that_is_no_text(snn):
    name = b"m\xe9.snn.onnx".decode("utf-8", "surrogateescape")
    snn.rename(name)
    files = ("--ann", "model.onnx", "--data", "test.npz", "-o", "report.html")
    call("report", name, *files, "-T", 1, "--limit", 4)
    assert "m\ufffd.snn.onnx" in Path("report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("charset", ["ascii", "latin-1"])
@pytest.mark.usefixtures("folder")
def test_names_that_the_terminal_does_not_know_are_escaped(charset):
    b = Builder((3, 8, 8))
    b.conv(4)
    b.relu()
    b.nodes[-1].name = "層"
    b.head()
    b.save(Path("Ж.onnx"))
    runner = CliRunner(charset=charset)
    for command, name in (
        ("convert Ж.onnx --data x.npy -T 2", r"\u0416.snn.onnx"),
        ("inspect Ж.snn.onnx", r"\u5c64"),
        ("export Ж.snn.onnx --npz", r"\u0416.npz"),
        ("compare Ж.onnx --data test.npz -T 2", r"\u0416.onnx"),
    ):
        result = runner.invoke(main, command.split())
        assert result.exit_code == 0
        assert name in result.stdout


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
@pytest.mark.parametrize("option", ["--help", "--version"])
def test_help_that_cannot_be_written_says_so(option):
    with Path("/dev/full").open("w") as full:
        result = subprocess.run(
            [sys.executable, "-m", "onnxsnn", option], stdout=full, stderr=subprocess.PIPE,
            text=True, check=False,
        )  # fmt: skip
    assert result.stderr == "Error: standard output: No space left on device\n"
    assert result.returncode == 1


def test_inputs_of_an_snn_are_not_fixed(snn):
    assert "converted already" in fails("fix-inputs", snn, "image=2")
