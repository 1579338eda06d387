"""Search over shards: every rank gets what one process finds in all shards, or every rank gets one error."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from hypothesis import given, settings
from hypothesis import strategies as st
from test_distributed import backend_missing

import fasthash
from fasthash import distributed
from fasthash.distributed import search

WAIT = timedelta(seconds=60)
WEIGHTS = [(10, 3), (6, 1)]


def codes(rows: int, width: int, seed: int) -> np.ndarray[Any, Any]:
    """Codes with many ties: of few values."""
    return np.random.default_rng(seed).integers(0, 4, (rows, width), dtype=np.uint8)


# Rows of each shard, width, queries, k.
CASES = {
    "uneven": ([7, 30, 12, 1], 2, 5, 9),
    "empty shards": ([0, 8, 0, 3], 3, 4, 6),
    "all codes": ([5, 0, 2, 6], 2, 3, 13),
    "one query": ([4, 4, 4, 4], 8, 1, 1),
    "no queries": ([4, 3, 2, 1], 8, 0, 2),
    "far apart": ([0, 0, 0, 20], 2, 6, 15),
}


def case(name: str, world: int) -> tuple[Any, list[Any], int]:
    rows, width, count, k = CASES[name]
    shards = [codes(n, width, seed) for seed, n in enumerate(rows)]
    if world < len(shards):  # the last rank takes what is left
        shards = [*shards[: world - 1], np.concatenate(shards[world - 1 :])]
    return codes(count, width, 99), shards, k


def worker(rank: int, world: int, folder: Path, backend: str, work: str) -> None:
    torch.set_num_threads(1)
    where = f"file://{folder / 'rendezvous'}"
    dist.init_process_group(backend, init_method=where, rank=rank, world_size=world, timeout=WAIT)
    if backend == "nccl":
        torch.cuda.set_device(rank)
    try:
        results = WORK[work](rank, world, "cpu" if backend == "gloo" else f"cuda:{rank}")
        torch.save(results, folder / f"{rank}.pt")
    finally:
        distributed.leave()


def run(world: int, folder: Path, work: str, backend: str = "gloo") -> list[Any]:
    missing = backend_missing(backend, world)
    if missing is not None:
        pytest.skip(missing)
    method = "fork" if backend == "gloo" else "spawn"  # a fork need not import torch again
    mp.start_processes(worker, args=(world, folder, backend, work), nprocs=world, start_method=method)
    return [torch.load(folder / f"{rank}.pt") for rank in range(world)]


def answers(rank: int, world: int, device: str) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    found = {}
    for name in CASES:
        queries, shards, k = case(name, world)
        on = [torch.from_numpy(part).to(device) for part in (queries, shards[rank])]
        search._GATHERED_BYTES = 200 if name == "uneven" else 1 << 26  # a few queries at a time
        found[name] = tuple(part.cpu() for part in distributed.topk(*on, k))
        weights = [(8 * queries.shape[1] - 9, 2), (9, 5)]
        found[f"{name}, weighted"] = tuple(
            part.cpu() for part in distributed.topk(*on, k, group=dist.group.WORLD, bit_weights=weights)
        )
    if device == "cpu":
        plain = distributed.topk(queries, shards[rank], k)
        assert isinstance(plain.ids, np.ndarray)
        assert plain.keys is None
    return found


@pytest.mark.parametrize(("backend", "world"), [("gloo", 2), ("gloo", 4), ("nccl", 2)])
def test_every_rank_finds_what_one_process_finds(backend: str, world: int, tmp_path: Path) -> None:
    results = run(world, tmp_path, "answers", backend)
    for name in CASES:
        queries, shards, k = case(name, world)
        database, weights = np.concatenate(shards), [(8 * queries.shape[1] - 9, 2), (9, 5)]
        plain = fasthash.hamming_topk(queries, database, k)
        weighted = fasthash.hamming_topk(queries, database, k, bit_weights=weights)
        for result in results:
            for key, wanted in ((name, plain), (f"{name}, weighted", weighted)):
                distances, ids = result[key]
                assert (distances.dtype, ids.dtype) == (torch.int32, torch.int64)
                assert np.array_equal(distances, wanted.distances), key
                assert np.array_equal(ids, wanted.ids), key


def message(call: Callable[[], Any]) -> str:
    try:
        call()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "no error"


def differing(rank: int, world: int, device: str) -> dict[str, str]:
    """One thing at a time that rank 1 has wrong, or different; afterwards the group still works."""
    two = codes(4, 2, rank)
    first, other = codes(3, 2, 9), codes(3, 2, 10)
    odd = rank == 1
    calls: dict[str, Callable[[], Any]] = {
        "dtype": lambda: distributed.topk(first, two.astype(np.float32) if odd else two, 2),
        "width": lambda: distributed.topk(*((codes(3, 3, 9), codes(4, 3, 1)) if odd else (first, two)), 2),
        "shard": lambda: distributed.topk(first, codes(4, 3, 1) if odd else two, 2),
        "queries": lambda: distributed.topk(other if odd else first, two, 2),
        "count": lambda: distributed.topk(first[:2] if odd else first, two, 2),
        "k": lambda: distributed.topk(first, two, 3 if odd else 2),
        "weights": lambda: distributed.topk(first, two, 2, bit_weights=WEIGHTS if odd else None),
        "too many": lambda: distributed.topk(first, two, 4 * world + 1),
        "none": lambda: distributed.topk(first, two, 0),
        "text": lambda: distributed.topk(first, two, "many" if odd else 2),
        "memory": lambda: distributed.topk(first, two, 2),
    }
    said = {}
    for name, call in calls.items():
        given = search.hamming_topk
        if name == "memory" and odd:
            search.hamming_topk = no_memory
        said[name] = message(call)
        search.hamming_topk = given
    said["afterwards"] = message(lambda: distributed.topk(first, two, 4 * world))
    return said


def no_memory(*_: Any, **__: Any) -> None:
    raise MemoryError("hamming_topk: no room for results" + "é" * 600)


def test_what_differs_is_one_error_on_all_ranks(tmp_path: Path) -> None:
    results = run(3, tmp_path, "differing")
    said = results[0]
    assert results[1:] == [said, said]
    alike = "ValueError: topk: all ranks must have "
    on_1 = "topk: on rank 1: "
    assert said.pop("memory").startswith(f"MemoryError: {on_1}hamming_topk: no room for results")
    assert said == {
        "dtype": f"TypeError: {on_1}shard must be packed codes of dtype uint8, got float32",
        "width": f"{alike}codes of one width, got 2 bytes on rank 0 and 3 on rank 1",
        "shard": f"ValueError: {on_1}queries and shard must have codes of one width, got 2 and 3 bytes",
        "queries": f"{alike}the same queries, those of rank 0 and rank 1 differ",
        "count": f"{alike}the same queries, got 3 on rank 0 and 2 on rank 1",
        "k": f"{alike}the same k, got 2 on rank 0 and 3 on rank 1",
        "weights": f"{alike}the same bit_weights, those of rank 0 and rank 1 differ",
        "too many": "ValueError: topk: k must be between 1 and 12 (codes in all shards), got 13",
        "none": "ValueError: topk: on rank 0: k must be at least 1, got 0",
        "text": f"TypeError: {on_1}k must be an integer, got 'many' (str)",
        "afterwards": "no error",
    }


def in_parts(rank: int, world: int, device: str) -> dict[str, Any]:
    """Ranks 0 and 2 search by themselves; the others are refused."""
    group = dist.new_group([0, 2])
    queries, shards, _ = case("uneven", 4)
    found = {"said": message(lambda: distributed.topk(queries, shards[rank], 3, group=group))}
    if rank in (0, 2):
        found["ids"] = torch.from_numpy(distributed.topk(queries, shards[rank], 8, group=group).ids)
    return found


def test_a_group_of_some_ranks(tmp_path: Path) -> None:
    results = run(3, tmp_path, "in_parts")
    queries, shards, _ = case("uneven", 4)
    wanted = fasthash.hamming_topk(queries, np.concatenate([shards[0], shards[2]]), 8).ids
    for rank in (0, 2):
        assert np.array_equal(results[rank]["ids"], wanted)
    assert results[0]["said"] == "no error"
    assert results[1]["said"].startswith("ValueError: topk: this process is not in the group; call it in")


WORK: dict[str, Callable[[int, int, str], Any]] = {"answers": answers, "differing": differing, "in_parts": in_parts}


@settings(max_examples=60, deadline=None)
@given(rows=st.lists(st.integers(0, 6), min_size=1, max_size=5).filter(sum), count=st.integers(0, 4), data=st.data())
def test_merging_is_a_search_of_the_concatenation(rows: list[int], count: int, data: Any) -> None:
    k, seed = data.draw(st.integers(1, sum(rows))), data.draw(st.integers(0, 100))
    queries, shards = codes(count, 2, seed), [codes(n, 2, seed + 1 + i) for i, n in enumerate(rows)]
    found, first = min(k, max(rows)), 0
    distances, ids = [], []
    for shard in shards:
        part = fasthash.hamming_topk(queries, shard, min(k, len(shard))) if len(shard) else None
        near, named = (torch.zeros(count, 0, dtype=kind) for kind in (torch.int32, torch.int64))
        if part is not None:
            near, named = torch.from_numpy(part.distances), torch.from_numpy(part.ids) + first
        distances.append(search._padded(near, found, search._FAR))
        ids.append(search._padded(named, found, 0))
        first += len(shard)
    merged = search._best(torch.stack(distances), torch.stack(ids), k)
    wanted = fasthash.hamming_topk(queries, np.concatenate(shards), k)
    assert np.array_equal(merged[0], wanted.distances)
    assert np.array_equal(merged[1], wanted.ids)


def test_one_process_needs_no_group(monkeypatch: pytest.MonkeyPatch) -> None:
    queries, shard = codes(3, 2, 0), codes(9, 2, 1)
    found, wanted = distributed.topk(queries, shard, 9), fasthash.hamming_topk(queries, shard, 9)
    assert np.array_equal(found.ids, wanted.ids)
    assert np.array_equal(found.distances, wanted.distances)
    assert np.array_equal(distributed.topk(queries[0], shard, 1).ids, wanted.ids[:1, :1])
    with pytest.raises(ValueError, match=r"^topk: k must be between 1 and 9, got 10$"):
        distributed.topk(queries, shard, 10)
    with pytest.raises(TypeError, match=r"^topk: queries must be packed codes of dtype uint8, got int64$"):
        distributed.topk(queries.astype(np.int64), shard, 1)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match=r"^topk: 2 processes were started and have no group; call .*join"):
        distributed.topk(queries, shard, 1)
