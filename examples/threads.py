"""python examples/threads.py: many threads search one index while a writer changes it.

Every search sees one complete state of the index. Each worker has one thread of torch, so that requests do not compete.
`examples/service.py` does the same over HTTP; docs/serving.md has the rules.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch

import fasthash

CODES, WORKERS, REQUESTS = 200_000, 8, 400


def main() -> None:
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 256, (CODES, 8), dtype=np.uint8)
    index = fasthash.HammingIndex(bits=64)
    index.add(codes)

    def request(row: int) -> float:
        start = time.perf_counter()
        found = index.search(codes[row], k=10)
        if found.ids[0, 0] != row:
            raise RuntimeError(f"row {row} was not found: {found}")
        return 1000 * (time.perf_counter() - start)

    start = time.perf_counter()
    with ThreadPoolExecutor(WORKERS, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        waiting = [pool.submit(request, int(row)) for row in rng.integers(0, CODES, REQUESTS)]
        for _ in range(5):  # the one writer, meanwhile
            added = index.add(rng.integers(0, 256, (1_000, 8), dtype=np.uint8))
            index.remove(added[:500])
        times = [done.result() for done in waiting]
    seconds = time.perf_counter() - start
    p50, p99 = np.percentile(times, [50, 99])
    print(f"{REQUESTS} requests of {WORKERS} threads: {REQUESTS / seconds:,.0f} a second")
    print(f"one request: {p50:.1f} ms in the middle, {p99:.1f} ms for the slowest of a hundred")
    print(f"the index grew from {CODES:,} to {len(index):,} codes meanwhile")


if __name__ == "__main__":
    main()
