"""Sub-linear exact search: multi-index hashing against this project's own scan, on disk, single queries and batches.

    python benchmarks/bench_mih.py [--n 1e8] [--bits 64 128] [--folder FOLDER] [--name mih]

Queries have 10 planted neighbours at a stated distance, the rest of the codes is random; "random" queries have none.
Scan, tables and automatic mode take turns over the same queries and are checked against each other first. Also faiss
IndexBinaryMultiHash, which promises no exact results, with the share that it finds, where it is installed and for up to
--faiss codes. Writes benchmarks/results/NAME.json and NAME.md. Disk: 8 + 24 bytes a code of 64 bits, 16 + 73 of 128,
removed at the end; memory: the same, as page cache.
"""

from __future__ import annotations

import argparse
import itertools
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kit
import numpy as np
import torch

from fasthash import HammingIndex
from fasthash.index.mih import substrings

try:
    import faiss
except ImportError:
    faiss = None

BLOCK = 1 << 20
QUERIES = 64  # of each kind: distinct, so that no query finds its buckets in the cache
MOST = 10  # planted neighbours
METHODS = ("scan", "mih", "auto")


def plant(rng: np.random.Generator, n: int, bits: int) -> tuple[dict[str, np.ndarray], dict[int, np.ndarray]]:
    """Queries by kind, and the codes that are near them: row -> code."""
    queries, rows = {}, {}
    places = iter(rng.choice(n, 4 * QUERIES * MOST, replace=False))
    for distance in (bits // 32, bits // 16, bits // 10):
        own = rng.integers(0, 256, (QUERIES, bits // 8), dtype=np.uint8)
        queries[f"planted at {distance}"] = own
        for query in own:
            for _ in range(MOST):
                values = np.unpackbits(query)
                values[rng.choice(bits, distance, replace=False)] ^= 1
                rows[int(next(places))] = np.packbits(values)
    queries["random"] = rng.integers(0, 256, (QUERIES, bits // 8), dtype=np.uint8)
    return queries, rows


def blocks(n: int, bits: int, rows: dict[int, np.ndarray]) -> Iterator[np.ndarray]:
    """The database: random codes, and the planted ones in their rows."""
    for start in range(0, n, BLOCK):
        count = min(BLOCK, n - start)
        block = np.frombuffer(np.random.default_rng(start).bytes(count * bits // 8), np.uint8).reshape(count, -1).copy()
        for row in sorted(rows.keys() & range(start, start + count)):
            block[row - start] = rows[row]
        yield block


def compare(
    indexes: dict[str, HammingIndex], queries: np.ndarray, k: int, batch: int, seconds: float
) -> dict[str, Any]:
    """Medians in seconds of one call over `batch` queries by each method; every call takes the next queries."""
    for start in range(0, 4 * batch, batch):
        part = queries[start % QUERIES :][:batch]
        found = [index.search(part, k) for index in indexes.values()]
        for other in found[1:]:
            np.testing.assert_array_equal(other.distances, found[0].distances)
            np.testing.assert_array_equal(other.ids, found[0].ids)
    parts = {name: itertools.cycle(range(0, QUERIES, batch)) for name in indexes}
    times = kit.interleave(
        {
            name: lambda index=index, name=name: index.search(queries[next(parts[name]) :][:batch], k)
            for name, index in indexes.items()
        },
        rounds=QUERIES // batch if batch == 1 else 7,
        seconds=seconds,
    )
    result: dict[str, Any] = {name: kit.median(times[name]) for name in indexes}
    ratios = [scan / auto for scan, auto in zip(times["scan"], times["auto"], strict=True)]
    return {**result, "scan/mih": result["scan"] / result["mih"], "scan/auto": kit.median(ratios)}


def multi_hash(codes: np.ndarray, queries: np.ndarray, bits: int, index: HammingIndex) -> dict[str, Any]:
    """faiss IndexBinaryMultiHash on the same codes, one query at a time, with the share of true neighbours it finds."""
    tables = len(substrings(bits, len(codes)))
    start = time.perf_counter()
    other = faiss.IndexBinaryMultiHash(bits, tables, bits // tables)
    other.nflip = max(1, bits // 10 // tables)
    other.add(codes)
    built = time.perf_counter() - start
    expected = index.search(queries, MOST).distances
    times, found = [], 0.0
    for query, right in zip(queries, expected, strict=True):
        start = time.perf_counter()
        distances, _ = other.search(query[None], MOST)
        times.append(time.perf_counter() - start)
        found += float((distances[0] == right).mean()) / len(queries)
    return {"seconds": kit.median(times), "found": found, "build_seconds": built, "nflip": other.nflip}


def measure(n: int, bits: int, folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    queries, rows = plant(np.random.default_rng(bits), n, bits)
    start = time.perf_counter()
    HammingIndex.build(folder, blocks(n, bits, rows), bits=bits, progress=False).close()
    result: dict[str, Any] = {"n": n, "bits": bits, "build_seconds": time.perf_counter() - start}
    before = sum(file.stat().st_size for file in folder.iterdir())
    start = time.perf_counter()
    with HammingIndex.open(folder, writable=True) as index:
        index.build_mih()
    result["tables_seconds"] = time.perf_counter() - start
    result["codes_bytes"] = before
    result["tables_bytes"] = sum(file.stat().st_size for file in folder.iterdir()) - before
    result["substrings"] = substrings(bits, n)
    for file in folder.iterdir():  # into the page cache, if it is not
        with open(file, "rb") as opened:
            while opened.read(1 << 24):
                pass
    start = time.perf_counter()
    indexes = {method: HammingIndex.open(folder, method=method) for method in METHODS}
    result["open_seconds"] = (time.perf_counter() - start) / len(METHODS)
    result["searches"] = []
    for kind, own in queries.items():
        for k, batch in ((1, 1), (MOST, 1), (MOST, QUERIES)):
            row = {"queries": kind, "k": k, "batch": batch, **compare(indexes, own, k, batch, options.seconds)}
            result["searches"].append(row)
            print(row, flush=True)
    if faiss is not None and n <= options.faiss:
        faiss.omp_set_num_threads(torch.get_num_threads())
        own = queries[f"planted at {bits // 10}"]
        result["faiss"] = multi_hash(np.concatenate(list(blocks(n, bits, rows))), own, bits, indexes["scan"])
        print(result["faiss"], flush=True)
    return result


def table(result: dict[str, Any]) -> str:
    """The results as Markdown."""
    lines = ["| n | bits | queries | k | batch | scan ms | mih ms | auto ms | scan / mih | scan / auto |"]
    lines.append("|---|---|---|---|---|---|---|---|---|---|")
    for case in result["cases"]:
        for row in case["searches"]:
            times = " | ".join(f"{row[method] * 1e3:.3g}" for method in METHODS)
            lines.append(
                f"| {case['n']:.0e} | {case['bits']} | {row['queries']} | {row['k']} | {row['batch']} | {times} "
                f"| {row['scan/mih']:.3g} | {row['scan/auto']:.3g} |"
            )
    lines += ["", "| n | bits | tables | bytes a code | tables, bytes a code | building them, s | faiss MultiHash |"]
    lines.append("|---|---|---|---|---|---|---|")
    for case in result["cases"]:
        peer = case.get("faiss")
        peer_text = f"{peer['seconds'] * 1e3:.3g} ms, {peer['found']:.0%} found" if peer else "-"
        lines.append(
            f"| {case['n']:.0e} | {case['bits']} | {len(case['substrings'])} | {case['codes_bytes'] / case['n']:.1f} "
            f"| {case['tables_bytes'] / case['n']:.1f} | {case['tables_seconds']:.0f} | {peer_text} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=float, nargs="+", default=[1e8])
    parser.add_argument("--bits", type=int, nargs="+", default=[64, 128])
    parser.add_argument("--folder", type=Path, help="where the index goes; default: a new folder for temporary files")
    parser.add_argument("--faiss", type=float, default=1e7, help="most codes that faiss MultiHash is built for")
    parser.add_argument("--seconds", type=float, default=20.0, help="for each line of the table")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--name", default="mih")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    result: dict[str, Any] = {"machine": kit.machine(), "threads": options.threads, "cases": []}
    for n, bits in itertools.product(options.n, options.bits):
        folder = Path(tempfile.mkdtemp(dir=options.folder)) / "index"
        try:
            result["cases"].append(measure(int(n), bits, folder, options))
        finally:
            shutil.rmtree(folder.parent)
        path = kit.write_json(options.name, result)
        path.with_suffix(".md").write_text(table(result))
    print(table(result))


if __name__ == "__main__":
    main()
