"""The files of a segment: its codes and ids, and the bitmap of its deleted rows (docs/index-format.md)."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from fasthash._arrays import to_tensor
from fasthash.codes import code_bytes, pack_bits, unpack_bits
from fasthash.index.manifest import FORMAT, VERSION, SegmentEntry
from fasthash.index.segments import Segment
from fasthash.index.tensorfile import Column, TensorFile, checksum, read_tensors, write_tensors
from fasthash.index.untrusted import IndexFolderError, shorten

BLOCK_BYTES = 16 << 20  # what is read, checked or written at a time


def read_segment(path: Path, entry: SegmentEntry, bits: int, next_id: int, mmap: bool) -> tuple[Segment, TensorFile]:
    """Maps or loads the segment that a manifest's entry names; gives it, and the file for checks of every byte.

    Raises FileNotFoundError where a file is missing, IndexFolderError where one contradicts the entry or itself. The
    content of a mapped segment is not read, but for the first and the last id.
    """
    where = path / entry.file
    file = read_tensors(where, mmap)
    if not mmap:
        check_sum(where, file, entry.checksum)
    _check_metadata(where, file, {"format": f"{FORMAT}-segment", "version": str(VERSION), "bits": str(bits)})
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
    return Segment(to_tensor(file.tensors["codes"]), entry.first_id, ids, live, entry.deleted, entry), file


def _read_tombstones(where: Path, entry: SegmentEntry) -> Tensor:
    """bool [rows]: which rows are live. Read and checked whole: a bit that is wrong would bring back or lose a code."""
    file = read_tensors(where, mmap=False)
    if entry.tombstones_checksum is not None:
        check_sum(where, file, entry.tombstones_checksum)
    _check_metadata(where, file, {"format": f"{FORMAT}-tombstones", "version": str(VERSION), "rows": str(entry.rows)})
    found = {name: (str(tensor.dtype), tensor.shape) for name, tensor in file.tensors.items()}
    if found != {"deleted": ("uint8", (code_bytes(entry.rows),))}:
        raise IndexFolderError(f"{where}: must hold tombstones of {entry.rows} rows, got {shorten(found)}")
    bitmap = to_tensor(file.tensors["deleted"])
    deleted = unpack_bits(bitmap, entry.rows)
    if int(deleted.sum()) != entry.deleted:
        raise IndexFolderError(f"{where}: damaged: {int(deleted.sum())} rows are deleted, not {entry.deleted}")
    live: Tensor = deleted == 0
    return live


def write_segment(where: Path, segment: Segment, bits: int) -> SegmentEntry:
    """Writes the live rows of a segment; memory is bounded by the block, whatever the segment's size."""
    width, count, rows = code_bytes(bits), segment.count, block_rows(bits)
    if segment.live is None:
        first, implicit = segment.first_id, segment.ids is None
    else:
        live_rows = segment.live.nonzero()[:, 0]
        first, last = int(segment.ids_of(live_rows[0])), int(segment.ids_of(live_rows[-1]))
        implicit = last - first + 1 == count
    columns = [Column("codes", "U8", (count, width), (block.cpu().numpy() for block in segment.code_blocks(rows)))]
    if not implicit:
        ids = (block.cpu().numpy() for block in segment.id_blocks(rows))
        columns.insert(0, Column("ids", "I64", (count,), ids))
    metadata = {
        "format": f"{FORMAT}-segment",
        "version": str(VERSION),
        "bits": str(bits),
        "ids": "implicit" if implicit else "explicit",
        "first_id": str(first),
    }
    return SegmentEntry(where.name, count, implicit, first, write_tensors(where, columns, metadata))


def write_tombstones(where: Path, live: Tensor) -> str:
    """Writes which rows of a segment are deleted, one bit each in the order of packed codes; gives the checksum."""
    bitmap = pack_bits(~live).cpu().numpy()
    metadata = {"format": f"{FORMAT}-tombstones", "version": str(VERSION), "rows": str(len(live))}
    return write_tensors(where, [Column("deleted", "U8", bitmap.shape, [bitmap])], metadata)


def check_sum(where: Path, file: TensorFile, expected: str) -> None:
    """Raises IndexFolderError where the bytes of a file are not those whose checksum the manifest holds."""
    found = checksum(file.data)
    if found != expected:
        raise IndexFolderError(f"{where}: damaged: its checksum is {found}, the manifest says {expected}")


def _check_metadata(where: Path, file: TensorFile, expected: dict[str, str]) -> None:
    """A file may do without metadata (another program may have written it), but it must not contradict the manifest."""
    for name, value in expected.items():
        if file.metadata.get(name, value) != value:
            raise IndexFolderError(
                f"{where}: {name} of the file is {shorten(file.metadata[name])}, the manifest needs {value!r}"
            )


def block_rows(bits: int) -> int:
    """Rows of codes and ids that make up a block."""
    return max(1, BLOCK_BYTES // (8 + code_bytes(bits)))
