"""Distances of real-valued queries [Q, D] to each one's packed codes uint8 [Q, C, W]: re-ranking of candidates.

`bit_weights`: flat (bits, weight, ...) as fasthash/_bit_weights.py gives them, of D bits; empty: every bit counts 1.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fasthash._ops.registry import address, call, define


def _asymmetric_distances(queries: Tensor, codes: Tensor, bit_weights: Sequence[int] = ()) -> Tensor:
    queries, codes = queries.double().contiguous(), codes.contiguous()
    if codes.device.type != "cpu":
        return by_tables(queries, codes, bit_weights)
    count, candidates, width = codes.shape
    distances = _asymmetric_distances_fake(queries, codes, bit_weights)
    call(
        "asymmetric_distances", codes.device, address(queries), address(codes), count, candidates, queries.shape[1],
        width, bit_weights, address(distances),
    )  # fmt: skip
    return distances


def _asymmetric_distances_fake(queries: Tensor, codes: Tensor, bit_weights: Sequence[int] = ()) -> Tensor:
    return codes.new_empty(codes.shape[:2], dtype=torch.float32)


def by_tables(queries: Tensor, codes: Tensor, bit_weights: Sequence[int] = ()) -> Tensor:
    """The kernel's sums in torch, in the same order, for devices that have no kernel: float64 [Q, D] -> [Q, C]."""
    groups = [*(bit_weights or (queries.shape[1], 1))]
    parts = [queries.new_full((bits,), weight) for bits, weight in zip(groups[::2], groups[1::2], strict=True)]
    weight = torch.cat(parts)
    return nibble_sums(queries.abs() * weight, (queries - 1).abs() * weight, codes).float()


def nibble_sums(zeros: Tensor, ones: Tensor, codes: Tensor) -> Tensor:
    """Sums over the bits of codes uint8 [Q, C, W], where bit d adds zeros[q, d] or ones[q, d]: float64 [Q, C].

    Four bits make a nibble, as in the kernels; bits from D on add nothing.
    """
    count, candidates, width = codes.shape
    values = torch.arange(16, device=codes.device)
    padding = (0, 8 * width - zeros.shape[1])
    off, on = (torch.nn.functional.pad(terms, padding).view(count, 2 * width, 4) for terms in (zeros, ones))
    table = torch.zeros(count, 2 * width, 16, dtype=torch.float64, device=codes.device)
    for bit in range(4):
        table += torch.where((values >> (3 - bit) & 1).bool(), on[:, :, bit, None], off[:, :, bit, None])
    sums = torch.zeros(count, candidates, dtype=torch.float64, device=codes.device)
    for byte in range(width):
        bits = codes[:, :, byte].long()
        sums += table[:, 2 * byte].gather(1, bits >> 4)
        sums += table[:, 2 * byte + 1].gather(1, bits & 15)
    return sums


define(
    "asymmetric_distances(Tensor queries, Tensor codes, int[] bit_weights=[]) -> Tensor",
    _asymmetric_distances,
    _asymmetric_distances_fake,
)
