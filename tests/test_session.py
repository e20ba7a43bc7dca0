"""Session: batches that are fixed are split, filled and joined."""

import gc

import numpy as np
import onnxruntime as ort
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from onnxsnn.errors import DataError, ModelError
from onnxsnn.session import SampleSession, Session, fixed_batch, join, same_for_any, split
from tests.models import Builder, outputs_of, uniform


@given(st.integers(1, 30), st.none() | st.integers(1, 8))
def test_joined_pieces_are_the_whole(count, size):
    feeds = {"x": np.arange(count)}
    pieces = split(feeds, size)
    assert size is None or all(len(piece["x"]) == size for piece in pieces)
    np.testing.assert_array_equal(join(pieces, count, batch=size)["x"], feeds["x"])


@pytest.mark.parametrize("batch", [None, 4])
def test_what_is_of_no_sample_is_given_once(batch):
    fixed = np.arange(20.0).reshape(10, 2)
    rows = [np.zeros((4, 2)), np.ones((batch or 1, 2))]
    pieces = [{"fixed": fixed, "rows": part} for part in rows]
    joined = join(pieces, 5, batch=batch, shared=["fixed"])
    np.testing.assert_array_equal(joined["fixed"], fixed)
    np.testing.assert_array_equal(joined["rows"][:, 0], [0, 0, 0, 0, 1])


@pytest.mark.parametrize(("count", "batch"), [(24, None), (24, 8), (23, 8)])
def test_so_it_is_where_batches_hold_a_little_less_than_it(count, batch):
    pieces = [{"fixed": np.arange(10.0)}] * 3
    assert join(pieces, count, batch=batch, shared=["fixed"])["fixed"].shape == (10,)


def test_rows_of_samples_that_are_the_same_are_all_given():
    """Three of each, of four samples in batches of two."""
    pieces = [{"tokens": np.ones((6, 2))}] * 2
    assert join(pieces, 4)["tokens"].shape == (12, 2)
    assert join(pieces, 3, batch=2)["tokens"].shape == (9, 2)


def test_outputs_that_may_be_the_same_for_any_samples():
    shapes = {"rows": ["N", 4], "boxes": [100, 4], "number": [], "batch": [2, 4]}
    assert same_for_any(shapes, None) == {"boxes", "number", "batch"}
    assert same_for_any(shapes, 2) == {"boxes", "number"}


def test_batch_is_fixed_where_all_inputs_agree():
    assert fixed_batch([[2, 3], [2]]) == 2
    assert fixed_batch([["N", 3]]) is None
    assert fixed_batch([[1, 3], [2]]) is None


def test_model_of_a_fixed_batch_takes_any_number():
    b = Builder((3,), batch=4)
    b.gemm(2)
    free = Builder((3,))
    free.gemm(2)
    x = np.random.default_rng(0).random((10, 3), np.float32)
    for left, right in zip(Session(b.model()).run({"x": x}).values(),
                           Session(free.model()).run({"x": x}).values(), strict=True):  # fmt: skip
        np.testing.assert_allclose(left, right, atol=1e-6)


def rows(batch):
    """Of one sample, [3, 4], without an axis of samples."""
    b = Builder((3, 4), batch=batch)
    b.op("Reshape", b.last, b.constant([3, 4], np.int64))
    b.op("MatMul", b.last, b.normal(4, 2))
    return b.model()


def one_number(batch):
    b = Builder((3, 4), batch=batch)
    b.op("ReduceMax", keepdims=0)
    return b.model()


@pytest.mark.parametrize("build", [rows, one_number])
def test_networks_of_one_sample_give_each_its_own(build):
    x = uniform(5, 3, 4)
    (found,) = SampleSession(build(1)).run({"x": x}).values()
    alone = [next(iter(outputs_of(build(1), x=x[i : i + 1]).values())) for i in range(5)]
    np.testing.assert_array_equal(found, np.stack(alone))


def test_an_open_batch_that_takes_one_sample_is_given_one_at_a_time():
    x = uniform(5, 3, 4)
    (found,) = SampleSession(rows("N")).run({"x": x}).values()
    np.testing.assert_array_equal(found, SampleSession(rows(1)).run({"x": x})["t1"])
    with pytest.raises(DataError, match=r"x \[1, 3, 5\]"):
        SampleSession(rows("N")).run({"x": uniform(1, 3, 5)})


def test_outputs_of_one_sample_that_are_said_to_be_those_of_any_number_get_their_axis():
    model, x = rows("N"), uniform(5, 3, 4)
    model.graph.output[0].type.tensor_type.shape.dim[0].dim_param = "N"
    (found,) = SampleSession(model).run({"x": x}).values()
    assert found.shape == (5, 3, 2)


def squeezed(*sizes):
    b = Builder((3,))
    b.gemm(*sizes)
    b.op("Squeeze")
    return b.undeclared()


@pytest.mark.parametrize(
    ("model", "shape"), [(squeezed(4), (3,)), (squeezed(1), (3,)), (rows("N"), (3, 4))]
)
@pytest.mark.parametrize("first", [1, 2])
def test_an_axis_that_is_lost_where_there_is_one_sample_comes_back(model, shape, first):
    x = uniform(5, *shape)
    session = SampleSession(model)
    (some,) = session.run({"x": x[:first]}).values()
    (one,) = session.run({"x": x[:1]}).values()
    assert len(one) == 1
    np.testing.assert_allclose(one[0], some[0], rtol=1e-6)


def test_outputs_with_samples_stay_as_they_are():
    b = Builder((3,), batch=1)
    b.gemm(2)
    x = uniform(5, 3)
    (found,), (same,) = (s(b.model()).run({"x": x}).values() for s in (SampleSession, Session))
    np.testing.assert_array_equal(found, same)


def test_model_that_onnxruntime_does_not_take_is_refused():
    model = Builder((3,))
    model.gemm(2)
    proto = model.model()
    proto.graph.node[0].op_type = "NoSuchOperator"
    with pytest.raises(ModelError, match="NoSuchOperator"):
        Session(proto)


def test_large_weights_live_as_long_as_the_session():
    b = Builder((300,))
    b.gemm(200)
    b.relu()
    b.gemm(100)
    model, x = b.model(), np.random.default_rng(0).random((4, 300), np.float32)
    whole = model.SerializeToString()
    session = Session(model)
    assert model.SerializeToString() == whole
    del model
    gc.collect()
    _ = [np.full(2**16, np.nan, np.float32) for _ in range(50)]  # where they were, perhaps
    expected = ort.InferenceSession(whole).run(None, {"x": x})
    np.testing.assert_allclose(session.run({"x": x})[b.last], expected[0], rtol=1e-5, atol=1e-6)


def test_large_weights_of_types_that_numpy_lacks_stay_in_the_model():
    weights = np.random.default_rng(0).random((200, 100), np.float32)
    b = Builder((200,))
    b.constants.append(helper.make_tensor("w", TensorProto.BFLOAT16, weights.shape, weights))
    b.constants[-1].CopyFrom(numpy_helper.from_array(numpy_helper.to_array(b.constants[-1]), "w"))
    wide = b.op("Cast", "w", to=TensorProto.FLOAT)
    b.op("MatMul", "x", wide)
    (found,) = Session(b.model()).run({"x": np.eye(200, dtype=np.float32)}).values()
    np.testing.assert_allclose(found, weights, rtol=2**-8)
