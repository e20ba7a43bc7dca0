"""run_dataset: all samples, batch by batch."""

import numpy as np
import pytest

from onnxsnn import Runner, convert
from onnxsnn.errors import DataError, UsageError
from onnxsnn.runtime.dataset import BATCH, batch_size, run_dataset
from tests.models import Builder, dataset, uniform
from tests.networks import residual_network

X = uniform(2 * BATCH + 7, 3, 8, 8)


@pytest.fixture(scope="module")
def snn(tmp_path_factory):
    path = residual_network().save(tmp_path_factory.mktemp("dataset") / "model.onnx")
    return convert(path, dataset(x=X[:20]), timesteps=4).snn


def test_batches_are_joined_in_order(snn):
    seen = []
    result = run_dataset(Runner(snn, rates=True), dataset(x=X), progress=lambda *a: seen.append(a))
    runner = Runner(snn, rates=True)
    whole = runner.run(X)
    (name,) = snn.outputs
    np.testing.assert_allclose(result.outputs[name], whole.outputs[name], atol=1e-5)
    assert result.rates == pytest.approx(whole.rates, rel=1e-3)
    total = sum(counts.sum() for counts in whole.spikes.values())
    assert result.spikes == pytest.approx(total / len(X), rel=1e-3)
    assert seen == [(BATCH, len(X)), (2 * BATCH, len(X)), (len(X), len(X))]


def test_states_are_counted_by_their_values(snn):
    states = 384 + 384 + 384 + 96 + 128 + 10 + 10 + 1  # potentials, sums, step
    assert snn.state_size({"x": X}) == states
    assert batch_size(snn, dataset(x=X)) == BATCH


@pytest.mark.parametrize("sizes", [(256, 256), ("height", "width")])
def test_fewer_samples_run_at_once_where_states_are_large(tmp_path, sizes):
    b = Builder((64, *sizes))
    b.relu()
    b.op("GlobalAveragePool")
    large = dataset(x=uniform(1, 64, 256, 256))
    assert batch_size(convert(b.save(tmp_path / "m.onnx"), large).snn, large) == 7


def test_every_step_is_stacked_before_the_samples(snn):
    result = run_dataset(Runner(snn, rates=True), dataset(x=X), 3, every_step=True)
    (values,) = result.outputs.values()
    assert values.shape == (3, len(X), 4)
    assert result.timesteps == 3


def test_timesteps_of_zero_are_refused(snn):
    with pytest.raises(UsageError, match="1 or more"):
        run_dataset(Runner(snn, rates=True), dataset(x=X), 0)


@pytest.mark.parametrize("every_step", [False, True])
def test_outputs_whose_first_axis_is_not_the_sample_are_kept_whole(tmp_path, every_step):
    """Tokens of all samples along one axis."""
    b = Builder((5, 8))
    b.op("Reshape", "x", b.constant([-1, 8], np.int64))
    b.gemm(8, inputs=8)
    b.relu()
    b.gemm(3, inputs=8)
    snn = convert(b.save(tmp_path / "m.onnx"), dataset(x=uniform(20, 5, 8)), timesteps=2).snn
    result = run_dataset(
        Runner(snn, rates=True), dataset(x=uniform(BATCH + 3, 5, 8)), every_step=every_step
    )
    (values,) = result.outputs.values()
    assert values.shape == (2,) * every_step + (5 * (BATCH + 3), 3)
    (rate,) = result.rates.values()
    assert 0 < rate < 1
    assert result.spikes == pytest.approx(rate * 2 * 5 * 8)  # steps, tokens, neurons of each


def test_a_fixed_batch_runs_whole(tmp_path):
    """Nodes of a graph, each of which reads its neighbours, more than run at once else."""
    nodes = BATCH + 10
    b = Builder((4,), batch=nodes)
    b.op("MatMul", b.constant(np.abs(b.random.normal(size=(nodes, nodes))) / nodes), b.last)
    b.gemm(6, inputs=4)
    b.relu()
    b.gemm(3)
    x = uniform(2 * nodes, 4)
    snn = convert(b.save(tmp_path / "m.onnx"), dataset(x=x), timesteps=4).snn
    assert snn.batch == nodes
    assert batch_size(snn, dataset(x=x)) == nodes
    found = run_dataset(Runner(snn, rates=True), dataset(x=x)).outputs
    for name, values in Runner(snn).run(x).outputs.items():
        np.testing.assert_allclose(found[name], values, atol=1e-5)


@pytest.mark.parametrize("every_step", [False, True])
def test_samples_on_another_axis_are_joined_there(tmp_path, every_step):
    b = Builder((5, 4))
    b.op("MatMul", b.last, b.normal(4, 6))
    b.relu()
    b.op("MatMul", b.last, b.normal(6, 3))
    b.op("Transpose", perm=[1, 0, 2])
    x = uniform(2 * BATCH + 7, 5, 4)
    snn = convert(b.save(tmp_path / "m.onnx"), dataset(x=x[:20]), timesteps=3).snn
    (values,) = run_dataset(
        Runner(snn, rates=True), dataset(x=x), every_step=every_step
    ).outputs.values()
    (expected,) = Runner(snn).run(x).outputs.values()
    assert values.shape == (3,) * every_step + (5, len(x), 3)
    np.testing.assert_allclose(values[-1] if every_step else values, expected, atol=1e-5)


def test_outputs_of_a_size_that_values_decide_take_one_batch(tmp_path):
    b = Builder((4,))
    scores = b.gemm(6)
    b.op("NonZero", b.op("Cast", b.op("Greater", scores, b.constant(0.3)), to=7))
    found = b.last
    b.op("Relu", scores)
    rates = b.gemm(3, inputs=6)
    x = uniform(BATCH + 3, 4)
    snn = convert(b.save(tmp_path / "m.onnx", rates, found), dataset(x=x), timesteps=2).snn
    assert found in run_dataset(Runner(snn, rates=True), dataset(x=x[:5])).outputs
    with pytest.raises(DataError, match="another number of values for every batch"):
        run_dataset(Runner(snn, rates=True), dataset(x=x))


def test_an_output_that_is_one_number_takes_one_batch(tmp_path):
    b = Builder((4,))
    b.gemm(3)
    b.relu()
    b.op("ReduceMean", keepdims=0)
    snn = convert(b.save(tmp_path / "m.onnx"), dataset(x=uniform(20, 4)), timesteps=2).snn
    (value,) = run_dataset(Runner(snn, rates=True), dataset(x=uniform(3, 4))).outputs.values()
    assert value.shape == ()
    with pytest.raises(DataError, match="one number for a whole batch"):
        run_dataset(Runner(snn, rates=True), dataset(x=uniform(BATCH + 3, 4)))
