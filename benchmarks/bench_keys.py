"""Keys of an index on disk: the size of its files, building from a Parquet column, look-ups, changes.

    python benchmarks/bench_keys.py [--n 1e7] [--folder FOLDER] [--name keys]

The keys are random UUIDs, 36 characters each, beside random codes of 64 bits. Look-ups are checked against the rows
that the keys were made of, then timed: batches of 100,000 keys, and keys one at a time, known ones and unknown ones, no
key twice in a batch. The same codes without keys are built and searched in turns, to show what keys cost a search.
Needs pyarrow, and 2 GB of disk at 1e7. Writes benchmarks/results/NAME.json and NAME.md (some 3 minutes at 1e7). Memory
is RssAnon of /proc/self/status: what the process itself holds, without the pages of mapped files.
"""

from __future__ import annotations

import argparse
import itertools
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import kit
import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import torch
from bench_billion import Peak
from bench_cold import seconds

from fasthash import HammingIndex

BLOCK = 1 << 18
BATCH = 100_000  # look-ups
SINGLE = 2_000
BITS, LENGTH = 64, 36
MIB = 1 << 20
DIGITS = np.frombuffer(b"0123456789abcdef", np.uint8)


def texts(block: int) -> np.ndarray:
    """The keys of a block of rows as bytes, uint8 [BLOCK, 36]: a function of its number."""
    random = np.frombuffer(np.random.default_rng(block).bytes(16 * BLOCK), np.uint8).reshape(BLOCK, 16)
    digits = DIGITS[np.stack([random >> 4, random & 15], 2).reshape(BLOCK, 32)]
    hyphen = np.full((BLOCK, 1), ord("-"), np.uint8)
    ends = (0, 8, 12, 16, 20, 32)
    parts = [part for a, b in itertools.pairwise(ends) for part in (digits[:, a:b], hyphen)]
    return np.concatenate(parts[:-1], 1)


def codes_of(block: int) -> np.ndarray:
    return np.frombuffer(np.random.default_rng([block, 1]).bytes(8 * BLOCK), np.uint8).reshape(BLOCK, 8)


def spans(n: int) -> Iterator[tuple[int, int]]:
    """Blocks and how many of their rows there are."""
    return ((start // BLOCK, min(BLOCK, n - start)) for start in range(0, n, BLOCK))


def write_table(path: Path, n: int) -> None:
    schema = pa.schema([("code", pa.binary(8)), ("name", pa.string())])
    with parquet.ParquetWriter(path, schema) as writer:
        for block, count in spans(n):
            offsets = np.arange(0, LENGTH * (count + 1), LENGTH, dtype=np.int32)
            names = pa.StringArray.from_buffers(count, pa.py_buffer(offsets), pa.py_buffer(texts(block)[:count].copy()))
            codes = pa.FixedSizeBinaryArray.from_buffers(
                pa.binary(8), count, [None, pa.py_buffer(codes_of(block)[:count].copy())]
            )
            writer.write_batch(pa.record_batch([codes, names], schema=schema))


def sample(n: int, count: int, seed: int) -> tuple[list[str], np.ndarray]:
    """Keys of random rows, and the rows, each once."""
    rng, keys, rows = np.random.default_rng(seed), [], []
    blocks = rng.permutation(n // BLOCK or 1)[:20]
    for block in blocks.tolist():
        held = min(BLOCK, n - block * BLOCK)
        own = rng.permutation(held)[: -(-count // len(blocks))]
        keys += [row.tobytes().decode() for row in texts(block)[own]]
        rows.append(own + block * BLOCK)
    order = rng.permutation(len(keys))[:count]
    return [keys[i] for i in order], np.concatenate(rows)[order]


def rate(count: int, calls: list[Callable[[], Any]]) -> float:
    """Keys a second, the median of calls of `count` keys each."""
    return count / kit.median([seconds(call) for call in calls])


def look_ups(index: HammingIndex, n: int) -> dict[str, float]:
    """Keys a second."""
    batches = [sample(n, min(BATCH, n), seed) for seed in range(5)]
    for keys, rows in batches:
        if not np.array_equal(index.ids_of(keys), rows) or index.keys_of(rows[:1000]).tolist() != keys[:1000]:
            raise SystemExit("bench_keys: a key was not found, or has another id")
    unknown = [[f"{key[:-1]}x" for key in keys] for keys, _ in batches]
    if (index.ids_of(unknown[0]) >= 0).any():
        raise SystemExit("bench_keys: an unknown key was found")
    count = len(batches[0][0])
    few = [keys[:SINGLE] for keys, _ in batches]
    return {
        "batch": rate(count, [lambda keys=keys: index.ids_of(keys) for keys, _ in batches]),
        "batch_unknown": rate(count, [lambda keys=keys: index.ids_of(keys) for keys in unknown]),
        "batch_get": rate(count, [lambda keys=keys: index.get(keys=keys) for keys, _ in batches]),
        "keys_of_ids": rate(count, [lambda rows=rows: index.keys_of(rows) for _, rows in batches]),
        "single_in": rate(SINGLE, [lambda keys=keys: [key in index for key in keys] for keys in few]),
        "single_get": rate(SINGLE, [lambda keys=keys: [index.get(keys=[key]) for key in keys] for keys in few]),
    }


def cold(folder: Path, n: int) -> dict[str, float]:
    """Seconds of the first look-ups of an index of which nothing is cached, one at a time."""
    keys, _ = sample(n, 20, 99)
    for file in folder.iterdir():
        descriptor = os.open(file, os.O_RDONLY)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)
    index = HammingIndex.open(folder)
    times = []
    for key in keys:
        start = time.perf_counter()
        if key not in index:
            raise SystemExit("bench_keys: a key was not found")
        times.append(time.perf_counter() - start)
    return {"first_seconds": times[0], "seconds": kit.median(times)}


def searches(keyed: HammingIndex, plain: HammingIndex, n: int) -> dict[str, float]:
    """What keys cost a search: seconds of 100 queries, k = 10, with keys read or not, and without any."""
    queries = codes_of(0)[:100] ^ 1
    if not np.array_equal(keyed.search(queries, 10).ids, plain.search(queries, 10).ids):
        raise SystemExit("bench_keys: an index with keys finds other codes")
    times = kit.interleave(
        {
            "without_keys": lambda: plain.search(queries, 10),
            "keys_not_read": lambda: keyed.search(queries, 10),
            "keys_read": lambda: keyed.search(queries, 10).keys,
        },
        9,
        60,
    )
    return {name: kit.median(values) for name, values in times.items()}


def built(place: Path, n: int) -> dict[str, Any]:
    """Building from a table, with keys and without, and what is searched then."""
    table, folder = place / "rows.parquet", place / "keyed"
    write_table(table, n)
    result: dict[str, Any] = {}
    with Peak() as peak:
        index = HammingIndex.build(folder, table, key_column="name", progress=False)
    result["build"] = {**peak.result(), "segments": len(list(folder.glob("segment-*")))}
    with Peak() as peak:
        plain = HammingIndex.build(place / "plain", table, column="code", progress=False)
    result["build_without_keys"] = peak.result()
    sizes = {path.name: sum(file.stat().st_size for file in path.iterdir()) for path in (folder, place / "plain")}
    result["disk_bytes"] = {"with_keys": sizes["keyed"], "without": sizes["plain"]}
    result["open_seconds"] = kit.median([seconds(lambda: HammingIndex.open(folder)) for _ in range(9)])
    result["look_ups"] = look_ups(index, n)
    result["search"] = searches(index, plain, n)
    return result


def changed(folder: Path, n: int) -> dict[str, Any]:
    """Changes of the folder, and a check of every byte."""
    result: dict[str, Any] = {}
    with HammingIndex.open(folder, writable=True) as writer:
        with Peak() as peak:
            writer.compact()
        result["compact"] = peak.result()
        result["look_ups_compacted"] = look_ups(writer, n)
        added = [f"new/{number}" for number in range(1000)]
        result["add_1000_seconds"] = seconds(lambda: writer.add(codes_of(0)[:1000], keys=added))
        result["replace_1000_seconds"] = seconds(lambda: writer.add(codes_of(1)[:1000], keys=added, replace=True))
        result["remove_1000_seconds"] = seconds(lambda: writer.remove(keys=added))
        with Peak() as peak:
            writer.verify()
        result["verify"] = peak.result()
    return result


def measure(place: Path, n: int) -> dict[str, Any]:
    """All of it; what one part has mapped is let go before the next."""
    result = built(place, n)
    result |= changed(place / "keyed", n)
    return {**result, "cold": cold(place / "keyed", n)}


def table(result: dict[str, Any]) -> str:
    """The results in Markdown."""
    build, plain, disk = result["build"], result["build_without_keys"], result["disk_bytes"]
    search = result["search"]
    lines = [
        (
            "files, with keys and without",
            f"{disk['with_keys'] / MIB:,.0f} and {disk['without'] / MIB:,.0f} MiB; at most 1,024",
        ),
        (
            "build from a Parquet column",
            f"{build['seconds']:.0f} s ({plain['seconds']:.0f} s without keys), {build['segments']} segments, peak "
            f"RssAnon {build['peak_anon_mib']:.0f} MiB ({plain['peak_anon_mib']:.0f} MiB without keys)",
        ),
        ("open", f"{1e3 * result['open_seconds']:.1f} ms"),
    ]
    for name, what in (("look_ups", f"{build['segments']} segments"), ("look_ups_compacted", "compacted")):
        own = result[name]
        lines += [
            (
                f"look-ups a second, {what}, batches of {BATCH:,}",
                f"{own['batch']:,.0f}; unknown keys {own['batch_unknown']:,.0f}; with codes {own['batch_get']:,.0f}",
            ),
            (
                f"look-ups a second, {what}, one at a time",
                f"`key in index` {own['single_in']:,.0f}; `get(keys=[key])` {own['single_get']:,.0f}",
            ),
            (f"keys of ids a second, {what}, batches of {BATCH:,}", f"{own['keys_of_ids']:,.0f}"),
        ]
    lines += [
        (
            "100 queries, k = 10",
            f"{1e3 * search['without_keys']:.0f} ms without keys, {1e3 * search['keys_not_read']:.0f} ms with keys, "
            f"{1e3 * search['keys_read']:.0f} ms where they are read",
        ),
        ("compact", f"{result['compact']['seconds']:.0f} s, peak RssAnon {result['compact']['peak_anon_mib']:.0f} MiB"),
        (
            "1,000 codes, durable: add, replace, remove by key",
            ", ".join(f"{1e3 * result[f'{what}_1000_seconds']:.0f} ms" for what in ("add", "replace", "remove")),
        ),
        ("verify", f"{result['verify']['seconds']:.0f} s, peak RssAnon {result['verify']['peak_anon_mib']:.0f} MiB"),
        (
            "look-up, nothing cached",
            f"first {1e3 * result['cold']['first_seconds']:.1f} ms, then {1e3 * result['cold']['seconds']:.2f} ms each",
        ),
    ]
    head = f"{result['machine']['processor']}, {result['machine']['cores']} cores, {result['threads']} threads"
    body = "\n".join(f"| {what} | {value} |" for what, value in lines)
    return f"| {result['n']:,} keys of {LENGTH} characters | {head} |\n|---|---|\n{body}\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=lambda text: int(float(text)), default=10_000_000)
    parser.add_argument("--folder", type=Path, help="where the indexes are made (default: a temporary folder)")
    parser.add_argument("--name", default="keys")
    options = parser.parse_args()
    place = Path(tempfile.mkdtemp(prefix="keys-", dir=options.folder))
    machine = kit.machine()
    try:
        result = {"n": options.n, "bits": BITS, "threads": torch.get_num_threads(), **measure(place, options.n)}
    finally:
        shutil.rmtree(place, ignore_errors=True)
    result["machine"] = machine
    kit.write_json(options.name, result)
    (kit.RESULTS / f"{options.name}.md").write_text(table(result))
    print(table(result))


if __name__ == "__main__":
    main()
