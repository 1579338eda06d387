"""docs/method.md and docs/results.md say what is so: the Python runs, the tables are those of the runs."""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
if not (ROOT / "docs" / "method.md").exists() or not (ROOT / "benchmarks" / "quality").is_dir():
    pytest.skip("docs and benchmarks are not here", allow_module_level=True)
sys.path.append(str(ROOT))  # last: the sources beside it have no compiled extension

from benchmarks.quality.results import FOLDER  # noqa: E402
from benchmarks.quality.tables import write_tables  # noqa: E402

TEXT = (ROOT / "docs" / "method.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("source", re.findall(r"^```python\n(.*?)^```", TEXT, flags=re.S | re.M))
def test_python_runs(source: str) -> None:
    exec(compile(source, "docs/method.md", "exec"), {"__name__": "method"})


@pytest.mark.skipif(not FOLDER.is_dir(), reason="the results of the runs are not here")
def test_tables_are_those_of_the_runs(tmp_path: Path) -> None:
    results, method = tmp_path / "results.md", tmp_path / "method.md"
    shutil.copy(ROOT / "docs" / "method.md", method)
    write_tables(document=results, method=method)
    hint = "run python -m benchmarks.quality --tables"
    assert results.read_text(encoding="utf-8") == (ROOT / "docs" / "results.md").read_text(encoding="utf-8"), hint
    assert method.read_text(encoding="utf-8") == TEXT, hint


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\((?!https?:)([^)]+)\)", TEXT):
        assert (ROOT / "docs" / target).exists(), target
