"""decide_together: what comparisons read tells whether samples have a say in each other's."""

import numpy as np
import pytest
from onnx import TensorProto, helper

from onnxsnn.decisions import decide_together, deciding_part
from onnxsnn.graph import to_model
from tests.models import Builder, uniform


def together(b, **pair):
    b.op("Identity")  # what nothing reads is seen in the outputs
    return decide_together(to_model(deciding_part(b.graph())), pair)


def mean_of_all(b):
    return b.op("ReduceMean", "x", keepdims=0)


def greatest_of_all(b):
    return b.op("ReduceMax", "x", keepdims=0)


def mean_of_each(b):
    return b.op("ReduceMean", "x", axes=[1])


def values_apart(b):
    """The samples' on one axis with their own."""
    return b.op("Reshape", "x", b.constant([-1], np.int64))


def less_their_mean(b):
    return b.op("Sub", "x", b.op("ReduceMean", "x", axes=[0]))


CASES = [
    (mean_of_all, True),
    (greatest_of_all, True),
    (less_their_mean, True),
    (mean_of_each, False),
    (values_apart, False),
]


@pytest.mark.parametrize("operator", ["Greater", "Equal", "LessOrEqual"])
@pytest.mark.parametrize(("read", "expected"), CASES)
def test_comparisons(operator, read, expected):
    b = Builder((8,))
    b.op(operator, read(b), b.constant(0.4))
    assert together(b, x=uniform(2, 8)) == expected


@pytest.mark.parametrize("operator", ["ArgMax", "Hardmax", "Round"])
def test_operators_that_decide_by_themselves(operator):
    b = Builder((8,))
    b.op(operator)
    assert not together(b, x=uniform(2, 8))


def test_inputs_that_nothing_decides_by_are_not_needed():
    b = Builder((8,))
    b.inputs.append(helper.make_tensor_value_info("ids", TensorProto.INT64, ["N", 8]))
    mask = b.op("Cast", b.op("Equal", "ids", b.constant(0, np.int64)), to=TensorProto.FLOAT)
    b.op("Mul", "x", mask)
    ids = np.random.default_rng(0).integers(0, 3, (2, 8))
    assert not together(b, x=uniform(2, 8), ids=ids)


def test_sizes_are_no_decisions_of_samples():
    b = Builder((8,))
    b.op("Equal", b.op("Shape", "x"), b.constant([1, 8], np.int64))
    assert not together(b, x=uniform(2, 8))


@pytest.mark.parametrize("operator", ["Relu", "ArgMax"])
def test_what_decides_nothing_further_has_no_such_part(operator):
    b = Builder((8,))
    b.op(operator)
    assert deciding_part(b.graph()) is None


@pytest.mark.parametrize("dtype", [TensorProto.INT64, TensorProto.BOOL])
def test_casts_to_whole_numbers_decide(dtype):
    b = Builder((8,))
    b.op("Cast", mean_of_all(b), to=dtype)
    assert together(b, x=4 * uniform(2, 8))
    b = Builder((8,))
    b.op("Cast", mean_of_each(b), to=dtype)
    assert not together(b, x=4 * uniform(2, 8))
