"""All pairs of codes within a radius: near-duplicates, their groups, and the graph of the nearest neighbours."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from fasthash import _ops
from fasthash._arguments import MOST, choice, whole
from fasthash._arrays import like
from fasthash._bit_weights import bit_weights as flat_bit_weights
from fasthash._bit_weights import largest
from fasthash._code_arguments import packed_codes
from fasthash._free_memory import free_memory
from fasthash.hamming import _code_pair

PAIR_BYTES = 52  # of memory for a pair: 12 as it is found (24 while that grows), 8 to sort it, 20 of the result
_DEVICE_PAIR_BYTES = 64  # the same on a GPU: 12 as it is found, 32 while pairs are sorted, 20 of the result
STAR_PAIRS = 1 << 25  # pairs of different codes kept at once for star groups: some 800 MB
LINKS = ("single", "star")
MOST_CODES = 2**32 - 2  # of each side of a join
_QUERIES = 1 << 14  # rows of a graph that are searched at once
_SAMPLE, _LEAST_JOINED = 128, 1 << 14  # rows by which a graph's radius is chosen; of a graph that is made by a join
_FOUND_WORDS = 200  # of 64 bits that are compared while one pair that was found is kept
_MOST_COUNTED = 1 << 16  # the largest distance by which a sample's distances are counted


class Pairs(NamedTuple):
    """ids_a int64 [T], ids_b int64 [T] and distances int32 [T], ordered by (ids_a, ids_b)."""

    ids_a: Any
    ids_b: Any
    distances: Any


class DuplicateGroups(NamedTuple):
    """Every row is in one group; a row without near-duplicates is a group of one.

    labels int64 [N]: the group of each row, 0 .. G - 1; groups are numbered in the order of their lowest rows.
    representatives int64 [G]: the lowest row of each group. sizes int64 [G]: rows of each group.
    keep: booleans [N], True for representatives: keep these rows to have one row of each group.
    """

    labels: Any
    representatives: Any
    sizes: Any
    keep: Any


class KnnGraph(NamedTuple):
    """distances int32 [N, k] and ids int64 [N, k]: the k nearest other rows of each row, ordered by (distance, id)."""

    distances: Any
    ids: Any

    def csr(self) -> Any:
        """The graph as a scipy.sparse.csr_array [N, N] of distances, with columns ascending in each row.

        A stored 0 is an edge between equal codes. Needs scipy.
        """
        from scipy.sparse import csr_array

        distances, ids = (torch.as_tensor(part).cpu() for part in self)
        rows, k = ids.shape
        columns, order = ids.sort(dim=1)
        starts = torch.arange(rows + 1) * k
        data = distances.gather(1, order)
        return csr_array((data.numpy().ravel(), columns.numpy().ravel(), starts.numpy()), shape=(rows, rows))


def hamming_pairs(
    codes: Any, radius: int, other: Any = None, *, limit: int | None = None, bit_weights: Any = None
) -> Pairs:
    """Finds all pairs of codes that differ in at most `radius` bits, exactly, each pair once.

    Much faster than a range search of the codes in themselves: it compares each pair once, and with a small radius it
    compares only codes that share a substring.

    Args:
        codes: packed codes uint8 [N, W], tensor or numpy array; N < 2^32 - 1. On a GPU N < 2^31, and all pairs are
            compared, which is best for millions of codes and any radius.
        radius: >= 0, in bits, inclusive; with bit_weights a weighted distance.
        other: packed codes uint8 [M, W] on the same device: pairs of a row i of `codes` and a row j of `other`. None:
            pairs of rows i < j of `codes`.
        limit: the largest number of pairs. None: half of the free memory, at 52 bytes a pair (64 on a GPU).
        bit_weights: (bits, weight) of groups of bits, as in `hamming_topk`: distances are then weighted. Not for codes
            on a GPU.

    Returns:
        ids_a and ids_b int64 [T], the rows i and j, and distances int32 [T], ordered by (i, j): the same for every
        instruction set and thread count.

    Raises:
        ValueError: an argument outside these limits, or more pairs than `limit`. The message says how many there would
            be. They are counted before memory is allocated for them, so a million equal codes are safe.
        TypeError: codes that are not uint8.

    >>> import numpy as np
    >>> codes = np.array([[0b0000], [0b1111], [0b0001], [0b0111]], dtype=np.uint8)
    >>> found = hamming_pairs(codes, radius=1)
    >>> found.ids_a.tolist(), found.ids_b.tolist(), found.distances.tolist()
    ([0, 1], [2, 3], [1, 1])
    >>> weighted = hamming_pairs(codes, radius=4, bit_weights=[(5, 4), (3, 1)])  # the last three bits count 1
    >>> weighted.ids_a.tolist(), weighted.ids_b.tolist(), weighted.distances.tolist()
    ([0, 0, 1, 2], [2, 3, 3, 3], [1, 3, 4, 2])
    """
    function = "hamming_pairs"
    if other is None:
        a, b = packed_codes(function, "codes", codes)[0], None
    else:
        a, b = _code_pair(function, codes, other, names=("codes", "other"))
    weights = _host_weights(bit_weights, a, function)
    radius = min(whole(radius, function, "radius", 0), largest(weights, a.shape[1]))
    for side in (a, b):
        _refuse_many(function, side)
    if a.device.type == "cpu":
        found = all_pairs(_ops.pairs.Join(a, b, radius, bit_weights=weights), radius, limit, function)
    else:
        found = _pairs_on_device(a, b, radius, limit, function)
    return Pairs(*(like(part, codes) for part in found))


class PairsFinder(Protocol):
    """An object that finds pairs: `_ops.pairs.Join`, or a join by blocks."""

    @property
    def rows(self) -> int: ...
    def find(self, first: int, last: int, most: int) -> int: ...
    def write(self, total: int) -> tuple[Tensor, Tensor, Tensor]: ...


def all_pairs(join: PairsFinder, radius: int, limit: int | None, function: str) -> Pairs:
    """The pairs of a join, as tensors; raises ValueError, before memory is taken, where there are more than `limit`."""
    most = _most_pairs() if limit is None else min(whole(limit, function, "limit", 0), MOST)
    total = join.find(0, join.rows, most)
    _refuse_pairs(function, radius, total, most, limit)
    return Pairs(*join.write(total))


def _pairs_on_device(a: Tensor, b: Tensor | None, radius: int, limit: int | None, function: str) -> Pairs:
    """The same for codes on a GPU."""
    if limit is None:
        most = max(torch.cuda.mem_get_info(a.device)[0] // 2 // _DEVICE_PAIR_BYTES, 1)
    else:
        most = min(whole(limit, function, "limit", 0), MOST)
    join = _ops.pairs.DeviceJoin(a, b, radius)
    total = join.find(most)
    _refuse_pairs(function, radius, total, most, limit)
    return Pairs(*join.write(total))


def _refuse_pairs(function: str, radius: int, total: int, most: int, limit: int | None) -> None:
    if total > most:
        reason = f"limit is {most}" if limit is not None else f"half of the free memory holds {most}"
        raise ValueError(
            f"{function}: radius {radius} gives {total} pairs, but {reason}; use a smaller radius, or find "
            "groups, which need no list of pairs"
        )


def duplicate_groups(codes: Any, radius: int, *, link: str = "single", bit_weights: Any = None) -> DuplicateGroups:
    """Puts codes within `radius` of each other into groups, exactly and without a list of pairs.

    Args:
        codes, radius, bit_weights: as in `hamming_pairs`.
        link: "single": two rows are in one group if a chain of pairs within the radius connects them, so the ends of a
            long chain may be far apart. "star": rows are taken in ascending order; a row within the radius of earlier
            representatives joins the lowest of them, any other row becomes a representative. All rows of a star are
            within the radius of its lowest row, and chains do not grow. Not for codes on a GPU.

    Returns:
        labels, representatives, sizes and keep, see `DuplicateGroups`: the same for every instruction set and thread
            count. A million equal codes cost as much as one code, and a row each.

    Raises:
        ValueError, TypeError: an argument outside these limits.

    >>> import numpy as np
    >>> codes = np.array([[0b0000], [0b0001], [0b0011], [0b11110000]], dtype=np.uint8)
    >>> duplicate_groups(codes, 1).labels.tolist(), duplicate_groups(codes, 1, link="star").labels.tolist()
    ([0, 0, 0, 1], [0, 0, 1, 2])
    >>> codes[duplicate_groups(codes, 1).keep].tolist()
    [[0], [240]]
    >>> duplicate_groups(codes, 1, bit_weights=[(7, 2), (1, 1)]).labels.tolist()  # all bits but the last count 2
    [0, 0, 1, 2]
    """
    function = "duplicate_groups"
    a, width = packed_codes(function, "codes", codes)
    weights = _host_weights(bit_weights, a, function)
    radius = min(whole(radius, function, "radius", 0), largest(weights, width))
    star = choice(link, function, "link", LINKS) == "star"
    _refuse_many(function, a)
    if a.device.type == "cpu":
        lowest = _ops.pairs.Join(a, None, radius, bit_weights=weights).groups(star, STAR_PAIRS)
    elif star:
        raise ValueError(f"{function}: link 'star' needs codes in the host's memory, got a tensor on {a.device}")
    else:
        lowest = _ops.pairs.DeviceJoin(a, None, radius).groups()
    return DuplicateGroups(*(like(part, codes) for part in groups_of_lowest(lowest)))


def groups_of_lowest(lowest: Tensor) -> DuplicateGroups:
    """The groups, as tensors, of the lowest row of each row's group, int64 [N]."""
    keep = lowest == torch.arange(len(lowest), device=lowest.device)
    representatives = keep.nonzero()[:, 0]
    labels = (keep.cumsum(0) - 1)[lowest] if len(lowest) else lowest
    return DuplicateGroups(labels, representatives, torch.bincount(labels, minlength=len(representatives)), keep)


def knn_graph(codes: Any, k: int, *, bit_weights: Any = None) -> KnnGraph:
    """Finds the k nearest other codes of every code, exactly: the k-nearest-neighbour graph.

    Args:
        codes: packed codes uint8 [N, W], tensor or numpy array; N >= 2.
        k: 1 to N - 1.
        bit_weights: (bits, weight) of groups of bits, as in `hamming_topk`: distances are then weighted.

    Returns:
        distances int32 [N, k] and ids int64 [N, k], ordered by (distance, id): ties go to the lowest id. No row is its
        own neighbour; an equal code is one, at distance 0. `.csr()` gives a scipy.sparse.csr_array.

    Raises:
        ValueError, TypeError: an argument outside these limits.

    >>> import numpy as np
    >>> graph = knn_graph(np.array([[0b000], [0b111], [0b001]], dtype=np.uint8), k=1)
    >>> graph.ids.tolist(), graph.distances.tolist()
    ([[2], [2], [0]], [[1], [2], [1]])
    >>> knn_graph(np.array([[0b000], [0b110], [0b001]], dtype=np.uint8), k=1, bit_weights=[(7, 1), (1, 3)]).ids.tolist()
    [[1], [0], [0]]
    """
    function = "knn_graph"
    rows, width = packed_codes(function, "codes", codes)
    weights = flat_bit_weights(bit_weights, function, width)
    if len(rows) < 2:
        raise ValueError(f"{function}: codes must have at least 2 rows, got {len(rows)}")
    k = whole(k, function, "k", 1, len(rows) - 1)
    radius = _knn_radius(rows, k, weights)
    if radius is None:
        return KnnGraph(*(like(part, codes) for part in _searched(rows, slice(0, len(rows)), k, weights)))
    distances, ids = _ops.pairs.Join(rows, None, radius, bit_weights=weights).knn(k)
    left = (ids[:, 0] < 0).nonzero()[:, 0]  # rows with fewer than k others within the radius
    distances[left], ids[left] = _searched(rows, left, k, weights)
    return KnnGraph(like(distances, codes), like(ids, codes))


def _searched(codes: Tensor, which: Tensor | slice, k: int, weights: Sequence[int]) -> tuple[Tensor, Tensor]:
    """The k nearest others of some rows, by searches for them."""
    numbers = torch.arange(len(codes), device=codes.device)[which]
    distances = torch.empty(len(numbers), k, dtype=torch.int32, device=codes.device)
    ids = torch.empty(len(numbers), k, dtype=torch.int64, device=codes.device)
    for first in range(0, len(numbers), _QUERIES):
        block = slice(first, min(first + _QUERIES, len(numbers)))
        near, who = torch.ops.fasthash.hamming_topk(codes[numbers[block]], codes, None, k + 1, weights)
        itself = who == numbers[block, None]
        itself[:, k] |= ~itself.any(1)  # k + 1 equal codes have lower ids: the last makes room
        distances[block], ids[block] = near[~itself].view(-1, k), who[~itself].view(-1, k)
    return distances, ids


def _knn_radius(codes: Tensor, k: int, weights: Sequence[int] = ()) -> int | None:
    """The radius whose pairs give a graph soonest, by a sample of rows; None: a search for every row is sooner.

    A search compares each pair twice. A join compares each pair of different codes once, but then takes each pair that
    it finds, and rows with fewer than k others within the radius have to be searched after it.
    """
    if codes.device.type != "cpu" or not _LEAST_JOINED <= len(codes) <= MOST_CODES or k > _ops.pairs.MOST_NEIGHBOURS:
        return None
    if largest(weights, codes.shape[1]) > _MOST_COUNTED:
        return None
    sample = codes[torch.arange(_SAMPLE) * len(codes) // _SAMPLE]
    counts, _ = torch.ops.fasthash.hamming_histogram(sample, codes, None, None, weights)
    within = counts.cumsum(1).double()
    share = 1 / within[:, :1]  # of a row in its code: equal rows are joined as one
    words = len(codes) * ((codes.shape[1] + 7) // 8)  # compared in a search for one row
    found = ((within - within[:, :1]) * share).mean(0) * _FOUND_WORDS / words
    price = 0.5 * (share.mean() ** 2 + found) + (within - 1 < k).double().mean(0)  # of a search for each row
    best = int(price.argmin())
    return best if float(price[best]) < 0.9 else None


def _host_weights(given: Any, codes: Tensor, function: str) -> tuple[int, ...]:
    """Flat bit_weights of a join, which runs on the CPU alone where bits are weighted."""
    weights = flat_bit_weights(given, function, codes.shape[1])
    if weights and codes.device.type != "cpu":
        raise ValueError(f"{function}: bit_weights need codes in the host's memory, got a tensor on {codes.device}")
    return weights


def _refuse_many(function: str, codes: Tensor | None) -> None:
    if codes is None:
        return
    most = MOST_CODES if codes.device.type == "cpu" else _ops.pairs.MOST_ON_CUDA
    if len(codes) > most:
        raise ValueError(f"{function}: codes must have at most {most} rows, got {len(codes)}")


def _most_pairs() -> int:
    """The pairs that half of the free memory holds."""
    return max(free_memory() // 2 // PAIR_BYTES, 1)
