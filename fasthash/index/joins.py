"""Pairs and groups of the codes of an index, joined on the CPU: methods of HammingIndex."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch

from fasthash._arguments import choice, whole
from fasthash._arrays import to_tensor
from fasthash._bit_weights import bit_weights as flat_bit_weights
from fasthash._bit_weights import largest
from fasthash._free_memory import free_memory
from fasthash.codes import check_codes, code_bytes
from fasthash.index.block_joins import BlockJoin, cut, lowest_linked, lowest_of_stars, pair_blocks
from fasthash.index.eligible import Eligible
from fasthash.index.exchange.pair_files import TABLE_SUFFIXES, check_suffix, write_pairs
from fasthash.index.groups import Groups, shown_groups
from fasthash.index.keyed import Keyed, KeyedPairs, StoredKeys, filter_of_ids
from fasthash.index.progress import progress_bar
from fasthash.index.segments import Contents
from fasthash.pairs import LINKS, PAIR_BYTES, Pairs, all_pairs, groups_of_lowest

_LEAST_PAIRS = 1 << 24  # that are in memory at once while they are written, however little is free: some 850 MB


class IndexGroups(NamedTuple):
    """Groups of codes with ids; every eligible code is in one.

    ids int64 [N], ascending: the eligible codes. labels int64 [N]: the group of each, 0 .. G - 1, in the order of their
    lowest ids. representatives int64 [G]: the lowest id of each group. sizes int64 [G]. keep: booleans [N], True for
    representatives.
    """

    ids: Any
    labels: Any
    representatives: Any
    sizes: Any
    keep: Any


class KeyedIndexGroups(Keyed, IndexGroups):
    """IndexGroups of an index with keys: `keys` has the key of each of `ids`."""


class Side(NamedTuple):
    """An index, as one side of a join."""

    contents: Contents
    bits: int
    groups: Groups  # of weighted bits
    device: torch.device

    def weights(self, function: str) -> tuple[int, ...]:
        """Flat, as joins take them; () where all bits count 1."""
        return flat_bit_weights(self.groups or None, function, code_bytes(self.bits))


class Joins:
    """Pairs and groups of the codes of an index: methods of `HammingIndex`."""

    def _side(self) -> Side:
        raise NotImplementedError

    def pairs(self, radius: int, other: Any = None, *, filter: Any = None, limit: int | None = None) -> Pairs:
        """All pairs of codes within `radius` of each other, each once: ids_a, ids_b and distances, as numpy arrays.

        radius: inclusive; a weighted distance, as the distances of the result, where the index has bit_weights.
        Ordered by (ids_a, ids_b); in one index ids_a < ids_b. Where codes have keys, the result has `keys_a` and
        `keys_b`, objects, which are read when they are first asked for (None: that side has none). other: a
        HammingIndex, whose ids are ids_b, or packed codes uint8 [M, ceil(bits / 8)], whose rows are: pairs of a code
        here and a code there. filter: the codes of this index that are eligible, as for `search`. limit and its error
        are those of `hamming_pairs`. The join runs on the CPU, wherever the index is, and takes two copies of the codes
        and 40 bytes a code. Where half of the free memory does not hold that, codes are joined block by block. Raises
        ValueError or TypeError; ValueError where `other` has other bit_weights.

        >>> import numpy as np
        >>> from fasthash import HammingIndex
        >>> index = HammingIndex(bits=8)
        >>> _ = index.add(np.array([[0b0001], [0b0111], [0b0011]], dtype=np.uint8), keys=["cat", "dog", "fox"])
        >>> found = index.pairs(radius=1)
        >>> found.ids_a.tolist(), found.ids_b.tolist(), found.distances.tolist()
        ([0, 1], [2, 2], [1, 1])
        >>> found.keys_a.tolist(), found.keys_b.tolist()
        (['cat', 'dog'], ['fox', 'fox'])
        """
        return pairs_within(self._side(), _side_or_codes(other), radius, filter, limit, "HammingIndex.pairs")

    def write_pairs(
        self, path: str | os.PathLike[str], radius: int, other: Any = None, filter: Any = None,
        *, progress: bool | None = None,
    ) -> int:  # fmt: skip
        """Writes what `pairs` finds to a table, however many they are, and gives their number.

        The suffix says the format: .parquet, .arrow, .feather (need pyarrow) or .csv, columns id_a, id_b, distance,
        then key_a and key_b of sides that have keys. Pairs take a quarter of the free memory at most, or some 850 MB.
        Where there are more, they are written by blocks, and each block is a join of its own. The file is replaced when
        all is written; on any failure it stays as it was. progress: a bar on stderr; None: if that is a terminal.
        Raises OSError where the file cannot be written.
        """
        function, there = "HammingIndex.write_pairs", _side_or_codes(other)
        return write_pairs_within(Path(path), self._side(), there, radius, filter, progress, function)

    def groups(self, radius: int, *, link: str = "single", filter: Any = None) -> IndexGroups:
        """Groups of near-duplicates, as of `duplicate_groups`: ids, labels, representatives, sizes and keep.

        ids are the eligible ones, ascending, and labels and keep belong to them; representatives are ids. Where codes
        have keys, `keys` has that of each of ids, read when it is first asked for. filter as for `search`. No list of
        pairs is made; radius and blocks as for `pairs`. Raises ValueError or TypeError.

        >>> import numpy as np
        >>> from fasthash import HammingIndex
        >>> index = HammingIndex(bits=8)
        >>> _ = index.add(np.array([[0b0001], [0b1111], [0b0011]], dtype=np.uint8), keys=["cat", "dog", "fox"])
        >>> groups = index.groups(radius=1)
        >>> groups.labels.tolist(), groups.sizes.tolist(), groups.keys[groups.keep].tolist()
        ([0, 1, 0], [2, 1], ['cat', 'dog'])
        """
        return groups_within(self._side(), radius, link, filter, "HammingIndex.groups")


def _side_or_codes(other: Any) -> Any:
    return other._side() if isinstance(other, Joins) else other


def pairs_within(own: Side, other: Any, radius: int, filter: Any, limit: int | None, function: str) -> Pairs:
    """All pairs at once, as numpy arrays. other: a Side, an array of codes or None, as of HammingIndex.pairs."""
    a, b = _both(own, other, filter, function)
    radius = _radius(radius, own, function)
    join = BlockJoin(a, b, radius, own.weights(function))
    found = Pairs(*(part.numpy() for part in all_pairs(join, radius, limit, function)))
    keys = _keys_of_both(own, other)
    return KeyedPairs.of(found, keys) if any(keys) else found


def write_pairs_within(
    path: Path, own: Side, other: Any, radius: int, filter: Any, progress: bool | None, function: str
) -> int:
    """Writes the pairs to a file, by blocks, and gives their number."""
    check_suffix(path, TABLE_SUFFIXES, function)
    a, b = _both(own, other, filter, function)
    join = BlockJoin(a, b, _radius(radius, own, function), own.weights(function))
    total = 0
    with progress_bar("pairs", len(a), "code", progress) as bar:

        def blocks() -> Iterator[tuple[Any, ...]]:
            nonlocal total
            for rows, found in pair_blocks(join, _pairs_at_once()):
                yield tuple(part.numpy() for part in found)
                total += len(found.ids_a)
                bar.update(rows)

        write_pairs(path, blocks(), _keys_of_both(own, other), function)
    return total


def _pairs_at_once() -> int:
    """Pairs that a quarter of the free memory holds."""
    return max(free_memory() // 4 // PAIR_BYTES, _LEAST_PAIRS)


def groups_within(own: Side, radius: int, link: str, filter: Any, function: str) -> IndexGroups:
    """Groups, as numpy arrays."""
    star = choice(link, function, "link", LINKS) == "star"
    radius = _radius(radius, own, function)
    codes, _ = _both(own, None, filter, function)
    lowest = (lowest_of_stars if star else lowest_linked)(codes, radius, own.weights(function))
    ids, groups = codes.ids(), groups_of_lowest(lowest)
    named = groups._replace(representatives=ids[groups.representatives])
    found = IndexGroups(*(part.numpy() for part in (ids, *named)))
    keys = stored_keys(own)
    return found if keys is None else KeyedIndexGroups.of(found, keys)


def stored_keys(side: Any) -> StoredKeys | None:
    """The keys of one side of a join; None where it has none."""
    if isinstance(side, Side) and side.contents.keyed:
        return StoredKeys(side.contents, side.device)
    return None


def _keys_of_both(own: Side, other: Any) -> tuple[StoredKeys | None, StoredKeys | None]:
    return stored_keys(own), stored_keys(own if other is None else other)


def _radius(radius: int, side: Side, function: str) -> int:
    """No more than the largest distance."""
    return min(whole(radius, function, "radius", 0), largest(side.weights(function), code_bytes(side.bits)))


def _both(own: Side, other: Any, filter: Any, function: str) -> tuple[Eligible, Eligible | None]:
    """The codes of both sides, in blocks."""
    if isinstance(other, Side):
        if other.bits != own.bits:
            raise ValueError(f"{function}: other must have codes of {own.bits} bits, got {other.bits}")
        if other.weights(function) != own.weights(function):
            raise ValueError(
                f"{function}: other must have the same bit_weights, {shown_groups(own.groups)}, "
                f"got {shown_groups(other.groups)}"
            )
    a, b = _eligible(own, filter, function), None
    if isinstance(other, Side):
        b = _eligible(other, None, function)
    elif other is not None:
        codes = to_tensor(other, function, "other")
        check_codes(codes, own.bits, function, "other")
        b = Eligible.of_codes(codes)
    cut(a, b)
    return a, b


def _eligible(side: Side, filter: Any, function: str) -> Eligible:
    filter = filter_of_ids(side.contents, filter, side.device, function)
    return Eligible.of(side.contents, code_bytes(side.bits), filter, side.device, function)
