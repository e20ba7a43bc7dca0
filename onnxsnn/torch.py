"""Rate Norm Layers for PyTorch, and the loss that makes them fast: training for spikes.

    RateNorm(z) = theta r,   r = clip(z / theta, 0, 1),   theta = sigmoid(k) max z

Ding et al., IJCAI 2021, section 3. The factor theta gives back the activation, so
that the weights of a ReLU network still fit. Two stages: weights are trained as ever with p =
sigmoid(k) near 1; then weights are frozen, and k alone is trained by the rate inference loss.
The exported network is converted with threshold="trained". PyTorch is an extra.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

from onnxsnn.errors import UsageError

try:
    import torch
    from torch import Tensor, nn
    from torch.nn import functional
except ImportError as error:
    raise UsageError(
        "onnxsnn.torch needs PyTorch; install it with: pip install 'onnxsnn[torch]'"
    ) from error

__all__ = ["RateNorm", "omega", "rate_inference_loss", "rate_norms", "replace_relu"]

_INITIAL_K = 4.0  # p = 0.982: near 1, and k still has a gradient
_MOMENTUM = 0.1
_SMALLEST = 1e-6  # keeps a layer that is silent from dividing by 0

AnyModule = TypeVar("AnyModule", bound=nn.Module)


class RateNorm(nn.Module):
    """min(relu(z), theta), which is theta clip(z / theta, 0, 1), with a threshold that is trained.

    Attributes:
        k: p = sigmoid(k), a trainable scalar; p is the threshold's share of the maximum.
        maximum: the running maximum of z over batches in training mode, a scalar. The first
            batch sets it; until then it is infinite, and the layer is ReLU.
        rates: r of the last call, of z's shape, in 0..1, with its graph; empty before it.
            Calls under torch.compile and torch.export leave it as it is.
    """

    maximum: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.k = nn.Parameter(torch.tensor(_INITIAL_K))
        self.register_buffer("maximum", torch.tensor(torch.inf))
        self.rates = torch.empty(0)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"rates": torch.empty(0)}  # deepcopy refuses what has a graph

    @property
    def threshold(self) -> Tensor:
        """theta, a scalar."""
        return torch.sigmoid(self.k) * self.maximum

    def forward(self, z: Tensor) -> Tensor:
        if self.training:
            self._follow(z.detach().max().clamp_min(_SMALLEST))
        threshold = self.threshold
        activation = torch.minimum(functional.relu(z), threshold)
        if not torch.compiler.is_compiling():  # torch.export refuses attributes that change
            self.rates = activation / threshold
        return activation

    def _follow(self, peak: Tensor) -> None:
        """Move the running maximum towards a batch's."""
        moved = self.maximum.lerp(peak, _MOMENTUM)
        self.maximum = torch.where(self.maximum.isinf(), peak, moved)


def rate_norms(model: nn.Module) -> list[RateNorm]:
    """The Rate Norm Layers of a model, in the order of its modules."""
    return [module for module in model.modules() if isinstance(module, RateNorm)]


def replace_relu(model: AnyModule) -> AnyModule:
    """Put a RateNorm in the place of every nn.ReLU and nn.ReLU6, and return the same model.

    A ReLU that stands in several places of the model becomes one RateNorm for each place. One
    that a forward method calls several times stands in one place: its calls share a threshold,
    unless the model is written with one module for each. Call it before the optimizer is built
    and before the model is moved to a device.

    Raises:
        UsageError: the model holds neither.
    """
    places = [
        (path.rpartition("."), module.training)
        for path, module in model.named_modules(remove_duplicate=False)
        if path and isinstance(module, nn.ReLU | nn.ReLU6)
    ]
    if not places:
        raise UsageError(
            "there is no nn.ReLU or nn.ReLU6 to replace; torch.nn.functional.relu cannot be "
            "seen from outside: write it as a module"
        )
    for (parent, _, name), training in places:
        setattr(model.get_submodule(parent), name, RateNorm().train(training))
    return model


def omega(rates: Tensor) -> Tensor:
    """||r||_1 / ||r||_2^2 of rates of any shape, a scalar (Ding et al., theorem 2).

    2 Omega / T bounds the fit curve after T timesteps: a small Omega is fast. Silent rates
    give 0.
    """
    return rates.abs().sum() / rates.square().sum().clamp_min(_SMALLEST)


def rate_inference_loss(
    expected: Tensor, outputs: Tensor, rates: Sequence[Tensor], weight: float = 0.1
) -> Tensor:
    """1 - cosine(expected, outputs) + weight * mean Omega (Ding et al., section 3), a scalar.

    Args:
        expected: what the trained network gives, [N, ...].
        outputs: what the network gives whose k's are trained, [N, ...].
        rates: of its Rate Norm Layers, any shapes; the output layer is taken in as
            relu(outputs) / max(outputs).
        weight: lambda, what a small Omega is worth against outputs that agree.
    """
    wanted, found = (values.reshape(len(values), -1) for values in (expected, outputs))
    cosines = functional.cosine_similarity(wanted, found)  # [N]
    output_rates = functional.relu(outputs) / outputs.max().clamp_min(_SMALLEST)
    omegas = torch.stack([omega(layer) for layer in (*rates, output_rates)])
    return 1 - cosines.mean() + weight * omegas.mean()
