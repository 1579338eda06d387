"""docs/embedding-index.md: its examples run, and its numbers are the measured ones."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "embedding-index.md"
TEXT = PAGE.read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```", TEXT, flags=re.S | re.M)


@pytest.mark.parametrize("source", BLOCKS, ids=lambda block: block.splitlines()[-1][:40])
def test_examples_run(source: str) -> None:
    exec(compile(source, PAGE.name, "exec"), {"__name__": "page"})


def test_tables_are_the_measured_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    from bench_embedding_index import END, RESULTS, START, tables

    shown = TEXT.split(START)[1].split(END)[0].strip()
    assert shown == tables(json.loads(RESULTS.read_text(encoding="utf-8"))).strip(), "run it with --tables"


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\((?!https?:)([^)]+)\)", TEXT):
        assert (PAGE.parent / target.partition("#")[0]).exists(), target
