"""Pairs and groups of an index that are cut off: a full disk, Ctrl-C. The old file stays, and nothing else is left."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fasthash import HammingIndex
from fasthash.cli import main

pytestmark = pytest.mark.usefixtures("one_thread")
SUFFIXES = [".csv", ".parquet", ".arrow", ".feather", ".txt"]


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> HammingIndex:
    """Groups of ten, whose names and pairs are more than the disk has room for."""
    monkeypatch.chdir(tmp_path)
    codes = np.random.default_rng(0).integers(0, 256, (400, 8), dtype=np.uint8).repeat(10, axis=0)
    names = [f"{row:05d} {np.random.default_rng(row).bytes(20).hex()}" for row in range(4000)]
    return HammingIndex.build("index", iter([(codes, None, names)]), bits=64)


@pytest.fixture
def little_room() -> Iterator[None]:
    """Files of 20,000 bytes at most."""
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("suffix", SUFFIXES[:-1])
def test_pairs_on_a_full_disk(suffix: str, index: HammingIndex, little_room: None) -> None:
    path = Path(f"pairs{suffix}")
    path.write_text("mine")
    with pytest.raises(OSError, match=f"File too large: '{path}'"):
        index.write_pairs(path, 0)
    assert path.read_text() == "mine"
    assert sorted(file.name for file in Path().iterdir()) == ["index", path.name]


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("kind", ["groups", "pairs"])
def test_duplicates_on_a_full_disk(
    kind: str, suffix: str, index: HammingIndex, little_room: None, capsys: pytest.CaptureFixture[str]
) -> None:
    if (kind, suffix) == ("pairs", ".txt"):
        return
    path = Path(f"found{suffix}")
    path.write_text("mine")
    more = ["--pairs"] if kind == "pairs" else []
    assert main(["duplicates", "index", "--radius", "0", "--out", str(path), *more]) == 2
    assert capsys.readouterr().err == f"fasthash: error: {path}: File too large\n"
    assert path.read_text() == "mine"
    assert sorted(file.name for file in Path().iterdir()) == [path.name, "index"]


def test_places_that_cannot_be_written(index: HammingIndex) -> None:
    with pytest.raises(FileNotFoundError, match=r"No such file or directory: 'nowhere/pairs.csv'$"):
        index.write_pairs("nowhere/pairs.csv", 0)
    Path("pairs.csv").mkdir()
    with pytest.raises(IsADirectoryError, match=r"Is a directory: 'pairs.csv'$"):
        index.write_pairs("pairs.csv", 0)


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Codes whose join with radius 24 takes minutes."""
    path = str(tmp_path_factory.mktemp("large") / "index")
    HammingIndex.build(path, np.random.default_rng(0).integers(0, 256, (400_000, 8), dtype=np.uint8), progress=False)
    return path


@pytest.mark.skipif(sys.platform == "win32", reason="needs an alarm")
@pytest.mark.parametrize(
    "call",
    [
        lambda path: HammingIndex.open(path).pairs(24),
        lambda path: HammingIndex.open(path).groups(24),
        lambda path: HammingIndex.open(path).groups(24, link="star"),
        lambda path: HammingIndex.open(path).write_pairs("found.csv", 24, progress=False),
        lambda path: main(["duplicates", path, "--radius", "24", "--out", "found.csv"]),
        lambda path: main(["duplicates", path, "--radius", "24", "--pairs", "--out", "found.csv"]),
    ],
    ids=["pairs", "groups", "stars", "write_pairs", "command", "command pairs"],
)
def test_ctrl_c(call: Callable[[str], Any], large: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("found.csv").write_text("mine")
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    signal.setitimer(signal.ITIMER_REAL, 0.3)
    try:
        status = call(large)
    except KeyboardInterrupt:
        status = 130
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert status == 130
    assert Path("found.csv").read_text() == "mine"
    assert [file.name for file in tmp_path.iterdir()] == ["found.csv"]
