"""Many timesteps in one run give what stepping gives, spike for spike."""

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from onnxsnn import Runner, convert
from onnxsnn.neurons import MultiThreshold
from onnxsnn.passes.winograd import winograd
from onnxsnn.runtime import onnxruntime_backend
from onnxsnn.runtime.onnxruntime_backend import OnnxRuntimeBackend
from onnxsnn.runtime.runner import _instrument
from onnxsnn.runtime.step_graph import StepGraph
from onnxsnn.runtime.time_batched import TimeBatchedGraph, treats_samples_alone
from tests.models import Builder, assert_same, dataset, uniform
from tests.networks import STRUCTURES

T = 7


def stepped(snn, feeds, timesteps, taps=()):
    """The outputs after each step, one run of the step graph each, all samples at once."""
    graph = StepGraph(_instrument(snn, [], taps), snn.states, [*snn.outputs, *taps])
    return graph.advance(graph.prepare(feeds), {}, timesteps, every_step=True)[0]


def folded(snn, x, timesteps, taps=(), **settings):
    """The outputs after each step, as the Runner gives them, which must fold."""
    runner = Runner(snn, taps=taps, **settings)
    history = list(runner.steps(x, timesteps))
    assert folds(runner), runner.warnings
    return {name: np.stack([o[name] for o in history]) for name in history[0]}


def folds(runner):
    return isinstance(runner._backend._graph, TimeBatchedGraph)


@pytest.mark.parametrize("name", STRUCTURES)
def test_every_structure_folds_and_gives_what_stepping_gives(tmp_path, name):
    b = STRUCTURES[name]()
    x = uniform(5, *(d.dim_value for d in b.inputs[0].type.tensor_type.shape.dim[1:]))
    snn = convert(b.save(tmp_path / "m.onnx"), dataset(x=x), timesteps=T).snn
    expected = stepped(snn, {"x": x}, T)
    assert_same(expected, folded(snn, x, T), 1e-4)
    last = {name: values[-1] for name, values in expected.items()}
    assert_same(last, Runner(snn).run(x, T).outputs, 1e-4)


@pytest.mark.parametrize("kind", ["multi-threshold", "integer"])
@pytest.mark.parametrize("batch", ["N", "unk__0", None])
def test_the_axis_of_the_samples_may_have_any_name_or_none(tmp_path, kind, batch):
    """Sums over all steps, which are of fewer rows than these, behind neurons of many nodes."""
    b = Builder((64,))
    b.inputs = [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [batch, 64])]
    b.gemm(32)
    b.relu()
    b.gemm(10)
    b.op("Softmax", axis=1)
    x = uniform(40, 64)
    options = {"integer": True} if kind == "integer" else {"neuron": MultiThreshold(levels=8)}
    snn = convert(b.save(tmp_path / "m.onnx"), dataset(x=x), timesteps=16, **options).snn
    expected = {name: values[-1] for name, values in stepped(snn, {"x": x}, 16).items()}
    assert_same(expected, Runner(snn, rates=True).run(x, 16).outputs, 1e-4)


def test_samples_of_an_output_may_lie_along_another_axis(tmp_path):
    """As scores of a sequence, time first, that a line of text is read from."""
    b = Builder((7, 8))
    b.op("MatMul", b.last, b.normal(8, 6))
    b.relu()
    b.op("Transpose", perm=[1, 0, 2])
    b.op("MatMul", b.last, b.normal(6, 4))
    x = uniform(5, 7, 8)
    snn = convert(b.save(tmp_path / "m.onnx"), dataset(x=x), timesteps=T).snn
    expected = stepped(snn, {"x": x}, T)
    assert_same(expected, folded(snn, x, T), 1e-4)
    last = {name: values[-1] for name, values in expected.items()}
    assert_same(last, Runner(snn).run(x, T).outputs, 1e-4)


def test_heads_beside_the_samples_are_rows_of_their_own_number(tmp_path):
    """Convolutions of samples, and of their heads, over maps of one size (as MViT has them)."""
    b = Builder((4, 8, 8))
    for channels in (2, 2, 4):
        b.conv(channels)
        b.relu()
    b.op("Reshape", b.last, b.constant([-1, 2, 8, 8], np.int64))
    for _ in range(2):
        b.channels = 2
        b.conv(2)
        b.relu()
    b.op("Reshape", b.last, b.constant([-1, 4, 8, 8], np.int64))
    b.channels = 4
    b.head()
    x = uniform(5, 4, 8, 8)
    snn = convert(b.save(tmp_path / "m.onnx"), dataset(x=x), timesteps=T).snn
    assert_same(stepped(snn, {"x": x}, T), folded(snn, x, T), 1e-4)


def reshaped_head(b):
    """Sizes that are computed, for the last step's outputs and for every step's."""
    b.conv(4)
    b.relu()
    b.conv(4)
    b.op("Resize", b.last, "", b.constant([1, 1, 2, 2]), mode="nearest")
    maps = b.last
    size = b.op("Gather", b.op("Shape", "x"), b.constant([0], np.int64), axis=0)
    return b.op("Reshape", maps, b.op("Concat", size, b.constant([-1, 4], np.int64), axis=0))


def sliced_head(b):
    """A slice along another axis than the samples', whose end is computed."""
    b.conv(4)
    b.relu()
    maps = b.last
    height = b.op("Shape", "x", start=2, end=3)
    half = b.op("Div", height, b.constant([2], np.int64))
    b.op("Slice", maps, b.constant([0], np.int64), half, b.constant([2], np.int64))
    return b.conv(4)


@pytest.mark.parametrize("head", [reshaped_head, sliced_head])
def test_sizes_that_are_computed_fold(tmp_path, head):
    b = Builder((3, "H", 8))
    head(b)
    x = uniform(5, 3, 8, 8)
    snn = convert(b.save(tmp_path / "m.onnx"), dataset(x=x), timesteps=T).snn
    expected = stepped(snn, {"x": x}, T)
    assert_same(expected, folded(snn, x, T), 1e-4)
    last = {name: values[-1] for name, values in expected.items()}
    assert_same(last, Runner(snn).run(x, T).outputs, 1e-4)


def test_samples_behind_another_axis_of_an_output_are_stepped(tmp_path):
    """Every step's outputs would fold, and the last's do not: that is known before the run."""
    b = Builder((4, 6))
    b.op("MatMul", b.last, b.normal(6, 6))
    b.relu()
    b.op("Transpose", perm=[1, 0, 2])
    weights = b.normal(1, 20, 6, scale=0.4), b.normal(1, 20, 5, scale=0.4)
    b.op("LSTM", b.last, *weights, hidden_size=5, count=2)
    hidden = b.nodes[-1].output[1]
    state = b.op("Transpose", hidden, perm=[1, 0, 2])
    squeezed = b.op("Squeeze", hidden, b.constant([0], np.int64))
    out = b.op("MatMul", squeezed, b.normal(5, 3))
    x = uniform(5, 4, 6)
    path = b.save(tmp_path / "m.onnx", out, state)
    snn = convert(path, dataset(x=x), timesteps=T).snn
    expected = {name: values[-1] for name, values in stepped(snn, {"x": x}, T).items()}
    assert_same(expected, Runner(snn).run(x, T).outputs, 1e-4)


@pytest.fixture(scope="module")
def snn(tmp_path_factory):
    path = STRUCTURES["residual"]().save(tmp_path_factory.mktemp("time") / "m.onnx")
    return convert(path, dataset(x=uniform(7, 3, 8, 8)), timesteps=T).snn


def test_a_step_goes_on_where_a_run_stopped(snn):
    x = uniform(7, 3, 8, 8)
    expected = stepped(snn, {"x": x}, T)[snn.outputs[0]]
    runner = Runner(snn)
    (found,) = runner.run(x, 3).outputs.values()
    np.testing.assert_allclose(found, expected[2], atol=1e-5)
    for step in (3, 4):
        (found,) = runner.step(x).values()
        np.testing.assert_allclose(found, expected[step], atol=1e-5)


def test_a_step_goes_on_where_a_generator_was_left(snn):
    x = uniform(7, 3, 8, 8)
    expected = stepped(snn, {"x": x}, T)[snn.outputs[0]]
    runner = Runner(snn, rates=True)
    generator = runner.steps(x, T)
    next(generator), next(generator)
    after_two = dict(runner.spikes)
    (found,) = runner.step(x).values()
    np.testing.assert_allclose(found, expected[2], atol=1e-5)
    other = Runner(snn, rates=True)
    assert other.run(x, 2).spikes.keys() == after_two.keys()
    for layer, counts in other.spikes.items():
        np.testing.assert_array_equal(counts, after_two[layer])


def test_a_small_budget_changes_nothing_but_the_tile(snn):
    x = uniform(7, 3, 8, 8)
    small, large = Runner(snn, memory=2**15, rates=True), Runner(snn, rates=True)
    first, second = small.run(x, T), large.run(x, T)
    assert small._size < 7
    assert_same(first.outputs, second.outputs, 1e-5)
    for layer, counts in first.spikes.items():
        np.testing.assert_array_equal(counts, second.spikes[layer])


def wide(path):
    """Two convolutions over many channels, which read spikes; all sums in them are exact.

    Their weights are whole 256ths, and thresholds powers of two.
    """
    b = Builder((3, 8, 8))
    for _ in range(3):
        b.conv(256)
        b.relu()
    b.head()
    snn = convert(b.save(path), dataset(x=uniform(4, 3, 8, 8)), timesteps=T).snn
    nodes = snn.model.graph.node
    weights = {name for node in nodes if node.op_type == "Conv" for name in node.input}
    thresholds = {node.input[1] for node in nodes if node.name in snn.spikes}
    for tensor in snn.model.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if tensor.name in weights:
            values = np.round(256 * values) / 256
        elif tensor.name in thresholds:
            values = 2 ** np.round(np.log2(values))
        tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    return snn


def test_many_channels_give_the_spikes_of_stepping_by_fewer_operations(tmp_path):
    snn, x = wide(tmp_path / "m.onnx"), uniform(5, 3, 8, 8)
    expected = stepped(snn, {"x": x}, T)[snn.outputs[0]]
    runner = Runner(snn)
    history = [o[snn.outputs[0]] for o in runner.steps(x, T)]
    assert folds(runner)
    batched = runner._backend._graph
    assert (True, 9) in batched._chunks
    assert winograd(batched._graph.copy(), 16).actions.total() == 2  # all but that of the image
    operators = [node.op for node in batched._graph.nodes]
    assert operators.count("UnitIntegrateAndFire") == len(snn.spikes) == 3
    np.testing.assert_array_equal(expected, history)


def test_runs_of_few_steps_have_other_products_and_go_on_with_the_same_states(tmp_path):
    snn, x = wide(tmp_path / "m.onnx"), uniform(1, 3, 8, 8)
    expected = stepped(snn, {"x": x}, T + 2)[snn.outputs[0]]
    runner = Runner(snn)
    runner.run(x, T)
    found = [runner.step(x)[snn.outputs[0]] for _ in range(2)]
    assert {least for _, least in runner._backend._graph._chunks} == {0, 3}
    np.testing.assert_array_equal(expected[T:], found)


def mixing(axis):
    """Batch statistics between two neurons."""
    b = Builder((4,))
    b.gemm(4)
    b.relu()
    b.op("Sub", b.last, b.op("ReduceMean", b.last, axes=[axis], keepdims=1))
    b.relu()
    b.gemm(3)
    return b


@pytest.mark.parametrize(("axis", "warnings"), [(0, 1), (1, 0)])
def test_a_graph_that_mixes_samples_is_stepped_with_one_warning(tmp_path, axis, warnings):
    x = uniform(6, 4)
    snn = convert(mixing(axis).save(tmp_path / "m.onnx"), dataset(x=x), timesteps=T).snn
    runner = Runner(snn)
    for _ in range(2):
        outputs = runner.run(x, T).outputs
    assert len(runner.warnings) == warnings
    expected = {name: values[-1] for name, values in stepped(snn, {"x": x}, T).items()}
    assert_same(expected, outputs, 1e-5)


@pytest.mark.parametrize("first", [np.zeros((6, 4), np.float32), np.ones((6, 4), np.float32)])
def test_samples_that_are_all_alike_do_not_hide_that_a_graph_mixes_them(tmp_path, first):
    b = Builder((4,))
    b.op("Div", "x", b.op("ReduceMax", "x", axes=[0], keepdims=1))
    b.gemm(4)
    b.relu()
    b.gemm(3)
    x = np.abs(uniform(6, 4))
    snn = convert(b.save(tmp_path / "m.onnx"), dataset(x=x), timesteps=T).snn
    runner = Runner(snn)
    runner.run(first, T)
    outputs = runner.run(x, T).outputs
    assert len(runner.warnings) == 1
    expected = {name: values[-1] for name, values in stepped(snn, {"x": x}, T).items()}
    assert_same(expected, outputs, 1e-5)


@pytest.mark.parametrize(("end", "warnings"), [(20, 1), (10**9, 0), (2**31 - 1, 0)])
def test_rows_that_are_cut_off_only_from_large_batches_are_found(tmp_path, end, warnings):
    """20 rows are all of them in any trial of few samples."""
    b = Builder((4,))
    b.gemm(4)
    b.relu()
    b.gemm(4)
    bounds = [b.constant([value], np.int64) for value in (0, end, 0)]
    b.op("Slice", b.last, *bounds)
    b.op("Sigmoid")
    x = uniform(20, 4)
    snn = convert(b.save(tmp_path / "m.onnx"), dataset(x=x[:4]), timesteps=T).snn
    runner = Runner(snn)
    outputs = runner.run(x, T).outputs
    assert len(runner.warnings) == warnings
    expected = {name: values[-1] for name, values in stepped(snn, {"x": x}, T).items()}
    assert_same(expected, outputs, 1e-5)


def chosen(b):
    """Rows that a condition takes: all of any number up to 64."""
    b.op("Compress", b.last, b.constant([True] * 64, bool), axis=0)


def chosen_of_all(b):
    """Values that a condition takes, of all samples together."""
    b.op("Compress", b.last, b.constant([True] * 256, bool))


def sliced_from_the_end(b):
    """The axis of the samples, counted from the last."""
    b.op("Slice", b.last, *(b.constant([v], np.int64) for v in (0, 64, -2)))


def up_to_a_computed_row(b):
    spikes, most = b.last, b.constant([64], np.int64)
    count = b.op("Shape", spikes, end=1)
    end = b.op("Where", b.op("Less", count, most), count, most)
    b.op("Slice", spikes, b.constant([0], np.int64), end, b.constant([0], np.int64))


@pytest.mark.parametrize("take", [chosen, chosen_of_all, sliced_from_the_end, up_to_a_computed_row])
def test_rows_that_are_cut_off_otherwise_are_found_too(tmp_path, take):
    b = Builder((6,))
    b.gemm(4)
    spikes = b.relu()
    scores = b.gemm(3)
    b.last = spikes
    take(b)
    x = uniform(8, 6)
    path = b.save(tmp_path / "m.onnx", scores, b.last)
    runner = Runner(convert(path, dataset(x=x), timesteps=4, correct=False).snn)
    runner.run(x)
    assert len(runner.warnings) == 1


def attention():
    """Queries, keys and values by one product, cut along an axis of their own in front."""
    b = Builder((5, 8))
    b.relu()
    b.op("MatMul", b.last, b.normal(8, 24))
    b.op("Reshape", b.last, b.constant([0, 0, 3, 8], np.int64))
    b.op("Transpose", perm=[2, 0, 1, 3])
    both = b.last
    q, k, v = (
        b.op("Squeeze", b.op("Slice", both, *bounds), b.constant([0], np.int64))
        for bounds in ([b.constant([e], np.int64) for e in (i, i + 1, 0)] for i in range(3))
    )
    scores = b.op("MatMul", q, b.op("Transpose", k, perm=[0, 2, 1]))
    b.op("MatMul", b.op("Softmax", scores, axis=-1), v)
    b.op("MatMul", b.last, b.normal(8, 4))
    return b


def test_queries_keys_and_values_are_no_rows_of_the_batch(tmp_path):
    b, x = attention(), uniform(6, 5, 8)
    snn = convert(b.save(tmp_path / "m.onnx"), dataset(x=x), timesteps=T).snn
    assert_same(stepped(snn, {"x": x}, T), folded(snn, x, T), 1e-4)


def test_sizes_that_are_computed_before_the_first_neuron_have_the_batch_of_all_steps(tmp_path):
    """A target from the shape of a static tensor, which shape inference cannot follow."""
    b, x = Builder((8,)), uniform(6, 8)
    b.op("LayerNormalization", "x", b.normal(8))
    bounds = (b.constant([value], np.int64) for value in (0, 1, 0))
    batch = b.op("Slice", b.op("Shape", b.last), *bounds)
    target = b.op("Concat", batch, b.constant([3, 8], np.int64), axis=0)
    b.op("MatMul", "t0", b.normal(8, 8))
    b.op("Reshape", b.relu(), b.constant([-1, 4], np.int64))
    b.op("MatMul", b.last, b.normal(4, 4))
    b.op("Reshape", b.last, b.constant([-1, 1, 8], np.int64))
    b.op("Mul", b.op("Expand", b.last, target), b.normal(1, 3, 1))
    b.op("MatMul", b.last, b.normal(8, 4))
    snn = convert(b.save(tmp_path / "m.onnx"), dataset(x=x), timesteps=T).snn
    assert "Expand" in {node.op_type for node in snn.model.graph.node}
    assert_same(stepped(snn, {"x": x}, T), folded(snn, x, T), 1e-4)


def test_whole_numbers_of_each_sample_are_no_sizes_whatever_is_added(tmp_path):
    """A channel for each sample, found before the first neuron, with the batch on the way."""
    b, x = Builder((8,)), uniform(6, 8)
    batch = b.op("Gather", b.op("Shape", "x"), b.constant(0, np.int64))
    channels = b.op("Add", b.op("ArgMax", "x", axis=1, keepdims=1), batch)
    channels = b.op("Sub", channels, batch)
    b.op("MatMul", "x", b.normal(8, 8))
    b.op("MatMul", b.relu(), b.normal(8, 8))
    b.op("GatherElements", b.last, channels, axis=1)
    snn = convert(b.save(tmp_path / "m.onnx"), dataset(x=x), timesteps=T).snn
    assert_same(stepped(snn, {"x": x}, T), folded(snn, x, T), 1e-4)


@pytest.mark.parametrize("every_step", [False, True])
def test_outputs_that_do_not_vary_fold_too(tmp_path, every_step):
    """What is computed of the input alone, of constants alone, and the input itself."""
    b = Builder((6,))
    features = b.op("Softmax", b.op("Mul", "x", b.constant(2.0)), axis=1)
    anchors = b.op("Mul", b.normal(5, 4), b.constant(2.0))
    given = b.op("Identity", "x")
    b.op("MatMul", features, b.normal(6, 4))
    b.relu()
    scores = b.gemm(3, inputs=4)
    path, x = b.save(tmp_path / "m.onnx", scores, features, anchors, given), uniform(7, 6)
    snn = convert(path, dataset(x=x), timesteps=T).snn
    runner = Runner(snn)
    result = runner.run(x, T, every_step=every_step)
    assert not runner.warnings
    expected = stepped(snn, {"x": x}, T)
    for step in range(T) if every_step else [T - 1]:
        found = result.every_step[step] if every_step else result.outputs
        assert_same({name: values[step] for name, values in expected.items()}, found, 1e-5)


def test_an_input_among_the_outputs_is_stepped(tmp_path):
    b, x = Builder((6,)), uniform(7, 6)
    b.gemm(4)
    b.relu()
    model, path = b.model(b.gemm(3)), tmp_path / "m.onnx"
    model.graph.output.append(model.graph.input[0])
    onnx.save(model, path)
    runner = Runner(convert(path, dataset(x=x), timesteps=T).snn)
    np.testing.assert_array_equal(runner.run(x, T).outputs["x"], x)
    assert len(runner.warnings) == 1


def test_an_output_without_axes_is_not_folded(tmp_path):
    b = Builder((4,))
    b.gemm(4)
    b.relu()
    b.gemm(3)
    b.op("ReduceMax", keepdims=0)
    x = uniform(6, 4)
    snn = convert(b.save(tmp_path / "m.onnx"), dataset(x=x), timesteps=T).snn
    backend = OnnxRuntimeBackend(snn.model, snn.states, snn.outputs)
    backend.tile({"x": x}, T)
    assert "a single number" in backend.warnings[0]


@pytest.mark.parametrize(("axis", "rounding"), [(1, True), (0, False)])
def test_spikes_that_fall_otherwise_by_rounding_do_not_keep_time_from_folding(
    tmp_path, monkeypatch, axis, rounding
):
    """As if a sum lay just at a threshold: the trial of the neurons that run fails."""
    x, trials = uniform(6, 4), []

    def trial(batched, stepping, states, feeds):
        trials.append(treats_samples_alone(batched, stepping, states, feeds))
        return len(trials) > 1 and trials[-1]

    monkeypatch.setattr(onnxruntime_backend, "treats_samples_alone", trial)
    snn = convert(mixing(axis).save(tmp_path / "m.onnx"), dataset(x=x), timesteps=T).snn
    runner = Runner(snn)
    outputs = runner.run(x, T).outputs
    assert len(trials) == 2
    assert folds(runner) == rounding == (not runner.warnings)
    expected = {name: values[-1] for name, values in stepped(snn, {"x": x}, T).items()}
    assert_same(expected, outputs, 1e-5)


def test_samples_mixed_before_the_first_neuron_are_found(tmp_path):
    b = Builder((4,))
    b.op("Sub", "x", b.op("ReduceMean", "x", axes=[0], keepdims=1))
    b.gemm(4)
    b.relu()
    b.gemm(3)
    x = uniform(40, 4)
    snn = convert(b.save(tmp_path / "m.onnx"), dataset(x=x), timesteps=T).snn
    runner = Runner(snn)
    outputs = runner.run(x, T).outputs
    assert len(runner.warnings) == 1
    expected = {name: values[-1] for name, values in stepped(snn, {"x": x}, T).items()}
    assert_same(expected, outputs, 1e-5)


@pytest.mark.parametrize("sizes", [(64, 64), ("height", "width")])
def test_memory_is_kept_to_where_sizes_are_open_too(tmp_path, sizes):
    b = Builder((3, *sizes))
    b.conv(16)
    b.relu()
    b.op("GlobalAveragePool")
    x = uniform(8, 3, 64, 64)
    snn = convert(b.save(tmp_path / "m.onnx"), dataset(x=x), timesteps=4).snn
    samples, steps = Runner(snn, memory=2**22)._tile({"x": x}, 16)
    assert samples * steps * 16 * 64 * 64 * 4 <= 2**22
