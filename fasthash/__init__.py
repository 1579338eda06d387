"""fasthash: learn binary hash codes that keep meaning, and search billions of them exactly."""

from fasthash import baselines, codes, datasets, evaluate, hierarchy, index, losses, metrics, targets, train
from fasthash._core import __version__
from fasthash.codes import pack_bits, unpack_bits
from fasthash.hierarchy import Hierarchy
from fasthash.index import (
    HammingIndex,
    IndexFolderError,
    RangeResult,
    SearchResult,
    hamming_distances,
    hamming_histogram,
    hamming_range,
    hamming_topk,
)
from fasthash.losses import kl_loss, koleo_loss, listwise_loss, similarity_loss
from fasthash.neighbors import Neighbors, entropy, kl_divergence, nearest
from fasthash.train.hasher import Hasher

__all__ = [
    "HammingIndex",
    "Hasher",
    "Hierarchy",
    "IndexFolderError",
    "Neighbors",
    "RangeResult",
    "SearchResult",
    "__version__",
    "baselines",
    "codes",
    "datasets",
    "entropy",
    "evaluate",
    "hamming_distances",
    "hamming_histogram",
    "hamming_range",
    "hamming_topk",
    "hierarchy",
    "index",
    "kl_divergence",
    "kl_loss",
    "koleo_loss",
    "listwise_loss",
    "losses",
    "metrics",
    "nearest",
    "pack_bits",
    "similarity_loss",
    "targets",
    "train",
    "unpack_bits",
]
