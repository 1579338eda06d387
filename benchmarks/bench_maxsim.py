"""Late interaction over binary token codes: maxsim_topk against numpy, torch, and the scan that its floor is.

    python benchmarks/bench_maxsim.py [--documents 10000] [--tokens 100] [--bits 128] [--query-tokens 32]

One thread, one query, k 10, random codes; times are processor seconds, medians of turns. The floor compares the same
pairs of tokens by hamming_topk, which keeps ten of them. numpy and torch multiply rows of -1 and 1 (float32) and take
the largest of each document; their rows are unpacked beforehand. Results are checked to be equal. Writes
benchmarks/results/maxsim.json.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import kit
import numpy as np
import torch

from fasthash import hamming_topk, maxsim_topk, unpack_bits

K, ROUNDS = 10, 9


def measured(calls: dict[str, Callable[[], Any]]) -> dict[str, float]:
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(ROUNDS):
        for name, call in calls.items():
            start = time.process_time()
            call()
            times[name].append(time.process_time() - start)
    return {name: kit.median(own) for name, own in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in (("documents", 10_000), ("tokens", 100), ("bits", 128), ("query-tokens", 32)):
        parser.add_argument(f"--{name}", type=int, default=value)
    given = parser.parse_args()
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    database = rng.integers(0, 256, (given.documents * given.tokens, given.bits // 8), dtype=np.uint8)
    queries = rng.integers(0, 256, (given.query_tokens, given.bits // 8), dtype=np.uint8)
    starts = np.arange(given.documents + 1) * given.tokens
    q, d = (2.0 * torch.from_numpy(unpack_bits(codes, given.bits)).float() - 1 for codes in (queries, database))

    def by_torch() -> Any:
        best = (q @ d.T).reshape(len(q), given.documents, given.tokens).amax(2)
        return best.sum(0).topk(K)

    def by_numpy() -> Any:
        best = np.maximum.reduceat(q.numpy() @ d.numpy().T, starts[:-1], axis=1)
        return np.argpartition(-best.sum(0), K)[:K]

    found = maxsim_topk(queries, [0, len(queries)], database, starts, K)
    largest = by_torch().values.numpy()
    np.testing.assert_array_equal(given.bits * len(queries) - 2 * found.distances[0], largest)
    seconds = measured(
        {
            "maxsim_topk": lambda: maxsim_topk(queries, [0, len(queries)], database, starts, K),
            "floor: hamming_topk": lambda: hamming_topk(queries, database, K),
            "torch": by_torch,
            "numpy": by_numpy,
        }
    )
    pairs = len(queries) * len(database)
    for name, value in seconds.items():
        print(f"{name}: {1e3 * value:.1f} ms, {1e9 * value / pairs:.3f} ns a pair of tokens")
    print(kit.write_json("maxsim", {"machine": kit.machine(), **vars(given), "seconds": seconds}))


if __name__ == "__main__":
    main()
