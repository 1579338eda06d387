"""fasthash: learn binary hash codes that keep meaning, and search billions of them exactly."""

from fasthash import codes, hierarchy, index, losses, metrics, targets
from fasthash._core import __version__
from fasthash.codes import pack_bits, unpack_bits
from fasthash.hierarchy import Hierarchy
from fasthash.index import (
    HammingIndex,
    RangeResult,
    SearchResult,
    hamming_distances,
    hamming_histogram,
    hamming_range,
    hamming_topk,
)
from fasthash.losses import kl_loss, koleo_loss, listwise_loss, similarity_loss
from fasthash.neighbors import Neighbors, entropy, kl_divergence, nearest

__all__ = [
    "HammingIndex",
    "Hierarchy",
    "Neighbors",
    "RangeResult",
    "SearchResult",
    "__version__",
    "codes",
    "entropy",
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
    "unpack_bits",
]
