"""The listwise loss: each row's neighbours in the order, and with the sharpness, of its semantic neighbours."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from fasthash import _ops  # noqa: F401  (registers the ops)
from fasthash._arguments import number
from fasthash._arrays import dtype_name
from fasthash.losses.similarity import check_pairs


def listwise_loss(
    z: Tensor,
    distance: Tensor,
    *,
    temperature_y: float = 0.2,
    temperature_z: float = 0.1,
    weights: Tensor | None = None,
    groups: Tensor | None = None,
) -> Tensor:
    """Cross-entropy between softmax_j(-d_ij / T_y) and softmax_j(-|z_i - z_j|_1 / (D T_z)), j != i, mean over i.

    Source: this package, after listwise distillation (ListNet: Cao et al. 2007; stochastic neighbour embedding:
    Hinton & Roweis 2002).

    Args:
        z: outputs [B, D], floating point, B >= 2, in [0, 1], the range that the temperatures assume.
        distance: semantic distances [B, B]; the diagonal is ignored.
        temperature_y, temperature_z: > 0, in units of d and of the mean |difference| of a bit.
        weights: of rows in the mean over i [B], >= 0 and not all 0; None: all are equal.
        groups: integers [B]: a row is compared only with the other rows of its group, and a row alone in its group is
            left out; None: all are one group.

    Returns:
        Scalar, float32 (float64 for float64 z). Deterministic; no [B, B, D] intermediate.

    Raises:
        ValueError, TypeError: an argument outside these limits.

    >>> import torch
    >>> z = torch.tensor([[0.0, 0.0], [0.0, 0.1], [1.0, 1.0]])
    >>> distance = torch.tensor([[0.0, 0.1, 1.0], [0.1, 0.0, 1.0], [1.0, 1.0, 0.0]])
    >>> bool(listwise_loss(z, distance) < listwise_loss(z.flip(0), distance))
    True
    """
    points, semantic = check_pairs("listwise_loss", z, distance)
    temperature_y = number(temperature_y, "listwise_loss", "temperature_y", above=0)
    temperature_z = number(temperature_z, "listwise_loss", "temperature_z", above=0)
    rows, bits = points.shape
    left_out = torch.eye(rows, dtype=torch.bool, device=points.device)
    if weights is not None:
        _check_rows("weights", weights, rows)
    if groups is not None:
        _check_rows("groups", groups, rows)
        if groups.is_floating_point():
            raise TypeError(f"listwise_loss: groups must hold integers, got {dtype_name(groups)}")
        left_out = left_out | (groups[:, None] != groups)
        alone = left_out.all(-1)
        weights = torch.where(alone, 0.0, 1.0 if weights is None else weights)
        left_out = left_out & ~alone[:, None]  # the row counts nothing: any finite value will do
    wanted = (semantic / -temperature_y).masked_fill(left_out, -math.inf).softmax(-1)
    distances: Tensor = torch.ops.fasthash.pairwise_l1(points) / (-bits * temperature_z)
    found = distances.masked_fill(left_out, -math.inf).log_softmax(-1).masked_fill(left_out, 0.0)
    losses: Tensor = -(wanted * found).sum(-1)
    if weights is None:
        return losses.mean()
    total = weights.to(losses).sum()
    return (losses * weights.to(losses)).sum() / (total if groups is None else total.clamp(min=1e-12))


def _check_rows(name: str, given: Tensor, rows: int) -> None:
    if not isinstance(given, Tensor):
        raise TypeError(f"listwise_loss: {name} must be a tensor, got {type(given).__name__}")
    if given.shape != (rows,):
        raise ValueError(f"listwise_loss: {name} must have shape ({rows},), got {tuple(given.shape)}")


class ListwiseLoss(torch.nn.Module):
    """`listwise_loss` with its temperatures, as a module: forward(z [B, D], distance [B, B]) -> scalar.

    >>> import torch
    >>> z = torch.rand(8, 16)
    >>> ListwiseLoss()(z, torch.cdist(z, z)).shape
    torch.Size([])
    """

    def __init__(self, *, temperature_y: float = 0.2, temperature_z: float = 0.1) -> None:
        super().__init__()
        self.temperature_y, self.temperature_z = temperature_y, temperature_z

    def forward(self, z: Tensor, distance: Tensor) -> Tensor:
        return listwise_loss(z, distance, temperature_y=self.temperature_y, temperature_z=self.temperature_z)

    def extra_repr(self) -> str:
        return f"temperature_y={self.temperature_y}, temperature_z={self.temperature_z}"
