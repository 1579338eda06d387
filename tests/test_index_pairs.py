"""Pairs and groups of an index, in memory and on disk: ids, removed codes, filters, files, the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.feather
import pyarrow.parquet
import pytest
import torch

from fasthash import HammingIndex, reference
from fasthash.cli import main
from fasthash.index import block_joins, eligible, joins

pytestmark = pytest.mark.usefixtures("one_thread")
RADIUS = 3


def near_codes(count: int, seed: int = 0) -> np.ndarray[Any, np.dtype[np.uint8]]:
    rng = np.random.default_rng(seed)
    bits = (rng.random((40, 64)) < 0.5)[rng.integers(0, 40, count)] ^ (rng.random((count, 64)) < 0.02)
    return np.packbits(bits, axis=1)


@pytest.fixture(params=["whole", "blocks"], autouse=True)
def blocks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Codes fit into memory, or are joined block by block."""
    if request.param == "blocks":
        monkeypatch.setattr(block_joins, "codes_at_once", lambda _: 60)
        monkeypatch.setattr(eligible, "_WINDOW", 17)
    return str(request.param)


@pytest.fixture(params=["memory", "disk", "segments"])
def index(request: pytest.FixtureRequest, tmp_path: Path) -> HammingIndex:
    """400 codes with ids in no order, added in two parts whose ids interleave; every ninth is removed."""
    ids = np.random.default_rng(1).permutation(3000)[:400]
    made = HammingIndex(64)
    made.add(near_codes(400)[:250], ids=ids[:250])
    if request.param == "segments":
        made.save(tmp_path / "index")
        made = HammingIndex.open(tmp_path / "index", writable=True)
    made.add(near_codes(400)[250:], ids=ids[250:])
    made.remove(ids[::9])
    if request.param == "disk":
        made.save(tmp_path / "index")
        made = HammingIndex.open(tmp_path / "index")
    return made


def by_hand(ids: Any, codes: Any, radius: int) -> list[tuple[int, int, int]]:
    i, j, distances = reference.hamming_pairs(torch.from_numpy(codes), radius)
    return list(zip(ids[i].tolist(), ids[j].tolist(), distances.tolist(), strict=True))


def as_rows(found: Any) -> list[tuple[int, int, int]]:
    return list(zip(*(part.tolist() for part in found), strict=True))


def test_pairs_have_ids_and_no_removed_codes(index: HammingIndex) -> None:
    ids = index.ids
    wanted = by_hand(ids, index.get(ids), RADIUS)
    found = index.pairs(RADIUS)
    assert len(wanted) > 300
    assert as_rows(found) == wanted
    assert [part.dtype for part in found] == [np.int64, np.int64, np.int32]


@pytest.mark.parametrize("kind", ["mask", "many ids", "few ids", "none"])
def test_filters(index: HammingIndex, kind: str) -> None:
    ids = index.ids
    chosen = {"mask": ids[::2], "many ids": ids[5:300], "few ids": ids[:7], "none": ids[:0]}[kind]
    given = np.isin(ids, chosen) if kind == "mask" else chosen
    assert as_rows(index.pairs(RADIUS, filter=given)) == by_hand(chosen, index.get(chosen), RADIUS)
    groups = index.groups(RADIUS, filter=given)
    assert np.array_equal(groups.ids, chosen)


def test_two_sides(index: HammingIndex) -> None:
    other = HammingIndex(64)
    other.add(near_codes(400)[300:390], ids=range(5000, 5090))
    other.remove([5003])
    ids, others = index.ids, other.ids
    i, j, distances = reference.hamming_pairs(torch.from_numpy(index.get(ids)), 12, torch.from_numpy(other.get(others)))
    wanted = list(zip(ids[i].tolist(), others[j].tolist(), distances.tolist(), strict=True))
    assert len(wanted) > 50
    assert as_rows(index.pairs(12, other)) == wanted
    rows = [(a, int(np.searchsorted(others, b)), d) for a, b, d in wanted]
    assert as_rows(index.pairs(12, other.get(others))) == rows


@pytest.mark.parametrize("link", ["single", "star"])
def test_groups_have_ids(index: HammingIndex, link: str) -> None:
    ids = index.ids
    lowest = reference.duplicate_groups(torch.from_numpy(index.get(ids)), RADIUS, link).numpy()
    groups = index.groups(RADIUS, link=link)
    assert np.array_equal(groups.ids, ids)
    assert np.array_equal(groups.representatives[groups.labels], ids[lowest])
    assert np.array_equal(groups.ids[groups.keep], groups.representatives)
    assert groups.sizes.sum() == len(ids)


def test_an_empty_index() -> None:
    index = HammingIndex(12)
    assert as_rows(index.pairs(3)) == []
    assert index.groups(3).sizes.tolist() == []


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".arrow", ".feather"])
@pytest.mark.parametrize("most", [1, 50, 1 << 24])
def test_pairs_in_files_by_blocks(
    index: HammingIndex, suffix: str, most: int, blocks: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    most = 40 if (blocks, most) == ("blocks", 1) else most  # 1 takes seconds there
    monkeypatch.setattr(joins, "_pairs_at_once", lambda: most)
    path, wanted = tmp_path / f"pairs{suffix}", as_rows(index.pairs(RADIUS))
    assert index.write_pairs(path, RADIUS, progress=False) == len(wanted)
    if suffix == ".csv":
        header, *lines = path.read_text().splitlines()
        assert header == "id_a,id_b,distance"
        assert [tuple(map(int, line.split(","))) for line in lines] == wanted
        return
    table = pyarrow.parquet.read_table(path) if suffix == ".parquet" else pyarrow.feather.read_table(path)
    assert table.column_names == ["id_a", "id_b", "distance"]
    assert list(zip(*(column.to_pylist() for column in table.columns), strict=True)) == wanted


def test_a_file_stays_as_it_was_where_writing_fails(
    index: HammingIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "pairs.csv"
    path.write_text("mine")

    def full(*_: Any) -> Any:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(joins, "pair_blocks", full)
    with pytest.raises(OSError, match="No space left"):
        index.write_pairs(path, RADIUS)
    assert path.read_text() == "mine"
    assert [file.name for file in tmp_path.iterdir() if file.is_file()] == ["pairs.csv"]


def test_progress_counts_codes(index: HammingIndex, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    index.write_pairs(tmp_path / "pairs.csv", RADIUS, progress=True)
    assert f"{len(index)}/{len(index)}" in capsys.readouterr().err


def test_bad_arguments(index: HammingIndex, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^HammingIndex.pairs: radius must be at least 0, got -1"):
        index.pairs(-1)
    with pytest.raises(ValueError, match=r"^HammingIndex.pairs: radius 64 gives \d+ pairs, but limit is 3"):
        index.pairs(64, limit=3)
    with pytest.raises(ValueError, match=r"^HammingIndex.pairs: other must have codes of 64 bits, got 32"):
        index.pairs(1, HammingIndex(32))
    with pytest.raises(ValueError, match=r"^HammingIndex.pairs: other of 64 bits must be \[N, 8\]"):
        index.pairs(1, np.zeros((2, 3), np.uint8))
    with pytest.raises(ValueError, match=r"^HammingIndex.groups: link must be 'single' or 'star', got 'x'"):
        index.groups(1, link="x")
    with pytest.raises(
        ValueError, match=r"^HammingIndex.write_pairs: the suffix must be one of .parquet, .* got '.txt'"
    ):
        index.write_pairs(tmp_path / "pairs.txt", 1)


# The command line


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    codes = near_codes(120)
    np.save("codes.npy", codes)
    Path("hashes.txt").write_text("".join(row.tobytes().hex() + "\n" for row in codes))
    HammingIndex.build("index", "codes.npy", progress=False)
    return tmp_path


def groups_by_hand(link: str = "single") -> list[list[int]]:
    lowest = reference.duplicate_groups(torch.from_numpy(near_codes(120)), RADIUS, link).tolist()
    groups = [[row for row, low in enumerate(lowest) if low == first] for first in range(120)]
    return [group for group in groups if len(group) > 1]


def works(capsys: pytest.CaptureFixture[str], *command: str) -> str:
    capsys.readouterr()
    assert main(["duplicates", *command]) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("link", ["single", "star"])
@pytest.mark.parametrize("source", ["index", "codes.npy", "hashes.txt"])
def test_duplicates_of_folders_and_files(
    source: str, link: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wanted = groups_by_hand(link)
    assert len(wanted) > 10
    command = (source, "--radius", str(RADIUS), "--link", link)
    assert [list(map(int, line.split())) for line in works(capsys, *command).splitlines()] == wanted
    assert json.loads(works(capsys, *command, "--json")) == [{"group": group[0], "ids": group} for group in wanted]
    told = works(capsys, *command, "--out", "groups.txt")
    extra = sum(map(len, wanted)) - len(wanted)
    assert told == f"groups.txt: {len(wanted)} groups of 120 codes, {extra} duplicates beside the first\n"
    assert [list(map(int, line.split())) for line in Path("groups.txt").read_text().splitlines()] == wanted
    rows = [(group[0], id, len(group)) for group in wanted for id in group]
    works(capsys, *command, "--out", "groups.csv")
    header, *lines = Path("groups.csv").read_text().splitlines()
    assert header == "group,id,size"
    assert [tuple(map(int, line.split(","))) for line in lines] == rows
    works(capsys, *command, "--out", "groups.parquet")
    table = pyarrow.parquet.read_table("groups.parquet")
    assert list(zip(*(table[name].to_pylist() for name in ("group", "id", "size")), strict=True)) == rows


def test_duplicates_as_pairs(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wanted = by_hand(np.arange(120), near_codes(120), RADIUS)
    told = works(capsys, "index", "--radius", str(RADIUS), "--pairs", "--out", "pairs.csv", "--json")
    assert json.loads(told) == {"out": "pairs.csv", "codes": 120, "pairs": len(wanted)}
    lines = Path("pairs.csv").read_text().splitlines()[1:]
    assert [tuple(map(int, line.split(","))) for line in lines] == wanted


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["index", "--radius", "-1"], "duplicates: --radius must be at least 0, got -1"),
        (["index", "--radius", "1", "--pairs"], "duplicates: --pairs needs --out"),
        (
            ["index", "--radius", "1", "--pairs", "--out", "x.csv", "--link", "star"],
            "duplicates: --link cannot be used with --pairs, because it is for groups",
        ),
        (
            ["index", "--radius", "1", "--out", "x.npy"],
            "x.npy: the suffix decides the format and must be one of .parquet, .arrow, .feather, .csv, .txt, "
            "got '.npy'",
        ),
        (["nowhere", "--radius", "1"], "nowhere: no such folder"),
    ],
)
def test_duplicates_refuses(command: list[str], message: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert main(["duplicates", *command]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.rstrip("\n").endswith(message)
