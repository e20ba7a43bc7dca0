"""When an SNN is good enough, and the spikes until then relative to a reference's."""

import pytest

from onnxsnn.analysis.evaluate import Evaluation, Row
from onnxsnn.analysis.target import spike_ratio, target_of


def evaluation(values, measure="accuracy", ann=None):
    """A row per value of a measure; a hundred spikes a step."""
    rows = [Row(t, spikes=100.0 * t) for t in range(1, len(values) + 1)]
    for row, value in zip(rows, values, strict=True):
        setattr(row, measure, value)
    return Evaluation(rows, 1000, ann, {}, 1.0)


def test_accuracy_is_enough_a_point_below_the_ann_s():
    target = target_of(evaluation([0.5, 0.8949, 0.895, 0.91], ann=0.905))
    assert (target.measure, target.timesteps, target.spikes) == ("accuracy", 3, 300.0)
    assert target.level == pytest.approx(0.895)


def test_it_is_the_first_step_that_counts_though_later_ones_fall_back():
    assert target_of(evaluation([0.1, 0.9, 0.2], ann=0.9)).timesteps == 2


def test_an_ann_that_is_beaten_at_once_takes_one_step():
    assert target_of(evaluation([0.9, 0.9], ann=0.5)).timesteps == 1


def test_what_is_not_reached_has_no_step_and_no_spikes():
    target = target_of(evaluation([0.5, 0.8], ann=0.9))
    assert target.timesteps is None
    assert target.spikes is None


def test_without_labels_the_ann_s_classes_count_and_else_its_outputs():
    target = target_of(evaluation([0.98, 0.99], "agreement"))
    assert (target.measure, target.level, target.timesteps) == ("agreement", 0.99, 2)
    target = target_of(evaluation([0.3, 0.1, 0.05], "error"))
    assert (target.measure, target.level, target.timesteps) == ("error", 0.1, 2)


def test_a_step_whose_error_relates_to_nothing_does_not_reach_it():
    target = target_of(evaluation([None, None, 0.0, 0.0], "error"))  # of an ANN that gives 0
    assert (target.measure, target.timesteps, target.spikes) == ("error", 3, 300.0)


def test_labels_without_the_ann_give_no_target():
    assert target_of(evaluation([0.5, 0.9])) is None
    assert spike_ratio(evaluation([0.5]), evaluation([0.5], ann=0.5)) is None


def test_ratio_is_of_the_spikes_until_each_is_good_enough():
    ours, its = evaluation([0.9, 0.9], ann=0.9), evaluation([0.5, 0.6, 0.7, 0.9], ann=0.9)
    found = spike_ratio(ours, its)
    assert (found.target.timesteps, found.reference.timesteps) == (1, 4)
    assert found.ratio == pytest.approx(0.25)


def test_there_is_no_ratio_where_one_is_never_good_enough():
    good, bad = evaluation([0.9], ann=0.9), evaluation([0.1], ann=0.9)
    assert spike_ratio(good, bad).ratio is None
    assert spike_ratio(bad, good).ratio is None
