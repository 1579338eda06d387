"""Networks that end in outputs which can saturate: the hash head, and the encoder that Hasher trains."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from fasthash._arguments import number, whole
from fasthash._moved import moved_names


class HashHead(nn.Module):
    """Linear layer, batch norm with a learnable scale, sigmoid: features [B, F] -> outputs [B, bits] in [0, 1].

    sigmoid=False leaves the sigmoid out: outputs are real numbers, as `fasthash.losses.published` takes them.

    The scale lets outputs saturate: behind a normalisation without one, |z - round z| stays near 0.3 whatever the
    losses ask for. It starts at `scale`; at 4 the sigmoid of a normal variable is mostly near 0 or 1. A backbone that
    is itself trained from scratch learns more from 1 (docs/method.md). The head fits any backbone:
    `nn.Sequential(backbone, HashHead(512, 64))`.

    torch.jit.script takes it for evaluation; what that makes raises in training.

    Raises ValueError for sizes below 1, a scale that is not positive, and a batch of one row in training.

    >>> HashHead(16, 8)(torch.randn(4, 16)).shape
    torch.Size([4, 8])
    """

    def __init__(self, features: int, bits: int, *, scale: float = 4.0, sigmoid: bool = True) -> None:
        super().__init__()
        features, bits = (whole(v, "HashHead", n, 1) for n, v in (("features", features), ("bits", bits)))
        scale = number(scale, "HashHead", "scale", above=0)
        self.linear = nn.Linear(features, bits, bias=False)  # the norm would take a bias away again
        self.norm = nn.BatchNorm1d(bits)
        nn.init.constant_(self.norm.weight, scale)
        self.sigmoid = sigmoid

    def forward(self, features: Tensor) -> Tensor:
        if self.training and len(features) < 2:
            raise ValueError(
                f"HashHead: a batch must have at least 2 rows in training, got {len(features)} "
                "(drop_last=True of a DataLoader leaves a short last batch out)"
            )
        # Under autocast the linear layer gives 16 bits; the norm and the outputs keep the precision of the weights.
        values = self.linear(features).to(self.linear.weight.dtype)
        outputs: Tensor = self.norm(values)
        if self.training:
            if torch.jit.is_scripting():  # type: ignore[attr-defined]
                raise RuntimeError("HashHead: a module from torch.jit.script is for evaluation: call eval() first")
            outputs = self._without_rounding(values, outputs)
        return outputs.sigmoid() if self.sigmoid else outputs

    def _without_rounding(self, values: Tensor, outputs: Tensor) -> Tensor:
        """The norm's outputs: a bit that a batch leaves constant is exactly the norm's bias, not its rounding errors.

        Those are equal in all rows, and losses that look at directions alone would take them for one. The gradient is
        that of the norm.
        """
        low, high = values.detach().aminmax(dim=0)
        rounding = torch.finfo(values.dtype).eps * torch.maximum(low.abs(), high.abs())
        errors = (outputs - self.norm.bias).detach()
        of_the_mean = max(8, len(values)) * rounding * self.norm.weight.detach().abs() * self.norm.eps**-0.5
        # Both, since with statistics over all ranks a bit can be constant in this rank's rows alone.
        constant = (high - low <= 8 * rounding) & (errors.abs().amax(0) <= of_the_mean)
        return torch.where(constant, outputs - errors, outputs)


class Squash(nn.Module):
    """(tanh u + 1) / 2, in [0, 1]: the sign of u as a bit, for outputs of `HashHead(sigmoid=False)`.

    >>> Squash()(torch.tensor([0.0]))
    tensor([0.5000])
    """

    def forward(self, u: Tensor) -> Tensor:
        return (2 * u).sigmoid()


class Standardize(nn.Module):
    """(x - mean) / deviation, float32, and 0 where that is beyond +-limit: a value absurdly far out tells nothing.

    mean and limit are [F]; limit None: there is none. deviation: one for all features, because features of embeddings
    are of one kind, and their directions are to stay what they are; or [F]. All are kept as buffers.

    >>> Standardize(2, torch.zeros(2), torch.tensor(2.0), torch.full((2,), 40.0))(torch.tensor([[1.0, 1e6]]))
    tensor([[0.5000, 0.0000]])
    """

    if TYPE_CHECKING:  # torch.jit.script reads annotations of a class, but none that are strings
        mean: Tensor
        deviation: Tensor
        limit: Tensor

    def __init__(
        self,
        features: int,
        mean: Tensor | None = None,
        deviation: Tensor | None = None,
        limit: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(features) if mean is None else mean)
        self.register_buffer("deviation", torch.ones(()) if deviation is None else deviation)
        self.register_buffer("limit", torch.full((features,), torch.inf) if limit is None else limit)

    def forward(self, x: Tensor) -> Tensor:
        standard = (x.to(self.mean.dtype) - self.mean) / self.deviation
        return standard.masked_fill(standard.abs() > self.limit, 0.0)  # NaN stays NaN


class Dropout(nn.Module):
    """nn.Dropout from uniform numbers, which torch draws in less than half the time of Bernoulli ones on a CPU.

    A layer of 512 outputs then takes half the time of nn.Dropout (a batch of 256, one thread, torch 2.13).

    >>> Dropout(0.5).eval()(torch.ones(2))
    tensor([1., 1.])
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.p == 0:
            return x
        return x * (torch.rand_like(x) >= self.p).to(x.dtype).mul_(1 / (1 - self.p))

    def extra_repr(self) -> str:
        return f"p={self.p}"


def encoder(
    features: int,
    bits: int,
    *,
    hidden: Sequence[int] = (512, 512),
    dropout: float = 0.15,
    mean: Tensor | None = None,
    deviation: Tensor | None = None,
    limit: Tensor | None = None,
    sigmoid: bool = True,
    scale: float | None = None,
) -> nn.Sequential:
    """The network that Hasher trains: standardised input, hidden layers (ReLU, dropout), hash head.

    x [B, features] -> z [B, bits] in [0, 1], float32. hidden=() leaves a linear encoder. `mean` [features],
    `deviation` (a scalar or [features]) and `limit` [features] are for the standardisation of the inputs (see
    `Standardize`); without them it changes nothing.
    sigmoid=False gives real-valued outputs, of deviation 1 at the start. Raises ValueError for sizes below 1.

    >>> encoder(384, 64, hidden=(128,))(torch.randn(4, 384)).shape
    torch.Size([4, 64])
    """
    widths = [whole(width, "encoder", "features and each width of hidden", 1) for width in (features, *hidden)]
    dropout = number(dropout, "encoder", "dropout", least=0, below=1)
    layers: list[nn.Module] = [Standardize(features, mean, deviation, limit)]
    for before, after in itertools.pairwise(widths):
        layers += [nn.Linear(before, after), nn.ReLU(), Dropout(dropout)]
    scale = (4.0 if sigmoid else 1.0) if scale is None else scale
    head = HashHead(widths[-1], bits, scale=scale, sigmoid=sigmoid)
    return nn.Sequential(*layers, head).float()  # whatever torch's default type is


def set_weights(module: nn.Sequential, weights: Tensor) -> None:
    """Gives the hash head of an `encoder` the directions `weights` [bits, features]; the norm scales their outputs.

    >>> module = encoder(3, 2, hidden=())
    >>> set_weights(module, torch.eye(2, 3))
    >>> module[-1].linear.weight.tolist()
    [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]
    """
    head = module[-1]
    if not isinstance(head, HashHead):
        raise TypeError(f"set_weights: the last layer must be a HashHead, got {type(head).__name__}")
    with torch.no_grad():
        head.linear.weight.copy_(weights)


def without_sigmoid(*layers: nn.Module) -> nn.Sequential:
    """The `encoder` of these layers, with the same weights, that ends before its sigmoid.

    >>> without_sigmoid(*encoder(3, 2))[-1].sigmoid
    False
    """
    head = copy.copy(layers[-1])
    if not isinstance(head, HashHead):
        raise TypeError(f"without_sigmoid: the last layer must be a HashHead, got {type(head).__name__}")
    head.sigmoid = False
    return nn.Sequential(*layers[:-1], head)


__getattr__ = moved_names(__name__)
