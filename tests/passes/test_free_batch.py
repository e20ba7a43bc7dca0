"""free_batch: a graph for one sample takes many, and gives each what it gave it alone."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from onnxsnn.errors import UnsupportedError
from onnxsnn.graph import from_model
from onnxsnn.passes.clean import clean
from onnxsnn.passes.free_batch import free_batch
from onnxsnn.passes.loop_branches import loop_branches
from onnxsnn.session import SampleSession
from tests.loops import recurrent
from tests.models import Builder, assert_same, outputs_of, uniform


def freed(b, x, batch=1):
    """The report; the graph gives all samples together what the model gives those of a batch."""
    graph, report = free_batch(clean(b.graph())[0])
    together = outputs_of(graph, x=x)
    alone = [outputs_of(b.model(), x=x[i : i + batch]) for i in range(0, len(x), batch)]
    assert_same({name: np.concatenate([one[name] for one in alone]) for name in together}, together)
    return report


def heads(b, n):
    """Two heads beside the samples on one axis, and apart again."""
    b.op("MatMul", b.last, b.normal(8, 8))
    b.op("Reshape", b.last, b.constant([n, 5, 2, 4], np.int64), allowzero=1)
    b.op("Transpose", perm=[0, 2, 1, 3])
    q = b.op("Reshape", b.last, b.constant([2 * n, 5, 4], np.int64), allowzero=1)
    b.op("Softmax", b.op("MatMul", q, b.op("Transpose", q, perm=[0, 2, 1])))
    b.op("MatMul", b.last, q)
    b.op("Reshape", b.last, b.constant([n, 2, 5, 4], np.int64), allowzero=1)
    b.op("Transpose", perm=[0, 2, 1, 3])
    b.op("Reshape", b.last, b.constant([n, 40], np.int64), allowzero=1)


def copied(b, n):
    """An axis is copied already."""
    b.op("Reshape", b.last, b.constant([n, 0, -1, 2], np.int64))
    b.op("Reshape", b.last, b.constant([n, -1], np.int64))


def token(b, *batch):
    """The same values for each sample."""
    return np.broadcast_to(b.random.normal(size=8), (*batch, 8))


def class_token(b, n):
    b.op("Concat", b.constant(token(b, n, 1)), b.last, axis=1)


def taken(b, n):
    best = b.op("ArgMax", axis=2)
    b.op(
        "GatherElements",
        b.constant(np.tile(b.random.normal(size=(1, 5, 8)), (n, 1, 1))),
        best,
        axis=2,
    )


def resized(b, n):
    b.op("Unsqueeze", b.last, b.constant([1], np.int64))
    b.op("Resize", b.last, "", "", b.constant([n, 1, 10, 16], np.int64), mode="nearest")


def sequence(b, n):
    b.op("Transpose", perm=[1, 0, 2])
    zeros = b.constant(np.zeros((1, n, 4)))
    weights = b.normal(1, 16, 8), b.normal(1, 16, 4)
    b.op("LSTM", b.last, *weights, "", "", zeros, zeros, hidden_size=4)
    b.op("Transpose", perm=[0, 2, 1, 3])
    b.op("Reshape", b.last, b.constant([5, n, 4], np.int64), allowzero=1)
    b.op("Transpose", perm=[1, 0, 2])


def last_of_a_sequence(b, n):
    """Of the outputs of a node, the first is left out."""
    b.op("Transpose", perm=[1, 0, 2])
    b.op("LSTM", b.last, b.normal(1, 16, 8), b.normal(1, 16, 4), count=2, hidden_size=4)
    _, b.last = b.nodes[-1].output
    b.nodes[-1].output[0] = ""
    b.op("Reshape", b.last, b.constant([n, 4], np.int64), allowzero=1)


def attention(b, n):
    """As torch.nn has it: the sequence first, heads beside the samples, both merged for weights."""
    b.op("Transpose", perm=[1, 0, 2])
    b.op("MatMul", b.last, b.normal(8, 24))
    b.op("Reshape", b.last, b.constant([5, n, 3, 8], np.int64), allowzero=1)
    b.op("Unsqueeze", b.last, b.constant([0], np.int64))
    b.op("Transpose", perm=[3, 1, 2, 0, 4])
    parts = b.op("Squeeze", b.last, b.constant([-2], np.int64))
    heads = []
    for number in range(3):
        b.op("Gather", parts, b.constant(number, np.int64), axis=0)
        b.op("Reshape", b.last, b.constant([5, 2 * n, 4], np.int64), allowzero=1)
        b.op("Transpose", perm=[1, 0, 2])
        heads.append(b.op("Reshape", b.last, b.constant([n, 2, 5, 4], np.int64)))
    q, k, v = heads
    b.op("Softmax", b.op("MatMul", q, b.op("Transpose", k, perm=[0, 1, 3, 2])))
    b.op("MatMul", b.last, v)
    b.op("Transpose", perm=[2, 0, 1, 3])
    b.op("Reshape", b.last, b.constant([5 * n, 8], np.int64), allowzero=1)
    b.op("MatMul", b.last, b.normal(8, 8))
    b.op("Reshape", b.last, b.constant([5, n, 8], np.int64), allowzero=1)
    b.op("Transpose", perm=[1, 0, 2])


def token_behind_the_sequence(b, n):
    b.op("Transpose", perm=[1, 0, 2])
    b.op("Concat", b.constant(token(b, 1, n)), b.last, axis=0)
    b.op("Transpose", perm=[1, 0, 2])


def windows(b, n):
    """Parts of a map beside the samples, weighed alone, and put together again."""
    b.op("Reshape", b.last, b.constant([n, 5, 4, 2], np.int64))
    b.op("Transpose", perm=[0, 2, 1, 3])
    b.op("Reshape", b.last, b.constant([4 * n, 5, 2], np.int64))
    b.op("Add", b.last, b.normal(1, 5, 2))
    b.op("Reshape", b.last, b.constant([n, 4, 5, 2], np.int64))
    b.op("Mul", b.last, b.normal(1, 4, 1, 1))
    b.op("Reshape", b.last, b.constant([n, 40], np.int64))


def normalized(b, n):
    """Cosine similarity, as PyTorch expands the norms of what stands beside the samples."""
    source = b.op("Reshape", b.last, b.constant([5 * n, 8], np.int64))
    b.op("ReduceL2", axes=[1], keepdims=1)
    b.op("Expand", b.last, b.constant([5 * n, 8], np.int64))
    b.op("Div", source, b.last)
    b.op("Reshape", b.last, b.constant([n, 40], np.int64))


def positions(b, n):
    """Values for each place, written out for every sample."""
    b.op("Add", b.last, b.constant(np.tile(b.random.normal(size=(5, 8)), (n, 1, 1))))
    b.op("Mul", b.last, b.normal(5, 8))


def flattened(b, n):
    b.relu()
    b.op("Reshape", b.last, b.constant([n, 40], np.int64))
    b.gemm(5, inputs=40)


BUILDS = [
    heads, copied, class_token, taken, resized, sequence, last_of_a_sequence, attention,
    token_behind_the_sequence, windows, normalized, positions, flattened,
]  # fmt: skip


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("build", BUILDS)
def test_a_batch_that_an_exporter_wrote_into_shapes_becomes_symbolic(build, batch):
    b = Builder((5, 8), batch=batch)
    build(b, batch)
    x = uniform(2 * batch, 5, 8)
    assert freed(b, x, batch).actions == {"batch axis made symbolic": 1}


def test_sizes_of_some_axes_are_not_those_of_the_samples():
    b = Builder((1, 5, 8), batch=1, opset=18)
    sizes = b.constant([10, 16], np.int64)
    b.op("Resize", "x", "", "", sizes, mode="nearest", axes=[2, 3])
    assert freed(b, uniform(3, 1, 5, 8)).actions == {"batch axis made symbolic": 1}


def test_an_open_batch_that_takes_one_sample_is_freed_too():
    """An exporter wrote the 1 of its example into a Concat, and called the batch symbolic."""
    b = Builder((4,))
    b.op("Concat", b.constant(np.ones((1, 2))), "x", axis=1)
    b.gemm(3, inputs=6)
    assert freed(b, uniform(3, 4)).actions == {"batch axis made symbolic": 1}


@pytest.mark.parametrize("batch", [1, 3])
def test_a_batch_stays_where_the_graph_mixes_samples(batch):
    b = Builder((4,), batch=batch)
    b.op("ReduceMean", "x", axes=[0], keepdims=1)
    b.gemm(3)
    graph, report = free_batch(clean(b.graph())[0])
    assert not report.changed
    assert f"stays {batch}" in report.warnings[0]
    assert graph.inputs[0].shape[0] == batch


def test_shapes_stay_known_where_a_loop_does_not_let_the_batch_go():
    b = recurrent("Loop", batch=2)
    b.op("ReduceMax", axes=[0], keepdims=1)
    graph, report = free_batch(clean(b.graph())[0])
    assert "stays 2" in report.warnings[0]
    (rectified,) = (node.outputs[0] for node in graph.nodes if node.op == "Relu")
    assert rectified.shape == [2, 6, 8]


def test_symbolic_batch_is_left_as_it_is():
    b = Builder((4,))
    b.gemm(3)
    graph = clean(b.graph())[0]
    assert free_batch(graph)[0] is graph


def test_an_open_batch_becomes_one_where_the_graph_takes_one_sample_only():
    b = Builder((2, 4))
    rows = b.op("Squeeze", "x", b.constant([0], np.int64))
    b.op("Gemm", rows, rows, transB=1)
    graph, report = free_batch(clean(b.graph())[0])
    assert graph.inputs[0].shape[0] == 1
    assert report.actions == {"batch axis fixed at 1": 1}
    assert "whatever its inputs' shapes say" in report.warnings[0]


def halves(*sizes):
    """Of one sample, whose axis is squeezed away, the halves of what is in front then."""
    b = Builder(sizes)
    b.op("Squeeze")
    ends = [b.constant([at], np.int64) for at in (0, 2, 4)]
    left = b.op("Slice", "t0", *ends[:2])
    b.op("Concat", b.op("Slice", "t0", *ends[1:]), left, axis=0)
    return from_model(b.undeclared())


def test_values_of_one_sample_in_front_are_those_of_each():
    x = uniform(3, 1, 4)
    graph, report = free_batch(clean(halves(1, 4))[0])
    assert report.actions == {"batch axis made symbolic": 1}
    (found,) = outputs_of(graph, x=x).values()
    np.testing.assert_array_equal(found, x[:, 0, [2, 3, 0, 1]])


def test_one_sample_keeps_its_axis_where_means_are_squeezed():
    b = Builder((4, 6))
    b.op("ReduceMean", axes=[2], keepdims=1)
    b.op("Squeeze")
    graph, report = free_batch(clean(from_model(b.undeclared()))[0])
    assert not report.warnings
    for samples in (1, 3):
        x = uniform(samples, 4, 6)
        assert_same({b.last: x.mean(axis=2)}, outputs_of(graph, x=x))


def test_one_sample_stays_one_where_sizes_are_open():
    graph, report = free_batch(clean(halves(4, "L"))[0])
    assert report.actions == {"batch axis fixed at 1": 1}
    assert graph.inputs[0].shape == [1, 4, "L"]


def test_tokens_that_mix_samples_keep_their_batch():
    b = Builder((3,), batch=1)
    b.inputs[0].type.tensor_type.elem_type = TensorProto.INT64
    b.op("Gather", b.normal(9, 4), "x")
    mean = b.op("ReduceMean", axes=[0, 1])
    b.op("Sub", "t0", mean)

    report = free_batch(clean(b.graph())[0])[1]

    assert "mixes" in report.warnings[0]


def test_a_sample_that_decides_on_a_branch_does_so_alone():
    b = Builder((6,), batch=1)
    mean = b.op("ReduceMean", "x", axes=[0, 1], keepdims=0)
    branches = []
    for sign in (1.0, -1.0):
        factor = helper.make_node("Constant", [], ["factor"], value_float=sign)
        scaled = helper.make_node("Mul", ["x", "factor"], ["scaled"])
        given = helper.make_tensor_value_info("scaled", TensorProto.FLOAT, [1, 6])
        branches.append(helper.make_graph([factor, scaled], "branch", [], [given]))
    b.op("If", b.op("Greater", mean, b.constant(0.0)), then_branch=branches[0],
         else_branch=branches[1])  # fmt: skip
    graph = clean(b.graph())[0]
    loop_branches(graph, sizes_known=True)
    graph, report = free_batch(graph)
    assert graph.inputs[0].shape == [1, 6]
    assert report.warnings


def test_a_mask_of_the_first_sample_is_found_whatever_ids_a_trial_draws():
    """Where all ids of a sample are the same, a mask of another one changes nothing."""
    b = Builder((9,), batch=1)
    b.inputs = [
        helper.make_tensor_value_info(name, TensorProto.INT64, [1, 9]) for name in ("ids", "mask")
    ]
    rows = b.op("Gather", b.normal(2, 4), "ids")
    centred = b.op("Sub", rows, b.op("ReduceMean", rows, axes=[1], keepdims=1))
    first = b.op("Gather", "mask", b.constant([0], np.int64), axis=0)
    shown = b.op("Unsqueeze", b.op("Cast", first, to=1), b.constant([2], np.int64))
    b.op("ReduceSum", b.op("Mul", centred, shown), b.constant([1], np.int64), keepdims=0)
    _, report = free_batch(b.graph())
    assert report.warnings == ["the batch axis stays 1: the graph mixes or fixes it"]


@pytest.mark.parametrize("copied", [False, True])
@pytest.mark.parametrize(("batch", "shape"), [(1, (1, 3)), (1, (4,)), (1, ()), (2, (2, 3))])
def test_outputs_that_are_constants_are_given_for_each_sample(batch, shape, copied):
    """As policies give the spread of their actions."""
    b = Builder((6,), batch=batch)
    scores = b.gemm(3)
    spread = b.constant(np.full(shape, 0.5))
    if copied:
        spread = b.op("Identity", spread)
    model = b.undeclared(scores, spread)
    model.graph.output[1].CopyFrom(helper.make_tensor_value_info(spread, TensorProto.FLOAT, shape))
    model = onnx.shape_inference.infer_shapes(model)
    graph, report = free_batch(clean(from_model(model))[0])
    assert not report.warnings
    x = uniform(4, 6)
    found, alone = outputs_of(graph, x=x), SampleSession(model).run({"x": x})
    assert found[spread].shape == (4, *(shape[1:] if shape[:1] == (batch,) else shape))
    assert_same(alone, found)


@pytest.mark.parametrize("batch", [1, 4])
def test_an_output_that_is_an_input_opens(batch):
    b = Builder((6,), batch=batch)
    b.gemm(3)
    model = b.model()
    model.graph.output.append(model.graph.input[0])
    graph, report = free_batch(clean(from_model(model))[0])
    assert not report.warnings
    assert [tensor.shape[0] for tensor in graph.outputs] == ["N", "N"]


@pytest.mark.parametrize("shape", [(1, 6), (6, 1), (6,)])
def test_a_squeeze_that_names_no_axes_leaves_one_sample_its_own(shape):
    b = Builder(shape, batch=4)
    b.op("Squeeze")
    b.relu()
    graph, report = free_batch(clean(b.graph())[0])
    assert not report.warnings
    x = uniform(4, *shape)
    alone = [outputs_of(graph, x=x[i : i + 1])[b.last] for i in range(4)]
    assert_same(outputs_of(b.model(), x=x), {b.last: np.concatenate(alone)})


def test_a_number_that_is_reduced_of_all_samples_leaves_their_number_open():
    """As PyTorch's newer exporter writes the mean of everything."""
    b = Builder((6,))
    scores = b.gemm(3)
    b.op("ReduceMean", keepdims=1)
    b.op("Squeeze")
    graph, report = free_batch(clean(b.graph(scores, b.last))[0])
    assert not report.warnings
    assert graph.inputs[0].shape[0] == "N"
    assert outputs_of(graph, x=uniform(4, 6))[b.last].shape == ()


def test_a_size_that_is_squeezed_out_of_a_shape_leaves_the_number_of_samples_open():
    """As PyTorch's newer exporter takes an open width, to resize to it."""
    b = Builder((2, 4, "W"))
    width = b.op("Squeeze", b.op("Shape", "x", start=3))
    twice = b.op("Mul", b.op("Reshape", width, b.constant([1], np.int64)), b.constant(2, np.int64))
    sizes = b.op("Concat", b.op("Shape", "x", end=2), b.constant([8], np.int64), twice, axis=0)
    b.op("Resize", "x", "", "", sizes, mode="nearest")
    graph, report = free_batch(clean(b.graph())[0])
    assert not report.warnings
    assert graph.inputs[0].shape == ["N", 2, 4, "W"]
    x = uniform(3, 2, 4, 5)
    assert_same(outputs_of(b.model(), x=x), outputs_of(graph, x=x))


def by_number(b):
    """A mask as PyTorch's newer exporter looks it up: by the number of the sample, and a place."""
    chosen = b.op("GatherND", "x", b.constant([[[0, 2], [0, 0], [0, 2]]], np.int64))
    b.op("Reshape", chosen, b.constant([1, 9], np.int64))


def by_place_among_all(b):
    """The same by its older one, which merges the samples with what is in them."""
    flat = b.op("Flatten", "x", axis=2)
    chosen = b.op("Gather", flat, b.constant([[[2, 0], [1, 1]]], np.int64))
    b.op("Reshape", chosen, b.constant([-1], np.int64))
    b.op("Reshape", b.last, b.constant([1, 12], np.int64))


def by_a_place_of_its_own(b):
    """The last token of each sample, wherever it is."""
    flat, means = b.op("Flatten", "x", axis=2), b.op("ReduceMean", "x", axes=[2], keepdims=0)
    b.op("Gather", flat, b.op("ArgMax", means, axis=1, keepdims=0))


def by_the_mean(b, score):
    """One way for all by the mean of what is there."""
    return b.op("Greater", b.op("ReduceMean", score, keepdims=0), b.constant(0.0))


def by_its_own(b, score):
    """A way for each."""
    return b.op("Greater", b.op("ReduceMean", score, axes=[1]), b.constant(0.0))


@pytest.mark.parametrize(("decide", "opened"), [(by_the_mean, False), (by_its_own, True)])
@pytest.mark.parametrize("seed", range(8))
def test_samples_that_decide_together_stay_alone(decide, opened, seed):
    """Of a few samples, all may decide the same by chance."""
    b = Builder((8,), batch=1, seed=seed)
    score = b.op("MatMul", "x", b.normal(8, 1))
    one, other = (b.op("MatMul", "x", b.normal(8, 3)) for _ in range(2))
    b.op("Where", decide(b, score), one, other)
    graph, report = free_batch(clean(b.graph())[0])
    assert (graph.inputs[0].shape[0] != 1) == opened
    assert bool(report.warnings) != opened


def test_a_mask_that_one_input_decides_on_opens():
    b = Builder((8,), batch=1)
    b.inputs.append(helper.make_tensor_value_info("ids", TensorProto.INT64, [1, 8]))
    mask = b.op("Cast", b.op("Equal", "ids", b.constant(0, np.int64)), to=TensorProto.FLOAT)
    b.op("Mul", "x", mask)
    b.gemm(3, inputs=8)
    graph, report = free_batch(clean(b.graph())[0])
    assert report.actions["batch axis made symbolic"] == 1
    ids = np.random.default_rng(0).integers(0, 2, (5, 8))
    x = uniform(5, 8)
    alone = [outputs_of(b.model(), x=x[i : i + 1], ids=ids[i : i + 1]) for i in range(5)]
    together = outputs_of(graph, x=x, ids=ids)
    assert_same({b.last: np.concatenate([one[b.last] for one in alone])}, together)


def test_grids_are_made_for_each_sample():
    b = Builder((1, 4, 4), batch=1, opset=20)
    b.op(
        "Reshape",
        b.op("ReduceMean", "x", b.constant([1, 2], np.int64)),
        b.constant([1, 4], np.int64),
    )
    b.channels = 4
    theta = b.op("Reshape", b.gemm(6), b.constant([1, 2, 3], np.int64))
    b.op("GridSample", "x", b.op("AffineGrid", theta, b.constant([1, 1, 4, 4], np.int64)))
    report = freed(b, uniform(5, 1, 4, 4))
    assert report.actions["batch axis made symbolic"] == 1


@pytest.mark.parametrize(
    ("choose", "width"), [(by_number, 9), (by_place_among_all, 12), (by_a_place_of_its_own, 3)]
)
def test_places_in_the_only_sample_are_places_in_each(choose, width):
    b = Builder((3, 3), batch=1)
    choose(b)
    b.gemm(2, inputs=width)
    report = freed(b, uniform(5, 3, 3))
    assert report.actions["batch axis made symbolic"] == 1


def test_an_input_that_takes_no_samples_is_refused():
    b = Builder((4,), batch=0)
    b.gemm(3)
    b.relu()
    with pytest.raises(UnsupportedError, match=r"input 'x' has shape \[0, 4\].*no samples"):
        free_batch(b.graph())


def test_samples_along_another_axis_of_an_input_are_refused():
    """Sequences first, as recurrent networks may take them; the time of one sound is open too."""
    b = Builder((4, 8))
    b.inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [5, "N", 8])]
    b.op("ReduceMean", axes=[0], keepdims=0)
    b.gemm(3, inputs=8)
    with pytest.raises(UnsupportedError, match=r"input 'x' has shape \[5, 'N', 8\].*first axis"):
        free_batch(b.graph())
    b.inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [5, 8, "time"])]
    b.nodes.clear()
    b.last = "x"
    b.op("ReduceMean", axes=[2], keepdims=0)
    assert free_batch(b.graph())[1].actions == {}
