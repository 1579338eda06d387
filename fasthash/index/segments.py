"""Segments: immutable blocks of codes in ascending id order, in memory or mapped."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from fasthash._arrays import dtype_name, to_tensor
from fasthash.codes import code_bytes
from fasthash.index.bitmap import all_rows, has_rows, row_blocks, rows_between, unpack_rows, without_rows
from fasthash.index.keys import KeyRows, Keys, Numbers
from fasthash.index.keys import repeated_key as repeated
from fasthash.index.vectors import Vectors

ID_END = 2**63  # ids are 0 .. 2**63 - 1
BLOCK_BYTES = 16 << 20  # codes and ids that are read, checked or written at a time
_BLOCK = 1 << 22  # rows of a bitmap that are unpacked at once


class ExtraFile(NamedTuple):
    """A file that holds something more about the rows of a segment, say tables for a faster search."""

    kind: str
    name: str
    checksum: str


@dataclass(frozen=True)
class SegmentEntry:
    """The files of one segment, as the manifest names them. Checksums are XXH3-128 of whole files, in hexadecimal."""

    file: str
    rows: int
    implicit: bool  # ids are first_id + row; else the file holds them
    first_id: int
    checksum: str
    tombstones: str | None = None
    tombstones_checksum: str | None = None
    deleted: int = 0
    extras: tuple[ExtraFile, ...] = ()

    def extra(self, kind: str) -> ExtraFile | None:
        """The extra file of this kind."""
        return next((extra for extra in self.extras if extra.kind == kind), None)

    @property
    def files(self) -> list[str]:
        """The names of all its files."""
        names = (self.file, self.tombstones, *(extra.name for extra in self.extras))
        return [name for name in names if name is not None]


@dataclass(frozen=True)
class Segment:
    """n codes with ascending, unique ids, of which some may be deleted.

    Row order is id order, so that the tie order of a scan (by position) is the tie order of the index (by id).
    """

    codes: Tensor  # uint8 [n, W]
    first_id: int
    ids: Tensor | None = None  # int64 [n] ascending, on the device of codes; None: first_id + row
    live: Tensor | None = None  # bitmap of the live rows (bitmap.py), on the device of codes; None: all
    deleted: int = 0  # rows that are not live
    entry: SegmentEntry | None = None  # the file that holds it; None: not on disk
    mapped: bool = False  # codes and ids are pages of that file
    extras: Mapping[str, Any] = field(default_factory=dict)  # what its extra files hold, by their kind
    keys: Keys | None = None  # of all rows, in the host's memory
    scales: Tensor | None = None  # float16 [n], on the device of codes: the code_scale of each; None: there are none
    vectors: Vectors | None = None  # of all rows, in the host's memory

    @property
    def rows(self) -> int:
        return len(self.codes)

    @property
    def count(self) -> int:
        """Live rows."""
        return self.rows - self.deleted

    @property
    def last_id(self) -> int:
        return self.id_at(self.rows - 1)

    def id_at(self, row: int) -> int:
        """The id of one row, deleted or not."""
        return self.first_id + row if self.ids is None else int(self.ids[row])

    def row_after(self, id: int) -> int:
        """The first row whose id is above this one."""
        if self.ids is None:
            return min(max(id - self.first_id + 1, 0), self.rows)
        return int(torch.searchsorted(self.ids, id, right=True))

    def find(self, ids: Tensor) -> Tensor:
        """int64 [M], any order -> the live row of each id, -1 where this segment has none."""
        if self.ids is None:
            rows = ids - self.first_id
            found = (rows >= 0) & (rows < self.rows)
        else:
            rows = torch.searchsorted(self.ids, ids.contiguous()).clamp_(max=self.rows - 1)
            found = self.ids[rows] == ids
        if self.live is not None:
            found &= has_rows(self.live, torch.where(found, rows, 0))
        return torch.where(found, rows, -1)

    def is_live(self, rows: Numbers) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """Which of some rows are live, bool."""
        if self.live is None:
            return np.ones(len(rows), np.bool_)
        there: np.ndarray[Any, np.dtype[np.bool_]] = (
            has_rows(self.live, torch.from_numpy(rows).to(self.live.device)).cpu().numpy()
        )
        return there

    def ids_of(self, rows: Tensor) -> Tensor:
        """int64 rows of any shape -> their ids."""
        return rows + self.first_id if self.ids is None else self.ids[rows]

    def live_rows(self, start: int, stop: int) -> Tensor:
        """int64, ascending: the live rows from start to before stop."""
        if self.live is None:
            return torch.arange(start, stop, device=self.codes.device)
        return rows_between(self.live, start, stop)

    def live_count(self, start: int, stop: int) -> int:
        """How many rows from start to before stop are live."""
        if self.live is None:
            return stop - start
        if stop - start == self.rows:
            return self.count
        return sum(
            int(unpack_rows(self.live, at, min(at + _BLOCK, stop)).sum()) for at in range(start, stop, _BLOCK)
        )  # fmt: skip

    def live_bounds(self, start: int, stop: int) -> list[int]:
        """The lowest and the highest live id from row start to before stop; empty where no row is live."""
        if start >= stop:
            return []
        if self.live is None:
            return [self.id_at(start), self.id_at(stop - 1)]
        blocks = range(start, stop, _BLOCK)
        first = next((rows for at in blocks if len(rows := self.live_rows(at, min(at + _BLOCK, stop)))), None)
        if first is None:
            return []
        last = next(rows for at in reversed(blocks) if len(rows := self.live_rows(at, min(at + _BLOCK, stop))))
        return [self.id_at(int(first[0])), self.id_at(int(last[-1]))]

    def live_ids(self) -> Tensor:
        """The ids of the live rows, ascending: 8 bytes each."""
        if self.live is None and self.ids is not None:
            return self.ids
        return self.ids_of(self.live_rows(0, self.rows))

    def without(self, rows: Tensor) -> Segment:
        """The same segment with these (live, distinct) rows deleted."""
        live = all_rows(self.rows, self.codes.device) if self.live is None else self.live.clone()
        return replace(self, live=without_rows(live, rows), deleted=self.deleted + len(rows))

    def deleted_blocks(self) -> Iterator[Tensor]:
        """Which rows are deleted, bool, by blocks of a multiple of 64 rows."""
        if self.live is not None:
            for _, live in row_blocks(self.live, self.rows):
                yield ~live

    def code_blocks(self, rows: int) -> Iterator[Tensor]:
        """The codes of the live rows, at most `rows` at a time."""
        for start in range(0, self.rows, rows):
            stop = min(start + rows, self.rows)
            yield self.codes[start:stop] if self.live is None else self.codes[self.live_rows(start, stop)]


class Contents(NamedTuple):
    """All that an index holds. A change makes a new one, so that a search under way never sees half of it."""

    segments: tuple[Segment, ...]  # by ascending first id
    next_id: int  # highest id ever used + 1
    ordered: bool  # segment order is id order
    size: int  # live codes
    keyed: bool = False  # whether codes have keys; an index that has had some takes no codes without them

    @classmethod
    def of(cls, segments: Sequence[Segment], next_id: int, keyed: bool = False) -> Contents:
        """The contents of these segments, in any order."""
        ascending = tuple(sorted(segments, key=lambda segment: (segment.first_id, segment.last_id)))
        ordered = all(a.last_id < b.first_id for a, b in itertools.pairwise(ascending))
        keyed = keyed or any(segment.keys is not None for segment in ascending)
        return cls(ascending, next_id, ordered, sum(segment.count for segment in ascending), keyed)

    @property
    def scaled(self) -> bool:
        """Whether the codes have a code_scale each; either all segments have them or none."""
        return any(segment.scales is not None for segment in self.segments)

    def ids(self) -> Tensor:
        """The live ids, ascending."""
        if not self.segments:
            return torch.empty(0, dtype=torch.int64)
        ids = torch.cat([segment.live_ids() for segment in self.segments])
        return ids if self.ordered else ids.sort().values

    def bounds(self) -> tuple[int, int] | None:
        """The lowest and the highest live id; None where there is none."""
        edges = [edge for segment in self.segments for edge in segment.live_bounds(0, segment.rows)]
        return (min(edges), max(edges)) if edges else None

    def codes_of(self, ids: Tensor, width: int) -> tuple[Tensor, Tensor]:
        """int64 [M] -> their codes, uint8 [M, width], and which were found, bool [M]."""
        codes = torch.zeros((len(ids), width), dtype=torch.uint8, device=ids.device)
        found = torch.zeros(len(ids), dtype=torch.bool, device=ids.device)
        for segment in self.segments:
            rows = segment.find(ids)
            here = rows >= 0
            if bool(here.all()):
                return segment.codes.index_select(0, rows), here
            codes[here] = segment.codes.index_select(0, rows[here])
            found |= here
        return codes, found

    def scales_of(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """int64 [M] -> their code_scale, float16 [M], and which were found, bool [M]; 0 where a segment has none."""
        scales = torch.zeros(len(ids), dtype=torch.float16, device=ids.device)
        found = torch.zeros(len(ids), dtype=torch.bool, device=ids.device)
        for segment in self.segments:
            rows = segment.find(ids)
            here = rows >= 0
            if segment.scales is not None:
                scales[here] = segment.scales.index_select(0, rows[here])
            found |= here
        return scales, found

    def ids_of_keys(self, keys: KeyRows, device: torch.device) -> Tensor:
        """The id of each key, int64 [M] on the device of the codes; -1 where no code has it."""
        ids = torch.full((keys.size,), -1, dtype=torch.int64, device=device)
        for segment in self.segments:
            if segment.keys is not None:
                rows = segment.keys.find(keys)
                here = np.flatnonzero(rows >= 0)
                here = here[segment.is_live(rows[here])]
                places, found = (torch.from_numpy(part).to(device) for part in (here, rows[here]))
                ids[places] = segment.ids_of(found)
        return ids

    def has_key(self, key: bytes, hash: int) -> bool:
        """Whether a live code has this key, whose hash is given too."""
        for segment in self.segments:
            row = -1 if segment.keys is None else segment.keys.find_one(key, hash)
            if row >= 0 and (segment.live is None or bool(segment.is_live(np.array([row]))[0])):
                return True
        return False

    def keys_of_ids(self, ids: Tensor) -> np.ndarray[Any, np.dtype[Any]]:
        """The keys of ids of any shape, objects of that shape: None where no code has the id."""
        flat = ids.reshape(-1)
        keys = np.full(len(flat), None, object)
        for segment in self.segments:
            if segment.keys is not None:
                rows = segment.find(flat).cpu().numpy()
                here = np.flatnonzero(rows >= 0)
                keys[here] = segment.keys.texts(rows[here])
        return keys.reshape(tuple(ids.shape))

    def key_lengths(self, ids: Tensor) -> Numbers:
        """The bytes of the keys of ids [M], int64 [M]: 0 where no code has the id."""
        lengths = np.zeros(len(ids), np.int64)
        for segment in self.segments:
            if segment.keys is not None:
                rows = segment.find(ids).cpu().numpy()
                here = np.flatnonzero(rows >= 0)
                lengths[here] = segment.keys.lengths(rows[here])
        return lengths

    def new_ids(self, ids: Any, count: int, replace: bool, device: torch.device) -> tuple[Tensor | int, int]:
        """The ids of `count` new codes (a number: from there on), and the next id when these are used.

        ids: as HammingIndex.add gets them. Raises ValueError or TypeError where they cannot be added.
        """
        function = "HammingIndex.add"
        if ids is None:
            if self.next_id + count > ID_END:
                raise ValueError(f"{function}: {count} ids from {self.next_id} on exceed 2**63 - 1")
            return self.next_id, self.next_id + count
        numbers = id_tensor(ids, function).to(device, copy=True)
        if len(numbers) != count:
            raise ValueError(f"{function}: {count} codes need {count} ids, got {len(numbers)}")
        if not count:
            return numbers, self.next_id
        ascending = numbers.sort().values
        if int(ascending[0]) < 0:
            raise ValueError(f"{function}: ids must be between 0 and 2**63 - 1, got {int(ascending[0])}")
        repeated = ascending[1:][ascending[1:] == ascending[:-1]]
        if len(repeated):
            raise ValueError(f"{function}: ids must be distinct, got {int(repeated[0])} more than once")
        for segment in () if replace else self.segments:
            taken = ascending[segment.find(ascending) >= 0]
            if len(taken):
                raise ValueError(f"{function}: id {int(taken[0])} is in the index already; replace=True replaces it")
        return numbers, max(self.next_id, int(ascending[-1]) + 1)


def without(segments: Sequence[Segment], ids: Tensor) -> tuple[tuple[Segment, ...], int]:
    """Segments with the codes of these distinct, ascending ids deleted, and how many those were."""
    result, removed = [], 0
    for segment in segments:
        rows = segment.find(ids)
        rows = rows[rows >= 0]
        result.append(segment.without(rows) if len(rows) else segment)
        removed += len(rows)
    return tuple(result), removed


def block_rows(bits: int) -> int:
    """Rows of codes and ids that make up a block."""
    return max(1, BLOCK_BYTES // (8 + code_bytes(bits)))


def id_tensor(ids: Any, function: str, name: str = "ids") -> Tensor:
    """A 1-D array, tensor or list of integers, or one integer, as int64 [N]."""
    numbers = to_tensor(ids, function, name)
    if numbers.ndim == 0:
        numbers = numbers.reshape(1)
    if numbers.ndim != 1:
        raise ValueError(f"{function}: {name} must be one-dimensional, got shape {tuple(numbers.shape)}")
    if len(numbers) and (numbers.is_floating_point() or numbers.is_complex() or numbers.dtype == torch.bool):
        raise TypeError(f"{function}: {name} must be integers, got {dtype_name(numbers)}")
    if numbers.dtype == torch.uint64:
        signed = numbers.view(torch.int64) if numbers.is_contiguous() else numbers.to(torch.int64)
        if bool((signed < 0).any()):
            first = int(signed[signed < 0][0]) + 2**64
            raise ValueError(f"{function}: {name} must be between 0 and 2**63 - 1, got {first}")
        return signed
    return numbers.to(torch.int64)


def make_segment(
    codes: Tensor,
    ids: Tensor | int,
    keys: KeyRows | None = None,
    scales: Tensor | None = None,
    vectors: Vectors | None = None,
) -> Segment:
    """A segment of n >= 1 codes, uint8 [n, W], with ids int64 [n] (unique, any order) or from `ids` on.

    keys, scales (float16 [n]), vectors: those of the codes, or None. Contiguous ids are kept as a range. The codes are
    not copied unless they have to be sorted.
    """
    if isinstance(ids, int):
        return Segment(codes, ids, keys=_table(keys), scales=scales, vectors=vectors)
    if bool((ids[1:] < ids[:-1]).any()):
        ids, order = ids.sort()
        codes, scales = codes[order], None if scales is None else scales[order]
        keys = None if keys is None else keys.taken(order.cpu().numpy())
        vectors = None if vectors is None else vectors.taken(order.cpu().numpy())
    first, last = int(ids[0]), int(ids[-1])
    kept = None if last - first + 1 == len(ids) else ids
    return Segment(codes, first, kept, keys=_table(keys), scales=scales, vectors=vectors)


def repeated_key(segments: Sequence[Segment]) -> str | None:
    """A key that is live more than once; None where all are distinct."""
    tables = [(s.keys, s.is_live if s.deleted else None) for s in segments if s.keys is not None]
    return repeated(tables) if tables else None


def _table(keys: KeyRows | None) -> Keys | None:
    return None if keys is None else Keys.of(keys)
