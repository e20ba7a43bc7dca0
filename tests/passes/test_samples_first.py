"""samples_first: every state has its samples in front, and the SNN gives what it gave."""

import numpy as np
import pytest

from onnxsnn import Runner, convert
from onnxsnn.neurons import RECTIFYING_NEURONS
from onnxsnn.session import Session
from tests.models import Builder, dataset, uniform
from tests.networks import sequence_first

T = 6


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return sequence_first().save(tmp_path_factory.mktemp("sequence") / "m.onnx")


@pytest.mark.parametrize("neuron", sorted(RECTIFYING_NEURONS))
@pytest.mark.parametrize("correct", [False, None])
def test_states_have_samples_in_front_and_time_is_folded(path, neuron, correct):
    x = uniform(20, 7, 8)
    kind = RECTIFYING_NEURONS[neuron]()
    snn = convert(path, dataset(x=x), timesteps=T, neuron=kind, correct=correct).snn
    states = {state.output for state in snn.states if state.role != "step"}
    results = [t for t in snn.model.graph.output if t.name in states]
    assert {t.type.tensor_type.shape.dim[0].dim_param for t in results} == {"N"}
    runner = Runner(snn)
    found = runner.run(x, T).outputs
    assert not runner.warnings
    for samples in (x[:1], x):  # alone, and as NumPy steps them
        expected = Runner(snn, backend="numpy").run(samples, T).outputs
        for name, values in expected.items():
            np.testing.assert_allclose(found[name][: len(samples)], values, atol=1e-5)


def test_more_steps_bring_it_nearer_to_the_ann(path):
    x = uniform(20, 7, 8)
    errors = []
    for steps in (4, 64):
        conversion = convert(path, dataset(x=x), timesteps=steps, correct=False)
        (found,) = Runner(conversion.snn).run(x, steps).outputs.values()
        (wanted,) = Session(sequence_first().model()).run({"x": x}).values()
        errors.append(np.linalg.norm(found - wanted) / np.linalg.norm(wanted))
    assert errors[1] < 0.05
    assert errors[1] < errors[0] / 4


def test_layers_of_every_sample_are_counted_by_sample(path):
    x = uniform(20, 7, 8)
    snn = convert(path, dataset(x=x), timesteps=T).snn
    spikes = Runner(snn, rates=True).run(x, T).spikes
    assert {len(counts) for counts in spikes.values()} == {len(x)}


def test_samples_in_front_already_are_left(tmp_path):
    b = Builder((7, 8))
    b.op("MatMul", b.last, b.normal(8, 8))
    b.relu()
    b.op("MatMul", b.last, b.normal(8, 3))
    conversion = convert(b.save(tmp_path / "m.onnx"), dataset(x=uniform(20, 7, 8)), timesteps=T)
    assert "Transpose" not in {node.op_type for node in conversion.snn.model.graph.node}


def test_time_is_folded_where_heads_join_the_samples_on_their_axis(tmp_path):
    b = Builder((7, 8))
    b.op("Transpose", perm=[1, 0, 2])
    b.op("MatMul", b.last, b.normal(8, 8))
    b.relu()
    b.op("MatMul", b.last, b.normal(8, 8))
    b.op(
        "Reshape", b.last, b.constant([7, -1, 4], np.int64)
    )  # as PyTorch's attention writes queries
    b.op("Transpose", perm=[1, 0, 2])
    b.op("Softmax", axis=-1)
    b.op("Reshape", b.last, b.constant([-1, 2, 7, 4], np.int64))
    b.op("MatMul", b.last, b.normal(4, 3))  # before it, neurons encode
    x = uniform(20, 7, 8)
    snn = convert(b.save(tmp_path / "m.onnx"), dataset(x=x), timesteps=T).snn
    runner = Runner(snn)
    (found,) = runner.run(x, T).outputs.values()
    assert not runner.warnings
    (stepped,) = Runner(snn, backend="numpy").run(x, T).outputs.values()
    np.testing.assert_allclose(found, stepped, atol=1e-5)
