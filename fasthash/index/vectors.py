"""Rows of numbers beside the codes of a segment: float32, float16, or int8 with a scale for each row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

KINDS = ("int8", "float16", "float32")
_MOST = {"float16": 65504.0, "float32": float(np.finfo(np.float32).max)}
_LEVELS = 127  # of int8, on each side of 0


@dataclass(frozen=True, eq=False)
class Vectors:
    """Rows in the order of the codes, in memory or pages of a file.

    int8: a row is scale * rows, the scale its largest absolute value / 127, so that a value is off by half a scale at
    most. float16: values are off by 2**-11 of themselves at most (2**-25 near 0). float32 holds them as they are.
    """

    rows: NDArray[Any]  # [n, F]
    scales: NDArray[np.float32] | None = None  # [n], of int8

    @classmethod
    def of(cls, values: NDArray[Any], kind: str, function: str) -> Vectors:
        """The rows of finite values [n, F]; raises ValueError, in the name of `function`, where they do not fit."""
        if kind == "int8":
            single = values.astype(np.float32)
            scales = np.abs(single).max(axis=1, initial=0) / np.float32(_LEVELS)
            steps = np.divide(single, scales[:, None], out=np.zeros_like(single), where=scales[:, None] > 0)
            return cls(np.clip(np.rint(steps), -_LEVELS, _LEVELS).astype(np.int8), scales)
        largest = float(np.abs(values).max(initial=0))
        if largest > _MOST[kind]:
            raise ValueError(
                f"{function}: rows stored as {kind} must have values within {_MOST[kind]:g}, got {largest:g}"
            )
        return cls(values.astype(kind))

    @classmethod
    def none(cls, kind: str, features: int) -> Vectors:
        """No rows."""
        return cls(np.zeros((0, features), kind), np.zeros(0, np.float32) if kind == "int8" else None)

    @property
    def size(self) -> int:
        return len(self.rows)

    @property
    def kind(self) -> str:
        """The type of the values."""
        return str(self.rows.dtype)

    @property
    def row_bytes(self) -> int:
        return int(self.rows.shape[1]) * self.rows.dtype.itemsize + (0 if self.scales is None else 4)

    def taken(self, rows: NDArray[np.int64]) -> Vectors:
        """Some of them, in the order of `rows`."""
        return Vectors(self.rows[rows], None if self.scales is None else self.scales[rows])

    def part(self, start: int, stop: int) -> Vectors:
        """Those from start to before stop, not copied."""
        return Vectors(self.rows[start:stop], None if self.scales is None else self.scales[start:stop])

    def values(self) -> NDArray[np.float32]:
        """The rows that they store, float32 [n, F]."""
        rows: NDArray[np.float32] = self.rows.astype(np.float32)
        return rows if self.scales is None else rows * self.scales[:, None]


def joined_vectors(parts: Sequence[Vectors]) -> Vectors:
    """Rows one after the other; one part is not copied."""
    if len(parts) == 1:
        return parts[0]
    scales = [part.scales for part in parts if part.scales is not None]
    return Vectors(np.concatenate([part.rows for part in parts]), np.concatenate(scales) if scales else None)
