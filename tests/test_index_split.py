"""HammingIndex.split: shards that together are the index, and that no crash or damage passes off as whole."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cluster_cases import made_index
from hypothesis import given, settings
from hypothesis import strategies as st

from fasthash import HammingIndex, IndexFolderError
from fasthash.index.store import shard_list
from fasthash.index.store.writer import Writer


def content(index: HammingIndex) -> dict[int, tuple[bytes, Any]]:
    ids = index.ids
    keys = index.keys_of(ids).tolist() if index.keyed else [None] * len(ids)
    codes = [code.tobytes() for code in index.get(ids)]
    return dict(zip(ids.tolist(), zip(codes, keys, strict=True), strict=True))


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000), st.integers(0, 300), st.integers(1, 9), st.booleans(), st.booleans())
def test_shards_are_the_index(
    tmp_path_factory: pytest.TempPathFactory, seed: int, rows: int, n: int, weighted: bool, keyed: bool
) -> None:
    one, folder = made_index(seed, rows, weighted=weighted, keyed=keyed), tmp_path_factory.mktemp("split")
    paths = one.split(folder, n, progress=False)
    assert paths == shard_list.read(folder) == [folder / f"shard-{number:05d}" for number in range(n)]
    together: dict[int, Any] = {}
    for path in paths:
        shard = HammingIndex.open(path)
        shard.verify()
        assert (shard.bits, shard.bit_weights, shard._contents.next_id) == (24, one.bit_weights, one._contents.next_id)
        own = content(shard)
        assert not own.keys() & together.keys()
        together |= own
        assert len(shard) <= len(one) / n + 0.4 * rows + 3
    assert together == content(one)


def test_a_shard_of_an_opened_index_can_be_changed(tmp_path: Path) -> None:
    made_index(0).save(tmp_path / "one")
    one = HammingIndex.open(tmp_path / "one")
    path = one.split(tmp_path / "new" / "shards", 2, progress=False)[1]
    with HammingIndex.open(path, writable=True) as shard:
        assert shard.add(np.zeros((1, 3), np.uint8)).tolist() == [one._contents.next_id]


def test_ranges_of_ids_stay_ranges(tmp_path: Path) -> None:
    one = HammingIndex(24)
    one.add(np.zeros((1000, 3), np.uint8))
    for path in one.split(tmp_path, 4, progress=False):
        entries = json.loads((path / "manifest.json").read_text())["segments"]
        assert [(entry["ids"], entry["rows"]) for entry in entries] == [("implicit", 250)]


def test_code_scale_is_kept(tmp_path: Path) -> None:
    one = HammingIndex(24)
    scale = np.arange(10).astype(np.float16)
    one.add(np.zeros((10, 3), np.uint8), code_scale=scale)
    held = [HammingIndex.open(path)._contents.segments[0].scales for path in one.split(tmp_path, 3, progress=False)]
    assert np.concatenate([own.numpy() for own in held if own is not None]).tolist() == scale.tolist()


@pytest.mark.parametrize("failing", [0, 2])
def test_what_fails_leaves_no_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: int) -> None:
    finish, calls = Writer.finish, [0]

    def full(self: Writer) -> None:
        calls[0] += 1
        if calls[0] > failing:
            raise OSError(28, "No space left on device")
        finish(self)

    monkeypatch.setattr(Writer, "finish", full)
    with pytest.raises(OSError, match="No space left"):
        made_index(0).split(tmp_path / "shards", 3, progress=False)
    assert list((tmp_path / "shards").iterdir()) == []
    monkeypatch.undo()
    assert len(made_index(0).split(tmp_path / "shards", 3, progress=False)) == 3


def test_wrong_arguments(tmp_path: Path) -> None:
    one = made_index(0)
    for n, kind, message in [
        (0, ValueError, "n must be between 1 and 10000, got 0"),
        (10_001, ValueError, "n must be between 1 and 10000, got 10001"),
        (1.5, TypeError, "n must be an integer, got 1.5"),
    ]:
        with pytest.raises(kind, match=f"^HammingIndex.split: {message}"):
            one.split(tmp_path / "shards", n)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").write_text("")
    with pytest.raises(IndexFolderError, match="other: not empty, it holds 'file'; split into an empty folder"):
        one.split(tmp_path / "other", 2)
    with pytest.raises(IndexFolderError, match="file: cannot be made a folder"):
        one.split(tmp_path / "other" / "file", 2)


LIST: dict[str, Any] = {"format": "fasthash-shards", "version": 1, "shards": ["shard-00000"]}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not valid JSON"),
        ("[]", "must hold a JSON object, got list"),
        (json.dumps({**LIST, "format": "x"}), "format must be 'fasthash-shards', got 'x'"),
        (json.dumps({**LIST, "version": 2}), "version 2 is not known, only 1 is"),
        (json.dumps({**LIST, "shards": []}), "shards must be a list of 1 to 10000 names, got \\[\\]"),
        (json.dumps({**LIST, "shards": "a"}), "shards must be a list of 1 to 10000 names, got 'a'"),
        (json.dumps({**LIST, "shards": ["../a"]}), "must be the plain name of a file in the folder, got '../a'"),
        (json.dumps({**LIST, "shards": ["a", "a"]}), "a shard is named twice"),
        (" " * (1 << 21), "bytes, more than the 1048576"),
    ],
)
def test_a_damaged_list_of_shards_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "shards.json").write_text(text)
    with pytest.raises(IndexFolderError, match=message):
        shard_list.read(tmp_path)


def test_a_split_that_did_not_end_is_no_index(tmp_path: Path) -> None:
    made_index(0).split(tmp_path, 2, progress=False)
    (tmp_path / "shards.json").unlink()
    with pytest.raises(IndexFolderError, match=r"has no shards.json, which a split writes last"):
        shard_list.read(tmp_path)
