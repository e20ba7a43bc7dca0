"""Laws that hold of any network, whatever it is made of."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from onnxsnn import Runner, convert, load_source
from tests.blocks import any_networks
from tests.export.forms import assert_equal, looped
from tests.models import dataset, outputs_of, uniform

X = uniform(32, 3, 12, 12)
FEW, MANY = 4, 64
ROUNDING = 1e-4  # of the greatest output
NEAR = 1e-3  # of the squares of all outputs: outputs of few steps may be as near by chance


def check(b, folder):
    """As T grows, outputs go to the ANN's; a loop, and single steps, give what a run gives."""
    source, x = load_source(b.save(folder / "m.onnx")), X[:4]
    wanted = outputs_of(b.model(), x=x)
    scale = np.abs(wanted[b.last]).max()
    errors = []
    for timesteps in (FEW, MANY):
        snn = convert(source, dataset(x=X), timesteps=timesteps).snn
        runner = Runner(snn)
        found = runner.run(x, timesteps).outputs
        errors.append(np.square(found[b.last] - wanted[b.last]).sum())
        if timesteps == FEW:
            assert_equal(looped(snn, x, timesteps), found, ROUNDING * scale)
            runner.reset()
            for _ in range(timesteps):
                stepped = runner.step(x)
            assert_equal(stepped, found, ROUNDING * scale)
    few, many = errors
    assert many <= max(0.3 * few, NEAR * np.square(wanted[b.last]).sum())


FOLDER_IS_OVERWRITTEN = [HealthCheck.function_scoped_fixture]


@settings(max_examples=8, suppress_health_check=FOLDER_IS_OVERWRITTEN)
@given(b=any_networks())
def test_laws_of_any_network(tmp_path, b):
    check(b, tmp_path)


@pytest.mark.slow
@settings(max_examples=200, suppress_health_check=FOLDER_IS_OVERWRITTEN)
@given(b=any_networks())
def test_laws_of_many_networks(tmp_path, b):
    check(b, tmp_path)
