"""Joins of the codes of an index, block by block where they are larger than memory: each pair of blocks once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from fasthash import _ops
from fasthash._arguments import MOST
from fasthash._free_memory import free_memory
from fasthash.index.eligible import Block, Eligible
from fasthash.pairs import MOST_CODES, STAR_PAIRS, Pairs

_LEAST_AT_ONCE = 1 << 20  # codes that are joined at once, however little memory is free


def codes_at_once(width: int) -> int:
    """Codes of `width` bytes whose join takes half of the free memory.

    Each takes two padded copies, its id, and what finds equal codes.
    """
    padded = 4 if width <= 4 else (width + 7) // 8 * 8
    return min(max(free_memory() // 2 // (width + 2 * padded + 40), _LEAST_AT_ONCE), MOST_CODES)


def cut(a: Eligible, b: Eligible | None) -> None:
    """Cuts one side, or both, into blocks of which a pair fits into memory."""
    most = codes_at_once(a.width)
    count = len(a) + (0 if b is None else len(b))
    for side in (a, b):
        if side is not None:
            side.cut(most if count <= most else max(most // 2, 1))


_NO_PAIRS = Pairs(*(torch.empty(0, dtype=kind) for kind in (torch.int64, torch.int64, torch.int32)))


class BlockJoin:
    """Pairs within a radius of two sides, or of one (b is None), as ids. Finds them as `_ops.pairs.Join` does.

    Where there are blocks, the pairs that a search finds are kept with their ids, 20 bytes each.
    """

    def __init__(self, a: Eligible, b: Eligible | None, radius: int, weights: Sequence[int]):
        self._a, self._b, self._radius, self._weights = a, b, radius, weights
        self._found: list[Pairs] = []
        self._only: tuple[_ops.pairs.Join, Block, Block] | None = None  # kept where neither side has a second block

    @property
    def rows(self) -> int:
        return len(self._a)

    def end(self, row: int) -> int:
        """The end of the block that this row of the first side is in."""
        return next(start for start in self._a.starts if start > row)

    def find(self, first: int, last: int, most: int) -> int:
        """How many pairs have their first row in first .. last - 1.

        `write` then gives them where there are at most `most`.
        """
        self._found, total = [], 0
        for number in range(self._a.blocks):
            start, stop = self._a.starts[number : number + 2]
            if start < last and stop > first:
                rows = max(first, start) - start, min(last, stop) - start
                total = self._find(number, rows, total, most)
        return total

    def _find(self, number: int, rows: tuple[int, int], total: int, most: int) -> int:
        """The pairs of some rows of one block with all blocks, added to those that were found."""
        found = list[Pairs]()
        for join, block, near in self._joins(number):
            here = join.find(*rows, max(most - total, 0))
            total += here
            if total <= most:
                a, b, distances = join.write(here)
                found.append(Pairs(block.numbers(a), near.numbers(b), distances))
        if total > most:
            self._found = []
        elif len(found) == 1:
            self._found += found
        else:
            pairs = _concatenated([_NO_PAIRS, *found])
            order = pairs.ids_a.argsort(stable=True)  # blocks follow one another, and so do their ids
            self._found.append(Pairs(*(part[order] for part in pairs)))
        return total

    def _joins(self, number: int) -> Iterator[tuple[_ops.pairs.Join, Block, Block]]:
        """The joins of one block with all that it meets, ascending, and the ids of both sides."""
        others = self._b or self._a
        if self._only is not None:
            yield self._only
            return
        block = self._a.block(number)
        for other in range(number if self._b is None else 0, others.blocks):
            near = block if self._b is None and other == number else others.block(other)
            codes = None if near is block else near.codes
            join = _ops.pairs.Join(block.codes, codes, self._radius, bit_weights=self._weights)
            if self._a.blocks == others.blocks == 1:
                nothing = torch.empty(0, dtype=torch.uint8)  # the join has copies of the codes
                self._only = join, block._replace(codes=nothing), near._replace(codes=nothing)
            yield join, block, near

    def write(self, total: int) -> Pairs:
        """The pairs that `find` counted last: ids int64 [total] twice and distances int32, ordered by the ids."""
        found, self._found = self._found, []
        return found[0] if len(found) == 1 else _concatenated([_NO_PAIRS, *found])


def _concatenated(found: list[Pairs]) -> Pairs:
    return Pairs(*(torch.cat(parts) for parts in zip(*found, strict=True)))


def pair_blocks(join: BlockJoin, most: int) -> Iterator[tuple[int, Pairs]]:
    """The pairs of a join in order, at most `most` at a time but for a row that has more, and how many rows they end.

    Each is a search of its own: it takes about as long as a search for all pairs of a block of codes.
    """
    first, step = 0, join.rows
    while first < join.rows:
        last = min(first + step, join.end(first))
        total = join.find(first, last, most if last - first > 1 else MOST)
        if total > most and last - first > 1:
            step = max(1, int((last - first) * 0.8 * most / total))
            continue
        yield last - first, join.write(total)
        first = last


def lowest_linked(codes: Eligible, radius: int, weights: Sequence[int]) -> Tensor:
    """The lowest row that a chain of pairs connects each row with, int64 [N]."""
    parents = torch.arange(len(codes))
    for number in range(codes.blocks):
        block = codes.block(number)
        for other in range(number, codes.blocks):
            near = None if other == number else codes.block(other).codes
            join = _ops.pairs.Join(block.codes, near, radius, bit_weights=weights)
            join.unite(parents, codes.starts[number], codes.starts[other])
    return _ops.pairs.roots(parents)


def lowest_of_stars(codes: Eligible, radius: int, weights: Sequence[int]) -> Tensor:
    """The representative of each row, int64 [N], where rows are taken in ascending order."""
    lowest = torch.full((len(codes),), -1)
    for number in range(codes.blocks):
        start = codes.starts[number]
        block, own = codes.block(number).codes, lowest[start : codes.starts[number + 1]]
        for earlier in range(number):  # ascending: who finds a representative has found its lowest
            first = codes.starts[earlier]
            stars = lowest[first : codes.starts[earlier + 1]]
            centres = (stars == torch.arange(first, first + len(stars))).nonzero()[:, 0]
            left = (own < 0).nonzero()[:, 0]
            if len(centres) and len(left):
                join = _ops.pairs.Join(codes.block(earlier).codes[centres], block[left], radius, bit_weights=weights)
                near = join.lowest()
                own[left] = torch.where(near < 0, near, centres[near] + first)
        left = (own < 0).nonzero()[:, 0]
        if len(left):
            chosen = block if len(left) == len(own) else block[left]
            join = _ops.pairs.Join(chosen, None, radius, bit_weights=weights)
            own[left] = left[join.groups(True, STAR_PAIRS)] + start
    return lowest
