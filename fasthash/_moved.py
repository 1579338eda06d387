"""Names that moved. Their old places still work for one release, with a DeprecationWarning that says the new name.

docs/contributing.md has the rule. Delete the entries of a release when the release after it is made.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

# Old module -> new module.
MODULES: dict[str, str] = {
    "fasthash.index.search": "fasthash.hamming",
}

# Module that is still there -> names that it had -> where they are now.
NAMES: dict[str, dict[str, str]] = {
    "fasthash.index": {
        "RangeResult": "fasthash.hamming.RangeResult",
        "SearchResult": "fasthash.hamming.SearchResult",
        "hamming_distances": "fasthash.hamming.hamming_distances",
        "hamming_histogram": "fasthash.hamming.hamming_histogram",
        "hamming_range": "fasthash.hamming.hamming_range",
        "hamming_topk": "fasthash.hamming.hamming_topk",
    },
}


def moved_names(module: str) -> Callable[[str], Any]:
    """The `__getattr__` of a module of NAMES: `__getattr__ = moved_names(__name__)` at the end of its file.

    >>> moved_names("fasthash.codes")("no_such_name")
    Traceback (most recent call last):
    AttributeError: module 'fasthash.codes' has no attribute 'no_such_name'
    """

    def find(name: str) -> Any:
        new = NAMES.get(module, {}).get(name)
        if new is None:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        warn(f"{module}.{name}", new)
        home, _, attribute = new.rpartition(".")
        return getattr(import_module(home), attribute)

    return find


def warn(old: str, new: str) -> None:
    """Warns whoever uses the old name; the import system's own frames do not count."""
    warnings.warn(
        f"{old} has moved to {new}; the old name goes with the next release", DeprecationWarning, stacklevel=3
    )


class _OldModules(MetaPathFinder, Loader):
    """Imports an old module as an empty one whose names are those of the new module."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        return ModuleSpec(fullname, self) if fullname in MODULES else None

    def exec_module(self, module: ModuleType) -> None:
        new = MODULES[module.__name__]
        warn(module.__name__, new)
        home = import_module(new)
        module.__doc__ = f"Moved to {new}."
        module.__dict__["__getattr__"] = lambda name: getattr(home, name)
        module.__dict__["__dir__"] = lambda: dir(home)


if not any(type(finder).__name__ == _OldModules.__name__ for finder in sys.meta_path):
    sys.meta_path.append(_OldModules())
