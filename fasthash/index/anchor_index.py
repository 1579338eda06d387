"""AnchorIndex: search in two stages, first among anchors, then among the items of the nearest ones."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fasthash._arguments import MOST, whole
from fasthash._arrays import dtype_name, like, to_tensor
from fasthash.codes import check_codes
from fasthash.hamming import SearchResult
from fasthash.index.hamming_index import HammingIndex
from fasthash.index.segments import id_tensor

BLOCK = 2**24  # distances of real-valued rows that are in memory at a time
MISSING = torch.iinfo(torch.int64).max  # the id of an empty place, while results are ordered


class AnchorIndex:
    """One list of items for each anchor; each item is in the list of its nearest anchor (in a tie the first).

    A search compares a query with the anchors, then only with the items of the `probes` nearest anchors. It is exact
    among these. With all anchors probed it is the exhaustive search: same distances, same ids, ties to the lowest id.
    If items are close to anchors, as `ClassAnchorMarginLoss` makes them, few probes find nearly all, for a small part
    of the comparisons. Items are copied; the index does not change afterwards.

    Args:
        anchors: packed codes uint8 [C, W], or real-valued rows [C, D].
        items: packed codes uint8 [N, W], or a `HammingIndex` (its ids, bits and bit_weights are kept), both compared
            by Hamming distance; or real-valued rows [N, D], by Euclidean distance, in float32 (float64 where they are).
        ids: N distinct integers >= 0; None: 0 .. N - 1. None for a HammingIndex, which has its own.

    Raises ValueError or TypeError for other shapes and types, for no anchors, and for NaN or infinity.

    >>> import numpy as np
    >>> anchors = np.array([[0b00000000], [0b11111111]], dtype=np.uint8)
    >>> items = np.array([[0b00000001], [0b11110111], [0b11000000]], dtype=np.uint8)
    >>> index = AnchorIndex(anchors, items)
    >>> index.assigned.tolist(), index.sizes.tolist()
    ([0, 1, 0], [2, 1])
    >>> index.search(items[1:2], k=2, probes=1).ids.tolist()  # one list, with one item
    [[1, -1]]
    >>> index.search(items[1:2], k=2, probes=2).ids.tolist()
    [[1, 2]]
    """

    def __init__(self, anchors: Any, items: Any, ids: Any = None) -> None:
        name = "AnchorIndex"
        centres = to_tensor(anchors, name, "anchors").detach()
        if centres.dim() != 2 or not len(centres):
            raise ValueError(f"{name}: anchors must have shape [C, W] or [C, D] with C >= 1, got {list(centres.shape)}")
        kept = _kept(items, ids)
        self._packed = isinstance(kept, HammingIndex)
        if (centres.dtype == torch.uint8) != self._packed or not (self._packed or centres.is_floating_point()):
            kind = "packed codes uint8" if self._packed else "floating-point rows"
            raise TypeError(f"{name}: anchors must be {kind}, as items are, got {dtype_name(centres)}")
        order = torch.as_tensor(kept.ids)
        rows = kept.get(order)
        if centres.shape[1] != rows.shape[1]:
            raise ValueError(
                f"{name}: anchors and items must have the same number of columns, got {centres.shape[1]} and "
                f"{rows.shape[1]}"
            )
        self._width = centres.shape[1]
        if isinstance(kept, HammingIndex):
            check_codes(centres, kept.bits, name, "anchors")
        self._anchors = _empty_like(kept)
        self._anchors.add(centres)
        nearest = self._anchors.search(rows, 1).ids[:, 0].cpu()
        self._lists = [_empty_like(kept) for _ in range(len(centres))]
        sizes = torch.bincount(nearest, minlength=len(centres)).tolist()
        for own, chosen in zip(self._lists, nearest.argsort(stable=True).split(sizes), strict=True):
            own.add(rows[chosen.to(rows.device)], order[chosen])
        self._ids, self._assigned = order, nearest

    @property
    def ids(self) -> Any:
        """Ids of the items, int64 numpy array [N], ascending."""
        return self._ids.numpy()

    @property
    def assigned(self) -> Any:
        """The anchor of each item, int64 numpy array [N], in the order of `ids`."""
        return self._assigned.numpy()

    @property
    def sizes(self) -> Any:
        """How many items each anchor has, int64 numpy array [C]."""
        return torch.bincount(self._assigned, minlength=len(self._lists)).numpy()

    def __len__(self) -> int:
        return len(self._ids)

    def __repr__(self) -> str:
        return f"AnchorIndex({len(self._lists)} anchors, {len(self)} {'codes' if self._packed else 'rows'})"

    def nearest_anchors(self, queries: Any, probes: int = 1) -> Any:
        """The first stage: the nearest anchors of each query, int64 [Q, probes], in a tie the first.

        With `sizes` it tells what a search costs: C + sizes[nearest_anchors(queries, probes)].sum(1) comparisons.
        """
        return like(self._probed(self._queries(queries, "nearest_anchors"), probes, "nearest_anchors"), queries)

    def search(self, queries: Any, k: int, probes: int = 1) -> SearchResult:
        """The k nearest of each query among the items of its `probes` nearest anchors, ordered by (distance, id).

        queries: of the kind of the items, [Q, W] or [Q, D]. k: any number >= 1; if there are fewer items, missing
        places have id -1 and the largest distance + 1 (infinity for real-valued rows), as in `HammingIndex.search`.
        probes: 1 to C. Distances [Q, k] are int32, or float; ids int64. Raises ValueError or TypeError.
        """
        query = self._queries(queries, "search")
        k = whole(k, "AnchorIndex.search", "k", 1, MOST)
        probed = self._probed(query, probes, "search")
        best = self._lists[0].search(query[:0], k)
        kept = SearchResult(
            torch.full((len(query), k), self._missing, dtype=best.distances.dtype, device=query.device),
            torch.full((len(query), k), MISSING, device=query.device),
        )
        for anchor in probed.unique().tolist():
            rows = (probed == anchor).any(1).nonzero()[:, 0]
            found = self._lists[anchor].search(query[rows], k)
            ids = torch.where(found.ids < 0, MISSING, found.ids)
            distances, ids = torch.cat([kept.distances[rows], found.distances], 1), torch.cat([kept.ids[rows], ids], 1)
            by_id = ids.argsort(1)
            order = by_id.gather(1, distances.gather(1, by_id).argsort(dim=1, stable=True))[:, :k]
            kept.distances[rows], kept.ids[rows] = distances.gather(1, order), ids.gather(1, order)
        ids = torch.where(kept.ids == MISSING, -1, kept.ids)
        return SearchResult(like(kept.distances, queries), like(ids, queries))

    @property
    def _missing(self) -> float:
        if not isinstance(self._anchors, HammingIndex):
            return torch.inf
        weights = self._anchors.bit_weights
        return 1 + (self._anchors.bits if weights is None else sum(bits * weight for bits, weight in weights))

    def _queries(self, queries: Any, method: str) -> Tensor:
        given = to_tensor(queries, f"AnchorIndex.{method}", "queries").detach()
        if given.dim() != 2 or given.shape[1] != self._width:
            raise ValueError(
                f"AnchorIndex.{method}: queries must have shape [Q, {self._width}], got {list(given.shape)}"
            )
        if (given.dtype == torch.uint8) != self._packed or not (self._packed or given.is_floating_point()):
            kind = "packed codes uint8" if self._packed else "floating-point rows"
            raise TypeError(f"AnchorIndex.{method}: queries must be {kind}, as items are, got {dtype_name(given)}")
        if isinstance(self._anchors, HammingIndex):
            check_codes(given, self._anchors.bits, f"AnchorIndex.{method}", "queries")
        elif not bool(given.to(self._anchors.rows.dtype).isfinite().all()):
            raise ValueError(f"AnchorIndex.{method}: queries must be finite, got NaN or infinity")
        return given

    def _probed(self, query: Tensor, probes: int, method: str) -> Tensor:
        probes = whole(probes, f"AnchorIndex.{method}", "probes", 1, len(self._lists), "the number of anchors")
        nearest: Tensor = self._anchors.search(query, probes).ids
        return nearest


class _Rows:
    """Real-valued rows by Euclidean distance, with as much of HammingIndex as a list of an AnchorIndex needs.

    The distance of two rows is the same number whatever else is in the list: each pair is summed on its own.
    """

    def __init__(self, like: Tensor) -> None:
        self.rows = like[:0]
        self.ids = torch.empty(0, dtype=torch.int64)

    def add(self, rows: Tensor, ids: Tensor | None = None) -> None:
        rows = rows.to(self.rows.dtype)
        if not bool(rows.isfinite().all()):
            raise ValueError("AnchorIndex: anchors and items must be finite, got NaN or infinity")
        self.ids, order = (torch.arange(len(rows)) if ids is None else ids).sort()
        self.rows = rows[order.to(rows.device)]

    def get(self, ids: Tensor) -> Tensor:
        return self.rows[torch.searchsorted(self.ids, ids).to(self.rows.device)]

    def search(self, queries: Tensor, k: int) -> SearchResult:
        queries = queries.to(self.rows.dtype)
        found = min(k, len(self.rows))
        distances = torch.full((len(queries), k), torch.inf, dtype=queries.dtype, device=queries.device)
        ids = torch.full((len(queries), k), -1, device=queries.device)
        own = self.ids.to(queries.device)
        block = max(1, BLOCK // max(1, len(self.rows)))
        for start in range(0, len(queries), block):
            part = slice(start, start + block)
            every = torch.cdist(queries[part], self.rows, compute_mode="donot_use_mm_for_euclid_dist")
            ordered = every.sort(dim=1, stable=True)  # rows are in ascending order of id
            distances[part, :found], ids[part, :found] = ordered.values[:, :found], own[ordered.indices[:, :found]]
        return SearchResult(distances, ids)


def _kept(items: Any, ids: Any) -> HammingIndex | _Rows:
    """The items with their ids: codes as a HammingIndex."""
    if isinstance(items, HammingIndex):
        if ids is not None:
            raise ValueError("AnchorIndex: ids must be None for a HammingIndex, which has its own ids")
        return items
    rows = to_tensor(items, "AnchorIndex", "items").detach()
    if rows.dim() != 2 or not rows.shape[1]:
        raise ValueError(f"AnchorIndex: items must have shape [N, W] or [N, D], got {list(rows.shape)}")
    kept: HammingIndex | _Rows
    if rows.dtype == torch.uint8:
        kept = HammingIndex(8 * rows.shape[1], rows.device)
    elif rows.is_floating_point():
        kept = _Rows(rows if rows.dtype == torch.float64 else rows.float())
    else:
        raise TypeError(f"AnchorIndex: items must be uint8 codes or floating-point rows, got {dtype_name(rows)}")
    kept.add(rows, None if ids is None else _numbers(ids, len(rows)))
    return kept


def _numbers(ids: Any, count: int) -> Tensor:
    """Ids of `count` items, int64, on the CPU."""
    numbers = id_tensor(ids, "AnchorIndex").cpu()
    if len(numbers) != count:
        raise ValueError(f"AnchorIndex: {count} items need {count} ids, got {len(numbers)}")
    ascending = numbers.sort().values
    if count and int(ascending[0]) < 0:
        raise ValueError(f"AnchorIndex: ids must be between 0 and 2**63 - 1, got {int(ascending[0])}")
    repeated = ascending[1:][ascending[1:] == ascending[:-1]]
    if len(repeated):
        raise ValueError(f"AnchorIndex: ids must be distinct, got {int(repeated[0])} more than once")
    return numbers


def _empty_like(items: HammingIndex | _Rows) -> HammingIndex | _Rows:
    if isinstance(items, HammingIndex):
        return HammingIndex(items.bits, items.device, bit_weights=items.bit_weights)
    return _Rows(items.rows)
