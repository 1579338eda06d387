"""An index of a billion codes of 64 bits on one machine: building, opening, searching from disk and from memory.

    python benchmarks/bench_billion.py [--n 1e9] [--folder FOLDER] [--name billion]

Needs 8 bytes of disk a code, and then (the first file being removed) 16 for the part with explicit ids. Writes
benchmarks/results/NAME.json and NAME.md, a table made of it; removes its files. Every index is checked against
planted neighbours before it is timed. Memory is RssAnon of /proc/self/status, sampled every 5 ms: what the process
itself holds, without the pages of mapped files.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import kit
import numpy as np
import torch

from fasthash import HammingIndex, hamming_topk

try:
    import faiss
except ImportError:
    faiss = None

BLOCK = 1 << 20
BITS = 64
K = 10
MIB = 1 << 20
MULTIPLIER = 0x9E3779B97F4A7C15  # odd: i -> i * MULTIPLIER mod 2^63 gives distinct ids in no order


def rss_anon() -> int:
    """Bytes of anonymous memory of this process."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise SystemExit("bench_billion: needs RssAnon in /proc/self/status (Linux 4.5 or later)")


class Peak:
    """The most anonymous memory while a block runs, and what there was before it."""

    def __enter__(self) -> Peak:
        self.before = self.peak = rss_anon()
        self._running = True
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        self._start = time.perf_counter()
        return self

    def _watch(self) -> None:
        while self._running:
            self.peak = max(self.peak, rss_anon())
            time.sleep(0.005)

    def __exit__(self, *exception: object) -> None:
        self.seconds = time.perf_counter() - self._start
        self._running = False
        self._thread.join()

    def result(self) -> dict[str, float]:
        return {
            "seconds": self.seconds,
            "peak_anon_mib": self.peak / MIB,
            "beyond_before_mib": (self.peak - self.before) / MIB,
        }


def codes_of(start: int, count: int) -> np.ndarray:
    """The codes of rows start .. start + count: random, a function of the row (of its block)."""
    block = np.frombuffer(np.random.default_rng(start // BLOCK).bytes(8 * BLOCK), np.uint8).reshape(BLOCK, 8)
    return block[start % BLOCK : start % BLOCK + count]


def blocks(n: int, ids: bool) -> Iterator[Any]:
    for start in range(0, n, BLOCK):
        codes = codes_of(start, min(BLOCK, n - start))
        if ids:
            rows = np.arange(start, start + len(codes), dtype=np.uint64)
            yield codes, ((rows * np.uint64(MULTIPLIER)) & np.uint64(2**63 - 1)).astype(np.int64)
        else:
            yield codes


def planted(n: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Queries [count, 8], each 3 bits away from the code of a row, int64 [count]."""
    rng = np.random.default_rng(12345)
    rows = rng.integers(0, n, count)
    queries = np.stack([codes_of(int(row), 1)[0] for row in rows])
    flips = np.stack([rng.choice(BITS, 3, replace=False) for _ in range(count)])
    for flip in flips.T:
        queries[np.arange(count), flip // 8] ^= (1 << (7 - flip % 8)).astype(np.uint8)
    return queries, rows


def check(index: Any, queries: np.ndarray, ids: np.ndarray) -> None:
    found = index.search(queries, K)
    there = (found.ids == ids[:, None]) & (found.distances == 3)
    steps, ties = np.diff(found.distances, axis=1), np.diff(found.ids, axis=1) > 0
    if not there.any(1).all() or not ((steps > 0) | ((steps == 0) & ties)).all():
        raise SystemExit("bench_billion: a planted neighbour was not found, or results are out of order")


def forget(folder: Path) -> int:
    """Drops the pages of an index's segments from the page cache; gives their bytes."""
    size = 0
    for file in folder.glob("segment-*"):
        descriptor = os.open(file, os.O_RDONLY)
        size += os.fstat(descriptor).st_size
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)
    return size


def read_whole(folder: Path) -> None:
    buffer = bytearray(16 * MIB)
    for file in folder.glob("segment-*"):
        with open(file, "rb", buffering=0) as stream:
            while stream.readinto(buffer):
                pass


def seconds(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def cold(folder: Path, query: np.ndarray) -> dict[str, float]:
    """One query, nothing of the index in memory, against reading the files in order; both twice, the better counts."""
    search, read = [], []
    size = forget(folder)
    for _ in range(2):
        forget(folder)
        read.append(seconds(lambda: read_whole(folder)))
        forget(folder)
        index = HammingIndex.open(folder)
        search.append(seconds(lambda index=index: index.search(query, K)))
        del index  # mapped pages cannot be dropped
    result = {"bytes": size, "read_seconds": min(read), "query_seconds": min(search)}
    return {**result, "disk_gb_s": size / min(read) / 1e9, "query_gb_s": size / min(search) / 1e9}


def warm(index: HammingIndex, n: int, queries: np.ndarray, many: int, rounds: int) -> dict[str, Any]:
    """Everything in the page cache: one query and `many`, against the same kernel on codes in memory."""
    count = min(n, 100_000_000)
    memory = np.concatenate([codes_of(start, min(BLOCK, count - start)) for start in range(0, count, BLOCK)])
    threads = torch.get_num_threads()
    bandwidth = kit.read_bandwidth(threads)
    one = kit.interleave(
        {"index": lambda: index.search(queries[:1], K), "memory": lambda: hamming_topk(queries[:1], memory, K)}, 9, 60
    )
    bandwidth = max(bandwidth, kit.read_bandwidth(threads))
    pace = kit.interleave(
        {
            "index": lambda: index.search(queries[:many], K),
            "memory": lambda: hamming_topk(queries[:many], memory, K),
        },
        rounds,
        300,
    )
    rates = {
        "index": n * many / kit.median(pace["index"]),
        "memory": count * many / kit.median(pace["memory"]),
    }
    return {
        "threads": threads,
        "read_gb_s": bandwidth / 1e9,
        "one_query_seconds": kit.median(one["index"]),
        "one_query_gb_s": 8 * n / kit.median(one["index"]) / 1e9,
        "one_query_times_read": kit.median(one["index"]) * bandwidth / (8 * n),
        "one_query_in_memory_gb_s": 8 * count / kit.median(one["memory"]) / 1e9,
        "queries": many,
        "many_seconds": kit.median(pace["index"]),
        "many_pairs_s": rates["index"],
        "many_in_memory_pairs_s": rates["memory"],
        "many_share_of_memory": rates["index"] / rates["memory"],
        "codes_in_memory": count,
        "all_seconds": {"one": one, "many": pace},
    }


def against_faiss(n: int, queries: np.ndarray, rounds: int) -> dict[str, Any] | None:
    """IndexBinaryFlat in memory, at a size that it can do beside the rest."""
    if faiss is None:
        return None
    count = min(n, 100_000_000)
    memory = np.concatenate([codes_of(start, min(BLOCK, count - start)) for start in range(0, count, BLOCK)])
    theirs, ours = faiss.IndexBinaryFlat(BITS), HammingIndex(BITS)
    theirs.add(memory)
    ours.add(memory)
    if not np.array_equal(theirs.search(queries[:8], K)[0], ours.search(queries[:8], K).distances):
        raise SystemExit("bench_billion: faiss has other distances")
    result: dict[str, Any] = {"codes": count}
    for number in (1, 32):
        times = kit.interleave(_contenders(ours, theirs, queries[:number]), rounds, 60)
        medians = {name: kit.median(values) for name, values in times.items()}
        theirs_best = min(value for name, value in medians.items() if name != "fasthash")
        result[f"{number}_queries"] = {**medians, "times_faster": theirs_best / medians["fasthash"]}
    return result


def _contenders(ours: HammingIndex, theirs: Any, queries: np.ndarray) -> dict[str, Callable[[], Any]]:
    """faiss with one thread and with all: on a busy machine its threads may take longer to meet than they save."""

    def search(threads: int) -> None:
        faiss.omp_set_num_threads(threads)
        theirs.search(queries, K)

    every = torch.get_num_threads()
    both = {"faiss, 1 thread": lambda: search(1), f"faiss, {every} threads": lambda: search(every)}
    return {"fasthash": lambda: ours.search(queries, K), **both}


def filtered(index: HammingIndex, n: int, query: np.ndarray) -> dict[str, Any]:
    """A mask of half the codes: what it takes beyond the mask itself (one byte a code, the caller's)."""
    mask = np.zeros(n, np.bool_)
    mask[::2] = True
    with Peak() as peak:
        index.search(query, K, filter=mask)
    return peak.result()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n", type=lambda text: int(float(text)), default=1_000_000_000)
    parser.add_argument("--queries", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", default=None, help="where the index is made (default: a temporary folder)")
    parser.add_argument("--name", default="billion")
    parser.add_argument("--no-ids", action="store_true", help="leave out the build with explicit ids")
    arguments = parser.parse_args()
    n, place = arguments.n, Path(tempfile.mkdtemp(prefix="billion-", dir=arguments.folder))
    result: dict[str, Any] = {"machine": kit.machine(), "n": n, "bits": BITS, "k": K}
    queries, rows = planted(n, max(arguments.queries, 128))
    try:
        with Peak() as peak:
            index = HammingIndex.build(place / "index", blocks(n, ids=False), BITS)
        result["build"] = peak.result()
        result["disk_bytes"] = forget(place / "index")
        del index
        result["open_seconds"] = kit.median([seconds(lambda: HammingIndex.open(place / "index")) for _ in range(9)])
        result["cold"] = cold(place / "index", queries[:1])
        with Peak() as peak:
            index = HammingIndex.open(place / "index")
            check(index, queries[:16], rows[:16])
            index.search(queries[:1], K)
            index.search(queries[: arguments.queries], K)
        result["search_memory"] = peak.result()
        result["filter"] = filtered(index, n, queries[:1])
        result["warm"] = warm(index, n, queries, arguments.queries, arguments.rounds)
        del index
        shutil.rmtree(place / "index")
        result["faiss"] = against_faiss(n, queries, arguments.rounds)
        kit.write_json(arguments.name, result)  # what was measured so far
        if not arguments.no_ids:
            with Peak() as peak:
                index = HammingIndex.build(place / "ids", blocks(n, ids=True), BITS)
            result["build_ids"] = {**peak.result(), "segments": len(list((place / "ids").glob("segment-*")))}
            check(index, queries[:4], ids_of(rows[:4]))
            with HammingIndex.open(place / "ids", writable=True) as writer:
                gone = ids_of(rows[:1000])
                result["remove_seconds"] = seconds(lambda: writer.remove(gone))
                result["upsert_seconds"] = seconds(lambda: writer.add(queries[:100], gone[:100], replace=True))
    finally:
        shutil.rmtree(place)
    result["load_after"] = os.getloadavg()[0]
    kit.write_json(arguments.name, result)
    (kit.RESULTS / f"{arguments.name}.md").write_text(table(result))
    print(table(result))


def ids_of(rows: np.ndarray) -> np.ndarray:
    return ((rows.astype(np.uint64) * np.uint64(MULTIPLIER)) & np.uint64(2**63 - 1)).astype(np.int64)


def table(result: dict[str, Any]) -> str:
    """The results in Markdown."""
    build, warm_, cold_ = result["build"], result["warm"], result["cold"]
    lines = [
        ("codes", f"{result['n']:,} of {result['bits']} bits, {result['disk_bytes'] / 1e9:.2f} GB on disk"),
        ("build by streaming", f"{build['seconds']:.0f} s, peak RssAnon {build['peak_anon_mib']:.0f} MiB"),
    ]
    if "build_ids" in result:
        ids = result["build_ids"]
        text = f"{ids['seconds']:.0f} s, peak RssAnon {ids['peak_anon_mib']:.0f} MiB, {ids['segments']} segments"
        lines.append(("build with explicit ids in random order", text))
        lines.append(("remove 1,000 ids of them, durable", f"{result['remove_seconds']:.2f} s"))
        lines.append(("replace 100 codes, durable", f"{result['upsert_seconds']:.2f} s"))
    lines += [
        ("open", f"{1e3 * result['open_seconds']:.2f} ms"),
        (
            "one query, nothing cached",
            f"{cold_['query_seconds']:.2f} s, {cold_['query_gb_s']:.2f} GB/s; "
            f"read() in order gets {cold_['disk_gb_s']:.2f} GB/s",
        ),
        (
            "one query, cached",
            f"{1e3 * warm_['one_query_seconds']:.0f} ms, {warm_['one_query_gb_s']:.1f} GB/s: "
            f"{warm_['one_query_times_read']:.2f} x reading at the measured {warm_['read_gb_s']:.1f} GB/s",
        ),
        (
            f"{warm_['queries']:,} queries, k = {result['k']}",
            f"{warm_['many_seconds']:.1f} s, {warm_['many_pairs_s'] / 1e9:.1f}e9 pairs/s: "
            f"{100 * warm_['many_share_of_memory']:.0f} % of the kernel on "
            f"{warm_['codes_in_memory']:,} codes in memory",
        ),
        ("memory of searches beyond the map", f"{result['search_memory']['beyond_before_mib']:.0f} MiB"),
        ("memory of a boolean filter beyond the mask", f"{result['filter']['beyond_before_mib']:.0f} MiB"),
    ]
    if result["faiss"] is not None:
        for name, value in result["faiss"].items():
            if name != "codes":
                text = f"{value['times_faster']:.1f} x as fast as faiss IndexBinaryFlat at its best thread count"
                lines.append((f"{name.replace('_', ' ')}, {result['faiss']['codes']:,} codes in memory", text))
    head = f"{result['machine']['processor']}, {result['machine']['cores']} cores, {warm_['threads']} threads"
    body = "\n".join(f"| {what} | {value} |" for what, value in lines)
    return f"| {head} | |\n|---|---|\n{body}\n"


if __name__ == "__main__":
    main()
