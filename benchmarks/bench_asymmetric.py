"""asymmetric_topk on the CPU against the Hamming scan, a plain read, faiss RaBitQ and a float product, in turns.

    python benchmarks/bench_asymmetric.py [--codes 1000000] [--queries 128] [--bits 64 128 256 512 1024] [--name NAME]

Writes benchmarks/results/NAME.json and NAME.md, tables made of it. Results are checked before anything is timed. Each
round runs every contender once; a ratio is the median over rounds of time / time of the other in that round. "l1" has
queries in [0, 1], "dot" normal ones; "scaled" is "dot" with a code_scale. faiss searches vectors that its own RaBitQ
has encoded to as many bits: IndexRaBitQ with queries of 1, 4 and 8 bits, and IndexRaBitQFastScan; the fastest counts.
The float product multiplies queries by the bits as floats, a block at a time, and takes the k largest. --clock cpu
--threads 1 counts seconds of this process alone, for a machine that others use too.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable
from typing import Any

import kit
import numpy as np
import torch
from bench_hamming_cpu import random_codes

import fasthash
from fasthash import _ops, reference

try:
    import faiss
except ImportError:
    faiss = None

PRODUCT_CODES = 20_000  # of a block of the float product: 20 MB of floats at 256 bits
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
CHECKED = 2  # queries that are compared with the oracle

Calls = dict[str, Callable[[], Any]]


def random_queries(count: int, bits: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(bits)
    return rng.random((count, bits), np.float32), rng.standard_normal((count, bits), np.float32)


def random_scale(count: int) -> np.ndarray:
    return (1 + 0.1 * np.random.default_rng(5).standard_normal(count, np.float32)).clip(0.5, 2).astype(np.float16)


def check(queries: np.ndarray, database: np.ndarray, k: int, **options: Any) -> None:
    """The first queries' results on the first codes are the oracle's."""
    few, some = queries[:CHECKED], database[:10_000]
    scale = options.pop("code_scale", None)
    given = None if scale is None else torch.from_numpy(scale[:10_000])
    wanted = reference.asymmetric_topk(torch.from_numpy(few), torch.from_numpy(some), k, code_scale=given, **options)
    found = fasthash.asymmetric_topk(few, some, k, code_scale=None if scale is None else scale[:10_000], **options)
    if not (np.array_equal(found.distances, wanted[0]) and np.array_equal(found.ids, wanted[1])):
        raise SystemExit(f"asymmetric_topk: results of {options} differ from the oracle's")


def searches(queries: int, bits: int, database: np.ndarray, k: int) -> Calls:
    """Our searches of these codes, and the Hamming scan."""
    unit, normal = random_queries(queries, bits)
    scale = random_scale(len(database))
    check(unit, database, k)
    check(normal, database, k, metric="dot")
    check(normal, database, k, metric="dot", code_scale=scale)
    packed = fasthash.pack_bits(unit)
    return {
        "hamming": lambda: fasthash.hamming_topk(packed, database, k),
        "l1": lambda: fasthash.asymmetric_topk(unit, database, k),
        "dot": lambda: fasthash.asymmetric_topk(normal, database, k, metric="dot"),
        "scaled": lambda: fasthash.asymmetric_topk(normal, database, k, metric="dot", code_scale=scale),
    }


def ratios(times: dict[str, list[float]], other: str) -> dict[str, float]:
    """Of each contender, time / time of the other."""
    return {
        name: statistics.median(a / b for a, b in zip(spent, times[other], strict=False))
        for name, spent in times.items()
        if name != other
    }


def batch(args: argparse.Namespace, isa: str, bits: int, threads: int) -> dict[str, Any]:
    """Many queries at once, in units of the Hamming scan."""
    database = random_codes(args.codes, bits // 8, 0).copy()
    _ops.set_isa(isa)
    torch.set_num_threads(threads)
    times = kit.interleave(
        searches(args.queries, bits, database, args.k), args.rounds, args.seconds, CLOCKS[args.clock]
    )
    _ops.set_isa("")
    row = {
        "isa": isa, "bits": bits, "threads": threads,
        "pairs_per_second": {name: args.queries * args.codes / kit.median(spent) for name, spent in times.items()},
        "times_hamming": ratios(times, "hamming"),
    }  # fmt: skip
    print(f"batch {isa} {bits} bits, {threads} threads: {row['times_hamming']}", flush=True)
    return row


def single(args: argparse.Namespace, isa: str, bits: int, threads: int) -> dict[str, Any]:
    """One query against codes much larger than the caches: the share of a plain read's bandwidth."""
    database = random_codes(args.single_bytes * 8 // bits, bits // 8, 2).copy()
    _ops.set_isa(isa)
    torch.set_num_threads(threads)
    calls = searches(1, bits, database, args.k)
    calls["read"] = kit.reader(database, threads)
    times = kit.interleave(calls, args.rounds, args.seconds, CLOCKS[args.clock])
    _ops.set_isa("")
    row = {
        "isa": isa, "bits": bits, "threads": threads,
        "bytes_per_second": {name: database.nbytes / kit.median(spent) for name, spent in times.items()},
        "share_of_read": {name: 1 / ratio for name, ratio in ratios(times, "read").items()},
    }  # fmt: skip
    print(f"single {isa} {bits} bits, {threads} threads: {row['share_of_read']}", flush=True)
    return row


def faiss_searches(vectors: np.ndarray, queries: np.ndarray, k: int, threads: int) -> Calls:
    """RaBitQ of faiss over these vectors, by inner product."""
    calls: Calls = {}
    if faiss is None:
        return calls
    plain = faiss.IndexRaBitQ(vectors.shape[1], faiss.METRIC_INNER_PRODUCT)
    fast = faiss.IndexRaBitQFastScan(vectors.shape[1], faiss.METRIC_INNER_PRODUCT)
    for index in (plain, fast):
        index.train(vectors[:10_000])
        index.add(vectors)

    def search(index: Any, query_bits: int | None) -> Any:
        faiss.omp_set_num_threads(threads)
        if query_bits is not None:
            index.qb = query_bits
        return index.search(queries, k)

    for query_bits in (1, 4, 8):
        calls[f"faiss IndexRaBitQ, queries of {query_bits} bits"] = lambda b=query_bits: search(plain, b)
    calls["faiss IndexRaBitQFastScan"] = lambda: search(fast, None)
    return calls


def product(signs: torch.Tensor, queries: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The k largest inner products with rows of -1 and 1, by float products a block at a time."""
    found = []
    for start in range(0, len(signs), PRODUCT_CODES):
        values, rows = (queries @ signs[start : start + PRODUCT_CODES].T).topk(k)
        found.append((values, rows + start))
    values, order = torch.cat([own for own, _ in found], 1).topk(k)
    return values, torch.cat([own for _, own in found], 1).gather(1, order)


def peers(args: argparse.Namespace, bits: int, threads: int) -> dict[str, Any]:
    """Other ways to find the same neighbours, in units of our search with scales."""
    torch.set_num_threads(threads)
    vectors = np.random.default_rng(7).standard_normal((args.peer_codes, bits), np.float32)
    codes = fasthash.pack_bits(vectors, threshold=0)
    signs = torch.where(torch.from_numpy(vectors) > 0, 1.0, -1.0)
    scale = (np.square(vectors).sum(1) / np.abs(vectors).sum(1)).astype(np.float16)
    queries = random_queries(args.queries, bits)[1]
    calls: Calls = {
        "fasthash": lambda: fasthash.asymmetric_topk(queries, codes, args.k, metric="dot", code_scale=scale),
        "float product": lambda: product(signs, torch.from_numpy(queries), args.k),
        **faiss_searches(vectors, queries, args.k, threads),
    }
    plain = fasthash.asymmetric_topk(queries, codes, args.k, metric="dot")
    if not np.allclose(product(signs, torch.from_numpy(queries), args.k)[0], -plain.distances, atol=1e-2):
        raise SystemExit("asymmetric_topk: distances differ from those of the float product")
    times = kit.interleave(calls, args.rounds, args.seconds, CLOCKS[args.clock])
    row = {"bits": bits, "threads": threads, "codes": args.peer_codes, "times_ours": ratios(times, "fasthash")}
    fastest = [ratio for name, ratio in row["times_ours"].items() if name.startswith("faiss")]
    row["times_faiss"] = min(fastest) if fastest else None
    print(f"peers {bits} bits, {threads} threads: {row['times_ours']}", flush=True)
    return row


def tables(result: dict[str, Any]) -> str:
    """The results in Markdown."""
    arguments, machine = result["arguments"], result["machine"]
    lines = [
        f"{machine['processor']}, {machine['cores']} cores, load {machine['load_before']:.1f} before; medians of "
        f"interleaved runs, by {'CPU' if arguments['clock'] == 'cpu' else 'wall'} time. {arguments['queries']} "
        f"queries, {arguments['codes']:,} random codes, k = {arguments['k']}.",
        "",
        "Many queries: times the Hamming scan of the same codes.",
        "",
        "| instruction set | bits | threads | l1, 1e9 pairs a second | l1 | dot | dot with code_scale |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in result["batch"]:
        times, rate = row["times_hamming"], row["pairs_per_second"]["l1"] / 1e9
        values = " | ".join(f"{times[name]:.2f}" for name in ("l1", "dot", "scaled"))
        lines.append(f"| {row['isa']} | {row['bits']} | {row['threads']} | {rate:.2f} | {values} |")
    lines += [
        "", "One query: the share of a plain read's bandwidth.", "",
        "| instruction set | bits | threads | GB/s of a plain read | Hamming scan | l1 | dot | dot with code_scale |",
        "|---|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    for row in result["single"]:
        share, read = row["share_of_read"], row["bytes_per_second"]["read"] / 1e9
        values = " | ".join(f"{share[name]:.2f}" for name in ("hamming", "l1", "dot", "scaled"))
        lines.append(f"| {row['isa']} | {row['bits']} | {row['threads']} | {read:.1f} | {values} |")
    names = list(result["peers"][0]["times_ours"])
    lines += [
        "", f"Others, {arguments['peer_codes']:,} codes: their time in units of our search with code_scale.", "",
        f"| bits | threads | {' | '.join(names)} |", f"|---|---|{'---|' * len(names)}",
    ]  # fmt: skip
    for row in result["peers"]:
        values = " | ".join(f"{row['times_ours'][name]:.1f}" for name in names)
        lines.append(f"| {row['bits']} | {row['threads']} | {values} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--codes", type=int, default=1_000_000)
    parser.add_argument("--queries", type=int, default=128)
    parser.add_argument("--k", type=int, default=10)
    parser.add_argument("--bits", type=int, nargs="+", default=[64, 128, 256, 512, 1024])
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="all of them by default")
    parser.add_argument("--single-bytes", type=int, default=1 << 28, help="codes of the one-query runs")
    parser.add_argument("--peer-codes", type=int, default=200_000)
    parser.add_argument("--peer-bits", type=int, nargs="+", default=[256, 1024])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=60.0, help="no new round of a row after so many")
    parser.add_argument("--clock", choices=sorted(CLOCKS), default="wall")
    parser.add_argument("--name", default="asymmetric")
    args = parser.parse_args()
    if args.clock == "cpu" and args.threads != 1:
        parser.error("--clock cpu adds the seconds of all threads up: it needs --threads 1")

    result: dict[str, Any] = {"machine": kit.machine(), "arguments": vars(args)}
    sets = [isa for isa in reversed(_ops.isa_names()) if isa != "scalar"]
    counts = sorted({1, args.threads})
    result["batch"] = [batch(args, isa, bits, count) for isa in sets for bits in args.bits for count in counts]
    wide = [bits for bits in args.bits if bits >= 128]
    result["single"] = [single(args, isa, bits, count) for isa in sets for bits in wide for count in counts]
    result["peers"] = [peers(args, bits, count) for bits in args.peer_bits for count in counts]
    print(f"wrote {kit.write_json(args.name, result)}")
    (kit.RESULTS / f"{args.name}.md").write_text(tables(result))


if __name__ == "__main__":
    main()
