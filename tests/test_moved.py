"""Old names: they still give the same objects, and say where those are now."""

from __future__ import annotations

import ast
import importlib
import inspect
import pickle
import sys
import warnings
from pathlib import Path

import pytest

from fasthash import _moved
from fasthash.losses import published

ROOT = Path(__file__).resolve().parents[1]
# Old name -> new name, of modules and of what is in them.
MOVES = _moved.MODULES | {
    f"{module}.{name}": new for module, names in _moved.NAMES.items() for name, new in names.items()
}


@pytest.mark.parametrize(("old", "new"), _moved.MODULES.items())
def test_an_old_module_is_the_new_one(old: str, new: str) -> None:
    sys.modules.pop(old, None)
    with pytest.warns(DeprecationWarning, match=f"{old} has moved to {new};"):
        module = importlib.import_module(old)
    assert module is importlib.import_module(new)
    assert module.__name__ == new  # the import has not renamed it


@pytest.mark.parametrize(
    ("module", "name", "new"), [(module, *pair) for module, names in _moved.NAMES.items() for pair in names.items()]
)
def test_an_old_name_gives_the_object_of_the_new_one(module: str, name: str, new: str) -> None:
    home, _, attribute = new.rpartition(".")
    with pytest.warns(DeprecationWarning, match=f"{module}.{name} has moved to {new};"):
        found = getattr(importlib.import_module(module), name)
    assert found is getattr(importlib.import_module(home), attribute)


@pytest.mark.parametrize(("old", "new"), _moved.MODULES.items())
def test_an_old_module_is_an_attribute_of_its_package(old: str, new: str) -> None:
    package, _, name = old.rpartition(".")
    find = vars(importlib.import_module(package))["__getattr__"]  # what Python asks where no import has set it
    with pytest.warns(DeprecationWarning, match=f"{old} has moved to {new};"):
        assert find(name) is importlib.import_module(new)


def test_old_names_are_read_from_pickles() -> None:
    sys.modules.pop("fasthash.losses.csq", None)
    with pytest.warns(DeprecationWarning, match="fasthash.losses.csq has moved"):
        assert pickle.loads(b"cfasthash.losses.csq\nCSQLoss\n.") is published.CSQLoss


def test_new_names_do_not_warn() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", DeprecationWarning)
        for new in _moved.MODULES.values():
            importlib.import_module(new)
        for module in _moved.NAMES:
            home = importlib.import_module(module)
            dir(home)
            exec(f"from {module} import *", {})
            inspect.getmembers(home)


@pytest.mark.parametrize(
    "statement",
    ["from fasthash.losses import CSQLoss", "import fasthash.losses as l; l.CSQLoss", "import fasthash.losses.csq"],
)
def test_the_warning_says_where_the_old_name_is_used(statement: str) -> None:
    sys.modules.pop("fasthash.losses.csq", None)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        exec(compile(statement, "users_file.py", "exec"), {"__name__": "users_module"})
    assert [(warning.filename, warning.category) for warning in caught] == [("users_file.py", DeprecationWarning)]


def test_every_move_is_in_the_changelog() -> None:
    text = (ROOT / "CHANGELOG.md").read_text()
    missing = {old: new for old, new in MOVES.items() if f"`{old}`" not in text or f"`{new}`" not in text}
    assert not missing


@pytest.mark.parametrize("folder", ["fasthash", "tests", "benchmarks", "tools"])
def test_nothing_of_ours_imports_an_old_name(folder: str) -> None:
    for path in sorted((ROOT / folder).rglob("*.py")):
        imported = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module:
                imported |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
            elif isinstance(node, ast.Import):
                imported |= {alias.name for alias in node.names}
        assert not imported & set(MOVES), path
