"""The public names: all there, listed alike for people, tools and type checkers, and imported when first used."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import fasthash


@pytest.mark.parametrize("name", fasthash.__all__)
def test_every_name_is_there(name: str) -> None:
    assert getattr(fasthash, name) is not None
    assert name in dir(fasthash)


def test_type_checkers_see_the_same_names() -> None:
    tree = ast.parse(Path(fasthash.__file__).read_text())
    block = next(node for node in tree.body if isinstance(node, ast.If))
    typed = {alias.name for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert typed | {"__version__"} == set(fasthash.__all__)


def test_unknown_names_are_attribute_errors() -> None:
    with pytest.raises(AttributeError, match="module 'fasthash' has no attribute 'kl_lost'"):
        _ = fasthash.kl_lost


def test_importing_the_package_does_not_import_torch() -> None:
    code = "import sys, fasthash, fasthash.cli; print('torch' in sys.modules)"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
