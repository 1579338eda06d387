"""Old names: they still give the same objects, and say where those are now."""

from __future__ import annotations

import importlib
import sys
import warnings
from pathlib import Path

import pytest

from fasthash import _moved


@pytest.mark.parametrize(("old", "new"), _moved.MODULES.items())
def test_an_old_module_has_the_names_of_the_new_one(old: str, new: str) -> None:
    sys.modules.pop(old, None)
    with pytest.warns(DeprecationWarning, match=f"{old} has moved to {new};"):
        module = importlib.import_module(old)
    home = importlib.import_module(new)
    for name in (name for name in vars(home) if not name.startswith("_")):
        assert getattr(module, name) is getattr(home, name)


@pytest.mark.parametrize(
    ("module", "name", "new"), [(module, *pair) for module, names in _moved.NAMES.items() for pair in names.items()]
)
def test_an_old_name_gives_the_object_of_the_new_one(module: str, name: str, new: str) -> None:
    home, _, attribute = new.rpartition(".")
    with pytest.warns(DeprecationWarning, match=f"{module}.{name} has moved to {new};"):
        found = getattr(importlib.import_module(module), name)
    assert found is getattr(importlib.import_module(home), attribute)


def test_the_warning_points_at_the_user() -> None:
    if not _moved.MODULES:
        pytest.skip("no module has moved")
    old = next(iter(_moved.MODULES))
    sys.modules.pop(old, None)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        exec(compile(f"import {old}", "users_file.py", "exec"), {})
    assert [warning.filename for warning in caught] == ["users_file.py"]


def test_new_names_do_not_warn() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", DeprecationWarning)
        for new in _moved.MODULES.values():
            importlib.import_module(new)


def test_every_move_is_in_the_changelog() -> None:
    text = (Path(__file__).resolve().parents[1] / "CHANGELOG.md").read_text()
    moves = dict(_moved.MODULES)
    for module, names in _moved.NAMES.items():
        moves |= {f"{module}.{name}": new for name, new in names.items()}
    missing = {old: new for old, new in moves.items() if f"`{old}`" not in text or f"`{new}`" not in text}
    assert not missing
