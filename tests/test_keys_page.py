"""docs/keys.md: its example runs, its commands parse, its links lead somewhere, and its table is the measured one."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest

from fasthash.cli.parser import make_parser

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "keys.md"
TEXT = PAGE.read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", TEXT, flags=re.S | re.M)


def test_the_example_runs() -> None:
    (source,) = blocks("python")
    exec(compile(source, PAGE.name, "exec"), {"__name__": "page"})


def test_commands_parse() -> None:
    lines = [line for block in blocks("bash") for line in block.splitlines()]
    assert len(lines) == 7
    for line in lines:
        make_parser().parse_args(shlex.split(line, comments=True)[1:])


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\((?!https?:)([^)]+)\)", TEXT):
        name, _, part = target.partition("#")
        assert (PAGE.parent / name).exists(), target
        assert not part or f"\n## {part.capitalize()}\n" in (PAGE.parent / name).read_text(encoding="utf-8"), target


def test_the_table_is_the_measured_one(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pyarrow")
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    from bench_keys import table

    results = ROOT / "benchmarks" / "results" / "keys.json"
    measured = json.loads(results.read_text(encoding="utf-8"))
    assert table(measured) == results.with_suffix(".md").read_text(encoding="utf-8")
    assert measured["disk_bytes"]["with_keys"] <= 2**30
