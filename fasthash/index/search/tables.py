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

from fasthash._ops.mih import prepared_tables, range_by_tables, topk_by_tables
from fasthash.hamming import RangeResult, SearchResult
from fasthash.index.errors import IndexFolderError
from fasthash.index.prices import Corrected, Prices, Scan, measured_scans, timed
from fasthash.index.readahead import in_memory
from fasthash.index.search.parts import Part, Query, few_rows, ids_of_rows, scanned_parts
from fasthash.index.search.results import combined_ranges, topk, within
from fasthash.index.segments import Segment

# A scan that takes less is not worth a try of tables. A try costs some 80 microseconds, and 50 in a range search, where
# it shows beforehand what the tables would take.
SMALL_NS = {"topk": 8e5, "range": 1e5}
# Of a scan's time, how much longer than the scan a search that ends in one may take. Below 1, only searches that should
# be faster by the tables are tried.
BUDGETS = {"auto": 0.1, "mih": 1.0}
COLD = 8  # times as long a scan takes where the codes have to be read from a disk first
# Every so many calls of "auto" tables are tried at any price: prices that say never could not be corrected.
_EXPLORE = 64
_LOOK = 16
_ENDS = 32  # k-NN searches that are remembered
_ENDS_OF_A_CALL = 8


Terms = tuple[float, tuple[float, float, float]]  # budget and prices, as the ops take them


class Tables(Protocol):
    """The tables of a segment, for a search; store/table_file.py reads them."""

    @property
    def file(self) -> Path: ...
    @property
    def bits(self) -> int: ...
    @property
    def starts(self) -> list[int]: ...
    @property
    def arrays(self) -> list[Tensor]: ...
    @property
    def prices(self) -> Prices | None: ...


class Experience:
    """Measurements of searches of a segment with tables: their cost, and the distance of the k-th nearest codes.

    Threads may count past one another: only the choice of a method hangs on it.
    """

    def __init__(self, tables: Tables, measured: Prices) -> None:
        self.prepared = prepared_tables(tables.starts, tables.arrays, tables.bits)
        self.prices = Corrected(measured)
        self._ends: dict[int, tuple[int, ...]] = {}
        self._calls = self._asked = 0
        self._cold = True

    def explore(self) -> bool:
        """Whether this call should try tables at any price."""
        self._calls += 1
        return self._calls % _EXPLORE == 0

    def cold(self, codes: Tensor) -> bool:
        """Whether mapped codes have to be read from a disk; where they had not, looked up once in so many calls."""
        if self._cold or self._asked % _LOOK == 0:
            self._cold = not in_memory(codes, samples=8)
        self._asked += 1
        return self._cold

    def ends(self, k: int) -> tuple[int, ...]:
        """Distances of the k-th nearest codes in searches like this one, lately."""
        return self._ends.get(k.bit_length(), ())

    def tell_ends(self, k: int, distances: Tensor) -> None:
        """The distances of the k-th nearest codes of a call's queries, int32 [Q]."""
        some = distances[:: max(1, len(distances) // _ENDS_OF_A_CALL)][:_ENDS_OF_A_CALL].tolist()
        self._ends[k.bit_length()] = (*self.ends(k), *some)[-_ENDS:]


class TableSearch:
    """Makes the parts of segments: searched by their tables where they have some that should help, else scanned.

    budget: as of BUDGETS. From 1 on tables are used wherever there are some.
    """

    def __init__(self, budget: float):
        self._budget = budget
        self._experience: WeakKeyDictionary[Tables, Experience] = WeakKeyDictionary()

    def __call__(self, segment: Segment, mask: Tensor | None, filtered: bool) -> Iterator[Part]:
        """The parts of a segment, of which the rows of `mask` are eligible; filtered: perhaps only few of them."""
        tables: Tables | None = segment.extras.get("mih")
        if tables is None or (filtered and mask is not None and few_rows(mask, segment.rows)):
            return scanned_parts(segment, mask, filtered)
        experience = self._experience.get(tables)
        if experience is None:
            experience = self._experience.setdefault(tables, Experience(tables, tables.prices or _prices_now(segment)))
        return iter([TablesPart(segment, mask, tables, experience, self._budget)])


def _prices_now(segment: Segment) -> Prices:
    """The prices of a segment whose file says none; those of the model where codes would have to be read first."""
    return measured_scans(segment.codes) if not segment.mapped or in_memory(segment.codes) else Prices()


@dataclass(frozen=True)
class TablesPart:
    """A segment that is searched by its tables, and scanned for the queries that these do not help."""

    segment: Segment
    mask: Tensor | None  # bitmap of the eligible rows
    tables: Tables
    experience: Experience
    budget: float  # of a scan's time

    def topk(self, query: Query, k: int) -> SearchResult:
        k = min(k, self.segment.rows)
        terms = self._terms(self._scan(query, ranged=False))
        if terms is None:
            return topk(query, scanned_parts(self.segment, self.mask, False), k, ordered=True)
        distances, positions, left = tables_topk(self, query, k, terms)
        if len(left) == len(query):
            found = self._scanned_topk(query, k)
            distances = found.distances
        else:
            found = SearchResult(distances, ids_of_rows(self.segment, positions, positions))
            if len(left):
                distances[left], found.ids[left] = self._scanned_topk(query.chosen(left), k)
        farthest = distances[:, -1] if query.nearest is None else distances[:, -1].minimum(query.nearest[:, -1])
        self.experience.tell_ends(k, farthest)
        return found

    def within(self, query: Query, radius: int) -> RangeResult:
        terms = self._terms(self._scan(query, ranged=True))
        if terms is None:
            return within(query, scanned_parts(self.segment, self.mask, False), radius, ordered=True)
        offsets, distances, positions, left = tables_range(self, query, radius, terms)
        if len(left) == len(query):
            return self._scanned_within(query, radius)
        found = RangeResult(offsets, distances, ids_of_rows(self.segment, positions, positions))
        if not len(left):
            return found
        scanned = self._scanned_within(query.chosen(left), radius)
        counts = torch.zeros_like(offsets[1:]).index_copy_(0, left, scanned.offsets.diff())
        return combined_ranges([found, scanned._replace(offsets=pad(counts.cumsum(0), (1, 0)))], radius, ordered=True)

    def _terms(self, scan: Scan) -> Terms | None:
        """The terms of a call; None: it is so small that the scan is better."""
        prices, budget = self.experience.prices.now, self.budget
        if budget < 1:
            if self.segment.mapped and self.experience.cold(self.segment.codes):
                prices = prices._replace(read=prices.read * COLD, compare=prices.compare * COLD)
            if scan.ns(prices) < SMALL_NS["range" if scan.ranged else "topk"]:
                return None
            budget = 1.0 if self.experience.explore() else budget
        return budget, scan.terms(prices)

    def _scan(self, query: Query, ranged: bool) -> Scan:
        codes = self.segment.codes
        return Scan(codes.shape[0], codes.shape[1], len(query), bool(query.bit_weights), ranged)

    def _scanned_topk(self, query: Query, k: int) -> SearchResult:
        parts = scanned_parts(self.segment, self.mask, False)
        found, ns = timed(lambda: topk(query, parts, k, ordered=True))
        self.experience.prices.tell_scan(self._scan(query, ranged=False), ns)
        return found

    def _scanned_within(self, query: Query, radius: int) -> RangeResult:
        parts = scanned_parts(self.segment, self.mask, False)
        found, ns = timed(lambda: within(query, parts, radius, ordered=True))
        self.experience.prices.tell_scan(self._scan(query, ranged=True), ns)
        return found


def tables_topk(part: TablesPart, query: Query, k: int, terms: Terms) -> tuple[Tensor, Tensor, Tensor]:
    """The k nearest rows by the tables: distances and positions [Q, k], and the queries given up, int64."""
    experience, bounds = part.experience, None if query.nearest is None else query.nearest[:, -1]
    budget, prices = terms
    try:
        distances, positions, visited, spent = topk_by_tables(
            query.codes, part.segment.codes, part.mask, experience.prepared, k, bounds, budget, query.bit_weights,
            prices, experience.ends(k),
        )  # fmt: skip
    except ValueError as error:
        raise IndexFolderError(f"{part.tables.file}: {error}") from error
    return distances, positions, _given_up(experience, visited, spent)


def tables_range(part: TablesPart, query: Query, radius: int, terms: Terms) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The rows within a radius by the tables: offsets, distances, positions, and the queries given up."""
    experience = part.experience
    budget, prices = terms
    try:
        offsets, distances, positions, visited, spent = range_by_tables(
            query.codes, part.segment.codes, part.mask, experience.prepared, radius, budget, query.bit_weights, prices
        )
    except ValueError as error:
        raise IndexFolderError(f"{part.tables.file}: {error}") from error
    return offsets, distances, positions, _given_up(experience, visited, spent)


def _given_up(experience: Experience, visited: Tensor, spent: Tensor) -> Tensor:
    """The queries of which no entries were counted to the end."""
    experience.prices.tell_tables(*spent.tolist())
    if len(visited) == 1:  # finding them would take longer
        return visited[:0] if int(visited) >= 0 else visited.new_zeros(1)
    return (visited < 0).nonzero()[:, 0]
