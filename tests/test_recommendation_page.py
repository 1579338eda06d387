"""docs/recommendation.md and examples/recommend.py say what is so: their Python runs, their links lead somewhere."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "recommendation.md"
EXAMPLE = ROOT / "examples" / "recommend.py"
if not PAGE.exists() or not EXAMPLE.exists():
    pytest.skip("docs and examples are not here", allow_module_level=True)
TEXT = PAGE.read_text(encoding="utf-8")


def test_python_runs() -> None:
    blocks = re.findall(r"^```python\n(.*?)^```", TEXT, flags=re.S | re.M)
    assert len(blocks) == 1
    names: dict[str, object] = {"__name__": "page"}
    exec(compile(blocks[0], PAGE.name, "exec"), names)
    edges = {tuple(pair) for pair in names["edges"].tolist()}  # type: ignore[attr-defined]
    for found in (names["found"], names["better"]):
        assert not any((user, item) in edges for user, row in enumerate(found.ids) for item in row)  # type: ignore[attr-defined]


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\((?!https?:)([^)]+)\)", TEXT):
        assert (PAGE.parent / target).exists(), target
    for name in re.findall(r"`((?:fasthash|examples)/[\w/.]+)`", TEXT):
        assert (ROOT / name).exists(), name


def test_the_example_runs(capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(EXAMPLE), run_name="__main__")
    shares = [int(share) for share in re.findall(r"(\d+)% of the recommended", capsys.readouterr().out)]
    assert len(shares) == 2
    assert min(shares) >= 80
