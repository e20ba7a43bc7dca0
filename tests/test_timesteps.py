"""timesteps: the smallest T that meets a target, found by doubling and halving."""

import numpy as np
import pytest

from onnxsnn import convert, evaluate, load_source
from onnxsnn.errors import UsageError
from onnxsnn.timesteps import LIMIT, fewest_timesteps
from tests.models import Builder, dataset, uniform
from tests.networks import STRUCTURES, residual_network

X = uniform(48, 3, 8, 8)


def search(source, data, **targets):
    """The T that is found, None where it does not do, and those that were tried."""
    tried = []

    def conversion_for(timesteps):
        tried.append(timesteps)
        return convert(source, data, timesteps=timesteps)

    found = fewest_timesteps(source, data, conversion_for, **targets)
    assert found.conversion.snn.timesteps in tried
    return found.conversion.snn.timesteps if found.is_enough else None, tried


@pytest.mark.parametrize("agreement", [0.8, 0.95])
def test_target_is_met_at_the_number_found_and_not_one_below(tmp_path, agreement):
    source = load_source(residual_network().save(tmp_path / "m.onnx"))
    found, tried = search(source, dataset(x=X), agreement=agreement)
    assert tried[:2] == [1, 2]
    rows = {
        T: evaluate(convert(source, dataset(x=X), timesteps=T).snn, dataset(x=X), ann=source,
                    timesteps=T).rows[-1]
        for T in (found - 1, found)
    }  # fmt: skip
    assert rows[found].agreement >= agreement > rows[found - 1].agreement


def test_every_sample_may_be_asked_for(tmp_path):
    source = load_source(residual_network().save(tmp_path / "m.onnx"))
    assert search(source, dataset(x=X[:4]), agreement=1.0)[0] is not None


def test_outputs_without_classes_have_an_error(tmp_path):
    source = load_source(STRUCTURES["unet"]().save(tmp_path / "m.onnx"))
    loose, tight = (search(source, dataset(x=X[:8]), error=e)[0] for e in (0.3, 0.03))
    assert 1 < loose < tight


def test_target_that_is_out_of_reach_gives_none(tmp_path):
    b = Builder((3, 4, 4))
    b.conv(4)
    b.relu()
    source = load_source(b.save(tmp_path / "m.onnx"))
    found, tried = search(source, dataset(x=uniform(2, 3, 4, 4)), error=1e-6)
    assert found is None
    assert tried == [2**i for i in range(9)]
    assert tried[-1] == LIMIT


@pytest.mark.parametrize("target", [{"agreement": 1.5}, {"error": 0.0}])
def test_targets_are_shares(tmp_path, target):
    source = load_source(residual_network().save(tmp_path / "m.onnx"))
    with pytest.raises(UsageError, match="shares"):
        search(source, dataset(x=np.zeros((1, 3, 8, 8), np.float32)), **target)
