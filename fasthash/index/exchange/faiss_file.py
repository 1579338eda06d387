"""faiss index files: IndexBinaryFlat, alone or inside an IndexBinaryIDMap; other kinds are refused by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fasthash._tables.kinds import label, refuse_faiss

# faiss: fourcc, then this, then (IBMp, IBM2) the inner index, then the length of a vector and the vector.
FAISS_HEADER = np.dtype([("bits", "<i4"), ("code_bytes", "<i4"), ("rows", "<i8"), ("trained", "u1"), ("metric", "<i4")])
FAISS_FLAT, FAISS_ID_MAPS = b"IBxF", (b"IBMp", b"IBM2")


def open_faiss(path: Path, function: str) -> tuple[NDArray[np.uint8], NDArray[np.int64] | None]:
    """Codes, mapped, and ids where it has them; raises ValueError for a file that is damaged or of another kind."""
    where = label(path, function)
    data = np.memmap(path, np.uint8, "r")

    def take(at: int, count: int) -> NDArray[np.uint8]:
        if at + count > len(data):
            raise ValueError(f"{where} is truncated: it ends at byte {len(data)}, expected {at + count}")
        return data[at : at + count]

    def vector(at: int, item: int) -> tuple[NDArray[np.uint8], int]:
        count = int(take(at, 8).view("<u8")[0]) * item
        return take(at + 8, count), at + 8 + count

    outer, at = take(0, 4).tobytes(), 0
    mapped = outer != FAISS_FLAT
    if mapped:
        at = 4 + FAISS_HEADER.itemsize
        inner = take(at, 4).tobytes()
        if inner != FAISS_FLAT:
            refuse_faiss(inner.decode("ascii", "backslashreplace"), where, f" inside {outer.decode()}")
    header: Any = take(at + 4, FAISS_HEADER.itemsize).copy().view(FAISS_HEADER)[0]
    rows, width, bits = int(header["rows"]), int(header["code_bytes"]), int(header["bits"])
    codes, at = vector(at + 4 + FAISS_HEADER.itemsize, 1)
    if width < 1 or bits != 8 * width or rows * width != len(codes):
        raise ValueError(
            f"{where} is damaged: {rows} codes of {bits} bits ({width} bytes) in {len(codes)} bytes of codes"
        )
    ids = None
    if mapped:
        numbers, at = vector(at, 8)
        if len(numbers) != 8 * rows:
            raise ValueError(f"{where} is damaged: {len(numbers) // 8} ids for {rows} codes")
        ids = numbers.view("<i8") if numbers.ctypes.data % 8 == 0 else numbers.copy().view("<i8")
    if at != len(data):
        raise ValueError(f"{where} is damaged: {len(data) - at} bytes after its end")
    return codes.reshape(rows, width), ids
