"""The README says what is so: its Python runs, its tables are the measured ones, its commands and files exist."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest

from fasthash.cli.parser import make_parser
from fasthash.report import markdown_tables, short_table

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, flags=re.S | re.M)


@pytest.mark.parametrize("source", blocks("python"), ids=lambda source: source.splitlines()[-1][:40])
def test_python_runs(source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    exec(compile(source, "README.md", "exec"), {"__name__": "readme"})


def test_python_blocks_were_found() -> None:
    assert len(blocks("python")) == 6


def test_commands_parse() -> None:
    text = "".join(blocks("bash")).replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line.startswith("fasthash ")]
    assert len(lines) >= 7
    for line in lines:
        make_parser().parse_args(shlex.split(line, comments=True)[1:])


def test_tables_are_the_measured_ones() -> None:
    results = json.loads((ROOT / "benchmarks" / "results" / "demo.json").read_text(encoding="utf-8"))
    assert results["fraction"] == 1
    assert short_table(results) in README, "run tools/readme_table.py"
    assert markdown_tables(results) in (ROOT / "docs" / "demo.md").read_text(encoding="utf-8")


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\((?!https?:)([^)]+)\)", README):
        assert (ROOT / target).exists(), target


def test_the_tree_is_the_repositorys() -> None:
    tree = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").split("## What is where")[1].split("\n## ")[0]
    for name in re.findall(r"\b([a-z_]+\.py|[a-z]+/)(?=[\s,:;])", tree):
        places = (ROOT / name, ROOT / "fasthash" / name, ROOT / "tests" / name, ROOT / "csrc" / name)
        assert any(place.exists() for place in (*places, ROOT / "benchmarks" / name, ROOT / "examples" / name)), name
