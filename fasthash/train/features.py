"""Features as Hasher takes them: real numbers [N, F], finite in float32."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fasthash._arrays import to_tensor
from fasthash.train.encoder import ROWS


def read_features(X: Any, method: str, name: str) -> Tensor:
    """X [N, F] as a tensor without a copy; raises ValueError or TypeError in the name of `Hasher.<method>`.

    >>> read_features([[1, 2]], "fit", "X").shape
    torch.Size([1, 2])
    """
    rows = to_tensor(X, f"Hasher.{method}", name)
    if rows.dim() != 2 or rows.shape[1] < 1:
        raise ValueError(f"Hasher.{method}: {name} must have shape [N, F] with F >= 1, got {tuple(rows.shape)}")
    if rows.is_complex():
        raise TypeError(f"Hasher.{method}: {name} must be real, got {rows.dtype}")
    return rows.detach()


def check_finite(rows: Tensor, finite: bool, method: str, name: str) -> None:
    """Raises the error of rows that are known not to be `finite`: ValueError, with their number."""
    if finite:
        return
    starts = range(0, len(rows), ROWS)
    bad = sum(int((~torch.isfinite(rows[start : start + ROWS].float())).any(1).sum()) for start in starts)
    raise ValueError(
        f"Hasher.{method}: {name} must be finite in float32, got NaN or infinity in {bad} of {len(rows)} rows"
    )
