"""Commands over index folders: tables, methods, progress, and refusals in the words of the command line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import fasthash
from fasthash.cli import main
from fasthash.index import HammingIndex


@pytest.fixture
def codes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    """The working directory has codes.npy, 3,000 codes of 64 bits."""
    monkeypatch.chdir(tmp_path)
    made = np.random.default_rng(0).integers(0, 256, (3000, 8), np.uint8)
    np.save("codes.npy", made)
    return made


def printed(capsys: pytest.CaptureFixture[str], *command: str) -> dict:
    capsys.readouterr()
    assert main([*command, "--json"]) == 0
    out, err = capsys.readouterr()
    assert err == ""  # no bar beside JSON
    return json.loads(out)


def refused(capsys: pytest.CaptureFixture[str], *command: str) -> str:
    capsys.readouterr()
    assert main(command) == 2
    out, err = capsys.readouterr()
    assert out == ""
    return err.removeprefix("fasthash: error: ")


def test_tables_and_methods(codes: np.ndarray, capsys: pytest.CaptureFixture[str]) -> None:
    printed(capsys, "index", "build", "codes.npy", "--out", "plain")
    printed(capsys, "index", "build", "codes.npy", "--out", "tables", "--mih")
    assert printed(capsys, "index", "info", "plain")["codes_with_tables"] == 0
    assert printed(capsys, "index", "info", "tables")["codes_with_tables"] == 3000
    np.save("queries.npy", codes[:5] ^ 1)
    expected = printed(capsys, "search", "plain", "queries.npy", "--method", "scan")
    for method in ("auto", "scan", "mih"):
        assert printed(capsys, "search", "tables", "queries.npy", "--method", method) == expected
    assert printed(capsys, "index", "mih", "tables")["added_bytes"] == 0
    assert printed(capsys, "index", "mih", "plain")["added_bytes"] > 3000 * 8
    assert printed(capsys, "index", "info", "plain")["codes_with_tables"] == 3000
    np.save("ids.npy", np.arange(0, 3000, 2))
    assert printed(capsys, "index", "remove", "plain", "ids.npy")["removed"] == 1500
    info = printed(capsys, "index", "info", "plain")
    assert (info["segments"], info["deleted"], info["codes_with_tables"]) == (1, 0, 0)  # half deleted: rewritten
    printed(capsys, "search", "plain", "queries.npy", "--method", "mih")  # makes them
    assert printed(capsys, "index", "info", "plain")["codes_with_tables"] == 1500
    assert main(["index", "info", "plain"]) == 0
    assert "1,500 codes of 64 bits" in capsys.readouterr().out
    message = refused(capsys, "search", "codes.npy", "queries.npy", "--method", "mih")
    assert message.startswith("codes.npy: --method mih needs an index folder")
    assert "invalid choice: 'fast'" in refused(capsys, "search", "plain", "queries.npy", "--method", "fast")


def test_refusals_name_the_flags(codes: np.ndarray, capsys: pytest.CaptureFixture[str]) -> None:
    printed(capsys, "index", "build", "codes.npy", "--out", "index")
    message = refused(capsys, "index", "build", "codes.npy", "--out", "index")
    assert message.endswith("already holds an index; pass --overwrite to replace it\n")
    np.save("ids.npy", np.arange(3000))
    message = refused(capsys, "index", "add", "index", "codes.npy", "--ids", "ids.npy")
    assert message == "HammingIndex.add: id 0 is in the index already; --replace replaces it\n"
    for command in (("index", "build", "codes.npy", "--out", "index", "--overwrite"), ("index", "verify", "index")):
        assert main(command) == 0


def test_long_work_shows_bars_on_a_terminal(
    codes: np.ndarray, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    class Bar:
        def __init__(self, total: int, desc: str, disable: bool | None, **_: object):
            seen.append((desc, total, disable))
            self.left = total

        def update(self, count: int) -> None:
            self.left -= count

        def __enter__(self) -> Bar:
            return self

        def __exit__(self, *_: object) -> None:
            assert self.left == 0, f"{seen[-1]}: {self.left} were not told of"

    monkeypatch.setattr("fasthash.index.progress.tqdm", Bar)
    assert main(["index", "build", "codes.npy", "--out", "index", "--mih"]) == 0
    np.save("ids.npy", np.arange(1000))
    assert main(["index", "remove", "index", "ids.npy"]) == 0
    assert main(["index", "compact", "index"]) == 0
    assert main(["index", "verify", "index"]) == 0
    assert main(["index", "export", "index", "--out", "out.npy"]) == 0
    assert [(desc, disable) for desc, _, disable in seen] == [
        (name, None) for name in ("build", "tables", "compact", "tables", "verify", "export")
    ]  # None: where stderr is a terminal
    sizes = sum(file.stat().st_size for file in Path("index").glob("*.safetensors"))
    assert dict((desc, total) for desc, total, _ in seen)["verify"] == sizes
    HammingIndex.open("index").verify()
    assert len(seen) == 6  # the library is silent unless it is asked


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as done:
        main(["--version"])
    assert done.value.code == 0
    assert capsys.readouterr().out == f"fasthash {fasthash.__version__}\n"


def test_an_index_whose_files_are_links_into_a_download_cache(
    codes: np.ndarray, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plain, cache, links = tmp_path / "plain", tmp_path / "cache", tmp_path / "cache" / "snapshots" / "1"
    printed(capsys, "index", "build", "codes.npy", "--out", str(plain), "--mih")
    links.mkdir(parents=True)
    (cache / "blobs").mkdir()
    for number, file in enumerate(sorted(plain.iterdir())):
        file.rename(cache / "blobs" / str(number))
        (links / file.name).symlink_to(f"../../blobs/{number}")
    np.save("queries.npy", codes[:5])
    commands = {
        "info": ("index", "info", str(links)),
        "verify": ("index", "verify", str(links)),
        "export": ("index", "export", str(links), "--out", "out.npy"),
        "search": ("search", str(links), "queries.npy", "-k", "1"),
    }
    for command in commands.values():
        assert "or pass --links-within DIR, where DIR is the folder that holds" in refused(capsys, *command)
        assert f"a symbolic link that ends outside {links}" in refused(capsys, *command, "--links-within", str(links))
        assert printed(capsys, *command, "--links-within", "cache")
    np.testing.assert_array_equal(np.load("out.npy"), codes)
