"""Sets of rows as bitmaps: one bit a row, in the order that the kernels read.

A bitmap of n rows is an int64 tensor [ceil(n / 64)]: row r is in the set when bit r % 64 of word r // 64 is 1; the bits
from n on are 0. A billion rows take 125 MB. Bits are set and cleared by adding and subtracting powers of two, which
never carry because the rows are distinct.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from fasthash._ops import mask_words as pack_rows

__all__ = ["add_ascending", "all_rows", "count_rows", "has_rows", "pack_rows", "row_blocks", "rows_between"]
__all__ += ["unpack_rows", "with_rows", "without_rows"]

_WORDS = 1 << 18  # words that are looked at at once: 2 MiB, and 16 MiB as bytes
_BYTE_COUNTS = np.array([byte.bit_count() for byte in range(256)], np.uint8)
_COUNTS = (_BYTE_COUNTS[:, None] + _BYTE_COUNTS).reshape(-1)  # bits set in each 16-bit number


def all_rows(rows: int, device: torch.device) -> Tensor:
    """The set of all `rows` rows."""
    words = torch.full(((rows + 63) // 64,), -1, dtype=torch.int64, device=device)
    if rows % 64:
        words[-1] = (1 << rows % 64) - 1
    return words


def add_ascending(words: Tensor, rows: Tensor) -> None:
    """Puts ascending rows, whether they are in the set or not, into it, in place. Costs a pass over their range."""
    if not len(rows):
        return
    size, device = 64 * _WORDS, rows.device
    first, last = int(rows[0]) // size, int(rows[-1]) // size
    cuts = torch.searchsorted(rows, torch.arange(first + 1, last + 1, device=device) * size).tolist()
    for number, (start, stop) in enumerate(itertools.pairwise([0, *cuts, len(rows)]), first):
        part = words[number * _WORDS : (number + 1) * _WORDS]
        member = torch.zeros(64 * len(part), dtype=torch.bool, device=device)
        here = rows[start:stop] - number * size
        if device.type == "cpu":
            member.numpy()[here.numpy()] = True  # several times faster than torch's
        else:
            member[here] = True
        part |= pack_rows(member)


def has_rows(words: Tensor, rows: Tensor) -> Tensor:
    """int64 rows of any shape -> bool: which are in the set."""
    return ((words[rows >> 6] >> (rows & 63)) & 1).bool()


def with_rows(words: Tensor, rows: Tensor) -> Tensor:
    """Puts distinct rows that are not in the set into it, in place."""
    return words.index_add_(0, rows >> 6, torch.ones_like(rows) << (rows & 63))


def without_rows(words: Tensor, rows: Tensor) -> Tensor:
    """Takes distinct rows that are in the set out of it, in place."""
    return words.index_add_(0, rows >> 6, -(torch.ones_like(rows) << (rows & 63)))


def unpack_rows(words: Tensor, start: int, stop: int) -> Tensor:
    """bool [stop - start]: which of the rows start .. stop are in the set."""
    low, high = start // 64, (stop + 63) // 64
    part = words[low:high]
    if part.device.type == "cpu":
        bits = torch.from_numpy(np.unpackbits(part.numpy().view(np.uint8), bitorder="little").view(np.bool_))
    else:
        places = torch.arange(64, device=part.device)
        bits = ((part[:, None] >> places) & 1).bool().flatten()
    return bits[start - 64 * low : stop - 64 * low]


def rows_between(words: Tensor, start: int, stop: int) -> Tensor:
    """int64, ascending: the rows of the set from start to before stop."""
    bits = unpack_rows(words, start, stop)
    if bits.device.type == "cpu":
        return torch.from_numpy(np.flatnonzero(bits.numpy())) + start
    return bits.nonzero()[:, 0] + start


def row_blocks(words: Tensor, rows: int) -> Iterator[tuple[int, Tensor]]:
    """The set of `rows` rows by blocks: (first row, bool of the block)."""
    for start in range(0, rows, 64 * _WORDS):
        yield start, unpack_rows(words, start, min(start + 64 * _WORDS, rows))


def count_rows(words: Tensor) -> int:
    """Rows in the set."""
    count = _count_on_cpu if words.device.type == "cpu" else _count_by_masks
    return sum(count(block) for block in torch.split(words, _WORDS))


def _count_on_cpu(words: Tensor) -> int:
    if hasattr(np, "bitwise_count"):  # numpy 2
        return int(np.bitwise_count(words.numpy().view(np.uint64)).sum(dtype=np.int64))
    return int(_COUNTS[words.numpy().view(np.uint16)].sum(dtype=np.int64))


def _count_by_masks(x: Tensor) -> int:
    x = x - ((x >> 1) & 0x5555555555555555)
    x = (x & 0x3333333333333333) + ((x >> 2) & 0x3333333333333333)
    x = (x + (x >> 4)) & 0x0F0F0F0F0F0F0F0F
    for shift in (8, 16, 32):
        x = x + (x >> shift)
    return int((x & 0x7F).sum())
