"""Tables: every number that they show, and names with brackets as they are."""

import pytest

from onnxsnn import display
from onnxsnn.analysis.comparison import Comparison, Way
from onnxsnn.analysis.evaluate import Evaluation, Row
from onnxsnn.analysis.inspection import Inspection, InspectionRow

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
