"""Writing the codes of an index for other programs: .npy, .u8bin, faiss binary files, Parquet and Arrow.

Codes are written by blocks in ascending order of id, to a file aside that takes the name when it is complete.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from fasthash._durable import replaced_file
from fasthash._tables import import_arrow
from fasthash._tables.kinds import U8BIN_HEADER
from fasthash._warnings import warn
from fasthash.codes import code_bytes
from fasthash.index.exchange.faiss_file import FAISS_FLAT, FAISS_HEADER, FAISS_ID_MAPS
from fasthash.index.merge import Merged
from fasthash.index.progress import progress_bar
from fasthash.index.segments import Contents, block_rows

_FUNCTION = "HammingIndex.export"
_HAMMING = 1  # faiss writes its default metric
_Array = np.ndarray[Any, Any]


class _Job(NamedTuple):
    """What is written: N codes of W bytes, and whether their ids are just 0 .. N - 1."""

    rows: int
    width: int
    plain_ids: bool
    codes: Callable[[], Iterator[_Array]]
    ids: Callable[[], Iterator[_Array]]
    keys: Callable[[], Iterator[tuple[_Array, _Array]]] | None = None  # UTF-8, and the length of each


def export(contents: Contents, bits: int, path: Path, ids_path: Path | None, progress: bool | None) -> None:
    """Writes codes to a file in the format of its suffix (see HammingIndex.export)."""
    write = _WRITERS.get(path.suffix.lower())
    if write is None:
        raise ValueError(f"{_FUNCTION}: the suffix must be one of {', '.join(_WRITERS)}, got {path.suffix!r} of {path}")
    if ids_path is not None and ids_path.suffix.lower() != ".npy":
        raise ValueError(f"{_FUNCTION}: ids are written as .npy, got {ids_path}")
    if contents.scaled:
        raise ValueError(f"{_FUNCTION}: no format can hold the code_scale of this index; copy its folder instead")
    if contents.keyed and path.suffix.lower() not in _WITH_KEYS:
        warn(f"{_FUNCTION}: {path.suffix} files cannot hold keys, so {path} has none; {_KEYS_FIT} can hold them")
    merged, rows = Merged.of(contents.segments), contents.size
    step = merged.text_rows(block_rows(bits)) if merged.keyed else block_rows(bits)
    bounds = contents.bounds()
    with progress_bar("export", rows, "code", progress) as bar:

        def codes() -> Iterator[_Array]:
            for block in merged.code_blocks(step):
                yield np.ascontiguousarray(block.cpu().numpy())
                bar.update(len(block))

        def ids() -> Iterator[_Array]:
            return (np.ascontiguousarray(b.cpu().numpy(), "<i8") for b in merged.id_blocks(step))

        keys = (lambda: merged.text_blocks(step)) if contents.keyed else None
        job = _Job(rows, code_bytes(bits), bounds is None or bounds == (0, rows - 1), codes, ids, keys)
        with replaced_file(path) as file:
            write(file, job)
        if ids_path is not None:
            with replaced_file(ids_path) as file:
                _npy(file, "<i8", (rows,), ids())


def write_rows(path: Path, shape: tuple[int, int], blocks: Iterator[_Array], step: int, ids: _Array | None) -> None:
    """Writes rows of codes (uint8) or outputs (float32) in blocks of `step`, in the format of the suffix.

    ids: int64 [N], which .npy and .u8bin have no room for; None: 0 .. N - 1. The suffix is one of `row_suffixes`.
    """

    def id_blocks() -> Iterator[_Array]:
        for start in range(0, shape[0], step):
            stop = min(start + step, shape[0])
            yield np.arange(start, stop, dtype="<i8") if ids is None else np.ascontiguousarray(ids[start:stop], "<i8")

    with replaced_file(path) as file:
        _WRITERS[path.suffix.lower()](file, _Job(*shape, ids is None, lambda: blocks, id_blocks))


def row_suffixes(real: bool) -> tuple[str, ...]:
    """The suffixes that write_rows takes, for codes or for real-valued outputs."""
    return tuple(suffix for suffix in _WRITERS if not real or suffix not in (".u8bin", ".faiss", ".ibxf"))


def _put(file: BinaryIO, blocks: Iterator[_Array]) -> None:
    for block in blocks:
        file.write(block.reshape(-1).view(np.uint8).data)


def _npy(file: BinaryIO, dtype: str, shape: tuple[int, ...], blocks: Iterator[_Array]) -> None:
    header = {"descr": dtype, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)
    _put(file, blocks)


def _write_npy(file: BinaryIO, job: _Job) -> None:
    blocks = job.codes()
    first = next(blocks, None)
    dtype = "|u1" if first is None else first.dtype.str
    _npy(file, dtype, (job.rows, job.width), blocks if first is None else itertools.chain([first], blocks))


def _write_u8bin(file: BinaryIO, job: _Job) -> None:
    if job.rows >= 1 << 32:
        raise ValueError(f"{_FUNCTION}: a .u8bin file holds at most 2**32 - 1 codes, got {job.rows}")
    file.write(np.array((job.rows, job.width), U8BIN_HEADER).tobytes())
    _put(file, job.codes())


def _write_faiss(file: BinaryIO, job: _Job) -> None:
    """IndexBinaryFlat, inside an IndexBinaryIDMap where the ids are not 0 .. N - 1."""
    header = np.array((8 * job.width, job.width, job.rows, 1, _HAMMING), FAISS_HEADER).tobytes()
    if not job.plain_ids:
        file.write(FAISS_ID_MAPS[0] + header)
    file.write(FAISS_FLAT + header + (job.rows * job.width).to_bytes(8, "little"))
    _put(file, job.codes())
    if not job.plain_ids:
        file.write(job.rows.to_bytes(8, "little"))
        _put(file, job.ids())


def _write_arrow(file: BinaryIO, job: _Job, parquet: bool) -> None:
    """Columns id (int64), key (text, where there are some) and code (FixedSizeBinary) or output (lists of float32)."""
    arrow = import_arrow("pyarrow", _FUNCTION)
    writer: Any = None
    named = [] if job.keys is None else [("key", arrow.large_string())]
    texts: Iterator[Any] = itertools.repeat(None) if job.keys is None else job.keys()
    for rows, ids, text in zip(job.codes(), job.ids(), texts, strict=False):
        if rows.dtype == np.uint8:
            name, kind = "code", arrow.binary(job.width)
            column = arrow.FixedSizeBinaryArray.from_buffers(kind, len(rows), [None, arrow.py_buffer(rows.data)])
        else:
            column = arrow.FixedSizeListArray.from_arrays(arrow.array(rows.reshape(-1)), job.width)
            name, kind = "output", column.type
        schema = arrow.schema([("id", arrow.int64()), *named, (name, kind)])
        writer = writer or _arrow_writer(file, schema, parquet)
        keys = [] if text is None else [_arrow_texts(arrow, *text)]
        writer.write_batch(arrow.record_batch([arrow.array(ids), *keys, column], schema=schema))
    if writer is None:
        schema = arrow.schema([("id", arrow.int64()), *named, ("code", arrow.binary(job.width))])
        writer = _arrow_writer(file, schema, parquet)
    writer.close()


def _arrow_texts(arrow: Any, text: _Array, lengths: _Array) -> Any:
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype("<i8")
    buffers = (arrow.py_buffer(np.ascontiguousarray(part).data) for part in (offsets, text))
    return arrow.LargeStringArray.from_buffers(len(lengths), *buffers)


def _arrow_writer(file: BinaryIO, schema: Any, parquet: bool) -> Any:
    if parquet:
        return import_arrow("pyarrow.parquet", _FUNCTION).ParquetWriter(file, schema)
    return import_arrow("pyarrow.ipc", _FUNCTION).new_file(file, schema)


_WITH_KEYS = (".parquet", ".arrow", ".feather")
_KEYS_FIT = ", ".join(_WITH_KEYS)
_WRITERS: dict[str, Callable[[BinaryIO, _Job], None]] = {
    ".npy": _write_npy,
    ".u8bin": _write_u8bin,
    ".faiss": _write_faiss,
    ".ibxf": _write_faiss,
    ".parquet": lambda file, job: _write_arrow(file, job, parquet=True),
    ".arrow": lambda file, job: _write_arrow(file, job, parquet=False),
    ".feather": lambda file, job: _write_arrow(file, job, parquet=False),
}
