"""Reading ahead of a scan of mapped codes: the system is asked for the next span while one is searched.

Page faults alone read a cold file in pieces of some 100 KB, each thread at its own place. Asked for whole spans in
order, the system streams at the speed of the disk. Where the file is larger than memory, it is slow to give up pages
that were mapped and used: so a span that had to be read is called cold after its use, and stays in memory only as long
as there is room. Spans that are in memory already cost a few system calls.
"""

from __future__ import annotations

import ctypes
import mmap
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from torch import Tensor

_SAMPLES = 64  # pages of a span that are looked at, at most, to tell whether it is in memory
_SAMPLE_BYTES = 1 << 22  # one sample for this number of bytes: a sample takes half a microsecond
_MADV_COLD, _MADV_POPULATE_READ = 20, 22  # from Linux 5.4 and 5.14 on; refused before
_T = TypeVar("_T")


def read_ahead(items: Iterable[_T], mapped: Callable[[_T], Tensor | None]) -> Iterator[_T]:
    """Gives the items one by one, having asked for the memory of the one after.

    mapped gives the memory of an item; None: it needs no asking, and nothing after it is looked at before it is used.
    """
    asked: threading.Thread | None = None
    waiting: list[tuple[_T, Tensor | None]] = []
    for item in items:
        codes = mapped(item)
        cold = codes if codes is not None and not in_memory(codes) else None
        if cold is not None:
            if asked is not None:
                asked.join()  # one span ahead, not the whole disk
            asked = threading.Thread(target=will_need, args=(cold,), daemon=True)
            asked.start()
        waiting.append((item, cold))
        while len(waiting) > (0 if codes is None else 1):
            yield from _used(*waiting.pop(0))
    for last in waiting:
        yield from _used(*last)


def _used(item: _T, cold: Tensor | None) -> Iterator[_T]:
    yield item
    if cold is not None:
        _advise(cold, _MADV_COLD)


def in_memory(codes: Tensor, samples: int = _SAMPLES) -> bool:
    """Whether mapped pages are in memory, judged by samples; True where the system does not tell."""
    library = _LIBRARY
    if library is None or codes.numel() == 0:
        return True
    start, length = _pages(codes)
    page, resident = mmap.PAGESIZE, ctypes.c_ubyte()
    step = max(_SAMPLE_BYTES, length // samples // page * page)
    for at in range(start, start + length, step):
        status = library.mincore(ctypes.c_void_p(at), ctypes.c_size_t(1), ctypes.byref(resident))
        if status == 0 and not resident.value & 1:
            return False
    return True


def will_need(codes: Tensor) -> None:
    """Has the system read and map pages; comes back when they are there."""
    _advise(codes, mmap.MADV_WILLNEED)  # all at once
    _advise(codes, _MADV_POPULATE_READ)


def _advise(codes: Tensor, advice: int) -> None:
    if _LIBRARY is not None and codes.numel():
        start, length = _pages(codes)
        _LIBRARY.madvise(ctypes.c_void_p(start), ctypes.c_size_t(length), ctypes.c_int(advice))


def _pages(codes: Tensor) -> tuple[int, int]:
    """Address and length of the whole pages that hold a contiguous tensor."""
    start = codes.data_ptr() // mmap.PAGESIZE * mmap.PAGESIZE
    return start, codes.data_ptr() + codes.numel() * codes.element_size() - start


def _load_library() -> Any:
    """The C library where it has both calls; ctypes, unlike mmap.madvise, lets other threads run meanwhile."""
    if not sys.platform.startswith("linux"):
        return None
    library = ctypes.CDLL(None, use_errno=True)
    return library if hasattr(library, "madvise") and hasattr(library, "mincore") else None


_LIBRARY = _load_library()
