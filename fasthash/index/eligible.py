"""The codes of an index that a filter allows, ascending by id, in blocks that fit into memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

from fasthash.index.bitmap import count_rows, rows_between, unpack_rows
from fasthash.index.merge import id_order, joined, windows
from fasthash.index.search.parts import ScannedPart, eligible_parts
from fasthash.index.segments import Contents, Segment

_WINDOW = 1 << 21  # rows that are sorted at once where the ids of segments interleave


class Block(NamedTuple):
    """Codes uint8 [N, W] in the host's memory, and their ids, ascending."""

    codes: Tensor
    ids: Tensor | int  # int64 [N]; a number: from there on

    def numbers(self, rows: Tensor) -> Tensor:
        """The ids of rows."""
        return rows + self.ids if isinstance(self.ids, int) else self.ids[rows]


@dataclass(frozen=True, eq=False)
class _Chosen:
    """Rows of a segment: those of a bitmap, those that are listed, or all."""

    segment: Segment
    mask: Tensor | None = None
    rows: Tensor | None = None  # int64, ascending

    def picked(self, start: int, stop: int) -> Tensor | None:
        """Those from start to before stop; None: all of these."""
        if self.rows is not None:
            ends = torch.searchsorted(self.rows, torch.tensor([start, stop], device=self.rows.device))
            return self.rows[int(ends[0]) : int(ends[1])]
        return None if self.mask is None else rows_between(self.mask, start, stop)

    def count(self, start: int, stop: int) -> int:
        """How many of them are from start to before stop."""
        if self.mask is not None and self.rows is None:
            whole = (start, stop) == (0, self.segment.rows)
            return count_rows(self.mask) if whole else int(unpack_rows(self.mask, start, stop).sum())
        rows = self.picked(start, stop)
        return stop - start if rows is None else len(rows)

    def ids(self, start: int, stop: int) -> Tensor | int:
        """Their ids, in the host's memory."""
        rows, segment = self.picked(start, stop), self.segment
        if rows is not None:
            return segment.ids_of(rows).cpu()
        return segment.first_id + start if segment.ids is None else segment.ids[start:stop].cpu()

    def codes(self, start: int, stop: int) -> Tensor:
        """Their codes, in the host's memory; not copied where all rows are taken."""
        rows, codes = self.picked(start, stop), self.segment.codes
        return (codes[start:stop] if rows is None else codes[rows]).cpu()


_Span = tuple[_Chosen, int, int]  # rows start .. stop
_Window = list[_Span]  # of segments whose ids may interleave


class Eligible:
    """Codes with ids, ascending. Before its blocks are read, `cut` says how large they are.

    starts: how many codes come before each block, and after the last one how many there are.
    """

    def __init__(self, parts: Sequence[_Chosen], width: int, ordered: bool):
        """ordered: the ids of a part are below those of the next."""
        self.width, self._ordered, self._parts = width, ordered, parts
        self._count = sum(part.count(0, part.segment.rows) for part in parts)
        self.starts, self._blocks = [0], list[list[_Window]]()

    @classmethod
    def of_codes(cls, codes: Tensor) -> Eligible:
        """Rows of an array, which are their own ids."""
        return cls([_Chosen(Segment(codes, 0))] if len(codes) else [], codes.shape[1], True)

    @classmethod
    def of(cls, contents: Contents, width: int, filter: Any, device: torch.device, function: str) -> Eligible:
        """The live codes of an index that `filter` (ids or a mask) allows."""
        found: dict[int, list[_Chosen]] = {}
        for part in cast(Iterator[ScannedPart], eligible_parts(contents, filter, device, function, _whole)):
            found.setdefault(id(part.segment), []).append(_Chosen(part.segment, part.mask, part.rows))
        parts = []
        for own in found.values():  # few rows of a segment come in several parts
            rows = [part.rows for part in own if part.rows is not None]
            parts.append(replace(own[0], rows=torch.cat(rows)) if rows else own[0])
        return cls(parts, width, contents.ordered)

    def __len__(self) -> int:
        return self._count

    def cut(self, most: int) -> Eligible:
        """Makes the blocks: one of all codes where they are at most `most`."""
        if len(self) > most:
            self._blocks = list(_blocks(self._parts, most))
        elif len(self):
            spans = [(part, 0, part.segment.rows) for part in self._parts]
            self._blocks = [[[span] for span in spans] if self._ordered else [spans]]
        for block in self._blocks:
            here = sum(part.count(start, stop) for window in block for part, start, stop in window)
            self.starts.append(self.starts[-1] + here)
        return self

    @property
    def blocks(self) -> int:
        return len(self._blocks)

    def block(self, number: int) -> Block:
        """One block. Its codes are copied unless they are rows of one segment as it is."""
        windows = self._blocks[number]
        codes = joined([_codes(window) for window in windows])
        if len(windows) == len(windows[0]) == 1:
            part, start, stop = windows[0][0]
            return Block(codes, part.ids(start, stop))
        return Block(codes, joined([_ids(window) for window in windows]))

    def ids(self) -> Tensor:
        """All ids, int64 [N], ascending."""
        found = [_ids(window) for block in self._blocks for window in block]
        return joined(found) if found else torch.empty(0, dtype=torch.int64)


def _whole(segment: Segment, mask: Tensor | None, filtered: bool) -> Iterator[ScannedPart]:
    yield ScannedPart(segment, segment.codes, mask, 0)


def _blocks(parts: Sequence[_Chosen], most: int) -> Iterator[list[_Window]]:
    """Windows in ascending order of id, as many as have at most `most` codes."""
    chosen = {id(part.segment): part for part in parts}
    block, count = list[_Window](), 0
    for cut in windows([(part.segment, 0, part.segment.rows) for part in parts], min(most, _WINDOW)):
        window = [(chosen[id(segment)], start, stop) for segment, start, stop in cut]
        here = sum(part.count(start, stop) for part, start, stop in window)
        if not here:
            continue
        if block and count + here > most:
            yield block
            block, count = [], 0
        if block and len(block[-1]) == len(window) == 1 and _follows(window[0], block[-1][0]):
            window = [(window[0][0], block.pop()[0][1], window[0][2])]  # it goes on where the last one ends
        block.append(window)
        count += here
    if block:
        yield block


def _follows(span: _Span, last: _Span) -> bool:
    return span[0] is last[0] and span[1] == last[2]


def _codes(window: _Window) -> Tensor:
    codes = joined([part.codes(start, stop) for part, start, stop in window])
    return codes if len(window) == 1 else codes[id_order(_unsorted_ids(window))]


def _ids(window: _Window) -> Tensor:
    ids = _unsorted_ids(window)
    return ids if len(window) == 1 else ids[id_order(ids)]


def _unsorted_ids(window: _Window) -> Tensor:
    found = ((part.ids(start, stop), part.count(start, stop)) for part, start, stop in window)
    return joined([torch.arange(ids, ids + count) if isinstance(ids, int) else ids for ids, count in found])
