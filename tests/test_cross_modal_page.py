"""docs/cross-modal.md and examples/cross_modal.py say what is so: their Python runs, their links lead somewhere."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

pytestmark = pytest.mark.usefixtures("one_thread")
ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "cross-modal.md"
EXAMPLE = ROOT / "examples" / "cross_modal.py"
if not PAGE.exists() or not EXAMPLE.exists():
    pytest.skip("docs and examples are not here", allow_module_level=True)
TEXT = PAGE.read_text(encoding="utf-8")


def test_python_runs() -> None:
    blocks = re.findall(r"^```python\n(.*?)^```", TEXT, flags=re.S | re.M)
    assert len(blocks) == 1
    names: dict[str, object] = {"__name__": "page"}
    exec(compile(blocks[0], PAGE.name, "exec"), names)
    topics, ids = names["topics"], names["ids"]
    common = (topics[20:, None] == topics[ids]).mean()  # type: ignore[index]
    assert common > 0.75  # by chance: a half
    assert names["near"].ids.shape == (1, 5)  # type: ignore[attr-defined]


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\((?!https?:)([^)]+)\)", TEXT):
        assert (PAGE.parent / target).exists(), target
    for name in re.findall(r"(examples/[\w/.]+)`", TEXT):
        assert (ROOT / name).exists(), name


def test_the_example_runs(capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(EXAMPLE), run_name="__main__")
    *found, chance = [int(share) for share in re.findall(r"(\d+)%", capsys.readouterr().out)]
    assert len(found) == 2
    assert min(found) >= chance + 30
