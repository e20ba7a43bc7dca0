"""Rate Norm Layers in PyTorch: their values, their training, and that their thresholds arrive.

The tests skip where PyTorch is missing (`pip install onnxsnn[torch]`).
"""

import subprocess
import sys
from copy import deepcopy

import numpy as np
import pytest

from onnxsnn import convert
from onnxsnn.errors import UsageError

torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install onnxsnn[torch]")
from onnxsnn.torch import RateNorm, omega, rate_inference_loss, rate_norms, replace_relu  # noqa: E402

pytestmark = pytest.mark.slow
nn = torch.nn


def rate_norm(k, maximum):
    """A layer in inference mode, with p = sigmoid(k)."""
    layer = RateNorm().eval()
    layer.load_state_dict({"k": torch.tensor(k), "maximum": torch.tensor(maximum)})
    return layer


def test_values_rates_and_threshold_are_the_formula():
    layer, z = rate_norm(0.5, 3.0), np.linspace(-2, 4, 25, dtype=np.float32)
    theta = 3.0 / (1 + np.exp(-0.5))
    values = layer(torch.tensor(z)).detach().numpy()
    rates = np.clip(z / theta, 0, 1)
    np.testing.assert_allclose(layer.threshold.item(), theta, rtol=1e-6)
    np.testing.assert_allclose(layer.rates.detach().numpy(), rates, rtol=1e-6)
    np.testing.assert_allclose(values, theta * rates, rtol=1e-6)


def test_first_batch_sets_the_maximum_and_later_ones_move_it_by_a_tenth():
    layer = RateNorm()
    layer(torch.tensor([1.0, -5.0, 2.0]))
    assert layer.maximum.item() == 2.0
    layer(torch.tensor([4.0]))
    np.testing.assert_allclose(layer.maximum.item(), 2.2, rtol=1e-6)
    layer.eval()(torch.tensor([100.0]))
    np.testing.assert_allclose(layer.maximum.item(), 2.2, rtol=1e-6)


def test_layer_that_saw_no_batch_is_relu():
    z = torch.randn(100)
    assert torch.equal(RateNorm().eval()(z), torch.relu(z))


def test_layer_that_is_never_positive_is_finite():
    layer = RateNorm()
    assert torch.equal(layer(torch.tensor([-1.0, 0.0])), torch.zeros(2))
    assert omega(layer.rates).item() == 0


def test_gradients_reach_k_through_values_and_through_rates():
    layer, z = rate_norm(0.0, 2.0), torch.tensor([0.5, 3.0])  # theta 1, d theta / d k = 1/2
    layer(z).sum().backward()
    np.testing.assert_allclose(layer.k.grad.item(), 0.5)  # the clipped one gives theta
    layer.k.grad = None
    layer(z)
    layer.rates.sum().backward()
    np.testing.assert_allclose(layer.k.grad.item(), -0.25)  # of 0.5 / theta


def test_trained_model_can_be_copied():
    model = nn.Sequential(nn.Linear(3, 3), RateNorm())
    model(torch.randn(2, 3))
    assert deepcopy(model)[1].threshold == model[1].threshold


def test_every_relu_is_replaced_by_its_own():
    shared = nn.ReLU()
    block = nn.Sequential(nn.Linear(2, 2), nn.ReLU6())
    model = nn.Sequential(shared, block, shared, nn.Sigmoid()).eval()
    assert replace_relu(model) is model
    kinds = (RateNorm, nn.Sequential, RateNorm, nn.Sigmoid)
    assert tuple(type(module) for module in model) == kinds
    assert len(rate_norms(model)) == 3
    assert not any(layer.training for layer in rate_norms(model))


@pytest.mark.parametrize("model", [nn.Linear(2, 2), nn.ReLU()])
def test_model_without_a_relu_inside_is_refused(model):
    with pytest.raises(UsageError, match=r"functional\.relu"):
        replace_relu(model)


def test_loss_of_equal_outputs_is_the_weighted_omega():
    outputs, rates = torch.tensor([[4.0, 0.0, -1.0], [2.0, 0.0, 0.0]]), torch.full((8,), 0.25)
    loss = rate_inference_loss(outputs, outputs, [rates], weight=0.5)
    mean = (4.0 + 1.5 / 1.25) / 2  # of the layer's and of the output layer's: rates 1 and 1/2
    np.testing.assert_allclose(loss.item(), 0.5 * mean, rtol=1e-6)


def test_loss_takes_outputs_that_are_one_number_for_each_sample():
    outputs = torch.tensor([2.0, 1.0])
    one, column = (rate_inference_loss(o, o, [torch.ones(3)]) for o in (outputs, outputs[:, None]))
    assert one.item() == column.item()


def test_loss_of_orthogonal_outputs_is_greater_by_one():
    expected, outputs, rates = torch.eye(2)[:1], torch.eye(2)[1:], torch.ones(1)
    loss = rate_inference_loss(expected, outputs, [rates], weight=0.1)
    np.testing.assert_allclose(loss.item(), 1.1, rtol=1e-6)


def test_rate_inference_loss_lowers_omega():
    torch.manual_seed(0)
    model, x = trained(), torch.randn(64, 1, 8, 8)
    before, after = (omegas(model, x) for model in (deepcopy(model), lowered(model, x)))
    assert after < before


def trained():
    """A small network, after a few steps of training, in inference mode."""
    model = replace_relu(
        nn.Sequential(
            nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.AvgPool2d(2),
            nn.Conv2d(6, 8, 3), nn.ReLU6(), nn.Flatten(), nn.Linear(8, 4),
        )
    )  # fmt: skip
    x, labels = torch.randn(32, 1, 8, 8), torch.arange(32) % 4
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(5):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), labels).backward()
        optimizer.step()
    return model.eval()


def omegas(model, x):
    """The mean Omega of a network's Rate Norm Layers."""
    model(x)
    return float(np.mean([omega(layer.rates).item() for layer in rate_norms(model)]))


def lowered(model, x):
    """The network after stage two."""
    expected = model(x).detach()
    optimizer = torch.optim.Adam([layer.k for layer in rate_norms(model)], lr=0.1)
    for _ in range(20):
        optimizer.zero_grad()
        outputs = model(x)
        rates = [layer.rates for layer in rate_norms(model)]
        rate_inference_loss(expected, outputs, rates).backward()
        optimizer.step()
    return model


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
@pytest.mark.parametrize("dynamo", [False, True])
def test_thresholds_arrive_in_the_snn(dynamo, tmp_path):
    if dynamo:
        pytest.importorskip("onnxscript", reason="onnxscript, which the exporter needs, is missing")
    torch.manual_seed(0)
    model, x, path = trained(), torch.randn(4, 1, 8, 8), tmp_path / "m.onnx"
    shapes = {"dynamic_shapes": ({0: torch.export.Dim("N")},)}
    axes = {"input_names": ["x"], "dynamic_axes": {"x": {0: "N"}}}
    torch.onnx.export(model, (x,), path, dynamo=dynamo, **(shapes if dynamo else axes))
    snn = convert(path, timesteps=8, threshold="trained").snn
    assert [layer.origin for layer in snn.layers] == ["trained", "trained"]
    for layer, module in zip(snn.layers, rate_norms(model), strict=True):
        np.testing.assert_allclose(
            np.unique(snn.thresholds[layer.name]), module.threshold.item(), rtol=1e-6
        )


def test_import_without_pytorch_names_the_extra():
    hidden = "import sys; sys.modules['torch'] = None; import onnxsnn.torch"
    done = subprocess.run([sys.executable, "-c", hidden], capture_output=True, text=True)
    assert done.stderr.strip().endswith("pip install 'onnxsnn[torch]'")
