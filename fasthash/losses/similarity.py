"""The similarity loss: distances between outputs in proportion to semantic distances."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from fasthash import _ops  # noqa: F401  (registers the ops)
from fasthash._arguments import number
from fasthash._arrays import dtype_name

Weight: TypeAlias = Tensor | Callable[[Tensor], Tensor] | None


def default_weight(relative: Tensor) -> Tensor:
    """(0.1 / (0.1 + d / tau_y))^2: close pairs are few, and flat weights drown them."""
    if not isinstance(relative, Tensor):
        raise TypeError(f"default_weight: relative must be a tensor, got {type(relative).__name__}")
    return (0.1 / (0.1 + relative)).square()


def similarity_loss(
    z: Tensor,
    distance: Tensor,
    *,
    weight: Weight = None,
    tau_z: float | Literal["batch"] | None = None,
    tau_y: float | Tensor | None = None,
) -> Tensor:
    """Weighted mean over pairs b != b' of | |z_b - z_b'|_1 / tau_z - d_bb' / tau_y |.

    Source: Arponen & Bishop 2020, the similarity term L_sim; the weight's form and the choice of tau_z are this
    package's.

    Args:
        z: outputs [B, D], floating point, B >= 2.
        distance: semantic distances [B, B], >= 0; the diagonal is ignored.
        weight: pair weights [B, B] (the diagonal is ignored), or a callable that makes them from d / tau_y [B, B];
            None: `default_weight`.
        tau_z: scale of the outputs' distances; None: D / 2, the mean distance of balanced bits; "batch": the batch's
            mean, with its gradient; if all rows are equal their distances stay 0.
        tau_y: scale of the semantic distances, a number or a scalar tensor; None: their mean over the batch's pairs. If
            it is 0 their term is 0.

    Returns:
        Scalar, float32 (float64 for float64 z). Deterministic; no [B, B, D] intermediate (second derivatives and
        forward mode have one). A row with a NaN or an infinity makes the loss NaN or infinite, and the other rows'
        gradients stay finite (but not with tau_z="batch").

    Raises:
        ValueError, TypeError: an argument outside these limits.

    Equivalent to, with default taus and no weights:

        dz = torch.cdist(z, z, p=1) / (D / 2)
        off = ~torch.eye(B, dtype=torch.bool)
        (dz - distance / distance[off].mean())[off].abs().mean()

    >>> import torch
    >>> z = torch.tensor([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0]])
    >>> similarity_loss(z, torch.cdist(z, z, p=1), tau_y=1.0).item()  # proportional: D / 2 = 1
    0.0
    """
    points, semantic = check_pairs("similarity_loss", z, distance)
    rows, bits = points.shape
    pairs = rows * (rows - 1)
    diagonal = torch.eye(rows, dtype=torch.bool, device=points.device)
    semantic = semantic.masked_fill(diagonal, 0.0)
    scale_y = semantic.sum() / pairs if tau_y is None else _scale("tau_y", tau_y, semantic, least=0)
    # Where tau_y is 0 the semantic distances drop out; the inner where keeps the division finite.
    relative = torch.where(scale_y == 0, torch.zeros_like(semantic), semantic / torch.where(scale_y == 0, 1.0, scale_y))
    weights = _pair_weights(weight, relative).masked_fill(diagonal, 0.0)
    distances: Tensor = torch.ops.fasthash.pairwise_l1(points)
    if tau_z is None:
        scale_z = semantic.new_tensor(bits / 2)
    elif isinstance(tau_z, str) and tau_z == "batch":
        mean = distances.sum() / pairs
        limits = torch.finfo(mean.dtype)
        # Where all rows are equal there is no scale, and distances of 0 need none.
        scale_z = torch.where(mean < limits.tiny / limits.eps, 1.0, mean)
    elif isinstance(tau_z, str):
        raise ValueError(f'similarity_loss: tau_z must be a number, "batch" or None, got {tau_z!r}')
    else:
        scale_z = _scale("tau_z", tau_z, semantic, above=0)
    return (weights * (distances / scale_z - relative).abs()).sum() / weights.sum()


class SimilarityLoss(torch.nn.Module):
    """`similarity_loss` as a module that keeps running means of the semantic scale, as buffers.

    forward(z [B, D], distance [B, B]) -> scalar. In training mode tau_y is a momentum average of the batch means, as
    in Arponen & Bishop 2020 ("slowly varying"); in evaluation mode it is the last one.

    >>> import torch
    >>> z = torch.rand(8, 16)
    >>> SimilarityLoss()(z, torch.cdist(z, z)).shape
    torch.Size([])
    """

    tau_y: Tensor
    batches: Tensor

    def __init__(
        self, *, weight: Weight = None, tau_z: float | Literal["batch"] | None = None, momentum: float = 0.1
    ) -> None:
        super().__init__()
        self.weight, self.tau_z = weight, tau_z
        self.momentum = number(momentum, "SimilarityLoss", "momentum", above=0, most=1)
        self.register_buffer("tau_y", torch.zeros(()))
        self.register_buffer("batches", torch.zeros((), dtype=torch.int64))

    def forward(self, z: Tensor, distance: Tensor) -> Tensor:
        distance = check_pairs("SimilarityLoss", z, distance)[1]
        rows, values = len(distance), distance.detach()
        diagonal = torch.eye(rows, dtype=torch.bool, device=values.device)  # ignored, whatever is there
        mean = (values.masked_fill(diagonal, 0.0).sum() / (rows * (rows - 1))).to(self.tau_y)
        tau_y = torch.where(self.batches == 0, mean, self.tau_y)
        if self.training:
            tau_y = tau_y + self.momentum * (mean - tau_y)
            self.tau_y.copy_(tau_y)
            self.batches.add_(1)
        return similarity_loss(z, distance, weight=self.weight, tau_z=self.tau_z, tau_y=tau_y)

    def extra_repr(self) -> str:
        return f"tau_z={self.tau_z}, momentum={self.momentum}"


def check_pairs(function: str, z: Tensor, distance: Tensor) -> tuple[Tensor, Tensor]:
    """Gives z [B, D] and the semantic distances [B, B] in the precision of the kernels."""
    for name, value in (("z", z), ("distance", distance)):
        if not isinstance(value, Tensor):
            raise TypeError(f"{function}: {name} must be a tensor, got {type(value).__name__}")
    if not z.is_floating_point():
        raise TypeError(f"{function}: z must be floating point, got {dtype_name(z)}")
    if z.dim() != 2 or z.shape[0] < 2 or z.shape[1] < 1:
        raise ValueError(f"{function}: z must have shape [B, D] with B >= 2 and D >= 1, got {tuple(z.shape)}")
    if distance.shape != (z.shape[0], z.shape[0]):
        raise ValueError(
            f"{function}: distance must have shape {(z.shape[0], z.shape[0])}, got {tuple(distance.shape)}"
        )
    if distance.device != z.device:
        raise ValueError(f"{function}: distance must be on the device of z, {z.device}, got {distance.device}")
    points = z if z.dtype == torch.float64 else z.float()
    return points, distance.to(points.dtype)


def _scale(name: str, value: float | Tensor, like: Tensor, **limit: float) -> Tensor:
    if isinstance(value, Tensor):  # not read: that would wait for the device
        if value.dim():
            raise ValueError(f"similarity_loss: {name} must be a number or a scalar, got shape {tuple(value.shape)}")
        return value.to(like)
    value = number(value, "similarity_loss", name, **limit)
    return torch.as_tensor(value, dtype=like.dtype, device=like.device)


def _pair_weights(weight: Weight, relative: Tensor) -> Tensor:
    if weight is not None and not isinstance(weight, Tensor) and not callable(weight):
        raise TypeError(f"similarity_loss: weight must be a tensor, a callable or None, got {type(weight).__name__}")
    weights = (weight or default_weight)(relative) if not isinstance(weight, Tensor) else weight.to(relative)
    if weights.shape != relative.shape:
        raise ValueError(f"similarity_loss: weight must have shape {tuple(relative.shape)}, got {tuple(weights.shape)}")
    return weights
