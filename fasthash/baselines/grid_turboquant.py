"""TurboQuant: after a random rotation all dimensions have one distribution, and one best codebook.

Zandieh, Daliri, Hadian & Mirrokni, "TurboQuant: online vector quantization with near-optimal distortion rate" (2025).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from fasthash.baselines.grid_rabitq import factors

__all__ = ["ROTATED", "factors", "levels", "weights"]

ROTATED = True
POINTS = 4_001  # at which the distribution function is known
WIDTH = 9.0  # standard deviations of the density that count
ROUNDS = 2_000


def weights(features: int, planes: int) -> Tensor:
    """Weights of the planes whose levels have the least squared error for a coordinate t of a random direction.

    Its density is proportional to (1 - t^2)^((F - 3) / 2), nearly normal with variance 1 / F; for the angle a, t = sin
    a, it is proportional to cos(a)^(F - 2). Lloyd's iteration, in which the weights that fit the cells best in least
    squares take the place of the means of the cells.
    """
    features = max(features, 2)
    reach = min(math.pi / 2, WIDTH / features**0.5)
    angles = torch.linspace(-reach, reach, POINTS, dtype=torch.float64)
    density = ((features - 2) * angles.cos().clamp_min(1e-300).log()).exp()
    below = torch.cat([torch.zeros(1), torch.cumulative_trapezoid(density, angles)])  # up to each angle
    signs = _signs(planes).double()
    result = 2.0 ** torch.arange(planes - 1, -1, -1, dtype=torch.float64) * (1.5 / (2**planes * features**0.5))
    for _ in range(ROUNDS):
        table = signs @ result
        ends = ((table[1:] + table[:-1]) / 2).asin()
        ends = torch.cat([angles[:1], ends, angles[-1:]])
        mass = _interpolated(below, (ends + reach) * ((POINTS - 1) / (2 * reach))).diff()
        sums = -(ends.cos() ** (features - 1)).diff() / (features - 1)  # the integral of sin(a) cos(a)^(F - 2)
        before = result
        result = torch.linalg.solve((signs * mass[:, None]).T @ signs, signs.T @ sums)
        if bool(torch.allclose(result, before, rtol=1e-8, atol=0)):
            break
    rounded: Tensor = result.float()
    return rounded


def levels(directions: Tensor, weights: Tensor) -> Tensor:
    """Level numbers uint8 [N, F], 0 to 2^B - 1: the nearest level for each value of directions [N, F]."""
    table = _signs(len(weights)).to(weights) @ weights  # ascending: each weight is larger than the rest together
    return torch.bucketize(directions.contiguous(), (table[1:] + table[:-1]) / 2).to(torch.uint8)


def _signs(planes: int) -> Tensor:
    """The bits of the levels in ascending order as -1 and 1, [2^B, B], the highest first."""
    numbers, shifts = torch.arange(2**planes), torch.arange(planes - 1, -1, -1)
    return 2 * ((numbers[:, None] >> shifts) & 1) - 1


def _interpolated(values: Tensor, places: Tensor) -> Tensor:
    """Values at places between their positions."""
    low = places.floor().long().clamp(0, len(values) - 2)
    return torch.lerp(values[low], values[low + 1], places - low)
