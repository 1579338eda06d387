"""Joins of packed codes uint8 [N, W] within a radius (csrc/pairs/pairs.h), CPU only.

They are no torch ops: how many pairs there are is known only when they are found, and may be too many to keep.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fasthash import _core
from fasthash._ops.hamming import rows
from fasthash._ops.registry import address

MOST_NEIGHBOURS = 64  # of a row in Join.knn
ONES = -1  # a plan: codes sorted by their number of ones


class Join:
    """One set of codes with itself, or two sets. It has copies of the codes.

    plan: 0 takes the cheapest; ONES; m >= 1: by m substrings. Results do not depend on it.
    """

    def __init__(self, codes: Tensor, other: Tensor | None, radius: int, plan: int = 0):
        a, b = rows(codes), None if other is None else rows(other)
        self.rows = len(a)
        self._join = _core.PairsJoin(
            address(a), 1 if b is not None and not len(b) else address(b), len(a), 0 if b is None else len(b),
            a.shape[1], _stride(a), 0 if b is None else _stride(b), radius, plan, torch.get_num_threads(),
        )  # fmt: skip

    @property
    def plan(self) -> int:
        """The plan of the last search: ONES, or how many substrings; 0 where there was none."""
        return int(self._join.plan)

    def find(self, first: int, last: int, most: int) -> int:
        """How many pairs have their first row in first .. last - 1.

        `write` then gives them where there are at most `most`.
        """
        return int(self._join.find(first, last, most, torch.get_num_threads()))

    def write(self, total: int) -> tuple[Tensor, Tensor, Tensor]:
        """The pairs that `find` counted last: rows int64 [total] twice and distances int32, ordered by the rows."""
        a, b = torch.empty(total, dtype=torch.int64), torch.empty(total, dtype=torch.int64)
        distances = torch.empty(total, dtype=torch.int32)
        self._join.write(address(a), address(b), address(distances), torch.get_num_threads())
        return a, b, distances

    def groups(self, star: bool, most: int) -> Tensor:
        """The lowest row of each row's group, int64 [N]. most: pairs of different codes that may be kept at once."""
        representatives = torch.empty(self.rows, dtype=torch.int64)
        self._join.groups(star, most, address(representatives), torch.get_num_threads())
        return representatives

    def knn(self, k: int) -> tuple[Tensor, Tensor]:
        """The k <= MOST_NEIGHBOURS nearest others of each row: distances int32 and ids int64 [N, k].

        Rows with fewer than k others within the radius have id -1 in the first place.
        """
        distances, ids = torch.empty(self.rows, k, dtype=torch.int32), torch.empty(self.rows, k, dtype=torch.int64)
        self._join.knn(k, address(distances), address(ids), torch.get_num_threads())
        return distances, ids


def _stride(codes: Tensor) -> int:
    return max(codes.stride(0), codes.shape[1])
