"""The parts of a search: the eligible codes of each segment, and how they are searched.

A part finds its own nearest codes, and results.py combines what all parts find. Large segments are scanned in spans, so
that mapped ones are read ahead and no search needs memory in proportion to the index.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from fasthash._arguments import refuse_zeros_and_ones
from fasthash._arrays import to_tensor
from fasthash._bit_weights import largest
from fasthash.codes import check_codes, code_bytes, pack_bits
from fasthash.hamming import RangeResult, SearchResult
from fasthash.index.bitmap import add_ascending, count_rows, pack_rows, row_blocks, unpack_rows, with_rows
from fasthash.index.merge import id_order, joined, windows
from fasthash.index.segments import Contents, Segment, id_tensor

_GATHER = 16  # where fewer than one row in this many is eligible, the rows are copied out instead of masked
_SPAN_BYTES = 1 << 28  # codes that are scanned at once
_WINDOW = 1 << 21  # ids that are sorted or looked up at once to align a filter
_topk = torch.ops.fasthash.hamming_topk.default  # the overloads themselves: finding them takes a microsecond
_range = torch.ops.fasthash.hamming_range.default


@dataclass(frozen=True)
class Query:
    """The queries of a search, and how their distance to a code is measured: by number or weight of differing bits.

    Another distance is another class with these methods, as RealQuery is (real.py). Scanned parts and results use
    `topk`, `within`, `largest` and `nothing`; tables are for this distance alone.
    """

    codes: Tensor  # packed uint8 [Q, W]
    bits: int
    bit_weights: tuple[int, ...] = ()  # as of _bit_weights.py; (): every bit counts 1
    nearest: Tensor | None = None  # int32 [Q, k], distances of the k nearest codes so far: farther ones are not wanted

    def __len__(self) -> int:
        return len(self.codes)

    @property
    def largest(self) -> float:
        """No distance is above."""
        return largest_distance(self.bits, self.bit_weights)

    @property
    def scaled(self) -> bool:
        """Whether `topk` uses the scales of codes."""
        return False

    def nothing(self) -> Tensor:
        """Distances to no code, [Q, 0]."""
        return self.codes.new_empty((len(self), 0), dtype=torch.int32)

    def topk(self, codes: Tensor, mask: Tensor | None, k: int, scales: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Scans codes [N, W], those of the bitmap `mask`: distances and positions [Q, k], k <= N; -1 where missing.

        scales: float16 [N], the code_scale of each, which distances of differing bits do not use.
        """
        distances, positions = _topk(self.codes, codes, mask, k, self.bit_weights)
        return distances, positions

    def within(self, codes: Tensor, mask: Tensor | None, radius: int) -> tuple[Tensor, Tensor, Tensor]:
        """Scans codes for those within a radius: offsets [Q + 1], distances [T], positions [T]."""
        offsets, distances, positions = _range(self.codes, codes, mask, radius, self.bit_weights)
        return offsets, distances, positions

    def bounded(self, nearest: Tensor) -> Query:
        """The same queries, which have found k codes at these distances; parts may use it, and need not."""
        return replace(self, nearest=nearest)

    def chosen(self, rows: Tensor) -> Query:
        """Some of the queries."""
        return replace(self, codes=self.codes[rows], nearest=None if self.nearest is None else self.nearest[rows])

    def to(self, device: torch.device) -> Query:
        """The same queries on another device."""
        nearest = None if self.nearest is None else self.nearest.to(device)
        return replace(self, codes=self.codes.to(device), nearest=nearest)


def largest_distance(bits: int, bit_weights: tuple[int, ...]) -> int:
    """The distance of two codes of which all bits differ."""
    return largest(bit_weights, code_bytes(bits)) if bit_weights else bits


def parse_queries(
    queries: Any, bits: int, bit_weights: tuple[int, ...], device: torch.device, function: str
) -> tuple[Query, Tensor | None]:
    """Queries as a user gives them, packed or real-valued, on a device; and the real-valued ones. One may be 1-D."""
    given = to_tensor(queries, function, "queries").detach().to(device)
    if given.ndim == 1:
        given = given[None]
    if not given.is_floating_point():
        check_codes(given, bits, function, "queries")
        return Query(given, bits, bit_weights), None
    check_width(given, bits, function)
    check_range(given, function)
    return Query(pack_bits(given), bits, bit_weights), given


def check_width(real: Tensor, bits: int, function: str) -> None:
    """Raises ValueError for real-valued queries of another width."""
    if real.ndim != 2 or real.shape[1] != bits:
        raise ValueError(f"{function}: real-valued queries must be [Q, {bits}], got shape {tuple(real.shape)}")


def check_range(real: Tensor, function: str) -> None:
    """Raises ValueError for real-valued queries outside [0, 1]."""
    outside = ~((real >= 0) & (real <= 1))  # NaN too
    if outside.any():
        raise ValueError(f"{function}: real-valued queries must be in [0, 1], got {float(real[outside][0])}")


class Part(Protocol):
    """Eligible codes of one segment that are searched together. Results are ordered by (distance, id)."""

    def topk(self, query: Query, k: int) -> SearchResult:
        """The nearest codes of each query, [Q, k] or all columns that there are; id -1 where one is missing."""

    def within(self, query: Query, radius: int) -> RangeResult:
        """All codes within the radius of each query."""


PartsOf = Callable[[Segment, Tensor | None, bool], Iterator[Part]]  # see scanned_parts


class ScannedPart(NamedTuple):
    """Codes of one segment that are scanned: those that `mask` says, or all of them."""

    segment: Segment
    codes: Tensor
    mask: Tensor | None  # bitmap of [len(codes)]
    start: int  # row of the first code, where `rows` does not say
    rows: Tensor | None = None  # int64 [len(codes)]: their rows in the segment

    def topk(self, query: Query, k: int) -> SearchResult:
        distances, positions = query.topk(self.codes, self.mask, min(k, len(self.codes)), self.scales())
        return SearchResult(distances, self.ids_of(positions))

    def within(self, query: Query, radius: int) -> RangeResult:
        offsets, distances, positions = query.within(self.codes, self.mask, radius)
        return RangeResult(offsets, distances, self.ids_of(positions))

    def scales(self) -> Tensor | None:
        """The code_scale of each code; None where the segment has none."""
        if self.segment.scales is None:
            return None
        rows = slice(self.start, self.start + len(self.codes)) if self.rows is None else self.rows
        return self.segment.scales[rows]

    def ids_of(self, positions: Tensor) -> Tensor:
        """Positions of a result -> ids; -1 stays."""
        rows = positions + self.start if self.rows is None else self.rows[positions]
        return ids_of_rows(self.segment, rows, positions)


def ids_of_rows(segment: Segment, rows: Tensor, positions: Tensor) -> Tensor:
    """The ids of rows of a segment, -1 where the position is -1."""
    if segment.ids is None:
        return torch.where(positions < 0, -1, rows + segment.first_id)
    return torch.where(positions < 0, -1, segment.ids[rows.clamp(min=0)])


def mapped_codes(part: Part) -> Tensor | None:
    """The codes that a part reads from first to last, where they are pages of a file: to read ahead."""
    return part.codes if isinstance(part, ScannedPart) and part.segment.mapped and part.rows is None else None


def scanned_parts(segment: Segment, mask: Tensor | None, filtered: bool) -> Iterator[ScannedPart]:
    """A segment, of which the rows of `mask` are eligible, in parts that are scanned.

    They are spans on the CPU, and the whole segment where kernels bound their memory themselves. filtered: perhaps only
    few rows are eligible. Few ones are copied out, but on the CPU, where the kernels pick them out themselves.
    """
    on_cpu = segment.codes.device.type == "cpu"
    gather = filtered and not on_cpu
    span = max(64, _SPAN_BYTES // segment.codes.shape[1] // 64 * 64) if on_cpu else segment.rows
    for start in range(0, segment.rows, span):
        codes = segment.codes[start : start + span]
        if mask is None:
            yield ScannedPart(segment, codes, None, start)
            continue
        words = mask[start // 64 : (start + len(codes) + 63) // 64]
        if gather and few_rows(words, len(codes)):
            rows = unpack_rows(words, 0, len(codes)).nonzero()[:, 0] + start
            if len(rows):
                yield ScannedPart(segment, segment.codes[rows], None, 0, rows)
        else:
            yield ScannedPart(segment, codes, words, start)


def few_rows(mask: Tensor, rows: int) -> bool:
    """Whether so few of the rows are in the set that each is better looked at by itself."""
    return count_rows(mask) * _GATHER < rows


def eligible_parts(
    contents: Contents, filter: Any, device: torch.device, function: str, parts_of: PartsOf = scanned_parts
) -> Iterator[Part]:
    """The eligible codes, part by part, in the order of the segments; made as they are asked for.

    parts_of: makes the parts of a segment, as scanned_parts does.
    """
    segments = [segment for segment in contents.segments if segment.count]
    if filter is None:
        return (part for segment in segments for part in parts_of(segment, segment.live, False))
    given = to_tensor(filter, function, "filter").to(device)
    if given.dtype != torch.bool:
        refuse_zeros_and_ones(given, function)
        allowed = _distinct(id_tensor(given, function, "filter").contiguous())
        return (part for segment in segments for part in _allowed_parts(segment, allowed, parts_of))
    if given.shape != (contents.size,):
        raise ValueError(
            f"{function}: a boolean filter must have one value for each of the {contents.size} ids, "
            f"got shape {tuple(given.shape)}"
        )
    masks: Iterable[Tensor] = _masks_in_order(segments, given) if contents.ordered else _masks_by_id(segments, given)
    return (part for segment, mask in zip(segments, masks, strict=True) for part in parts_of(segment, mask, True))


def _distinct(ids: Tensor) -> Tensor:
    """The same ids, ascending, each once; not copied where they are so already."""
    if not bool((ids[1:] > ids[:-1]).all()):
        ids = torch.from_numpy(np.sort(ids.numpy())) if ids.device.type == "cpu" else ids.sort().values
        ids = torch.unique_consecutive(ids)
    return ids


def _allowed_parts(segment: Segment, allowed: Tensor, parts_of: PartsOf) -> Iterator[Part]:
    """The live rows with these distinct, ascending ids. Few ones are gathered, without a bitmap of all rows."""
    edges = torch.tensor([segment.first_id, segment.last_id], device=allowed.device)
    start, stop = (
        int(torch.searchsorted(allowed, edges[0])),
        int(torch.searchsorted(allowed, edges[1], right=True)),
    )
    few = (stop - start) * _GATHER < segment.rows
    size = max(1, min(_WINDOW, _SPAN_BYTES // _GATHER // segment.codes.shape[1])) if few else _WINDOW
    pieces = (segment.find(ids) for ids in torch.split(allowed[start:stop], size))
    found = (rows[rows >= 0] for rows in pieces)
    if few:
        for rows in found:
            if len(rows):
                yield ScannedPart(segment, segment.codes[rows], None, 0, rows)
        return
    words = torch.zeros((segment.rows + 63) // 64, dtype=torch.int64, device=allowed.device)
    for rows in found:
        add_ascending(words, rows)
    yield from parts_of(segment, words, True)


def _masks_in_order(segments: list[Segment], given: Tensor) -> Iterator[Tensor]:
    """A boolean mask over the live rows of segments one after the other, as bitmaps of their rows."""
    at = 0
    for segment in segments:
        part = given[at : at + segment.count]
        at += segment.count
        if segment.live is None:
            yield pack_rows(part)
        else:
            yield _deposited(segment, segment.live, part)


def _deposited(segment: Segment, live: Tensor, given: Tensor) -> Tensor:
    """A mask over the live rows of a segment as a bitmap of all its rows."""
    words, at = [], 0
    for _, block in row_blocks(live, segment.rows):
        count = int(block.sum())
        part, at = given[at : at + count], at + count
        if count < len(block):
            part = torch.zeros_like(block).masked_scatter_(block, part)
        words.append(pack_rows(part))
    return torch.cat(words)


def _masks_by_id(segments: list[Segment], given: Tensor) -> list[Tensor]:
    """A boolean mask over all live ids in ascending order, as bitmaps of the rows of segments whose ids interleave."""
    masks = [torch.zeros((s.rows + 63) // 64, dtype=torch.int64, device=given.device) for s in segments]
    number_of = {id(segment): number for number, segment in enumerate(segments)}
    at = 0
    for window in windows([(segment, 0, segment.rows) for segment in segments], _WINDOW):
        rows = [segment.live_rows(start, stop) for segment, start, stop in window]
        ids = joined([segment.ids_of(own) for (segment, _, _), own in zip(window, rows, strict=True)])
        chosen = torch.empty(len(ids), dtype=torch.bool, device=given.device)
        chosen[id_order(ids)] = given[at : at + len(ids)]
        at += len(ids)
        for (segment, _, _), own, here in zip(window, rows, chosen.split([len(own) for own in rows]), strict=True):
            with_rows(masks[number_of[id(segment)]], own[here])
    return masks
