"""How often bits are on, and how they go together."""

from __future__ import annotations

import torch
from torch import Tensor

from fasthash.codes import unpack_bits

BLOCK = 1 << 22  # bits that are unpacked at a time


def bit_moments(codes: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """Part of ones of each bit, float64 [bits], and correlations of bits [bits, bits], 0 for those of a constant bit.

    codes: packed uint8 [N, W], of which the first `bits` count.

    >>> p, correlation = bit_moments(torch.tensor([[0b00], [0b01], [0b10], [0b11]], dtype=torch.uint8) << 6, 2)
    >>> p.tolist(), correlation.tolist()
    ([0.5, 0.5], [[1.0, 0.0], [0.0, 1.0]])
    """
    both = torch.zeros(bits, bits, dtype=torch.float64, device=codes.device)  # items that have both bits
    for part in torch.split(codes, max(1, BLOCK // bits)):
        ones = unpack_bits(part, bits).float()  # counts stay below 2^24, so float32 is exact
        both += ones.T @ ones
    both /= len(codes)
    p = both.diagonal()
    deviation = (p * (1 - p)).sqrt()
    return p, (both - p * p[:, None]) / (deviation * deviation[:, None]).clamp(min=1e-300)
