"""The keys of a segment in a file beside it: texts in the order of rows, and the table by which they are looked up.

docs/index-format.md says what a file holds. Unlike tables for a faster search, an index that has keys has them for
every segment: the feature "keys".
"""

from __future__ import annotations

import mmap as memory_map
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from fasthash.index.errors import IndexFolderError
from fasthash.index.key_texts import Place, check_lengths, first_not_utf8, hashes_of
from fasthash.index.keys import Keys, Numbers, repeated_key
from fasthash.index.merge import Merged
from fasthash.index.segments import BLOCK_BYTES, Segment
from fasthash.index.store.tensorfile import Column, TensorFile, metadata_of, read_tensors, write_tensors
from fasthash.index.store.untrusted import shorten

KIND = "keys"
FEATURE = "keys"
_MOST_ROWS = 2**32 - 1  # rows are 32-bit numbers


def write(where: Path, merged: Merged, segment_checksum: str, rows: int) -> str:
    """Writes the keys of a segment to a new file; gives its checksum.

    rows: how many are looked at at once. Memory: about 32 bytes a row for a merged segment, while its hashes are
    sorted, and a block of text.
    """
    keys = _whole(merged)
    if keys is not None:
        columns = [
            Column("offsets", "I64", keys.offsets.shape, [keys.offsets]),
            Column("hashes", "I64", keys.hashes.shape, [keys.hashes]),
            Column("rows", "U32", keys.rows.shape, [keys.rows]),
            Column("text", "U8", keys.text.shape, [keys.text]),
        ]
    else:
        offsets, hashes = _lengths_and_hashes(merged, rows)
        order = np.argsort(hashes)
        columns = [
            Column("offsets", "I64", offsets.shape, [offsets]),
            Column("hashes", "I64", hashes.shape, (hashes[part] for part in _blocks(order, rows))),
            Column("rows", "U32", order.shape, (part.astype(np.uint32) for part in _blocks(order, rows))),
            Column("text", "U8", (int(offsets[-1]),), (text for text, _ in merged.text_blocks(merged.text_rows(rows)))),
        ]
    return write_tensors(where, columns, metadata_of(KIND, segment=segment_checksum))[0]


def attach(path: Path, segment: Segment, mmap: bool) -> tuple[Segment, TensorFile]:
    """A segment that was read, with the keys that its entry names; and their file, for checks of every byte.

    Raises FileNotFoundError where the file is missing, IndexFolderError where it contradicts itself or is not one of
    the segment. Mapped content is not read, but for the first and the last offset.
    """
    entry = segment.entry
    extra = None if entry is None else entry.extra(KIND)
    if entry is None or extra is None:
        raise IndexFolderError(f"{path}: a segment of an index with keys has none")
    where = path / extra.name
    file = read_tensors(where, mmap, advice=getattr(memory_map, "MADV_RANDOM", None))
    if not mmap:
        file.check_sum(extra.checksum)
    file.check_metadata(metadata_of(KIND, segment=entry.checksum))
    if entry.rows > _MOST_ROWS:
        raise IndexFolderError(f"{where}: a segment with keys has at most {_MOST_ROWS} rows, got {entry.rows}")
    size = file.tensors["text"].shape if "text" in file.tensors else ()
    expected = {
        "offsets": ("int64", (entry.rows + 1,)),
        "hashes": ("int64", (entry.rows,)),
        "rows": ("uint32", (entry.rows,)),
        "text": ("uint8", size),
    }
    if file.shapes != expected or len(size) != 1:
        raise IndexFolderError(f"{where}: must hold {shorten(expected)}, got {shorten(file.shapes)}")
    keys = Keys(*(file.tensors[name] for name in ("text", "offsets", "hashes", "rows")))
    if int(keys.offsets[0]) != 0 or int(keys.offsets[-1]) != len(keys.text):
        raise IndexFolderError(
            f"{where}: damaged: offsets from {keys.offsets[0]} to {keys.offsets[-1]} are not those of "
            f"{len(keys.text)} bytes of text"
        )
    return replace(segment, keys=keys), file


def check(keys: Keys, where: Path) -> None:
    """Reads all keys of a segment: offsets, UTF-8, hashes and rows, all distinct; raises IndexFolderError."""
    for start in range(0, keys.size, 1 << 20):
        offsets = keys.offsets[start : start + (1 << 20) + 1]
        if bool((np.diff(offsets) < 1).any()) or int(offsets[0]) < 0 or int(offsets[-1]) > len(keys.text):
            raise IndexFolderError(f"{where}: damaged: its offsets are not ascending inside the text")
    if bool((keys.hashes[1:] < keys.hashes[:-1]).any()):
        raise IndexFolderError(f"{where}: damaged: its hashes are not ascending")
    counts = np.bincount(keys.rows, minlength=keys.size)
    if len(counts) != keys.size or bool((counts != 1).any()):
        raise IndexFolderError(f"{where}: damaged: its rows are not 0 to {keys.size - 1}, each once")
    by_row = keys.by_row()
    for start, stop in _spans(keys.offsets):
        offsets = keys.offsets[start : stop + 1] - keys.offsets[start]
        text = keys.text[keys.offsets[start] : keys.offsets[stop]]
        try:
            check_lengths(np.diff(offsets), str(where), Place("row", start))
        except ValueError as error:
            raise IndexFolderError(str(error)) from None
        row = first_not_utf8(text, offsets)
        if row is not None:
            raise IndexFolderError(f"{where}: the key of row {start + row} is not UTF-8")
        if not np.array_equal(hashes_of(text, offsets), by_row[start:stop]):
            raise IndexFolderError(f"{where}: damaged: a hash is not that of its key")
    repeated = repeated_key([(keys, None)])
    if repeated is not None:
        raise IndexFolderError(f"{where}: damaged: a key is there twice, {shorten(repeated)}")


def _whole(merged: Merged) -> Keys | None:
    """The keys of a segment that is written as it is."""
    if len(merged.parts) == 1:
        segment, start, stop = merged.parts[0]
        if segment.live is None and (start, stop) == (0, segment.rows):
            return segment.keys
    return None


def _lengths_and_hashes(merged: Merged, rows: int) -> tuple[Numbers, Numbers]:
    """Offsets [n + 1] and hashes [n] of a merged segment, in the order of its rows."""
    count, at = merged.count(), 0
    offsets, hashes = np.zeros(count + 1, np.int64), np.empty(count, np.int64)
    by_row = merged.hashes_by_row()
    for places, order in merged.key_places(rows):
        lengths = np.concatenate([keys.lengths(own) for keys, own in places])
        found = np.concatenate([by_row[id(keys)][own] for keys, own in places])
        stop = at + len(lengths)
        offsets[at + 1 : stop + 1], hashes[at:stop] = (
            (lengths, found) if order is None else (lengths[order], found[order])
        )
        at = stop
    np.cumsum(offsets[1:], out=offsets[1:])
    return offsets, hashes


def _blocks(order: np.ndarray[Any, Any], rows: int) -> Iterator[np.ndarray[Any, Any]]:
    return (order[start : start + rows] for start in range(0, len(order), rows))


def _spans(offsets: Numbers) -> Iterator[tuple[int, int]]:
    """Rows whose texts are a block, one at least."""
    start, last = 0, len(offsets) - 1
    while start < last:
        stop = int(np.searchsorted(offsets, int(offsets[start]) + BLOCK_BYTES, side="right")) - 1
        stop = min(max(stop, start + 1), last)
        yield start, stop
        start = stop
