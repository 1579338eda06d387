"""Exact Hamming search on an NVIDIA GPU against plain torch and the memory's bandwidth, interleaved in one run.

    python benchmarks/bench_hamming_cuda.py [--codes 100000000] [--bits 64 256] [--queries 1 4 1024] [--k 10 1000]

"read" is a sum over the same bytes: what one pass over the database costs at least. "matmul" is the best plain-torch
way, a product of +-1 half-precision matrices and torch.topk, in blocks. Results are checked against the oracle on a
part before anything is timed. Writes benchmarks/results/NAME.json.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import kit
import torch
from torch import Tensor

import fasthash
from fasthash import reference

BLOCK = 1 << 20  # codes of a block of the plain-torch way


def random_codes(count: int, width: int) -> Tensor:
    return torch.randint(-(2**63), 2**63 - 1, (count * width // 8,), device="cuda").view(torch.uint8).view(count, width)


def matmul_topk(queries: Tensor, database: Tensor, k: int) -> Tensor:
    def signs(codes: Tensor) -> Tensor:
        return fasthash.unpack_bits(codes, 8 * codes.shape[1]).to(torch.float16).mul_(2).sub_(1)

    left, best = signs(queries), None
    for block in database.split(BLOCK):
        dots = left @ signs(block).T
        found = dots.topk(min(k, len(block)), dim=1).values
        best = found if best is None else torch.cat([best, found], 1).topk(k, dim=1).values
    return (8 * database.shape[1] - best) / 2


def check(width: int) -> None:
    database, queries = random_codes(30_000, width), random_codes(5, width)
    found, wanted = fasthash.hamming_topk(queries, database, 100), reference.hamming_topk(queries, database, 100)
    assert torch.equal(found.distances, wanted[0]), f"{8 * width} bits: wrong distances"
    assert torch.equal(found.ids, wanted[1]), f"{8 * width} bits: wrong ids"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--codes", type=int, default=100_000_000, help="at 64 bits; wider codes are fewer")
    parser.add_argument("--bits", type=int, nargs="+", default=[64, 256])
    parser.add_argument("--queries", type=int, nargs="+", default=[1, 4, 1024])
    parser.add_argument("--k", type=int, nargs="+", default=[10, 1000])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--name", default="hamming-cuda")
    arguments = parser.parse_args()
    cases: list[dict[str, Any]] = []
    for bits in arguments.bits:
        width, count = bits // 8, arguments.codes * 64 // bits
        check(width)
        database = random_codes(count, width)
        for rows in arguments.queries:
            queries = random_codes(rows, width)
            for k in arguments.k:

                def timed(call: Callable[[], Any]) -> Callable[[], None]:
                    def run() -> None:
                        call()
                        torch.cuda.synchronize()

                    return run

                calls = {
                    "fasthash": timed(lambda q=queries, d=database, k=k: fasthash.hamming_topk(q, d, k)),
                    "read": timed(lambda d=database: d.view(torch.int64).sum()),
                }
                if rows * count <= 1 << 31:
                    calls["matmul"] = timed(lambda q=queries, d=database, k=k: matmul_topk(q, d, k))
                times = kit.interleave(calls, arguments.rounds, seconds=20)
                seconds = {name: kit.median(found) for name, found in times.items()}
                case = {
                    "bits": bits,
                    "codes": count,
                    "queries": rows,
                    "k": k,
                    "milliseconds": {name: 1e3 * s for name, s in seconds.items()},
                    "pairs_per_second": rows * count / seconds["fasthash"],
                    "bytes_per_second": database.nbytes / seconds["fasthash"],
                }
                cases.append(case)
                peers = "  ".join(f"{name} {1e3 * s:.2f} ms" for name, s in seconds.items())
                rate = case["pairs_per_second"]
                print(
                    f"{bits} bits, {count:.0e} codes, {rows} queries, k = {k}: {peers}, {rate:.2e} pairs/s", flush=True
                )
        del database
    print(kit.write_json(arguments.name, {"machine": kit.machine(), "cases": cases}))


if __name__ == "__main__":
    main()
