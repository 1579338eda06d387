"""python examples/billion_codes.py --n 1e9: an index on disk that may be larger than memory.

A billion codes of 64 bits take 8 GB of disk, and a few hundred MB of memory while they are written. The default, a
million, runs in seconds. benchmarks/results/billion.md has the measurements.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

import fasthash

BLOCK = 1 << 20


def blocks(n: int) -> Iterator[np.ndarray]:
    """Codes uint8 [up to 1,048,576, 8], block by block: replace this by your own source."""
    for number, start in enumerate(range(0, n, BLOCK)):
        rng = np.random.default_rng(number)
        yield rng.integers(0, 256, (min(BLOCK, n - start), 8), dtype=np.uint8)


def timed(what: str, start: float) -> float:
    print(f"{what}: {time.perf_counter() - start:.3f} s")
    return time.perf_counter()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n", type=lambda text: int(float(text)), default=1_000_000, help="codes, such as 1e9")
    parser.add_argument("--folder", type=Path, help="where to keep the index (default: a temporary folder)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = arguments.folder or Path(place) / "index"
        start = time.perf_counter()
        fasthash.HammingIndex.build(folder, blocks(arguments.n), bits=64, progress=False).close()
        start = timed(f"writing {arguments.n:,} codes", start)
        with fasthash.HammingIndex.open(folder) as index:
            start = timed("opening", start)
            queries = next(blocks(100)) ^ np.array([1, 0, 0, 0, 0, 0, 0, 1], np.uint8)  # two bits away from a code
            one = index.search(queries[:1], k=10)
            start = timed("one query", start)
            all_of_them = index.search(queries, k=10)
            timed("100 queries at once", start)
        if not (all_of_them.distances[:, 0] <= 2).all() or one.ids[0, 0] != all_of_them.ids[0, 0]:
            raise RuntimeError("a planted neighbour was not found")
        print("every planted neighbour was found")


if __name__ == "__main__":
    main()
