"""The files of a segment: its codes and ids, and the bitmap of its deleted rows (docs/index-format.md)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xxhash
from torch import Tensor

from fasthash._arrays import to_tensor
from fasthash.codes import check_codes, code_bytes, pack_bits, unpack_bits
from fasthash.index.bitmap import pack_rows
from fasthash.index.manifest import FORMAT, VERSION, SegmentEntry
from fasthash.index.merge import Merged
from fasthash.index.progress import unseen
from fasthash.index.readahead import read_ahead
from fasthash.index.segments import Segment
from fasthash.index.tensorfile import Column, TensorFile, checksum, read_tensors, write_tensors
from fasthash.index.untrusted import IndexFolderError, shorten

BLOCK_BYTES = 16 << 20  # what is read, checked or written at a time
_CHECK_BYTES = 1 << 28  # what is read ahead while a file is checked
_TOMBSTONE_ROWS = 1 << 23  # tombstones that are unpacked at a time; a multiple of 64


def read_segment(path: Path, entry: SegmentEntry, bits: int, next_id: int, mmap: bool) -> tuple[Segment, TensorFile]:
    """Maps or loads the segment that a manifest's entry names; gives it, and the file for checks of every byte.

    Raises FileNotFoundError where a file is missing, IndexFolderError where one contradicts the entry or itself. The
    content of a mapped segment is not read, but for the first and the last id.
    """
    where = path / entry.file
    file = read_tensors(where, mmap)
    if not mmap:
        check_sum(where, file, entry.checksum)
    check_metadata(where, file, {"format": f"{FORMAT}-segment", "version": str(VERSION), "bits": str(bits)})
    expected: dict[str, tuple[str, tuple[int, ...]]] = {"codes": ("uint8", (entry.rows, code_bytes(bits)))}
    if not entry.implicit:
        expected["ids"] = ("int64", (entry.rows,))
    found = {name: (str(tensor.dtype), tensor.shape) for name, tensor in file.tensors.items()}
    if found != expected:
        raise IndexFolderError(f"{where}: the manifest says {shorten(expected)}, the file holds {shorten(found)}")
    ids = None
    if not entry.implicit:
        ids = to_tensor(file.tensors["ids"])
        first, last = int(ids[0]), int(ids[-1])
        if first != entry.first_id or not first + entry.rows - 1 <= last < next_id:
            raise IndexFolderError(f"{where}: damaged: ids from {first} to {last} are not those of the manifest")
    live = None
    if entry.tombstones is not None:
        live = _read_tombstones(path / entry.tombstones, entry)
    return Segment(to_tensor(file.tensors["codes"]), entry.first_id, ids, live, entry.deleted, entry, mmap), file


def _read_tombstones(where: Path, entry: SegmentEntry) -> Tensor:
    """Bitmap of the live rows. Read and checked whole: a bit that is wrong would bring back or lose a code."""
    file = read_tensors(where, mmap=False)
    if entry.tombstones_checksum is not None:
        check_sum(where, file, entry.tombstones_checksum)
    check_metadata(where, file, {"format": f"{FORMAT}-tombstones", "version": str(VERSION), "rows": str(entry.rows)})
    found = {name: (str(tensor.dtype), tensor.shape) for name, tensor in file.tensors.items()}
    if found != {"deleted": ("uint8", (code_bytes(entry.rows),))}:
        raise IndexFolderError(f"{where}: must hold tombstones of {entry.rows} rows, got {shorten(found)}")
    bitmap = to_tensor(file.tensors["deleted"])
    words, count = [], 0
    for start in range(0, entry.rows, _TOMBSTONE_ROWS):
        rows = min(_TOMBSTONE_ROWS, entry.rows - start)
        deleted = unpack_bits(bitmap[start // 8 : start // 8 + code_bytes(rows)], rows).bool()
        count += int(deleted.sum())
        words.append(pack_rows(~deleted))
    if count != entry.deleted:
        raise IndexFolderError(f"{where}: damaged: {count} rows are deleted, not {entry.deleted}")
    return torch.cat(words)


def write_segment(
    where: Path, segment: Segment | Merged, bits: int, advance: Callable[[int], object] = unseen
) -> SegmentEntry:
    """Writes the live rows of a segment, or of several in the order of ids; memory is bounded by the block.

    advance: is told of codes as they are written.
    """
    merged = segment if isinstance(segment, Merged) else Merged.of([segment])
    rows = block_rows(bits)
    ids = (block.cpu().numpy() for block in merged.id_blocks(rows))

    def codes() -> Iterator[np.ndarray[Any, Any]]:
        for block in merged.code_blocks(rows):
            yield block.cpu().numpy()
            advance(len(block))

    return write_rows(where, bits, merged.count(), merged.bounds(), ids, codes())


def write_rows(
    where: Path,
    bits: int,
    rows: int,
    bounds: tuple[int, int],
    ids: Iterable[np.ndarray[Any, Any]],
    codes: Iterable[np.ndarray[Any, Any]],
) -> SegmentEntry:
    """Writes a segment of blocks of ascending ids from bounds[0] to bounds[1] and of their codes.

    ids are not looked at where the bounds tell that they are a range. rows = -1: as many as there are codes from
    bounds[0] on.
    """
    first, last = bounds
    implicit = rows < 0 or last - first + 1 == rows
    columns = [Column("codes", "U8", (rows, code_bytes(bits)), codes)]
    if not implicit:
        columns.insert(0, Column("ids", "I64", (rows,), ids))
    metadata = {
        "format": f"{FORMAT}-segment",
        "version": str(VERSION),
        "bits": str(bits),
        "ids": "implicit" if implicit else "explicit",
        "first_id": str(first),
    }
    checksum, written = write_tensors(where, columns, metadata)
    return SegmentEntry(where.name, written, implicit, first, checksum)


def write_tombstones(where: Path, segment: Segment) -> str:
    """Writes which rows of a segment are deleted, one bit each in the order of packed codes; gives the checksum."""
    blocks = (pack_bits(deleted).cpu().numpy() for deleted in segment.deleted_blocks())
    metadata = {"format": f"{FORMAT}-tombstones", "version": str(VERSION), "rows": str(segment.rows)}
    return write_tensors(where, [Column("deleted", "U8", (code_bytes(segment.rows),), blocks)], metadata)[0]


def check_sum(where: Path, file: TensorFile, expected: str) -> None:
    """Raises IndexFolderError where the bytes of a file are not those whose checksum the manifest holds."""
    found = checksum(file.data)
    if found != expected:
        raise IndexFolderError(f"{where}: damaged: its checksum is {found}, the manifest says {expected}")


def check_bytes(where: Path, file: TensorFile, expected: str, advance: Callable[[int], object]) -> Iterator[int]:
    """As check_sum, reading ahead; gives, again and again, how many bytes are read and so in memory by now."""
    digest, end = xxhash.xxh3_128(), 0
    for block in read_ahead(torch.split(to_tensor(file.data), _CHECK_BYTES), lambda block: block):
        digest.update(block.numpy().data)
        end += len(block)
        advance(len(block))
        yield end
    if digest.hexdigest() != expected:
        raise IndexFolderError(f"{where}: damaged: its checksum is {digest.hexdigest()}, the manifest says {expected}")


def check_segment(
    where: Path, segment: Segment, file: TensorFile, expected: str, bits: int, advance: Callable[[int], object]
) -> None:
    """Reads every byte of a segment, once: checksum, order of ids, padding of codes; raises IndexFolderError."""
    fault, last = None, -1
    done = dict.fromkeys(file.tensors, 0)
    begins = {name: _address(tensor) - _address(file.data) for name, tensor in file.tensors.items()}
    for end in check_bytes(where, file, expected, advance):  # the checksum comes first: damage is told as such
        for name, tensor in file.tensors.items():
            start, stop = done[name], min(max((end - begins[name]) * len(tensor) // tensor.nbytes, 0), len(tensor))
            done[name] = stop
            if fault is not None or start == stop:
                continue
            if name == "ids":
                ids = tensor[start:stop]
                if int(ids[0]) <= last or bool((ids[1:] <= ids[:-1]).any()):
                    fault = f"{where}: damaged: its ids are not ascending"
                last = int(ids[-1])
            elif bits % 8:
                try:
                    check_codes(segment.codes[start:stop], bits, str(where))
                except ValueError as error:
                    fault = str(error)
    if fault is not None:
        raise IndexFolderError(fault)


def _address(array: np.ndarray[Any, Any]) -> int:
    address: int = array.__array_interface__["data"][0]
    return address


def check_metadata(where: Path, file: TensorFile, expected: dict[str, str]) -> None:
    """A file may do without metadata (another program may have written it), but it must not contradict the manifest."""
    for name, value in expected.items():
        if file.metadata.get(name, value) != value:
            raise IndexFolderError(
                f"{where}: {name} of the file is {shorten(file.metadata[name])}, the manifest needs {value!r}"
            )


def block_rows(bits: int) -> int:
    """Rows of codes and ids that make up a block."""
    return max(1, BLOCK_BYTES // (8 + code_bytes(bits)))
