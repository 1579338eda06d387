"""Keys on the command line: where they come from, what is printed, and refusals."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from fasthash.cli import main
from fasthash.index import HammingIndex

CODES = np.random.default_rng(0).integers(0, 256, (20, 8), np.uint8)
NAMES = [f"img {number}.jpg" for number in range(20)]


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The working directory has codes.npy, names.txt and rows.csv."""
    monkeypatch.chdir(tmp_path)
    np.save("codes.npy", CODES)
    Path("names.txt").write_text("".join(f"{name}\n" for name in NAMES))
    lines = [f"{code.tobytes().hex()},{name}" for code, name in zip(CODES, NAMES, strict=True)]
    Path("rows.csv").write_text("hash,name\n" + "\n".join(lines))


def printed(capsys: pytest.CaptureFixture[str], *command: str) -> dict:
    capsys.readouterr()
    assert main([*command, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def shown(capsys: pytest.CaptureFixture[str], *command: str) -> str:
    capsys.readouterr()
    assert main(command) == 0
    return capsys.readouterr().out


def refused(capsys: pytest.CaptureFixture[str], *command: str) -> str:
    capsys.readouterr()
    assert main(command) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    return err.removeprefix("fasthash: error: ")


@pytest.mark.parametrize(
    ("codes", "keys"), [("codes.npy", "names.txt"), ("rows.csv", "name"), ("rows.csv", "names.txt")]
)
def test_build_takes_a_column_or_a_file(codes: str, keys: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert printed(capsys, "index", "build", codes, "--keys", keys, "--out", "index")["keys"] is True
    index = HammingIndex.open("index")
    assert index.keys_of(index.ids).tolist() == NAMES
    assert printed(capsys, "index", "info", "index")["keys"] is True
    assert ", with keys" in shown(capsys, "index", "info", "index")
    assert "20 codes of 64 bits with keys" in shown(
        capsys, "index", "build", codes, "--keys", keys, "--out", "index", "--overwrite"
    )
    printed(capsys, "index", "verify", "index")
    assert printed(capsys, "index", "build", "codes.npy", "--out", "plain")["keys"] is False
    assert "keys" not in shown(capsys, "index", "info", "plain")


def test_search_prints_keys(capsys: pytest.CaptureFixture[str]) -> None:
    Path("names.txt").write_text("\n".join(["a\tb\x85", "naïve", *NAMES[2:]]))
    printed(capsys, "index", "build", "codes.npy", "--keys", "names.txt", "--out", "index")
    np.save("queries.npy", CODES[:2])
    lines = shown(capsys, "search", "index", "queries.npy", "-k", "1").splitlines()
    assert lines == ["query\tid\tdistance\tkey", "0\t0\t0\ta\\tb\\x85", "1\t1\t0\tnaïve"]
    assert printed(capsys, "search", "index", "queries.npy", "-k", "1") == [
        {"query": 0, "ids": [0], "distances": [0], "keys": ["a\tb\x85"]},
        {"query": 1, "ids": [1], "distances": [0], "keys": ["naïve"]},
    ]
    assert printed(capsys, "search", "index", "queries.npy", "--radius", "0")[1]["keys"] == ["naïve"]
    assert printed(capsys, "search", "index", "queries.npy", "--radius", "0", "-k", "3")[1]["keys"] == ["naïve"]
    shown(capsys, "search", "index", "queries.npy", "-k", "25", "--out", "found.npz")
    with np.load("found.npz") as found:  # no pickles
        assert found["keys"][0, 0] == "a\tb\x85"
        assert (found["keys"][:, 20:] == "").all()
    printed(capsys, "index", "build", "codes.npy", "--out", "plain")
    assert shown(capsys, "search", "plain", "queries.npy", "-k", "1").splitlines()[:2] == [
        "query\tid\tdistance",
        "0\t0\t0",
    ]
    assert set(printed(capsys, "search", "plain", "queries.npy")[0]) == {"query", "ids", "distances"}
    shown(capsys, "search", "plain", "queries.npy", "--out", "found.npz")
    with np.load("found.npz") as found:
        assert set(found) == {"ids", "distances"}


def test_add_and_remove_by_key(capsys: pytest.CaptureFixture[str]) -> None:
    printed(capsys, "index", "build", "codes.npy", "--keys", "names.txt", "--out", "index")
    message = refused(capsys, "index", "add", "index", "rows.csv", "--keys", "name")
    assert message == "HammingIndex.add: key 'img 0.jpg' is in the index already; --replace replaces it\n"
    assert printed(capsys, "index", "add", "index", "rows.csv", "--keys", "name", "--replace")["codes"] == 20
    np.save("more.npy", CODES[:2])
    Path("more.txt").write_text("x\ny\n")
    assert printed(capsys, "index", "add", "index", "more.npy", "--keys", "more.txt")["codes"] == 22
    Path("gone.txt").write_text("x\nimg 3.jpg\nnobody\n")
    assert printed(capsys, "index", "remove", "index", "--keys", "gone.txt")["removed"] == 2
    index = HammingIndex.open("index")
    assert "y" in index
    assert "x" not in index
    message = refused(capsys, "index", "add", "index", "more.npy", "--keys", "names.txt")
    assert message == "names.txt: more.npy has 2 codes and needs 2 keys, got 20\n"
    assert "the index has keys, so 2 codes need keys=" in refused(capsys, "index", "add", "index", "more.npy")
    assert "either IDS or --keys must be given, got none" in refused(capsys, "index", "remove", "index")
    assert "got both" in refused(capsys, "index", "remove", "index", "more.txt", "--keys", "gone.txt")
    assert "--replace needs --ids or --keys" in refused(capsys, "index", "add", "index", "more.npy", "--replace")


def test_refusals_of_build(capsys: pytest.CaptureFixture[str]) -> None:
    message = refused(capsys, "index", "build", "rows.csv", "--keys", "names", "--out", "index")
    assert (
        message
        == "names: no column of rows.csv (it has 'hash', 'name') and no file, --keys must name a column or a file\n"
    )
    message = refused(capsys, "index", "build", "codes.npy", "--keys", "name", "--out", "index")
    assert message == "name: no column of a table and no file, --keys must name a column or a file\n"
    Path("names.txt").write_text("a\na\n" * 10)
    message = refused(capsys, "index", "build", "codes.npy", "--keys", "names.txt", "--out", "index")
    assert message == "keys must be distinct, got 'a' more than once\n"
    Path("names.txt").write_bytes(b"\xff\n" * 20)
    assert "names.txt is not UTF-8 text" in refused(
        capsys, "index", "build", "codes.npy", "--keys", "names.txt", "--out", "index"
    )
    assert not Path("index/manifest.json").exists()


def test_export_tells_of_keys(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("pyarrow")
    printed(capsys, "index", "build", "codes.npy", "--keys", "names.txt", "--out", "index")
    assert main(["index", "export", "index", "--out", "codes.faiss"]) == 0
    assert "cannot hold keys, so codes.faiss has none; .parquet, .arrow, .feather can" in capsys.readouterr().err
    assert main(["index", "export", "index", "--out", "codes.parquet"]) == 0
    assert "keys" not in capsys.readouterr().err
    printed(capsys, "index", "build", "codes.parquet", "--keys", "key", "--out", "again")
    index = HammingIndex.open("again")
    assert index.keys_of(index.ids).tolist() == NAMES
