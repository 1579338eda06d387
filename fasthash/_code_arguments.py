"""Checks of packed codes and of filters over them, for the searches without an index."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fasthash import _ops
from fasthash._arguments import refuse_zeros_and_ones
from fasthash._arrays import dtype_name, to_tensor


def packed_codes(function: str, name: str, given: Any) -> tuple[Tensor, int]:
    """Packed codes uint8 [N, W] as a tensor, and W; one query may be [W]. Raises TypeError or ValueError."""
    codes = to_tensor(given, function, name)
    if codes.dtype != torch.uint8:
        hint = "; fasthash.codes.from_signed reads packed bits minus 128" if codes.dtype == torch.int8 else ""
        raise TypeError(f"{function}: {name} must be packed codes of dtype uint8, got {dtype_name(codes)}{hint}")
    shape = codes.shape
    if len(shape) == 1 and name == "queries":
        codes = codes[None]
        shape = codes.shape
    if len(shape) != 2 or shape[1] < 1:
        raise ValueError(f"{function}: {name} must have shape [rows, bytes], got {list(shape)}")
    return codes, shape[1]


def eligible_mask(function: str, filter: Any, database: Tensor) -> Tensor | None:
    """The eligible codes as the bitmap that the kernels read; None: all. Raises TypeError or ValueError."""
    if filter is None:
        return None
    given = to_tensor(filter, function, "filter").to(database.device)
    count = len(database)
    if given.dtype == torch.bool:
        if given.shape != (count,):
            raise ValueError(f"{function}: a boolean filter must have shape [{count}], got {list(given.shape)}")
        return _ops.mask_words(given)
    if given.numel() == 0:
        given = given.long()
    if given.is_floating_point() or given.dim() != 1:
        raise TypeError(
            f"{function}: filter must be a boolean mask or a 1-D array of integer positions, "
            f"got {dtype_name(given)} of shape {list(given.shape)}"
        )
    refuse_zeros_and_ones(given, function)
    positions = given.long()
    if len(positions) and not (int(positions.min()) >= 0 and int(positions.max()) < count):
        raise ValueError(
            f"{function}: filter positions must be in 0..{count - 1}, "
            f"got {int(positions.min())}..{int(positions.max())}"
        )
    allowed = torch.zeros(count, dtype=torch.bool, device=database.device)
    allowed[positions] = True
    return _ops.mask_words(allowed)
