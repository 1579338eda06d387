"""Changes of a ShardedIndex that fail or wait, with a stand-in for ray: nothing is lost, and nothing is twice."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
from cluster_cases import assert_same, failing, made_index, split_in_two, stand_in
from one_process_ray import ActorDiedError, ActorUnavailableError, OneProcessRay

from fasthash.cluster import ShardedIndex, ShardError, ShardTimeout
from fasthash.cluster.shard import Shard


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch) -> OneProcessRay:
    return stand_in(monkeypatch)


def test_an_add_that_is_repeated_adds_once(ray: OneProcessRay, tmp_path: Path) -> None:
    """What Ray does when an actor dies after the transaction, and before its answer."""
    one, many = split_in_two(tmp_path, ray, writable=True)
    died = [True]

    def before(actor: Shard, name: str) -> None:
        if name == "add" and died[0]:
            died[0] = False
            actor.add(many._state(0), codes, int(next_id), None, None)
            raise ActorUnavailableError

    codes, next_id = np.full((3, 3), 2, np.uint8), one._contents.next_id
    ray.before = before
    assert_same([many.add(codes)], [one.add(codes)])
    assert not died[0]
    assert len(many) == len(one)
    assert_same(many.search(codes[:1], 9), one.search(codes[:1], 9))


def test_ids_of_an_add_in_doubt_are_not_given_again(ray: OneProcessRay, tmp_path: Path) -> None:
    one, many = split_in_two(tmp_path, ray, writable=True)
    codes, first = np.full((3, 3), 2, np.uint8), one._contents.next_id
    ray.before = lambda actor, name: failing((actor, ActorDiedError()))(actor, name) if name == "add" else None
    message = (
        f"^ShardedIndex.add: no answer from 1 of 2 shards .*; it is not known .* their ids are {first} to {first + 2}, "
    )
    with pytest.raises(ShardError, match=message):
        many.add(codes)
    many.refresh()
    ray.before = failing()
    assert many.add(codes).tolist() == [first + 3, first + 4, first + 5]


def test_replicas_see_what_became_of_a_change_in_doubt(ray: OneProcessRay, tmp_path: Path) -> None:
    one, many = split_in_two(tmp_path, ray, writable=True, replicas=2)
    codes = np.full((3, 3), 2, np.uint8)
    query = codes[:1]
    for _ in range(2):
        many.search(query, 9)

    def before(actor: Shard, name: str) -> None:
        if name in ("add", "remove"):
            ray.before = failing()
            one.add(codes)
            actor.add(many._state(0), codes, int(one.ids[-3]), None, None)
            raise ActorDiedError

    ray.before = before
    with pytest.raises(ShardError):
        many.add(codes)
    for _ in range(2):
        assert_same(many.search(query, 9), one.search(query, 9))


def test_a_full_disk_names_the_shard_and_changes_nothing(ray: OneProcessRay, tmp_path: Path) -> None:
    one, many = split_in_two(tmp_path, ray, writable=True)
    codes, full = np.full((3, 3), 2, np.uint8), OSError(28, "No space left on device")
    ray.before = lambda actor, name: failing((actor, full))(actor, name) if name == "add" else None
    with pytest.raises(ShardError, match=r"^ShardedIndex.add: .*shard-0000\d: \[Errno 28\] No space left on device"):
        many.add(codes)
    ray.before = failing()
    assert len(many) == len(one)


def test_a_change_waits_for_another_one_until_its_deadline(ray: OneProcessRay, tmp_path: Path) -> None:
    one, many = split_in_two(tmp_path, ray, writable=True)
    waiting, end = threading.Event(), threading.Event()

    def before(actor: Shard, name: str) -> None:
        waiting.set()
        end.wait()

    ray.before = before
    first = threading.Thread(target=lambda: many.add(np.ones((1, 3), np.uint8)))
    first.start()
    waiting.wait()
    ray.before = failing()
    for call in (lambda: many.add(np.ones((1, 3), np.uint8), timeout=0.01), lambda: many.remove([1], timeout=0.01)):
        with pytest.raises(ShardTimeout, match=r"^ShardedIndex\..*: another change was still running after 0.01 s"):
            call()
    end.set()
    first.join()
    assert len(many) == len(one) + 1  # the one that waited was not sent


def test_a_refused_add_uses_no_ids(ray: OneProcessRay, tmp_path: Path) -> None:
    one, many = split_in_two(tmp_path, ray, writable=True)
    codes = np.zeros((2, 3), np.uint8)
    with pytest.raises(
        ValueError, match=f"^ShardedIndex.add: id {one.ids[3]} is in the index already; remove it first"
    ):
        many.add(codes, ids=[10**6, one.ids[3]])
    assert_same([many.add(codes)], [one.add(codes)])


def test_keys_are_checked_over_all_shards(ray: OneProcessRay, tmp_path: Path) -> None:
    one = made_index(2, keyed=True)
    one.split(tmp_path, 3, progress=False)
    codes, taken = np.zeros((2, 3), np.uint8), f"key {one.ids[7]}"
    with ShardedIndex(tmp_path, writable=True) as many:
        for keys, message in [
            (["a", taken], f"key '{taken}' is in the index already; remove it first"),
            (None, "the index has keys, so 2 codes need keys=, got None"),
            (["a", "a"], "keys must be distinct, got 'a' more than once"),
            (["a"], "2 codes need 2 keys, got 1"),
        ]:
            with pytest.raises(ValueError, match=f"^ShardedIndex.add: {message}"):
                many.add(codes, keys=keys)
        assert_same([many.add(codes, keys=["a", "b"])], [one.add(codes, keys=["a", "b"])])
    _, plain = split_in_two(tmp_path / "plain", ray, writable=True)
    with pytest.raises(ValueError, match=r"^ShardedIndex.add: the \d+ codes of the index have no keys"):
        plain.add(codes, keys=["a", "b"])
