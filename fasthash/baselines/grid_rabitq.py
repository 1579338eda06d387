"""RaBitQ: the grid point whose direction is nearest to that of the row.

Gao & Long, "RaBitQ: quantizing high-dimensional vectors with a theoretical error bound for approximate nearest neighbor
search", SIGMOD 2024 (1 bit); Gao et al., "Practical and asymptotically optimal quantization of high-dimensional vectors
in Euclidean space for approximate nearest neighbor search", SIGMOD 2025 (more bits).
"""

from __future__ import annotations

import torch
from torch import Tensor

ROTATED = True


def weights(features: int, planes: int) -> Tensor:
    """Powers of 2: levels are the odd numbers from 1 - 2^B to 2^B - 1."""
    return 2.0 ** torch.arange(planes - 1, -1, -1)


def levels(directions: Tensor, weights: Tensor) -> Tensor:
    """Level numbers uint8 [N, F], 0 to 2^B - 1, of the grid point with the largest cosine to each direction [N, F].

    The best point is the one nearest to t |o| for some t > 0. As t grows from 0, dimension d goes up by one level where
    t |o_d| is a whole number. All these points, F (2^(B-1) - 1) of them, are sorted by t and tried. The cosine of each
    follows from running sums.
    """
    positive, sizes = directions > 0, directions.abs()
    half = 2 ** (len(weights) - 1)  # levels on each side of 0
    if half == 1:
        return positive.to(torch.uint8)
    steps = torch.arange(1, half, device=sizes.device)
    order = _sorted((steps / sizes[:, :, None]).flatten(1))  # [N, F (half - 1)]
    gained = sizes.double().gather(1, order // (half - 1))
    inner = 0.5 * sizes.sum(1, keepdim=True, dtype=torch.float64) + gained.cumsum(1)
    squares = 0.25 * sizes.shape[1] + (2.0 * steps[order % (half - 1)]).cumsum(1)  # (j + 1/2)^2 - (j - 1/2)^2 = 2 j
    first = (inner[:, :1] - gained[:, :1]) / (0.25 * sizes.shape[1]) ** 0.5
    steps_up = torch.cat([first, inner / squares.sqrt()], dim=1).argmax(1, keepdim=True)
    taken = torch.arange(order.shape[1], device=sizes.device) < steps_up
    up = torch.zeros_like(order, dtype=torch.uint8).scatter_(1, order, taken.to(torch.uint8))
    up = up.unflatten(1, (-1, half - 1)).sum(2, dtype=torch.uint8)
    return torch.where(positive, half + up, half - 1 - up)


def _sorted(values: Tensor) -> Tensor:
    """Positions of float32 values >= 0 in ascending order, [N, M]; ties by position.

    Bits of such numbers are in the order of the numbers. With the position below them in an int64, one sort of whole
    numbers is twice as fast as a sort with positions beside it.
    """
    keys = values.view(torch.int32).long() << 32
    keys |= torch.arange(values.shape[1], device=values.device)
    return keys.sort(1).values & 0xFFFFFFFF


def factors(products: Tensor, squares: Tensor) -> Tensor:
    """The factor of the length of a row, float64 [N]: 1 / <o, l>.

    products: <o, l> of directions and grid points; squares: |l|^2. So a row's estimate of itself is exact. For other
    vectors it is unbiased over the random rotation.
    """
    return 1.0 / products
