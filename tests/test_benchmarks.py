"""Benchmarks, held to what they are meant to show: VGG-16, and on the demo network the others."""

import re
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest

from onnxsnn.demo import demo_data
from tests.models import OLD_RUNTIME, uniform
from tests.networks import average_network

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """The options that name the demo network and its data."""
    folder, (calibration, test) = tmp_path_factory.mktemp("demo"), demo_data()
    np.savez(folder / "calibrate.npz", **calibration.inputs)
    np.savez(folder / "test.npz", **test.inputs, labels=test.labels)
    return options(files("onnxsnn.demo") / "model.onnx", folder)


def options(model, folder):
    data = ("--calibrate", folder / "calibrate.npz", "--test", folder / "test.npz")
    return ("--model", model, *data)


def printed(script, *arguments):
    """What a benchmark prints."""
    command = [sys.executable, str(BENCHMARKS / script), *map(str, arguments)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def rows(script, *arguments):
    """The cells of each row of the table that a benchmark prints, without the headings."""
    lines = printed(script, *arguments).splitlines()
    return [[cell.strip() for cell in line.split("│")[1:-1]] for line in lines if "│" in line]


def share(cell):
    """A percentage as a number."""
    return float(cell.removesuffix("%")) / 100


@pytest.mark.skipif(OLD_RUNTIME, reason="ONNX Runtime has no ConvInteger of signed weights yet")
def test_quantized_networks_do_as_the_real_one(demo):
    real, *others = rows("quantized.py", *demo, "--samples", 64, "--timesteps", 8)
    assert real[0] == "float32"
    assert len(others) == 5
    for name, itself, bits, spiking in others:
        assert bits == real[2] == "1", name
        assert share(itself) > share(real[1]) - 0.02
        assert share(spiking) > share(real[3]) - 0.02


def test_headline_ours_is_there_in_fewer_steps_and_spikes_than_max(demo):
    ways = ("--ways", "max", "fit", "--timesteps", 8, 16, "--limit", 60, "--samples", 32)
    first, second = rows("headline.py", *demo, *ways)
    (name, neuron, bits, steps, times, spikes, ratio, samples), most = second, first
    assert (name.split(",")[0], neuron, bits, samples) == ("fit", "if, v0 fitted", "1", "60")
    assert most[:2] == ["max, per layer", "if, v0 = 0"]
    assert int(steps) < int(most[3])
    assert float(most[4]) == float(most[6]) == 1
    assert float(times) == pytest.approx(int(most[3]) / int(steps), abs=0.05)
    assert 0 < float(ratio) < 1
    assert int(spikes.replace(",", "")) < int(most[5].replace(",", ""))


def test_headline_says_what_is_not_reached(demo):
    short = ("--most", 2, "--timesteps", 1, "--ways", "max", "fit", "--limit", 300)
    found = rows("headline.py", *demo, *short)
    assert [row[3] for row in found] == ["> 2", "> 1"]
    assert all(cell == "" for row in found for cell in row[4:7])


def test_early_exit_saves_steps_and_more_of_them_for_less_agreement(demo):
    found = rows(
        "early_exit.py", *demo, "--samples", 32, "--held-out", 100, "--limit", 60,
        "--ways", "fit", "--agreements", 0.9, 1.0,
    )  # fmt: skip
    (loose, tight) = ((share(row[3]), share(row[5]), float(row[6])) for row in found)
    assert loose[2] < tight[2] < 16
    assert tight[1] == pytest.approx(tight[0], abs=0.05)


def test_accuracy_takes_trained_thresholds(tmp_path):
    model = average_network().save(tmp_path / "m.onnx")
    np.savez(tmp_path / "calibrate.npz", x=uniform(32, 2, 8, 8))
    np.savez(tmp_path / "test.npz", x=uniform(64, 2, 8, 8, seed=1), labels=np.zeros(64, np.int64))
    ways = ("--ways", "trained", "trained+correct", "--timesteps", 4)
    found = rows("accuracy.py", *options(model, tmp_path), *ways)
    assert [row[0] for row in found] == ["trained", "trained, corrected"]


def test_what_is_measured_must_be_named(demo):
    for given in (demo[:4], (*demo, "--peer")):
        command = [sys.executable, str(BENCHMARKS / "accuracy.py"), *map(str, given)]
        run = subprocess.run(command, capture_output=True, text=True, check=False)
        assert run.returncode != 0
        assert run.stderr.splitlines()[-1].count("--network") == 1


@pytest.mark.slow
def test_vgg16_converts_within_a_minute_and_three_gibibytes():
    row = next(line for line in printed("convert_vgg16.py").splitlines() if " M " in line)
    seconds, gibibytes = (float(number) for number in re.findall(r"\d+\.\d+", row)[-2:])
    assert seconds < 60
    assert gibibytes < 3
