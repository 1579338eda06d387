"""The pages of docs/: their Python runs, their commands parse, their links lead somewhere, their tables are measured.

`mkdocs build --strict` checks the rest: the navigation, links between pages, and headings (.ci/run).
"""

from __future__ import annotations

import importlib
import re
import shlex
from itertools import pairwise
from pathlib import Path

import pytest

import fasthash
from fasthash.cli.parser import make_parser

pytestmark = pytest.mark.usefixtures("one_thread")
ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
if not DOCS.is_dir():
    pytest.skip("docs are not here", allow_module_level=True)
OWN = ["index", "get-started", "for-training", "for-embeddings", "for-codes", "choosing-bits", "serving"]
PAGES = [*sorted(DOCS.rglob("*.md")), *(ROOT / name for name in ("CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md"))]


def text_of(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text_of(DOCS / page), flags=re.S | re.M)


@pytest.mark.parametrize("page", [f"{name}.md" for name in OWN])
def test_python_runs(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": "page"}
    for source in blocks(page, "python"):
        exec(compile(source, page, "exec"), names)


def test_every_page_with_python_is_in_a_test() -> None:
    tests = "".join(text_of(path) for path in (ROOT / "tests").glob("test_*.py"))
    for path in DOCS.rglob("*.md"):
        if "```python\n" in text_of(path):
            assert path.stem in OWN or path.name in tests, f"no test runs {path.name}"


@pytest.mark.parametrize("page", [f"{name}.md" for name in OWN])
def test_commands_parse(page: str) -> None:
    for line in "".join(blocks(page, "bash")).replace("\\\n", " ").splitlines():
        for command in line.split("&&"):
            words = shlex.split(command, comments=True)
            if words[:1] == ["fasthash"]:
                make_parser().parse_args(words[1:])
            for script in (word for word in words if word.endswith((".py", ".sh"))):
                assert (ROOT / script).exists(), script


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_links_lead_somewhere(path: Path) -> None:
    text = re.sub(r"^```.*?^```", "", text_of(path), flags=re.S | re.M)
    for target in re.findall(r"\]\((?!https?:|#)([^)\s]+)\)", text):
        assert (path.parent / target.partition("#")[0]).exists(), target
    for script in re.findall(r"`(examples/\w+\.py)`", text):
        assert (ROOT / script).exists(), script


def test_choosing_bits_has_the_measured_numbers() -> None:
    measured = text_of(DOCS / "results.md")
    parts = text_of(DOCS / "choosing-bits.md").split("\n## ")
    for heading, task, database in (("With class labels", "a", "train"), ("Without labels", "d", "all")):
        (part,) = [own for own in parts if own.startswith(heading)]
        header, _, *rows = [
            [cell.strip() for cell in line.split("|")[1:-1]] for line in part.splitlines() if line[:1] == "|"
        ]
        assert len(rows) >= 6
        for row in rows:
            cells = dict(zip(header, row, strict=True))
            bits, method = cells.pop("bits"), cells.pop("method")
            assert int(cells.pop("bytes")) * 8 == int(bits)
            table = measured.split(f"\n## Task {task}:")[1].split(f"\n### {bits} bits, codes, database: {database}\n")[
                1
            ]
            lines = [[cell.strip(" *") for cell in line.split("|")[1:-1]] for line in table.splitlines()[1:60]]
            names = lines[0]
            (found,) = [line for line in lines if line and re.sub(r" \(\d\)$", "", line[0]) == method][:1]
            for name, value in cells.items():
                assert found[names.index(name)].split()[0] == value, (bits, method, name)


def test_reference_has_every_public_name() -> None:
    listed = re.findall(r"^::: (\S+)$", "".join(text_of(path) for path in DOCS.glob("reference/*.md")), flags=re.M)
    assert len(listed) == len(set(listed))
    for name in listed:
        module, _, own = name.rpartition(".")
        if not module.startswith("fasthash.integration."):  # needs other libraries
            assert getattr(importlib.import_module(module), own).__doc__, name
    public = {name for name in fasthash.__all__ if type(getattr(fasthash, name)).__name__ not in ("module", "str")}
    assert public <= {name.rpartition(".")[2] for name in listed}


def test_reference_has_every_command() -> None:
    (commands,) = [action.choices for action in make_parser()._actions if action.dest == "COMMAND" or action.choices]
    page = text_of(DOCS / "reference" / "cli.md")
    assert re.findall(r"^\| `fasthash (\w+)` \|", page, flags=re.M) == list(commands)  # type: ignore[arg-type]


def test_results_in_docstrings_are_one_entry() -> None:
    """A line that is indented less than the line before it begins another entry: often a leftover of an edit."""
    for path in sorted((ROOT / "fasthash").rglob("*.py")):
        for title, entry in re.findall(r"^( +)Returns:\n((?: .*\n)+)", text_of(path), flags=re.M):
            inner = [line.startswith(f"{title}        ") for line in entry.splitlines()]
            assert (True, False) not in pairwise(inner), f"{path.relative_to(ROOT)}: {entry}"
