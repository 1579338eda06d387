"""ShardedIndex on several Ray nodes of this machine, while actors, nodes and drivers are killed."""

from __future__ import annotations

import os
import pickle
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cluster_cases import assert_same, made_index

pytest.importorskip("ray", reason="needs ray: pip install 'fasthash[ray]'")

from ray_nodes import OPTIONS, Nodes, kill, wait_for

from fasthash import HammingIndex
from fasthash.cluster import ShardedIndex, ShardError, ShardTimeout

QUERIES = np.random.default_rng(0).integers(0, 4, (5, 3), np.uint8)


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    made = Nodes(3)
    yield made
    made.close()


def processes(many: ShardedIndex) -> dict[tuple[str, int], int]:
    """The process of each replica of each shard."""
    return {(own.shard, own.replica): own.process for own in many.stats(timeout=60) if not own.error}


def test_laptop_and_cluster_give_what_one_index_gives(nodes: Nodes, tmp_path: Path) -> None:
    one = made_index(0, rows=2000)
    one.split(tmp_path, 2, progress=False)
    real = np.random.default_rng(1).random((4, 24)).astype(np.float32)
    with ShardedIndex(tmp_path, writable=True, replicas=2, **OPTIONS) as many:
        assert len(set(processes(many).values())) == 4
        gone = one.ids[:5]
        assert many.remove(gone) == one.remove(gone) == 5
        assert_same([many.add(QUERIES)], [one.add(QUERIES)])
        for filter in (None, one.ids[::3]):
            for _ in range(2):  # both replicas
                assert_same(many.search(QUERIES, 40, filter), one.search(QUERIES, 40, filter))
                assert_same(many.range_search(QUERIES, 9, filter), one.range_search(QUERIES, 9, filter))
            for rescore in (3, "all"):
                assert_same(many.search(real, 40, filter, rescore), one.search(real, 40, filter, rescore))
        large = np.tile(QUERIES, (20_000, 1))  # several batches, of which each is an object of its own
        assert_same(many.search(large, 2), one.search(large, 2))
        assert_same(many.pairs(1), one.pairs(1))
        for link in ("single", "star"):
            assert_same(many.groups(1, link=link), one.groups(1, link=link))
        copy = pickle.loads(pickle.dumps(many))
        assert_same(copy.search(QUERIES, 40), one.search(QUERIES, 40))
        assert_same([many.add(QUERIES)], [one.add(QUERIES)])
        assert copy.refresh()
        for _ in range(2):
            assert_same(copy.search(QUERIES, 40), one.search(QUERIES, 40))
        with pytest.raises(ValueError, match="this is a copy of a ShardedIndex and only searches"):
            copy.add(QUERIES)
        copy.close()
        searched = nodes.ray.remote(lambda index: tuple(index.search(QUERIES, 40)))  # in another process
        assert_same(nodes.ray.get(searched.options(num_cpus=0).remote(many)), one.search(QUERIES, 40))


def test_an_actor_is_killed_during_searches(nodes: Nodes, tmp_path: Path) -> None:
    """Without replicas: each answer waits for the restarted actor, and is complete."""
    one = made_index(1, rows=2000)
    one.split(tmp_path, 2, progress=False)
    expected = one.search(QUERIES, 40)
    with ShardedIndex(tmp_path, **OPTIONS) as many:
        victim = processes(many)[many.shards[0], 0]
        found: list[Any] = []
        threads = [threading.Thread(target=lambda: found.append(many.search(QUERIES, 40))) for _ in range(8)]
        os.kill(victim, signal.SIGSTOP)  # calls are on their way to it
        for thread in threads:
            thread.start()
        time.sleep(0.2)
        kill(victim)
        for thread in threads:
            thread.join()
        assert len(found) == 8
        for own in found:
            assert_same(own, expected)
        assert processes(many)[many.shards[0], 0] != victim


def test_a_node_is_killed_and_replicas_answer(nodes: Nodes, tmp_path: Path) -> None:
    one = made_index(2, rows=2000)
    one.split(tmp_path, 2, progress=False)
    expected = one.search(QUERIES, 40)
    with ShardedIndex(tmp_path, writable=True, replicas=2, **OPTIONS) as many:
        assert any(nodes.kill_node_of(process) for process in processes(many).values())
        for _ in range(6):
            assert_same(many.search(QUERIES, 40), expected)
        assert_same([many.add(QUERIES)], [one.add(QUERIES)])  # in a shard whose writer may be on another node by now
        for _ in range(4):
            assert_same(many.search(QUERIES, 40), one.search(QUERIES, 40))
    nodes.add()


def test_actors_are_killed_during_adds(nodes: Nodes, tmp_path: Path) -> None:
    """Nothing that was acknowledged is lost, and nothing is there twice."""
    one = made_index(3, rows=100)
    one.split(tmp_path, 2, progress=False)
    with ShardedIndex(tmp_path, writable=True, **OPTIONS) as many:
        added: list[Any] = []
        end = threading.Event()

        def add() -> None:
            while not end.is_set():
                added.append(many.add(QUERIES))

        thread = threading.Thread(target=add)
        thread.start()
        for round in range(3):
            before = len(added)
            wait_for(lambda before=before: len(added) > before + 2)
            kill(processes(many)[many.shards[round % 2], 0])
        before = len(added)
        wait_for(lambda: len(added) > before + 2)
        end.set()
        thread.join()
        for ids in added:
            assert_same([one.add(QUERIES)], [ids])
        assert_same([many.ids], [one.ids])
    shards = [HammingIndex.open(tmp_path / f"shard-0000{number}") for number in range(2)]
    assert sorted(np.concatenate([shard.ids for shard in shards]).tolist()) == one.ids.tolist()
    for shard in shards:
        shard.verify()


DRIVER = """
import sys
import numpy as np
import ray
from fasthash.cluster import ShardedIndex
ray.init(address=sys.argv[1], log_to_driver=False, logging_level="error")
index = ShardedIndex(sys.argv[2], writable=True, options={"num_cpus": 0.1})
while True:
    print(*index.add(np.full((2, 3), 1, np.uint8)), flush=True)
"""


def test_a_driver_is_killed(nodes: Nodes, tmp_path: Path) -> None:
    """Its actors end, and the next driver finds all that was acknowledged."""
    one = made_index(4, rows=100)
    one.split(tmp_path, 2, progress=False)
    command = [sys.executable, "-c", DRIVER, nodes.address, str(tmp_path)]
    driver = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parent)
    assert driver.stdout is not None
    told = [driver.stdout.readline() for _ in range(5)]
    driver.kill()
    told += driver.stdout.readlines()
    driver.wait()
    acknowledged = [int(id) for line in told if line.endswith("\n") for id in line.split()]
    with ShardedIndex(tmp_path, writable=True, **OPTIONS) as many:
        ids = many.ids
        assert set(acknowledged) <= set(ids.tolist())
        assert set(one.ids.tolist()) <= set(ids.tolist())
        assert len(set(ids.tolist())) == len(ids)
        assert many.add(QUERIES[:1])[0] == ids.max() + 1


def test_a_slow_shard_misses_the_deadline(nodes: Nodes, tmp_path: Path) -> None:
    one = made_index(5)
    one.split(tmp_path, 2, progress=False)
    with ShardedIndex(tmp_path, writable=True, **OPTIONS) as many:
        slow, name = processes(many)[many.shards[1], 0], many.shards[1]
        os.kill(slow, signal.SIGSTOP)
        try:
            begin = time.monotonic()
            with pytest.raises(ShardTimeout, match=f"no answer from 1 of 2 shards .{name}: no answer within 1 s"):
                many.search(QUERIES, 3, timeout=1)
            found = many.search(QUERIES, 3, timeout=1, partial="allow")
            assert found.missing == {name: "no answer within 1 s"}
            assert_same(found, HammingIndex.open(many.shards[0]).search(QUERIES, 3))
            with pytest.raises(ShardTimeout, match=r"ShardedIndex.remove"):
                many.remove(one.ids, timeout=1)
            with pytest.raises(ShardTimeout, match=r"0 of 3 tasks were done within 0\.001 s"):
                many.pairs(1, timeout=0.001)
            assert time.monotonic() - begin < 30
        finally:
            os.kill(slow, signal.SIGCONT)
        assert_same(many.search(QUERIES, 3), one.search(QUERIES, 3))


def test_damaged_files_and_a_lost_folder(nodes: Nodes, tmp_path: Path) -> None:
    one = made_index(6, rows=50_000)
    one.split(tmp_path, 3, progress=False)
    with ShardedIndex(tmp_path, **OPTIONS) as many:
        assert_same(many.search(QUERIES, 3), one.search(QUERIES, 3))
        for segment in (tmp_path / "shard-00001").glob("segment-*"):
            with open(segment, "r+b") as file:
                file.truncate(2000)  # under the feet of the actor, which has it mapped: reading it kills the actor
        (tmp_path / "shard-00002").rename(tmp_path / "elsewhere")
        kill(processes(many)[many.shards[2], 0])
        with pytest.raises(ShardError, match=r"no answer from \d of 3 shards"):
            many.search(QUERIES, 3)
        found = many.search(QUERIES, 3, partial="allow")
        assert list(found.missing) == many.shards[1:]
        assert "no such folder" in found.missing[many.shards[2]]
        assert_same(found, HammingIndex.open(many.shards[0]).search(QUERIES, 3))
        with pytest.raises(ShardError, match=r"^ShardedIndex.pairs: no answer from 1 of 3 shards \(.*shard-0000[12]"):
            many.pairs(1)


def test_a_full_disk(nodes: Nodes, tmp_path: Path) -> None:
    """A limit on the size of files, which the actor's process gets, stands in for it."""
    one = made_index(7)
    one.split(tmp_path, 2, progress=False)
    many_codes = np.tile(QUERIES, (800_000, 1))
    with ShardedIndex(tmp_path, writable=True, **OPTIONS) as many:
        for process in processes(many).values():
            resource.prlimit(process, resource.RLIMIT_FSIZE, (10 << 20, resource.RLIM_INFINITY))
        with pytest.raises(ShardError, match=r"ShardedIndex.add: no answer from 1 of 2 shards \(.*File too large"):
            many.add(many_codes)
        for process in processes(many).values():
            resource.prlimit(process, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        assert_same(many.search(QUERIES, 3), one.search(QUERIES, 3))
        assert len(many) == len(one)
        many.add(QUERIES)
    for shard in many.shards:
        HammingIndex.open(shard).verify()
