"""Exact Hamming search on the CPU against faiss-cpu (IndexBinaryFlat) and usearch (exact), interleaved in one run.

    python benchmarks/bench_hamming_cpu.py [--codes 4000000] [--queries 128] [--bits 64 128 256 512 1024] [--name NAME]

Writes benchmarks/results/NAME.json and NAME.md, tables made of it. Results are checked before anything is timed. Peers
that are not installed are left out. "popcount_share" is the share of the bound of one VPOPCNTQ (8 words of 64 bits) a
cycle at --ghz: give the clock that the processor holds under load (a processor with two such units can pass 1).
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import kit
import numpy as np
import torch

import fasthash
from fasthash import _ops

try:
    import faiss
except ImportError:
    faiss = None
try:
    from usearch import index as usearch
except ImportError:
    usearch = None


@contextmanager
def threads(count: int) -> Iterator[None]:
    """torch and faiss at `count` threads."""
    torch.set_num_threads(count)
    if faiss is not None:
        faiss.omp_set_num_threads(count)
    yield


def random_codes(count: int, width: int, seed: int) -> np.ndarray:
    return np.frombuffer(np.random.default_rng(seed).bytes(count * width), dtype=np.uint8).reshape(count, width)


USEARCH_QUERIES = 2  # its exact search takes hundreds of times as long, and as long for each query


def peers(queries: np.ndarray, database: np.ndarray, k: int, count: int) -> dict[str, Callable[[], Any]]:
    """Searches by other libraries, each giving distances [Q, k] first, at `count` threads; usearch of few queries."""
    found: dict[str, Callable[[], Any]] = {}
    if faiss is not None:
        flat = faiss.IndexBinaryFlat(8 * database.shape[1])
        flat.add(database)

        def search_faiss() -> Any:
            faiss.omp_set_num_threads(count)
            return flat.search(queries, k)

        found[f"faiss_{count}"] = search_faiss
    if usearch is not None:

        def search_usearch() -> Any:
            matches = usearch.search(
                database, queries[:USEARCH_QUERIES], k, usearch.MetricKind.Hamming, exact=True, threads=count
            )
            return matches.distances, matches.keys

        found[f"usearch_{count}"] = search_usearch
    return found


def check(queries: np.ndarray, database: np.ndarray, k: int, others: dict[str, Callable[[], Any]]) -> None:
    """Our distances are the peers', and our ids are at these distances, in (distance, id) order."""
    ours = fasthash.hamming_topk(queries, database, k)
    few = slice(0, 4)
    distances = np.unpackbits(queries[few, None] ^ database[ours.ids[few]], axis=-1).sum(-1)
    if not np.array_equal(distances, ours.distances[few]):
        raise SystemExit("hamming_topk: ids are not at the distances given")
    keys = ours.distances.astype(np.int64) * len(database) + ours.ids
    if not (np.diff(keys, axis=1) > 0).all():
        raise SystemExit("hamming_topk: not in (distance, id) order")
    for name, search in others.items():
        theirs = np.asarray(search()[0]).reshape(-1, k)
        if not np.array_equal(np.asarray(theirs, dtype=np.int32), ours.distances[: len(theirs)]):
            raise SystemExit(f"hamming_topk: distances differ from those of {name}")


def batch(args: argparse.Namespace, bits: int, most_threads: int) -> list[dict[str, Any]]:
    """Many queries at once, on one thread and on all; a peer's figure at all threads is that of its best count."""
    database, queries = random_codes(args.codes, bits // 8, 0), random_codes(args.queries, bits // 8, 1)
    rows = []
    for count in sorted({1, most_threads}):
        others: dict[str, Callable[[], Any]] = {}
        for peer_count in sorted({1, count}):
            others |= peers(queries, database, args.k, peer_count)
        with threads(count):
            check(queries, database, args.k, others)

        def ours(count: int = count, queries: np.ndarray = queries, database: np.ndarray = database) -> Any:
            torch.set_num_threads(count)
            return fasthash.hamming_topk(queries, database, args.k)

        times = kit.interleave({"fasthash": ours, **others}, args.rounds, args.seconds)
        asked = {name: USEARCH_QUERIES if name.startswith("usearch") else args.queries for name in times}
        pairs = {name: asked[name] * args.codes / kit.median(spent) for name, spent in times.items()}
        row: dict[str, Any] = {
            "bits": bits, "codes": args.codes, "queries": args.queries, "k": args.k, "threads": count,
            "pairs_per_second": pairs, "best_pairs_per_second": args.queries * args.codes / min(times["fasthash"]),
        }  # fmt: skip
        for peer in ("faiss", "usearch"):
            rates = [rate for name, rate in pairs.items() if name.startswith(peer)]
            if rates:
                row[f"times_{peer}"] = pairs["fasthash"] / max(rates)
        if args.ghz:
            row["popcount_share"] = pairs["fasthash"] * max(1, bits / 64) / (8e9 * args.ghz * count)
        rows.append(row)
        print(
            f"batch {bits:5d} bits {count:3d} threads {pairs['fasthash'] / 1e9:8.2f} Gpairs/s"
            + "".join(f"  {p} x{row[f'times_{p}']:.1f}" for p in ("faiss", "usearch") if f"times_{p}" in row),
            flush=True,
        )
    return rows


def single(args: argparse.Namespace, bits: int, count: int) -> dict[str, Any]:
    """One query against a database much larger than the caches: the share of the memory's read bandwidth."""
    database = random_codes(args.single_bytes * 8 // bits, bits // 8, 2)
    query = random_codes(1, bits // 8, 3)
    others = peers(query, database, args.k, count) if args.single_peers else {}
    with threads(count):
        check(query, database, args.k, others)
        torch.set_num_threads(count)
        contenders = {
            "fasthash": lambda: fasthash.hamming_topk(query, database, args.k),
            "read": kit.reader(database, count),
            **others,
        }
        times = kit.interleave(contenders, args.rounds, args.seconds)
    rates = {name: database.nbytes / kit.median(spent) for name, spent in times.items()}
    bandwidth = rates.pop("read")
    print(f"single {bits:4d} bits {rates['fasthash'] / 1e9:6.1f} GB/s of {bandwidth / 1e9:.1f}", flush=True)
    return {
        "bits": bits, "bytes": database.nbytes, "threads": count, "bytes_per_second": rates,
        "read_bandwidth": bandwidth, "bandwidth_share": rates["fasthash"] / bandwidth,
    }  # fmt: skip


def rescoring(args: argparse.Namespace, bits: int) -> dict[str, float]:
    """Seconds of a search by real-valued queries in an index, one thread: as it is, and with rescore=10."""
    index = fasthash.HammingIndex(bits)
    index.add(random_codes(args.codes, bits // 8, 0))
    queries = np.random.default_rng(1).random((args.queries, bits), dtype=np.float32)
    with threads(1):
        times = kit.interleave(
            {f"rescore = {f}": lambda f=f: index.search(queries, args.k, rescore=f) for f in (0, 10)},
            args.rounds,
            args.seconds,
        )
    spent = {name: kit.median(seconds) for name, seconds in times.items()}
    print(f"index {bits:5d} bits, rescore = 10: x{spent['rescore = 10'] / spent['rescore = 0']:.2f}", flush=True)
    return {"bits": bits, **spent}


def relative(args: argparse.Namespace) -> dict[str, float]:
    """Times of harder cases in units of the plain one: 64 bits, one thread, random codes, k = 10."""
    count = min(args.codes, 1_000_000)
    database, queries = random_codes(count, 8, 0), random_codes(64, 8, 1)
    order = fasthash.hamming_distances(queries[:1], database)[0].argsort(kind="stable")
    same = np.repeat(queries[:1], 64, axis=0)
    rng = np.random.default_rng(4)
    clusters = database[rng.integers(0, 50, count)].copy()
    clusters[:, 0] ^= (1 << rng.integers(0, 8, count)).astype(np.uint8)
    identical, nearer, further = np.repeat(database[:1], count, axis=0), database[order[::-1]], database[order]
    masks = {share: rng.random(count) < share for share in (0.999, 0.9, 0.5, 0.1, 0.01, 0.001)}

    def search(q: np.ndarray, d: np.ndarray, k: int = 10, mask: Any = None) -> Callable[[], Any]:
        return lambda: fasthash.hamming_topk(q, d, k, filter=mask)

    cases = {"plain": search(queries, database), "k = 1000": search(queries, database, 1000)}
    cases["2 weighted groups"] = lambda: fasthash.hamming_topk(queries, database, 10, bit_weights=[(32, 3), (32, 1)])
    cases |= {"identical": search(queries, identical), "clusters": search(queries, clusters)}
    cases |= {"nearer and nearer": search(same, nearer), "further and further": search(same, further)}
    cases |= {f"filter {share}": search(queries, database, 10, mask) for share, mask in masks.items()}
    for name, ids in {"an index": None, "ids that fall": np.arange(count)[::-1].copy()}.items():
        index = fasthash.HammingIndex(64)
        index.add(database, ids=ids)
        cases[name] = lambda index=index: index.search(queries, 10)
    with threads(1):
        times = kit.interleave(cases, args.rounds, args.seconds)
    plain = kit.median(times["plain"])
    ratios = {name: kit.median(spent) / plain for name, spent in times.items()}
    for name, ratio in ratios.items():
        print(f"relative {name:22s} x{ratio:.2f}", flush=True)
    return ratios


def small(args: argparse.Namespace) -> dict[str, float]:
    """Microseconds of one call from Python: 1 query, 1,000 codes of 64 bits, k = 10."""
    database, query = random_codes(1000, 8, 0).copy(), random_codes(1, 8, 1).copy()
    tensors = torch.from_numpy(query), torch.from_numpy(database)
    calls: dict[str, Callable[[], Any]] = {
        "fasthash, torch": lambda: fasthash.hamming_topk(*tensors, 10),
        "fasthash, numpy": lambda: fasthash.hamming_topk(query, database, 10),
        **peers(query, database, 10, 1),
    }
    repeats = 1000

    def many(call: Callable[[], Any]) -> Callable[[], None]:
        def loop() -> None:
            for _ in range(repeats):
                call()

        return loop

    times = kit.interleave({name: many(call) for name, call in calls.items()}, args.rounds, args.seconds)
    spent = {name: kit.median(seconds) / repeats * 1e6 for name, seconds in times.items()}
    print("small call: " + ", ".join(f"{name} {micro:.1f} us" for name, micro in spent.items()), flush=True)
    return spent


def avx2(args: argparse.Namespace) -> list[dict[str, Any]]:
    """AVX2 forced, one thread, against the peers at their own best instruction set."""
    if "avx2" not in _ops.isa_names():
        return []
    _ops.set_isa("avx2")
    rows = [batch(args, bits, 1)[0] for bits in args.bits]
    _ops.set_isa("")
    return rows


def histogram(args: argparse.Namespace) -> dict[str, float]:
    """Pairs a second on one thread, 50,000 codes of 64 bits: counts alone, and counts with weights of 150 classes."""
    database, queries = random_codes(50_000, 8, 0), random_codes(1000, 8, 1)
    rng = np.random.default_rng(5)
    labels, weights = rng.integers(0, 150, 50_000), rng.random((1000, 150))
    with threads(1):
        times = kit.interleave(
            {
                "counts": lambda: fasthash.hamming_histogram(queries, database),
                "sums": lambda: fasthash.hamming_histogram(
                    queries, database, database_labels=labels, class_weights=weights
                ),
            },
            args.rounds,
            args.seconds,
        )
    rates = {name: 5e7 / kit.median(spent) for name, spent in times.items()}
    print("histogram: " + ", ".join(f"{name} {rate / 1e9:.2f} Gpairs/s" for name, rate in rates.items()), flush=True)
    return rates


def tables(result: dict[str, Any]) -> str:
    """The results in Markdown."""

    def ratio(row: dict[str, Any], peer: str) -> str:
        return f"{row[peer]:.1f}" if peer in row else "-"

    arguments, machine = result["arguments"], result["machine"]
    small = ", ".join(
        f"{name.replace('_1', '')} {micro:.1f}" for name, micro in result["small_call_microseconds"].items()
    )
    lines = [
        f"{machine['processor']}, {machine['cores']} cores, {machine['isa']['chosen']}; medians of interleaved runs. "
        f"{arguments['queries']} queries, {arguments['codes']:,} random codes, k = {arguments['k']}; "
        "a peer on all threads at its best number of them.",
        "",
        "| bits | threads | 1e9 pairs a second | share of one VPOPCNTQ a cycle | times faiss | times usearch | "
        "times faiss, AVX2 forced |",
        "|---|---|---|---|---|---|---|",
    ]
    forced = {row["bits"]: ratio(row, "times_faiss") for row in result["avx2_batch"]}
    for row in result["batch"]:
        rate = row["pairs_per_second"]["fasthash"] / 1e9
        last = forced.get(row["bits"], "-") if row["threads"] == 1 else ""
        peers_ = f"{ratio(row, 'times_faiss')} | {ratio(row, 'times_usearch')}"
        share = ratio(row, "popcount_share")
        lines.append(f"| {row['bits']} | {row['threads']} | {rate:.2f} | {share} | {peers_} | {last} |")
    lines += ["", "| one query, bits | GB/s | GB/s of a plain read | share |", "|---|---|---|---|"]
    for row in result.get("single", []):
        rate, read = row["bytes_per_second"]["fasthash"] / 1e9, row["read_bandwidth"] / 1e9
        lines.append(f"| {row['bits']} | {rate:.1f} | {read:.1f} | {row['bandwidth_share']:.2f} |")
    lines += ["", "| case, one thread, 64 queries, 1e6 codes of 64 bits | times the plain search |", "|---|---|"]
    lines += [f"| {name} | {value:.2f} |" for name, value in result["relative"].items()]
    lines += ["", f"One query, 1,000 codes, microseconds a call from Python: {small}."]
    rescored = ", ".join(
        f"{row['bits']} bits {row['rescore = 10'] / row['rescore = 0']:.2f}" for row in result["rescoring"]
    )
    lines += [f"Re-ranking by real-valued queries (rescore = 10), times the search without: {rescored}."]
    counted = result["histogram_pairs_per_second"]
    lines += [
        f"hamming_histogram, one thread: {counted['counts'] / 1e9:.2f}e9 pairs a second, "
        f"{counted['sums'] / 1e9:.2f}e9 with sums of weights."
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--codes", type=int, default=4_000_000)
    parser.add_argument("--queries", type=int, default=128)
    parser.add_argument("--k", type=int, default=10)
    parser.add_argument("--bits", type=int, nargs="+", default=[64, 128, 256, 512, 1024])
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="all of them by default")
    parser.add_argument(
        "--single-bytes", type=int, default=2 << 30, help="database of the one-query runs; 0 leaves them out"
    )
    parser.add_argument("--single-peers", action="store_true", help="the peers too (a second copy of the database)")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=60.0, help="no new round of a case after so many")
    parser.add_argument("--ghz", type=float, default=0.0, help="the clock under load, for popcount_share")
    parser.add_argument("--name", default="hamming-cpu")
    args = parser.parse_args()

    result: dict[str, Any] = {"machine": kit.machine(), "arguments": vars(args)}
    result["batch"] = [row for bits in args.bits for row in batch(args, bits, args.threads)]
    if args.single_bytes:
        result["single"] = [single(args, bits, args.threads) for bits in args.bits]
    result["rescoring"] = [rescoring(args, bits) for bits in args.bits]
    result["relative"] = relative(args)
    result["small_call_microseconds"] = small(args)
    result["histogram_pairs_per_second"] = histogram(args)
    result["avx2_batch"] = avx2(args)
    print(f"wrote {kit.write_json(args.name, result)}")
    (kit.RESULTS / f"{args.name}.md").write_text(tables(result))


if __name__ == "__main__":
    main()
