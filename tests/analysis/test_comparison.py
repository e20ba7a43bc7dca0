"""compare: ways beside each other, and the best of them."""

from dataclasses import replace

import pytest

from onnxsnn.analysis.comparison import (
    TIMESTEPS,
    WAYS,
    Comparison,
    Way,
    compare,
    timesteps_for,
    ways_for,
)
from onnxsnn.analysis.evaluate import Row
from onnxsnn.display import show_best
from onnxsnn.errors import DataError, UsageError
from onnxsnn.plot import check_plot, draw
from onnxsnn.source import load_source
from tests.models import Builder, dataset, uniform
from tests.networks import STRUCTURES, average_network, residual_network

PLAIN, MULTI = Way("fit"), Way("fit", "multi-threshold", 4)


def comparison_of(plain, multi, ann=0.9):
    """A comparison of two ways with these accuracies at T = 1, 2, 4."""
    rows = {
        way: [Row(T, accuracy=a, spikes=10.0 * T) for T, a in zip((1, 2, 4), values, strict=True)]
        for way, values in ((PLAIN, plain), (MULTI, multi))
    }
    return Comparison(rows, {PLAIN: 1.0, MULTI: 3.17}, ann, 100)


def test_best_is_the_fewest_timesteps_that_come_close_to_the_ann():
    assert comparison_of([0.1, 0.5, 0.898], [0.5, 0.9, 0.91]).best == (MULTI, 2)


def test_fewer_bits_win_at_equal_timesteps():
    assert comparison_of([0.1, 0.9, 0.9], [0.5, 0.9, 0.9]).best == (PLAIN, 2)


def test_where_nothing_comes_close_to_the_ann_the_best_of_all_counts():
    assert comparison_of([0.1, 0.2, 0.3], [0.2, 0.5, 0.502]).best == (MULTI, 2)


def test_the_rule_is_said_with_the_best(capsys):
    show_best(comparison_of([0.1, 0.9, 0.9], [0.5, 0.9, 0.9]), "m.onnx", [])
    line = capsys.readouterr().out.splitlines()[0]
    assert line.endswith("then spikes, within 0.5 points of the ANN, or of the best")


def test_ways_say_the_options_of_the_command_line():
    way = Way("max", "burst", 3, correct=True)
    assert way.options == "--threshold max --neuron burst --levels 3 --correct"
    assert str(Way("fit", "signed")) == "fit, signed"
    assert Way("fit", correct=False).options.endswith(" --no-correct")
    assert str(Way("fit", correct=False)) == "fit, uncorrected"
    assert Way("fit", anytime=True).options.endswith(" --anytime")
    assert str(Way("fit", correct=True, anytime=True)) == "fit, corrected, anytime"
    powers = Way("fit", "multi-threshold", 8, digits=1)
    assert str(powers) == "fit, multi-threshold 8, 1 digit"
    assert powers.options == "--threshold fit --neuron multi-threshold --levels 8 --digits 1"


def test_a_way_is_converted_as_it_says(tmp_path):
    source = load_source(residual_network().save(tmp_path / "m.onnx"))
    way = Way("fit", "burst", 3, correct=True, anytime=True)
    metadata = way.convert(source, dataset(x=uniform(24, 3, 8, 8)), 4).metadata
    assert metadata["anytime"]
    assert metadata["correction"] == "whole"
    assert metadata["neuron"]["model"] == "burst"
    assert metadata["neuron"]["levels"] == 3


def test_every_way_has_a_row_for_every_number_of_timesteps(tmp_path):
    source = load_source(residual_network().save(tmp_path / "m.onnx"))
    x = uniform(24, 3, 8, 8)
    seen = []
    comparison = compare(
        source, dataset(x=x[:8]), dataset(x=x[8:]), (PLAIN, MULTI), (4, 1),
        lambda *progress: seen.append(progress),
    )  # fmt: skip
    assert {way: [r.timesteps for r in rows] for way, rows in comparison.rows.items()} == {
        PLAIN: [1, 4], MULTI: [1, 4],
    }  # fmt: skip
    assert comparison.measure == "agreement"
    assert comparison.ann_accuracy is None
    assert comparison.bits[MULTI] > comparison.bits[PLAIN] == 1
    assert seen[-1] == (4, 4)


def test_trained_thresholds_are_compared_without_data_and_corrected_with_them(tmp_path):
    source = load_source(average_network().save(tmp_path / "m.onnx"))
    x = uniform(24, 2, 8, 8)
    ways = Way("trained"), Way("trained", correct=True)
    comparison = compare(source, dataset(x=x[:16]), dataset(x=x[16:]), ways, (4,))
    plain, corrected = (rows[0].error for rows in comparison.rows.values())
    assert plain != corrected


def test_thresholds_of_training_are_a_way_where_every_rectifier_has_one(tmp_path):
    """By which the command that is printed takes no data."""
    b = Builder((8,))
    b.gemm(12)
    b.clip(6.0)
    b.gemm(12)
    b.clip(6.0)
    b.gemm(3)
    data = dataset(x=uniform(4, 8))
    ways = ways_for(load_source(b.save(tmp_path / "m.onnx")), data)
    assert ways == (*WAYS, Way("trained"), Way("trained", "signed"))
    b.relu()
    b.gemm(3)
    assert ways_for(load_source(b.save(tmp_path / "m.onnx")), data) == WAYS


def test_encoders_alone_have_no_thresholds_of_training(tmp_path):
    b = Builder((8,))
    b.gemm(12)
    b.op("Tanh")
    b.gemm(3)
    data = dataset(x=uniform(4, 8))
    assert ways_for(load_source(b.save(tmp_path / "m.onnx")), data) == WAYS


@pytest.mark.parametrize(("levels", "more"), [(None, []), (3, [3]), (8, []), (31, [31]), (255, [])])
def test_a_network_of_few_levels_is_run_for_as_many_steps_too(tmp_path, levels, more):
    plain = load_source(average_network().save(tmp_path / "m.onnx"))
    assert timesteps_for(replace(plain, levels=levels)) == tuple(sorted([*TIMESTEPS, *more]))


@pytest.mark.parametrize(("way", "given"), [(PLAIN, " --data d.npz"), (Way("trained"), "")])
def test_command_of_the_best_way_gives_data_where_it_takes_any(capsys, way, given):
    rows = comparison_of([0.9, 0.9, 0.9], [0.1, 0.1, 0.1]).rows
    show_best(Comparison({way: rows[PLAIN]}, {way: 1.0}, 0.9, 100), "m.onnx", ["--data", "d.npz"])
    assert f"onnxsnn convert m.onnx{given} --timesteps 1 " in capsys.readouterr().out


def test_outputs_that_no_error_relates_to_are_said():
    with pytest.raises(DataError, match="all 0, or infinite"):
        _ = Comparison({PLAIN: [Row(1)]}, {PLAIN: 1.0}, None, 100).best


def test_an_error_of_0_beside_one_that_relates_to_nothing_is_not_compared():
    rows = [Row(1, error=0.0), Row(2)]
    with pytest.raises(DataError, match="all 0, or infinite"):
        _ = Comparison({PLAIN: rows}, {PLAIN: 1.0}, None, 100).best


@pytest.mark.parametrize("suffix", [".svg", ".png"])
def test_plot_is_drawn_for_outputs_without_classes_too(tmp_path, suffix):
    pytest.importorskip("matplotlib")
    source = load_source(STRUCTURES["unet"]().save(tmp_path / "m.onnx"))
    data = dataset(x=uniform(6, 3, 8, 8))
    comparison = compare(source, data, data, (PLAIN,), (1, 2))
    assert comparison.measure == "error"
    target = tmp_path / f"plot{suffix}"
    check_plot(target)
    draw(comparison, target)
    start = target.read_bytes()[:200]
    assert b"<?xml" in start if suffix == ".svg" else b"PNG" in start


def test_plot_of_another_format_is_refused(tmp_path):
    pytest.importorskip("matplotlib")
    with pytest.raises(UsageError, match=r"plot\.txt: a plot is one of"):
        check_plot(tmp_path / "plot.txt")
