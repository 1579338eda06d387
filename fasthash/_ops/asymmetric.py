"""Distances of real-valued queries [Q, D] to each one's packed codes uint8 [Q, C, W]: re-ranking of candidates."""

from __future__ import annotations

import torch
from torch import Tensor

from fasthash._ops.registry import address, call, define


def _asymmetric_distances(queries: Tensor, codes: Tensor) -> Tensor:
    queries, codes = queries.double().contiguous(), codes.contiguous()
    if codes.device.type != "cpu":
        return by_tables(queries, codes)
    count, candidates, width = codes.shape
    distances = _asymmetric_distances_fake(queries, codes)
    call(
        "asymmetric_distances", codes.device, address(queries), address(codes), count, candidates, queries.shape[1],
        width, address(distances),
    )  # fmt: skip
    return distances


def _asymmetric_distances_fake(queries: Tensor, codes: Tensor) -> Tensor:
    return codes.new_empty(codes.shape[:2], dtype=torch.float32)


def by_tables(queries: Tensor, codes: Tensor) -> Tensor:
    """The kernel's sums in torch, in the same order, for devices that have no kernel: float64 [Q, D] -> [Q, C]."""
    count, candidates, width = codes.shape
    values = torch.arange(16, device=codes.device)
    padding = 8 * width - queries.shape[1]
    terms = torch.nn.functional.pad(queries, (0, padding)).view(count, 2 * width, 4)
    present = torch.arange(8 * width, device=codes.device).view(2 * width, 4, 1) < queries.shape[1]
    table = torch.zeros(count, 2 * width, 16, dtype=torch.float64, device=codes.device)
    for bit in range(4):
        set_bits = (values >> (3 - bit)) & 1
        table += (terms[:, :, bit, None] - set_bits).abs() * present[:, bit]
    sums = torch.zeros(count, candidates, dtype=torch.float64, device=codes.device)
    for byte in range(width):
        bits = codes[:, :, byte].long()
        sums += table[:, 2 * byte].gather(1, bits >> 4)
        sums += table[:, 2 * byte + 1].gather(1, bits & 15)
    return sums.float()


define(
    "asymmetric_distances(Tensor queries, Tensor codes) -> Tensor", _asymmetric_distances, _asymmetric_distances_fake
)
