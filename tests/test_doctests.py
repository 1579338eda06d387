"""The examples in the docstrings run."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

import fasthash

MODULES = [
    "fasthash",
    *(m.name for m in pkgutil.walk_packages(fasthash.__path__, "fasthash.") if "__main__" not in m.name),
]


@pytest.mark.parametrize("name", MODULES)
def test_examples_run(name: str) -> None:
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if not name.startswith("fasthash.integration."):
            raise
        pytest.skip(f"needs {error.name}")
    if name != "fasthash._core":
        assert doctest.testmod(module, optionflags=doctest.ELLIPSIS).failed == 0
