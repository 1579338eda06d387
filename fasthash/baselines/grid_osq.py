"""Optimised scalar quantisation, as in Lucene's better binary quantisation: an interval of its own for each row.

Sources: OptimizedScalarQuantizer of Apache Lucene (public code), which goes back to Aguerrebere et al., "Similarity
search in the blink of an eye with compressed indices" (LVQ, 2023), and to the anisotropic loss of Guo et al.,
"Accelerating large-scale inference with anisotropic vector quantization", ICML 2020.
"""

from __future__ import annotations

import torch
from torch import Tensor

ROTATED = False
ACROSS = 0.1  # weight of the error across the row; 1 - ACROSS more for the error along it
ROUNDS = 5
FIRST = (0.798, 1.493, 2.051, 2.514)  # by bits: ends of the best uniform grid of a standard normal variable


def weights(features: int, planes: int) -> Tensor:
    """Powers of 2: levels are the odd numbers from 1 - 2^B to 2^B - 1."""
    return 2.0 ** torch.arange(planes - 1, -1, -1)


def levels(directions: Tensor, weights: Tensor) -> Tensor:
    """Level numbers uint8 [N, F], 0 to 2^B - 1, of directions [N, F] on the grid of each row's own step.

    The step and the levels take turns: levels are the nearest of the step, the step is the best of the levels
    (`factors`), 5 times. With its best step a point has the loss 1 - 1 / (1 - ACROSS + ACROSS / c^2), c its cosine to
    the row. So a round counts where the cosine rises.
    """
    largest = 2 ** len(weights) - 1
    rows = directions.double()
    first = FIRST[len(weights) - 1] / (largest * rows.shape[1] ** 0.5)
    points = _nearest(rows, torch.full_like(rows[:, :1], first), largest)
    for _ in range(ROUNDS):
        products, squares = (rows * points).sum(1, keepdim=True), points.square().sum(1, keepdim=True)
        step = factors(products, squares)  # half the distance of two levels
        better = _nearest(rows, torch.where(products > 0, step, first), largest)
        gain = (rows * better).sum(1, keepdim=True).square() / better.square().sum(1, keepdim=True)
        points = torch.where(gain > products.square() / squares, better, points)
    numbers: Tensor = (points + largest) / 2
    return numbers.to(torch.uint8)


def factors(products: Tensor, squares: Tensor) -> Tensor:
    """The step, as a part of the length of a row, that has the least loss, float64.

    The loss of a direction o and s l is (1 - ACROSS) <o, o - s l>^2 + ACROSS |o - s l|^2. products: <o, l> of
    directions and grid points; squares: |l|^2.
    """
    return products / ((1 - ACROSS) * products.square() + ACROSS * squares)


def _nearest(rows: Tensor, step: Tensor, largest: int) -> Tensor:
    """The odd numbers from -largest to largest nearest to rows / step; 0 goes to -1."""
    return (2 * (rows / (2 * step)).ceil() - 1).clamp(-largest, largest)
