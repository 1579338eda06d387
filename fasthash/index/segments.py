"""Segments: immutable blocks of codes in ascending id order, in memory or mapped, and when to merge them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fasthash._arrays import to_tensor
from fasthash.index.manifest import SegmentEntry

MERGE_FAN = 8  # segments of one size class before they are merged
MERGE_ROWS = 1 << 25  # rows of the largest segment that merging makes (bounds its time and memory)
_SMALLEST_CLASS = 1 << 13  # rows below which all segments count as equally small


@dataclass(frozen=True)
class Segment:
    """n codes with ascending, unique ids, of which some may be deleted.

    Row order is id order, so that the tie order of a scan (by position) is the tie order of the index (by id).
    """

    codes: Tensor  # uint8 [n, W]
    first_id: int
    ids: Tensor | None = None  # int64 [n] ascending, on the device of codes; None: first_id + row
    live: Tensor | None = None  # bool [n], on the device of codes; None: all
    deleted: int = 0  # rows that are not live
    entry: SegmentEntry | None = None  # the file that holds it; None: not on disk

    @property
    def rows(self) -> int:
        return len(self.codes)

    @property
    def count(self) -> int:
        """Live rows."""
        return self.rows - self.deleted

    @property
    def last_id(self) -> int:
        return self.first_id + self.rows - 1 if self.ids is None else int(self.ids[-1])

    def find(self, ids: Tensor) -> Tensor:
        """int64 [M], any order -> the live row of each id, -1 where this segment has none."""
        if self.ids is None:
            rows = ids - self.first_id
            found = (rows >= 0) & (rows < self.rows)
        else:
            rows = torch.searchsorted(self.ids, ids.contiguous()).clamp_(max=self.rows - 1)
            found = self.ids[rows] == ids
        if self.live is not None:
            found &= self.live[torch.where(found, rows, 0)]
        return torch.where(found, rows, -1)

    def ids_of(self, rows: Tensor) -> Tensor:
        """int64 rows of any shape -> their ids."""
        return rows + self.first_id if self.ids is None else self.ids[rows]

    def live_ids(self) -> Tensor:
        """The ids of the live rows, ascending."""
        if self.live is not None:
            return self.ids_of(self.live.nonzero()[:, 0])
        return torch.arange(self.rows, device=self.codes.device) + self.first_id if self.ids is None else self.ids

    def without(self, rows: Tensor) -> Segment:
        """The same segment with these (live, distinct) rows deleted."""
        if self.live is None:
            live = torch.ones(self.rows, dtype=torch.bool, device=self.codes.device)
        else:
            live = self.live.clone()
        live[rows] = False
        return replace(self, live=live, deleted=self.deleted + len(rows))

    def id_blocks(self, rows: int) -> Iterator[Tensor]:
        """The live ids, at most `rows` at a time."""
        for start in range(0, self.rows, rows):
            stop = min(start + rows, self.rows)
            if self.live is not None:
                yield self.ids_of(self.live[start:stop].nonzero()[:, 0] + start)
            elif self.ids is not None:
                yield self.ids[start:stop]
            else:
                yield torch.arange(start, stop, device=self.codes.device) + self.first_id

    def code_blocks(self, rows: int) -> Iterator[Tensor]:
        """The codes of the live rows, at most `rows` at a time."""
        for start in range(0, self.rows, rows):
            block = self.codes[start : start + rows]
            yield block if self.live is None else block[self.live[start : start + rows]]


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

    def codes_of(self, ids: Tensor, width: int) -> tuple[Tensor, Tensor]:
        """int64 [M] -> their codes, uint8 [M, width], and which were found, bool [M]."""
        codes = torch.zeros((len(ids), width), dtype=torch.uint8, device=ids.device)
        found = torch.zeros(len(ids), dtype=torch.bool, device=ids.device)
        for segment in self.segments:
            rows = segment.find(ids)
            here = rows >= 0
            codes[here] = segment.codes[rows[here]]
            found |= here
        return codes, found


def id_tensor(ids: Any, function: str, name: str = "ids") -> Tensor:
    """A 1-D array, tensor or list of integers as int64."""
    numbers = to_tensor(ids, function, name)
    if numbers.ndim != 1:
        raise ValueError(f"{function}: {name} must be one-dimensional, got shape {tuple(numbers.shape)}")
    if len(numbers) and (numbers.is_floating_point() or numbers.is_complex() or numbers.dtype == torch.bool):
        raise TypeError(f"{function}: {name} must be integers, got {numbers.dtype}")
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


def merge(segments: Sequence[Segment]) -> Segment:
    """One segment, not on disk, of the live rows of several (at least one live row)."""
    ids = torch.cat([segment.live_ids() for segment in segments])
    codes = torch.cat([block for segment in segments for block in segment.code_blocks(segment.rows)])
    return make_segment(codes, ids)


def settle(segments: Sequence[Segment]) -> list[Segment]:
    """Bounds the number of segments and of deleted rows.

    Segments fall into classes by live rows, each MERGE_FAN times the one before; MERGE_FAN of one class become one. So
    n codes added in any number of steps make at most about MERGE_FAN log(n) segments (plus one for each MERGE_ROWS /
    MERGE_FAN codes), and a code is rewritten about log(n) times. Segments that are half deleted are rewritten, empty
    ones dropped.
    """
    kept = []
    for segment in segments:
        if 2 * segment.deleted >= segment.rows and segment.rows <= MERGE_ROWS:
            if segment.count:
                kept.append(merge([segment]))
        elif segment.count:
            kept.append(segment)
    while True:
        classes: dict[int, list[Segment]] = {}
        for segment in kept:
            if segment.count * MERGE_FAN <= MERGE_ROWS:
                classes.setdefault(_size_class(segment.count), []).append(segment)
        full = next((group for _, group in sorted(classes.items()) if len(group) >= MERGE_FAN), None)
        if full is None:
            return kept
        chosen = {id(segment) for segment in full}
        kept = [segment for segment in kept if id(segment) not in chosen] + [merge(full)]


def _size_class(count: int) -> int:
    size, limit = 0, _SMALLEST_CLASS
    while count >= limit:
        size, limit = size + 1, limit * MERGE_FAN
    return size
