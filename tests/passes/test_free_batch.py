"""free_batch: a graph for one sample takes many, and gives each what it gave it alone."""

import numpy as np
import pytest

from onnxsnn.passes.clean import clean
from onnxsnn.passes.free_batch import free_batch
from tests.models import Builder, assert_same, outputs_of, uniform


def freed(b, x):
    """The report; the graph gives all samples together what the model gives each alone."""
    graph, report = free_batch(clean(b.graph())[0])
    together = outputs_of(graph, x=x)
    alone = [outputs_of(b.model(), x=x[i : i + 1]) for i in range(len(x))]
    assert_same({name: np.concatenate([one[name] for one in alone]) for name in together}, together)
    return report


def heads(b):
    """Two heads beside the samples on one axis, and apart again."""
    b.op("MatMul", b.last, b.normal(8, 8))
    b.op("Reshape", b.last, b.constant([1, 5, 2, 4], np.int64), allowzero=1)
    b.op("Transpose", perm=[0, 2, 1, 3])
    q = b.op("Reshape", b.last, b.constant([2, 5, 4], np.int64), allowzero=1)
    b.op("Softmax", b.op("MatMul", q, b.op("Transpose", q, perm=[0, 2, 1])))
    b.op("MatMul", b.last, q)
    b.op("Reshape", b.last, b.constant([1, 2, 5, 4], np.int64), allowzero=1)
    b.op("Transpose", perm=[0, 2, 1, 3])
    b.op("Reshape", b.last, b.constant([1, 40], np.int64), allowzero=1)


def copied(b):
    """An axis is copied already."""
    b.op("Reshape", b.last, b.constant([1, 0, -1, 2], np.int64))
    b.op("Reshape", b.last, b.constant([1, -1], np.int64))


def class_token(b):
    b.op("Concat", b.normal(1, 1, 8), b.last, axis=1)


def taken(b):
    best = b.op("ArgMax", axis=2)
    b.op("GatherElements", b.normal(1, 5, 8), best, axis=2)


def resized(b):
    b.op("Unsqueeze", b.last, b.constant([1], np.int64))
    b.op("Resize", b.last, "", "", b.constant([1, 1, 10, 16], np.int64), mode="nearest")


def sequence(b):
    b.op("Transpose", perm=[1, 0, 2])
    zeros = b.constant(np.zeros((1, 1, 4)))
    weights = b.normal(1, 16, 8), b.normal(1, 16, 4)
    b.op("LSTM", b.last, *weights, "", "", zeros, zeros, hidden_size=4)
    b.op("Transpose", perm=[0, 2, 1, 3])
    b.op("Reshape", b.last, b.constant([5, 1, 4], np.int64), allowzero=1)
    b.op("Transpose", perm=[1, 0, 2])


def attention(b):
    """As torch.nn has it: the sequence first, heads beside the samples, both merged for weights."""
    b.op("Transpose", perm=[1, 0, 2])
    b.op("MatMul", b.last, b.normal(8, 24))
    b.op("Reshape", b.last, b.constant([5, 1, 3, 8], np.int64), allowzero=1)
    b.op("Unsqueeze", b.last, b.constant([0], np.int64))
    b.op("Transpose", perm=[3, 1, 2, 0, 4])
    parts = b.op("Squeeze", b.last, b.constant([-2], np.int64))
    heads = []
    for number in range(3):
        b.op("Gather", parts, b.constant(number, np.int64), axis=0)
        b.op("Reshape", b.last, b.constant([5, 2, 4], np.int64), allowzero=1)
        b.op("Transpose", perm=[1, 0, 2])
        heads.append(b.op("Reshape", b.last, b.constant([1, 2, 5, 4], np.int64)))
    q, k, v = heads
    b.op("Softmax", b.op("MatMul", q, b.op("Transpose", k, perm=[0, 1, 3, 2])))
    b.op("MatMul", b.last, v)
    b.op("Transpose", perm=[2, 0, 1, 3])
    b.op("Reshape", b.last, b.constant([5, 8], np.int64), allowzero=1)
    b.op("MatMul", b.last, b.normal(8, 8))
    b.op("Reshape", b.last, b.constant([5, 1, 8], np.int64), allowzero=1)
    b.op("Transpose", perm=[1, 0, 2])


def token_behind_the_sequence(b):
    b.op("Transpose", perm=[1, 0, 2])
    b.op("Concat", b.normal(1, 1, 8), b.last, axis=0)
    b.op("Transpose", perm=[1, 0, 2])


def windows(b):
    """Parts of a map beside the samples, weighed alone, and put together again."""
    b.op("Reshape", b.last, b.constant([1, 5, 4, 2], np.int64))
    b.op("Transpose", perm=[0, 2, 1, 3])
    b.op("Reshape", b.last, b.constant([4, 5, 2], np.int64))
    b.op("Add", b.last, b.normal(1, 5, 2))
    b.op("Reshape", b.last, b.constant([1, 4, 5, 2], np.int64))
    b.op("Mul", b.last, b.normal(1, 4, 1, 1))
    b.op("Reshape", b.last, b.constant([1, 40], np.int64))


def normalized(b):
    """Cosine similarity, as PyTorch expands the norms of what stands beside the samples."""
    source = b.op("Reshape", b.last, b.constant([5, 8], np.int64))
    b.op("ReduceL2", axes=[1], keepdims=1)
    b.op("Expand", b.last, b.constant([5, 8], np.int64))
    b.op("Div", source, b.last)
    b.op("Reshape", b.last, b.constant([1, 40], np.int64))


def flattened(b):
    b.relu()
    b.op("Reshape", b.last, b.constant([1, 40], np.int64))
    b.gemm(5, inputs=40)


BUILDS = [
    heads, copied, class_token, taken, resized, sequence, attention, token_behind_the_sequence,
    windows, normalized, flattened,
]  # fmt: skip


@pytest.mark.parametrize("build", BUILDS)
def test_batch_of_one_that_an_exporter_wrote_into_shapes_becomes_symbolic(build):
    b = Builder((5, 8), batch=1)
    build(b)
    assert freed(b, uniform(3, 5, 8)).actions == {"batch axis made symbolic": 1}


def test_an_open_batch_that_takes_one_sample_is_freed_too():
    """An exporter wrote the 1 of its example into a Concat, and called the batch symbolic."""
    b = Builder((4,))
    b.op("Concat", b.constant(np.ones((1, 2))), "x", axis=1)
    b.gemm(3, inputs=6)
    assert freed(b, uniform(3, 4)).actions == {"batch axis made symbolic": 1}


def test_batch_of_one_stays_where_the_graph_mixes_samples():
    b = Builder((4,), batch=1)
    b.op("ReduceMean", "x", axes=[0], keepdims=1)
    b.gemm(3)
    graph, report = free_batch(clean(b.graph())[0])
    assert not report.changed
    assert len(report.warnings) == 1
    assert graph.inputs[0].shape[0] == 1


def test_symbolic_batch_is_left_as_it_is():
    b = Builder((4,))
    b.gemm(3)
    graph = clean(b.graph())[0]
    assert free_batch(graph)[0] is graph


def test_an_open_batch_becomes_one_where_the_graph_takes_one_sample_only():
    b = Builder((4,))
    b.op("Squeeze", "x", b.constant([0], np.int64))
    b.op("Unsqueeze", b.last, b.constant([0], np.int64))
    b.gemm(3, inputs=4)
    graph, report = free_batch(clean(b.graph())[0])
    assert graph.inputs[0].shape[0] == 1
    assert report.actions == {"batch axis fixed at 1": 1}
    assert "whatever its inputs' shapes say" in report.warnings[0]
