"""Names that moved. Their old places still work for one release, with a DeprecationWarning that says the new name.

CONTRIBUTING.md has the rule. Delete the entries of a release when the release after it is made.
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
    "fasthash.index.arguments": "fasthash._arguments",
    "fasthash.index.build": "fasthash.index.exchange.build",
    "fasthash.index.devices": "fasthash.index.search.devices",
    "fasthash.index.durable": "fasthash._durable",
    "fasthash.index.exports": "fasthash.index.exchange.exports",
    "fasthash.index.flat": "fasthash.index.hamming_index",
    "fasthash.index.formats": "fasthash.index.exchange.sources",
    "fasthash.index.manifest": "fasthash.index.store.manifest",
    "fasthash.index.mih": "fasthash.index.store.table_file",
    "fasthash.index.scan": "fasthash.index.search.parts",
    "fasthash.index.segment_file": "fasthash.index.store.segment_file",
    "fasthash.index.storage": "fasthash.index.store.writer",
    "fasthash.index.stream": "fasthash.index.search.stream",
    "fasthash.index.tensorfile": "fasthash.index.store.tensorfile",
    "fasthash.index.untrusted": "fasthash.index.store.untrusted",
    "fasthash.losses.bihalf": "fasthash.losses.published.bihalf",
    "fasthash.losses.contrastive": "fasthash.losses.published.contrastive",
    "fasthash.losses.cross_entropy": "fasthash.losses.published.cross_entropy",
    "fasthash.losses.csq": "fasthash.losses.published.csq",
    "fasthash.losses.greedyhash": "fasthash.losses.published.greedyhash",
    "fasthash.losses.hashnet": "fasthash.losses.published.hashnet",
    "fasthash.losses.hpdh": "fasthash.losses.published.hpdh",
    "fasthash.losses.orthohash": "fasthash.losses.published.orthohash",
    "fasthash.losses.outputs": "fasthash.losses.published.outputs",
    "fasthash.losses.sdc": "fasthash.losses.published.sdc",
    "fasthash.metrics.groups": "fasthash.metrics.ranking",
    "fasthash.train.checkpoint": "fasthash._checkpoint",
}

# Module that is still there -> names that it had -> where they are now.
NAMES: dict[str, dict[str, str]] = {
    "fasthash.distributed": {"share": "fasthash.distributed.broadcast"},
    "fasthash.train.encoder": {"feature_scales": "fasthash.train.features.feature_scales"},
    "fasthash.train.hasher": {"TEMPERATURE_Y": "fasthash.train.settings.TEMPERATURE_Y"},
    "fasthash.index": {
        "RangeResult": "fasthash.hamming.RangeResult",
        "SearchResult": "fasthash.hamming.SearchResult",
        "hamming_distances": "fasthash.hamming.hamming_distances",
        "hamming_histogram": "fasthash.hamming.hamming_histogram",
        "hamming_range": "fasthash.hamming.hamming_range",
        "hamming_topk": "fasthash.hamming.hamming_topk",
    },
    "fasthash.index.search": {
        "RangeResult": "fasthash.hamming.RangeResult",
        "SearchResult": "fasthash.hamming.SearchResult",
        "hamming_distances": "fasthash.hamming.hamming_distances",
        "hamming_histogram": "fasthash.hamming.hamming_histogram",
        "hamming_range": "fasthash.hamming.hamming_range",
        "hamming_topk": "fasthash.hamming.hamming_topk",
    },
    "fasthash.losses": {
        "LOSSES": "fasthash.losses.published.LOSSES",
        "BiHalfLoss": "fasthash.losses.published.BiHalfLoss",
        "CSQLoss": "fasthash.losses.published.CSQLoss",
        "ContrastiveLoss": "fasthash.losses.published.ContrastiveLoss",
        "GreedyHashLoss": "fasthash.losses.published.GreedyHashLoss",
        "HPDHLoss": "fasthash.losses.published.HPDHLoss",
        "HashNetLoss": "fasthash.losses.published.HashNetLoss",
        "HierarchicalContrastiveLoss": "fasthash.losses.published.HierarchicalContrastiveLoss",
        "OrthoHashLoss": "fasthash.losses.published.OrthoHashLoss",
        "SDCLoss": "fasthash.losses.published.SDCLoss",
        "SignCrossEntropyLoss": "fasthash.losses.published.SignCrossEntropyLoss",
    },
    "fasthash.metrics.ranking": {
        "PrecisionRecallCurve": "fasthash.metrics.PrecisionRecallCurve",
        "hierarchical_precision": "fasthash.metrics.hierarchical_precision",
        "mean_average_precision": "fasthash.metrics.mean_average_precision",
        "ndcg": "fasthash.metrics.ndcg",
        "precision_at": "fasthash.metrics.precision_at",
        "precision_recall_curve": "fasthash.metrics.precision_recall_curve",
        "precision_within_radius": "fasthash.metrics.precision_within_radius",
        "recall_at": "fasthash.metrics.recall_at",
    },
}


def moved_names(module: str) -> Callable[[str], Any]:
    """The `__getattr__` of a module of NAMES: `__getattr__ = moved_names(__name__)` at the end of its file.

    Behind `if not TYPE_CHECKING:`, else type checkers take every misspelled name of the module for one that it has.
    In a package it gives modules of MODULES too: `fasthash.losses.csq` worked without an import of its own.

    >>> moved_names("fasthash.codes")("no_such_name")
    Traceback (most recent call last):
    AttributeError: module 'fasthash.codes' has no attribute 'no_such_name'
    """

    def find(name: str) -> Any:
        old = f"{module}.{name}"
        if old in MODULES:
            warn(old, MODULES[old])
            return import_module(MODULES[old])
        if name not in NAMES.get(module, {}):
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        new = NAMES[module][name]
        warn(old, new)
        home, _, attribute = new.rpartition(".")
        return getattr(import_module(home), attribute)

    return find


def warn(old: str, new: str) -> None:
    """Warns whoever uses the old name; the import system's own frames do not count."""
    warnings.warn(f"{old} has moved to {new}; the next release removes the old name", DeprecationWarning, stacklevel=3)


class _OldModules(MetaPathFinder, Loader):
    """Gives the new module itself for an old name, so that both have the same names, `import *` and patches too."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        return ModuleSpec(fullname, self) if fullname in MODULES else None

    def exec_module(self, module: ModuleType) -> None:
        new = MODULES[module.__name__]
        warn(module.__name__, new)
        sys.modules[module.__name__] = import_module(new)  # the import system gives what it finds here


if not any(type(finder).__name__ == _OldModules.__name__ for finder in sys.meta_path):
    sys.meta_path.append(_OldModules())
