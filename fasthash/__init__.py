"""fasthash: learn binary hash codes that keep meaning, and search billions of them exactly.

Names are imported when they are first used: the command line answers --help without waiting for torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from fasthash import _moved  # noqa: F401  (old names of modules)
from fasthash._core import __version__

if TYPE_CHECKING:  # the same names, for type checkers and editors
    from fasthash import (
        asymmetric,
        baselines,
        cluster,
        codes,
        datasets,
        decoder,
        distributed,
        embeddings,
        evaluate,
        gradients,
        hamming,
        hierarchy,
        images,
        index,
        losses,
        maxsim,
        metrics,
        neighbors,
        pairs,
        reference,
        report,
        targets,
        train,
    )
    from fasthash.asymmetric import asymmetric_topk
    from fasthash.codes import pack_bits, unpack_bits
    from fasthash.decoder import LinearDecoder
    from fasthash.embeddings import EmbeddingIndex
    from fasthash.hamming import (
        RangeResult,
        SearchResult,
        hamming_distances,
        hamming_histogram,
        hamming_range,
        hamming_topk,
    )
    from fasthash.hierarchy import Hierarchy
    from fasthash.index import HammingIndex, IndexFolderError
    from fasthash.losses import kl_loss, koleo_loss, listwise_loss, similarity_loss
    from fasthash.maxsim import maxsim_topk
    from fasthash.neighbors import Neighbors, entropy, kl_divergence, nearest
    from fasthash.pairs import DuplicateGroups, KnnGraph, Pairs, duplicate_groups, hamming_pairs, knn_graph
    from fasthash.train import CIMON, AsymmetricHasher, CrossModalHasher, GraphHasher, Hasher, TextHasher

_NAMES = {
    "asymmetric": ["asymmetric_topk"],
    "codes": ["pack_bits", "unpack_bits"],
    "decoder": ["LinearDecoder"],
    "embeddings": ["EmbeddingIndex"],
    "hamming": [
        "RangeResult",
        "SearchResult",
        "hamming_distances",
        "hamming_histogram",
        "hamming_range",
        "hamming_topk",
    ],
    "hierarchy": ["Hierarchy"],
    "index": ["HammingIndex", "IndexFolderError"],
    "losses": ["kl_loss", "koleo_loss", "listwise_loss", "similarity_loss"],
    "maxsim": ["maxsim_topk"],
    "neighbors": ["Neighbors", "entropy", "kl_divergence", "nearest"],
    "pairs": ["DuplicateGroups", "KnnGraph", "Pairs", "duplicate_groups", "hamming_pairs", "knn_graph"],
    "train": ["CIMON", "AsymmetricHasher", "CrossModalHasher", "GraphHasher", "Hasher", "TextHasher"],
}
_MODULES = [
    *_NAMES,
    "baselines",
    "cluster",
    "datasets",
    "distributed",
    "evaluate",
    "gradients",
    "images",
    "metrics",
    "reference",
    "report",
    "targets",
]
_HOMES = {name: module for module, names in _NAMES.items() for name in names}

__all__ = [
    "CIMON",
    "AsymmetricHasher",
    "CrossModalHasher",
    "DuplicateGroups",
    "EmbeddingIndex",
    "GraphHasher",
    "HammingIndex",
    "Hasher",
    "Hierarchy",
    "IndexFolderError",
    "KnnGraph",
    "LinearDecoder",
    "Neighbors",
    "Pairs",
    "RangeResult",
    "SearchResult",
    "TextHasher",
    "__version__",
    "asymmetric",
    "asymmetric_topk",
    "baselines",
    "cluster",
    "codes",
    "datasets",
    "decoder",
    "distributed",
    "duplicate_groups",
    "embeddings",
    "entropy",
    "evaluate",
    "gradients",
    "hamming",
    "hamming_distances",
    "hamming_histogram",
    "hamming_pairs",
    "hamming_range",
    "hamming_topk",
    "hierarchy",
    "images",
    "index",
    "kl_divergence",
    "kl_loss",
    "knn_graph",
    "koleo_loss",
    "listwise_loss",
    "losses",
    "maxsim",
    "maxsim_topk",
    "metrics",
    "nearest",
    "neighbors",
    "pack_bits",
    "pairs",
    "reference",
    "report",
    "similarity_loss",
    "targets",
    "train",
    "unpack_bits",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        value = getattr(import_module(f"fasthash.{_HOMES[name]}"), name)
    elif name in _MODULES:
        value = import_module(f"fasthash.{name}")
    else:
        raise AttributeError(f"module 'fasthash' has no attribute {name!r}")
    globals()[name] = value  # the next use does not come here
    return value


def __dir__() -> list[str]:
    return __all__
