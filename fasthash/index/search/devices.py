"""One index on several devices, or on one that it is too large for: which codes each of them searches.

The codes stay in host memory or in their files. Of every segment each device gets a copy of an equal part, as long as
there is room; the rest streams through the devices during a search, each taking the next block when it is done with the
last. Every device finds its own nearest codes, and results.py combines them.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import chain
from typing import Any, NamedTuple, TypeVar, cast

import torch
from torch import Tensor

from fasthash._arrays import to_tensor
from fasthash.hamming import RangeResult, SearchResult
from fasthash.index.search.parts import Part, Query, ScannedPart, eligible_parts
from fasthash.index.search.results import combined_ranges, combined_topk, topk, within
from fasthash.index.search.stream import BLOCK_BYTES, on_device, streamed
from fasthash.index.segments import Contents, Segment

_PLACED_BYTES = 1 << 32  # codes that are placed together at most, so that memory fills up well
_SPLIT_ROWS = 1 << 16  # a segment of fewer rows goes to one device whole
_Found = TypeVar("_Found", SearchResult, RangeResult)


class Placed(NamedTuple):
    """Rows of one segment, which one device searches."""

    number: int  # of the segment
    start: int
    stop: int
    device: int  # its number, or -1: any, by streaming
    segment: Segment  # these rows, on that device


class Devices:
    """Searches the contents of an index on these devices.

    room: bytes that copies may take on each device; None: what is free, less a part for searches (the CPU is one
    device among others, whose copies are the codes themselves).
    """

    def __init__(self, devices: Sequence[torch.device], room: int | None = None, block_bytes: int = BLOCK_BYTES):
        self.devices = tuple(devices)
        self.room = room
        self.block_bytes = block_bytes
        self._placing = threading.Lock()
        self._placed: list[Placed] = []
        self._source: tuple[Segment, ...] = ()

    def topk(self, contents: Contents, query: Query, filter: Any, k: int, function: str) -> SearchResult:
        """The k nearest of each query, where the queries are."""
        found = self._on_each(
            contents, query, filter, function, lambda own, parts: topk(own, parts, k, ordered=False)
        )  # fmt: skip
        return combined_topk(found, k, ordered=False)

    def within(self, contents: Contents, query: Query, filter: Any, radius: int, function: str) -> RangeResult:
        """All eligible codes within the radius of each query, where the queries are."""
        found = self._on_each(
            contents, query, filter, function, lambda own, parts: within(own, parts, radius, ordered=False)
        )  # fmt: skip
        return combined_ranges(found, radius, ordered=False)

    def _on_each(
        self,
        contents: Contents,
        query: Query,
        filter: Any,
        function: str,
        search: Callable[[Query, Iterator[Part]], _Found],
    ) -> list[_Found]:
        """search(queries, eligible parts) on every device, side by side, each on the caller's current stream there.

        The results are brought to where the queries are, which waits for the device: until then what it reads stays.
        """
        home = query.codes.device
        placed = self._place(contents)
        eligible = _Eligible(contents, filter, function)
        waiting = [own for own in placed if own.device < 0]
        rest = _Locked(eligible.parts(waiting, home))

        def run(number: int, stream: Any) -> _Found:
            device = self.devices[number]
            with contextlib.nullcontext() if stream is None else torch.cuda.stream(stream):
                own = eligible.parts([each for each in placed if each.device == number], device)
                blocks = streamed(rest, device, self.block_bytes, query.scaled) if waiting else ()
                found = search(query.to(device), chain(own, blocks))
                return type(found)(*(field.to(home) for field in found))

        streams = [torch.cuda.current_stream(d) if d.type == "cuda" else None for d in self.devices]
        if len(self.devices) == 1:
            return [run(0, streams[0])]
        with ThreadPoolExecutor(len(self.devices), "fasthash-device") as pool:
            return list(pool.map(run, range(len(self.devices)), streams))

    def _place(self, contents: Contents) -> list[Placed]:
        """Where the rows of all segments are. Those of segments that were there before stay as they are."""
        with self._placing:
            if self._source is not contents.segments:
                known: dict[int, list[Placed]] = {}
                for own in self._placed:
                    known.setdefault(id(self._source[own.number].codes), []).append(own)
                kept = [(n, old) for n, s in enumerate(contents.segments) for old in known.pop(id(s.codes), [])]
                placed = [_placed_again(contents.segments[number], number, old) for number, old in kept]
                self._placed = []  # what is not kept gives its memory back
                known.clear()
                have = {number for number, _ in kept}
                for number, segment in enumerate(contents.segments):
                    if number not in have:
                        placed += self._split(segment, number, placed)
                for device in self.devices:
                    if device.type == "cuda":
                        torch.cuda.current_stream(device).synchronize()  # searches on other streams will read them
                self._placed, self._source = sorted(placed, key=lambda own: (own.number, own.start)), contents.segments
            return self._placed

    def _split(self, segment: Segment, number: int, taken: list[Placed]) -> list[Placed]:
        """Places a segment that is new, in equal parts, where there is room beside what is placed already."""
        count = len(self.devices) if segment.rows >= _SPLIT_ROWS else 1
        rows = min(-(-segment.rows // count), max(64, _PLACED_BYTES // segment.codes.shape[1]))
        rows = -(-rows // 64) * 64
        placed: list[Placed] = []
        for start in range(0, segment.rows, rows):
            stop = min(start + rows, segment.rows)
            need = (stop - start) * (_bytes_of(segment) // segment.rows)
            loads = [_bytes_on(device, [*taken, *placed]) for device in range(len(self.devices))]
            device = min(range(len(self.devices)), key=loads.__getitem__)
            if need > self._room_on(self.devices[device], loads[device]):
                device = -1
            own = _rows_of(segment, start, stop)
            if device >= 0:
                own = _copied(own, self.devices[device], self.block_bytes)
            placed.append(Placed(number, start, stop, device, own))
        return placed

    def _room_on(self, device: torch.device, taken: int) -> int:
        if self.room is not None:
            return self.room - taken
        if device.type != "cuda":
            return 1 << 62
        free, total = torch.cuda.mem_get_info(device)
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return free + cached - max(total // 10, 1 << 30)


class _Eligible:
    """Which codes a search may find, as parts of what is placed."""

    def __init__(self, contents: Contents, filter: Any, function: str):
        self._contents, self._function = contents, function
        self._ids: Any = None
        self._mask: Tensor | None = None
        self._offsets: list[int] = []
        if filter is None:
            return
        given = to_tensor(filter, function, "filter").cpu()
        eligible_parts(contents._replace(segments=()), given, given.device, function)  # refuses what it must
        if given.dtype != torch.bool:
            self._ids = given
        elif contents.ordered:
            self._mask, counts = given, [0, *(segment.count for segment in contents.segments)]
            self._offsets = torch.tensor(counts).cumsum(0).tolist()
        else:
            self._ids = contents.ids()[given]

    def parts(self, placed: list[Placed], device: torch.device) -> Iterator[ScannedPart]:
        own = Contents.of([each.segment for each in placed], 0)
        filter = self._ids
        if self._mask is not None:  # of the live rows of these
            filter = torch.cat(
                [self._mask[:0], *(self._mask[self._first(each) :][: each.segment.count] for each in placed)]
            )
        return cast(Iterator[ScannedPart], eligible_parts(own, filter, device, self._function))  # it makes no others

    def _first(self, placed: Placed) -> int:
        """Live rows of the contents before these."""
        return self._offsets[placed.number] + self._contents.segments[placed.number].live_count(0, placed.start)


class _Locked(Iterator[ScannedPart]):
    """An iterator from which several threads take, one at a time."""

    def __init__(self, parts: Iterable[ScannedPart]):
        self._parts = iter(parts)
        self._taking = threading.Lock()

    def __next__(self) -> ScannedPart:
        with self._taking:
            return next(self._parts)


def _bytes_on(device: int, placed: Iterable[Placed]) -> int:
    own = [each.segment for each in placed if each.device == device]
    return sum(map(_bytes_of, own))


def _bytes_of(segment: Segment) -> int:
    """Total bytes of its codes, ids and scales; each row has the same share."""
    return sum(part.nbytes for part in (segment.codes, segment.ids, segment.scales) if part is not None)


def _rows_of(segment: Segment, start: int, stop: int) -> Segment:
    """Rows of a segment, from a multiple of 64 on, as a segment."""
    if (start, stop) == (0, segment.rows):
        return replace(segment, entry=None, extras={})
    return Segment(
        segment.codes[start:stop],
        segment.id_at(start),
        None if segment.ids is None else segment.ids[start:stop],
        None if segment.live is None else segment.live[start // 64 : (stop + 63) // 64],
        stop - start - segment.live_count(start, stop),
        mapped=segment.mapped,
        scales=None if segment.scales is None else segment.scales[start:stop],
    )


def _copied(segment: Segment, device: torch.device, block_bytes: int) -> Segment:
    if device == segment.codes.device:
        return segment
    ids, live, scales = (None if t is None else t.to(device) for t in (segment.ids, segment.live, segment.scales))
    codes = on_device(segment.codes, device, block_bytes)
    return replace(segment, codes=codes, ids=ids, live=live, scales=scales, mapped=False)


def _placed_again(segment: Segment, number: int, old: Placed) -> Placed:
    """The same rows, of which others may have been deleted since."""
    fresh, device = _rows_of(segment, old.start, old.stop), old.segment.codes.device
    live = None if fresh.live is None else fresh.live.to(device)
    kept = replace(old.segment, live=live, deleted=fresh.deleted)
    return old._replace(number=number, segment=kept)
