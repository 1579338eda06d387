"""Codes from what people have: numbers of 64 bits, hexadecimal and decimal text, bytes, lists, boolean arrays.

A number of B bits is the code whose bit 0 is the number's most significant bit, that is, its big-endian bytes: the
text "8000000000000000", the number 2**63 and the int64 -2**63 are one code, with bit 0 set alone.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fasthash.codes import code_bytes

Codes = NDArray[np.uint8]
Place = Callable[[int], str]  # of a row of a block: "line 7"

_HEX = re.compile(r"(?:0[xX])?([0-9a-fA-F]+)", re.A)
_DECIMAL = re.compile(r"-?[0-9]+", re.A)
_MOST_DECIMAL = "18446744073709551615"  # 2**64 - 1
_NIBBLES = np.full(256, 255, np.uint8)
for _digits in ("0123456789abcdef", "0123456789ABCDEF"):
    _NIBBLES[np.frombuffer(_digits.encode(), np.uint8)] = np.arange(16)


class NotCodes(ValueError):
    """Values that are no codes: what is wrong, without the name of the file."""


def codes_of_numbers(values: NDArray[Any], bits: int, place: Place) -> Codes:
    """Integers of 16, 32 or 64 bits [N] as codes of `bits` bits, W bytes each; raises NotCodes."""
    size = 8 * values.dtype.itemsize
    native = values.astype(values.dtype.newbyteorder("="))
    unsigned = native.view(f"u{values.dtype.itemsize}").astype(np.uint64)
    if bits > size:
        raise NotCodes(f"numbers of {size} bits cannot be codes of {bits} bits")
    if bits < size:
        wrong = unsigned >> np.uint64(bits) != 0
        if wrong.any():
            row = int(wrong.argmax())
            raise NotCodes(f"{place(row)} has {values[row]}, codes of {bits} bits are numbers from 0 to 2**{bits} - 1")
    shifted = (unsigned << np.uint64(64 - bits)).astype(">u8")
    return np.ascontiguousarray(shifted.view(np.uint8).reshape(-1, 8)[:, : code_bytes(bits)])


def codes_of_bits(values: NDArray[np.bool_]) -> Codes:
    """Boolean arrays [N, bits] as codes."""
    return np.packbits(values, axis=1)


def codes_of_hex(texts: list[str], bits: int, place: Place) -> Codes:
    """Hexadecimal text as codes: two digits a byte, or as many as `bits` bits need, with or without 0x."""
    digits = code_digits(bits)
    plain = [text[2:] if text[:2] in ("0x", "0X") else text for text in texts]
    lengths = set(map(len, plain))
    joined = "".join(plain)
    if len(lengths) == 1 and lengths <= digits and joined.isascii():
        length = lengths.pop()
        nibbles = _NIBBLES[np.frombuffer(joined.encode(), np.uint8)].reshape(-1, length)
        if not (nibbles == 255).any():
            if length % 2:
                nibbles = np.concatenate([nibbles, np.zeros((len(nibbles), 1), np.uint8)], axis=1)
            return np.bitwise_or(np.left_shift(nibbles[:, ::2], 4), nibbles[:, 1::2]).astype(np.uint8, copy=False)
    expected = " or ".join(str(number) for number in sorted(digits))
    first = next((len(text) for text in plain if len(text) in digits), None)
    for row, (text, given) in enumerate(zip(plain, texts, strict=True)):
        if not _HEX.fullmatch(given):
            raise NotCodes(f"{place(row)} has {_shown(given)}, which is not a hexadecimal code")
        if len(text) not in digits or len(text) != first:
            raise NotCodes(
                f"{place(row)} has {_shown(given)} of {len(text)} hexadecimal digits, but codes of {bits} bits have "
                f"{expected}; all codes must have one width, with leading zeros"
            )
    raise NotCodes("codes must have one width")


def codes_of_decimal(texts: list[str], bits: int, place: Place) -> Codes:
    """Decimal text as codes: 0 to 2**64 - 1, or -2**63 to -1 as the same 64 bits of an int64."""
    for row, text in enumerate(texts):
        if not _DECIMAL.fullmatch(text):
            raise NotCodes(f"{place(row)} has {_shown(text)}, which is not a decimal number")
    numbers = list(map(int, texts))
    if numbers and (min(numbers) < -(2**63) or max(numbers) >= 2**64):
        row = next(row for row, number in enumerate(numbers) if not -(2**63) <= number < 2**64)
        raise NotCodes(f"{place(row)} has {_shown(texts[row])}, decimal codes must be below 2**64")
    if numbers and min(numbers) < 0:
        if bits < 64:
            row = next(row for row, number in enumerate(numbers) if number < 0)
            raise NotCodes(f"{place(row)} has {numbers[row]}, codes of {bits} bits are numbers from 0 to 2**{bits} - 1")
        numbers = [number % 2**64 for number in numbers]
    return codes_of_numbers(np.array(numbers, np.uint64), bits, place)


def codes_of_literals(texts: list[str], width: int | None, place: Place) -> Codes:
    """Lists "[1, 2]" or "[1 2]" and bytes "b'..'" as pandas writes them to CSV, as codes."""
    rows = []
    for row, text in enumerate(texts):
        code = _literal(text)
        if code is None:
            raise NotCodes(f"{place(row)} has {_shown(text)}, which is neither a list of bytes (0 to 255) nor b'...'")
        width = len(code) if width is None else width
        if len(code) != width:
            raise NotCodes(f"{place(row)} has {len(code)} bytes, the rows before have {width}; all must have one width")
        rows.append(code)
    return np.frombuffer(b"".join(rows), np.uint8).reshape(len(rows), -1)


def _literal(text: str) -> bytes | None:
    try:
        if text[:1] == "[" and re.fullmatch(r"\[[\d\s,]*\]", text, re.A):
            return bytes(map(int, re.findall(r"\d+", text)))
        if text[:2] in ("b'", 'b"'):
            value = ast.literal_eval(text)
            return value if isinstance(value, bytes) else None
    except (ValueError, SyntaxError):
        pass
    return None


def code_digits(bits: int) -> set[int]:
    """Hexadecimal digits that a code of `bits` bits may have."""
    return {2 * code_bytes(bits), -(-bits // 4)}


def text_form(sample: list[str]) -> str | None:
    """The format of text values: "literal", "hex", "digits" (hexadecimal or decimal), or None for no codes."""
    if not sample:
        return None
    if all(_literal(text) for text in sample[:20]):
        return "literal"
    if all(_DECIMAL.fullmatch(text) for text in sample):
        return "digits"
    lengths = {len(text) - 2 * (text[:2] in ("0x", "0X")) for text in sample}
    if all(_HEX.fullmatch(text) for text in sample) and len(lengths) == 1:
        return "hex"
    return None


def decide_base(blocks: Iterable[list[str]], bits: int | None) -> str:
    """ "hex" or "decimal", from all values of a column; raises NotCodes where they could be both.

    A letter or 0x says hexadecimal; a sign, or digits in different numbers, say decimal.
    """
    lengths: set[int] = set()
    highest = ""
    only_binary = True
    for texts in blocks:
        joined = "".join(texts)
        if "-" in joined:
            return "decimal"
        if not joined.isdecimal():
            return "hex"
        lengths.update(map(len, texts))
        if len(lengths) > 1:
            return "decimal"
        highest = max(highest, max(texts))
        only_binary = only_binary and not joined.strip("01")
    length = lengths.pop() if lengths else 0
    if only_binary and length > 20:
        raise NotCodes(f"all codes are {length} digits 0 and 1, which may be bits; save them packed (numpy.packbits)")
    as_hex = length % 2 == 0 if bits is None else length in code_digits(bits)
    as_decimal = length < 20 or (length == 20 and highest <= _MOST_DECIMAL)
    if bits is not None:
        as_decimal = as_decimal and bits <= 64 and int(highest or 0) < 2**bits
    if as_hex and as_decimal and length <= 16:
        raise NotCodes(
            f"all codes are {length} digits 0 to 9, which may be hexadecimal or decimal; pass format='hex' or "
            "format='decimal'"
        )
    return "decimal" if as_decimal else "hex"


def _shown(text: str) -> str:
    return repr(text) if len(text) <= 40 else repr(text[:37] + "...")
