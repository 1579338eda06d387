"""docs/images.md: its commands and examples run, in order, on 60 generated pictures."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

import pytest
from picture_cases import picture_folder

from fasthash.cli import main

PAGE = (Path(__file__).resolve().parent.parent / "docs" / "images.md").read_text(encoding="utf-8")


def test_it_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    picture_folder(tmp_path / "photos")
    picture_folder(tmp_path / "new", each=2)
    sys.modules.pop("net", None)
    names: dict[str, object] = {"__name__": "page"}
    commands = 0
    for language, text in re.findall(r"^```(python|bash)\n(.*?)^```", PAGE, flags=re.S | re.M):
        if language == "bash":
            for line in re.sub(r"\\\n", " ", text).splitlines():
                assert main(shlex.split(line, comments=True)[1:]) == 0, line
                commands += 1
        elif file := re.match(r"# (\w+\.py)\n", text):
            (tmp_path / file[1]).write_text(text)
        else:
            exec(compile(text, "images.md", "exec"), names)
    sys.modules.pop("net", None)
    assert commands >= 3
    assert names["rows"] == 60
    assert "stripes/003.png" in capsys.readouterr().out


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\((?!https?:)([^)]+)\)", PAGE):
        assert (Path(__file__).resolve().parent.parent / "docs" / target.partition("#")[0]).exists(), target
