"""Search where sentence-transformers has `semantic_search_faiss` and `semantic_search_usearch`: the same arguments."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from fasthash._arguments import choice, whole
from fasthash._arrays import dtype_name
from fasthash.codes import from_signed, pack_bits
from fasthash.embeddings import EmbeddingIndex
from fasthash.index import HammingIndex

PRECISIONS = ("float32", "ubinary", "binary")
_FUNCTION = "semantic_search_fasthash"
_AT_ONCE = 16  # queries whose candidates are all rows


def semantic_search_fasthash(
    query_embeddings: Any,
    corpus_embeddings: Any = None,
    corpus_index: EmbeddingIndex | HammingIndex | None = None,
    corpus_precision: str = "float32",
    top_k: int = 10,
    ranges: Any = None,
    calibration_embeddings: Any = None,
    rescore: bool = True,
    rescore_multiplier: int = 2,
    exact: bool = True,
    output_index: bool = False,
) -> tuple[Any, ...]:
    """The nearest corpus entries of each query, in place of sentence-transformers' `semantic_search_faiss`.

    Args:
        query_embeddings: float [Q, D]; or codes as `quantize_embeddings` gives them, "ubinary" uint8 or "binary" int8
            [Q, D / 8].
        corpus_embeddings: of the corpus [N, ...], in corpus_precision; or None, with corpus_index.
        corpus_index: for "float32" an EmbeddingIndex, otherwise a HammingIndex; such as an earlier call gave with
            output_index=True, or one that was opened from a folder.
        corpus_precision: "float32", "ubinary" or "binary" (D a multiple of 8). "int8" and "uint8" are refused.
        top_k: results of a query, >= 1; fewer where the corpus has fewer.
        ranges, calibration_embeddings: for "uint8" in other back ends; must be None here.
        rescore: with a corpus of codes and float queries: all codes are compared with the query as it is, by
            <q, x>, x = -1 or 1 for each bit; False: with the query rounded to bits, by Hamming distance.
        rescore_multiplier: with "float32" and exact=False: rescore_multiplier x top_k candidates by their codes are
            compared as floats. Codes need none: their search is exact.
        exact: with "float32": True compares all rows as floats; False the candidates alone.
        output_index: also give the index.

    Returns:
        (results, seconds), or (results, seconds, index): results[q] is a list of {"corpus_id": int, "score": float},
        best first, ties by corpus_id. Scores are inner products (larger is nearer), or Hamming distances (smaller is
        nearer) where queries are codes or rescore is False. Ids are those of the index.

    Raises:
        ValueError, TypeError: an argument outside these limits.

    >>> X = np.random.default_rng(0).normal(size=(100, 16)).astype(np.float32)
    >>> results, seconds = semantic_search_fasthash(X[:2], np.packbits(X > 0, axis=1), corpus_precision="ubinary")
    >>> results[1][0]["corpus_id"]
    1
    """
    choice(corpus_precision, _FUNCTION, "corpus_precision", PRECISIONS)
    top_k = whole(top_k, _FUNCTION, "top_k", 1)
    multiplier = whole(rescore_multiplier, _FUNCTION, "rescore_multiplier", 1)
    for name, given in (("ranges", ranges), ("calibration_embeddings", calibration_embeddings)):
        if given is not None:
            raise ValueError(
                f"{_FUNCTION}: {name} must be None, because it is for uint8 embeddings, which this function does not "
                "search"
            )
    if (corpus_embeddings is None) == (corpus_index is None):
        got = "none" if corpus_index is None else "both"
        raise ValueError(f"{_FUNCTION}: exactly one of corpus_embeddings and corpus_index must be given, got {got}")
    queries = _array(query_embeddings)
    if queries.ndim == 1:
        queries = queries[None]
    index = _index_of(corpus_embeddings, corpus_precision) if corpus_index is None else corpus_index
    kind = EmbeddingIndex if corpus_precision == "float32" else HammingIndex
    if not isinstance(index, kind):
        raise TypeError(
            f"{_FUNCTION}: corpus_index must be a {kind.__name__} for {corpus_precision!r}, got {type(index).__name__}"
        )
    start = time.perf_counter()
    if isinstance(index, EmbeddingIndex):
        ids, scores = _by_rows(index, queries, top_k, exact, multiplier)
    else:
        ids, scores = _by_codes(index, queries, top_k, rescore)
    seconds = time.perf_counter() - start
    results = [
        [{"corpus_id": int(id), "score": float(score)} for id, score in zip(*row, strict=True) if id >= 0]
        for row in zip(ids, scores, strict=True)
    ]
    return (results, seconds, index) if output_index else (results, seconds)


def _array(embeddings: Any) -> np.ndarray[Any, Any]:
    if isinstance(embeddings, (list, tuple)) and len(embeddings) and hasattr(embeddings[0], "__len__"):
        return np.stack([_array(row) for row in embeddings])
    if hasattr(embeddings, "detach"):  # a tensor, of any device and type
        embeddings = embeddings.detach().cpu()
        embeddings = embeddings.float() if embeddings.is_floating_point() else embeddings
    return np.asarray(embeddings)


def _index_of(corpus: Any, precision: str) -> EmbeddingIndex | HammingIndex:
    rows = _array(corpus)
    if rows.ndim != 2:
        raise ValueError(f"{_FUNCTION}: corpus_embeddings must be [N, D], got shape {rows.shape}")
    if precision == "float32":
        by_rows = EmbeddingIndex("rabitq", refine="float32", metric="dot")
        by_rows.add(rows)
        return by_rows
    codes = HammingIndex(8 * rows.shape[1])
    codes.add(_codes(rows, "corpus_embeddings"))
    return codes


def _codes(rows: np.ndarray[Any, Any], name: str) -> np.ndarray[Any, Any]:
    """Packed codes from either of the two forms."""
    if rows.dtype == np.int8:
        return from_signed(rows)  # type: ignore[no-any-return]
    if rows.dtype != np.uint8:
        raise TypeError(f"{_FUNCTION}: {name} must be codes, uint8 or int8 [N, D / 8], got {dtype_name(rows)}")
    return rows


def _by_rows(index: EmbeddingIndex, queries: Any, k: int, exact: bool, multiplier: int) -> tuple[Any, Any]:
    if not exact:
        found = index.search(queries, k, oversample=multiplier)
        return found.ids, found.scores
    everything = -(-len(index) // k) or 1  # all rows are candidates
    parts = [
        index.search(queries[start : start + _AT_ONCE], k, oversample=everything)
        for start in range(0, len(queries), _AT_ONCE)
    ]
    return np.concatenate([part.ids for part in parts]), np.concatenate([part.scores for part in parts])


def _by_codes(index: HammingIndex, queries: np.ndarray[Any, Any], k: int, rescore: bool) -> tuple[Any, Any]:
    if not np.issubdtype(queries.dtype, np.floating):
        found = index.search(_codes(queries, "query_embeddings"), k)
        return found.ids, found.distances
    if not rescore:
        found = index.search(pack_bits(queries, threshold=0.0), k)
        return found.ids, found.distances
    found = index.search(queries.astype(np.float32), k, rescore="all", metric="dot")
    return found.ids, -found.distances
