"""Session: batches that are fixed are split, filled and joined."""

import gc

import numpy as np
import onnxruntime as ort
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from onnxsnn.errors import ModelError
from onnxsnn.session import Session, fixed_batch, join, split
from tests.models import Builder


@given(st.integers(1, 30), st.none() | st.integers(1, 8))
def test_joined_pieces_are_the_whole(count, size):
    feeds = {"x": np.arange(count)}
    pieces = split(feeds, size)
    assert size is None or all(len(piece["x"]) == size for piece in pieces)
    np.testing.assert_array_equal(join(pieces, count)["x"], feeds["x"])


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
