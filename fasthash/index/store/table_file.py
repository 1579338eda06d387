"""Tables of multi-index hashing beside a segment: making them and reading them (search/tables.py searches them).

Norouzi, Punjani & Fleet, "Fast exact search in Hamming space with multi-index hashing" (2014); csrc/mih/mih.h says how
the search works and docs/index-format.md what a file holds.
"""

from __future__ import annotations

import itertools
import json
import math
import mmap as memory_map
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fasthash._arrays import to_tensor
from fasthash.index.prices import MOST, Prices, measured
from fasthash.index.segments import Segment, SegmentEntry
from fasthash.index.store.tensorfile import Bytes, Column, TensorFile, metadata_of, read_tensors, write_tensors
from fasthash.index.store.untrusted import IndexFolderError, shorten

KIND = "mih"
MIN_ROWS = 1024  # a smaller segment is scanned in a few microseconds
_MOST_ROWS = 2**32 - 1  # positions are 32-bit numbers
_MOST_TABLES = 16
_LONGEST = 22  # bits: offsets of 16 MiB
_BLOCK_BYTES = 1 << 29  # entries that are made at a time: each block takes two passes over the codes


@dataclass(frozen=True, eq=False)
class Tables:
    """The tables of a segment."""

    file: Path
    bits: int
    starts: list[int]  # first bits of the substrings
    arrays: list[Tensor]  # of each: offsets int32 [2^length + 1], fingerprints uint8 [n, 4 or 8], positions int32 [n]
    prices: Prices | None  # measured when they were made; None: files of earlier versions have none


def substrings(bits: int, rows: int) -> list[tuple[int, int]]:
    """The bits of a code that make up each table: (first, length), disjoint.

    Of about log2(rows) - 4 bits: buckets of some 16 to 64 entries, a few cache lines each, were the fastest at 1e7 and
    1e8 rows. Wide codes have more bits than their tables look at.
    """
    wanted = min(max(math.log2(rows) - 4, 4), _LONGEST)
    tables = min(max(round(bits / wanted), 1), _MOST_TABLES)
    longest = min(_LONGEST, math.ceil(math.log2(rows)))
    cuts = [bits * table // tables for table in range(tables + 1)]
    return [(start, max(1, min(end - start, longest))) for start, end in itertools.pairwise(cuts)]


def can_have(segment: Segment) -> bool:
    """Whether tables of a segment can be made and are worth it."""
    return MIN_ROWS <= segment.rows <= _MOST_ROWS and segment.codes.device.type == "cpu"


def entries(segment: Segment, bits: int) -> int:
    """Entries that the tables of a segment have."""
    return segment.rows * len(substrings(bits, segment.rows))


def write(where: Path, segment: Segment, bits: int, advance: Callable[[int], object]) -> str:
    """Makes the tables of a segment that is on disk, in a new file; gives its checksum.

    Then measures what searches cost (prices.py), which the file's metadata says. Memory beyond the codes: about 0.8 GiB
    at most. advance: is told of entries as they are written.
    """
    entry = segment.entry
    if entry is None:
        raise ValueError("table_file.write: the segment is not on disk")
    width = _fingerprint_bytes(bits)
    parts = substrings(bits, segment.rows)
    offsets = [torch.ops.fasthash.mih_offsets(segment.codes, start, length) for start, length in parts]
    starts = [start for start, _ in parts]

    def column(fingerprint_bytes: int) -> Iterator[Any]:
        for start, ends in zip(starts, offsets, strict=True):
            for block in _column(segment.codes, ends, start, bits, fingerprint_bytes):
                yield block
                advance(len(block) if fingerprint_bytes else 0)

    count = segment.rows * len(parts)
    columns = [
        Column("offsets", "U32", (sum(map(len, offsets)),), (ends.numpy().view(np.uint32) for ends in offsets)),
        Column("fingerprints", "U8", (count, width), column(width)),
        Column("positions", "U32", (count,), column(0)),
    ]

    def metadata(data: Bytes) -> dict[str, str]:
        cuts = np.cumsum([4 * sum(map(len, offsets)), count * width])
        of_offsets, fingerprints, positions = np.split(data, cuts)
        tensors: dict[str, np.ndarray[Any, Any]] = {
            "offsets": of_offsets.view(np.uint32),
            "fingerprints": fingerprints.reshape(count, width),
            "positions": positions.view(np.uint32),
        }
        prices = measured(segment.codes, starts, _arrays(tensors, parts, segment.rows), bits)
        fields = {"substrings": json.dumps(parts), "prices": json.dumps(prices)}
        return metadata_of(KIND, bits=str(bits), segment=entry.checksum, **fields)

    return write_tensors(where, columns, metadata)[0]


def _arrays(tensors: dict[str, np.ndarray[Any, Any]], parts: list[tuple[int, int]], rows: int) -> list[Tensor]:
    """The arrays of each table, from the tensors of a file."""
    offsets = torch.split(to_tensor(tensors["offsets"].view(np.int32)), [(1 << length) + 1 for _, length in parts])
    fingerprints = torch.split(to_tensor(tensors["fingerprints"]), rows)
    positions = torch.split(to_tensor(tensors["positions"].view(np.int32)), rows)
    return [array for table in zip(offsets, fingerprints, positions, strict=True) for array in table]


def _column(codes: Tensor, offsets: Tensor, start: int, bits: int, fingerprint_bytes: int) -> Iterator[Any]:
    """A column of a table, by ranges of buckets whose entries fit a block."""
    ends = offsets.numpy().view(np.uint32)
    first, last = 0, len(ends) - 1
    while first < last:
        room = int(ends[first]) + _BLOCK_BYTES // (fingerprint_bytes or 4)
        stop = min(max(int(np.searchsorted(ends, room, side="right")) - 1, first + 1), last)
        entries = torch.ops.fasthash.mih_fill(codes, offsets, start, bits, fingerprint_bytes, first, stop).numpy()
        yield entries if fingerprint_bytes else entries.view(np.uint32)
        first = stop


def read(path: Path, entry: SegmentEntry, bits: int, mmap: bool) -> tuple[Tables, TensorFile] | None:
    """Maps or loads the tables of a segment; None where it has none. Gives the file too, for checks of every byte.

    Raises FileNotFoundError where the file is missing, IndexFolderError where it contradicts itself or is not one of
    the segment. Mapped entries are not read; the search itself checks every access.
    """
    extra = entry.extra(KIND)
    if extra is None:
        return None
    where = path / extra.name
    file = read_tensors(where, mmap, advice=getattr(memory_map, "MADV_RANDOM", None))
    if not mmap:
        file.check_sum(extra.checksum)
    file.check_metadata(metadata_of(KIND, bits=str(bits), segment=entry.checksum))
    parts = _parse_substrings(file.metadata.get("substrings"), bits, where)
    sizes = [(1 << length) + 1 for _, length in parts]
    count = entry.rows * len(parts)
    expected = {
        "offsets": ("uint32", (sum(sizes),)),
        "fingerprints": ("uint8", (count, _fingerprint_bytes(bits))),
        "positions": ("uint32", (count,)),
    }
    if file.shapes != expected:
        raise IndexFolderError(f"{where}: must hold {shorten(expected)}, got {shorten(file.shapes)}")
    prices = _parse_prices(file.metadata.get("prices"), where)
    arrays = _arrays(file.tensors, parts, entry.rows)
    return Tables(where, bits, [start for start, _ in parts], arrays, prices), file


def _fingerprint_bytes(bits: int) -> int:
    """Of short codes 32 bits beside the substring are nearly all; of longer ones 64 rule out most at their radii."""
    return 4 if bits <= 64 else 8


def _parse_substrings(text: str | None, bits: int, where: Path) -> list[tuple[int, int]]:
    """The substrings that a file says it is about: disjoint, in order, inside the code."""
    try:
        parts = [(start, length) for start, length in json.loads(text or "")]
    except (TypeError, ValueError, RecursionError) as error:
        raise IndexFolderError(f"{where}: substrings must be a list of pairs, got {shorten(text)}") from error
    end = 0
    for start, length in parts:
        if type(start) is not int or type(length) is not int or start < end or not 1 <= length <= 24:
            raise IndexFolderError(f"{where}: substrings must be disjoint, of 1 to 24 bits, got {shorten(parts)}")
        end = start + length
    if not 1 <= len(parts) <= 64 or end > bits:
        raise IndexFolderError(f"{where}: substrings must be 1 to 64, of codes of {bits} bits, got {shorten(parts)}")
    return parts


def _parse_prices(text: str | None, where: Path) -> Prices | None:
    """The prices that a file says; None where it says none."""
    if text is None:
        return None
    message = (
        f"{where}: prices must be {len(Prices._fields)} numbers between {1 / MOST} and {MOST:g}, got {shorten(text)}"
    )
    try:
        numbers = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise IndexFolderError(message) from error
    if (
        type(numbers) is not list
        or len(numbers) != len(Prices._fields)
        or not all(type(number) in (int, float) and 1 / MOST <= number <= MOST for number in numbers)  # NaN neither
    ):
        raise IndexFolderError(message)
    return Prices(*map(float, numbers))
