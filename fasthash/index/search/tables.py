"""Searching segments by tables of multi-index hashing (csrc/mih/mih.h), where that is faster than a scan."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from torch.nn.functional import pad

from fasthash.hamming import RangeResult, SearchResult
from fasthash.index.errors import IndexFolderError
from fasthash.index.readahead import in_memory
from fasthash.index.search.parts import Part, Query, few_rows, ids_of_rows, scanned_parts
from fasthash.index.search.results import combined_ranges, topk, within
from fasthash.index.segments import Segment

AUTO_BYTES = 1 << 26  # codes of a segment that take the scan 1 ms or more, beside which a trial of tables is little
# By the model, how much longer than a scan a search that ends in one may take.
BUDGETS = {"auto": 0.1, "mih": 1.0}
COLD = 8  # times as long a search may take where the codes would have to be read first


class Tables(Protocol):
    """What a search needs of the tables of a segment; store/table_file.py reads them."""

    @property
    def file(self) -> Path: ...
    @property
    def bits(self) -> int: ...
    @property
    def starts(self) -> list[int]: ...
    @property
    def arrays(self) -> list[Tensor]: ...


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


class TableSearch:
    """Makes the parts of segments: searched by their tables where they have some that should help, else scanned.

    budget: how long the tables may take before a query is given up and scanned, of a scan's time. From 1 on tables are
    used wherever there are some.
    """

    def __init__(self, budget: float):
        self._budget = budget
        self._trials: WeakKeyDictionary[Tables, Trials] = WeakKeyDictionary()

    def __call__(self, segment: Segment, mask: Tensor | None, filtered: bool) -> Iterator[Part]:
        """The parts of a segment, of which the rows of `mask` are eligible; filtered: perhaps only few of them."""
        tables: Tables | None = segment.extras.get("mih")
        if tables is None or (filtered and mask is not None and few_rows(mask, segment.rows)):
            return scanned_parts(segment, mask, filtered)
        trials, budget = self._trials.setdefault(tables, Trials()), self._budget
        if budget < 1:
            if segment.codes.numel() < AUTO_BYTES or not trials.worthwhile():
                return scanned_parts(segment, mask, filtered)
            if segment.mapped and not in_memory(segment.codes, samples=8):
                budget *= COLD
        return iter([TablesPart(segment, mask, tables, trials, budget)])


@dataclass(frozen=True)
class TablesPart:
    """A segment that is searched by its tables, and scanned for the queries that these do not help."""

    segment: Segment
    mask: Tensor | None  # bitmap of the eligible rows
    tables: Tables
    trials: Trials
    budget: float  # of a scan's time

    def topk(self, query: Query, k: int) -> SearchResult:
        k = min(k, self.segment.rows)
        distances, positions, left = tables_topk(self, query, k)
        if len(left) == len(query):
            return topk(query, self._scanned(), k, ordered=True)
        ids = ids_of_rows(self.segment, positions, positions)
        if len(left):
            distances[left], ids[left] = topk(query.chosen(left), self._scanned(), k, ordered=True)
        return SearchResult(distances, ids)

    def within(self, query: Query, radius: int) -> RangeResult:
        offsets, distances, positions, left = tables_range(self, query, radius)
        found = RangeResult(offsets, distances, ids_of_rows(self.segment, positions, positions))
        if not len(left):
            return found
        scanned = within(query.chosen(left), self._scanned(), radius, ordered=True)
        counts = torch.zeros_like(offsets[1:]).index_copy_(0, left, scanned.offsets.diff())
        return combined_ranges([found, scanned._replace(offsets=pad(counts.cumsum(0), (1, 0)))], radius, ordered=True)

    def _scanned(self) -> Iterator[Part]:
        return scanned_parts(self.segment, self.mask, False)


def tables_topk(part: TablesPart, query: Query, k: int) -> tuple[Tensor, Tensor, Tensor]:
    """The k nearest rows by the tables: distances and positions [Q, k], and the queries given up, int64."""
    tables, bounds = part.tables, None if query.nearest is None else query.nearest[:, -1]
    try:
        distances, positions, visited = torch.ops.fasthash.mih_topk(
            query.codes, part.segment.codes, part.mask, tables.starts, tables.arrays, tables.bits,
            k, bounds, part.budget, query.bit_weights,
        )  # fmt: skip
    except ValueError as error:
        raise IndexFolderError(f"{tables.file}: {error}") from error
    return distances, positions, _given_up(part, visited)


def tables_range(part: TablesPart, query: Query, radius: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The rows within a radius by the tables: offsets, distances, positions, and the queries given up."""
    tables = part.tables
    try:
        offsets, distances, positions, visited = torch.ops.fasthash.mih_range(
            query.codes, part.segment.codes, part.mask, tables.starts, tables.arrays, tables.bits,
            radius, part.budget, query.bit_weights,
        )  # fmt: skip
    except ValueError as error:
        raise IndexFolderError(f"{tables.file}: {error}") from error
    return offsets, distances, positions, _given_up(part, visited)


def _given_up(part: TablesPart, visited: Tensor) -> Tensor:
    """The queries of which no entries were counted to the end."""
    left = (visited < 0).nonzero()[:, 0]
    part.trials.tell(len(left) < len(visited))
    return left
