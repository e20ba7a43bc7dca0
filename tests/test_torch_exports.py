"""Activations that were trained with a threshold, in the forms that PyTorch exports.

Each is exported by both of PyTorch's exporters, and brings its threshold and its initial
potential along. The tests skip where PyTorch is missing (`pip install onnxsnn[torch]`).
"""

import numpy as np
import onnx
import pytest

from onnxsnn import Runner, convert
from onnxsnn.session import Session

torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install onnxsnn[torch]")
pytestmark = pytest.mark.slow
THETA, LEVELS = 2.5, 8


class Trained(torch.nn.Module):
    """An activation with a trained threshold."""

    def __init__(self):
        super().__init__()
        self.theta = torch.nn.Parameter(torch.tensor(THETA))


class RateNorm(Trained):
    """Ding et al. 2021: theta is p times a running maximum, p the sigmoid of a parameter."""

    def __init__(self):
        super().__init__()
        self.k = torch.nn.Parameter(torch.tensor(0.0))
        self.register_buffer("maximum", torch.tensor(2 * THETA))

    def forward(self, x):
        theta = torch.sigmoid(self.k) * self.maximum
        return torch.clamp(x / theta, 0, 1) * theta


class MinimumOfRelu(Trained):
    def forward(self, x):
        return torch.minimum(torch.relu(x), self.theta)


class ClampByTensors(Trained):
    def forward(self, x):
        return torch.clamp(x, torch.zeros_like(self.theta), self.theta)


class Qcfs(Trained):
    """Bu et al. 2022, clipped and then rounded."""

    def forward(self, x):
        x = torch.clamp(x / self.theta, 0, 1)
        return (x * LEVELS + 0.5).floor() / LEVELS * self.theta


class QcfsRoundedFirst(Trained):
    def forward(self, x):
        levels = torch.floor(x * LEVELS / self.theta + 0.5)
        return self.theta / LEVELS * torch.clamp(levels, 0, LEVELS)


class StraightThrough(Trained):
    """Rounding whose gradient is the identity's."""

    def forward(self, x):
        x = torch.clamp(x / self.theta, 0, 1) * LEVELS
        return (x + (torch.round(x) - x).detach()) / LEVELS * self.theta


class Floored(Trained):
    def forward(self, x):
        return torch.floor(torch.clamp(x / self.theta, 0, 1) * LEVELS) / LEVELS * self.theta


ROUNDED = (Qcfs, QcfsRoundedFirst, StraightThrough, Floored)


class Network(torch.nn.Module):
    """A convolution, the activation, pooling and a linear read-out."""

    def __init__(self, activation):
        super().__init__()
        self.first, self.activation = torch.nn.Conv2d(1, 6, 3), activation
        self.last = torch.nn.Linear(6, 4)

    def forward(self, x):
        return self.last(self.activation(self.first(x) * 3).mean((2, 3)))


def exported(module, path, dynamo):
    """The network as ONNX, by one of the exporters."""
    torch.manual_seed(0)
    model, x = Network(module).eval(), torch.randn(8, 1, 8, 8)
    if dynamo:
        pytest.importorskip("onnxscript", reason="onnxscript, which the exporter needs, is missing")
        shapes = ({0: torch.export.Dim("N")},)
        torch.onnx.export(model, (x,), path, dynamo=True, dynamic_shapes=shapes, verbose=False)
    else:
        axes = {"x": {0: "N"}}
        torch.onnx.export(model, (x,), path, dynamo=False, input_names=["x"], dynamic_axes=axes)
    return x.numpy()


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
@pytest.mark.parametrize("dynamo", [False, True])
@pytest.mark.parametrize(
    ("activation", "potential"),
    [
        (RateNorm, 0.5), (MinimumOfRelu, 0.5), (ClampByTensors, 0.5), (Qcfs, 0.5),
        (QcfsRoundedFirst, 0.5), (StraightThrough, 0.5), (Floored, 0.0),
    ],
)  # fmt: skip
def test_trained_threshold_and_potential_come_along(activation, potential, dynamo, tmp_path):
    x = exported(activation(), tmp_path / "m.onnx", dynamo)
    snn = convert(tmp_path / "m.onnx", timesteps=LEVELS, threshold="trained").snn
    (layer,) = snn.layers
    assert (layer.origin, layer.neuron) == ("trained", "if")
    ratio = snn.potential(layer.name).default / snn.thresholds[layer.name]
    np.testing.assert_allclose(ratio, potential)
    assert_same_as_trained(snn, x, tmp_path / "m.onnx", rounded=activation in ROUNDED)


def assert_same_as_trained(snn, x, path, rounded):
    """A network of one rounded layer is the SNN itself at T = LEVELS; others come near."""
    model = onnx.load(path)
    ((name, values),) = Runner(snn).run(x, LEVELS).outputs.items()
    expected = Session(model).run({model.graph.input[0].name: x})[name]
    error = np.linalg.norm(values - expected) / np.linalg.norm(expected)
    assert error < (1e-4 if rounded else 0.05)
