"""A number for each code of a Hasher, by which real-valued queries estimate products or cosines of its outputs."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fasthash.baselines.rows import FLOAT16_MOST, in_blocks, refuse_others
from fasthash.codes import unpack_bits

METRICS = ("dot", "cosine")


def bit_factors(bit_weights: Sequence[tuple[int, int]] | None, bits: int, device: torch.device) -> Tensor:
    """The weight of each bit, float64 [bits]: the weight of its group; None: 1.

    >>> bit_factors([(2, 4), (1, 1)], 3, torch.device("cpu"))
    tensor([4., 4., 1.], dtype=torch.float64)
    """
    groups = bit_weights or [(bits, 1)]
    parts = [torch.full((count,), weight, dtype=torch.float64, device=device) for count, weight in groups]
    return torch.cat(parts)


def output_scales(u: Tensor, codes: Tensor, factors: Tensor, metric: str, function: str) -> Tensor:
    """The code_scale float16 [N] of outputs u [N, bits] and their packed codes [N, W].

    With x = 2 b - 1 it is sum w u^2 / sum w u x, the correction of RaBitQ, for "cosine" over sqrt(sum w u^2); 0 where
    u is 0. Raises ValueError for codes of other rows, and for a number that float16 cannot hold.
    """

    def found(block: Tensor, packed: Tensor) -> Tensor:
        block = block.double()
        squares = (block * block * factors).sum(1)
        products = (block * (2.0 * unpack_bits(packed, block.shape[1]).double() - 1.0) * factors).sum(1)
        return torch.where(squares > 0, (squares if metric == "dot" else squares.sqrt()) / products, 0.0)

    scales = in_blocks(u, codes, found)
    refuse_others(scales, function)
    large = (scales > FLOAT16_MOST).nonzero()
    if len(large):
        row = int(large[0])
        raise ValueError(
            f"{function}: scales must be at most {FLOAT16_MOST:.0f}, the limit of float16, got "
            f"{float(scales[row]):.3g} in row {row}; use metric 'cosine', where scales do not grow with the "
            "outputs"
        )
    return scales.half()
