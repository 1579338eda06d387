"""Keys in pairs and groups of an index: in results, in files, on the command line."""

from __future__ import annotations

import csv
import itertools
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.csv
import pyarrow.feather
import pyarrow.parquet
import pytest

from fasthash import HammingIndex
from fasthash.cli import main
from fasthash.index import block_joins
from fasthash.index.exchange import pair_files

pytestmark = pytest.mark.usefixtures("one_thread")
RADIUS = 3
ODD = ['a "quoted" name', "commas, and; such", "two\nlines", "a\ttab", "carriage\rreturn", " ", "ü\u2028", "x" * 3000]


@pytest.fixture(params=["whole", "blocks"], autouse=True)
def blocks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Codes fit into memory, or are joined block by block; keys come in parts."""
    if request.param == "blocks":
        monkeypatch.setattr(block_joins, "codes_at_once", lambda _: 30)
        monkeypatch.setattr(pair_files, "_ROWS", 50)
        monkeypatch.setattr(pair_files, "_KEY_BYTES", 100)


def near_codes(count: int, seed: int = 0) -> np.ndarray[Any, np.dtype[np.uint8]]:
    rng = np.random.default_rng(seed)
    bits = (rng.random((20, 64)) < 0.5)[rng.integers(0, 20, count)] ^ (rng.random((count, 64)) < 0.02)
    return np.packbits(bits, axis=1)


def names(count: int) -> list[str]:
    return [ODD[row // 3] if row % 3 == 0 and row // 3 < len(ODD) else f"name {row}.jpg" for row in range(count)]


@pytest.fixture(params=["memory", "disk"])
def index(request: pytest.FixtureRequest, tmp_path: Path) -> HammingIndex:
    """Codes with keys and ids in no order, in two segments whose ids interleave; some are removed, some replaced."""
    ids = np.random.default_rng(1).permutation(300)[:120]
    made = HammingIndex(64)
    made.add(near_codes(120)[:70], ids=ids[:70], keys=names(120)[:70])
    if request.param == "disk":
        made.save(tmp_path / "index")
        made = HammingIndex.open(tmp_path / "index", writable=True)
    made.add(near_codes(120)[70:], ids=ids[70:], keys=names(120)[70:])
    made.remove(ids[::9])
    made.add(near_codes(120)[50:60], keys=names(120)[50:60], replace=True)
    return made


def test_results_have_keys(index: HammingIndex) -> None:
    found = index.pairs(RADIUS)
    assert len(found.ids_a) > 100
    assert found.keys_a.tolist() == index.keys_of(found.ids_a).tolist()
    assert found.keys_b.tolist() == index.keys_of(found.ids_b).tolist()
    a, b, distances = found  # still three
    assert (a is found.ids_a, b is found.ids_b, distances is found.distances) == (True, True, True)
    assert "keys_a=array([" in repr(found)
    copy = pickle.loads(pickle.dumps(found))
    assert copy.keys_b.tolist() == found.keys_b.tolist()
    assert found._replace(ids_a=found.ids_b).keys_a.tolist() == found.keys_b.tolist()
    groups = index.groups(RADIUS)
    assert groups.keys.tolist() == index.keys_of(groups.ids).tolist()
    assert groups.keys[groups.keep].tolist() == index.keys_of(groups.representatives).tolist()
    assert "name 50.jpg" in groups.keys.tolist()
    assert "IndexGroups(ids=" in repr(groups)


def test_keys_are_those_of_the_state_that_was_joined(index: HammingIndex) -> None:
    found, wanted = index.pairs(RADIUS), index.pairs(RADIUS).keys_a.tolist()
    index.remove(index.ids)
    assert found.keys_a.tolist() == wanted


def test_a_filter_of_keys(index: HammingIndex) -> None:
    chosen = [key for key in names(120)[::2] if key in index]
    ids = np.sort(index.ids_of(chosen))
    for given in ([*chosen, "unknown"], np.array(chosen, object), np.isin(index.ids, ids)):
        found = index.pairs(RADIUS, filter=given)
        wanted = index.pairs(RADIUS, filter=ids)
        assert [part.tolist() for part in found] == [part.tolist() for part in wanted]
        assert set(found.keys_a) <= set(chosen)
        assert np.array_equal(index.groups(RADIUS, filter=given).ids, ids)
    assert index.pairs(RADIUS, filter=["unknown"]).keys_a.tolist() == []
    plain = HammingIndex(64)
    plain.add(near_codes(3))
    with pytest.raises(ValueError, match="have no keys, filter must be ids or a mask"):
        plain.pairs(1, filter=["a"])


def test_one_side_has_keys(index: HammingIndex, tmp_path: Path) -> None:
    plain = HammingIndex(64)
    plain.add(near_codes(120)[:40])
    for other in (plain, near_codes(120)[:40]):
        found = index.pairs(RADIUS, other)
        assert len(found.ids_a) > 20
        assert found.keys_a.tolist() == index.keys_of(found.ids_a).tolist()
        assert found.keys_b is None
    found = plain.pairs(RADIUS, index)
    assert found.keys_a is None
    assert found.keys_b.tolist() == index.keys_of(found.ids_b).tolist()
    plain.write_pairs(tmp_path / "pairs.parquet", RADIUS, index)
    table = pyarrow.parquet.read_table(tmp_path / "pairs.parquet")
    assert table.column_names == ["id_a", "id_b", "distance", "key_b"]
    assert table["key_b"].to_pylist() == found.keys_b.tolist()
    assert not hasattr(plain.pairs(RADIUS), "keys_a")
    assert not hasattr(plain.groups(RADIUS), "keys")


def read(path: Path) -> dict[str, list[Any]]:
    if path.suffix == ".csv":
        with path.open(newline="", encoding="utf-8") as file:
            header, *rows = csv.reader(file)
        columns = dict(zip(header, map(list, zip(*rows, strict=True)), strict=True))
        return {name: own if name.startswith("key") else list(map(int, own)) for name, own in columns.items()}
    table = pyarrow.parquet.read_table(path) if path.suffix == ".parquet" else pyarrow.feather.read_table(path)
    return dict(table.to_pydict())


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".arrow", ".feather"])
def test_files_have_columns_of_keys(index: HammingIndex, suffix: str, tmp_path: Path) -> None:
    found, path = index.pairs(RADIUS), tmp_path / f"pairs{suffix}"
    assert index.write_pairs(path, RADIUS, progress=False) == len(found.ids_a)
    wanted = [*found, found.keys_a, found.keys_b]
    columns = ["id_a", "id_b", "distance", "key_a", "key_b"]
    assert read(path) == {name: own.tolist() for name, own in zip(columns, wanted, strict=True)}
    empty = tmp_path / f"empty{suffix}"
    assert index.write_pairs(empty, 0, filter=index.ids[:1], progress=False) == 0
    assert suffix == ".csv" or read(empty) == {name: [] for name in columns}


def test_arrow_reads_the_keys_of_csv(index: HammingIndex, tmp_path: Path) -> None:
    index.write_pairs(tmp_path / "pairs.csv", RADIUS)
    options = pyarrow.csv.ParseOptions(newlines_in_values=True)
    table = pyarrow.csv.read_csv(tmp_path / "pairs.csv", parse_options=options)
    assert table["key_a"].to_pylist() == index.pairs(RADIUS).keys_a.tolist()


def test_parts_are_bounded_by_the_bytes_of_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pair_files, "_ROWS", 6)
    monkeypatch.setattr(pair_files, "_KEY_BYTES", 10)

    class Lengths:
        def lengths(self, ids: Any) -> Any:
            return ids

        def __call__(self, ids: Any) -> Any:
            raise AssertionError

    sizes = np.array([4, 4, 4, 25, 1, 1, 9, 9, 0, 0])
    parts = list(pair_files._parts((sizes,), [("key", 0, Lengths())]))
    assert [row for part in parts for row in range(part.start, part.stop)] == list(range(10))
    assert max(sizes[part].sum() - sizes[part].max() for part in parts) < 10
    assert max(part.stop - part.start for part in parts) <= 6


# The command line


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    codes = near_codes(90)
    np.save("codes.npy", codes)
    Path("names.txt").write_text("".join(f"picture {row}.jpg\n" for row in range(90)))
    HammingIndex.build("index", "codes.npy", keys="names.txt", progress=False)
    columns = {"hash": [row.tobytes().hex() for row in codes], "name": [f"picture {row}.jpg" for row in range(90)]}
    pyarrow.csv.write_csv(pyarrow.table(columns), "rows.csv")
    return tmp_path


def works(capsys: pytest.CaptureFixture[str], *command: str) -> str:
    capsys.readouterr()
    assert main(["duplicates", *command, "--radius", str(RADIUS)]) == 0
    return capsys.readouterr().out


SOURCES = [["index"], ["codes.npy", "--keys", "names.txt"], ["rows.csv", "--keys", "name", "--column", "hash"]]


@pytest.mark.parametrize("source", SOURCES, ids=["index", "file", "table"])
def test_duplicates_tells_keys(source: list[str], folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    groups = HammingIndex.open("index").groups(RADIUS)
    members = [groups.keys[groups.labels == label].tolist() for label in np.flatnonzero(groups.sizes > 1)]
    ids = [groups.ids[groups.labels == label].tolist() for label in np.flatnonzero(groups.sizes > 1)]
    assert len(members) > 5
    assert [line.split("\t") for line in works(capsys, *source).splitlines()] == members
    told = json.loads(works(capsys, *source, "--json"))
    assert told == [{"group": own[0], "ids": own, "keys": keys} for own, keys in zip(ids, members, strict=True)]
    works(capsys, *source, "--out", "groups.txt")
    assert [line.split("\t") for line in Path("groups.txt").read_text().splitlines()] == members
    for name in ("groups.parquet", "groups.csv"):
        works(capsys, *source, "--out", name)
        table = read(Path(name))
        assert list(table) == ["group", "id", "size", "key"]
        assert table["id"] == list(itertools.chain(*ids))
        assert table["key"] == list(itertools.chain(*members))
    works(capsys, *source, "--pairs", "--out", "pairs.csv")
    assert read(Path("pairs.csv"))["key_b"] == HammingIndex.open("index").pairs(RADIUS).keys_b.tolist()


def test_keys_that_would_break_a_line(index: HammingIndex, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    index.to("cpu").save("odd")
    lines = works(capsys, "odd").split("\n")[:-1]
    sizes = index.groups(RADIUS).sizes
    assert [len(line.split("\t")) for line in lines] == sizes[sizes > 1].tolist()
    assert any("two\\nlines" in line for line in lines)


def test_keys_are_for_files_alone(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["duplicates", "index", "--radius", "1", "--keys", "names.txt"]) == 2
    assert "duplicates: --keys needs a file of codes, index is an index" in capsys.readouterr().err
    Path("few.txt").write_text("a\nb\n")
    assert main(["duplicates", "codes.npy", "--radius", "1", "--keys", "few.txt"]) == 2
    assert "few.txt: codes.npy has 90 codes and needs 90 keys, got 2" in capsys.readouterr().err
