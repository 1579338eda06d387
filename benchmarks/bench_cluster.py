"""Two shards on Ray actors against one HammingIndex, on the same cores: 100 queries, and one query.

    python benchmarks/bench_cluster.py [--n 1e8] [--folder FOLDER]

Random codes of 64 bits; 1.6 GB of disk at 1e8. The one index searches with 2 threads, each shard with one. Results are
checked to be equal, then both are timed in turns. Goals: 100 queries take at most 1.15 times as long, one query at most
3 ms longer, in the medians. Also what splitting, adding and one core's scan take, from which cluster_sizes.py makes the
table of docs/cluster.md. Writes results/cluster.json.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kit
import numpy as np
import ray
import torch

from fasthash import HammingIndex
from fasthash.cluster import ShardedIndex
from fasthash.cluster.shard import Place, Shard, State

GOALS = {"ratio_100": 1.15, "more_ms_1": 3.0}
BLOCK, K = 1 << 20, 10


def blocks(n: int) -> Iterator[np.ndarray]:
    for start in range(0, n, BLOCK):
        rows = min(BLOCK, n - start)
        yield np.frombuffer(np.random.default_rng(start).bytes(8 * rows), np.uint8).reshape(rows, 8)


def prepared(folder: Path, n: int) -> tuple[HammingIndex, float | None]:
    """The index and its two shards, and how long the split took; None where they were there."""
    if not (folder / "one" / "manifest.json").exists():
        HammingIndex.build(folder / "one", blocks(n), bits=64, progress=False)
    one = HammingIndex.open(folder / "one")
    if (folder / "shards" / "shards.json").exists():
        return one, None
    begin = time.perf_counter()
    one.split(folder / "shards", 2, progress=False)
    return one, time.perf_counter() - begin


def same(found: Any, expected: Any) -> None:
    for own, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(own, other)


def processor_seconds(folder: Path, one: HammingIndex, queries: Any, rounds: int) -> tuple[float, float]:
    """Medians of one thread's processor seconds for the one index, and for both shards without Ray, in turns.

    They tell what the shards themselves cost where other processes keep the machine busy.
    """
    shards = [Shard(Place(str(path))) for path in sorted((folder / "shards").glob("shard-*"))]
    calls = {
        "one": lambda: one.search(queries, K),
        "shards": lambda: [shard.search(State(None, 0), queries, K, None, 0, "l1") for shard in shards],
    }
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            begin = time.process_time()
            call()
            times[name].append(time.process_time() - begin)
    return kit.median(times["one"]), kit.median(times["shards"])


def measure(folder: Path, n: int, rounds: int) -> dict[str, Any]:
    one, split = prepared(folder, n)
    queries = np.random.default_rng(1).integers(0, 256, (100, 8), np.uint8)
    torch.set_num_threads(2)
    with ShardedIndex(folder / "shards", writable=True, threads=1, timeout=600) as many:
        same(many.search(queries, K), one.search(queries, K))
        same(many.search(queries[:1], K), one.search(queries[:1], K))
        times = kit.interleave(
            {
                "one, 100 queries": lambda: one.search(queries, K),
                "shards, 100 queries": lambda: many.search(queries, K),
                "one, 1 query": lambda: one.search(queries[:1], K),
                "shards, 1 query": lambda: many.search(queries[:1], K),
            },
            rounds,
            240,
        )
        empty = kit.interleave({"call": lambda: many.search(queries[:1], 1, filter=[n + 1])}, 50, 20)["call"]
        added: list[Any] = []
        adds = kit.interleave({"add": lambda: added.append(many.add(queries))}, 10, 20)["add"]
        many.remove(np.concatenate(added))  # the folder may be used again
    torch.set_num_threads(1)
    alone, apart = processor_seconds(folder, one, queries, rounds)
    alone_1, apart_1 = processor_seconds(folder, one, queries[:1], 3 * rounds)
    medians = {name: kit.median(own) for name, own in times.items()}
    return {
        "n": n,
        "bits": 64,
        "k": K,
        "seconds": medians,
        "ratio_100": medians["shards, 100 queries"] / medians["one, 100 queries"],
        "more_ms_1": 1e3 * (medians["shards, 1 query"] - medians["one, 1 query"]),
        "more_ms_1_by_round": 1e3
        * kit.median([b - a for a, b in zip(times["one, 1 query"], times["shards, 1 query"], strict=True)]),
        "processor_ratio_100": apart / alone,
        "processor_more_ms_1": 1e3 * (apart_1 - alone_1),
        "processor_seconds": {"100": alone, "1": alone_1},
        "call_ms": 1e3 * kit.median(empty),
        "add_ms": 1e3 * kit.median(adds),
        "split_seconds": split,
        "goals": GOALS,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=float, default=1e8)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--folder", type=Path, help="where the index is made, or was made before")
    parser.add_argument("--name", default="cluster")
    given = parser.parse_args()
    os.environ.setdefault("RAY_worker_niceness", "0")  # Ray's 15 puts other programs before the shards
    ray.init("local", num_cpus=2, object_store_memory=200 << 20, include_dashboard=False, log_to_driver=False)
    with tempfile.TemporaryDirectory() as made:
        result = {"machine": kit.machine(), **measure(given.folder or Path(made), int(given.n), given.rounds)}
    ray.shutdown()
    result["machine"]["versions"]["ray"] = ray.__version__
    print(f"100 queries: shards take {result['ratio_100']:.2f} times as long (goal {GOALS['ratio_100']})")
    by_round = result["more_ms_1_by_round"]
    print(f"one query: {result['more_ms_1']:+.1f} ms (goal {GOALS['more_ms_1']:+}); by round {by_round:+.1f} ms")
    print(f"processor seconds, without Ray: {result['processor_ratio_100']:.2f} times, ", end="")
    print(f"{result['processor_more_ms_1']:+.1f} ms for one query")
    print(f"a search of nothing {result['call_ms']:.1f} ms, an add of 100 codes {result['add_ms']:.1f} ms")
    print(kit.write_json(given.name, result))


if __name__ == "__main__":
    main()
