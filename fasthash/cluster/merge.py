"""Merging the results of shards into those of one index. Nothing here needs ray."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from fasthash._arguments import MOST, memory_for, whole
from fasthash._arrays import dtype_name, like, to_tensor
from fasthash.hamming import SearchResult

_LAST = torch.iinfo(torch.int64).max


def merge_topk(distances: Any, ids: Any, k: int) -> SearchResult:
    """Merges the nearest codes that shards found for the same queries into the k nearest of all.

    Exact where each shard gives its own k nearest, or all codes that it has: the result is that of one index over all
    shards, in the same order. It needs no ray: use it with Spark, Dask, MPI or plain processes (docs/cluster.md).

    Args:
        distances: S arrays [Q, K_s], one a shard (or one array [S, Q, K]), numpy or torch; integers or floats.
        ids: as many arrays of int64 ids of the same shapes; -1 where a place is empty, whatever its distance.
        k: >= 1.

    Returns:
        distances [Q, k] and ids int64 [Q, k], ordered by (distance, id): ties go to the lowest id. They are of the kind
        and on the device of the first array. Where all shards together have fewer than k codes, the missing places have
        id -1 and the distance that empty places have in the shards' results (bits + 1 in those of an index); where no
        shard has an empty place, the greatest number of the type, infinity for floats.

    Raises:
        ValueError, TypeError: no shards, other shapes or types, or k < 1. MemoryError: no room for [Q, k].

    >>> import numpy as np
    >>> one, two = np.array([[0, 3, 3]], np.int32), np.array([[1, 3, 9]], np.int32)
    >>> found = merge_topk([one, two], [np.array([[7, 2, 8]]), np.array([[4, 5, -1]])], k=4)
    >>> found.distances.tolist(), found.ids.tolist()
    ([[0, 1, 3, 3]], [[7, 4, 2, 5]])
    """
    function = "merge_topk"
    k = whole(k, function, "k", 1, MOST)
    near, who = _shards(distances, "distances"), _shards(ids, "ids")
    if not near or len(near) != len(who):
        raise ValueError(
            f"{function}: distances and ids must have the same number of shards, got {len(near)} and {len(who)}"
        )
    for shard, (own, numbers) in enumerate(zip(near, who, strict=True)):
        if own.ndim != 2 or own.shape != numbers.shape or len(own) != len(near[0]):
            raise ValueError(
                f"{function}: distances and ids of a shard must be [{len(near[0])}, K], "
                f"got {list(own.shape)} and {list(numbers.shape)} of shard {shard}"
            )
        if own.dtype != near[0].dtype or own.is_complex() or own.dtype == torch.bool:
            raise TypeError(
                f"{function}: distances must be numbers of one type, got {dtype_name(own)} of shard {shard} and "
                f"{dtype_name(near[0])} of shard 0"
            )
        if numbers.dtype != torch.int64:
            raise TypeError(f"{function}: ids must be int64, got {dtype_name(numbers)} of shard {shard}")
        if own.device != near[0].device or numbers.device != near[0].device:
            raise ValueError(
                f"{function}: all arrays must be on one device, got {own.device} and {numbers.device} of shard {shard}"
            )
    first = next(iter(distances))
    with memory_for(f"{function}: no memory for {k} results of {len(near[0])} queries"):
        merged = merged_topk(torch.cat(near, 1), torch.cat(who, 1), k)
    return SearchResult(like(merged.distances, first), like(merged.ids, first))


def merged_topk(distances: Tensor, ids: Tensor, k: int, missing: float | None = None) -> SearchResult:
    """The k nearest of [Q, C] results side by side, as `merge_topk` says. missing: the distance of empty places."""
    kind = distances.dtype
    end = math.inf if kind.is_floating_point else torch.iinfo(kind).max
    empty = ids < 0
    if missing is None:
        missing = distances[empty].max().item() if bool(empty.any()) else end
    chosen = nearest_first(distances.masked_fill(empty, end), ids, k)
    ids = ids.gather(1, chosen).clamp(min=-1)
    distances = distances.gather(1, chosen).masked_fill(ids < 0, missing)
    if ids.shape[1] < k:
        short = (len(ids), k - ids.shape[1])  # torch's pad goes through float64, which rounds the greatest int64
        distances = torch.cat([distances, distances.new_full(short, missing)], 1)
        ids = torch.cat([ids, ids.new_full(short, -1)], 1)
    return SearchResult(distances, ids)


def nearest_first(distances: Tensor, ids: Tensor, k: int) -> Tensor:
    """The places, int64 [Q, min(k, C)], of the first k of [Q, C] results by (distance, id); empty ones come last.

    Empty places (id -1) must have a distance that no code exceeds.
    """
    by_id = ids.masked_fill(ids < 0, _LAST).argsort(dim=1)
    by_distance = distances.gather(1, by_id).sort(dim=1, stable=True).indices[:, :k]
    return by_id.gather(1, by_distance)


def _shards(given: Any, name: str) -> list[Tensor]:
    if not isinstance(given, Iterable):
        raise TypeError(f"merge_topk: {name} must be a list of arrays, one a shard, got {type(given).__name__}")
    return [to_tensor(own, "merge_topk", name) for own in given]
