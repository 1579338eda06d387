"""Clients search and change a ShardedIndex on several Ray nodes of this machine, while actors and nodes are killed.

python benchmarks/cluster_faults.py --clients 50 --seconds 60

Every answer is checked against the codes that its client may have seen; at the end the folders are opened by
HammingIndex and read to the last byte. Prints a table; status 1 where an answer was wrong, or codes were lost.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import os
import random
import signal
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import ray
from ray.cluster_utils import Cluster

from fasthash import HammingIndex, hamming_distances
from fasthash.cluster import ShardedIndex, ShardError

ROWS, WIDTH, MOST = 20_000, 8, 400_000
RESULT = Path(__file__).resolve().parent / "results" / "cluster-faults.md"
DEADLINE = 20.0  # seconds of a call
NODE = {"num_cpus": 4, "object_store_memory": 100 << 20}


class Oracle:
    """Every code that was sent, by id. A search must see what was there before it began, and nothing else than sent."""

    def __init__(self, codes: Any):
        self.lock = threading.Lock()
        self.codes = np.zeros((MOST, WIDTH), np.uint8)
        self.codes[: len(codes)] = codes
        self.sent = np.zeros(MOST, np.bool_)  # may be there
        self.sure = np.zeros(MOST, np.bool_)  # is there: acknowledged, and nobody has begun to remove it
        self.gone = np.zeros(MOST, np.bool_)  # its removal was acknowledged
        self.sent[: len(codes)] = self.sure[: len(codes)] = True
        self.doubled: list[int] = []

    def seen(self) -> tuple[Any, Any]:
        with self.lock:
            return self.sure.copy(), self.gone.copy()

    def wrong(self, query: Any, k: int, found: Any, before: tuple[Any, Any], unknown: Any) -> str | None:
        """Why an answer is wrong; None where it is right. unknown: codes whose add is under way."""
        ids, distances = found.ids[0], found.distances[0]
        there = ids >= 0
        ids, distances = ids[there], distances[there]
        if len(set(ids.tolist())) != len(ids):
            return "an id twice"
        pairs = list(zip(distances.tolist(), ids.tolist(), strict=True))
        if pairs != sorted(pairs):
            return "not in order"
        with self.lock:
            sent, sure, gone = self.sent.copy(), self.sure & before[0], before[1]
        new = ids[~sent[ids]]
        for id in new:  # an add under way: its codes are those of one that was sent
            near = distances[ids == id]
            if not any((hamming_distances(query, batch) == near).any() for batch in unknown):
                return f"id {id} was never sent"
        known = ids[sent[ids]]
        if gone[known].any():
            return "a removed code"
        if (hamming_distances(query, self.codes[known])[0] != distances[sent[ids]]).any():
            return "a wrong distance"
        must = np.flatnonzero(sure)
        near = hamming_distances(query, self.codes[must])[0]
        last = pairs[-1] if len(pairs) == k else (1 << 30, 0)
        better = must[(near < last[0]) | ((near == last[0]) & (must < last[1]))]
        lost = set(better.tolist()) - set(ids.tolist())
        return f"{len(lost)} codes are missing" if lost else None


class Run:
    def __init__(self, folder: Path, clients: int, seconds: float, seed: int):
        self.clients, self.seconds, self.random = clients, seconds, random.Random(seed)
        rng = np.random.default_rng(seed)
        codes = rng.integers(0, 4, (ROWS, WIDTH), np.uint8)  # close to each other: many ties
        one = HammingIndex(8 * WIDTH)
        one.add(codes)
        one.split(folder, 2, progress=False)
        self.oracle, self.counts, self.times = Oracle(codes), Counter[str](), list[float]()
        self.folder, self.problems = folder, list[str]()
        self.adding: dict[int, Any] = {}  # client -> the codes that it is adding
        self.doubtful: list[Any] = []
        self.cluster = Cluster(initialize_head=True, head_node_args={**NODE, "include_dashboard": False})
        self.nodes = [self.cluster.add_node(**NODE) for _ in range(2)]
        ray.init(address=self.cluster.address, log_to_driver=False, logging_level="error")
        self.index = ShardedIndex(
            folder, writable=True, replicas=2, timeout=DEADLINE, options={"num_cpus": 0.1}
        )  # fmt: skip

    def client(self, number: int, end: float) -> None:
        rng, mine = np.random.default_rng(number), list[int]()
        while time.monotonic() < end:
            what = rng.random()
            if what < 0.8:
                self.search(rng)
            elif what < 0.92 or not mine:
                mine += self.add(number, rng)
            else:
                self.remove(mine.pop(), rng)

    def search(self, rng: Any) -> None:
        query, k = rng.integers(0, 4, (1, WIDTH), np.uint8), int(rng.integers(1, 50))
        before, begin = self.oracle.seen(), time.monotonic()
        unknown = self.unsure()
        partial = "allow" if rng.random() < 0.1 else "refuse"
        try:
            found = self.index.search(query, k, partial=partial)
        except ShardError:
            self.counts["searches refused"] += 1
            return
        self.times.append(time.monotonic() - begin)
        if getattr(found, "missing", None):
            self.counts["searches in part, which named the missing shards"] += 1
            return
        wrong = self.oracle.wrong(query, k, found, before, [*unknown, *self.unsure()])
        self.counts["searches wrong" if wrong else "searches right"] += 1
        if wrong:
            self.problems.append(f"search: {wrong}")

    def unsure(self) -> list[Any]:
        """The codes that are being added, and those whose add was refused: whether they are there is not known."""
        with self.oracle.lock:
            return [*self.adding.values(), *self.doubtful]

    def add(self, client: int, rng: Any) -> list[int]:
        codes = rng.integers(0, 4, (int(rng.integers(1, 20)), WIDTH), np.uint8)
        with self.oracle.lock:
            self.adding[client] = codes
        try:
            ids = self.index.add(codes)
        except ShardError:
            self.counts["adds refused"] += 1
            with self.oracle.lock:
                self.doubtful.append(codes)
            return []
        with self.oracle.lock:
            if self.oracle.sent[ids].any():
                self.oracle.doubled += ids[self.oracle.sent[ids]].tolist()
            self.oracle.codes[ids] = codes
            self.oracle.sent[ids] = self.oracle.sure[ids] = True
        self.counts["adds acknowledged"] += 1
        return [int(id) for id in ids]

    def remove(self, id: int, rng: Any) -> None:
        with self.oracle.lock:
            self.oracle.sure[id] = False
        try:
            count = self.index.remove([id])
        except ShardError:
            self.counts["removes refused"] += 1
            return
        with self.oracle.lock:
            self.oracle.gone[id] = True
        self.counts["removes acknowledged"] += 1
        if count != 1:
            self.problems.append(f"remove: {count} codes, not 1")

    def disturb(self, end: float) -> None:
        """Every few seconds an actor is killed or stopped for a while, or a node is killed and another one added."""
        events = itertools.cycle(["actor", "node", "actor", "stop"])
        while time.monotonic() < end - 2:
            time.sleep(self.random.uniform(0.5, 2))
            with contextlib.suppress(ProcessLookupError, FileNotFoundError):
                replicas = [own for own in self.index.stats(timeout=2) if own.process]
                if not replicas:
                    continue
                process, what = self.random.choice(replicas).process, next(events)
                if what == "actor":
                    os.kill(process, signal.SIGKILL)
                    self.counts["actors killed"] += 1
                elif what == "stop":
                    os.kill(process, signal.SIGSTOP)
                    time.sleep(1)
                    os.kill(process, signal.SIGCONT)
                    self.counts["actors stopped for a second"] += 1
                elif self.nodes:
                    self.cluster.remove_node(self.nodes.pop(0), allow_graceful=False)
                    self.counts["nodes killed"] += 1
                    self.nodes.append(self.cluster.add_node(**NODE))

    def go(self) -> bool:
        end = time.monotonic() + self.seconds
        threads = [threading.Thread(target=self.client, args=(number, end)) for number in range(self.clients)]
        for thread in threads:
            thread.start()
        self.disturb(end)  # here: Ray starts nodes in the main thread alone
        for thread in threads:
            thread.join()
        self.index.close()
        ray.shutdown()
        self.cluster.shutdown()
        return self.verify()

    def verify(self) -> bool:
        """Opens the shards without ray, and looks for every code."""
        shards = [HammingIndex.open(path) for path in sorted(self.folder.glob("shard-*"))]
        for shard in shards:
            shard.verify()
        ids = np.concatenate([shard.ids for shard in shards])
        codes = np.concatenate([shard.get(shard.ids) for shard in shards])
        oracle, held = self.oracle, np.zeros(MOST, np.bool_)
        held[ids] = True
        self.counts["codes lost"] = int((oracle.sure & ~held).sum())
        self.counts["codes doubled"] = len(ids) - len(np.unique(ids)) + len(oracle.doubled)
        self.counts["removed codes that are back"] = int((oracle.gone & held).sum())
        known = oracle.sent[ids]
        self.counts["codes changed"] = int((oracle.codes[ids[known]] != codes[known]).any(1).sum())
        bad = ("codes lost", "codes doubled", "removed codes that are back", "codes changed", "searches wrong")
        return not self.problems and not any(self.counts[name] for name in bad)

    def table(self) -> str:
        times = sorted(self.times) or [0.0]
        rows = [
            *((name, str(self.counts[name])) for name in sorted(self.counts)),
            ("median of a search, ms", f"{1e3 * statistics.median(times):.0f}"),
            ("99th percentile, ms", f"{1e3 * times[int(0.99 * (len(times) - 1))]:.0f}"),
            ("longest, ms", f"{1e3 * times[-1]:.0f}"),
        ]
        width = max(len(name) for name, _ in rows)
        return "\n".join(f"| {name:<{width}} | {value:>8} |" for name, value in rows)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=50, help="threads that search, add and remove")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--write", action="store_true", help="also writes the table to results/cluster-faults.md")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        run = Run(Path(folder) / "shards", given.clients, given.seconds, given.seed)
        right = run.go()
    print(run.table())
    if given.write:
        load = os.getloadavg()[0]
        head = f"{given.clients} clients, {given.seconds:g} s, Ray {ray.__version__}, load {load:.0f} at the end"
        RESULT.write_text(f"{head}\n\n| what | how many |\n|---|---:|\n{run.table()}\n")
    for problem in run.problems[:10]:
        print("problem:", problem)
    print("every answer right or refused, nothing lost" if right else "FAILED")
    return 0 if right else 1


if __name__ == "__main__":
    sys.exit(main())
