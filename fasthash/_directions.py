"""Directions of rows: x / |x|, with a gradient that short rows cannot blow up. The only place that normalises rows.

And batches of zeros, from which no loss takes a gradient.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

SHORTEST = 1e-12  # rows are divided by at least this length, as by torch.nn.functional.normalize
SHORT = 0.1  # of the typical length of a batch: the gradient of shorter rows fades
COUNTED = 1e-3  # rows shorter than this part of the longest (of 1, where that is longer) do not say what is typical


def unit_rows(x: Tensor) -> Tensor:
    """Rows of x [..., D] over their Euclidean lengths, without a gradient; a row of zeros stays zero.

    >>> unit_rows(torch.tensor([[3.0, 4.0], [0.0, 0.0]]))
    tensor([[0.6000, 0.8000],
            [0.0000, 0.0000]])
    """
    return _divided(x.detach())[0]


def directions(x: Tensor) -> Tensor:
    """Rows of a batch x [..., B, D] over their Euclidean lengths, with a gradient of bounded size.

    The values are those of torch.nn.functional.normalize(x, dim=-1). The gradient of a row grows as 1 / |x|, up to 1e12
    for a row of zeros, which has no direction. Here it is multiplied by min(1, (10 |x| / t)^2), t the typical length of
    the batch. So rows of at least t / 10 keep their gradient as it is. That of a shorter row is at most ten times
    that of a row of length t, and falls to 0 with |x|. The factor is a constant in derivatives. t is the (lower)
    median of the lengths, without nearly zero rows (`COUNTED`), so that many of them do not pass for typical.

    >>> x = torch.tensor([[3.0, 4.0], [0.0, 5.0], [0.0, 0.0]], requires_grad=True)
    >>> directions(x).sum().backward()
    >>> x.grad[2].tolist()
    [0.0, 0.0]
    """
    unit, lengths = _divided(x)
    if not lengths.numel():
        return unit
    lengths = lengths.detach()
    kept = (lengths / (SHORT * _typical(lengths))).square().clamp(max=1.0)
    values = unit.detach()
    return values + kept * (unit - values)  # unit itself, to the bit


def unless_all_zero(x: Tensor) -> Tensor:
    """x itself, whose gradient is 0 where all of x is 0: a batch of zeros says nothing about its rows.

    >>> x = torch.zeros(2, 3, requires_grad=True)
    >>> (unless_all_zero(x) - 1).square().sum().backward()
    >>> x.grad.abs().sum()
    tensor(0.)
    """
    if x.device.type == "cpu" and not torch.compiler.is_compiling():
        try:
            return x if bool(x.detach().any()) else x * 0.0
        except RuntimeError:  # inside vmap, where no value may decide
            pass
    return x * (x.detach() != 0).any().to(x.dtype)  # NaN and infinity stay


def _divided(x: Tensor) -> tuple[Tensor, Tensor]:
    lengths = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    return x / lengths.clamp_min(SHORTEST), lengths


def _typical(lengths: Tensor) -> Tensor:
    """The typical one of lengths [..., B, 1], as [..., 1, 1]; infinite where all are 0 or none is finite."""
    finite = lengths.masked_fill(~lengths.isfinite(), 0.0)
    least = COUNTED * finite.amax(-2, keepdim=True).clamp(max=1.0)
    counted = (finite > 0) & (finite >= least)
    ascending = finite.masked_fill(~counted, math.inf).sort(dim=-2).values
    middle = (counted.sum(-2, keepdim=True) - 1).clamp(min=0) // 2
    return ascending.gather(-2, middle)
