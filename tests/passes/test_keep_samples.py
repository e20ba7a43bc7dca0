"""keep_samples: networks for one sample that drop its axis give it back in front."""

import numpy as np
import pytest

from onnxsnn.passes.clean import clean
from onnxsnn.passes.free_batch import free_batch
from onnxsnn.passes.keep_samples import keep_samples
from onnxsnn.session import SampleSession
from tests.models import Builder, outputs_of, uniform

X = uniform(4, 3, 6)


def whole(b, *values):
    return b.constant(values, np.int64)


def squeezed(b):
    b.op("Squeeze", b.last, whole(b, 0))


def squeezed_all(b):
    b.op("ReduceMean", axes=[1])
    b.op("Squeeze")


def flattened(b):
    b.op("Reshape", b.last, whole(b, -1))


def first(b):
    b.op("Gather", b.last, b.constant(0, np.int64), axis=0)


DROPS = [squeezed, squeezed_all, flattened, first]


def layer(b):
    """What works on the last axis, and value by value; of two axes, a Gemm is made of it."""
    b.op("MatMul", b.last, b.normal(18 if b.nodes[-1].op_type == "Reshape" else 6, 5))
    b.op("Add", b.last, b.normal(5))
    b.relu()


def axes_from_the_front(b):
    b.op("Softmax", axis=0)
    b.op("Concat", b.last, b.last, axis=0)
    b.op("Slice", b.last, whole(b, 1), whole(b, 4))
    b.op("ReduceSum", b.last, whole(b, 0), keepdims=1)


def turned(b):
    b.op("Transpose")
    b.op("Unsqueeze", b.last, whole(b, 0))


def reduced(b):
    b.op("ReduceMax", keepdims=0)


def one_number(b):
    b.op("ReduceMax", keepdims=0)
    b.op("Reshape", b.last, whole(b, 1))


GOES_ON = [layer, axes_from_the_front, turned, reduced, one_number]


@pytest.mark.parametrize("goes_on", GOES_ON)
@pytest.mark.parametrize("drop", DROPS)
def test_many_samples_get_what_each_gets_alone(drop, goes_on):
    b = Builder((3, 6), batch=1)
    b.op("MatMul", b.last, b.normal(6, 6))
    drop(b)
    goes_on(b)
    graph, report = free_batch(clean(b.graph())[0])
    assert report.actions == {"batch axis made symbolic": 1}
    (alone,) = SampleSession(b.model()).run({"x": X}).values()
    (found,) = outputs_of(graph, x=X).values()
    assert alone.shape == found.shape
    np.testing.assert_allclose(found, alone, atol=1e-5)


def test_the_axis_in_front_again_is_that_of_the_samples():
    b = Builder((3, 6), batch=1)
    squeezed(b)
    b.op("Unsqueeze", b.last, whole(b, 0))
    b.op("MatMul", b.last, b.normal(6, 4))
    kept = keep_samples(clean(b.graph())[0])
    assert kept.outputs[0].shape == [1, 3, 4]


def test_a_graph_that_keeps_its_samples_has_nothing_to_keep():
    b = Builder((3, 6), batch=1)
    b.op("MatMul", b.last, b.normal(6, 4))
    assert keep_samples(clean(b.graph())[0]) is None


def test_what_does_not_take_another_axis_is_not_touched():
    b = Builder((3, 6), batch=1)
    squeezed(b)
    b.op("Gemm", b.last, b.last, transB=1)
    graph = clean(b.graph())[0]
    assert keep_samples(graph) is None
    assert graph.outputs[0].shape == [3, 3]


def test_sizes_that_values_decide_are_none_to_write_down():
    b = Builder((3, 6), batch=1)
    squeezed(b)
    every = b.op("ReduceMax", b.last, axes=[1], keepdims=0)
    positive = b.op("Greater", every, b.constant(0.0))
    b.op("Compress", "t0", positive, axis=0)
    b.op("Unsqueeze", b.last, whole(b, 2))
    assert keep_samples(clean(b.graph())[0]) is None
