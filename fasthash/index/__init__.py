"""Exact search over packed binary codes: the functions, and an index with ids that can live on disk."""

from fasthash.index.flat import HammingIndex
from fasthash.index.search import (
    RangeResult,
    SearchResult,
    hamming_distances,
    hamming_histogram,
    hamming_range,
    hamming_topk,
)
from fasthash.index.untrusted import IndexFolderError

__all__ = [
    "HammingIndex",
    "IndexFolderError",
    "RangeResult",
    "SearchResult",
    "hamming_distances",
    "hamming_histogram",
    "hamming_range",
    "hamming_topk",
]
