"""Trained models that nobody here built: they convert unchanged, and stay accurate.

The files are not part of the repository; where they are missing, the tests skip.
"""

from pathlib import Path

import pytest

from onnxsnn import Preprocessing, convert, evaluate, load_source
from onnxsnn.data import load

SHARED = Path(__file__).parents[2] / "shared"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not SHARED.exists(), reason="the folder ../shared is not there"),
]


def points_below(source, calibration, test, timesteps):
    """How many points of accuracy the SNN is below its ANN after its T steps."""
    snn = convert(source, calibration, timesteps=timesteps).snn
    result = evaluate(snn, test, ann=source)
    return 100 * (result.ann_accuracy - result.rows[-1].accuracy)


@pytest.mark.parametrize(("timesteps", "allowed"), [(8, 0.5), (32, 0.1)])
def test_fashion_cnn(timesteps, allowed):
    source = load_source(SHARED / "models" / "fashion-cnn.onnx")
    folder, preprocessing = SHARED / "data" / "fashion-mnist", Preprocessing(scale=1 / 255)
    train, test = (
        load(folder / f"{part}-images-idx3-ubyte.gz", source.inputs, preprocessing=preprocessing)
        for part in ("train", "t10k")
    )
    assert points_below(source, train.slice(0, 256), test, timesteps) <= allowed


def test_mnist_cntk():
    """Opset 7, a fixed batch of one, weights as graph inputs."""
    source = load_source(SHARED / "models" / "mnist-cntk.onnx")
    digits = load(SHARED / "data" / "mnist10k.npz", source.inputs)
    assert points_below(source, digits.slice(9744, None), digits.slice(0, 9744), 8) <= 0.3
