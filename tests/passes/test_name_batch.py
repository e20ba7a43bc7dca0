"""name_batch: the axis of the samples has its name wherever it is an axis of its own."""

import numpy as np
import onnx
import pytest

from onnxsnn.analysis.bench import peak_of_process
from onnxsnn.graph import from_model
from onnxsnn.passes.clean import clean
from onnxsnn.passes.name_batch import name_batch
from tests.loops import BODIES, recurrent
from tests.models import Builder


def shapes(b):
    graph = b.graph()
    name_batch(graph)
    return {name: tensor.shape for name, tensor in graph.tensors().items()}


def test_it_is_named_where_inference_cannot_follow():
    b = Builder((7, 8))
    moved = b.op("Transpose", perm=[1, 0, 2])
    split = b.op("Reshape", b.last, b.constant([7, -1, 4], np.int64))
    back = b.op("Reshape", b.last, b.constant([7, -1, 8], np.int64))
    merged = b.op("Reshape", b.last, b.constant([-1, 8], np.int64))
    found = shapes(b)
    assert found[moved] == [7, "N", 8]
    assert found[split][0] == 7
    assert found[split][1] not in ("N", 7)
    assert found[back] == [7, "N", 8]
    assert found[merged][0] not in ("N", 7)


@pytest.mark.skipif(peak_of_process() is None, reason="the system does not say what is held")
def test_vectors_of_the_whole_numbers_of_all_samples_take_little_memory():
    graph = from_model(
        onnx.parser.parse_model("""
        <ir_version: 8, opset_import: ["": 17]>
        g (int64[N,40] ids) => (int64[N,40] y) <int64[1] rows = {-1}, int64[2] shape = {-1,40}>
        {
            flat = Reshape(ids, rows)
            more = Add(flat, flat)
            y = Reshape(more, shape)
        }""")
    )
    before = peak_of_process()
    name_batch(graph)
    assert peak_of_process() - before < 2**29
    assert graph.tensors()["y"].shape == ["N", 40]


def test_a_fixed_batch_has_no_name():
    b = Builder((7, 8), batch=3)
    moved = b.op("Transpose", perm=[1, 0, 2])
    assert shapes(b)[moved] == [7, 3, 8]


def test_an_axis_without_a_name_gets_one():
    b = Builder((7, "N"), batch=None)
    moved = b.op("Transpose", perm=[1, 0, 2])
    found = shapes(b)
    assert found[moved] == [7, found["x"][0], "N"]
    assert found["x"][0] not in (None, "N")


@pytest.mark.parametrize("kind", BODIES)
def test_what_a_loop_gives_is_found_by_running_it(kind):
    graph, _ = clean(recurrent(kind).graph())
    name_batch(graph)
    (node,) = (node for node in graph.nodes if node.op in ("Loop", "Scan"))
    steps = node.outputs[-1]
    assert steps.shape == [6, "N", 5]
    assert steps.outputs[0].outputs[0].shape == ["N", 6, 5]
