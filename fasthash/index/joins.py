"""Pairs and groups of the codes of an index: its live, eligible codes as one array, joined on the CPU."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

from fasthash import _ops
from fasthash._arguments import choice, whole
from fasthash._arrays import to_tensor
from fasthash.codes import check_codes, code_bytes
from fasthash.index.bitmap import unpack_rows
from fasthash.index.exchange.pair_files import TABLE_SUFFIXES, check_suffix, write_pairs
from fasthash.index.groups import Groups
from fasthash.index.progress import progress_bar
from fasthash.index.search.parts import ScannedPart, eligible_parts
from fasthash.index.segments import Contents, Segment
from fasthash.pairs import LINKS, MOST_CODES, STAR_PAIRS, Pairs, all_pairs, groups_of_lowest, pair_blocks

_BLOCK_PAIRS = 1 << 24  # that are in memory at once while they are written: some 850 MB


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


class Side(NamedTuple):
    """An index, as one side of a join."""

    contents: Contents
    bits: int
    groups: Groups  # of weighted bits, which joins do not know
    device: torch.device


class Joins:
    """Pairs and groups of the codes of an index: methods of `HammingIndex`."""

    def _side(self) -> Side:
        raise NotImplementedError

    def pairs(self, radius: int, other: Any = None, *, filter: Any = None, limit: int | None = None) -> Pairs:
        """All pairs of codes within `radius` of each other, each once: ids_a, ids_b and distances, as numpy arrays.

        Ordered by (ids_a, ids_b); in one index ids_a < ids_b. other: a HammingIndex, whose ids are ids_b, or packed
        codes uint8 [M, ceil(bits / 8)], whose rows are: pairs of a code here and a code there. filter: the codes of
        this index that are eligible, as for `search`. limit and the memory bound are those of `hamming_pairs`. The join
        runs on the CPU, with two copies of the codes. Raises ValueError or TypeError; ValueError for bit_weights.
        """
        return pairs_within(self._side(), _side_or_codes(other), radius, filter, limit, "HammingIndex.pairs")

    def write_pairs(
        self, path: str | os.PathLike[str], radius: int, other: Any = None, filter: Any = None,
        *, progress: bool | None = None,
    ) -> int:  # fmt: skip
        """Writes what `pairs` finds to a table, however many they are, and gives their number.

        The suffix says the format: .parquet, .arrow, .feather (need pyarrow) or .csv, columns id_a, id_b, distance.
        Memory for pairs is bounded by a block of some 850 MB; where there are more, each block is a join of its own.
        The file is replaced when all is written. progress: a bar on stderr; None: where that is a terminal.
        """
        function, there = "HammingIndex.write_pairs", _side_or_codes(other)
        return write_pairs_within(Path(path), self._side(), there, radius, filter, progress, function)

    def groups(self, radius: int, *, link: str = "single", filter: Any = None) -> IndexGroups:
        """Groups of near-duplicates, as of `duplicate_groups`: ids, labels, representatives, sizes and keep.

        ids are the eligible ones, ascending, and labels and keep belong to them; representatives are ids. filter as for
        `search`. No list of pairs is made. Raises ValueError or TypeError; ValueError for bit_weights.
        """
        return groups_within(self._side(), radius, link, filter, "HammingIndex.groups")


def _side_or_codes(other: Any) -> Any:
    return other._side() if isinstance(other, Joins) else other


class _Eligible(NamedTuple):
    """Codes uint8 [N, W] on the CPU with ids int64 [N], ascending; None: 0 .. N - 1."""

    codes: Tensor
    ids: Tensor | None

    def numbers(self, rows: Tensor) -> Tensor:
        """The ids of rows."""
        return rows if self.ids is None else self.ids[rows]


def pairs_within(own: Side, other: Any, radius: int, filter: Any, limit: int | None, function: str) -> Pairs:
    """All pairs at once, as numpy arrays. other: a Side, an array of codes or None, as of HammingIndex.pairs."""
    a, b = _both(own, other, filter, function)
    join, radius = _join(a, b, radius, function)
    found = all_pairs(join, radius, limit, function)
    return Pairs(*_with_ids(found, a, b))


def write_pairs_within(
    path: Path, own: Side, other: Any, radius: int, filter: Any, progress: bool | None, function: str
) -> int:
    """Writes the pairs to a file, by blocks, and gives their number."""
    check_suffix(path, TABLE_SUFFIXES, function)
    a, b = _both(own, other, filter, function)
    join, _ = _join(a, b, radius, function)
    total = 0
    with progress_bar("pairs", len(a.codes), "code", progress) as bar:

        def blocks() -> Iterator[tuple[Any, ...]]:
            nonlocal total
            for rows, found in pair_blocks(join, _BLOCK_PAIRS):
                yield _with_ids(found, a, b)
                total += len(found.ids_a)
                bar.update(rows)

        write_pairs(path, blocks(), function)
    return total


def groups_within(own: Side, radius: int, link: str, filter: Any, function: str) -> IndexGroups:
    """Groups, as numpy arrays."""
    star = choice(link, function, "link", LINKS) == "star"
    a, _ = _both(own, None, filter, function)
    join, _ = _join(a, None, radius, function)
    groups = groups_of_lowest(join.groups(star, STAR_PAIRS))
    named = groups._replace(representatives=a.numbers(groups.representatives))
    return IndexGroups(*(part.numpy() for part in (a.numbers(torch.arange(len(a.codes))), *named)))


def _both(own: Side, other: Any, filter: Any, function: str) -> tuple[_Eligible, _Eligible | None]:
    for side in (own, other) if isinstance(other, Side) else (own,):
        if side.groups:
            raise ValueError(f"{function}: pairs are of codes without bit_weights, got {list(side.groups)}")
        if side.bits != own.bits:
            raise ValueError(f"{function}: other must have codes of {own.bits} bits, got {side.bits}")
    a = _eligible(own, filter, function)
    if other is None:
        return a, None
    if isinstance(other, Side):
        return a, _eligible(other, None, function)
    codes = to_tensor(other, function, "other")
    check_codes(codes, own.bits, function, "other")
    return a, _Eligible(codes.cpu(), None)


def _eligible(side: Side, filter: Any, function: str) -> _Eligible:
    """The live codes that `filter` allows. Codes of one whole segment are not copied."""
    parts = eligible_parts(side.contents, filter, side.device, function, _whole_parts)
    found = [_rows_of(part) for part in cast(Iterator[ScannedPart], parts)]
    if not found:
        return _Eligible(torch.empty(0, code_bytes(side.bits), dtype=torch.uint8), None)
    codes, ids = (torch.cat(parts) if len(parts) > 1 else parts[0] for parts in zip(*found, strict=True))
    if bool((ids[1:] < ids[:-1]).any()):
        ids, order = ids.sort()
        codes = codes[order]
    return _Eligible(codes.cpu(), ids.cpu())


def _whole_parts(segment: Segment, mask: Tensor | None, filtered: bool) -> Iterator[ScannedPart]:
    yield ScannedPart(segment, segment.codes, mask, 0)


def _rows_of(part: ScannedPart) -> tuple[Tensor, Tensor]:
    """The codes of a part and their ids."""
    segment, rows = part.segment, part.rows
    if rows is not None:
        return part.codes, segment.ids_of(rows)
    if part.mask is None:
        return part.codes, segment.ids_of(torch.arange(segment.rows, device=segment.codes.device))
    rows = unpack_rows(part.mask, 0, segment.rows).nonzero()[:, 0]
    return segment.codes[rows], segment.ids_of(rows)


def _join(a: _Eligible, b: _Eligible | None, radius: int, function: str) -> tuple[_ops.pairs.Join, int]:
    """The join, and the radius that it has: no more than the bits of a code."""
    radius = min(whole(radius, function, "radius", 0), 8 * a.codes.shape[1])
    for side in (a, b):
        if side is not None and len(side.codes) > MOST_CODES:
            raise ValueError(f"{function}: at most {MOST_CODES} codes can be joined, got {len(side.codes)}")
    return _ops.pairs.Join(a.codes, None if b is None else b.codes, radius), radius


def _with_ids(found: Pairs, a: _Eligible, b: _Eligible | None) -> tuple[Any, Any, Any]:
    """Rows become ids, in numpy arrays."""
    named = a.numbers(found.ids_a), (b or a).numbers(found.ids_b), found.distances
    return named[0].numpy(), named[1].numpy(), named[2].numpy()
