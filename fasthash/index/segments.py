"""Segments: immutable blocks of codes in ascending id order, in memory or mapped."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fasthash._arrays import to_tensor
from fasthash.index.bitmap import all_rows, has_rows, row_blocks, rows_between, unpack_rows, without_rows
from fasthash.index.manifest import SegmentEntry

_BLOCK = 1 << 22  # rows of a bitmap that are unpacked at once


class Trials:
    """How searches of a segment by its tables went lately, so that those that do not help are not tried every time.

    Threads may count past one another: only the choice of a method hangs on it.
    """

    def __init__(self) -> None:
        self._failed = 0  # since the last success

    def worthwhile(self) -> bool:
        """Whether to try now: always at first, once in 8 times after 8 failures."""
        if self._failed >= 8 and self._failed % 8:
            self._failed += 1
            return False
        return True

    def tell(self, helped: bool) -> None:
        """How a trial went."""
        self._failed = 0 if helped else self._failed + 1


class Tables(NamedTuple):
    """Tables of multi-index hashing of a segment (mih.py), by which it can be searched without scanning it."""

    file: Path
    bits: int
    starts: list[int]  # first bits of the substrings
    arrays: list[Tensor]  # of each: offsets int32 [2^length + 1], fingerprints uint8 [n, 4 or 8], positions int32 [n]
    trials: Trials  # in automatic mode


@dataclass(frozen=True)
class Segment:
    """n codes with ascending, unique ids, of which some may be deleted.

    Row order is id order, so that the tie order of a scan (by position) is the tie order of the index (by id).
    """

    codes: Tensor  # uint8 [n, W]
    first_id: int
    ids: Tensor | None = None  # int64 [n] ascending, on the device of codes; None: first_id + row
    live: Tensor | None = None  # bitmap of the live rows (bitmap.py), on the device of codes; None: all
    deleted: int = 0  # rows that are not live
    entry: SegmentEntry | None = None  # the file that holds it; None: not on disk
    mapped: bool = False  # codes and ids are pages of that file
    tables: Tables | None = None

    @property
    def rows(self) -> int:
        return len(self.codes)

    @property
    def count(self) -> int:
        """Live rows."""
        return self.rows - self.deleted

    @property
    def last_id(self) -> int:
        return self.id_at(self.rows - 1)

    def id_at(self, row: int) -> int:
        """The id of one row, deleted or not."""
        return self.first_id + row if self.ids is None else int(self.ids[row])

    def row_after(self, id: int) -> int:
        """The first row whose id is above this one."""
        if self.ids is None:
            return min(max(id - self.first_id + 1, 0), self.rows)
        return int(torch.searchsorted(self.ids, id, right=True))

    def find(self, ids: Tensor) -> Tensor:
        """int64 [M], any order -> the live row of each id, -1 where this segment has none."""
        if self.ids is None:
            rows = ids - self.first_id
            found = (rows >= 0) & (rows < self.rows)
        else:
            rows = torch.searchsorted(self.ids, ids.contiguous()).clamp_(max=self.rows - 1)
            found = self.ids[rows] == ids
        if self.live is not None:
            found &= has_rows(self.live, torch.where(found, rows, 0))
        return torch.where(found, rows, -1)

    def ids_of(self, rows: Tensor) -> Tensor:
        """int64 rows of any shape -> their ids."""
        return rows + self.first_id if self.ids is None else self.ids[rows]

    def live_rows(self, start: int, stop: int) -> Tensor:
        """int64, ascending: the live rows from start to before stop."""
        if self.live is None:
            return torch.arange(start, stop, device=self.codes.device)
        return rows_between(self.live, start, stop)

    def live_count(self, start: int, stop: int) -> int:
        """How many rows from start to before stop are live."""
        if self.live is None:
            return stop - start
        if stop - start == self.rows:
            return self.count
        return sum(
            int(unpack_rows(self.live, at, min(at + _BLOCK, stop)).sum()) for at in range(start, stop, _BLOCK)
        )  # fmt: skip

    def live_bounds(self, start: int, stop: int) -> list[int]:
        """The lowest and the highest live id from row start to before stop; empty where no row is live."""
        if start >= stop:
            return []
        if self.live is None:
            return [self.id_at(start), self.id_at(stop - 1)]
        blocks = range(start, stop, _BLOCK)
        first = next((rows for at in blocks if len(rows := self.live_rows(at, min(at + _BLOCK, stop)))), None)
        if first is None:
            return []
        last = next(rows for at in reversed(blocks) if len(rows := self.live_rows(at, min(at + _BLOCK, stop))))
        return [self.id_at(int(first[0])), self.id_at(int(last[-1]))]

    def live_ids(self) -> Tensor:
        """The ids of the live rows, ascending: 8 bytes each."""
        if self.live is None and self.ids is not None:
            return self.ids
        return self.ids_of(self.live_rows(0, self.rows))

    def without(self, rows: Tensor) -> Segment:
        """The same segment with these (live, distinct) rows deleted."""
        live = all_rows(self.rows, self.codes.device) if self.live is None else self.live.clone()
        return replace(self, live=without_rows(live, rows), deleted=self.deleted + len(rows))

    def deleted_blocks(self) -> Iterator[Tensor]:
        """Which rows are deleted, bool, by blocks of a multiple of 64 rows."""
        if self.live is not None:
            for _, live in row_blocks(self.live, self.rows):
                yield ~live

    def code_blocks(self, rows: int) -> Iterator[Tensor]:
        """The codes of the live rows, at most `rows` at a time."""
        for start in range(0, self.rows, rows):
            stop = min(start + rows, self.rows)
            yield self.codes[start:stop] if self.live is None else self.codes[self.live_rows(start, stop)]


class Contents(NamedTuple):
    """All that an index holds. A change makes a new one, so that a search under way never sees half of it."""

    segments: tuple[Segment, ...]  # by ascending first id
    next_id: int  # highest id ever used + 1
    ordered: bool  # segment order is id order
    size: int  # live codes

    @classmethod
    def of(cls, segments: Sequence[Segment], next_id: int) -> Contents:
        """The contents of these segments, in any order."""
        ascending = tuple(sorted(segments, key=lambda segment: (segment.first_id, segment.last_id)))
        ordered = all(a.last_id < b.first_id for a, b in itertools.pairwise(ascending))
        return cls(ascending, next_id, ordered, sum(segment.count for segment in ascending))

    def ids(self) -> Tensor:
        """The live ids, ascending."""
        if not self.segments:
            return torch.empty(0, dtype=torch.int64)
        ids = torch.cat([segment.live_ids() for segment in self.segments])
        return ids if self.ordered else ids.sort().values

    def bounds(self) -> tuple[int, int] | None:
        """The lowest and the highest live id; None where there is none."""
        edges = [edge for segment in self.segments for edge in segment.live_bounds(0, segment.rows)]
        return (min(edges), max(edges)) if edges else None

    def codes_of(self, ids: Tensor, width: int) -> tuple[Tensor, Tensor]:
        """int64 [M] -> their codes, uint8 [M, width], and which were found, bool [M]."""
        codes = torch.zeros((len(ids), width), dtype=torch.uint8, device=ids.device)
        found = torch.zeros(len(ids), dtype=torch.bool, device=ids.device)
        for segment in self.segments:
            rows = segment.find(ids)
            here = rows >= 0
            if bool(here.all()):
                return segment.codes.index_select(0, rows), here
            codes[here] = segment.codes.index_select(0, rows[here])
            found |= here
        return codes, found


def id_tensor(ids: Any, function: str, name: str = "ids") -> Tensor:
    """A 1-D array, tensor or list of integers as int64."""
    numbers = to_tensor(ids, function, name)
    if numbers.ndim != 1:
        raise ValueError(f"{function}: {name} must be one-dimensional, got shape {tuple(numbers.shape)}")
    if len(numbers) and (numbers.is_floating_point() or numbers.is_complex() or numbers.dtype == torch.bool):
        raise TypeError(f"{function}: {name} must be integers, got {numbers.dtype}")
    if numbers.dtype == torch.uint64:
        signed = numbers.view(torch.int64) if numbers.is_contiguous() else numbers.to(torch.int64)
        if bool((signed < 0).any()):
            first = int(signed[signed < 0][0]) + 2**64
            raise ValueError(f"{function}: {name} must be between 0 and 2**63 - 1, got {first}")
        return signed
    return numbers.to(torch.int64)


def make_segment(codes: Tensor, ids: Tensor | int) -> Segment:
    """A segment of n >= 1 codes, uint8 [n, W], with ids int64 [n] (unique, any order) or from `ids` on.

    Contiguous ids are kept as a range. The codes are not copied unless they have to be sorted.
    """
    if isinstance(ids, int):
        return Segment(codes, ids)
    if bool((ids[1:] < ids[:-1]).any()):
        ids, order = ids.sort()
        codes = codes[order]
    first, last = int(ids[0]), int(ids[-1])
    return Segment(codes, first, None if last - first + 1 == len(ids) else ids)
