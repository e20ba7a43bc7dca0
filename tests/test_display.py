"""Tables: every number that they show, and names with brackets as they are."""

from dataclasses import replace

import pytest

from onnxsnn import display
from onnxsnn.analysis.comparison import Comparison, Way
from onnxsnn.analysis.energy import CostModel, Energy, ModelledEnergy, OperationRow
from onnxsnn.analysis.error_split import ErrorSplit
from onnxsnn.analysis.evaluate import Evaluation, Row
from onnxsnn.analysis.fit_curve import FitCurve
from onnxsnn.analysis.inspection import Inspection, InspectionRow
from onnxsnn.analysis.layers import Analysis, LayerAnalysis, Measures, RateDistribution
from onnxsnn.analysis.target import SpikeRatio, Target

ROWS = [Row(1, 0.5, 0.25, 0.125, 0.0625, 1234.0), Row(2, None, None, None, 0.1, 5678.0)]


def test_evaluation_shows_every_row_and_the_ann(capsys):
    display.show_evaluation(Evaluation(ROWS, 1000, 0.75, {"layer[0]": 0.5}, 1.0))
    text = capsys.readouterr().out
    for figure in ("50.00 %", "25.00 %", "0.125", "0.0625", "1,234", "5,678", "ANN 75.00 %"):
        assert figure in text
    assert "layer[0]" in text
    assert "1 bit per spike" in text


def test_comparison_shows_ways_beside_the_ann(capsys):
    ways = Way("max"), Way("fit", "burst", 4, correct=True)
    rows = dict.fromkeys(ways, ROWS[:1])
    display.show_comparison(Comparison(rows, dict.fromkeys(ways, 2.25), 0.9, 1000))
    text = capsys.readouterr().out
    for figure in ("max", "fit, burst 4, corrected", "50.00 %", "90.00 %", "1,234", "2.25"):
        assert figure in text


def test_inspection_shows_refusals_with_their_reason(capsys):
    row = InspectionRow("a[1]", "LSTM", "refused", "it has a state", [None, 3, "W"])
    display.show_inspection(Inspection("source", [row], {"refused": 1}, 0, 12, {"timesteps": 4}))
    text = capsys.readouterr().out
    assert "refused: a[1] (LSTM): it has a state" in text
    assert "?x3xW" in text
    assert "timesteps: 4" in text


def test_inspection_says_of_what_it_cannot_count_that_there_is_some(capsys):
    row = InspectionRow("a", "Tanh", "static", "", [None, 3])
    counted = Inspection("source", [row], {"static": 1}, 1000, 12, {})
    display.show_inspection(counted)
    display.show_inspection(replace(counted, unsized=2))
    display.show_inspection(replace(counted, neurons=0, encodes=True))
    plain, unsized, encoded = capsys.readouterr().out.split("source: ")[1:]
    assert "1,000 neurons per sample, 12 parameters" in plain
    assert "1,000 neurons per sample (without 2 layers of open sizes), 12 parameters" in unsized
    assert "inspect --convertible" in encoded
    assert "inspect --convertible" not in plain + unsized


@pytest.mark.parametrize("name", ["[a]", "[/]", r"\[/\]", "[bold]a[/bold]", "x[1]"])
def test_names_are_shown_as_they_are_and_are_no_markup(capsys, name):
    row = InspectionRow(name, "Relu", "spikes", "", [None, 3])
    display.show_inspection(Inspection("source", [row], {"spikes": 1}, 0, 12, {}))
    assert name in capsys.readouterr().out


def layer_analysis(name, gain, curve=None):
    return LayerAnalysis(
        layer=name,
        curve=curve,
        distribution=RateDistribution([0.0, 1.0], [0.75, 0.25], 0.75, 16, 3, 2),
        squared=ErrorSplit(0.01, 0.001, 0.002, 0.003, 0.004),
        mean=ErrorSplit(0.0, 0.0, 0.0, 0.0, 0.0),
        exact=Measures(0.5 + gain, 0.9, 0.2),
        gain=gain,
    )


def analysis(*gains):
    layers = [layer_analysis(f"layer[{i}]", gain) for i, gain in enumerate(gains)]
    most = max(layers, key=lambda layer: layer.gain)
    costliest = most.layer if most.gain > 0 else None
    return Analysis(512, 8, "accuracy", Measures(0.5, 0.9, 0.3), costliest, layers)


def test_analysis_shows_the_parts_the_rates_and_the_layer_that_costs_most(capsys):
    curve = FitCurve("layer[2]", [0.5, 0.0625], omega=3.0)
    found = analysis(0.0, 0.125)
    found.layers.append(layer_analysis("layer[2]", 0.0, curve))
    display.show_analysis(found)
    text = capsys.readouterr().out
    for figure in ("0.001", "0.002", "0.003", "0.004", "0.01", "75.00 %", "3 of 16", "12.50 %"):
        assert figure in text
    assert "K(8)" in text
    assert "0.0625" in text
    assert " 3 " in text  # 2 Omega / T of two steps
    assert "costs most: layer[1]; accuracy 50.00 % at T = 8 on 512 samples" in text
    assert "62.50 %" in text


def test_no_layer_is_blamed_where_none_costs(capsys):
    display.show_analysis(analysis(0.0, -0.125))
    text = capsys.readouterr().out
    assert "no layer alone costs accuracy; accuracy 50.00 %" in text
    assert "costs most" not in text


ENERGY = Energy(
    samples=10,
    timesteps=2,
    ann_macs=3000,
    input_macs=1000,
    analog_macs=[70, 140],
    synaptic_operations=[400.0, 1234.5],
    rows=[
        OperationRow("conv[0]", "input", 1000, 1000.0),
        OperationRow("gemm", "spikes", 2000, 1234.5),
    ],
    energies=[ModelledEnergy(CostModel("chip", "a paper", 4.0, 0.5), 12000.0, [2e3, 3e3])],
)


def test_energy_shows_operations_and_says_that_it_is_a_model(capsys):
    display.show_energy(ENERGY)
    text = capsys.readouterr().out
    for figure in ("conv[0]", "input", "spikes", "2,000", "1,234", "12 nJ", "3 nJ", "0.250"):
        assert figure in text
    assert "Model, not a measurement" in text
    assert "3,000 MACs in the ANN; at T = 2, 1,234 synaptic operations" in text
    assert "1,000 MACs of a constant input and 140 analog ones" in text
    assert "relative to the reference" not in text
    assert "not counted" not in text


def test_energy_says_what_it_does_not_count(capsys):
    display.show_energy(replace(ENERGY, uncounted=["loop[3]"]))
    assert "not counted: loop[3]" in capsys.readouterr().out


@pytest.mark.parametrize(("ratio", "shown"), [(0.265, "0.265"), (None, "not reached")])
def test_spike_ratio_is_shown_below(capsys, ratio, shown):
    target = Target("accuracy", 0.895, 3, 300.0)
    display.show_energy(ENERGY, SpikeRatio(target, target, ratio))
    expected = f"spikes relative to the reference, until accuracy 0.895: {shown}"
    assert expected in capsys.readouterr().out


def test_warnings_go_to_standard_error_once(capsys):
    display.warn(["[beware]", "[beware]", "also"])
    captured = capsys.readouterr()
    assert captured.err.count("[beware]") == 1
    assert "also" in captured.err
    assert not captured.out


def test_progress_is_quiet_where_there_is_no_terminal(capsys):
    with display.progress("working") as progress:
        progress(1, 2)
        progress(2, 2)
    captured = capsys.readouterr()
    assert not captured.out
    assert not captured.err


@pytest.mark.parametrize("name", ["x" * 90])
def test_long_names_are_not_cut_in_pipes(capsys, name):
    row = InspectionRow(name, "Relu", "rewritten", "", ["N", 3])
    display.show_inspection(Inspection("source", [row], {"rewritten": 1}, 3, 0, {}))
    assert name in capsys.readouterr().out
