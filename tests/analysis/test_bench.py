"""What `bench` measures, and that its numbers hang together."""

import json
import signal
import subprocess
import sys

import pytest
from click.testing import CliRunner

from onnxsnn import convert
from onnxsnn.analysis.bench import (
    _interrupts_held,
    bench,
    feeds_of,
    interleaved,
    median_ratio,
)
from onnxsnn.cli import main
from onnxsnn.errors import UsageError
from onnxsnn.source import load_source
from tests.models import dataset, uniform
from tests.networks import residual_network

X = uniform(8, 3, 8, 8)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bench")
    ann = residual_network().save(folder / "model.onnx")
    convert(ann, dataset(x=X), timesteps=4).snn.save(folder / "snn.onnx")
    return ann, folder / "snn.onnx"


@pytest.fixture(scope="module")
def snn(files):
    return convert(files[0], dataset(x=X), timesteps=4).snn


def test_a_row_for_each_batch_and_t(snn, files):
    rows = bench(snn, [1, 3], [2, 4], ann=load_source(files[0]))
    assert [(row.batch, row.timesteps) for row in rows] == [(1, 2), (1, 4), (3, 2), (3, 4)]
    for row in rows:
        seconds = row.batch / row.throughput
        assert seconds == pytest.approx(row.step_ms * row.timesteps / 1e3)
        assert row.ratio > 0
        assert row.ann_ms > 0
        assert row.memory is None or 10e6 < row.memory < 10e9


def test_without_an_ann_there_is_no_ratio(snn):
    (row,) = bench(snn, [2], [2])
    assert row.ratio is None
    assert row.ann_ms is None


def test_data_are_repeated_to_fill_a_batch(snn):
    feeds = feeds_of(snn, 11, dataset(x=X))
    assert (feeds["x"][8:] == X[:3]).all()


def test_ways_take_turns():
    seen = []
    ways = {name: (lambda name=name: seen.append(name), 2) for name in "ab"}
    seconds = interleaved(ways, repeats=3)
    assert "".join(seen) == "abababab"
    assert {name: len(values) for name, values in seconds.items()} == {"a": 3, "b": 3}


def test_ratio_is_of_the_same_round():
    assert median_ratio([1.0, 8.0, 3.0], [2.0, 4.0, 3.0]) == 1.0


def test_no_samples_and_no_steps_are_refused(snn):
    with pytest.raises(UsageError, match="1 or more"):
        bench(snn, [0], [1])


def test_command_prints_json(files):
    ann, snn = map(str, files)
    result = CliRunner().invoke(main, ["bench", snn, "--ann", ann, "-B", "2", "-T", "2", "--json"])
    assert result.exit_code == 0, result.output
    (row,) = json.loads(result.stdout)
    assert row["batch"] == row["timesteps"] == 2


def test_command_prints_a_table(files):
    result = CliRunner().invoke(main, ["bench", str(files[1]), "-B", "2", "-T", "2"])
    assert result.exit_code == 0, result.output
    assert "Samples/s" in result.stdout


@pytest.mark.skipif(sys.platform == "win32", reason="it holds no signals back")
def test_ctrl_c_ends_the_process_that_is_measured_quietly():
    """While it still imports, too."""
    code = "from onnxsnn.analysis.bench import _end_quietly; _end_quietly()"
    with _interrupts_held():
        process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate()
    assert (process.returncode, said) == (-signal.SIGINT, b"")
