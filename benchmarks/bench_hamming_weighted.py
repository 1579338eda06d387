"""Top-k by weighted Hamming distance on the CPU against the undivided search, interleaved in one run.

    python benchmarks/bench_hamming_weighted.py [--codes 4000000] [--queries 128] [--bits 64 128 256] [--name NAME]

Writes benchmarks/results/NAME.json and NAME.md, a table made of it. Results are checked before anything is timed. Each
round runs every case once; a ratio is the median over rounds of time / time of the undivided search in that round.
"""

from __future__ import annotations

import argparse
import os
import statistics
from collections.abc import Callable
from typing import Any

import kit
import numpy as np
import torch
from bench_hamming_cpu import random_codes

import fasthash
from fasthash import _ops, reference

Groups = list[tuple[int, int]] | None
CHECKED = 2  # queries that are compared with the oracle


def cases(bits: int) -> dict[str, Groups]:
    """Groups of bits by the name that the table has for them."""
    half, quarter = bits // 2, bits // 4
    return {
        "undivided": None,
        "2 groups": [(half, 3), (half, 1)],
        "2 groups, large weights": [(half, 255), (half, 254)],
        "2 groups that meet inside a byte": [(half - 3, 3), (half + 3, 1)],
        "4 groups": [(quarter, weight) for weight in (9, 4, 2, 1)],
        "8 groups": [(bits // 8, weight) for weight in (9, 1, 5, 12, 3, 7, 6, 2)],
        "64 groups": [(bits // 64, 4 * i + 3) for i in range(64)],
    }


def check(queries: np.ndarray, database: np.ndarray, k: int, groups: Groups) -> None:
    """The first queries' results on the first codes are the oracle's."""
    few, some = queries[:CHECKED], database[:20_000]
    wanted = reference.hamming_topk(torch.from_numpy(few), torch.from_numpy(some), k, bit_weights=groups)
    found = fasthash.hamming_topk(few, some, k, bit_weights=groups)
    if not (np.array_equal(found.distances, wanted[0]) and np.array_equal(found.ids, wanted[1])):
        raise SystemExit(f"hamming_topk: results of {groups} differ from the oracle's")


def ratios(args: argparse.Namespace, isa: str, bits: int, threads: int) -> dict[str, Any]:
    database, queries = random_codes(args.codes, bits // 8, 0).copy(), random_codes(args.queries, bits // 8, 1).copy()
    _ops.set_isa(isa)
    torch.set_num_threads(threads)
    named = cases(bits)
    for groups in named.values():
        check(queries, database, args.k, groups)
    calls: dict[str, Callable[[], Any]] = {
        name: lambda groups=groups: fasthash.hamming_topk(queries, database, args.k, bit_weights=groups)
        for name, groups in named.items()
    }
    times = kit.interleave(calls, args.rounds, args.seconds)
    _ops.set_isa("")
    plain = times["undivided"]
    row = {
        "isa": isa, "bits": bits, "threads": threads,
        "pairs_per_second": args.queries * args.codes / kit.median(plain),
        "ratios": {
            name: statistics.median(a / b for a, b in zip(spent, plain, strict=False)) for name, spent in times.items()
        },
    }  # fmt: skip
    shown = ", ".join(f"{name} x{ratio:.2f}" for name, ratio in row["ratios"].items())
    print(f"{isa} {bits} bits, {threads} threads, {row['pairs_per_second'] / 1e9:.2f} Gpairs/s: {shown}", flush=True)
    return row


def table(result: dict[str, Any]) -> str:
    """The results in Markdown."""
    arguments, machine = result["arguments"], result["machine"]
    names = [name for name in result["rows"][0]["ratios"] if name != "undivided"]
    lines = [
        f"{machine['processor']}, {machine['cores']} cores, load {machine['load_before']:.1f} before; medians of "
        "interleaved runs. "
        f"{arguments['queries']} queries, {arguments['codes']:,} random codes, k = {arguments['k']}. "
        "Times of weighted searches in units of the undivided search.",
        "",
        f"| instruction set | bits | threads | undivided, 1e9 pairs a second | {' | '.join(names)} |",
        f"|---|---|---|---|{'---|' * len(names)}",
    ]
    for row in result["rows"]:
        values = " | ".join(f"{row['ratios'][name]:.2f}" for name in names)
        rate = row["pairs_per_second"] / 1e9
        lines.append(f"| {row['isa']} | {row['bits']} | {row['threads']} | {rate:.2f} | {values} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--codes", type=int, default=4_000_000)
    parser.add_argument("--queries", type=int, default=128)
    parser.add_argument("--k", type=int, default=10)
    parser.add_argument("--bits", type=int, nargs="+", default=[64, 128, 256])
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="all of them by default")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=60.0, help="no new round of a row after so many")
    parser.add_argument("--name", default="hamming-weighted")
    args = parser.parse_args()

    vectors = [isa for isa in _ops.isa_names() if isa != "scalar"]
    rows = [
        ratios(args, isa, bits, threads)
        for isa in reversed(vectors)
        for bits in args.bits
        for threads in sorted({1, args.threads})
    ]
    result: dict[str, Any] = {"machine": kit.machine(), "arguments": vars(args), "rows": rows}
    print(f"wrote {kit.write_json(args.name, result)}")
    (kit.RESULTS / f"{args.name}.md").write_text(table(result))


if __name__ == "__main__":
    main()
