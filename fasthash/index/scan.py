"""Search over several segments: each is scanned by itself, the results are merged by (distance, id)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fasthash._arrays import to_tensor
from fasthash.codes import code_bytes, unpack_bits
from fasthash.index.search import RangeResult, hamming_range, hamming_topk
from fasthash.index.segments import Contents, Segment, id_tensor

_GATHER = 16  # where fewer than one row in this many is eligible, the rows are copied out instead of masked
_RESCORE_VALUES = 1 << 22  # float64 values of a rescoring block: 32 MiB


class Part(NamedTuple):
    """The eligible codes of one segment: those that `mask` says, or all of `codes` where there is no mask."""

    segment: Segment
    codes: Tensor
    mask: Tensor | None  # bool [len(codes)]
    rows: Tensor | None  # int64 [len(codes)]: their rows in the segment; None: the same
    eligible: int


def eligible_parts(contents: Contents, filter: Any, device: torch.device, function: str) -> list[Part]:
    """The eligible codes, segment by segment; segments without any are left out."""
    segments = contents.segments
    if filter is None:
        return [Part(s, s.codes, s.live, None, s.count) for s in segments if s.count]
    given = to_tensor(filter, function, "filter").to(device)
    parts = []
    if given.dtype != torch.bool:
        allowed = torch.unique(id_tensor(given, function, "filter"))
        for segment in segments:
            rows = segment.find(allowed)
            parts.append(_part_of_rows(segment, rows[rows >= 0]))
    else:
        if given.shape != (contents.size,):
            raise ValueError(
                f"{function}: a boolean filter must have one value for each of the {contents.size} ids, "
                f"got shape {tuple(given.shape)}"
            )
        if not contents.ordered:  # from the order of ids to the order of segments
            order = torch.cat([segment.live_ids() for segment in segments]).argsort()
            given = torch.empty_like(given).index_copy_(0, order, given)
        for segment, mask in zip(segments, torch.split(given, [segment.count for segment in segments]), strict=True):
            if segment.live is not None:
                mask = torch.zeros_like(segment.live).masked_scatter_(segment.live, mask)
            parts.append(_part_of_mask(segment, mask))
    return [part for part in parts if part.eligible]


def _part_of_rows(segment: Segment, rows: Tensor) -> Part:
    """rows: live, distinct, ascending."""
    if len(rows) * _GATHER < segment.rows:
        return Part(segment, segment.codes[rows], None, rows, len(rows))
    mask = torch.zeros(segment.rows, dtype=torch.bool, device=rows.device)
    mask[rows] = True
    return Part(segment, segment.codes, mask, None, len(rows))


def _part_of_mask(segment: Segment, mask: Tensor) -> Part:
    count = int(mask.sum())
    if count * _GATHER < segment.rows:
        return _part_of_rows(segment, mask.nonzero()[:, 0])
    return Part(segment, segment.codes, mask, None, count)


def _part_ids(part: Part, positions: Tensor) -> Tensor:
    return part.segment.ids_of(positions if part.rows is None else part.rows[positions])


def nearest(queries: Tensor, parts: Sequence[Part], k: int, ordered: bool) -> tuple[Tensor, Tensor]:
    """The min(k, eligible) nearest of each query: distances int32 and ids int64, ordered by (distance, id)."""
    shape = (len(queries), 0)
    distances = torch.empty(shape, dtype=torch.int32, device=queries.device)
    ids = torch.empty(shape, dtype=torch.int64, device=queries.device)
    for part in parts:
        found = hamming_topk(queries, part.codes, min(k, part.eligible), filter=part.mask)
        found_ids = _part_ids(part, found.ids)
        if ids.shape[1] == 0:
            distances, ids = found.distances, found_ids
        else:
            distances, ids = torch.cat([distances, found.distances], 1), torch.cat([ids, found_ids], 1)
            distances, ids = _ordered(distances, ids, k, by_id=not ordered)
    return distances, ids


def _ordered(distances: Tensor, ids: Tensor, k: int, by_id: bool) -> tuple[Tensor, Tensor]:
    """The first k of each row by (distance, id); by_id=False: equal distances stand in the order of ids already."""
    if by_id:
        ids, order = ids.sort(dim=1)
        distances = distances.gather(1, order)
    distances, order = distances.sort(dim=1, stable=True)
    return distances[:, :k], ids.gather(1, order)[:, :k]


def rescored(contents: Contents, queries: Tensor, ids: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Orders candidates, int64 [Q, C], by (sum_d |q_d - b_d|, id): float32 and int64 [Q, min(k, C)].

    Sums are taken in float64 and rounded once, so that the order of summation does not show.
    """
    bits = queries.shape[1]
    distances = torch.empty(ids.shape, dtype=torch.float32, device=ids.device)
    rows = max(1, _RESCORE_VALUES // max(1, ids.shape[1] * bits))
    for start in range(0, len(ids), rows):
        block = ids[start : start + rows]
        codes, _ = contents.codes_of(block.reshape(-1), code_bytes(bits))
        values = unpack_bits(codes, bits).reshape(*block.shape, bits).to(torch.float64)
        values -= queries[start : start + rows, None, :]
        distances[start : start + rows] = values.abs_().sum(-1)
    return _ordered(distances, ids, k, by_id=True)


def within(queries: Tensor, parts: Sequence[Part], radius: int, ordered: bool) -> RangeResult:
    """All eligible codes within the radius of each query."""
    if len(parts) == 1:
        found = hamming_range(queries, parts[0].codes, radius, filter=parts[0].mask)
        return RangeResult(found.offsets, found.distances, _part_ids(parts[0], found.ids))
    device = queries.device
    counts = torch.zeros(len(queries), dtype=torch.int64, device=device)
    rows = [torch.empty(0, dtype=torch.int64, device=device)]  # which query
    distances = [torch.empty(0, dtype=torch.int32, device=device)]
    ids = [torch.empty(0, dtype=torch.int64, device=device)]
    for part in parts:
        found = hamming_range(queries, part.codes, radius, filter=part.mask)
        here = found.offsets.diff()
        counts += here
        rows.append(_rows(found.offsets, len(found.ids)))
        distances.append(found.distances)
        ids.append(_part_ids(part, found.ids))
    key, all_distances, all_ids = torch.cat(rows), torch.cat(distances), torch.cat(ids)
    key = key * (radius + 1) + all_distances
    if not ordered:
        all_ids, order = all_ids.sort()
        key, all_distances = key[order], all_distances[order]
    order = key.argsort(stable=True)
    offsets = torch.nn.functional.pad(counts.cumsum(0), (1, 0))
    return RangeResult(offsets, all_distances[order], all_ids[order])


def _rows(offsets: Tensor, total: int) -> Tensor:
    """offsets int64 [Q + 1] -> int64 [total]: the query of each result (torch's own way wakes every thread)."""
    starts = offsets[1:-1]
    steps = torch.zeros(total + 1, dtype=torch.int64, device=offsets.device)
    return steps.index_add_(0, starts, torch.ones_like(starts))[:-1].cumsum(0)
