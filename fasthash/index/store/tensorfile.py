"""The few lines of safetensors that an index needs: streamed writing, mapped reading, a checksum of the whole file.

A file is an 8-byte little-endian length, a JSON header of that length padded with spaces, and the tensors back to back.
Our files put the first tensor at byte 4,096 and have their header written last, so that an unfinished file starts with
zeros and is not taken for a complete one.

Ours, because the safetensors library writes whole tensors from memory, aligns them to 8 bytes and has no checksum.
"""

from __future__ import annotations

import itertools
import json
import math
import mmap as memory_map
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import xxhash

from fasthash._arrays import to_tensor
from fasthash._durable import new_file
from fasthash.index.readahead import read_ahead
from fasthash.index.store.untrusted import IndexFolderError, open_regular, parse_json, shorten, whole_number

_DATA_START = 4096  # one page: mapped tensors start on a page, and so on any alignment
_HEADER_LIMIT = 1 << 20  # a header names a tensor or two; a length field above this is damage
_CHECK_BYTES = 1 << 28  # what is read ahead while a file is checked
_DTYPES: dict[str, np.dtype[Any]] = {
    "U8": np.dtype("u1"),
    "U32": np.dtype("<u4"),
    "I64": np.dtype("<i8"),
    "I8": np.dtype("i1"),
    "F16": np.dtype("<f2"),
    "F32": np.dtype("<f4"),
}

Bytes = np.ndarray[Any, np.dtype[np.uint8]]


class Column(NamedTuple):
    """A tensor to write: its blocks, in order, make up `shape`."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    blocks: Iterable[np.ndarray[Any, Any]]


class TensorFile(NamedTuple):
    """A file that was read: all its bytes, its tensors (views of them, by name) and the header's metadata."""

    path: Path
    data: Bytes
    tensors: dict[str, np.ndarray[Any, Any]]
    metadata: dict[str, str]

    @property
    def shapes(self) -> dict[str, tuple[str, tuple[int, ...]]]:
        """The type and the shape of each tensor."""
        return {name: (str(tensor.dtype), tensor.shape) for name, tensor in self.tensors.items()}

    def check_metadata(self, expected: dict[str, str]) -> None:
        """A file may do without metadata (another program may have written it), but must not contradict the manifest.

        Raises IndexFolderError.
        """
        for name, value in expected.items():
            if self.metadata.get(name, value) != value:
                found = shorten(self.metadata[name])
                raise IndexFolderError(f"{self.path}: {name} of the file is {found}, the manifest needs {value!r}")

    def check_sum(self, expected: str) -> None:
        """Raises IndexFolderError where the bytes are not those whose checksum the manifest holds."""
        self._refuse_other(xxhash.xxh3_128(self.data.data), expected)

    def check_bytes(self, expected: str, advance: Callable[[int], object]) -> Iterator[int]:
        """As check_sum, reading ahead; gives, again and again, how many bytes are read and so in memory by now."""
        digest, end = xxhash.xxh3_128(), 0
        for block in read_ahead(torch.split(to_tensor(self.data), _CHECK_BYTES), lambda block: block):
            digest.update(block.numpy().data)
            end += len(block)
            advance(len(block))
            yield end
        self._refuse_other(digest, expected)

    def _refuse_other(self, digest: xxhash.xxh3_128, expected: str) -> None:
        if digest.hexdigest() != expected:
            raise IndexFolderError(
                f"{self.path}: damaged: its checksum is {digest.hexdigest()}, the manifest says {expected}"
            )


def metadata_of(kind: str, **fields: str) -> dict[str, str]:
    """The metadata of a kind of file of an index."""
    return {"format": f"fasthash-index-{kind}", "version": "1", **fields}


def write_tensors(
    path: Path, columns: Sequence[Column], metadata: dict[str, str] | Callable[[Bytes], dict[str, str]]
) -> tuple[str, int]:
    """Writes a new file, block by block, flushed to the disk; gives its checksum and the rows of the last column.

    Memory is bounded by the largest block. The last column may have -1 rows: as many as its blocks have (the checksum
    then takes a second reading, because it starts with the header). So does metadata that is made from the data: from
    the mapped bytes of all columns, one after the other. As for any new file: FileExistsError where the name is taken,
    no file is left on failure, and its name is durable only after the folder was synced.
    """
    shapes = [column.shape for column in columns]
    known = shapes[-1][0] >= 0 and not callable(metadata)
    prefix = b"" if not known or callable(metadata) else _prefix(columns, shapes, metadata)
    digest = xxhash.xxh3_128(prefix)
    ends = [_DATA_START]
    with new_file(path) as file:
        file.write(bytes(_DATA_START))
        for column in columns:
            for block in column.blocks:
                data = np.ascontiguousarray(block, _DTYPES[column.dtype]).reshape(-1).view(np.uint8)
                digest.update(data.data)
                file.write(data.data)
            ends.append(file.tell())
        if shapes[-1][0] < 0:
            row_bytes = math.prod(shapes[-1][1:]) * _DTYPES[columns[-1].dtype].itemsize
            shapes[-1] = ((ends[-1] - ends[-2]) // row_bytes, *shapes[-1][1:])
        if callable(metadata):
            file.flush()
            metadata = metadata(_mapped(path))
        if not known:
            prefix = _prefix(columns, shapes, metadata)
        expected = _ends(columns, shapes)
        if len(prefix) != _DATA_START or ends != expected:
            raise RuntimeError(f"{path}: wrote up to byte {ends} where the header says {expected}")
        file.seek(0)
        file.write(prefix)
        if not known:
            file.flush()
            digest = _digest_of(path)
    return digest.hexdigest(), shapes[-1][0]


def _mapped(path: Path) -> Bytes:
    """The bytes that were written after the header."""
    return np.memmap(path, np.uint8, "r", offset=_DATA_START)


def _ends(columns: Sequence[Column], shapes: Sequence[tuple[int, ...]]) -> list[int]:
    """Where each column ends in the file, from where the first one starts."""
    sizes = (
        math.prod(shape) * _DTYPES[column.dtype].itemsize for column, shape in zip(columns, shapes, strict=True)
    )  # fmt: skip
    return list(itertools.accumulate(sizes, initial=_DATA_START))


def _prefix(columns: Sequence[Column], shapes: Sequence[tuple[int, ...]], metadata: dict[str, str]) -> bytes:
    """The length of the header and the header."""
    header: dict[str, Any] = {"__metadata__": metadata}
    spans = itertools.pairwise(end - _DATA_START for end in _ends(columns, shapes))
    for column, shape, span in zip(columns, shapes, spans, strict=True):
        header[column.name] = {"dtype": column.dtype, "shape": shape, "data_offsets": span}
    text = json.dumps(header, separators=(",", ":")).encode()
    return (_DATA_START - 8).to_bytes(8, "little") + text.ljust(_DATA_START - 8)


def _digest_of(path: Path) -> xxhash.xxh3_128:
    digest = xxhash.xxh3_128()
    with open(path, "rb") as file:
        while block := file.read(1 << 24):
            digest.update(block)
    return digest


def read_tensors(path: Path, mmap: bool, advice: int | None = None) -> TensorFile:
    """Maps (zero copy, read-only) or loads a safetensors file of tensors of the types above.

    advice: what to tell the system about mapped pages (a MADV_ constant).

    Raises FileNotFoundError where there is none; IndexFolderError where it is not one: every length, shape and offset
    of the header is checked against the size of the file before any is used.
    """
    descriptor, size = open_regular(path)
    with os.fdopen(descriptor, "rb") as file:
        if size < 8:
            raise IndexFolderError(f"{path}: truncated: {size} bytes are too few for a safetensors file")
        if mmap:
            mapped = memory_map.mmap(file.fileno(), size, access=memory_map.ACCESS_READ)
            if advice is not None:
                mapped.madvise(advice)
            data: Bytes = np.frombuffer(mapped, np.uint8)
        else:
            data = np.fromfile(file, np.uint8, size)
            if len(data) != size:
                raise IndexFolderError(f"{path}: truncated: {len(data)} of {size} bytes could be read")
    length = int.from_bytes(data[:8].tobytes(), "little")
    if not 2 <= length <= min(size - 8, _HEADER_LIMIT):
        raise IndexFolderError(f"{path}: truncated or damaged: a header of {length} bytes in a file of {size}")
    header = parse_json(data[8 : 8 + length].tobytes(), f"{path}: header")
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise IndexFolderError(f"{path}: header: __metadata__ must map names to strings, got {shorten(metadata)}")
    return TensorFile(path, data, _tensors(path, data[8 + length :], 8 + length, header), metadata)


def _tensors(path: Path, body: Bytes, body_start: int, header: dict[str, Any]) -> dict[str, np.ndarray[Any, Any]]:
    """Views of the tensors that the header describes; they must cover the body exactly, in order of their offsets."""
    spans: list[tuple[int, int, str, np.dtype[Any], list[int]]] = []
    for name, entry in header.items():
        where = f"{path}: tensor {shorten(name)}"
        if not isinstance(entry, dict) or not isinstance(entry.get("dtype"), str) or entry["dtype"] not in _DTYPES:
            raise IndexFolderError(f"{where}: must have dtype {', '.join(_DTYPES)}, got {shorten(entry)}")
        shape, offsets = entry.get("shape"), entry.get("data_offsets")
        if not isinstance(shape, list) or len(shape) > 2 or not isinstance(offsets, list) or len(offsets) != 2:
            raise IndexFolderError(f"{where}: must have a shape and two data_offsets, got {shorten(entry)}")
        dtype = _DTYPES[entry["dtype"]]
        shape = [whole_number(length, 0, 2**63 - 1, f"{where}: shape") for length in shape]
        start = whole_number(offsets[0], 0, len(body), f"{where}: data_offsets")
        end = whole_number(offsets[1], start, len(body), f"{where}: data_offsets")
        if end - start != math.prod(shape) * dtype.itemsize or (body_start + start) % dtype.itemsize:
            raise IndexFolderError(
                f"{where}: {shorten(tuple(shape))} of {entry['dtype']} does not fit bytes {start} to {end}"
            )
        spans.append((start, end, name, dtype, shape))
    at = 0
    tensors = {}
    for start, end, name, dtype, shape in sorted(spans, key=lambda span: span[:2]):
        if start != at:
            raise IndexFolderError(f"{path}: tensor {shorten(name)}: starts at {start}, expected {at}")
        at = end
        tensors[name] = body[start:end].view(dtype).reshape(shape)
    if at != len(body):
        raise IndexFolderError(f"{path}: truncated or damaged: tensors of {at} bytes in {len(body)} bytes of data")
    return tensors
