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
    count, candidates, width = codes.shape
    values = torch.arange(16, device=codes.device)
    padding = 8 * width - queries.shape[1]
    terms = torch.nn.functional.pad(queries, (0, padding)).view(count, 2 * width, 4)
    groups = [*(bit_weights or (queries.shape[1], 1)), padding, 0]
    parts = [queries.new_full((bits,), weight) for bits, weight in zip(groups[::2], groups[1::2], strict=True)]
    weight = torch.cat(parts).view(2 * width, 4, 1)
    table = torch.zeros(count, 2 * width, 16, dtype=torch.float64, device=codes.device)
    for bit in range(4):
        set_bits = (values >> (3 - bit)) & 1
        table += (terms[:, :, bit, None] - set_bits).abs() * weight[:, bit]
    sums = torch.zeros(count, candidates, dtype=torch.float64, device=codes.device)
    for byte in range(width):
        bits = codes[:, :, byte].long()
        sums += table[:, 2 * byte].gather(1, bits >> 4)
        sums += table[:, 2 * byte + 1].gather(1, bits & 15)
    return sums.float()


define(
    "asymmetric_distances(Tensor queries, Tensor codes, int[] bit_weights=[]) -> Tensor",
    _asymmetric_distances,
    _asymmetric_distances_fake,
)
