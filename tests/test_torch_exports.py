"""What PyTorch's two exporters make of networks.

Activations that were trained with a threshold bring it and their initial potential along, and
networks whose sizes are computed at run time are run many timesteps at once. The tests skip where
PyTorch is missing (`pip install onnxsnn[torch]`).
"""

import numpy as np
import onnx
import pytest

from onnxsnn import Dataset, Runner, convert, load_source
from onnxsnn.session import Session
from tests.models import assert_same

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


class Attention(torch.nn.Module):
    """A token before the patches, and as many heads as go in, as transformers has them."""

    def __init__(self):
        super().__init__()
        self.patches = torch.nn.Conv2d(1, 16, 2, 2)
        self.token = torch.nn.Parameter(torch.randn(1, 1, 16))
        self.before, self.behind = torch.nn.LayerNorm(16), torch.nn.LayerNorm(16)
        self.parts = torch.nn.ModuleList(torch.nn.Linear(16, 16) for _ in range(3))
        self.last = torch.nn.Linear(16, 4)

    def forward(self, x):
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = self.before(torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1))
        for _ in range(2):
            heads = (*x.shape[:-1], -1, 4)
            parts = (part(x).view(heads).transpose(1, 2) for part in self.parts)
            y = torch.nn.functional.scaled_dot_product_attention(*parts).transpose(1, 2)
            x = self.behind(x + y.reshape(*x.shape[:-1], -1).contiguous())
        return self.last(x[:, 0])


class ChannelsLast(torch.nn.Module):
    """A ConvNeXt's block and head: the mean is one of a tensor whose channels lie last."""

    def __init__(self):
        super().__init__()
        self.stem, self.wide = torch.nn.Conv2d(1, 8, 2, 2), torch.nn.Conv2d(8, 8, 3, padding=1)
        self.norm, self.head = torch.nn.LayerNorm(8), torch.nn.LayerNorm(8)
        self.up, self.down = torch.nn.Linear(8, 16), torch.nn.Linear(16, 8)
        self.last = torch.nn.Linear(8, 4)

    def forward(self, x):
        x = self.stem(x)
        y = self.norm(self.wide(x).permute(0, 2, 3, 1))
        y = self.down(torch.nn.functional.gelu(self.up(y)))
        x = (y.permute(0, 3, 1, 2) + x).mean((2, 3), keepdim=True)
        x = self.head(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return self.last(x.flatten(1))


class Transformer(torch.nn.Module):
    """torch.nn's own encoder over the rows; inside, attention has the sequence in front."""

    def __init__(self, batch_first=True):
        super().__init__()
        layer = torch.nn.TransformerEncoderLayer(16, 4, 32, batch_first=batch_first)
        self.encoder = torch.nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.first, self.last = torch.nn.Linear(8, 16), torch.nn.Linear(16, 4)
        self.batch_first = batch_first

    def forward(self, x):
        x = self.first(x.flatten(1, 2))
        x = self.encoder(x) if self.batch_first else self.encoder(x.transpose(0, 1)).transpose(0, 1)
        return self.last(x.mean(1))


def sequence_first():
    return Transformer(batch_first=False)


def exported(network, path, dynamo, batch="N"):
    """The network as ONNX, by one of the exporters, told of the batch or not; and samples."""
    torch.manual_seed(0)
    model, x = network().eval(), torch.randn(8, 1, 8, 8)
    example = x if batch == "N" else x[:1]
    if dynamo:
        pytest.importorskip("onnxscript", reason="onnxscript, which the exporter needs, is missing")
        shapes = ({0: torch.export.Dim("N")},) if batch == "N" else None
        options = {"dynamo": True, "dynamic_shapes": shapes, "verbose": False}
    else:
        axes = {"x": {0: "N"}} if batch == "N" else None
        options = {"dynamo": False, "input_names": ["x"], "dynamic_axes": axes}
    torch.onnx.export(model, (example,), path, **options)
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
    x = exported(lambda: Network(activation()), tmp_path / "m.onnx", dynamo)
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


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
@pytest.mark.parametrize("dynamo", [False, True])
@pytest.mark.parametrize("network", [Attention, ChannelsLast, Transformer, sequence_first])
@pytest.mark.parametrize("batch", ["N", 1])
def test_timesteps_are_run_many_at_once(network, dynamo, batch, tmp_path):
    """Of many samples at once, whether the exporter was told that there may be many, or not."""
    x = exported(network, tmp_path / "m.onnx", dynamo, batch)
    source = load_source(tmp_path / "m.onnx")
    (spec,) = source.inputs
    snn = convert(source, Dataset({spec.name: x}), timesteps=6).snn
    folded, stepped = Runner(snn), Runner(snn)
    for _ in range(6):
        expected = stepped.step(x)
    assert_same(expected, folded.run(x, 6).outputs, 1e-3)
    assert not folded.warnings
