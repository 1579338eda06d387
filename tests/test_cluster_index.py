"""ShardedIndex with a stand-in for ray: results are those of HammingIndex, whatever the number of shards."""

from __future__ import annotations

import math
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cluster_cases import assert_same, failing, made_index, split_in_two, stand_in
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from one_process_ray import ActorDiedError, ActorUnavailableError, Late, OneProcessRay, RayError

from fasthash import HammingIndex, IndexFolderError
from fasthash.cluster import ShardedIndex, ShardError, ShardTimeout
from fasthash.cluster import sharded_index as module
from fasthash.cluster.shard import Shard

FEW = settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch) -> OneProcessRay:
    return stand_in(monkeypatch)


@pytest.fixture
def number(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return lambda: tmp_path_factory.mktemp("shards")


def compare(one: HammingIndex, many: ShardedIndex, rng: np.random.Generator) -> None:
    """Every search of both, with every kind of filter."""
    width, queries = one.bits // 8, int(rng.integers(0, 5))
    packed = rng.integers(0, 4, (queries, width), np.uint8)
    real = rng.random((queries, one.bits)).astype(rng.choice([np.float32, np.float64]))
    k, radius = int(rng.integers(1, 20)), int(rng.integers(0, 3 * one.bits))
    mask = rng.random(len(one)) < rng.choice([0.0, 0.05, 0.5])
    some = rng.permutation(2000)[:50]
    for filter in (None, mask, some, torch.from_numpy(one.ids[mask])):
        assert_same(many.search(packed, k, filter), one.search(packed, k, filter))
        assert_same(many.range_search(packed, radius, filter), one.range_search(packed, radius, filter))
        for rescore in (1, 3, 1000, "all"):
            expected = one.search(real, k, filter, rescore)
            assert_same(many.search(real, k, filter, rescore), expected)
    assert_same(many.search(real, k), one.search(real, k))
    if queries:
        assert_same(many.search(packed[0], k), one.search(packed[0], k))
    assert_same([many.ids], [one.ids])
    assert len(many) == len(one)


@FEW
@given(st.integers(0, 2**32), st.integers(1, 7), st.booleans(), st.integers(1, 4))
def test_split_shards_give_what_one_index_gives(
    ray: OneProcessRay, number: Any, seed: int, shards: int, weighted: bool, batch: int
) -> None:
    one, folder = made_index(seed % 50, weighted=weighted), number()
    one.split(folder, shards, progress=False)
    with pytest.MonkeyPatch.context() as patch, ShardedIndex(folder) as many:
        patch.setattr(module, "_BATCH", batch)
        assert (many.bits, many.bit_weights, len(many.shards)) == (one.bits, one.bit_weights, shards)
        compare(one, many, np.random.default_rng(seed))


@FEW
@given(st.integers(0, 2**32), st.integers(1, 4))
def test_segments_of_one_folder_give_what_it_gives(ray: OneProcessRay, number: Any, seed: int, shards: int) -> None:
    one, folder = made_index(seed % 50), number()
    one.save(folder)
    segments = len(HammingIndex.open(folder)._contents.segments)
    with ShardedIndex(folder, min(shards, segments)) as many:
        compare(one, many, np.random.default_rng(seed))
    with ShardedIndex(folder) as many:
        assert len(many.shards) == segments


@FEW
@given(st.integers(0, 2**32), st.integers(1, 5), st.booleans(), st.integers(1, 3))
def test_changes_give_what_one_index_gives(
    ray: OneProcessRay, number: Any, seed: int, shards: int, keyed: bool, replicas: int
) -> None:
    """Adds and removes in both, with replicas that see them at once; the folders hold them."""
    rng, folder = np.random.default_rng(seed), number()
    one = made_index(seed % 50, rows=40, keyed=keyed)
    one.split(folder, shards, progress=False)
    options = {"replicas": replicas, "writable": True}
    with ShardedIndex(folder, **options) as many:
        for step in range(6):
            count = int(rng.integers(0, 6))
            codes, ids = rng.integers(0, 4, (count, 3), np.uint8), None
            if rng.random() < 0.5:
                ids = np.setdiff1d(rng.permutation(4000)[:count], one.ids)
                codes = codes[: len(ids)]
            keys = [f"new {step} {row}" for row in range(len(codes))] if keyed else None
            assert_same([many.add(codes, ids, keys=keys)], [one.add(codes, ids, keys=keys)])
            gone = rng.permutation(one.ids)[: int(rng.integers(0, 5))]
            if keyed and rng.random() < 0.5:
                names = [*one.keys_of(gone), "unknown"]
                assert many.remove(keys=names) == one.remove(keys=names)
            else:
                assert many.remove([*gone, *gone, 10**6]) == one.remove([*gone, *gone, 10**6])
            query = rng.integers(0, 4, (2, 3), np.uint8)
            for _ in range(replicas):  # each of them answers once
                assert_same(many.search(query, 9), one.search(query, 9))
            if keyed and len(one):
                assert many.search(query, 9).keys.tolist() == one.search(query, 9).keys.tolist()
        assert_same([many.get(one.ids)], [one.get(one.ids)])
    with ShardedIndex(folder, writable=True) as many:
        compare(one, many, rng)
        assert_same([many.add(codes[:0])], [one.add(codes[:0])])
        keys = ["last"] if keyed else None
        assert many.add(np.ones((1, 3), np.uint8), keys=keys) == one.add(np.ones((1, 3), np.uint8), keys=keys)


def test_code_scale_goes_with_the_codes(ray: OneProcessRay, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    one = HammingIndex(16)
    codes, scale = rng.integers(0, 256, (60, 2), np.uint8), rng.random(60).astype(np.float16)
    one.add(codes, code_scale=scale)
    one.split(tmp_path, 3, progress=False)
    queries = rng.normal(size=(4, 16)).astype(np.float32)
    with ShardedIndex(tmp_path, writable=True) as many:
        many.add(codes[:5], code_scale=scale[:5])
        one.add(codes[:5], code_scale=scale[:5])
        for metric in ("dot", "cosine", "l2"):
            found = many.search(queries, 7, rescore="all", metric=metric)
            assert_same(found, one.search(queries, 7, rescore="all", metric=metric))
        with pytest.raises(
            ValueError, match=r"^ShardedIndex.add: the codes of this index have a code_scale each, got none"
        ):
            many.add(codes[:1])


def test_tensors_give_tensors(ray: OneProcessRay, tmp_path: Path) -> None:
    one = made_index(1)
    one.split(tmp_path, 2, progress=False)
    with ShardedIndex(tmp_path) as many:
        packed = torch.zeros((2, 3), dtype=torch.uint8)
        assert_same(many.search(packed, 3), one.search(packed, 3))
        real = torch.rand(2, 24, dtype=torch.bfloat16)
        assert_same(many.search(real, 3, rescore=2), one.search(real, 3, rescore=2))
        assert_same([many.get(torch.from_numpy(one.ids[:3]))], [one.get(torch.from_numpy(one.ids[:3]))])


def test_keys_of_results_filters_and_reading(ray: OneProcessRay, tmp_path: Path) -> None:
    one = made_index(2, keyed=True)
    one.split(tmp_path, 3, progress=False)
    query, some = np.zeros((2, 3), np.uint8), [f"key {id}" for id in one.ids[::7]] + ["unknown"]
    with ShardedIndex(tmp_path) as many:
        found = many.search(query, 4, some)
        assert found.keys.tolist() == one.search(query, 4, some).keys.tolist()
        assert pickle.loads(pickle.dumps(found)).keys.tolist() == found.keys.tolist()
        assert many.range_search(query, 2).keys.tolist() == one.range_search(query, 2).keys.tolist()
        assert_same([many.ids_of(some)], [one.ids_of(some)])
        assert many.keys_of([[one.ids[0], 10**6]]).tolist() == [[f"key {one.ids[0]}", None]]
        assert_same([many.get(keys=some[:3])], [one.get(keys=some[:3])])
        assert some[0] in many
        assert "unknown" not in many
        with pytest.raises(KeyError, match=r"ShardedIndex.get: no code has key 'unknown' \(1 of 2 keys are unknown\)"):
            many.get(keys=[some[0], "unknown"])


def test_ids_in_it(ray: OneProcessRay, tmp_path: Path) -> None:
    one = made_index(3)
    one.split(tmp_path, 2, progress=False)
    with ShardedIndex(tmp_path) as many:
        assert int(one.ids[-1]) in many
        assert 10**6 not in many
        assert -1 not in many
        assert 1.5 not in many
        assert many.search(np.zeros((1, 3), np.uint8), 2).keys is None
        with pytest.raises(KeyError, match=r"ShardedIndex.get: no code has id 1000000 \(1 of 2 ids are unknown\)"):
            many.get([int(one.ids[0]), 10**6])


# Replicas, and shards without an answer


@pytest.mark.parametrize("error", [ActorDiedError(), IndexFolderError("damaged"), OSError("disk"), MemoryError("full")])
def test_a_replica_answers_for_another(ray: OneProcessRay, tmp_path: Path, error: BaseException) -> None:
    one, many = split_in_two(tmp_path, ray, replicas=2)
    query = np.zeros((1, 3), np.uint8)
    ray.before = failing((ray.actors[0], error), (ray.actors[3], error))
    for _ in range(4):
        assert_same(many.search(query, 9), one.search(query, 9))


@pytest.mark.parametrize("error", [ActorUnavailableError(), RayError("lost")])
def test_a_replica_that_comes_back_answers(ray: OneProcessRay, tmp_path: Path, error: BaseException) -> None:
    one, many = split_in_two(tmp_path, ray)
    left = [3]

    def before(actor: Shard, name: str) -> None:
        left[0] -= 1
        if left[0] >= 0:
            raise error

    ray.before = before
    query = np.zeros((1, 3), np.uint8)
    assert_same(many.search(query, 9), one.search(query, 9))


FAULTS = [
    (ActorDiedError(), "ActorDiedError, its actor is gone"),
    (IndexFolderError("/a/b: damaged"), "/a/b: damaged"),
    (OSError("no disk"), "no disk"),
    (RayError("lost"), "RayError, its actor is gone"),
]


@pytest.mark.parametrize(("error", "why"), FAULTS)
def test_a_part_is_never_passed_off_as_whole(
    ray: OneProcessRay, tmp_path: Path, error: BaseException, why: str
) -> None:
    one, many = split_in_two(tmp_path, ray)
    ray.before = failing((ray.actors[1], error))
    query, name = np.zeros((3, 3), np.uint8), str(tmp_path / "shard-00001")
    message = f"^ShardedIndex.search: no answer from 1 of 2 shards \\({name}: {why}\\)$"
    with pytest.raises(ShardError, match=message) as raised:
        many.search(query, 9)
    assert raised.value.missing == {name: why}
    assert pickle.loads(pickle.dumps(raised.value)).missing == {name: why}
    for call in (many.range_search, many.search):
        found = call(query, 9, partial="allow")
        assert found.missing == {name: why}
    part = HammingIndex.open(tmp_path / "shard-00000")
    assert_same(many.search(query, 9, partial="allow"), part.search(query, 9))
    assert_same(many.range_search(query, 9, partial="allow"), part.range_search(query, 9))
    real = np.random.default_rng(0).random((2, 24)).astype(np.float32)
    assert_same(many.search(real, 9, rescore=2, partial="allow"), part.search(real, 9, rescore=2))
    for incomplete in (lambda: many.ids, lambda: many.get([1]), lambda: len(many), lambda: 5 in many):
        with pytest.raises(ShardError):
            incomplete()
    told = many.stats()
    assert [own.error for own in told] == ["", why]
    assert told[0].codes == len(part)
    ray.before = failing()
    assert_same(many.search(query, 9), one.search(query, 9))
    assert many.search(query, 9, partial="allow").missing == {}


def test_without_any_answer_all_places_are_missing(ray: OneProcessRay, tmp_path: Path) -> None:
    _one, many = split_in_two(tmp_path, ray)
    ray.before = failing(*((actor, OSError("no disk")) for actor in ray.actors))
    nothing = HammingIndex(24)
    for queries in (np.zeros((3, 3), np.uint8), np.zeros((2, 24), np.float32)):
        for rescore in (0, 2, "all") if queries.dtype == np.float32 else (0,):
            found = many.search(queries, 4, rescore=rescore, partial="allow")
            assert_same(found, nothing.search(queries, 4, rescore=rescore))
            assert len(found.missing) == 2
    assert_same(many.range_search(queries, 4, partial="allow"), nothing.range_search(queries, 4))


def test_the_deadline_is_an_error_that_says_so(ray: OneProcessRay, tmp_path: Path) -> None:
    _, many = split_in_two(tmp_path, ray)
    ray.before = failing((ray.actors[0], Late()))
    query = np.zeros((1, 3), np.uint8)
    with pytest.raises(ShardTimeout, match=r"no answer from 1 of 2 shards \(.*shard-00000: no answer within 0.5 s\)"):
        many.search(query, 2, timeout=0.5)
    assert issubclass(ShardTimeout, TimeoutError)
    found = many.search(query, 2, timeout=0.5, partial="allow")
    assert list(found.missing.values()) == ["no answer within 0.5 s"]


def test_a_bug_in_a_shard_is_not_hidden(ray: OneProcessRay, tmp_path: Path) -> None:
    _, many = split_in_two(tmp_path, ray, replicas=2)
    ray.before = failing((ray.actors[0], ZeroDivisionError("bug")), (ray.actors[1], ZeroDivisionError("bug")))
    with pytest.raises(RayError, match="bug"):
        many.search(np.zeros((1, 3), np.uint8), 2, partial="allow")


def test_a_damaged_shard_is_named_and_found_again_when_repaired(ray: OneProcessRay, tmp_path: Path) -> None:
    one = made_index(5)
    one.split(tmp_path, 3, progress=False)
    broken = tmp_path / "shard-00001" / "manifest.json"
    text = broken.read_bytes()
    broken.write_bytes(text[:-20])
    with ShardedIndex(tmp_path, writable=True) as many:
        query = np.zeros((1, 3), np.uint8)
        with pytest.raises(ShardError, match=r"no answer from 1 of 3 shards \(.*shard-00001: .*manifest.json"):
            many.search(query, 4)
        assert list(many.search(query, 4, partial="allow").missing) == [str(tmp_path / "shard-00001")]
        with pytest.raises(ShardError, match=r"^ShardedIndex.add: .*manifest.json"):
            many.add(query)
        broken.write_bytes(text)
        assert_same([many.add(query)], [one.add(query)])
        assert_same(many.search(query, 4), one.search(query, 4))


def test_verify_names_the_damaged_shards(ray: OneProcessRay, tmp_path: Path) -> None:
    made_index(5).split(tmp_path, 3, progress=False)
    with ShardedIndex(tmp_path) as many:
        many.verify()
        segment = next((tmp_path / "shard-00002").glob("segment-*"))
        data = bytearray(segment.read_bytes())
        data[-1] ^= 1
        segment.write_bytes(data)
        with pytest.raises(
            ShardError, match=r"^ShardedIndex.verify: no answer from 1 of 3 shards \(.*shard-00002"
        ) as raised:
            many.verify()
        assert "damaged" in str(raised.value)


# Other states of the folders


def test_refresh_sees_another_writer(ray: OneProcessRay, tmp_path: Path) -> None:
    one, many = split_in_two(tmp_path, ray, replicas=2)
    query = np.full((1, 3), 2, np.uint8)
    assert not many.refresh()
    with HammingIndex.open(tmp_path / "shard-00000", writable=True) as writer:
        ids = writer.add(np.full((4, 3), 2, np.uint8))
    one.add(np.full((4, 3), 2, np.uint8), ids=ids)
    assert many.refresh()
    for _ in range(2):
        assert_same(many.search(query, 30), one.search(query, 30))


def test_refresh_shares_out_segments_again(ray: OneProcessRay, tmp_path: Path) -> None:
    one, query = made_index(6), np.full((1, 3), 2, np.uint8)
    one.save(tmp_path)
    with ShardedIndex(tmp_path, 3) as many:
        before = one.search(query, 500)
        with HammingIndex.open(tmp_path, writable=True) as writer:
            gone = one.ids[::3]
            assert writer.remove(gone) == one.remove(gone)
            writer.compact()
        assert_same(many.search(query, 500), before)
        assert many.refresh()
        assert_same(many.search(query, 500), one.search(query, 500))
        ray.actors[-1]._views.clear()  # it was restarted
        assert_same(many.search(query, 500), one.search(query, 500))


def test_a_restarted_actor_finds_its_segments_gone(ray: OneProcessRay, tmp_path: Path) -> None:
    one = made_index(6)
    one.save(tmp_path)
    with ShardedIndex(tmp_path, 3) as many:
        with HammingIndex.open(tmp_path, writable=True) as writer:
            writer.compact()
        ray.actors[0]._views.clear()
        with pytest.raises(ShardError, match="segments were given to shards; refresh the ShardedIndex"):
            many.search(np.zeros((1, 3), np.uint8), 1)
        many.refresh()
        assert_same(many.search(np.zeros((1, 3), np.uint8), 9), one.search(np.zeros((1, 3), np.uint8), 9))


def test_a_writer_waits_for_the_death_of_the_one_before(
    ray: OneProcessRay, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made_index(6).split(tmp_path, 2, progress=False)
    writer = HammingIndex.open(tmp_path / "shard-00000", writable=True)
    monkeypatch.setattr("fasthash.cluster.shard.time.sleep", lambda seconds: writer.close())
    with ShardedIndex(tmp_path, writable=True) as many:
        many.add(np.zeros((1, 3), np.uint8))
    monkeypatch.setattr("fasthash.cluster.shard._LOCK_SECONDS", -1)
    with (
        HammingIndex.open(tmp_path / "shard-00000", writable=True),
        HammingIndex.open(tmp_path / "shard-00001", writable=True),
        pytest.raises(ShardError, match="another writer has it open"),
    ):
        ShardedIndex(tmp_path, writable=True)


def test_one_allocator_of_ids(ray: OneProcessRay, tmp_path: Path) -> None:
    """The highest ids were removed, in a shard that is not the one that gets the next codes."""
    one = made_index(7)
    top = int(one.ids[-1])
    one.split(tmp_path, 3, progress=False)
    with ShardedIndex(tmp_path, writable=True) as many:
        for index in (one, many):
            index.remove([top])
            assert index.add(np.zeros((2, 3), np.uint8)).tolist() == [
                one._contents.next_id - 2,
                one._contents.next_id - 1,
            ]
    with ShardedIndex(tmp_path, writable=True) as many:
        assert_same([many.add(np.zeros((2, 3), np.uint8))], [one.add(np.zeros((2, 3), np.uint8))])


def test_options_of_the_actors(ray: OneProcessRay, tmp_path: Path) -> None:
    made_index(7).split(tmp_path, 2, progress=False)
    ShardedIndex(tmp_path, threads=3, options=[{"num_cpus": 0.5}, {"resources": {"rack": 1}}])
    assert [own["num_cpus"] for own in ray.options] == [0.5, 3]
    assert [own["max_restarts"] for own in ray.options] == [-1, -1]
    assert ray.options[1]["resources"] == {"rack": 1}
    ShardedIndex(tmp_path, replicas=2, device="cpu", options={"num_cpus": 0.5})
    assert ray.options[-1]["scheduling_strategy"] == ([{"CPU": 0.5}] * 2, "SPREAD")
    ShardedIndex(tmp_path, replicas=2, options={"scheduling_strategy": "DEFAULT"})
    assert ray.options[-1]["scheduling_strategy"] == "DEFAULT"


def wrong_source(path: Path) -> list[tuple[Any, dict[str, Any], type[Exception], str]]:
    split, plain, other, damaged = path / "split", path / "plain", path / "other", path / "damaged"
    made_index(8).split(split, 2, progress=False)
    made_index(8).save(plain)
    HammingIndex(16).save(other)
    made_index(8, weighted=True).save(path / "weighted")
    damaged.mkdir()
    (damaged / "shards.json").write_text('{"format": "fasthash-shards", "version": 2}')
    (path / "empty").mkdir()
    return [
        (path / "nothing", {}, IndexFolderError, "no shards of an index: it has no shards.json"),
        (path / "empty", {}, IndexFolderError, "no shards of an index: it has no shards.json"),
        (damaged, {}, IndexFolderError, "shards.json: version 2 is not known, only 1 is"),
        ([], {}, ValueError, "source must be 1 to 10000 folders, got 0"),
        ([plain, plain], {}, ValueError, "a folder can be one shard only, got one twice"),
        ([plain, other], {}, IndexFolderError, "other: its bits are 16, those of .*plain are 24"),
        ([plain, path / "weighted"], {}, IndexFolderError, r"weighted: its bit_weights are .*, those of .* are \(\)"),
        (
            plain,
            {"writable": True},
            ValueError,
            "is one index and cannot be opened for writing; split it with HammingIndex.split",
        ),
        (plain, {"shards": 9}, ValueError, r"shards must be at most the 3 segments of .*plain, got shards=9"),
        (plain, {"shards": 0}, ValueError, "shards must be at least 1, got 0"),
        (split, {"shards": 2}, ValueError, "shards needs one index folder, got 2 folders"),
        (split, {"replicas": 0}, ValueError, "replicas must be at least 1, got 0"),
        (split, {"threads": 0}, ValueError, "threads must be at least 1, got 0"),
        (split, {"method": "fast"}, ValueError, "method must be 'auto', 'mih' or 'scan', got 'fast'"),
        (split, {"timeout": 0}, ValueError, "timeout must be seconds > 0 .*, got 0"),
        (split, {"timeout": math.nan}, ValueError, "timeout must be seconds > 0 .*, got nan"),
        (split, {"options": [{}]}, ValueError, "options must be a dict, or one for each of the 2 shards"),
    ]


def test_wrong_arguments_of_the_index(ray: OneProcessRay, tmp_path: Path) -> None:
    for source, options, kind, message in wrong_source(tmp_path):
        with pytest.raises(kind, match=message):
            ShardedIndex(source, **options)


def test_wrong_arguments_of_its_methods(ray: OneProcessRay, tmp_path: Path) -> None:
    _one, many = split_in_two(tmp_path, ray)
    query = np.zeros((1, 3), np.uint8)
    for call, kind, message in [
        (lambda: many.search(query[:, :2], 1), ValueError, "search: queries"),
        (lambda: many.search(query, 0), ValueError, "search: k must be at least 1, got 0"),
        (lambda: many.search(query, 1, rescore=2), ValueError, r"search: rescore needs real-valued queries \[Q, 24\]"),
        (lambda: many.search(query, 1, partial="yes"), ValueError, "search: partial must be 'refuse' or 'allow'"),
        (lambda: many.search(query, 1, timeout=-1), ValueError, "search: timeout must be seconds > 0"),
        (lambda: many.search(query, 1, np.ones(3, bool)), ValueError, r"search: a boolean filter must .* shape \(3,\)"),
        (lambda: many.search(query, 1, [1, 1, 0]), TypeError, "search: filter is ambiguous: it holds only 0 and 1"),
        (lambda: many.search(query, 1, [0.5]), TypeError, "search: filter must be integers, got float64"),
        (lambda: many.search(query, 1, ["a"]), ValueError, "search: the codes of the index have no keys"),
        (lambda: many.range_search(query, -1), ValueError, "range_search: radius must be at least 0, got -1"),
        (lambda: many.get(), ValueError, "get: either ids or keys must be given, got none"),
        (lambda: many.get(keys=["a"]), ValueError, "ids_of: the codes of the index have no keys"),
        (lambda: many.add(query), ValueError, "add: the index is open for reading; open it with writable=True"),
        (lambda: many.add(query[:, :2]), ValueError, "add: codes"),
        (lambda: many.remove([1]), ValueError, "remove: the index is open for reading"),
        (lambda: many.remove(), ValueError, "remove: either ids or keys must be given, got none"),
    ]:
        with pytest.raises(kind, match=f"^ShardedIndex.{message}"):
            call()


def test_without_ray_the_error_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made_index(8).split(tmp_path, 2, progress=False)
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with pytest.raises(ImportError, match=r"^ShardedIndex: needs ray: pip install 'fasthash\[ray\]'"):
        ShardedIndex(tmp_path)
