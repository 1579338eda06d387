"""What searches of a segment take, compared with the model of csrc/mih/cpu/mih_cost.h: by what tables are chosen.

Prices are measured when the tables are made and kept in their file. Searches correct them, each by a little: it takes
many of them, so that one that had to wait for a disk or for other programs changes no later choice.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

from fasthash._ops.mih import mih_scan_ns

MOST = 64.0  # times as long as the model says; a file that says more, or less than its inverse, is damaged
_STEP = 1.02  # by how much one search corrects a price: 8 times takes 105 that agree
_FARTHEST = 8.0  # times the measured price, at most
_QUERIES = 24
_READ_BYTES = 1 << 25  # codes that are scanned at most, to measure
_COMPARE_BYTES = 1 << 18
_COMPARED = 64  # queries
_TIMES = 7
_Result = TypeVar("_Result")
ops = torch.ops.fasthash


class Prices(NamedTuple):
    """How many times as long as the model says: 1 each is the machine that the model was fitted on."""

    tables: float = 1.0  # going through buckets
    read: float = 1.0  # the scan for one query
    compare: float = 1.0  # the scan for many queries, each
    ranged: float = 1.0  # times as long as that for k-NN queries: the scan for range queries


class Scan(NamedTuple):
    """A scan of codes [N, W] for Q queries."""

    N: int
    W: int
    Q: int
    weighted: bool = False
    ranged: bool = False

    def ns(self, prices: Prices) -> float:
        """The estimated time."""
        _, read, compare = self.terms(prices)
        return mih_scan_ns(self.N, self.W, self.Q, torch.get_num_threads(), self.weighted, read, compare)

    def terms(self, prices: Prices) -> tuple[float, float, float]:
        """The prices of tables, reading and comparing of such a search, as the ops take them."""
        times = prices.ranged if self.ranged else 1.0
        return prices.tables, prices.read * times, prices.compare * times

    def reads(self, prices: Prices) -> bool:
        """Whether it should take that for reading the codes, rather than for comparing them."""
        return self.ns(prices._replace(compare=0.0)) >= self.ns(prices._replace(read=0.0))


class Corrected:
    """The prices of a segment as searches have corrected them.

    Threads may tell past one another: only choices hang on it.
    """

    def __init__(self, measured: Prices):
        self._measured = measured
        self.now = measured

    def tell_tables(self, model_ns: float, clock_ns: float) -> None:
        """The estimated time of searches by tables at the present prices, and the measured time."""
        if model_ns > 0:
            self._tell("tables", clock_ns > model_ns)

    def tell_scan(self, scan: Scan, clock_ns: float) -> None:
        """The measured time of a scan."""
        name = "ranged" if scan.ranged else "read" if scan.reads(self.now) else "compare"
        self._tell(name, clock_ns > scan.ns(self.now))

    def _tell(self, name: str, longer: bool) -> None:
        measured, price = getattr(self._measured, name), getattr(self.now, name)
        price = min(max(price * (_STEP if longer else 1 / _STEP), measured / _FARTHEST), measured * _FARTHEST)
        self.now = self.now._replace(**{name: price})


def measured(codes: Tensor, starts: list[int], arrays: list[Tensor], bits: int) -> Prices:
    """The prices of a segment whose codes [N, W] have these tables (as of _ops/mih.py), on this machine, now.

    Takes some milliseconds, and seven scans of the codes (of 32 MiB at most).
    """
    rows = torch.arange(_QUERIES) * len(codes) // _QUERIES
    random = torch.Generator().manual_seed(0)
    flips = torch.randint(0, 256, (4, _QUERIES, codes.shape[1]), dtype=torch.uint8, generator=random)
    flips = flips[0] & flips[1] & flips[2] & flips[3]
    flips[:, -1] &= 0xFF << -bits % 8 & 0xFF
    ratios = []
    for query in (codes[rows] ^ flips).repeat(2, 1).split(1):  # the first pass maps pages, which takes far longer
        *_, spent = ops.mih_range(query, codes, None, starts, arrays, bits, 2 * len(starts) - 1, 1e12)
        model_ns, clock_ns = spent.tolist()
        if model_ns > 0:
            ratios.append(clock_ns / model_ns)
    return measured_scans(codes)._replace(tables=_price(median(ratios[len(ratios) // 2 :] or [1.0])))


def measured_scans(codes: Tensor) -> Prices:
    """The same, but for that of tables, which is 1.

    Between machines that one differs least. And pages of tables that have to be read from a disk would spoil it, where
    those of codes are in memory.
    """
    width = codes.shape[1]
    read, compared = codes[: max(1, _READ_BYTES // width)], codes[: max(1, _COMPARE_BYTES // width)]
    many = codes[torch.arange(_COMPARED) * len(codes) // _COMPARED]
    # The least of a few: a scan that other programs interrupt takes far longer.
    one_ns = min(timed(lambda: ops.hamming_topk(many[:1], read, None, 1))[1] for _ in range(_TIMES))
    many_ns = min(timed(lambda: ops.hamming_topk(many, compared, None, 1))[1] for _ in range(_TIMES))
    range_ns = min(timed(lambda: ops.hamming_range(many, compared, None, 0))[1] for _ in range(_TIMES))
    return Prices(
        read=_price(one_ns / Scan(len(read), width, 1).ns(Prices(compare=0.0))),
        compare=_price(many_ns / Scan(len(compared), width, len(many)).ns(Prices(read=0.0))),
        ranged=_price(range_ns / many_ns),
    )


def timed(call: Callable[[], _Result]) -> tuple[_Result, float]:
    """The result of a call, and its time in nanoseconds."""
    start = time.perf_counter_ns()
    result = call()
    return result, time.perf_counter_ns() - start


def _price(value: float) -> float:
    return float(f"{min(max(value, 1 / MOST), MOST):.4g}")
