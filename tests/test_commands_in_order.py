"""The commands of docs/get-started.md, and then those of the README, run as they are written, in order.

A line that both have runs once, and the README's training has two passes: the commands are tested here, not the codes.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from fasthash.cli import main

pytestmark = pytest.mark.usefixtures("one_thread")
ROOT = Path(__file__).resolve().parent.parent


def commands(page: str, first: str) -> list[str]:
    """The lines of the bash block of a page that begins with `first`."""
    text = (ROOT / page).read_text(encoding="utf-8")
    (block,) = [own for own in re.findall(r"^```bash\n(.*?)^```", text, flags=re.S | re.M) if own.startswith(first)]
    return re.sub(r"\\\n", " ", block).splitlines()


def test_they_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    started = commands("docs/get-started.md", "fasthash demo --out")
    readme = commands("README.md", "cd fasthash-demo")
    assert started[1] == readme[0] == "cd fasthash-demo"
    readme = [f"{line} --epochs 2" if line.startswith("fasthash train") else line for line in readme]
    for words in dict.fromkeys(tuple(shlex.split(line, comments=True)) for line in [*started, *readme]):
        if not words:
            continue
        if words[0] == "cd":
            monkeypatch.chdir(words[1])
        else:
            assert words[0] == "fasthash"
            assert main(list(words[1:])) == 0, (words, capsys.readouterr().err)
    for name in ("own.safetensors", "own_codes.npy", "own_index", "groups.csv", "own.pt2"):
        assert Path(name).exists(), name
