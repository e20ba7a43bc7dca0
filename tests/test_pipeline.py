"""Pipeline: what is said of outputs that are others than before, and what is refused."""

import numpy as np
import pytest

from onnxsnn.errors import ModelError
from onnxsnn.passes.report import Report
from onnxsnn.pipeline import Pipeline, prepare
from onnxsnn.source import Source
from tests.models import Builder, outputs_of, uniform


def times(factor, *more):
    """What comes in, times a factor, and then operators."""
    b = Builder((4,))
    b.op("Mul", "x", b.constant(factor))
    for operator in more:
        operator(b)
    return b


def rounded_up(b):
    b.op("Cast", b.op("Ceil"), to=7)


def positive(b):
    b.op("Greater", b.last, b.constant(0.5))


def those_above(b):
    """As many as there are."""
    flat = b.op("Reshape", b.last, b.constant([-1], np.int64))
    b.op("Compress", flat, b.op("Greater", flat, b.constant(0.5)))


def activations_above(b):
    b.gemm(4)
    b.relu()
    those_above(b)


def none_of_them(b):
    nought = b.constant([0], np.int64)
    b.op("Slice", b.last, nought, nought, b.constant([1], np.int64))


READ = [([], 1.01, True), (["float16"], 1.01, False), (["float16"], 2.0, True)]


@pytest.mark.parametrize(("precisions", "factor", "said"), [*READ, ([], np.nan, True)])
def test_other_outputs_than_the_file_s_are_said_beyond_rounding(precisions, factor, said):
    source = Source(times(1.0).model(), "", [], precisions)
    line = Pipeline(None)
    outputs = line.compare_reading({"x": uniform(9, 4)}, times(factor).graph(), source)
    assert any("differ from those of the file" in text for text in line.warnings) is said
    np.testing.assert_array_equal(*outputs.values(), uniform(9, 4) * np.float32(factor))


@pytest.mark.parametrize("last", [rounded_up, positive, activations_above, none_of_them])
def test_as_they_are_read_numbers_are_compared_whose_size_is_known(last):
    source, line = Source(times(1.0, last).model(), "", []), Pipeline(None)
    line.compare_reading({"x": uniform(9, 4)}, times(2.0, last).graph(), source)
    assert line.warnings == []


def verified(before, after, x):
    """What a pass did to outputs, relative to what they were."""
    line = Pipeline(None)
    line.verify_on({"x": x}, outputs_of(before.graph(), x=x))
    line.did(after.graph(), Report("some pass"))
    return line.differences["some pass"]


@pytest.mark.parametrize("last", [rounded_up, positive])
def test_a_pass_that_changes_whole_numbers_or_truths_is_refused(last):
    assert verified(times(1.0, last), times(1.0, last), uniform(9, 4)) == 0
    with pytest.raises(ModelError, match="'some pass' changed the outputs"):
        verified(times(1.0, last), times(2.0, last), uniform(9, 4))


def test_so_is_one_that_gives_no_numbers():
    with pytest.raises(ModelError, match="'some pass' changed the outputs"):
        verified(times(1.0), times(np.nan), uniform(9, 4))


@pytest.mark.parametrize("last", [activations_above, none_of_them])
def test_what_has_no_size_or_one_that_the_values_decide_is_not(last):
    assert verified(times(1.0, last), times(2.0, last), uniform(9, 4)) == 0


def test_outputs_of_another_shape_are_others():
    """As many as are found in the input alone, which stay the same."""
    x, line = np.ones((9, 4), np.float32), Pipeline(None)
    before, after = times(1.0, those_above), times(0.1, those_above)
    line.compare_reading({"x": x}, after.graph(), Source(before.model(), "", []))
    assert "differ from those of the file" in " ".join(line.warnings)
    with pytest.raises(ModelError, match="'some pass' changed the outputs"):
        verified(before, after, x)


def test_outputs_next_to_zero_are_rounding():
    assert verified(times(1.0), times(1.01), 1e-6 * uniform(9, 4)) < 1e-3


def test_what_became_of_the_file_is_said():
    b, line = times(1.0), Pipeline(None)
    b.gemm(3)
    b.relu()
    prepare(Source(b.model(), "", [], warnings=["it was cut short"]), line)
    assert "it was cut short" in line.warnings


def test_a_pass_that_left_all_as_it_was_may_say_why():
    b, line = times(1.0, activations_above), Pipeline(None)
    column = b.op("Unsqueeze", b.last, b.constant([1], np.int64))
    b.op("MatMul", column, b.normal(1, 3))
    prepare(Source(b.model(), "", []), line)
    assert any("layers of weights stay analog" in text for text in line.warnings)
