"""Joins of packed codes uint8 [N, W] within a radius (csrc/pairs/pairs.h).

They are no torch ops: how many pairs there are is known only when they are found, and may be too many to keep.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fasthash import _core
from fasthash._ops.hamming import rows
from fasthash._ops.registry import address, call

MOST_NEIGHBOURS = 64  # of a row in Join.knn
MOST_ON_CUDA = 2**31 - 1  # rows of a set in a DeviceJoin
_FIRST_ROOM = 1 << 20  # pairs that are kept while all are counted
ONES = -1  # a plan: codes sorted by their number of ones


class Join:
    """One set of codes with itself, or two sets. It has copies of the codes.

    plan: 0 takes the cheapest; ONES; m >= 1: by m substrings. Results do not depend on it. bit_weights: flat, as
    fasthash/_bit_weights.py gives them; empty: every bit counts 1.
    """

    def __init__(
        self, codes: Tensor, other: Tensor | None, radius: int, plan: int = 0, bit_weights: Sequence[int] = ()
    ):
        a = _counted(rows(codes), bit_weights)
        b = None if other is None else _counted(rows(other), bit_weights)
        self.rows, self._others = len(a), 0 if b is None else len(b)
        self._join = _core.PairsJoin(
            address(a), 1 if b is not None and not len(b) else address(b), len(a), self._others,
            a.shape[1], _stride(a), 0 if b is None else _stride(b), radius, plan, bit_weights, torch.get_num_threads(),
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
        lowest = torch.arange(self.rows)
        if star:
            self._join.stars(most, address(lowest), torch.get_num_threads())
            return lowest
        self.unite(lowest, 0, 0)
        return roots(lowest)

    def unite(self, parents: Tensor, first_a: int, first_b: int) -> None:
        """Unites the rows of every pair in a forest, int64: row i is first_a + i, one of `other` first_b + j.

        It begins as 0, 1, 2, ...; the joins of a larger set's blocks may follow one another, and `roots` ends it.
        """
        self._join.unite(first_a, first_b, address(parents), torch.get_num_threads())

    def lowest(self) -> Tensor:
        """For two sets: for each row of `other` the lowest row within the radius, int64 [M]; -1 if there is none."""
        lowest = torch.empty(self._others, dtype=torch.int64)
        self._join.lowest(address(lowest), torch.get_num_threads())
        return lowest

    def knn(self, k: int) -> tuple[Tensor, Tensor]:
        """The k <= MOST_NEIGHBOURS nearest others of each row: distances int32 and ids int64 [N, k].

        Rows with fewer than k others within the radius have id -1 in the first place.
        """
        distances, ids = torch.empty(self.rows, k, dtype=torch.int32), torch.empty(self.rows, k, dtype=torch.int64)
        self._join.knn(k, address(distances), address(ids), torch.get_num_threads())
        return distances, ids


def roots(parents: Tensor) -> Tensor:
    """The lowest row of each row's tree, in place."""
    _core.pairs_roots(address(parents), len(parents))
    return parents


class DeviceJoin:
    """The same of codes on a GPU, where all pairs are compared. Contiguous codes are not copied."""

    def __init__(self, codes: Tensor, other: Tensor | None, radius: int):
        self._codes, self._other, self._radius = codes.contiguous(), None if other is None else rows(other), radius

    def find(self, most: int) -> int:
        """How many pairs there are; `write` then gives them where there are at most `most`.

        A second pass keeps them where the first has no room for all. Memory: 12 bytes a pair that is kept.
        """
        room = min(most, _FIRST_ROOM)
        total = self._search(room)
        if room < total <= most:
            self._search(total)
        return total

    def write(self, total: int) -> tuple[Tensor, Tensor, Tensor]:
        """The pairs that `find` counted last, as of Join.write. They are put in order: each has a key of its own."""
        keys, order = self._keys[:total].sort()
        return keys >> 32, keys & 0xFFFFFFFF, self._distances[:total][order]

    def groups(self) -> Tensor:
        """The lowest row of each row's group, int64 [N], by single links."""
        device, (count, width) = self._codes.device, self._codes.shape
        lowest = torch.empty(count, dtype=torch.int64, device=device)
        call(
            "duplicate_groups", device, address(self._codes), count, width, self._radius, address(lowest),
            workspace=("duplicate_groups", count),
        )  # fmt: skip
        return lowest

    def _search(self, room: int) -> int:
        device, (count, width), other = self._codes.device, self._codes.shape, self._other
        self._keys = torch.empty(room, dtype=torch.int64, device=device)
        self._distances = torch.empty(room, dtype=torch.int32, device=device)
        counts = torch.empty(2, dtype=torch.int64, device=device)
        call(
            "hamming_pairs", device, address(self._codes), 0 if other is None else address(other) or 1, count,
            0 if other is None else len(other), width, 0 if other is None else _stride(other), self._radius, room,
            address(self._keys), address(self._distances), address(counts),
        )  # fmt: skip
        return int(counts[0])


def _counted(codes: Tensor, bit_weights: Sequence[int]) -> Tensor:
    """The codes with 0 in the bits behind the groups, which count nothing: codes that differ there alone are equal."""
    behind = 8 * codes.shape[1] - sum(bit_weights[::2]) if bit_weights else 0
    if behind and bool((codes[:, -1] & (2**behind - 1)).any()):
        codes = codes.clone()
        codes[:, -1] &= 256 - 2**behind
    return codes


def _stride(codes: Tensor) -> int:
    return max(codes.stride(0), codes.shape[1])
