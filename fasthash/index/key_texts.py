"""Keys as users and files give them: texts, checked, as UTF-8 with hashes."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import xxhash

from fasthash.index.keys import LONGEST, Bytes, KeyRows, Numbers, ends_of, shown

_LINE_BREAKS = re.compile(r"[\x00-\x1f\x7f\x85\u2028\u2029]")  # what would break a line of output, or hide in it
_hash = xxhash.xxh3_64_intdigest


class Place(NamedTuple):
    """How messages name the keys of a block: "key 5", "line 6"."""

    what: str
    first: int

    def of(self, row: int) -> str:
        return f"{self.what} {self.first + row}"


def key_rows(given: Any, function: str, first: int = 0, what: str = "key", base: int = 0) -> KeyRows:
    """Texts as a user gives them: a list, an array (numpy, pandas, pyarrow, polars) or an iterator of str, or one str.

    Raises TypeError for what is no text, ValueError for an empty one, one of more than 2**20 bytes, and one that has no
    UTF-8 (a lone surrogate). `function` begins the message; `first` is the number of the first key, and `what` and
    `base` are how messages count: "line" from 1.
    """
    if isinstance(given, KeyRows):
        return given
    texts, place = _listed(given, function), Place(what, first + base)
    try:
        pieces = list(map(str.encode, texts))
    except (TypeError, UnicodeEncodeError):
        _refuse(texts, function, place)
        raise
    lengths = np.fromiter(map(len, pieces), np.int64, len(pieces))
    check_lengths(lengths, function, place)
    hashes = np.fromiter(map(_hash, pieces), np.uint64, len(pieces)).view(np.int64)
    return KeyRows(np.frombuffer(b"".join(pieces), np.uint8), ends_of(lengths), hashes)


def encoded_rows(text: Bytes, offsets: Numbers, function: str, first: int = 0) -> KeyRows:
    """Keys that are UTF-8 already, of a file; raises ValueError where they are not, or are too long or empty."""
    place = Place("row", first)
    check_lengths(np.diff(offsets), function, place)
    row = first_not_utf8(text, offsets)
    if row is not None:
        got = text[offsets[row] : offsets[row + 1]].tobytes()[:40]
        raise ValueError(f"{function}: a key must be UTF-8, got {got!r} in {place.of(row)}")
    return KeyRows(text, offsets, hashes_of(text, offsets))


def hashes_of(text: Bytes, offsets: Numbers) -> Numbers:
    """XXH3-64 of each key, as signed numbers."""
    data, ends = text.tobytes(), offsets.tolist()
    pieces = (data[start:stop] for start, stop in itertools.pairwise(ends))
    return np.fromiter(map(_hash, pieces), np.uint64, len(offsets) - 1).view(np.int64)


def first_not_utf8(text: Bytes, offsets: Numbers) -> int | None:
    """The first key that is not UTF-8; None where all are. The offsets must be ascending, from 0 to the text's end."""
    starts = text[offsets[:-1]]
    within = (starts & 0xC0) == 0x80  # a key that begins inside a character
    try:
        text.tobytes().decode()
        return int(within.argmax()) if within.any() else None
    except UnicodeDecodeError as error:
        row = int(np.searchsorted(offsets, error.start, side="right")) - 1
        return min(row, int(within.argmax())) if within.any() else row


def check_lengths(lengths: Numbers, function: str, place: Place) -> None:
    """Raises ValueError for an empty key and for one that is too long."""
    wrong = (lengths < 1) | (lengths > LONGEST)
    if wrong.any():
        row = int(wrong.argmax())
        raise ValueError(
            f"{function}: a key must have 1 to {LONGEST} bytes in UTF-8, got {lengths[row]} in {place.of(row)}"
        )


def key_bytes(key: str) -> tuple[bytes, int] | None:
    """A key in UTF-8, and its hash as a signed number; None for a text that can be no key."""
    try:
        data = key.encode()
    except UnicodeEncodeError:
        return None
    number = _hash(data)
    return (data, number - (number >> 63 << 64)) if data else None


def printed(key: str) -> str:
    """A key in a line of output: control characters and line breaks are escaped; JSON has keys as they are."""
    return _LINE_BREAKS.sub(lambda found: repr(found[0])[1:-1], key)


def is_text(given: Any) -> bool:
    """Whether a filter is of keys: one text, or an array, list or column that begins with one."""
    if isinstance(given, (list, tuple)):
        return len(given) > 0 and isinstance(given[0], str)
    if hasattr(given, "to_pylist"):  # pyarrow
        return "string" in str(getattr(given, "type", ""))
    kind = getattr(getattr(given, "dtype", None), "kind", None)
    if kind == "O" or (kind is None and "str" in str(getattr(given, "dtype", "")).lower()):
        return isinstance(next(iter(given), None), str)
    return isinstance(given, str) or kind in ("U", "T")


def _listed(given: Any, function: str) -> Sequence[Any]:
    if isinstance(given, str):
        return [given]
    if isinstance(given, (list, tuple)):
        return given
    if isinstance(given, np.ndarray) and given.ndim > 1:
        raise ValueError(f"{function}: keys must be one-dimensional, got shape {given.shape}")
    if isinstance(given, np.ndarray):
        return list(given.reshape(-1).tolist())
    if hasattr(given, "to_pylist"):
        return list(given.to_pylist())
    if not isinstance(given, Iterable) or isinstance(given, (bytes, bytearray, set, frozenset, dict)):
        raise TypeError(f"{function}: keys must be a list or an array of texts, got {type(given).__name__}")
    return list(given)


def _refuse(texts: Sequence[Any], function: str, place: Place) -> None:
    """Raises for the first that is no text, or has no UTF-8."""
    for row, text in enumerate(texts):
        if not isinstance(text, str):
            raise TypeError(f"{function}: keys must be texts (str), got {type(text).__name__} in {place.of(row)}")
        try:
            text.encode()
        except UnicodeEncodeError:
            raise ValueError(
                f"{function}: a key must have a UTF-8 form, got a lone surrogate in {place.of(row)}, {shown(text)}"
            ) from None
