"""Grades automatic mode for bench_mih.py: its time against the better of the scan and of tables that are forced.

Codes are random; queries are codes with some bits changed, or random ones, and none comes twice. Warm: the indexes have
answered other queries before. With one thread times are seconds of the processor, which other programs disturb less;
with more they are by the clock.
"""

from __future__ import annotations

import resource
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import kit
import numpy as np
import torch

from fasthash import HammingIndex
from fasthash.index.search import tables

MOST = 1.3  # times the better of both
METHODS = ("scan", "mih", "auto")
SCANS = 3  # in a line: those of large indexes take long
SELF = 1000  # queries of a self-search that are scanned, which is reckoned up to all
WARM = 256  # calls of a single query before the first that counts
LOOK_UPS = (10**7, 256, 31)  # codes, bits, radius
Blocks = Callable[[int, int], Iterator[np.ndarray]]


class Line(NamedTuple):
    n: int
    bits: int
    radius: int | None  # None: k-NN, k 10
    batch: int  # n: every code is a query, once
    distance: int | None  # bits of a code that are changed; None: random queries


def lines(largest: int) -> list[Line]:
    every = [
        Line(10**6, 64, 3, 1, 1),
        Line(10**6, 64, 3, 10**6, 0),
        Line(10**6, 64, None, 1, 2),
        Line(10**6, 64, None, 64, 2),
        Line(10**7, 64, 4, 1, 2),
        Line(10**7, 64, None, 1, None),
        Line(5 * 10**6, 256, 31, 1, 15),
        Line(5 * 10**6, 256, 31, 64, 15),
        Line(10**7, 256, 31, 1, 15),
        Line(largest, 64, 4, 1, 2),
        Line(largest, 64, 4, 64, 2),
        Line(largest, 64, 12, 1, 6),
        Line(largest, 64, 16, 1, 6),
        Line(largest, 64, None, 1, 2),
        Line(largest, 64, None, 1, None),
        Line(largest, 64, None, 64, 4),
    ]
    return list(dict.fromkeys(line for line in every if line.n <= largest))


def folder_of(place: Path, n: int, bits: int, blocks: Blocks) -> Path:
    """An index with tables, made where there is none."""
    folder = place / f"auto-{n}-{bits}"
    if not (folder / "manifest.json").exists():
        HammingIndex.build(folder, blocks(n, bits), bits=bits, mih=True, progress=False).close()
    return folder


def opened(folder: Path) -> dict[str, HammingIndex]:
    """The index by each method; tables are used at any cost where they are forced."""
    budget, tables.BUDGETS["mih"] = tables.BUDGETS["mih"], 1e12
    try:
        return {method: HammingIndex.open(folder, method=method) for method in METHODS}
    finally:
        tables.BUDGETS["mih"] = budget


def queries_of(rng: np.random.Generator, codes: np.ndarray, count: int, line: Line) -> np.ndarray:
    if line.distance is None:
        return rng.integers(0, 256, (count, line.bits // 8), dtype=np.uint8)
    flips = rng.permuted(np.arange(line.bits) < line.distance + np.zeros((count, 1)), axis=1)
    return codes[rng.integers(0, len(codes), count)] ^ np.packbits(flips, axis=1)


def ask(index: HammingIndex, queries: np.ndarray, line: Line) -> Any:
    return index.search(queries, 10) if line.radius is None else index.range_search(queries, line.radius)


def timed(index: HammingIndex, queries: np.ndarray, line: Line) -> float:
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    start = clock()
    ask(index, queries, line)
    return clock() - start


def measure(folder: Path, line: Line, seconds: float) -> dict[str, float]:
    """Median seconds of a call by each method, after a check that all find the same."""
    indexes = opened(folder)
    codes = indexes["scan"]._contents.segments[0].codes.numpy()
    rng = np.random.default_rng(line.n + line.batch)
    batch = min(line.batch, SELF)
    some = queries_of(rng, codes, min(batch, 64), line)
    for method in ("mih", "auto"):
        found = zip(ask(indexes[method], some, line)[:2], ask(indexes["scan"], some, line)[:2], strict=True)
        for own, expected in found:
            np.testing.assert_array_equal(own, expected)
        for _ in range(WARM if batch == 1 else 2):
            ask(indexes[method], queries_of(rng, codes, batch, line), line)
    if line.batch == line.n:
        whole = {method: timed(indexes[method], codes, line) for method in ("auto", "mih")}
        part = timed(indexes["scan"], codes[:SELF], line)
        return {**whole, "scan": part * line.n / SELF}
    times: dict[str, list[float]] = {method: [] for method in METHODS}
    begin = time.perf_counter()
    while len(times["auto"]) < 3 or time.perf_counter() - begin < seconds:
        turn = METHODS if len(times["auto"]) < SCANS else METHODS[1:]
        for method in turn if len(times["auto"]) % 2 else reversed(turn):
            times[method].append(timed(indexes[method], queries_of(rng, codes, batch, line), line))
    return {method: kit.median(own) for method, own in times.items()}


def grade(place: Path, largest: int, seconds: float, blocks: Blocks) -> list[dict[str, Any]]:
    rows = []
    for line in lines(largest):
        row: dict[str, Any] = {**line._asdict(), **measure(folder_of(place, line.n, line.bits, blocks), line, seconds)}
        row["auto/best"] = row["auto"] / min(row["scan"], row["mih"])
        row["pass"] = row["auto/best"] <= MOST
        rows.append(row)
        print(described(row), f"auto / best {row['auto/best']:.2f}", "pass" if row["pass"] else "FAIL", flush=True)
    return rows


def anonymous_bytes() -> int:
    """Memory of the process that is no mapped file."""
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
    line = next(line for line in status.read_text().splitlines() if line.startswith("RssAnon"))
    return int(line.split()[1]) << 10


def look_ups(place: Path, calls: int, blocks: Blocks) -> dict[str, Any]:
    """Single queries one after the other: calls a second, and memory after the first tenth and at the end."""
    n, bits, radius = LOOK_UPS
    index = HammingIndex.open(folder_of(place, n, bits, blocks))
    codes = index._contents.segments[0].codes.numpy()
    rng, line = np.random.default_rng(0), Line(n, bits, radius, 1, 15)
    cpu, wall, memory = 0.0, 0.0, []
    tenths = [queries_of(rng, codes, calls // 10, line) for _ in range(10)]  # so that making them takes no memory later
    for number, queries in enumerate(tenths):
        starts = time.process_time(), time.perf_counter()
        for row in range(len(queries)):
            index.range_search(queries[row : row + 1], radius)
        if number:  # the first tenth warms up
            cpu, wall = cpu + time.process_time() - starts[0], wall + time.perf_counter() - starts[1]
        memory.append(anonymous_bytes())
    counted = calls // 10 * 9
    return {
        "n": n, "bits": bits, "radius": radius, "calls": calls, "per_cpu_second": counted / cpu,
        "per_second": counted / wall, "memory_first": memory[0], "memory_last": memory[-1],
    }  # fmt: skip


def threads(place: Path, seconds: float, blocks: Blocks) -> dict[str, Any]:
    """Single queries a second by the clock, of 1 and 2 threads of Python that take turns, a line for each kind."""
    result = {}
    for n, bits, radius in (LOOK_UPS, (10**6, 64, 3)):
        index = HammingIndex.open(folder_of(place, n, bits, blocks))
        codes = index._contents.segments[0].codes.numpy()
        rates: dict[int, list[float]] = {1: [], 2: []}
        rng, line = np.random.default_rng(1), Line(n, bits, radius, 1, radius // 2)
        for _ in range(6):
            for count in rates:
                done: list[int] = []
                own = [queries_of(rng, codes, 4000, line) for _ in range(count)]
                workers = [threading.Thread(target=keep_asking, args=(index, q, radius, seconds, done)) for q in own]
                for worker in workers:
                    worker.start()
                for worker in workers:
                    worker.join()
                rates[count].append(sum(done) / seconds)
        result[f"{n:.0e} x {bits} bits, radius {radius}"] = {str(k): kit.median(v) for k, v in rates.items()}
    return result


def keep_asking(index: HammingIndex, queries: np.ndarray, radius: int, seconds: float, done: list[int]) -> None:
    end, count = time.perf_counter() + seconds, 0
    while time.perf_counter() < end:
        index.range_search(queries[count % len(queries)][None], radius)
        count += 1
    done.append(count)


def described(row: dict[str, Any]) -> str:
    what = "10 nearest" if row["radius"] is None else f"radius {row['radius']}"
    queries = "random" if row["distance"] is None else f"{row['distance']} bits changed"
    if row["batch"] == row["n"]:
        queries = "every code"
    return f"{row['n']:.0e} x {row['bits']} | {what} | {queries} | {row['batch']}"


def table(result: dict[str, Any]) -> list[str]:
    """The results as lines of Markdown."""
    clock = "of the processor" if result["threads"] == 1 else "by the clock"
    lines = ["", f"Automatic mode against the better of the scan and of forced tables, at most {MOST} times; {clock}. "]
    if result["load"] > 0.5 * (result["cores"] or 1):
        lines[-1] += f"Other programs were running (load {result['load']:.0f} on {result['cores']} cores)."
    lines += ["", "| codes | search | queries | batch | scan ms | mih ms | auto ms | auto / best | <= 1.3 |"]
    lines.append("|---|---|---|---|---|---|---|---|---|")
    for row in result["lines"]:
        times = " | ".join(f"{row[method] * 1e3:.3g}" for method in METHODS)
        lines.append(f"| {described(row)} | {times} | {row['auto/best']:.2f} | {'yes' if row['pass'] else 'no'} |")
    own = result.get("look_ups")
    if own:
        grown = (own["memory_last"] - own["memory_first"]) / 2**20
        lines += [
            "",
            f"Look-ups, {own['n']:.0e} codes of {own['bits']} bits, radius {own['radius']}, one thread: "
            f"{own['per_cpu_second']:,.0f} a second of the processor, {own['per_second']:,.0f} by the clock; memory "
            f"grew by {grown:.1f} MiB over {own['calls']:,} calls.",
        ]
    for name, rates in result.get("threads_of_python", {}).items():
        lines += ["", f"Single queries, {name}: {rates['1']:,.0f} a second in one thread of Python, {rates['2']:,.0f} "]
        lines[-1] += "in two, by the clock."
    return lines
