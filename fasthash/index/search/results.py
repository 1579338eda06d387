"""The results of a search: what its parts find, combined and ordered by (distance, id)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor
from torch.nn.functional import pad

from fasthash.codes import code_bytes
from fasthash.hamming import RangeResult, SearchResult
from fasthash.index.readahead import read_ahead
from fasthash.index.search.parts import Part, Query, largest_distance, mapped_codes

_RESCORE_BYTES = 1 << 22  # codes of a rescoring block
_AFTER_ALL = torch.iinfo(torch.int64).max


def topk(query: Query, parts: Iterable[Part], k: int, ordered: bool) -> SearchResult:
    """The k nearest of each query: distances int32 (float32 for RealQuery) and ids int64, [Q, k], by (distance, id).

    Places beyond the eligible codes have id -1 and distance `query.largest` + 1. ordered: all ids of a part are above
    those of the parts before.
    """
    best: SearchResult | None = None
    for part in read_ahead(parts, mapped_codes):
        if best is None:
            best = part.topk(query, k)
        else:
            full = best.ids.shape[1] == k
            found = part.topk(query.bounded(best.distances) if full else query, k)
            best = combined_topk([best, found], k, ordered)
    if best is None:
        nothing = query.nothing()
        best = SearchResult(nothing, nothing.long())
    distances, ids = best
    distances.masked_fill_(ids < 0, query.largest + 1)  # the kernels count the padding bits too
    if ids.shape[1] < k:
        missing = (0, k - ids.shape[1])
        distances, ids = pad(distances, missing, value=query.largest + 1), pad(ids, missing, value=-1)
    return SearchResult(distances, ids)


def within(query: Query, parts: Iterable[Part], radius: int, ordered: bool) -> RangeResult:
    """All eligible codes within the radius of each query; ordered as for `topk`."""
    found = [part.within(query, radius) for part in read_ahead(parts, mapped_codes)]
    if not found:
        offsets = query.codes.new_zeros(len(query) + 1, dtype=torch.int64)
        found = [RangeResult(offsets, offsets[:0].int(), offsets[:0])]
    return combined_ranges(found, radius, ordered)


def combined_topk(found: Sequence[SearchResult], k: int, ordered: bool) -> SearchResult:
    """The k nearest of all results of the same queries, by (distance, id); missing ones (id -1) are the farthest.

    ordered: all ids of a result are above those of the results before, so that equal distances stand in their order.
    """
    if len(found) == 1:
        return found[0]
    distances, ids = torch.cat([own.distances for own in found], 1), torch.cat([own.ids for own in found], 1)
    return SearchResult(*_first(distances, ids, k, ordered))


def combined_ranges(found: Sequence[RangeResult], radius: int, ordered: bool) -> RangeResult:
    """All of the results within a radius of the same queries, by (distance, id); ordered as for `combined_topk`."""
    if len(found) == 1:
        return found[0]
    counts = torch.stack([own.offsets.diff() for own in found]).sum(0)
    key = torch.cat([_query_of_each(own.offsets, len(own.ids)) for own in found])
    distances, ids = torch.cat([own.distances for own in found]), torch.cat([own.ids for own in found])
    key = key * (radius + 1) + distances
    if not ordered:
        ids, order = ids.sort()
        key, distances = key[order], distances[order]
    order = key.argsort(stable=True)
    return RangeResult(pad(counts.cumsum(0), (1, 0)), distances[order], ids[order])


def rescored(
    codes_of: Callable[[Tensor, int], tuple[Tensor, Tensor]],
    queries: Tensor,
    bit_weights: tuple[int, ...],
    ids: Tensor,
    k: int,
) -> SearchResult:
    """Orders candidates, int64 [Q, C >= k], by (sum_d w_d |q_d - b_d|, id): float32 and int64 [Q, k].

    codes_of: int64 [M] ids, bytes of a code -> their codes, and which were found. Sums are taken in float64 and rounded
    once, so that the order of summation does not show. Missing candidates (-1) have the largest distance + 1.
    """
    bits, width = queries.shape[1], code_bytes(queries.shape[1])
    distances = torch.empty(ids.shape, dtype=torch.float32, device=ids.device)
    rows = max(1, _RESCORE_BYTES // max(1, ids.shape[1] * width))
    for start in range(0, len(ids), rows):
        block = ids[start : start + rows]
        codes, _ = codes_of(block.reshape(-1), width)
        distances[start : start + rows] = torch.ops.fasthash.asymmetric_distances(
            queries[start : start + rows], codes.view(*block.shape, width), bit_weights
        )
    missing = largest_distance(bits, bit_weights) + 1
    return SearchResult(*_first(distances.masked_fill_(ids < 0, missing), ids, k, ordered=False))


def _first(distances: Tensor, ids: Tensor, k: int, ordered: bool) -> tuple[Tensor, Tensor]:
    """The first k of each row by (distance, id). ordered: equal distances stand in the order of ids already."""
    if not ordered:
        order = ids.masked_fill(ids < 0, _AFTER_ALL).argsort(dim=1)  # a code at infinity comes before a missing one
        ids, distances = ids.gather(1, order), distances.gather(1, order)
    distances, order = distances.sort(dim=1, stable=True)
    return distances[:, :k], ids.gather(1, order)[:, :k]


def _query_of_each(offsets: Tensor, total: int) -> Tensor:
    """offsets int64 [Q + 1] -> int64 [total]: the query of each result (torch's own way wakes every thread)."""
    starts = offsets[1:-1]
    steps = torch.zeros(total + 1, dtype=torch.int64, device=offsets.device)
    return steps.index_add_(0, starts, torch.ones_like(starts))[:-1].cumsum(0)
