"""Keys of a HammingIndex: texts beside ids, against a dict; odd ones, equal hashes, and every refusal."""

from __future__ import annotations

import copy
import pickle
import re
import threading
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from index_folders import content, random_codes, read_manifest

from fasthash.index import HammingIndex, IndexFolderError, key_texts, keys, merge
from fasthash.index.key_texts import key_rows
from fasthash.index.keys import Keys, repeated_key

ODD = [
    "a",
    "\0",
    "a\0",
    "a\0\0",
    " a ",
    "a\nb",
    "ü",
    unicodedata.normalize("NFD", "ü"),
    "日本語.jpg",
    "😀",
    "x" * 10_000,
    "x" * 9_999 + "y",
    "-1",
    "7",
]


@pytest.fixture(params=[0, 8])
def few(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """How many keys are looked up one by one."""
    monkeypatch.setattr(keys, "_FEW", request.param)


@pytest.fixture
def weak_hash(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hash by which most keys are equal, of all 64 bits."""
    monkeypatch.setattr(key_texts, "_hash", lambda data: (len(data) % 3) * (2**63 - 1))


PLACES = ("memory", "devices", "disk", "loaded")


def made(place: str, folder: Path, codes: Any, names: Any, ids: Any = None) -> HammingIndex:
    """An index of 64 bits in memory, or opened for writing."""
    if place in ("memory", "devices"):
        index = HammingIndex(64, device=["cpu"] if place == "devices" else "cpu")
    else:
        HammingIndex(64).save(folder)
        index = HammingIndex.open(folder, writable=True, mmap=place == "disk")
    index.add(codes, ids, keys=names)
    return index


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.usefixtures("few")
def test_results_have_the_keys_of_their_ids(place: str, tmp_path: Path) -> None:
    codes = random_codes(300)
    names = [f"photo {number}.jpg" for number in range(300)]
    ids = np.random.default_rng(0).permutation(1000)[:300]
    index = made(place, tmp_path / "index", codes, names, ids)
    by_id = dict(zip(ids.tolist(), names, strict=True))
    found = index.search(codes[:20], 5)
    distances, nearest = found  # still a pair
    assert found.keys.shape == (20, 5)
    assert found.keys.dtype == object
    assert found.keys.tolist() == [[by_id[id] for id in row] for row in nearest.tolist()]
    assert found.keys[:, 0].tolist() == names[:20]
    assert (distances[:, 0] == 0).all()
    within = index.range_search(codes[:20], 25)
    assert within.keys.tolist() == [by_id[id] for id in within.ids.tolist()]
    assert len(within.keys) == len(within.ids) > 20
    few_of_many = index.search(codes[:2], 400)
    assert few_of_many.keys[:, 300:].tolist() == [[None] * 100] * 2
    tensors = index.search(torch.from_numpy(codes[:20]), 5)
    assert isinstance(tensors.ids, torch.Tensor)
    assert tensors.keys.tolist() == found.keys.tolist()
    assert index.search(codes[:0], 3).keys.shape == (0, 3)
    rescored = index.search(np.unpackbits(codes[:3], axis=1).astype(np.float32), 2, rescore=3)
    assert rescored.keys[:, 0].tolist() == names[:3]
    assert index.get(keys=names[::7]).tolist() == codes[::7].tolist()
    assert index.ids_of(names).tolist() == ids.tolist()
    assert index.keys_of(ids).tolist() == names
    assert index.keys_of([5000, int(ids[0])]).tolist() == [None, names[0]]
    assert "photo 7.jpg" in index
    assert "photo 300.jpg" not in index
    assert int(ids[3]) in index


def test_an_index_without_keys_has_none() -> None:
    index = HammingIndex(64)
    index.add(random_codes(20))
    assert not index.keyed
    assert index.search(random_codes(2), 3).keys is None
    assert index.range_search(random_codes(2), 30).keys is None
    assert index.keys_of([0, 1]).tolist() == [None, None]
    assert "0" not in index
    for call in (
        lambda: index.add(random_codes(2), keys=["a", "b"]),
        lambda: index.get(keys=["a"]),
        lambda: index.remove(keys=["a"]),
        lambda: index.ids_of(["a"]),
        lambda: index.search(random_codes(1), 1, filter=["a"]),
    ):
        with pytest.raises(ValueError, match="have no keys"):
            call()
    assert len(index) == 20


@pytest.mark.parametrize("place", PLACES)
def test_replacing_removes_the_old_row_in_one_transaction(place: str, tmp_path: Path) -> None:
    folder = tmp_path / "index"
    index = made(place, folder, random_codes(5), list("abcde"), [10, 11, 12, 13, 14])
    before = read_manifest(folder)["generation"] if place == "disk" else 0
    with pytest.raises(ValueError, match=re.escape("add: key 'c' is in the index already; replace=True replaces it")):
        index.add(random_codes(2, seed=1), keys=["x", "c"])
    assert "x" not in index
    new = random_codes(2, seed=1)
    assert index.add(new, keys=["x", "c"], replace=True).tolist() == [15, 16]
    if place == "disk":
        assert read_manifest(folder)["generation"] == before + 1
    assert index.ids.tolist() == [10, 11, 13, 14, 15, 16]
    assert index.get(keys=["c", "x"]).tolist() == new[::-1].tolist()
    assert index.add(new[:1], [12], keys=["c"], replace=True).tolist() == [12]  # the id is free, the key comes along
    # an id of one code and the key of another: both go
    index.add(new[:1], [10], keys=["e"], replace=True)
    assert index.ids_of(list("abcde")).tolist() == [-1, 11, 12, 13, 10]
    assert len(index) == 5
    index.add(new, [30, 31], keys=["e", "b"], replace=True)
    assert index.ids.tolist() == [12, 13, 15, 30, 31]


def test_a_key_that_was_removed_may_be_used_again() -> None:
    index = made("memory", Path(), random_codes(3), ["a", "b", "c"])
    assert index.remove(keys=["b", "nobody", "b"]) == 1
    assert "b" not in index
    index.add(random_codes(1), keys=["b"])
    assert index.ids_of("b").tolist() == [3]
    assert index.remove([3]) == 1
    assert "b" not in index
    assert index.remove(keys="a") == 1  # one text is one key


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.usefixtures("few")
def test_odd_keys(place: str, tmp_path: Path) -> None:
    codes = random_codes(len(ODD))
    index = made(place, tmp_path / "index", codes, ODD)
    index.add(random_codes(1), keys=["y" * 2**20])
    index.compact()
    assert index.keys_of(index.ids[:-1]).tolist() == ODD
    assert index.search(codes, 1).keys[:, 0].tolist() == ODD
    assert index.ids_of(ODD).tolist() == list(range(len(ODD)))
    assert all(key in index for key in ODD)
    assert not any(key in index for key in ("", "A", "a ", "\0\0", "x" * 9_999, "\ud800", "u"))
    assert index.remove(keys=[unicodedata.normalize("NFD", "ü")]) == 1
    assert "ü" in index  # equal after normalisation, and another key


@pytest.mark.parametrize(
    ("names", "kind", "message"),
    [
        (["a", "", "c"], ValueError, "a key must have 1 to 1048576 bytes in UTF-8, got 0 in key 1"),
        (["a", "x" * (2**20 + 1), "c"], ValueError, "got 1048577 in key 1"),
        (["a", "b", "\udcff.txt"], ValueError, r"got a lone surrogate in key 2, '\\udcff.txt'"),
        (["a", b"b", "c"], TypeError, r"keys must be texts \(str\), got bytes in key 1"),
        (["a", None, "c"], TypeError, "got NoneType in key 1"),
        ([1, 2, 3], TypeError, "got int in key 0"),
        (np.arange(3), TypeError, "got int in key 0"),
        (b"abc", TypeError, "keys must be a list or an array of texts, got bytes"),
        ({"a", "b", "c"}, TypeError, "keys must be a list or an array of texts, got set"),
        (7, TypeError, "keys must be a list or an array of texts, got int"),
        (np.array([["a"], ["b"], ["c"]]), ValueError, r"keys must be one-dimensional, got shape \(3, 1\)"),
        (["a", "b"], ValueError, "3 codes need 3 keys, got 2"),
        ("abc", ValueError, "3 codes need 3 keys, got 1"),
        ([], ValueError, "3 codes need 3 keys, got 0"),
        (["b", "a", "b"], ValueError, "keys must be distinct, got 'b' more than once"),
        (["x", "y" * 200, "y" * 200], ValueError, r"keys must be distinct, got 'y+\.\.\. more than once"),
        (None, ValueError, "the index has keys, so 3 codes need keys=, got None"),
        (["x", "old", "y"], ValueError, "key 'old' is in the index already; replace=True replaces it"),
    ],
)
@pytest.mark.parametrize("place", ["memory", "disk"])
def test_what_add_refuses(place: str, names: Any, kind: type, message: str, tmp_path: Path) -> None:
    index = made(place, tmp_path / "index", random_codes(1), ["old"])
    before = content(index)
    with pytest.raises(kind, match=f"^HammingIndex.add: .*{message}"):
        index.add(random_codes(3, seed=1), keys=names)
    assert content(index) == before
    if place == "disk":
        assert content(HammingIndex.open(tmp_path / "index")) == before


def test_what_other_methods_refuse() -> None:
    index = made("memory", Path(), random_codes(2), ["a", "b"])
    with pytest.raises(KeyError, match=r"HammingIndex.get: no code has key 'c' \(2 of 3 keys are unknown\)"):
        index.get(keys=["a", "c", "d"])
    with pytest.raises(KeyError, match=r"HammingIndex.get: no code has id 9 \(1 of 2 ids are unknown\)"):
        index.get([0, 9])
    with pytest.raises(KeyError, match=r"no code has key 'c' \(1 of 2 keys are unknown\)"):
        index.get(keys=iter(["a", "c"]))
    for name, call in (("get", index.get), ("remove", index.remove)):
        with pytest.raises(ValueError, match=f"HammingIndex.{name}: either ids or keys must be given, got both"):
            call([0], keys=["a"])
        with pytest.raises(ValueError, match=f"HammingIndex.{name}: either ids or keys must be given, got none"):
            call()
        with pytest.raises(TypeError, match=f"HammingIndex.{name}: keys must be texts"):
            call(keys=[1])
    with pytest.raises(ValueError, match=r"HammingIndex.search: a key must have 1 to"):
        index.search(random_codes(1), 1, filter=["a", ""])
    assert len(index) == 2


def columns(names: list[str]) -> Iterator[Any]:
    yield names
    yield tuple(names)
    yield np.array(names)
    yield np.array(names, object)
    for library, make in (
        ("pandas", lambda pandas: pandas.Series(names, index=np.arange(len(names))[::-1])),
        ("pandas", lambda pandas: pandas.Index(names)),
        ("pandas", lambda pandas: pandas.Series(names, dtype="category").astype(str)),
        ("polars", lambda polars: polars.Series(names)),
        ("pyarrow", lambda arrow: arrow.array(names)),
        ("pyarrow", lambda arrow: arrow.chunked_array([names[:2], names[2:]])),
    ):
        yield make(pytest.importorskip(library))
    if hasattr(np.dtypes, "StringDType"):
        yield np.array(names, np.dtypes.StringDType())


def test_texts_of_any_library() -> None:
    names = [f"naïve {number}" for number in range(9)]
    codes = random_codes(9)
    for column in columns(names):
        index = HammingIndex(64)
        index.add(codes, keys=column)
        assert index.keys_of(index.ids).tolist() == names, type(column)
        few = column[2:5]
        assert sorted(index.search(codes[:1], 9, filter=few).keys[0, :3]) == names[2:5], type(column)
        assert (index.search(codes[:1], 9, filter=few).ids[0, 3:] == -1).all()
        assert index.get(keys=few).tolist() == codes[2:5].tolist()
        assert index.remove(keys=few) == 3
    index = HammingIndex(64)
    index.add(codes, keys=iter(names))
    assert index.keys_of(index.ids).tolist() == names


@pytest.mark.parametrize("place", PLACES)
def test_filters_by_keys(place: str, tmp_path: Path) -> None:
    codes = random_codes(200)
    index = made(place, tmp_path / "index", codes, [f"k{number}" for number in range(200)], np.arange(200) * 3)
    index.remove(keys=["k5"])
    allowed = ["k7", "k5", "unknown", "k7", "k100"]
    expected = index.search(codes[:4], 3, filter=[21, 300])
    found = index.search(codes[:4], 3, filter=allowed)
    np.testing.assert_array_equal(found.ids, expected.ids)
    assert {key for row in found.keys for key in row} == {"k7", "k100", None}
    within = index.range_search(codes[:4], 64, filter=np.array(allowed))
    assert len(within.ids) == 8
    for nothing in (["unknown"], np.array([], np.str_)):
        assert (index.search(codes[:4], 3, filter=nothing).ids == -1).all()
    assert index.search(codes[7:8], 1, filter="k7").keys.tolist() == [["k7"]]


@pytest.mark.usefixtures("weak_hash", "few")
def test_keys_of_equal_hashes_are_told_apart(tmp_path: Path) -> None:
    names = ["".join(chr(97 + (number >> shift) % 16) for shift in (0, 4, 8)) for number in range(60)]
    names += [f"{name}longer" for name in names]
    index = made("disk", tmp_path / "index", random_codes(120), names)
    assert index.ids_of(names).tolist() == list(range(120))
    assert index.ids_of(["aab", "zzz", "aablonger!"]).tolist() == [names.index("aab") if "aab" in names else -1, -1, -1]
    assert all(name in index for name in names)
    assert "zzz" not in index
    with pytest.raises(ValueError, match="key 'baalonger' is in the index already"):
        index.add(random_codes(2), keys=["new", "baalonger"])
    with pytest.raises(ValueError, match="keys must be distinct, got 'n' more than once"):
        index.add(random_codes(4), keys=["n", "o", "p", "n"])
    index.verify()


def test_repeated_keys_are_found_whatever_the_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"{number}" for number in range(500)]
    for weak in (False, True):
        if weak:
            monkeypatch.setattr(key_texts, "_hash", lambda data: (data[-1] & 15) << 60)
        tables = [(Keys.of(key_rows(part, "f")), None) for part in (names[:200], names[200:])]
        again = (Keys.of(key_rows(["x", "317"], "f")), None)
        gone = (again[0], lambda rows: rows != 1)
        for at_once in (1, 7, 100, 1 << 21):
            assert repeated_key(tables, at_once) is None
            assert repeated_key([*tables, again], at_once) == "317"
            assert repeated_key([*tables, gone], at_once) is None


NAMES = st.integers(0, 12).map(lambda number: ["a", "b\0", "ü", "z" * 300][number % 4] * (number // 4 + 1))
STEP = st.one_of(
    st.tuples(st.just("add"), st.lists(NAMES, min_size=1, max_size=6, unique=True), st.booleans()),
    st.tuples(st.just("add ids"), st.lists(NAMES, min_size=1, max_size=6, unique=True), st.booleans()),
    st.tuples(st.just("remove keys"), st.lists(NAMES, max_size=4), st.none()),
    st.tuples(st.just("remove ids"), st.lists(st.integers(0, 40), max_size=4), st.none()),
    st.tuples(st.sampled_from(["compact", "reopen", "save", "tables"]), st.none(), st.none()),
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(STEP, max_size=14), place=st.sampled_from(PLACES), seed=st.integers(0, 3))
def test_any_sequence_of_changes(
    steps: list[Any], place: str, seed: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Against a dict of key -> (id, code)."""
    folder = tmp_path_factory.mktemp("keys") / "index"
    rng = np.random.default_rng(seed)
    model: dict[str, tuple[int, bytes]] = {"first": (0, bytes(8))}
    index, next_id = made(place, folder, np.zeros((1, 8), np.uint8), ["first"]), 1
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(merge, "MERGE_FAN", 3)
        patch.setattr(merge, "KEY_ROWS", 4)
        for what, names, replace in steps:
            if what in ("add", "add ids"):
                codes = rng.integers(0, 256, (len(names), 8), np.uint8)
                ids = next_id + np.arange(len(names))
                if what == "add ids":
                    ids = rng.permutation(40)[: len(names)]
                held = {id for id, _ in model.values()}
                taken = not held.isdisjoint(ids.tolist()) or any(name in model for name in names)
                given_ids = ids if what == "add ids" else None
                if taken and not replace:
                    with pytest.raises(ValueError, match="is in the index already"):
                        index.add(codes, given_ids, keys=names)
                    continue
                index.add(codes, given_ids, keys=names, replace=bool(replace))
                model = {k: v for k, v in model.items() if k not in names and v[0] not in ids.tolist()}
                model |= {k: (int(i), bytes(c)) for k, i, c in zip(names, ids, codes, strict=True)}
                next_id = max(next_id, int(ids.max()) + 1)
            elif what == "remove keys":
                assert index.remove(keys=names) == len(model.keys() & set(names))
                model = {key: value for key, value in model.items() if key not in names}
            elif what == "remove ids":
                assert index.remove(names) == len({id for id, _ in model.values()} & set(names))
                model = {key: value for key, value in model.items() if value[0] not in names}
            elif what == "compact":
                index.compact()
            elif index.path is None:
                index = pickle.loads(pickle.dumps(index)) if what == "reopen" else index.to("cpu")
            elif what == "reopen":
                index.close()
                index = HammingIndex.open(folder, writable=True, mmap=place == "disk")
            elif what == "save":
                HammingIndex.open(folder).save(folder.parent / "copy", overwrite=True)
                assert content(HammingIndex.open(folder.parent / "copy")) == content(index)
            else:
                index.build_mih()
            check(index, model)
    if index.path is not None:
        index.verify()
        check(HammingIndex.open(folder, mmap=False), model)


def check(index: HammingIndex, model: dict[str, tuple[int, bytes]]) -> None:
    assert index.keyed
    by_id = {id: key for key, (id, _) in model.items()}
    assert index.ids.tolist() == sorted(by_id)
    assert index.keys_of(index.ids).tolist() == [by_id[id] for id in sorted(by_id)]
    names = list(model)
    assert index.ids_of([*names, "nobody"]).tolist() == [*(model[name][0] for name in names), -1]
    assert list(map(bytes, index.get(keys=names))) == [model[name][1] for name in names]
    assert all(name in index for name in names)
    found = index.search(np.zeros((1, 8), np.uint8), 4)
    assert found.keys.tolist() == [[by_id.get(id) for id in found.ids[0].tolist()]]


def test_one_kind_of_index_for_ever(tmp_path: Path) -> None:
    """An index that has had keys takes no codes without them, not even when it is empty."""
    for place in PLACES:
        folder = tmp_path / place
        index = made(place, folder, random_codes(2), ["a", "b"])
        index.remove(keys=["a", "b"])
        assert index.keyed
        assert len(index) == 0
        assert "a" not in index
        assert index.search(random_codes(1), 2).keys.tolist() == [[None, None]]
        with pytest.raises(ValueError, match="the index has keys, so 1 codes need keys="):
            index.add(random_codes(1))
        assert index.to("cpu").keyed
        index.save(tmp_path / f"{place} copy")
        assert HammingIndex.open(tmp_path / f"{place} copy").keyed
        if index.path is not None:
            index.close()
            assert read_manifest(folder)["features"] == ["keys"]
            with HammingIndex.open(folder, writable=True) as again:
                with pytest.raises(ValueError, match="the index has keys"):
                    again.add(random_codes(1))
                again.add(random_codes(1), keys=["c"])
    empty = HammingIndex(64)
    empty.add(random_codes(0), keys=[])
    empty.add(random_codes(1))
    with pytest.raises(ValueError, match="the 1 codes of the index have no keys, so keys must be None"):
        empty.add(random_codes(1), keys=["a"])
    empty.remove([0])
    empty.add(random_codes(1), keys=["a"])
    assert empty.keyed


def test_results_can_be_shown_copied_and_pickled(tmp_path: Path) -> None:
    index = made("disk", tmp_path / "index", np.array([[1] * 8, [2] * 8], np.uint8), ["a", "b"])
    for found in (index.search(np.ones((1, 8), np.uint8), 1), index.range_search(np.ones((1, 8), np.uint8), 0)):
        assert repr(found).endswith("keys=" + repr(found.keys) + ")")
        assert repr(found).startswith(("SearchResult(distances=", "RangeResult(offsets="))
        for other in (copy.copy(found), copy.deepcopy(found), pickle.loads(pickle.dumps(found))):
            assert other.keys.tolist() == found.keys.tolist()
            assert type(other) is type(found)
            assert all((a == b).all() for a, b in zip(other, found, strict=True))
        assert found._replace(ids=found.ids * 0 + 1).keys.ravel().tolist() == ["b"]


def test_keys_of_a_result_are_those_of_its_search(tmp_path: Path) -> None:
    """They are read when they are asked for, of the state that was searched."""
    index = made("disk", tmp_path / "index", random_codes(3), ["a", "b", "c"])
    found = index.search(random_codes(3), 1)
    index.add(random_codes(3, seed=1), index.ids, keys=["x", "y", "z"], replace=True)
    index.compact()
    assert found.keys[:, 0].tolist() == ["a", "b", "c"]
    index.close()
    assert index.search(random_codes(3, seed=1), 1).keys[:, 0].tolist() == ["x", "y", "z"]


def test_readers_see_whole_states_while_a_writer_adds(tmp_path: Path) -> None:
    folder = tmp_path / "index"
    writer = made("disk", folder, random_codes(4), [f"0/{number}" for number in range(4)])
    stop, faults = threading.Event(), list[BaseException]()

    def guarded(work: Callable[[], None]) -> Callable[[], None]:
        def run() -> None:
            try:
                while not stop.is_set():
                    work()
            except BaseException as error:
                faults.append(error)

        return run

    reader = HammingIndex.open(folder)

    def follow() -> None:
        reader.refresh()
        found = reader.search(random_codes(4), 4)
        ids, names = found.ids.ravel(), found.keys.ravel()
        assert reader.ids_of([name for name in names if name is not None]).shape == (int((ids >= 0).sum()),)
        assert [int(name.split("/")[1]) for name in names] == [id % 4 for id in ids.tolist()]

    def reopen() -> None:
        index = HammingIndex.open(folder)
        names = index.keys_of(index.ids)
        rounds = {name.split("/")[0] for name in names}
        assert len(names) == 4 * len(rounds)  # every transaction whole
        assert index.ids_of(list(names)).tolist() == index.ids.tolist()

    def search_the_writers_own() -> None:
        found = writer.search(random_codes(4), 2)
        assert [int(name.split("/")[1]) for name in found.keys.ravel()] == [id % 4 for id in found.ids.ravel().tolist()]

    threads = [threading.Thread(target=guarded(work)) for work in (follow, reopen, search_the_writers_own)]
    for thread in threads:
        thread.start()
    for number in range(1, 40):
        writer.add(random_codes(4, seed=number), keys=[f"{number}/{row}" for row in range(4)])
        if number % 3 == 0:
            writer.remove(keys=[f"{number - 2}/{row}" for row in range(4)])
        if number % 10 == 0:
            writer.compact()
    stop.set()
    for thread in threads:
        thread.join()
    assert not faults, faults[0]
    writer.verify()


def test_large_segments_are_cut_where_keys_make_it_necessary(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(merge, "KEY_ROWS", 10)
    codes, names = random_codes(35), [f"{number}" * (number % 3 + 1) for number in range(35)]
    index = made("disk", tmp_path / "index", codes, names, np.arange(35) * 2)
    assert [segment["rows"] for segment in read_manifest(tmp_path / "index")["segments"]] == [10, 10, 10, 5]
    index.remove(np.arange(0, 70, 4))
    index.compact()
    assert max(segment["rows"] for segment in read_manifest(tmp_path / "index")["segments"]) <= 10
    assert index.keys_of(index.ids).tolist() == names[1::2]
    index.verify()


ABC = Keys.of(key_rows(["abc", "de", "f"], "f"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rows": ABC.rows + np.uint32(3)}, "a key is of a row that the segment does not have"),
        ({"offsets": np.array([0, 99, 2, 6])}, "the offsets of keys are not ascending"),
        ({"offsets": np.array([0, 3, 99, 6])}, "the offsets of keys are not ascending"),
        ({"offsets": np.array([0, -3, 5, 6])}, "the offsets of keys are not ascending"),
        ({"offsets": np.array([0, 3, 3, 6])}, "the offsets of keys are not ascending"),
    ],
)
def test_a_damaged_map_is_an_error_and_not_a_crash(changes: dict[str, Any], message: str) -> None:
    """Files are mapped without a look at what they hold."""
    damaged = Keys(**{name: getattr(ABC, name) for name in ("text", "offsets", "hashes", "rows")} | changes)
    asked = key_rows(["de"], "f")
    rows = damaged.rows.astype(np.int64)
    for call in (
        lambda: damaged.find_one(*asked.one(0)),
        lambda: damaged._find(asked),
        lambda: damaged.texts(rows),
        lambda: damaged.lengths(rows),
    ):
        with pytest.raises(IndexFolderError, match=f"{message}.*; verify the index"):
            call()
    latin = Keys(np.full(6, 255, np.uint8), ABC.offsets, ABC.hashes, ABC.rows)
    with pytest.raises(IndexFolderError, match="a key is not UTF-8; verify the index"):
        latin.texts(np.array([1]))
    assert latin.find(asked).tolist() == [-1]
