"""Top-k in one pass on CUDA, followed on the CPU: how many queries find no room for their candidates.

    python tests/one_pass_simulation.py [--codes 1e7] [--queries 200] [--k 10 100 1000]

The rows of each stretch and the room come from the kernels' own plan (csrc/hamming/cuda/one_pass_plan.h), compiled with
the sizes of a GPU. Thresholds are no tighter here than in the kernels, which keep at most K + max(1, K / 8) candidates.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any

import numpy as np
from emulation import HERE, ROOT, Emulation, build
from numpy.typing import NDArray

Array = NDArray[Any]
GROUP_ROWS = 128
ORDERS = ["random", "sorted", "10 classes", "100 classes", "1000 classes", "reversed", "filtered", "shards"]


def plan_library() -> Emulation:
    sources = [HERE / "one_pass_plan.cpp", HERE / "emulation.cpp", ROOT / "csrc/core/api.cpp"]
    return Emulation(build(sources, defines=()))


class Simulation:
    """One plan: n codes of 64 bits, k neighbours."""

    def __init__(self, plan: Emulation, n: int, k: int):
        stretch, twice = plan.call("one_pass_stretches", n=n, k=k, group_rows=GROUP_ROWS)
        assert twice == 0
        assert stretch.min() == 0
        self.k, self.room = k, plan.call("one_pass_shape", q=1, n=n, width=8, k=k)["room"]
        of_row = np.repeat(stretch.astype(np.int8), GROUP_ROWS)[:n]
        self.rows = [np.flatnonzero(of_row == number) for number in range(stretch.max() + 1)]

    def stretches(self, codes: Array, allowed: Array | None) -> list[tuple[Array, Array]]:
        """(codes, rows) of each stretch: those that the filter allows."""
        rows = [r if allowed is None else r[allowed[r]] for r in self.rows]
        return [(codes[r], r) for r in rows]

    def overflows(self, query: Any, stretches: list[tuple[Array, Array]]) -> bool:
        kept, enough = np.zeros(0, np.int64), self.k + max(1, self.k // 8)
        for number, (codes, rows) in enumerate(stretches):
            distances = np.bitwise_count(codes ^ query)
            if len(kept) < self.k:
                near = np.arange(len(rows))
                keys = distances.astype(np.int64) << 40 | rows
            else:
                near = np.flatnonzero(distances <= kept[-1] >> 40)
                keys = distances[near].astype(np.int64) << 40 | rows[near]
                keys = keys[keys <= kept[-1]]
            if number > 0 and len(kept) + len(keys) > self.room:
                return True
            kept = np.concatenate([kept, keys])
            most = self.k if number == 0 else enough
            if len(kept) > most:
                kept = np.partition(kept, most - 1)[:most]
            kept = np.sort(kept)
        return False


def noisy(rng: np.random.Generator, codes: Array) -> Array:
    """The codes with 3 % of their bits turned."""
    turned = np.zeros(len(codes), np.uint64)
    for bit in range(64):
        turned |= (rng.random(len(codes)) < 0.03).astype(np.uint64) << np.uint64(bit)
    return codes ^ turned


def case(order: str, n: int, queries: int) -> tuple[Array, Array, Array | None]:
    """Queries [Q] and codes [N] of 64 bits stored in this order, and the rows that are allowed."""
    rng = np.random.default_rng(n % 1000 + len(order))
    random = lambda count: rng.integers(0, 2**64, count, dtype=np.uint64)  # noqa: E731
    if order == "random":
        return random(queries), random(n), None
    if order == "sorted":
        return random(queries), np.sort(random(n)), None
    if order == "filtered":  # contiguous rows: a part of the database from anywhere on
        allowed = np.zeros(n, bool)
        part = int(n * 10 ** -rng.uniform(0.5, 3))
        begin = rng.integers(0, n - part)
        allowed[begin : begin + part] = True
        return random(queries), random(n), allowed
    classes = 100 if order in ("reversed", "shards") else int(order.split()[0])
    centers = random(classes)
    labels = np.arange(n) * classes // n
    if order == "shards":  # of 8,192 rows, each sorted by class
        labels = np.arange(n) % 8192 * classes // 8192
    codes = noisy(rng, centers[labels])
    asked = noisy(rng, centers[rng.integers(0, classes, queries)])
    if order == "reversed":  # from far to near, seen from the first of some close queries
        asked = noisy(rng, np.repeat(centers[:1], queries))
        codes = codes[np.argsort(np.bitwise_count(codes ^ asked[0]), kind="stable")[::-1]]
    return asked, codes, None


def fallen_back(plan: Emulation, n: int, queries: int, ks: list[int]) -> Iterator[tuple[str, int, float]]:
    """(order, k, share of the queries that fall back to two passes)."""
    simulations = [Simulation(plan, n, k) for k in ks]
    for order in ORDERS:
        asked, codes, allowed = case(order, n, queries)
        for simulation in simulations:
            stretches = simulation.stretches(codes, allowed)
            lost = sum(simulation.overflows(query, stretches) for query in asked)
            yield order, simulation.k, lost / queries


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--codes", type=float, default=1e7)
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--k", type=int, nargs="+", default=[10, 100, 1000])
    options = parser.parse_args()
    plan = plan_library()
    for order, k, share in fallen_back(plan, int(options.codes), options.queries, options.k):
        print(f"{order}, k = {k}: {share:.1%} of the queries take two passes", flush=True)
    plan.close()


if __name__ == "__main__":
    main()
