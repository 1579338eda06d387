"""docs/duplicates.md: its examples and commands run, in a folder with a few pictures."""

from __future__ import annotations

import re
import shlex
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fasthash.cli import main

PAGE = Path(__file__).resolve().parent.parent / "docs" / "duplicates.md"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE.read_text(encoding="utf-8"), flags=re.S | re.M)


def grey(picture: Any, side: int) -> np.ndarray[Any, Any]:
    small = np.asarray(Image.fromarray(np.asarray(picture)).convert("L").resize((side, side)))
    return small > np.median(small)


def stand_in(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package that is not installed: hashes of its shapes and types."""
    try:
        __import__(name)
    except ImportError:
        module: Any = types.ModuleType(name)
        module.phash = lambda picture: types.SimpleNamespace(hash=grey(picture, 8))
        module.compute = lambda rgb: (grey(rgb, 16).ravel().astype(np.int64), 100)
        monkeypatch.setitem(sys.modules, name, module)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Four pictures and a smaller copy of one; files of hashes and of names, with two that are near."""
    monkeypatch.chdir(tmp_path)
    Path("pictures").mkdir()
    for number in range(4):
        noise = np.random.default_rng(number).integers(0, 256, (12, 12, 3), dtype=np.uint8)
        picture = Image.fromarray(noise).resize((256, 256))
        picture.save(f"pictures/{number}.jpg")
        if number == 2:
            picture.resize((128, 128)).save("pictures/copy.jpg")
    Path("hashes.txt").write_text("9f3a5c0e12345678\n00000000ffffffff\n9f3a5c0e12345679\n")
    Path("names.txt").write_text("one.jpg\ntwo.jpg\nthree.jpg\n")
    return tmp_path


def test_the_examples_run(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("imagehash", "pdqhash"):
        stand_in(name, monkeypatch)
    names: dict[str, Any] = {}
    for block in blocks("python"):
        exec(compile(block, PAGE.name, "exec"), names)
        if "pdqhash" in block:
            assert names["codes"].shape == (5, 32)
            assert names["groups"].sizes.tolist() == [1, 1, 2, 1]
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == ["[17] [5000] [2]", "[17]"]
    assert lines[2:4] == ["2.jpg copy.jpg", "[0] [2]"]
    assert lines[4:6] == ["[1 1] [7 9] [2 4]", "[1 7 9]"]
    assert lines[6] == "['picture 1.jpg'] ['picture 7.jpg'] ['picture 0.jpg' 'picture 2.jpg']"


def test_the_commands_run(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (block,) = blocks("bash")
    for line in block.splitlines():
        assert main(shlex.split(line, comments=True)[1:]) == 0, line
    assert capsys.readouterr().out.startswith("0 2\n")
    assert Path("groups.csv").read_text() == "group,id,size,key\n0,0,2,one.jpg\n0,2,2,three.jpg\n"
    assert Path("groups.txt").read_text() == "one.jpg\tthree.jpg\n"


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\((?!https?:)([^)]+)\)", PAGE.read_text(encoding="utf-8")):
        assert (PAGE.parent / target.partition("#")[0]).exists(), target
