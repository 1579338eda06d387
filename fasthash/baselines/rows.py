"""The rows of X that a method is given: their checks, and their number for each code."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from fasthash._arrays import dtype_name, like, to_tensor
from fasthash._far_out import find, sample_of, usual_of, warn_far_out
from fasthash.codes import check_codes

BLOCK = 1 << 18  # values of X that are coded at once
FLOAT16_MOST = 65504.0


def finite_rows(X: Any, function: str, *, one: bool = False) -> Tensor:
    """X as a tensor [N, F] of finite numbers, F >= 1. one: a single row may be [F]."""
    rows = to_tensor(X, function, "X").detach()
    if one and rows.dim() == 1:
        rows = rows[None]
    if rows.dim() != 2 or rows.shape[1] < 1:
        raise ValueError(f"{function}: X must have shape [N, F] with F >= 1, got {tuple(rows.shape)}")
    bad = int((~torch.isfinite(rows.float())).any(1).sum())  # float32 is what is used
    if bad:
        raise ValueError(f"{function}: X must be finite, got NaN or infinity in {bad} of {len(rows)} rows")
    return rows


def rows_of(X: Any, function: str, features: int, *, one: bool = False) -> Tensor:
    """`finite_rows` with this number of features."""
    rows = finite_rows(X, function, one=one)
    if rows.shape[1] != features:
        raise ValueError(f"{function}: X must have {features} features, got {rows.shape[1]}")
    return rows


def rows_to_fit(X: Any, function: str) -> Tensor:
    """`finite_rows`, at least one."""
    rows = finite_rows(X, function)
    if not len(rows):
        raise ValueError(f"{function}: X must have at least 1 row, got 0")
    return rows


def without_far_out(rows: Tensor, function: str) -> Tensor:
    """The rows, or a copy where values that lie far out are the means of their columns, with a warning."""
    usual = usual_of(rows[sample_of(*rows.shape).to(rows.device)], len(rows))
    low, high = rows.aminmax(dim=0)
    if not bool((usual.beyond(low) | usual.beyond(high)).any()):
        return rows
    means, _, found = find(rows, usual)
    warn_far_out(found, len(rows), function, "X", "in what is learned")
    wide = rows if rows.is_floating_point() else rows.float()
    return torch.where(usual.beyond(rows), means.to(wide.dtype), wide)


def codes_of(codes: Any, bits: int, rows: Tensor, function: str) -> Tensor:
    """Packed codes of `rows`, on their device; raises for what is not one code for each row."""
    packed = to_tensor(codes, function, "codes").to(rows.device)
    if packed.dim() == 1 and len(rows) == 1:
        packed = packed[None]
    check_codes(packed, bits, function)
    if len(packed) != len(rows):
        raise ValueError(
            f"{function}: codes must have one code for each of the {len(rows)} rows of X, got {len(packed)}"
        )
    return packed


def in_blocks(rows: Tensor, codes: Tensor, function: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """`function` of rows [N, F] and their codes, block by block, put together."""
    step = max(1, BLOCK // rows.shape[1])
    return torch.cat([function(*block) for block in zip(rows.split(step), codes.split(step), strict=True)])


def refuse_others(factors: Tensor, function: str) -> None:
    """Refuses codes by which the product of a row and its own grid point is not positive: they are of other rows."""
    bad = (~torch.isfinite(factors) | (factors < 0)).nonzero()
    if len(bad):
        raise ValueError(f"{function}: codes must be the codes of X, got a different code in row {int(bad[0])}")


def typical(scales: Tensor) -> float:
    """The root mean square of scales float64 [N], 1 where all are 0: in this unit they fit float16."""
    value = float(scales.square().mean().sqrt())
    return value if value > 0 else 1.0


def in_float16(scales: Tensor, unit: float, X: Any, function: str) -> Any:
    """Scales float64 [N] in that unit as float16, of the kind of X; raises where one is beyond float16."""
    result = (scales / unit).half()
    large = torch.isinf(result).nonzero()
    if len(large):
        row = int(large[0])
        raise ValueError(
            f"{function}: a row of X must be at most {FLOAT16_MOST:.0f} times as far from the mean as the rows of "
            f"the fit are ({dtype_name(result)} holds no more), got {float(scales[row]) / unit:.3g} times in row "
            f"{row}"
        )
    return like(result, X)


def finite_queries(values: Tensor, codes: Any) -> Tensor:
    """Query values as float32; raises where that overflows. codes: what they are for, whose type a message names."""
    result = values.float()
    bad = int((~torch.isfinite(result)).any(1).sum())
    if bad:
        raise ValueError(
            f"{type(codes).__name__}.queries: X times the unit {codes.unit:.3g} must fit float32, got larger "
            f"values in {bad} of {len(result)} rows"
        )
    return result
