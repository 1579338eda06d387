"""What an index can be built from: arrays, blocks, .npy, raw files, .u8bin, faiss binary files, Parquet and Arrow.

Everything is read by blocks, and files are mapped, so that memory is bounded by the block. Nothing is unpickled.
"""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from fasthash._arguments import MAX_BITS, whole
from fasthash._arrays import to_tensor
from fasthash.codes import code_bytes
from fasthash.index.segments import block_rows, id_tensor

# faiss: fourcc, then this, then (IBMp, IBM2) the inner index, then the length of a vector and the vector.
FAISS_HEADER = np.dtype([("bits", "<i4"), ("code_bytes", "<i4"), ("rows", "<i8"), ("trained", "u1"), ("metric", "<i4")])
FAISS_FLAT, FAISS_ID_MAPS = b"IBxF", (b"IBMp", b"IBM2")
U8BIN_HEADER = np.dtype([("rows", "<u4"), ("code_bytes", "<u4")])
ARROW_SUFFIXES = (".parquet", ".arrow", ".feather", ".ipc")

Block = tuple[Tensor, Tensor | None]  # codes uint8 [n, W], ids int64 [n]


class Source(NamedTuple):
    """Codes to build an index from."""

    bits: int
    rows: int | None  # None: known when the blocks have ended
    blocks: Iterator[Block]


def open_source(source: Any, bits: int | None, ids: Any, function: str) -> Source:
    """Opens what holds codes (see HammingIndex.build); raises ValueError, TypeError or OSError where it does not."""
    if bits is not None:
        bits = whole(bits, function, "bits", 1, MAX_BITS)
    if isinstance(ids, (str, os.PathLike)):
        ids = _read_npy(Path(ids), function)
    if ids is not None:
        ids = id_tensor(ids, function).cpu()
    if isinstance(source, (str, os.PathLike)):
        path = Path(source)
        if path.suffix.lower() in ARROW_SUFFIXES:
            return _with_ids(_open_arrow(path, bits, function), ids, function)
        source, own_ids = _open_file(path, bits, function)
        if own_ids is not None:
            if ids is not None:
                raise ValueError(f"{function}: {path} holds ids itself; ids must be None")
            ids = to_tensor(own_ids)
    if isinstance(source, (np.ndarray, Tensor)):
        codes = to_tensor(source, function, "codes")
        if codes.ndim != 2 or codes.shape[1] == 0:
            raise ValueError(f"{function}: codes must be [N, bytes of a code], got shape {tuple(codes.shape)}")
        bits = 8 * codes.shape[1] if bits is None else bits
        parts = ((codes[start : start + block_rows(bits)].cpu(), None) for start in _starts(len(codes), bits))
        return _with_ids(Source(bits, len(codes), parts), ids, function)
    if not isinstance(source, Iterable):
        raise TypeError(f"{function}: source must be an array, a path or blocks of codes, got {type(source).__name__}")
    return _with_ids(_open_blocks(source, bits, function), ids, function)


def _starts(rows: int, bits: int) -> range:
    return range(0, rows, block_rows(bits))


def _with_ids(source: Source, ids: Tensor | None, function: str) -> Source:
    """The source with ids from an array beside it."""
    if ids is None:
        return source
    if source.rows is not None and source.rows != len(ids):
        raise ValueError(f"{function}: {source.rows} codes need as many ids, got {len(ids)}")

    def blocks() -> Iterator[Block]:
        at = 0
        for codes, own in source.blocks:
            if own is not None:
                raise ValueError(f"{function}: the source gives ids itself; ids must be None")
            if at + len(codes) > len(ids):
                raise ValueError(f"{function}: more than {len(ids)} codes, which need as many ids, got {len(ids)}")
            yield codes, ids[at : at + len(codes)]
            at += len(codes)
        if at != len(ids):
            raise ValueError(f"{function}: {at} codes need as many ids, got {len(ids)}")

    return Source(source.bits, len(ids), blocks())


def _open_blocks(source: Iterable[Any], bits: int | None, function: str) -> Source:
    def blocks() -> Iterator[Block]:
        for block in source:
            codes, ids = block if isinstance(block, tuple) and len(block) == 2 else (block, None)
            codes = to_tensor(codes, function, "codes").cpu()
            if codes.ndim != 2:
                raise ValueError(f"{function}: a block must be [N, bytes of a code], got shape {tuple(codes.shape)}")
            numbers = None if ids is None else id_tensor(ids, function).cpu()
            if numbers is not None and len(numbers) != len(codes):
                raise ValueError(f"{function}: a block of {len(codes)} codes needs as many ids, got {len(numbers)}")
            yield codes, numbers

    rest = blocks()
    if bits is None:
        first = next(rest, None)
        if first is None:
            raise ValueError(f"{function}: without any block, bits must be given")
        bits, rest = 8 * first[0].shape[1], itertools.chain([first], rest)
    return Source(bits, None, rest)


def _open_file(path: Path, bits: int | None, function: str) -> tuple[np.ndarray[Any, Any], Any]:
    """A mapped array of codes, and of ids where the file holds some."""
    if path.suffix.lower() == ".npy":
        return _read_npy(path, function), None
    data: np.ndarray[Any, Any] = np.zeros(0, np.uint8)
    if path.stat().st_size:
        data = np.memmap(path, np.uint8, "r")
    fourcc = data[:4].tobytes()
    if fourcc == FAISS_FLAT or fourcc in FAISS_ID_MAPS:
        return _open_faiss(path, data, function)
    if path.suffix.lower() == ".u8bin":
        if len(data) < U8BIN_HEADER.itemsize:
            raise ValueError(f"{function}: {path} is truncated: {len(data)} bytes are no header of .u8bin")
        header = data[: U8BIN_HEADER.itemsize].view(U8BIN_HEADER)[0]
        shape = int(header["rows"]), int(header["code_bytes"])
        body = data[U8BIN_HEADER.itemsize :]
        if math.prod(shape) != len(body):
            raise ValueError(
                f"{function}: {path} has {len(body)} bytes of codes, its header says {shape[0]} x {shape[1]}"
            )
        return body.reshape(shape), None
    if bits is None:
        raise ValueError(
            f"{function}: {path} is a raw file of codes, which needs bits (or a suffix: .npy, .u8bin, ...)"
        )
    if len(data) % code_bytes(bits):
        raise ValueError(f"{function}: {path} has {len(data)} bytes, no multiple of {code_bytes(bits)} ({bits} bits)")
    return data.reshape(-1, code_bytes(bits)), None


def _read_npy(path: Path, function: str) -> np.ndarray[Any, Any]:
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise ValueError(f"{function}: {path} is not a whole .npy file of numbers ({error})") from error
    if not isinstance(array, np.ndarray):
        raise ValueError(f"{function}: {path} is an archive, not a .npy file")
    return array


def _open_faiss(path: Path, data: np.ndarray[Any, Any], function: str) -> tuple[np.ndarray[Any, Any], Any]:
    """IndexBinaryFlat, alone or inside an IndexBinaryIDMap."""

    def take(at: int, count: int) -> np.ndarray[Any, Any]:
        if at + count > len(data):
            raise ValueError(f"{function}: {path} is truncated: it ends at byte {len(data)}, expected {at + count}")
        return data[at : at + count]

    def vector(at: int, item: int) -> tuple[np.ndarray[Any, Any], int]:
        count = int(take(at, 8).view("<u8")[0]) * item
        return take(at + 8, count), at + 8 + count

    mapped, at = data[:4].tobytes() != FAISS_FLAT, 0
    if mapped:
        at = 4 + FAISS_HEADER.itemsize
        inner = take(at, 4).tobytes()
        if inner != FAISS_FLAT:
            raise ValueError(f"{function}: {path} holds a faiss index {inner!r}, only {FAISS_FLAT!r} can be read")
    header = take(at + 4, FAISS_HEADER.itemsize).copy().view(FAISS_HEADER)[0]
    rows, width, bits = int(header["rows"]), int(header["code_bytes"]), int(header["bits"])
    codes, at = vector(at + 4 + FAISS_HEADER.itemsize, 1)
    if width < 1 or bits != 8 * width or rows * width != len(codes):
        raise ValueError(
            f"{function}: {path} is damaged: {rows} codes of {bits} bits ({width} bytes) in {len(codes)} bytes of codes"
        )
    ids = None
    if mapped:
        numbers, at = vector(at, 8)
        if len(numbers) != 8 * rows:
            raise ValueError(f"{function}: {path} is damaged: {len(numbers) // 8} ids of {rows} codes")
        ids = numbers.view("<i8") if numbers.ctypes.data % 8 == 0 else numbers.copy().view("<i8")
    if at != len(data):
        raise ValueError(f"{function}: {path} is damaged: {len(data) - at} bytes after its end")
    return codes.reshape(rows, width), ids


def import_arrow(what: str, function: str) -> Any:
    """pyarrow, or one of its modules; a clear error where it is not installed."""
    try:
        import importlib

        return importlib.import_module(what)
    except ImportError as error:
        raise ImportError(
            f"{function}: Parquet and Arrow files need pyarrow, which is not installed: pip install 'fasthash[arrow]'"
        ) from error


def _open_arrow(path: Path, bits: int | None, function: str) -> Source:
    """The one FixedSizeBinary column of a Parquet or Arrow file, and ids from an integer column "id" or "ids"."""
    arrow = import_arrow("pyarrow", function)
    if path.suffix.lower() == ".parquet":
        parquet = import_arrow("pyarrow.parquet", function)
        try:
            file = parquet.ParquetFile(path, memory_map=True)
        except arrow.ArrowInvalid as error:
            raise ValueError(f"{function}: {path} is not a Parquet file ({error})") from error
        schema, rows = file.schema_arrow, file.metadata.num_rows
    else:
        ipc = import_arrow("pyarrow.ipc", function)
        try:
            file = ipc.open_file(arrow.memory_map(os.fspath(path)))
        except arrow.ArrowInvalid as error:
            raise ValueError(f"{function}: {path} is not an Arrow file ({error})") from error
        schema, rows = file.schema, None
    fields = [field for field in schema if arrow.types.is_fixed_size_binary(field.type)]
    if len(fields) != 1:
        raise ValueError(f"{function}: {path} must have one FixedSizeBinary column of codes, got {len(fields)}")
    width, name = fields[0].type.byte_width, fields[0].name
    bits = 8 * width if bits is None else bits
    id_name = next(
        (n for n in ("id", "ids") if n in schema.names and arrow.types.is_integer(schema.field(n).type)), None
    )

    def batches() -> Iterator[Any]:
        columns = [name] if id_name is None else [name, id_name]
        if path.suffix.lower() == ".parquet":
            yield from file.iter_batches(batch_size=block_rows(8 * width), columns=columns)
        else:
            yield from (file.get_batch(number) for number in range(file.num_record_batches))

    def blocks() -> Iterator[Block]:
        for batch in batches():
            codes = batch.column(batch.schema.get_field_index(name))
            numbers = None if id_name is None else batch.column(batch.schema.get_field_index(id_name))
            for column, what in ((codes, name), (numbers, id_name)):
                if column is not None and column.null_count:
                    raise ValueError(f"{function}: {path}: column {what} must not hold nulls, got {column.null_count}")
            data = np.frombuffer(codes.buffers()[1] or b"", np.uint8)
            own = data[codes.offset * width : (codes.offset + len(codes)) * width].reshape(-1, width)
            yield to_tensor(own), None if numbers is None else id_tensor(numbers.to_numpy(), function)

    return Source(bits, rows, blocks())
