"""An index of a billion codes of 64 bits on one machine: building, opening, searching from disk and from memory.

    python benchmarks/bench_billion.py [--n 1e9] [--parts codes cold peer ids] [--folder FOLDER] [--name billion]

Parts, which may be run one at a time (with the same --folder and --keep; results are added to the file):
codes: build by streaming, open, search from memory, filter (about 4 minutes at 1e9); cold: search and verify from the
disk, also with a quarter of the index's size as memory (3 minutes); peer: faiss IndexBinaryFlat, 1e8 codes (1 minute);
ids: build with explicit ids in random order, change, compact, verify (10 minutes or more).
Disk: 8 bytes a code, and for ids 16, twice while it is compacted. Writes benchmarks/results/NAME.json and NAME.md, a
table made of it. Every index is checked against planted neighbours before it is timed. Memory is RssAnon of
/proc/self/status, sampled every 5 ms: what the process itself holds, without the pages of mapped files.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import bench_cold
import kit
import numpy as np
import torch
from bench_cold import forget, seconds

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


def warm(index: HammingIndex, n: int, queries: np.ndarray, many: int, rounds: int) -> dict[str, Any]:
    """Everything in the page cache: one query and `many`, against the same kernel on codes in memory."""
    count = min(n, 100_000_000)
    memory = np.concatenate([codes_of(start, min(BLOCK, count - start)) for start in range(0, count, BLOCK)])
    threads = torch.get_num_threads()
    one = kit.interleave(
        {
            "index": lambda: index.search(queries[:1], K),
            "memory": lambda: hamming_topk(queries[:1], memory, K),
            "read": kit.reader(memory, threads),
        },
        15,
        60,
    )
    bandwidth = 8 * count / kit.median(one["read"])
    shares = [own / n * count / read for own, read in zip(one["index"], one["read"], strict=True)]
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
        "one_query_times_read": kit.median(shares),
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


def codes_part(place: Path, n: int, options: argparse.Namespace) -> dict[str, Any]:
    """Build, open, search, filter: all cached."""
    queries, rows = planted(n, max(options.queries, 128))
    result: dict[str, Any] = {}
    with Peak() as peak:
        index = HammingIndex.build(place / "index", blocks(n, ids=False), BITS, overwrite=True)
    result["build"] = peak.result()
    result["disk_bytes"] = forget(place / "index")
    del index
    result["open_seconds"] = kit.median([seconds(lambda: HammingIndex.open(place / "index")) for _ in range(9)])
    with Peak() as peak:
        index = HammingIndex.open(place / "index")
        check(index, queries[:16], rows[:16])
        index.search(queries[:1], K)
        index.search(queries[: options.queries], K)
    result["search_memory"] = peak.result()
    result["filter"] = filtered(index, n, queries[:1])
    result["warm"] = warm(index, n, queries, options.queries, options.rounds)
    return result


def cold_part(place: Path, n: int, options: argparse.Namespace) -> dict[str, Any]:
    """From the disk: with all memory, and with less than the index needs."""
    if not (place / "index" / "manifest.json").exists():
        HammingIndex.build(place / "index", blocks(n, ids=False), BITS).close()
    result = {"cold": bench_cold.measure(place / "index", options.rounds)}
    gib = max(1.0, 8 * n / 4 / 2**30)
    result["limited"] = bench_cold.limited(place / "index", options.rounds, gib) if 8 * n > gib * 2**30 else None
    return result


def peer_part(place: Path, n: int, options: argparse.Namespace) -> dict[str, Any]:
    return {"faiss": against_faiss(n, planted(n, 128)[0], options.rounds)}


def ids_part(place: Path, n: int, options: argparse.Namespace) -> dict[str, Any]:
    """Explicit ids in random order: build, remove, replace, filter, compact, verify."""
    queries, rows = planted(n, 1000)
    result: dict[str, Any] = {}
    with Peak() as peak:
        index = HammingIndex.build(place / "ids", blocks(n, ids=True), BITS, overwrite=True)
    result["build_ids"] = {**peak.result(), "segments": len(list((place / "ids").glob("segment-*")))}
    check(index, queries[:4], ids_of(rows[:4]))
    gone = ids_of(rows[:1000])
    with HammingIndex.open(place / "ids", writable=True) as writer:
        result["remove_seconds"] = seconds(lambda: writer.remove(gone))
        result["upsert_seconds"] = seconds(lambda: writer.add(queries[:100], gone[:100], replace=True))
        with Peak() as peak:
            writer.compact(progress=None)
        result["compact"] = peak.result()
        size = forget(place / "ids")
        with Peak() as peak:
            writer.verify(progress=None)
        result["verify_ids"] = {**peak.result(), "gb_s": size / peak.seconds / 1e9}
    return result


PARTS = {"codes": codes_part, "cold": cold_part, "peer": peer_part, "ids": ids_part}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=lambda text: int(float(text)), default=1_000_000_000)
    parser.add_argument("--queries", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where the indexes are made (default: a temporary folder)")
    parser.add_argument("--keep", action="store_true", help="leave them there")
    parser.add_argument("--parts", nargs="+", choices=tuple(PARTS), default=list(PARTS))
    parser.add_argument("--name", default="billion")
    options = parser.parse_args()
    place = options.folder or Path(tempfile.mkdtemp(prefix="billion-"))
    place.mkdir(parents=True, exist_ok=True)
    file = kit.RESULTS / f"{options.name}.json"
    result = json.loads(file.read_text()) if file.exists() else {}
    if result.get("n") != options.n or len(options.parts) == len(PARTS):
        result = {}
    result = {**result, "n": options.n, "bits": BITS, "k": K, "threads": torch.get_num_threads()}
    try:
        for part in options.parts:
            if part == "ids" and not options.keep:
                shutil.rmtree(place / "index", ignore_errors=True)
            machine = kit.machine()
            result |= PARTS[part](place, options.n, options)
            result |= {"machine": machine, "load_after": os.getloadavg()[0]}
            kit.write_json(options.name, result)
            file.with_suffix(".md").write_text(table(result))
    finally:
        if not options.keep:
            for name in ("index", "ids"):
                shutil.rmtree(place / name, ignore_errors=True)
    print(table(result))


def ids_of(rows: np.ndarray) -> np.ndarray:
    return ((rows.astype(np.uint64) * np.uint64(MULTIPLIER)) & np.uint64(2**63 - 1)).astype(np.int64)


Line = tuple[str, str, str, bool | None]  # what, measured, target, met


def lines_of_codes(result: dict[str, Any]) -> list[Line]:
    build, warm_, memory = result["build"], result["warm"], result["search_memory"]["beyond_before_mib"]
    mask = result["filter"]
    return [
        ("codes", f"{result['n']:,} of {result['bits']} bits, {result['disk_bytes'] / 1e9:.2f} GB on disk", "", None),
        (
            "build by streaming",
            f"{build['seconds']:.0f} s, peak RssAnon {build['peak_anon_mib']:.0f} MiB",
            "less than 1,536 MiB",
            build["peak_anon_mib"] < 1536,
        ),
        ("open", f"{1e3 * result['open_seconds']:.2f} ms", "less than 200 ms", result["open_seconds"] < 0.2),
        (
            "one query, cached",
            f"{1e3 * warm_['one_query_seconds']:.0f} ms, {warm_['one_query_gb_s']:.1f} GB/s: "
            f"{warm_['one_query_times_read']:.2f} x reading at the measured {warm_['read_gb_s']:.1f} GB/s",
            "at most 1.3 x",
            warm_["one_query_times_read"] <= 1.3,
        ),
        (
            f"{warm_['queries']:,} queries, k = {result['k']}",
            f"{warm_['many_seconds']:.1f} s, {warm_['many_pairs_s'] / 1e9:.1f}e9 pairs/s: "
            f"{100 * warm_['many_share_of_memory']:.0f} % of the kernel on "
            f"{warm_['codes_in_memory']:,} codes in memory",
            "at least 60 %",
            warm_["many_share_of_memory"] >= 0.6,
        ),
        ("memory of searches beyond the map", f"{memory:.0f} MiB", "at most 256 MiB", memory <= 256),
        (
            "one query, boolean filter of half the codes",
            f"{mask['seconds']:.2f} s, {mask['beyond_before_mib']:.0f} MiB beyond the mask",
            "at most 256 MiB",
            mask["beyond_before_mib"] <= 256,
        ),
    ]


def lines_of_cold(name: str, cold_: dict[str, Any]) -> list[Line]:
    lines: list[Line] = []
    for key, what in (("query", "one query"), ("verify", "verify")):
        lines.append(
            (
                f"{what}, {name}",
                f"{cold_[f'{key}_seconds']:.2f} s, {cold_[f'{key}_gb_s']:.2f} GB/s; "
                f"read() in order gets {cold_['read_gb_s']:.2f} GB/s",
                "the disk's speed" if key == "query" else "",
                cold_[f"{key}_share_of_read"] >= 0.8 if key == "query" else None,
            )
        )
    return lines


def lines_of_ids(result: dict[str, Any]) -> list[Line]:
    ids, compact, verified = result["build_ids"], result["compact"], result["verify_ids"]
    return [
        (
            "build with explicit ids in random order",
            f"{ids['seconds']:.0f} s, peak RssAnon {ids['peak_anon_mib']:.0f} MiB, {ids['segments']} segments",
            "less than 1,536 MiB",
            ids["peak_anon_mib"] < 1536,
        ),
        ("remove 1,000 ids of them, durable", f"{result['remove_seconds']:.2f} s", "", None),
        ("replace 100 codes, durable", f"{result['upsert_seconds']:.2f} s", "", None),
        (
            "compact",
            f"{compact['seconds']:.0f} s, peak RssAnon {compact['peak_anon_mib']:.0f} MiB",
            "less than 1,536 MiB",
            compact["peak_anon_mib"] < 1536,
        ),
        ("verify", f"{verified['seconds']:.0f} s, {verified['gb_s']:.2f} GB/s", "", None),
    ]


def table(result: dict[str, Any]) -> str:
    """The results in Markdown, next to what was aimed at."""
    lines: list[Line] = lines_of_codes(result) if "build" in result else []
    if "cold" in result:
        lines += lines_of_cold("nothing cached", result["cold"])
    if result.get("limited"):
        lines += lines_of_cold(f"with {result['limited']['memory_gib']:.2g} GiB of memory", result["limited"])
    if "build_ids" in result:
        lines += lines_of_ids(result)
    for name, value in (result.get("faiss") or {}).items():
        if name != "codes":
            text = f"{value['times_faster']:.1f} x as fast as faiss IndexBinaryFlat at its best thread count"
            lines.append((f"{name.replace('_', ' ')}, {result['faiss']['codes']:,} codes in memory", text, "", None))
    head = f"{result['machine']['processor']}, {result['machine']['cores']} cores, {result['threads']} threads"
    words = {True: "yes", False: "no", None: ""}
    body = "\n".join(f"| {what} | {value} | {target} | {words[met]} |" for what, value, target, met in lines)
    return f"| {head} | | target | met |\n|---|---|---|---|\n{body}\n"


if __name__ == "__main__":
    main()
