"""Keys: unique texts that name codes, kept as UTF-8 beside a table of their hashes, by which they are looked up.

A segment's keys are one array of bytes, where each key ends in it, and the XXH3-64 of all keys in ascending order with
their rows. A look-up is a binary search among the hashes and a comparison of bytes, so that keys with equal hashes are
told apart. Arrays may be pages of a file: a look-up reads a few of them.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fasthash.index.errors import IndexFolderError

LONGEST = 1 << 20  # bytes of a key in UTF-8
KEY_ROWS = 1 << 25  # rows of the largest segment with keys that is made: sorting their hashes takes 16 bytes a row
_AT_ONCE = 1 << 16  # keys that are looked up at once
_FEW = 8  # so many keys are looked up one by one
_NO_ROW = "a key is of a row that the segment does not have; verify the index"
_NO_TEXT = "the offsets of keys are not ascending inside the text; verify the index"

Numbers = NDArray[np.int64]
Bytes = NDArray[np.uint8]
Flags = NDArray[np.bool_]
Keep = Callable[[Numbers], Flags]


class KeyRows(NamedTuple):
    """Keys in the order of rows."""

    text: Bytes  # UTF-8, one after the other
    offsets: Numbers  # [N + 1]: key i is text[offsets[i] : offsets[i + 1]]
    hashes: Numbers  # [N]: XXH3-64 of each, as signed numbers

    @property
    def size(self) -> int:
        return len(self.hashes)

    def taken(self, rows: Numbers) -> KeyRows:
        """Some of them, in the order of `rows`."""
        starts, stops = self.offsets[:-1][rows], self.offsets[1:][rows]
        return KeyRows(_gathered(self.text, starts, stops), ends_of(stops - starts), self.hashes[rows])

    def part(self, start: int, stop: int) -> KeyRows:
        """Those from start to before stop, not copied but for the offsets."""
        offsets = self.offsets[start : stop + 1]
        return KeyRows(self.text[offsets[0] : offsets[-1]], offsets - offsets[0], self.hashes[start:stop])

    def one(self, row: int) -> tuple[bytes, int]:
        """A key and its hash."""
        return self.text[self.offsets[row] : self.offsets[row + 1]].tobytes(), int(self.hashes[row])

    def shown(self, row: int) -> str:
        """A key as a message shows it."""
        return shown(self.one(row)[0].decode())


@dataclass(frozen=True, eq=False)
class Keys:
    """The keys of a segment, which can be looked up."""

    text: Bytes
    offsets: Numbers  # [n + 1]
    hashes: Numbers  # [n], ascending
    rows: NDArray[np.uint32]  # [n]: the row of each hash

    @classmethod
    def of(cls, keys: KeyRows) -> Keys:
        """The table of these keys."""
        order = np.argsort(keys.hashes)
        return cls(keys.text, keys.offsets, keys.hashes[order], order.astype(np.uint32))

    @property
    def size(self) -> int:
        return len(self.hashes)

    def find(self, wanted: KeyRows) -> Numbers:
        """The row of each of M keys, int64 [M]; -1 where it is none of these."""
        if wanted.size <= _FEW:
            return np.array([self.find_one(*wanted.one(row)) for row in range(wanted.size)], np.int64)
        parts = [
            self._find(wanted.part(start, min(start + _AT_ONCE, wanted.size)))
            for start in range(0, wanted.size, _AT_ONCE)
        ]
        return np.concatenate(parts) if parts else np.zeros(0, np.int64)

    def _find(self, wanted: KeyRows) -> Numbers:
        rows = np.full(wanted.size, -1, np.int64)
        asked = np.argsort(wanted.hashes)  # in the order of the table, neighbours share its pages
        at = np.searchsorted(self.hashes, wanted.hashes[asked])
        while len(asked):  # each round looks at one entry more of equal hashes
            inside = at < self.size
            asked, at = asked[inside], at[inside]
            same = self.hashes[at] == wanted.hashes[asked]
            asked, at = asked[same], at[same]
            found = self.rows[at].astype(np.int64)
            equal = self._equal(found, wanted, asked)
            rows[asked[equal]] = found[equal]
            asked, at = asked[~equal], at[~equal] + 1
        return rows

    def _equal(self, rows: Numbers, wanted: KeyRows, asked: Numbers) -> Flags:
        """Whether key rows[i] is key asked[i] of `wanted`."""
        starts, stops = self._spans(rows)
        begins, ends = wanted.offsets[:-1][asked], wanted.offsets[1:][asked]
        equal: Flags = stops - starts == ends - begins
        if equal.any():
            lengths = (stops - starts)[equal]
            own = _gathered(self.text, starts[equal], stops[equal])
            others = _gathered(wanted.text, begins[equal], ends[equal])
            same: Flags = own == others
            equal[equal] = np.logical_and.reduceat(same, ends_of(lengths)[:-1])
        return equal

    def find_one(self, key: bytes, hash: int) -> int:
        """The row of one key, whose hash is given as a signed number; -1 where it is none of these."""
        at = int(self.hashes.searchsorted(hash))
        while at < self.size and self.hashes[at] == hash:
            row = int(self.rows[at])
            if row >= self.size:
                raise IndexFolderError(_NO_ROW)
            start, stop = int(self.offsets[row]), int(self.offsets[row + 1])
            if not 0 <= start < stop <= min(start + LONGEST, len(self.text)):
                raise IndexFolderError(_NO_TEXT)
            if self.text[start:stop].tobytes() == key:
                return row
            at += 1
        return -1

    def texts(self, rows: Numbers) -> list[str]:
        """The keys of rows, in their order."""
        starts, stops = self._spans(rows)
        data, ends = _gathered(self.text, starts, stops).tobytes(), ends_of(stops - starts).tolist()
        try:
            if data.isascii():
                text = data.decode("ascii")
                return [text[start:stop] for start, stop in itertools.pairwise(ends)]
            return [data[start:stop].decode() for start, stop in itertools.pairwise(ends)]
        except UnicodeDecodeError as error:
            raise IndexFolderError("a key is not UTF-8; verify the index") from error

    def text_of(self, rows: Numbers) -> tuple[Bytes, Numbers]:
        """The bytes of the keys of rows, one after the other, and their lengths."""
        starts, stops = self._spans(rows)
        return _gathered(self.text, starts, stops), stops - starts

    def lengths(self, rows: Numbers) -> Numbers:
        starts, stops = self._spans(rows)
        return stops - starts

    def by_row(self) -> Numbers:
        """The hashes in the order of rows."""
        self._check_rows(self.rows)
        hashes = np.zeros(self.size, np.int64)
        hashes[self.rows] = self.hashes
        return hashes

    def _spans(self, rows: Numbers) -> tuple[Numbers, Numbers]:
        """Where keys start and end; raises IndexFolderError where a mapped file, not read before, is damaged."""
        self._check_rows(rows)
        starts, stops = self.offsets[rows], self.offsets[rows + 1]
        lengths = stops - starts
        if bool(((starts < 0) | (lengths < 1) | (lengths > LONGEST) | (stops > len(self.text))).any()):
            raise IndexFolderError(_NO_TEXT)
        return starts, stops

    def _check_rows(self, rows: NDArray[Any]) -> None:
        if len(rows) and int(rows.max()) >= self.size:
            raise IndexFolderError(_NO_ROW)


def repeated_key(tables: Sequence[tuple[Keys, Keep | None]], at_once: int = 1 << 21) -> str | None:
    """A key that is there more than once; None where all are distinct.

    Keep says which of some rows count, None: all. Only about `at_once` hashes are in memory at a time.
    """
    pieces = max(1, -(-sum(keys.size for keys, _ in tables) // at_once))
    edges = [(piece << 64) // pieces - (1 << 63) for piece in range(pieces)]
    for low, high in zip(edges, [*edges[1:], None], strict=True):
        found = []  # hashes, rows and number of the table
        for number, (keys, keep) in enumerate(tables):
            start = int(keys.hashes.searchsorted(low))
            stop = keys.size if high is None else int(keys.hashes.searchsorted(high))
            hashes, rows = keys.hashes[start:stop], keys.rows[start:stop].astype(np.int64)
            if keep is not None and len(rows):
                live = keep(rows)
                hashes, rows = hashes[live], rows[live]
            found.append((hashes, rows, np.full(len(rows), number)))
        hashes, rows, numbers = (np.concatenate(column) for column in zip(*found, strict=True))
        order = np.argsort(hashes)
        same = np.flatnonzero(hashes[order[1:]] == hashes[order[:-1]])
        seen: set[str] = set()
        for at in np.union1d(same, same + 1).tolist():  # few: hashes of 64 bits are seldom equal where keys are not
            entry = order[at]
            key: str = tables[numbers[entry]][0].texts(rows[entry : entry + 1])[0]
            if key in seen:
                return key
            seen.add(key)
    return None


def joined_rows(parts: Sequence[KeyRows]) -> KeyRows:
    """Keys one after the other; one part is not copied."""
    if len(parts) == 1:
        return parts[0]
    lengths = np.concatenate([np.diff(part.offsets) for part in parts])
    return KeyRows(
        np.concatenate([part.text for part in parts]), ends_of(lengths), np.concatenate([part.hashes for part in parts])
    )


def reordered(text: Bytes, lengths: Numbers, order: Numbers) -> Bytes:
    """The bytes of keys that lie one after the other, in another order."""
    ends = ends_of(lengths)
    return _gathered(text, ends[:-1][order], ends[1:][order])


def shown(key: str) -> str:
    """A key as a message shows it: at most 80 characters."""
    text = repr(key)
    return text if len(text) <= 80 else text[:77] + "..."


def ends_of(lengths: Numbers) -> Numbers:
    """Lengths [N] -> offsets [N + 1]."""
    offsets = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return offsets


def _gathered(text: Bytes, starts: Numbers, stops: Numbers) -> Bytes:
    """text[starts[i] : stops[i]] one after the other."""
    if not len(starts):
        return text[:0]
    if bool((starts[1:] == stops[:-1]).all()):  # they lie together
        return text[int(starts[0]) : int(stops[-1])]
    length = int(stops[0] - starts[0])
    if bool((stops - starts == length).all()):
        rows: Bytes = np.lib.stride_tricks.sliding_window_view(text, length)[starts]
        return rows.reshape(-1)
    view = text.data
    pieces = [view[start:stop] for start, stop in zip(starts.tolist(), stops.tolist(), strict=True)]
    return np.frombuffer(b"".join(pieces), np.uint8)
