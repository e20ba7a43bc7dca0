"""Both ONNX exports, of all timesteps and of one, give what the Runner gives."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxsnn import Runner, convert
from onnxsnn.neurons import RECTIFYING_NEURONS
from tests.export.forms import assert_equal, looped, stepped
from tests.models import dataset, uniform
from tests.networks import STRUCTURES, eighths, integer_networks


@pytest.mark.parametrize("form", [looped, stepped])
@given(
    b=integer_networks(),
    neuron=st.sampled_from([*RECTIFYING_NEURONS.values()]),
    timesteps=st.integers(1, 9),
    samples=st.integers(1, 3),
    delay=st.integers(0, 3),
)
def test_outputs_are_the_runner_s_to_the_last_bit(
    tmp_path_factory, form, b, neuron, timesteps, samples, delay
):
    path = b.save(tmp_path_factory.mktemp("forms") / "m.onnx")
    snn = convert(path, threshold="trained", timesteps=4, neuron=neuron(), delay=delay).snn
    x = eighths(samples, 2, 6, 6, seed=timesteps)
    assert_equal(form(snn, x, timesteps), Runner(snn).run(x, timesteps).outputs)


@pytest.mark.parametrize("form", [looped, stepped])
@pytest.mark.parametrize("structure", STRUCTURES)
def test_every_structure_runs(form, structure, tmp_path):
    """Compensated operators, encoders, joins and read-outs among them."""
    b = STRUCTURES[structure]()
    sizes = [d.dim_value for d in b.inputs[0].type.tensor_type.shape.dim[1:]]
    x = uniform(3, *sizes)
    snn = convert(b.save(tmp_path / "m.onnx"), dataset(x=x), timesteps=4).snn
    for timesteps in (1, 5):
        assert_equal(form(snn, x, timesteps), Runner(snn).run(x, timesteps).outputs, 1e-4)
