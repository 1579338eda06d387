"""Sub-linear exact search: multi-index hashing against this project's own scan, on disk, single queries and batches.

    python benchmarks/bench_mih.py [--n 1e8] [--bits 64 128] [--parts build search peer] [--folder FOLDER] [--name mih]
    python benchmarks/bench_mih.py --parts grid [--grid-n 1e6] [--grid-bits 64]
    python benchmarks/bench_mih.py --parts auto --threads 1 [--largest 5e7] [--look-ups 1e6] --folder FOLDER --keep

Parts may be run one at a time with the same --folder and --keep, results are added to the file: build (codes and
tables; at 1e8 codes of 64 bits some 2 minutes, at 1e9 some 10), search (4 minutes at most for each n and bits), peer.
Queries have 10 planted neighbours at a stated distance, the rest of the codes is random; "random" queries have none.
Scan, tables and automatic mode take turns, each over queries of its own, so that none finds its pages mapped by
another; indexes are opened anew for each line, and the results checked first. peer: faiss IndexBinaryMultiHash, which
promises no exact results, with the share that it finds, for up to --faiss codes. grid: scan and automatic mode over
sizes, widths, kinds of codes and of queries, no query twice (10 minutes; one size and width at a time will do). auto:
grades automatic mode against the better of both, range searches too, and looks up single codes (mih_auto.py). Writes
benchmarks/results/NAME.json and NAME.md. Disk: 8 + 24 bytes a code of 64 bits, 16 + 73 of 128; memory: the same, as
page cache, or each scan reads the disk.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kit
import mih_auto
import numpy as np
import torch

from fasthash import HammingIndex, hamming_topk
from fasthash.index.store.table_file import substrings

try:
    import faiss
except ImportError:
    faiss = None

BLOCK = 1 << 20
QUERIES = 64  # of each kind for each method: distinct, so that no query finds its buckets where another one left them
MOST = 10  # planted neighbours
METHODS = ("scan", "mih", "auto")


def plant(rng: np.random.Generator, n: int, bits: int) -> tuple[dict[str, np.ndarray], dict[int, np.ndarray]]:
    """Queries by kind, and the codes that are near them: row -> code."""
    queries, rows = {}, {}
    count = len(METHODS) * QUERIES
    places = iter(rng.choice(n, 3 * count * MOST, replace=False))
    for distance in (bits // 32, bits // 16, bits // 10):
        own = rng.integers(0, 256, (count, bits // 8), dtype=np.uint8)
        queries[f"planted at {distance}"] = own
        for query in own:
            for _ in range(MOST):
                values = np.unpackbits(query)
                values[rng.choice(bits, distance, replace=False)] ^= 1
                rows[int(next(places))] = np.packbits(values)
    queries["random"] = rng.integers(0, 256, (count, bits // 8), dtype=np.uint8)
    return queries, rows


def blocks(n: int, bits: int, rows: dict[int, np.ndarray]) -> Iterator[np.ndarray]:
    """The database: random codes, and the planted ones in their rows."""
    for start in range(0, n, BLOCK):
        count = min(BLOCK, n - start)
        block = np.frombuffer(np.random.default_rng(start).bytes(count * bits // 8), np.uint8).reshape(count, -1).copy()
        for row in sorted(rows.keys() & range(start, start + count)):
            block[row - start] = rows[row]
        yield block


def random_blocks(n: int, bits: int) -> Iterator[np.ndarray]:
    return blocks(n, bits, {})


def compare(
    indexes: dict[str, HammingIndex], queries: np.ndarray, k: int, batch: int, seconds: float
) -> dict[str, Any]:
    """Medians in seconds of one call over `batch` queries by each method; single queries never come twice."""
    own = dict(zip(METHODS, np.split(queries, len(METHODS)), strict=True))
    for name, part in own.items():
        part = part[-batch:]
        found = [index.search(part, k) for index in (indexes["scan"], indexes[name])]
        np.testing.assert_array_equal(found[1].distances, found[0].distances)
        np.testing.assert_array_equal(found[1].ids, found[0].ids)
    parts = {name: itertools.cycle(range(0, QUERIES, batch)) for name in indexes}
    times = kit.interleave(
        {
            name: lambda index=index, name=name: index.search(own[name][next(parts[name]) :][:batch], k)
            for name, index in indexes.items()
        },
        rounds=QUERIES - 2 if batch == 1 else 7,
        seconds=seconds,
    )
    result: dict[str, Any] = {name: kit.median(times[name]) for name in indexes}
    ratios = [scan / auto for scan, auto in zip(times["scan"], times["auto"], strict=True)]
    return {**result, "scan/mih": result["scan"] / result["mih"], "scan/auto": kit.median(ratios)}


def multi_hash(codes: np.ndarray, queries: np.ndarray, bits: int) -> dict[str, Any]:
    """faiss IndexBinaryMultiHash on the same codes, one query at a time, with the share of true neighbours it finds."""
    tables = len(substrings(bits, len(codes)))
    start = time.perf_counter()
    other = faiss.IndexBinaryMultiHash(bits, tables, bits // tables)
    other.nflip = max(1, bits // 10 // tables)
    other.add(codes)
    built = time.perf_counter() - start
    flat = faiss.IndexBinaryFlat(bits)
    flat.add(codes)
    expected = hamming_topk(queries, codes, MOST).distances
    times, flat_times, found = [], [], 0.0
    for query, right in zip(queries, expected, strict=True):
        start = time.perf_counter()
        distances, _ = other.search(query[None], MOST)
        times.append(time.perf_counter() - start)
        found += float((distances[0] == right).mean()) / len(queries)
        start = time.perf_counter()
        flat.search(query[None], MOST)
        flat_times.append(time.perf_counter() - start)
    flat_seconds = kit.median(flat_times)
    seconds = {"seconds": kit.median(times), "flat_seconds": flat_seconds, "build_seconds": built}
    return {**seconds, "n": len(codes), "found": found, "nflip": other.nflip}


def build(folder: Path, n: int, bits: int) -> dict[str, Any]:
    """Codes and tables; what is there already is left as it is."""
    _, rows = plant(np.random.default_rng(bits), n, bits)
    result: dict[str, Any] = {}
    if not (folder / "manifest.json").exists():
        start = time.perf_counter()
        HammingIndex.build(folder, blocks(n, bits, rows), bits=bits).close()
        result["build_seconds"] = time.perf_counter() - start
    if not list(folder.glob("mih-*")):
        start = time.perf_counter()
        with HammingIndex.open(folder, writable=True) as index:
            index.build_mih(progress=None)
        result["tables_seconds"] = time.perf_counter() - start
    sizes = {kind: sum(file.stat().st_size for file in folder.glob(f"{kind}-*")) for kind in ("segment", "mih")}
    return {**result, "codes_bytes": sizes["segment"], "tables_bytes": sizes["mih"], "substrings": substrings(bits, n)}


def search(folder: Path, n: int, bits: int, seconds: float) -> dict[str, Any]:
    queries, _ = plant(np.random.default_rng(bits), n, bits)
    for file in sorted(folder.glob("mih-*")) + sorted(
        folder.glob("segment-*")
    ):  # into the page cache, as far as it fits
        with open(file, "rb") as opened:
            while opened.read(1 << 24):
                pass
    result: dict[str, Any] = {"searches": []}
    for kind, own in queries.items():
        for k, batch in ((1, 1), (MOST, 1), (MOST, QUERIES)):
            start = time.perf_counter()
            indexes = {method: HammingIndex.open(folder, method=method) for method in METHODS}
            result["open_seconds"] = (time.perf_counter() - start) / len(METHODS)
            row = {"queries": kind, "k": k, "batch": batch, **compare(indexes, own, k, batch, seconds)}
            result["searches"].append(row)
            print(row, flush=True)
    return result


def peer(n: int, bits: int, most: int) -> dict[str, Any]:
    """At `most` codes where there are more."""
    if faiss is None:
        return {}
    faiss.omp_set_num_threads(torch.get_num_threads())
    n = min(n, most)
    queries, rows = plant(np.random.default_rng(bits), n, bits)
    own = queries[f"planted at {bits // 10}"]
    return {"faiss": multi_hash(np.concatenate(list(blocks(n, bits, rows))), own, bits)}


def alike(rng: np.random.Generator, n: int, bits: int, kind: str) -> np.ndarray:
    """Random codes; clusters of a thousand with one bit in 16 changed; or 5,000 different codes, many times each."""
    width = bits // 8
    if kind == "random":
        return np.frombuffer(rng.bytes(n * width), np.uint8).reshape(n, width)
    centres = rng.integers(0, 256, (5000 if kind == "few" else max(10, n // 1000), width), dtype=np.uint8)
    codes = centres[rng.integers(0, len(centres), n)]
    if kind == "clustered":
        for block in np.array_split(codes, max(1, n >> 20)):
            block ^= np.bitwise_and.reduce(rng.integers(0, 256, (4, *block.shape), dtype=np.uint8))
    return codes


def pairs(
    indexes: dict[str, HammingIndex], codes: np.ndarray, rng: np.random.Generator, what: dict[str, Any], calls: int
) -> dict[str, float]:
    """Medians of calls that take turns, in seconds; no query comes twice."""
    bits, distance, batch = what["bits"], what["distance"], what["batch"]
    times: dict[str, list[float]] = {name: [] for name in indexes}
    for number in range(calls):
        queries = rng.integers(0, 256, (batch, bits // 8), dtype=np.uint8)
        if distance is not None:
            flips = rng.permuted(np.arange(bits) < distance + np.zeros((batch, 1)), axis=1)
            queries = codes[rng.integers(0, len(codes), batch)] ^ np.packbits(flips, axis=1)
        for name in sorted(indexes, reverse=number % 2 == 0):
            start = time.perf_counter()
            indexes[name].search(queries, what["k"])
            times[name].append(time.perf_counter() - start)
    return {name: kit.median(values) for name, values in times.items()}


def grid(folder: Path, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Automatic mode against the scan for every combination; one above 1.1 is tried again, twice, the lowest counts."""
    lines = []
    for n, bits, kind in itertools.product(options.grid_n, options.grid_bits, ("random", "clustered", "few")):
        rng = np.random.default_rng(bits)
        codes = alike(rng, int(n), bits, kind)
        HammingIndex.build(folder, codes, overwrite=True, mih=True, progress=False).close()
        for distance, k, batch in itertools.product((None, 0, bits // 16, bits // 6), (1, 10, 100), (1, 16)):
            what = {"n": int(n), "bits": bits, "codes": kind, "distance": distance, "k": k, "batch": batch}
            tries: list[float] = []
            while not tries or (min(tries) > 1.1 and len(tries) < 3):
                indexes = {name: HammingIndex.open(folder, method=name) for name in ("scan", "auto")}
                for index in indexes.values():  # maps the codes, nothing else
                    index.search(codes[:1], 1000)
                times = pairs(indexes, codes, rng, what, options.grid_calls)
                tries.append(times["auto"] / times["scan"])
            lines.append({**what, "auto/scan": min(tries), "tries": tries, "scan": times["scan"]})
        worst = max(line["auto/scan"] for line in lines[-24:])
        print(f"{n:.0e} {bits} bits {kind}: auto / scan at most {worst:.2f}", flush=True)
        shutil.rmtree(folder)
    return lines


def target(case: dict[str, Any], row: dict[str, Any]) -> str:
    """The issue of it: 20 times the scan for single queries with near neighbours, at 1e8 codes and more."""
    if row["batch"] > 1 or row["queries"] == "random" or case["n"] < 1e8:
        return ""
    return "yes" if min(row["scan/mih"], row["scan/auto"]) >= 20 else "no"


def table(result: dict[str, Any]) -> str:
    """The results as Markdown."""
    machine = result["machine"]
    lines = [f"{machine['processor']}, {machine['cores']} cores, {result['threads']} threads", ""]
    cases = [case for case in result["cases"].values() if "searches" in case]
    if cases:
        lines += ["| n | bits | queries | k | batch | scan ms | mih ms | auto ms | scan / mih | scan / auto | >= 20 |"]
        lines += ["|---|---|---|---|---|---|---|---|---|---|---|"]
    for case in cases:
        for row in case["searches"]:
            times = " | ".join(f"{row[method] * 1e3:.3g}" for method in METHODS)
            lines.append(
                f"| {case['n']:.0e} | {case['bits']} | {row['queries']} | {row['k']} | {row['batch']} | {times} "
                f"| {row['scan/mih']:.3g} | {row['scan/auto']:.3g} | {target(case, row)} |"
            )
    if result["cases"]:
        lines += ["", "| n | bits | tables | bytes a code | tables, bytes a code | GB on disk | building them, s "]
        lines[-1] += "| faiss MultiHash | faiss Flat |"
        lines.append("|---|---|---|---|---|---|---|---|---|")
    for case in result["cases"].values():
        known = case.get("faiss")
        texts = ("-", "-")
        if known:
            texts = (
                f"{known['seconds'] * 1e3:.3g} ms, {known['found']:.0%} found",
                f"{known['flat_seconds'] * 1e3:.3g} ms",
            )
            if known["n"] != case["n"]:
                texts = (f"{texts[0]} ({known['n']:.0e} codes)", f"{texts[1]} ({known['n']:.0e} codes)")
        if "tables_bytes" in case:
            codes, tables = case["codes_bytes"], case["tables_bytes"]
            lines.append(
                f"| {case['n']:.0e} | {case['bits']} | {len(case['substrings'])} | {codes / case['n']:.1f} "
                f"| {tables / case['n']:.1f} | {(codes + tables) / 1e9:.1f} "
                f"| {case.get('tables_seconds', float('nan')):.0f} | {texts[0]} | {texts[1]} |"
            )
    if "grid" in result:
        worst = max(result["grid"], key=lambda line: line["auto/scan"])
        over = sum(line["auto/scan"] > 1.2 for line in result["grid"])
        words = ", ".join(f"{name} {worst[name]}" for name in ("n", "bits", "codes", "distance", "k", "batch"))
        lines += ["", f"Automatic mode against the scan, {len(result['grid'])} combinations, target at most 1.2: "]
        lines[-1] += f"at most {worst['auto/scan']:.2f} ({words}), {over} above 1.2."
    if "auto" in result:
        lines += mih_auto.table(result["auto"])
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=float, nargs="+", default=[1e8])
    parser.add_argument("--bits", type=int, nargs="+", default=[64, 128])
    parser.add_argument(
        "--parts", nargs="+", choices=("build", "search", "peer", "grid", "auto"), default=["build", "search", "peer"]
    )
    parser.add_argument("--folder", type=Path, help="where indexes go; default: a new folder for temporary files")
    parser.add_argument("--keep", action="store_true", help="leave them there, for other parts")
    parser.add_argument("--faiss", type=float, default=1e7, help="most codes that the peers are built for")
    parser.add_argument("--seconds", type=float, default=20.0, help="for each line of the table")
    parser.add_argument("--grid-n", type=float, nargs="+", default=[1e5, 1e6, 1e7])
    parser.add_argument("--grid-bits", type=int, nargs="+", default=[64, 128, 256])
    parser.add_argument("--grid-calls", type=int, default=31, help="for each combination")
    parser.add_argument("--largest", type=float, default=5e7, help="codes of the largest index that is graded")
    parser.add_argument("--line-seconds", type=float, default=5.0, help="for each line that is graded")
    parser.add_argument("--look-ups", type=float, default=1e6)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--name", default="mih")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    file = kit.RESULTS / f"{options.name}.json"
    result = json.loads(file.read_text()) if file.exists() else {}
    if not isinstance(result.get("cases"), dict):
        result = {"cases": {}}
    if options.parts != ["auto"] or "machine" not in result:
        result |= {"machine": kit.machine(), "threads": options.threads}
    place = options.folder or Path(tempfile.mkdtemp(prefix="mih-"))

    def write() -> None:
        kit.write_json(options.name, result)
        file.with_suffix(".md").write_text(table(result))

    if "grid" in options.parts:
        again = set(itertools.product(map(int, options.grid_n), options.grid_bits))
        kept = [line for line in result.get("grid", []) if (line["n"], line["bits"]) not in again]
        result["grid"] = kept + grid(place / "grid", options)
        write()
    if "auto" in options.parts:
        graded: dict[str, Any] = {"machine": kit.machine(), "threads": options.threads}
        graded |= {"cores": os.cpu_count(), "load": os.getloadavg()[0]}
        graded["lines"] = mih_auto.grade(place, int(options.largest), options.line_seconds, random_blocks)
        result["auto"] = graded
        write()
        graded["look_ups"] = mih_auto.look_ups(place, int(options.look_ups), random_blocks)
        graded["threads_of_python"] = mih_auto.threads(place, 1.0, random_blocks)
        write()
        for folder in [] if options.keep else place.glob("auto-*"):
            shutil.rmtree(folder)
    for n, bits in itertools.product(map(int, options.n), options.bits):
        if not {"build", "search", "peer"} & set(options.parts):
            break
        folder = place / f"{n}-{bits}"
        case = result["cases"].setdefault(f"{n}-{bits}", {})
        case |= {"n": n, "bits": bits}
        try:
            if "build" in options.parts:
                case |= build(folder, n, bits)
                write()
            if "search" in options.parts:
                case |= search(folder, n, bits, options.seconds)
                write()
            if "peer" in options.parts:
                case |= peer(n, bits, int(options.faiss))
                write()
        finally:
            if not options.keep:
                shutil.rmtree(folder, ignore_errors=True)
    print(table(result))


if __name__ == "__main__":
    main()
