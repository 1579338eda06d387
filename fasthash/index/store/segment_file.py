"""The files of a segment: its codes and ids, and the bitmap of its deleted rows (docs/index-format.md)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from fasthash._arrays import to_tensor
from fasthash.codes import check_codes, code_bytes, pack_bits, unpack_bits
from fasthash.index.bitmap import pack_rows
from fasthash.index.segments import Segment, SegmentEntry
from fasthash.index.store.tensorfile import Column, TensorFile, metadata_of, read_tensors, write_tensors
from fasthash.index.store.untrusted import IndexFolderError, shorten

_TOMBSTONE_ROWS = 1 << 23  # tombstones that are unpacked at a time; a multiple of 64


class ExtraFormat(Protocol):
    """The functions of a module for one kind of extra file of a segment, such as table_file.py."""

    @property
    def KIND(self) -> str:
        """The kind's name: in the manifest, and what names of such files begin with."""

    def can_have(self, segment: Segment) -> bool:
        """Whether such a file can be made of a segment and is worth it."""

    def entries(self, segment: Segment, bits: int) -> int:
        """How many entries the file has: the steps of a progress bar."""

    def write(self, where: Path, segment: Segment, bits: int, advance: Callable[[int], object]) -> str:
        """Writes the file of a segment that is on disk; gives its checksum. advance: is told of entries written."""

    def read(self, path: Path, entry: SegmentEntry, bits: int, mmap: bool) -> tuple[Any, TensorFile] | None:
        """What a search uses of the segment's file, and the file for checks of every byte; None where it has none.

        Raises FileNotFoundError where the file is missing, IndexFolderError where it contradicts the entry or itself.
        """


def read_segment(
    path: Path, entry: SegmentEntry, bits: int, next_id: int, mmap: bool, scaled: bool = False
) -> tuple[Segment, TensorFile]:
    """Maps or loads the segment that a manifest's entry names; gives it, and the file for checks of every byte.

    scaled: the manifest has the feature code_scale.
    Raises FileNotFoundError where a file is missing, IndexFolderError where one contradicts the entry or itself. The
    content of a mapped segment is not read, but for the first and the last id.
    """
    where = path / entry.file
    file = read_tensors(where, mmap)
    if not mmap:
        file.check_sum(entry.checksum)
    file.check_metadata(metadata_of("segment", bits=str(bits)))
    expected: dict[str, tuple[str, tuple[int, ...]]] = {"codes": ("uint8", (entry.rows, code_bytes(bits)))}
    if not entry.implicit:
        expected["ids"] = ("int64", (entry.rows,))
    if scaled:
        expected["code_scale"] = ("float16", (entry.rows,))
    if file.shapes != expected:
        raise IndexFolderError(f"{where}: the manifest says {shorten(expected)}, the file holds {shorten(file.shapes)}")
    ids = None
    if not entry.implicit:
        ids = to_tensor(file.tensors["ids"])
        first, last = int(ids[0]), int(ids[-1])
        if first != entry.first_id or not first + entry.rows - 1 <= last < next_id:
            raise IndexFolderError(f"{where}: damaged: ids from {first} to {last} are not those of the manifest")
    live = None
    if entry.tombstones is not None:
        live = _read_tombstones(path / entry.tombstones, entry)
    codes, scales = to_tensor(file.tensors["codes"]), to_tensor(file.tensors["code_scale"]) if scaled else None
    return Segment(codes, entry.first_id, ids, live, entry.deleted, entry, mmap, scales=scales), file


def _read_tombstones(where: Path, entry: SegmentEntry) -> Tensor:
    """Bitmap of the live rows. Read and checked whole: a bit that is wrong would bring back or lose a code."""
    file = read_tensors(where, mmap=False)
    if entry.tombstones_checksum is not None:
        file.check_sum(entry.tombstones_checksum)
    file.check_metadata(metadata_of("tombstones", rows=str(entry.rows)))
    if file.shapes != {"deleted": ("uint8", (code_bytes(entry.rows),))}:
        raise IndexFolderError(f"{where}: must hold tombstones of {entry.rows} rows, got {shorten(file.shapes)}")
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


def write_rows(
    where: Path,
    bits: int,
    rows: int,
    bounds: tuple[int, int],
    ids: Iterable[np.ndarray[Any, Any]],
    codes: Iterable[np.ndarray[Any, Any]],
    scales: Iterable[np.ndarray[Any, Any]] | None = None,
) -> SegmentEntry:
    """Writes a segment of blocks of ascending ids from bounds[0] to bounds[1], of their codes, and of their scales.

    ids are not looked at where the bounds tell that they are a range. rows = -1: as many as there are codes from
    bounds[0] on.
    """
    first, last = bounds
    implicit = rows < 0 or last - first + 1 == rows
    columns = [Column("codes", "U8", (rows, code_bytes(bits)), codes)]
    if scales is not None:  # before the codes, whose bytes may be an odd number
        columns.insert(0, Column("code_scale", "F16", (rows,), scales))
    if not implicit:
        columns.insert(0, Column("ids", "I64", (rows,), ids))
    kind = "implicit" if implicit else "explicit"
    metadata = metadata_of("segment", bits=str(bits), ids=kind, first_id=str(first))
    checksum, written = write_tensors(where, columns, metadata)
    return SegmentEntry(where.name, written, implicit, first, checksum)


def write_tombstones(where: Path, segment: Segment) -> str:
    """Writes which rows of a segment are deleted, one bit each in the order of packed codes; gives the checksum."""
    blocks = (pack_bits(deleted).cpu().numpy() for deleted in segment.deleted_blocks())
    columns = [Column("deleted", "U8", (code_bytes(segment.rows),), blocks)]
    return write_tensors(where, columns, metadata_of("tombstones", rows=str(segment.rows)))[0]


def check_segment(
    segment: Segment, file: TensorFile, expected: str, bits: int, advance: Callable[[int], object]
) -> None:
    """Reads every byte of a segment, once: checksum, ids' order, scales, codes' padding; raises IndexFolderError."""
    where, fault, last = file.path, None, -1
    done = dict.fromkeys(file.tensors, 0)
    begins = {name: _address(tensor) - _address(file.data) for name, tensor in file.tensors.items()}
    for end in file.check_bytes(expected, advance):  # the checksum comes first: damage is told as such
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
            elif name == "code_scale":
                if not bool(((tensor[start:stop] >= 0) & (tensor[start:stop] < np.inf)).all()):  # NaN too
                    fault = f"{where}: damaged: a code_scale is not finite or below 0"
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
