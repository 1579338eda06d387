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
def test_python_runs(source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # where examples write their files
    exec(compile(source, "docs/method.md", "exec"), {"__name__": "method"})


@pytest.mark.skipif(not FOLDER.is_dir(), reason="the results of the runs are not here")
def test_tables_are_those_of_the_runs(tmp_path: Path) -> None:
    pages = "results.md", "method.md", "which-method.md"
    for page in pages[1:]:
        shutil.copy(ROOT / "docs" / page, tmp_path)
    write_tables(docs=tmp_path)
    hint = "run python -m benchmarks.quality --tables"
    for page in pages:
        assert (tmp_path / page).read_text(encoding="utf-8") == (ROOT / "docs" / page).read_text(encoding="utf-8"), hint


@pytest.mark.parametrize("page", ["method.md", "which-method.md"])
def test_links_lead_somewhere(page: str) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)]+)\)", (ROOT / "docs" / page).read_text(encoding="utf-8")):
        assert (ROOT / "docs" / target).exists(), target
