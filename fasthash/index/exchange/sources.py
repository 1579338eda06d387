"""What an index can be built from: arrays, blocks, and files of codes (docs/files.md).

Everything is read by blocks, and files are mapped, so that memory is bounded by the block. Nothing is unpickled.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from fasthash._arguments import MAX_BITS, whole
from fasthash._arrays import dtype_name, to_tensor
from fasthash._tables import read_array, recognise
from fasthash._tables.kinds import label
from fasthash.asymmetric import scales
from fasthash.index.exchange.code_files import CodeFile, codes_of_array, open_codes, read_ids
from fasthash.index.exchange.key_sources import open_keys
from fasthash.index.key_texts import key_rows
from fasthash.index.keys import KeyRows
from fasthash.index.segments import block_rows, id_tensor
from fasthash.index.vectors import Vectors


class Block(NamedTuple):
    """Some rows."""

    codes: Tensor  # uint8 [n, W]
    ids: Tensor | None = None  # int64 [n]
    keys: KeyRows | None = None
    vectors: Vectors | None = None  # rows that are stored beside the codes
    scales: Tensor | None = None  # float16 [n], the code_scale of each

    @property
    def rows(self) -> int:
        return len(self.codes)

    def part(self, start: int, stop: int) -> Block:
        """Rows from start to before stop."""
        ids, keys, vectors = self.ids, self.keys, self.vectors
        return Block(
            self.codes[start:stop],
            None if ids is None else ids[start:stop],
            None if keys is None else keys.part(start, stop),
            None if vectors is None else vectors.part(start, stop),
            None if self.scales is None else self.scales[start:stop],
        )


class Source(NamedTuple):
    """Codes to build an index from."""

    bits: int
    rows: int | None  # None: known when the blocks have ended
    blocks: Iterator[Block]
    keyed: bool = False  # whether blocks have keys, where that is known


def open_source(
    source: Any,
    bits: int | None,
    ids: Any,
    function: str,
    *,
    format: str | None = None,
    column: str | None = None,
    id_column: str | None = None,
    keys: Any = None,
    key_column: str | None = None,
    code_scale: Any = None,
) -> Source:
    """Opens what holds codes (see HammingIndex.build); raises ValueError, TypeError or OSError where it does not."""
    names = {"format": format, "column": column, "id_column": id_column}
    if code_scale is not None:
        scale = open_scales(code_scale, function)
        opened = open_source(source, bits, ids, function, keys=keys, key_column=key_column, **names)
        return with_scales(opened, scale, function)
    if keys is None and key_column is None:
        return _open(source, bits, ids, function, **names)
    named = open_keys(keys, key_column, source, function, format)
    own = key_column if keys is None else None
    return with_keys(_open(source, bits, ids, function, **names, key_column=own), named, function)


def _open(
    source: Any,
    bits: int | None,
    ids: Any,
    function: str,
    format: str | None,
    column: str | None,
    id_column: str | None,
    key_column: str | None = None,
) -> Source:
    """The source without keys beside it; key_column: one that holds neither codes nor ids."""
    if bits is not None:
        bits = whole(bits, function, "bits", 1, MAX_BITS)
    ids_column = None
    if isinstance(ids, (str, os.PathLike)):
        ids = read_ids(Path(ids), function, id_column)
        ids_column, id_column = id_column, None
    if ids is not None:
        ids = id_tensor(ids, function).cpu()
    if isinstance(source, (str, os.PathLike)):
        options = {"format": format, "column": column, "id_column": id_column, "key_column": key_column}
        file = open_codes(Path(source), bits, function, block_rows, with_ids=ids is None, **options)
        if file.has_ids and ids is not None:
            raise ValueError(f"{function}: {source} holds ids already; ids must be None")
        return with_ids(_of_file(file), ids, function)
    for name, value in (("format", format), ("column", column), ("id_column", id_column or ids_column)):
        if value is not None and not (name == "id_column" and ids_column is not None):
            raise ValueError(
                f"{function}: {name} is for files, must be None for {type(source).__name__}, got {value!r}"
            )
    if isinstance(source, (np.ndarray, Tensor)):
        codes = to_tensor(source, function, "codes")
        if codes.device.type == "cpu":
            return with_ids(_of_file(codes_of_array(codes.numpy(), bits, function, block_rows)), ids, function)
        if codes.ndim != 2 or codes.shape[1] == 0:
            raise ValueError(f"{function}: codes must be [N, bytes of a code], got shape {tuple(codes.shape)}")
        bits = 8 * codes.shape[1] if bits is None else bits
        parts = (Block(codes[start : start + block_rows(bits)].cpu()) for start in _starts(len(codes), bits))
        return with_ids(Source(bits, len(codes), parts), ids, function)
    if not isinstance(source, Iterable):
        raise TypeError(f"{function}: source must be an array, a path or blocks of codes, got {type(source).__name__}")
    return with_ids(_open_blocks(source, bits, function), ids, function)


def _of_file(file: CodeFile) -> Source:
    blocks = (Block(to_tensor(codes), None if ids is None else to_tensor(ids)) for codes, ids in file.blocks)
    return Source(file.bits, file.rows, blocks)


def _starts(rows: int, bits: int) -> range:
    return range(0, rows, block_rows(bits))


def with_ids(source: Source, ids: Tensor | None, function: str) -> Source:
    """The source with ids from an array beside it."""
    if ids is None:
        return source
    if source.rows is not None and source.rows != len(ids):
        raise ValueError(f"{function}: {source.rows} codes need {source.rows} ids, got {len(ids)}")

    def blocks() -> Iterator[Block]:
        at = 0
        for block in source.blocks:
            if block.ids is not None:
                raise ValueError(f"{function}: the source has ids already; ids must be None")
            if at + block.rows > len(ids):
                raise ValueError(
                    f"{function}: more than {len(ids)} codes need more than {len(ids)} ids, got {len(ids)}"
                )
            yield block._replace(ids=ids[at : at + block.rows])
            at += block.rows
        if at != len(ids):
            raise ValueError(f"{function}: {at} codes need {at} ids, got {len(ids)}")

    return Source(source.bits, len(ids), blocks())


def open_scales(given: Any, function: str) -> Tensor:
    """The code_scale float16 [N] on the CPU, of an array or of a .npy file. Values are checked where they are used."""
    where = f"{function}: code_scale"
    if isinstance(given, (str, os.PathLike)):
        path = Path(given)
        kind, where = recognise(path, function), label(path, function) + ": scales"
        if kind.name not in ("npy", "npz"):
            raise ValueError(f"{label(path, function)} is {kind.words}, scales are read from .npy files")
        given = np.array(read_array(path, kind, function))
    scale = to_tensor(given, function, "code_scale")
    if scale.dtype != torch.float16 or scale.ndim != 1:
        kind_of = TypeError if scale.dtype != torch.float16 else ValueError
        raise kind_of(f"{where} must be float16 [N], got {dtype_name(scale)} of shape {list(scale.shape)}")
    return scale.cpu()


def with_scales(source: Source, scale: Tensor, function: str) -> Source:
    """The source with the code_scale float16 [N] beside it."""

    def blocks() -> Iterator[Block]:
        at = 0
        for block in source.blocks:
            own = scale[at : at + block.rows]
            at += block.rows
            if len(own) < block.rows:
                break
            yield block._replace(scales=scales(own, block.rows, block.codes.device, function))
        if at != len(scale):
            codes = f"{at} or more" if source.rows is None and at > len(scale) else source.rows or at
            raise ValueError(f"{function}: {codes} codes need a code_scale each, got {len(scale)}")

    return source._replace(blocks=blocks())


def with_keys(source: Source, keys: Iterator[KeyRows], function: str) -> Source:
    """The source with keys beside it, in blocks as large as those of the keys at most."""

    def blocks() -> Iterator[Block]:
        given = (part for part in keys if part.size)
        at, ahead = 0, next(given, None)
        for block in source.blocks:
            if block.keys is not None:
                raise ValueError(f"{function}: the source has keys already; keys must be None")
            start = 0
            while start < block.rows:
                if ahead is None:
                    codes = f"more than {at}" if source.rows is None else source.rows
                    raise ValueError(f"{function}: {codes} codes need {codes} keys, got {at}")
                count = min(block.rows - start, ahead.size)
                yield block.part(start, start + count)._replace(keys=ahead.part(0, count))
                start, at = start + count, at + count
                ahead = ahead.part(count, ahead.size) if count < ahead.size else next(given, None)
        if ahead is not None:
            raise ValueError(f"{function}: {at} codes need {at} keys, got {at + ahead.size} or more")

    return Source(source.bits, source.rows, blocks(), keyed=True)


def _open_blocks(source: Iterable[Any], bits: int | None, function: str) -> Source:
    def blocks() -> Iterator[Block]:
        for block in source:
            codes, ids, keys = block, None, None
            if isinstance(block, tuple) and len(block) in (2, 3):
                codes, ids, keys = (*block, None)[:3]
            codes = to_tensor(codes, function, "codes").cpu()
            if codes.ndim != 2:
                raise ValueError(f"{function}: a block must be [N, bytes of a code], got shape {tuple(codes.shape)}")
            numbers = None if ids is None else id_tensor(ids, function).cpu()
            if numbers is not None and len(numbers) != len(codes):
                raise ValueError(
                    f"{function}: a block of {len(codes)} codes needs {len(codes)} ids, got {len(numbers)}"
                )
            named = None if keys is None else key_rows(keys, function)
            if named is not None and named.size != len(codes):
                raise ValueError(f"{function}: a block of {len(codes)} codes needs {len(codes)} keys, got {named.size}")
            yield Block(codes, numbers, named)

    rest = blocks()
    if bits is None:
        first = next(rest, None)
        if first is None:
            raise ValueError(f"{function}: the source has no blocks, so bits must be given")
        bits, rest = 8 * first[0].shape[1], itertools.chain([first], rest)
    return Source(bits, None, rest)
