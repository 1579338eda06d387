"""Pairs and groups of the codes of a ShardedIndex: tiles of two shards each, as Ray tasks, merged at the end."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from fasthash._arguments import MOST, choice, whole
from fasthash._arrays import to_tensor
from fasthash.cluster.asking import Call
from fasthash.cluster.engine import ray_for
from fasthash.cluster.errors import shard_error
from fasthash.cluster.handle import Handle
from fasthash.cluster.shard import Place, opened
from fasthash.codes import check_codes
from fasthash.index import HammingIndex, IndexFolderError
from fasthash.index.joins import IndexGroups
from fasthash.pairs import LINKS, STAR_PAIRS, Pairs, duplicate_groups, groups_of_lowest, hamming_pairs

_ROWS = 1 << 20  # of one side of a tile that are joined at once, where pairs become groups
_TILE_PAIRS = 1 << 24  # pairs that are in memory at once, where pairs become groups: some 850 MB
_Ids = np.ndarray[Any, np.dtype[np.int64]]
_BitWeights = list[tuple[int, int]] | None  # of the index


class Side(NamedTuple):
    """One side of a tile: the codes of a shard that a filter allows, or those with some ids."""

    name: str
    place: Place
    segments: tuple[str, ...] | None
    filter: Any = None


class ShardedJoins(Handle):
    """Pairs and groups over all shards: methods of `ShardedIndex`."""

    def pairs(
        self,
        radius: int,
        other: Any = None,
        *,
        filter: Any = None,
        limit: int | None = None,
        timeout: float | None = None,
    ) -> Pairs:
        """All pairs of codes within `radius` of each other, each once, as `HammingIndex.pairs` gives them.

        other: None, packed codes uint8 [M, ceil(bits / 8)], or another ShardedIndex. Every two shards are one Ray task,
        which opens both folders on the node where it runs, and has copies of their codes; Ray repeats it where a node
        dies. As many tasks as there are shards run at once. Changes by this index wait until all are done; nobody else
        may change the folders meanwhile. filter as for `search`. limit: the most pairs that are wanted; None: each task
        has the bound of `hamming_pairs`. timeout: seconds; None: those of the index. Raises ValueError or TypeError as
        `HammingIndex.pairs`, ShardError where a folder cannot be read or the deadline passes.
        """
        function = "ShardedIndex.pairs"
        call, radius = self._call(function, timeout), whole(radius, function, "radius", 0)
        most = None if limit is None else min(whole(limit, function, "limit", 0), MOST)
        with self._alone(call):
            own, there = self._sides(filter, call), self._other(other, call)
            if there is None:
                tiles = [(a, None if a is b else b) for n, a in enumerate(own) for b in own[n:]]
            else:
                tiles = [(a, b) for a in own for b in there]
            found, total = [], 0
            weights = self._model.bit_weights
            for _, part in self._tiles(tile_pairs, [(a, b, radius, most, weights) for a, b in tiles], call):
                total += len(part[0])
                if most is not None and total > most:
                    raise ValueError(
                        f"{function}: radius {radius} gives {total} pairs or more, but limit is {most}; use a "
                        "smaller radius, or find groups, which need no list of pairs"
                    )
                found.append(part)
        ids_a, ids_b, distances = (np.concatenate(parts) for parts in zip(*found, strict=True))
        if there is None:
            ids_a, ids_b = np.minimum(ids_a, ids_b), np.maximum(ids_a, ids_b)
        order = np.lexsort((ids_b, ids_a))
        return Pairs(ids_a[order], ids_b[order], distances[order])

    def groups(
        self, radius: int, *, link: str = "single", filter: Any = None, timeout: float | None = None
    ) -> IndexGroups:
        """Groups of near-duplicates over all shards, as `HammingIndex.groups` gives them.

        Tasks as for `pairs`. Each gives how its codes are connected, and the groups are merged here: 24 bytes a code.
        link="star" needs the pairs of different codes themselves, at most 2**25. Raises as `pairs`.
        """
        function = "ShardedIndex.groups"
        call, radius = self._call(function, timeout), whole(radius, function, "radius", 0)
        star = choice(link, function, "link", LINKS) == "star"
        with self._alone(call):
            own = self._sides(filter, call)
            equal = dict(self._tiles(equal_codes, [(side,) for side in own], call))
            lows = [self._shared(np.unique(equal[shard][1]), call) for shard in range(len(own))]
            distinct = [side._replace(filter=low) for side, low in zip(own, lows, strict=True)]
            weights = self._model.bit_weights
            tiles = [
                (a, None if a is b else b, radius, STAR_PAIRS, weights)
                for n, a in enumerate(distinct)
                for b in distinct[n:]
            ]
            links = dict(self._tiles(tile_pairs if star else tile_links, tiles, call))
        ids, lowest = (np.concatenate(parts) for parts in zip(*equal.values(), strict=True))
        order = np.argsort(ids)
        ids, lowest = ids[order], np.searchsorted(ids[order], lowest[order])
        a, b = (np.searchsorted(ids, np.concatenate([link[side] for link in links.values()])) for side in (0, 1))
        joined = stars(len(ids), a, b)[lowest] if star else connected(lowest, a, b)
        groups = groups_of_lowest(torch.from_numpy(joined))
        labels, representatives, sizes, keep = (part.numpy() for part in groups)
        return IndexGroups(ids, labels, ids[representatives], sizes, keep)

    def _sides(self, filter: Any, call: Call) -> list[Side]:
        allowed = self._allowed(filter, call)
        places = [place._replace(writable=False, device="cpu", method="scan") for place in self._places]
        return [
            Side(name, place, self._state(shard).segments, allowed)
            for shard, (name, place) in enumerate(zip(self._shards.names, places, strict=True))
        ]

    def _other(self, other: Any, call: Call) -> list[Any] | None:
        """The other side of the tiles: shards of another index, codes, or None."""
        if other is None:
            return None
        if isinstance(other, ShardedJoins):
            if other._model.bits != self._model.bits:
                raise ValueError(
                    f"{call.function}: other must have codes of {self._model.bits} bits, got {other._model.bits}"
                )
            if other._model._weights != self._model._weights:
                raise ValueError(
                    f"{call.function}: other must have the same bit_weights, {self._model.bit_weights}, "
                    f"got {other._model.bit_weights}"
                )
            return list(other._sides(None, call))
        codes = to_tensor(other, call.function, "other")
        check_codes(codes, self._model.bits, call.function, "other")
        return [self._shared(codes.cpu().numpy(), call)]

    def _tiles(
        self, work: Callable[..., Any], tiles: Sequence[tuple[Any, ...]], call: Call
    ) -> Iterator[tuple[int, Any]]:
        """The number of each tile and its result, in any order; as many run at once as there are shards."""
        ray = ray_for(call.function)
        task = ray.remote(work).options(num_cpus=0, max_retries=-1, scheduling_strategy="SPREAD")
        running: dict[Any, int] = {}
        ahead = iter(enumerate(tiles))
        try:
            for done in range(len(tiles)):
                for number, tile in itertools.islice(ahead, len(self._shards) - len(running)):
                    running[task.remote(self._places[0].threads, *tile)] = number
                ready, _ = ray.wait(list(running), num_returns=1, timeout=call.left)
                if not ready:
                    late = f"{done} of {len(tiles)} tasks were done within {call.timeout:g} s"
                    raise shard_error(call.function, dict.fromkeys(self._shards.names, late), len(self._shards), True)
                number = running.pop(ready[0])
                try:
                    result = ray.get(ready[0])
                except ray.exceptions.RayTaskError as error:
                    self._tell(error.cause, call)
                    raise
                yield number, result
        finally:
            for ref in running:
                with contextlib.suppress(Exception):
                    ray.cancel(ref)

    def _tell(self, cause: BaseException, call: Call) -> None:
        """Raises what a task raised in the words of this index; returns where it is a bug."""
        if isinstance(cause, Unread):
            name, why = cause.args
            raise shard_error(call.function, {name: why}, len(self._shards), False) from None
        if isinstance(cause, (ValueError, TypeError)):
            said = str(cause).replace("HammingIndex", "ShardedIndex", 1)
            raise type(cause)(said.replace("hamming_pairs", call.function, 1)) from None


class Unread(Exception):
    """A shard that a task cannot read: its name, and why."""


def tile_pairs(
    threads: int, a: Side, b: Any, radius: int, limit: int | None, weights: _BitWeights
) -> tuple[_Ids, _Ids, Any]:
    """The pairs of a tile: of side a (b is None), or of a and b, a Side or codes [M, W] whose rows are their ids."""
    torch.set_num_threads(threads)
    ids_a, codes_a = _rows(a)
    if b is None:
        found = hamming_pairs(codes_a, radius, limit=limit, bit_weights=weights)
        return ids_a[found.ids_a], ids_a[found.ids_b], found.distances
    ids_b, codes_b = _rows(b) if isinstance(b, Side) else (np.arange(len(b)), b)
    found = hamming_pairs(codes_a, radius, codes_b, limit=limit, bit_weights=weights)
    return ids_a[found.ids_a], ids_b[found.ids_b], found.distances


def equal_codes(threads: int, side: Side) -> tuple[_Ids, _Ids]:
    """The ids of a side, ascending, and of each the lowest id that has the same code."""
    torch.set_num_threads(threads)
    index = _opened(side)
    groups = index.groups(0, filter=None if side.filter is None else _eligible(index, side))
    return groups.ids, groups.representatives[groups.labels]


def tile_links(
    threads: int, a: Side, b: Side | None, radius: int, limit: int | None, weights: _BitWeights
) -> tuple[_Ids, _Ids]:
    """Pairs of ids that connect what the pairs of a tile connect: at most one for each code. Pairs are not kept."""
    torch.set_num_threads(threads)
    ids, codes = _rows(a)
    if b is None:
        groups = duplicate_groups(codes, radius, bit_weights=weights)
        lowest = groups.representatives[groups.labels]
    else:
        ids_b, codes_b = _rows(b)
        first, step, lowest = 0, _ROWS, np.arange(len(ids) + len(ids_b))
        while first < len(ids):
            try:
                most = _TILE_PAIRS if step > 1 else None
                part = codes[first : first + step]
                found = hamming_pairs(part, radius, codes_b, limit=most, bit_weights=weights)
            except ValueError:  # more pairs than that: fewer rows
                step = max(step // 2, 1)
                continue
            lowest = connected(lowest, found.ids_a + first, found.ids_b + len(ids))
            first += step
        ids = np.concatenate([ids, ids_b])
    joined = np.flatnonzero(lowest != np.arange(len(lowest)))
    return ids[joined], ids[lowest[joined]]


def connected(lowest: _Ids, a: _Ids, b: _Ids) -> _Ids:
    """Union-find: the lowest row [N] of each row's group, once the rows of each pair a, b are in one group.

    lowest: the same before. Each round hangs the higher of two groups below the lower one, for all pairs at once.

    >>> connected(np.arange(5), np.array([3, 1]), np.array([4, 3])).tolist()
    [0, 1, 2, 1, 1]
    """
    lowest = lowest.copy()
    while True:
        low, high = np.minimum(lowest[a], lowest[b]), np.maximum(lowest[a], lowest[b])
        apart = low != high
        if not apart.any():
            return lowest
        a, b = a[apart], b[apart]
        np.minimum.at(lowest, high[apart], low[apart])
        while not np.array_equal(lowest, lowest[lowest]):
            lowest = lowest[lowest]


def stars(rows: int, a: _Ids, b: _Ids) -> _Ids:
    """The representative of each row [rows], as of link="star", from all pairs of rows.

    >>> stars(4, np.array([0, 1, 2]), np.array([1, 2, 3])).tolist()
    [0, 0, 2, 2]
    """
    low, high = np.minimum(a, b), np.maximum(a, b)
    order = np.lexsort((low, high))
    lowest = list(range(rows))
    for first, row in zip(low[order].tolist(), high[order].tolist(), strict=True):  # all lower rows are settled
        if lowest[row] == row and lowest[first] == first:
            lowest[row] = first
    return np.array(lowest, np.int64)


def _opened(side: Side) -> HammingIndex:
    try:
        return opened(side.place, side.segments)
    except (IndexFolderError, OSError) as error:
        raise Unread(side.name, str(error)) from error


def _rows(side: Side) -> tuple[_Ids, Any]:
    """The eligible ids of a side, ascending, and their codes."""
    index = _opened(side)
    ids = _eligible(index, side)
    return ids, index.get(ids)


def _eligible(index: HammingIndex, side: Side) -> _Ids:
    """The ids of a side that its filter allows, ascending."""
    if side.filter is None:
        return index.ids
    allowed = index.ids_of(side.filter) if isinstance(side.filter, list) else side.filter
    eligible: _Ids = np.intersect1d(index.ids, allowed)
    return eligible
