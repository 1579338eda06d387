"""Search over several segments: each is scanned by itself, the results are merged by (distance, id).

Large segments are scanned in spans, so that mapped ones are read ahead and no search needs memory in proportion to the
index.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from fasthash._arrays import to_tensor
from fasthash.codes import code_bytes
from fasthash.hamming import RangeResult
from fasthash.index.bitmap import add_ascending, count_rows, pack_rows, row_blocks, unpack_rows, with_rows
from fasthash.index.merge import id_order, joined, windows
from fasthash.index.mih import AUTO_BYTES, COLD, tables_range, tables_topk
from fasthash.index.readahead import in_memory, read_ahead
from fasthash.index.segments import Contents, Segment, id_tensor

_GATHER = 16  # where fewer than one row in this many is eligible, the rows are copied out instead of masked
_SPAN_BYTES = 1 << 28  # codes that are scanned at once
_WINDOW = 1 << 21  # ids that are sorted or looked up at once to align a filter
_RESCORE_BYTES = 1 << 22  # codes of a rescoring block


class Part(NamedTuple):
    """Codes of one segment that are scanned together: those that `mask` says, or all of them."""

    segment: Segment
    codes: Tensor
    mask: Tensor | None  # bitmap of [len(codes)]
    start: int  # row of the first code, where `rows` does not say
    rows: Tensor | None = None  # int64 [len(codes)]: their rows in the segment
    share: float | None = None  # search the whole segment by its tables: how long that may take, of a scan's time

    def ids_of(self, positions: Tensor) -> Tensor:
        """Positions of a result -> ids; -1 stays."""
        rows = positions + self.start if self.rows is None else self.rows[positions]
        if self.segment.ids is None:
            return torch.where(positions < 0, -1, rows + self.segment.first_id)
        return torch.where(positions < 0, -1, self.segment.ids[rows.clamp_(min=0)])

    def mapped(self) -> Tensor | None:
        return self.codes if self.segment.mapped and self.rows is None and self.share is None else None


def eligible_parts(
    contents: Contents, filter: Any, device: torch.device, function: str, share: float | None = None
) -> Iterator[Part]:
    """The eligible codes, part by part, in the order of the segments; made as they are asked for.

    share: None scans all segments; else those that have tables are searched by them (Part.share).
    """
    segments = [segment for segment in contents.segments if segment.count]
    if filter is None:
        return (part for segment in segments for part in _parts(segment, segment.live, False, share))
    given = to_tensor(filter, function, "filter").to(device)
    if given.dtype != torch.bool:
        _refuse_numbers_for_bools(given, contents.size, function)
        allowed = _distinct(id_tensor(given, function, "filter").contiguous())
        return (part for segment in segments for part in _allowed_parts(segment, allowed, share))
    if given.shape != (contents.size,):
        raise ValueError(
            f"{function}: a boolean filter must have one value for each of the {contents.size} ids, "
            f"got shape {tuple(given.shape)}"
        )
    masks: Iterable[Tensor] = _masks_in_order(segments, given) if contents.ordered else _masks_by_id(segments, given)
    return (part for segment, mask in zip(segments, masks, strict=True) for part in _parts(segment, mask, True, share))


def _parts(segment: Segment, mask: Tensor | None, count: bool, share: float | None) -> Iterator[Part]:
    """A segment, of which the rows of `mask` are eligible: in spans on the CPU, whole where kernels bound their memory.

    count: few of them are gathered, but on the CPU, where the kernels pick them out themselves.
    share: by its tables, whole, where it has some and enough rows are eligible.
    """
    if share is not None and segment.tables is not None:
        few = mask is not None and count and count_rows(mask) * _GATHER < segment.rows
        if not few and (share >= 1 or (segment.codes.numel() >= AUTO_BYTES and segment.tables.trials.worthwhile())):
            cold = share < 1 and segment.mapped and not in_memory(segment.codes, samples=8)
            yield Part(segment, segment.codes, mask, 0, None, share * COLD if cold else share)
            return
    on_cpu = segment.codes.device.type == "cpu"
    gather = count and not on_cpu
    span = max(64, _SPAN_BYTES // segment.codes.shape[1] // 64 * 64) if on_cpu else segment.rows
    for start in range(0, segment.rows, span):
        codes = segment.codes[start : start + span]
        if mask is None:
            yield Part(segment, codes, None, start)
            continue
        words = mask[start // 64 : (start + len(codes) + 63) // 64]
        eligible = count_rows(words) if gather else len(codes)
        if eligible * _GATHER < len(codes):
            if eligible:
                rows = unpack_rows(words, 0, len(codes)).nonzero()[:, 0] + start
                yield Part(segment, segment.codes[rows], None, 0, rows)
        else:
            yield Part(segment, codes, words, start)


def _refuse_numbers_for_bools(given: Tensor, size: int, function: str) -> None:
    """Zeros and ones of 8 bits, one for each code, with repeats: not ids, but a mask of the wrong type."""
    if given.dtype in (torch.uint8, torch.int8) and given.shape == (size,):
        zeros, ones = int((given == 0).sum()), int((given == 1).sum())
        if zeros + ones == size and max(zeros, ones) > 1:
            raise TypeError(
                f"{function}: filter is a mask of {given.dtype}, which would be read as ids; make it boolean"
            )


def _distinct(ids: Tensor) -> Tensor:
    """The same ids, ascending, each once; not copied where they are so already."""
    if not bool((ids[1:] > ids[:-1]).all()):
        ids = torch.from_numpy(np.sort(ids.numpy())) if ids.device.type == "cpu" else ids.sort().values
        ids = torch.unique_consecutive(ids)
    return ids


def _allowed_parts(segment: Segment, allowed: Tensor, share: float | None) -> Iterator[Part]:
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
                yield Part(segment, segment.codes[rows], None, 0, rows)
        return
    words = torch.zeros((segment.rows + 63) // 64, dtype=torch.int64, device=allowed.device)
    for rows in found:
        add_ascending(words, rows)
    yield from _parts(segment, words, True, share)


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


def nearest(queries: Tensor, parts: Iterable[Part], k: int, bits: int, ordered: bool) -> tuple[Tensor, Tensor]:
    """The k nearest of each query: distances int32 and ids int64, [Q, k], ordered by (distance, id).

    Places beyond the eligible codes have id -1 and distance bits + 1.
    """
    distances = torch.empty((len(queries), 0), dtype=torch.int32, device=queries.device)
    ids = torch.empty((len(queries), 0), dtype=torch.int64, device=queries.device)
    for part in read_ahead(parts, Part.mapped):
        if part.share is None:
            near, positions = torch.ops.fasthash.hamming_topk(queries, part.codes, part.mask, min(k, len(part.codes)))
            near_ids = part.ids_of(positions)
        else:
            bounds = distances[:, -1] if ids.shape[1] == k else None
            near, near_ids = _nearest_by_tables(queries, part, part.share, k, bits, bounds)
        if ids.shape[1] == 0:
            distances, ids = near, near_ids
        else:
            distances, ids = torch.cat([distances, near], 1), torch.cat([ids, near_ids], 1)
            distances, ids = _ordered(distances, ids, k, by_id=not ordered)
    distances.masked_fill_(ids < 0, bits + 1)  # the kernels count the padding bits too
    if ids.shape[1] < k:
        missing = (0, k - ids.shape[1])
        distances = torch.nn.functional.pad(distances, missing, value=bits + 1)
        ids = torch.nn.functional.pad(ids, missing, value=-1)
    return distances, ids


def _nearest_by_tables(
    queries: Tensor, part: Part, share: float, k: int, bits: int, bounds: Tensor | None
) -> tuple[Tensor, Tensor]:
    """The nearest of one segment: by its tables, and by scanning it where they do not help."""
    k = min(k, part.segment.rows)
    near, positions, left = tables_topk(queries, part.segment, part.mask, k, bounds, share)
    parts = _parts(part.segment, part.mask, False, None)
    if len(left) == len(queries):
        return nearest(queries, parts, k, bits, ordered=True)
    near_ids = part.ids_of(positions)
    if len(left):
        near[left], near_ids[left] = nearest(queries[left], parts, k, bits, ordered=True)
    return near, near_ids


def _ordered(distances: Tensor, ids: Tensor, k: int, by_id: bool) -> tuple[Tensor, Tensor]:
    """The first k of each row by (distance, id); by_id=False: equal distances stand in the order of ids already."""
    if by_id:
        ids, order = ids.sort(dim=1)
        distances = distances.gather(1, order)
    distances, order = distances.sort(dim=1, stable=True)
    return distances[:, :k], ids.gather(1, order)[:, :k]


def rescored(contents: Contents, queries: Tensor, ids: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Orders candidates, int64 [Q, C >= k], by (sum_d |q_d - b_d|, id): float32 and int64 [Q, k].

    Sums are taken in float64 and rounded once, so that the order of summation does not show. Missing candidates (-1)
    have distance bits + 1.
    """
    bits, width = queries.shape[1], code_bytes(queries.shape[1])
    distances = torch.empty(ids.shape, dtype=torch.float32, device=ids.device)
    rows = max(1, _RESCORE_BYTES // max(1, ids.shape[1] * width))
    for start in range(0, len(ids), rows):
        block = ids[start : start + rows]
        codes, _ = contents.codes_of(block.reshape(-1), width)
        distances[start : start + rows] = torch.ops.fasthash.asymmetric_distances(
            queries[start : start + rows], codes.view(*block.shape, width)
        )
    return _ordered(distances.masked_fill_(ids < 0, bits + 1), ids, k, by_id=True)


def within(queries: Tensor, parts: Iterable[Part], radius: int, ordered: bool) -> RangeResult:
    """All eligible codes within the radius of each query."""
    device = queries.device
    counts = torch.zeros(len(queries), dtype=torch.int64, device=device)
    rows = [torch.empty(0, dtype=torch.int64, device=device)]  # which query
    distances = [torch.empty(0, dtype=torch.int32, device=device)]
    ids = [torch.empty(0, dtype=torch.int64, device=device)]
    for part in read_ahead(parts, Part.mapped):
        if part.share is None:
            offsets, near, positions = torch.ops.fasthash.hamming_range(queries, part.codes, part.mask, radius)
            near_ids = part.ids_of(positions)
        else:
            offsets, near, near_ids = _within_by_tables(queries, part, part.share, radius)
        counts += offsets.diff()
        rows.append(_rows(offsets, len(near)))
        distances.append(near)
        ids.append(near_ids)
    offsets = torch.nn.functional.pad(counts.cumsum(0), (1, 0))
    if len(ids) == 2:
        return RangeResult(offsets, distances[1], ids[1])
    key, all_distances, all_ids = torch.cat(rows), torch.cat(distances), torch.cat(ids)
    key = key * (radius + 1) + all_distances
    if not ordered:
        all_ids, order = all_ids.sort()
        key, all_distances = key[order], all_distances[order]
    order = key.argsort(stable=True)
    return RangeResult(offsets, all_distances[order], all_ids[order])


def _within_by_tables(queries: Tensor, part: Part, share: float, radius: int) -> tuple[Tensor, Tensor, Tensor]:
    """Those of one segment within the radius: by its tables, and by scanning it where they do not help."""
    offsets, near, positions, left = tables_range(queries, part.segment, part.mask, radius, share)
    ids = part.ids_of(positions)
    if not len(left):
        return offsets, near, ids
    scanned = within(queries[left], _parts(part.segment, part.mask, False, None), radius, ordered=True)
    counts = offsets.diff().index_add_(0, left, scanned.offsets.diff())
    query = torch.cat([_rows(offsets, len(ids)), left[_rows(scanned.offsets, len(scanned.ids))]])
    order = query.argsort(stable=True)
    offsets = torch.nn.functional.pad(counts.cumsum(0), (1, 0))
    return offsets, torch.cat([near, scanned.distances])[order], torch.cat([ids, scanned.ids])[order]


def _rows(offsets: Tensor, total: int) -> Tensor:
    """offsets int64 [Q + 1] -> int64 [total]: the query of each result (torch's own way wakes every thread)."""
    starts = offsets[1:-1]
    steps = torch.zeros(total + 1, dtype=torch.int64, device=offsets.device)
    return steps.index_add_(0, starts, torch.ones_like(starts))[:-1].cumsum(0)
