"""One index on several devices, or on one that it is too large for: which codes each of them searches.

The codes stay in host memory or in their files. Of every segment each device gets a copy of an equal share, as long as
there is room; the rest streams through the devices during a search, each taking the next block when it is done with the
last. Every device finds its own nearest codes, and these are merged by (distance, id).
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import chain
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from fasthash._arrays import to_tensor
from fasthash.hamming import RangeResult
from fasthash.index.scan import Part, eligible_parts, nearest, within
from fasthash.index.segments import Contents, Segment
from fasthash.index.stream import BLOCK_BYTES, on_device, streamed

_SHARE_BYTES = 1 << 32  # codes of a share at most, so that memory fills up well
_SHARE_ROWS = 1 << 16  # a segment of fewer rows goes to one device whole
_Found = TypeVar("_Found")


class _Share(NamedTuple):
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
        self._shares: list[_Share] = []
        self._source: tuple[Segment, ...] = ()

    def nearest(
        self, contents: Contents, queries: Tensor, filter: Any, k: int, bits: int, function: str
    ) -> tuple[Tensor, Tensor]:
        """The k nearest of each query: distances int32 and ids int64, [Q, k], where the queries are."""

        def search(own: Tensor, parts: Iterator[Part]) -> tuple[Tensor, Tensor]:
            near, ids = nearest(own, parts, k, bits, ordered=False)
            return near.to(queries.device), ids.to(queries.device)

        found = self._on_each(contents, queries, filter, function, search)
        distances = torch.cat([near for near, _ in found], 1)
        ids = torch.cat([ids for _, ids in found], 1)
        ids, order = torch.where(ids < 0, torch.iinfo(torch.int64).max, ids).sort(dim=1)  # missing ones last
        distances, by_distance = distances.gather(1, order).sort(dim=1, stable=True)
        ids = ids.gather(1, by_distance)[:, :k]
        return distances[:, :k], torch.where(distances[:, :k] > bits, -1, ids)

    def within(self, contents: Contents, queries: Tensor, filter: Any, radius: int, function: str) -> RangeResult:
        """All eligible codes within the radius of each query, where the queries are."""

        def search(own: Tensor, parts: Iterator[Part]) -> RangeResult:
            return RangeResult(*(field.to(queries.device) for field in within(own, parts, radius, ordered=False)))

        found = self._on_each(contents, queries, filter, function, search)
        counts = [result.offsets.diff() for result in found]
        numbers = torch.arange(len(queries), device=queries.device)
        query = torch.cat([numbers.repeat_interleave(own) for own in counts])
        distances = torch.cat([result.distances for result in found])
        ids, order = torch.cat([result.ids for result in found]).sort()
        key = (query * (radius + 1) + distances)[order]
        by_key = key.argsort(stable=True)
        offsets = torch.nn.functional.pad(torch.stack(counts).sum(0).cumsum(0), (1, 0))
        return RangeResult(offsets, distances[order][by_key], ids[by_key])

    def _on_each(
        self,
        contents: Contents,
        queries: Tensor,
        filter: Any,
        function: str,
        search: Callable[[Tensor, Iterator[Part]], _Found],
    ) -> list[_Found]:
        """search(queries, eligible parts) on every device, side by side, each on the caller's current stream there.

        The search brings its results to the host, and so waits for the device: until then the shares it reads stay.
        """
        shares = self._place(contents)
        eligible = _Eligible(contents, filter, function)
        waiting = [share for share in shares if share.device < 0]
        rest = _Shared(eligible.parts(waiting, queries.device))

        def run(number: int, stream: Any) -> _Found:
            device = self.devices[number]
            with contextlib.nullcontext() if stream is None else torch.cuda.stream(stream):
                own = eligible.parts([share for share in shares if share.device == number], device)
                blocks = streamed(rest, device, self.block_bytes) if waiting else ()
                return search(queries.to(device), chain(own, blocks))

        streams = [torch.cuda.current_stream(d) if d.type == "cuda" else None for d in self.devices]
        if len(self.devices) == 1:
            return [run(0, streams[0])]
        with ThreadPoolExecutor(len(self.devices), "fasthash-device") as pool:
            return list(pool.map(run, range(len(self.devices)), streams))

    def _place(self, contents: Contents) -> list[_Share]:
        """The shares of all segments. Those of segments that were there before stay as they are."""
        with self._placing:
            if self._source is not contents.segments:
                known: dict[int, list[_Share]] = {}
                for share in self._shares:
                    known.setdefault(id(self._source[share.number].codes), []).append(share)
                kept = [(n, old) for n, s in enumerate(contents.segments) for old in known.pop(id(s.codes), [])]
                shares = [_placed_again(contents.segments[number], number, old) for number, old in kept]
                self._shares = []  # what is not kept gives its memory back
                known.clear()
                have = {number for number, _ in kept}
                for number, segment in enumerate(contents.segments):
                    if number not in have:
                        shares += self._share_out(segment, number, shares)
                self._shares, self._source = sorted(shares, key=lambda s: (s.number, s.start)), contents.segments
            return self._shares

    def _share_out(self, segment: Segment, number: int, taken: list[_Share]) -> list[_Share]:
        count = len(self.devices) if segment.rows >= _SHARE_ROWS else 1
        rows = min(-(-segment.rows // count), max(64, _SHARE_BYTES // segment.codes.shape[1]))
        rows = -(-rows // 64) * 64
        shares: list[_Share] = []
        for start in range(0, segment.rows, rows):
            stop = min(start + rows, segment.rows)
            need = (stop - start) * (segment.codes.shape[1] + (0 if segment.ids is None else 8))
            loads = [_bytes_on(device, [*taken, *shares]) for device in range(len(self.devices))]
            device = min(range(len(self.devices)), key=loads.__getitem__)
            if need > self._room_on(self.devices[device], loads[device]):
                device = -1
            own = _rows_of(segment, start, stop)
            if device >= 0:
                own = _copied(own, self.devices[device], self.block_bytes)
            shares.append(_Share(number, start, stop, device, own))
        return shares

    def _room_on(self, device: torch.device, taken: int) -> int:
        if self.room is not None:
            return self.room - taken
        if device.type != "cuda":
            return 1 << 62
        free, total = torch.cuda.mem_get_info(device)
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return free + cached - max(total // 10, 1 << 30)


class _Eligible:
    """Which codes a search may find, as parts of the shares."""

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

    def parts(self, shares: list[_Share], device: torch.device) -> Iterator[Part]:
        own = Contents.of([share.segment for share in shares], 0)
        filter = self._ids
        if self._mask is not None:  # of the live rows of these shares
            filter = torch.cat(
                [self._mask[:0], *(self._mask[self._first(share) :][: share.segment.count] for share in shares)]
            )
        return eligible_parts(own, filter, device, self._function)

    def _first(self, share: _Share) -> int:
        """Live rows of the contents before a share."""
        return self._offsets[share.number] + self._contents.segments[share.number].live_count(0, share.start)


class _Shared(Iterator[Part]):
    """An iterator from which several threads take."""

    def __init__(self, parts: Iterable[Part]):
        self._parts = iter(parts)
        self._taking = threading.Lock()

    def __next__(self) -> Part:
        with self._taking:
            return next(self._parts)


def _bytes_on(device: int, shares: Iterable[_Share]) -> int:
    return sum(
        s.segment.codes.nbytes + (0 if s.segment.ids is None else s.segment.ids.nbytes)
        for s in shares
        if s.device == device
    )


def _rows_of(segment: Segment, start: int, stop: int) -> Segment:
    """Rows of a segment, from a multiple of 64 on, as a segment."""
    if (start, stop) == (0, segment.rows):
        return replace(segment, entry=None, tables=None)
    return Segment(
        segment.codes[start:stop],
        segment.id_at(start),
        None if segment.ids is None else segment.ids[start:stop],
        None if segment.live is None else segment.live[start // 64 : (stop + 63) // 64],
        stop - start - segment.live_count(start, stop),
        mapped=segment.mapped,
    )


def _copied(segment: Segment, device: torch.device, block_bytes: int) -> Segment:
    if device == segment.codes.device:
        return segment
    ids = None if segment.ids is None else segment.ids.to(device)
    live = None if segment.live is None else segment.live.to(device)
    return replace(segment, codes=on_device(segment.codes, device, block_bytes), ids=ids, live=live, mapped=False)


def _placed_again(segment: Segment, number: int, old: _Share) -> _Share:
    """The same rows, of which others may have been deleted since."""
    fresh, device = _rows_of(segment, old.start, old.stop), old.segment.codes.device
    live = None if fresh.live is None else fresh.live.to(device)
    kept = replace(old.segment, live=live, deleted=fresh.deleted)
    return old._replace(number=number, segment=kept)
