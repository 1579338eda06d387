"""How much of an exact search an index of codes finds: without labels, for every encoder, width and refinement."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from fasthash._arguments import choice, whole
from fasthash.embeddings import encoders
from fasthash.embeddings.encoders import ROWS, Encoder, block_of, checked_rows, encoder_rows, stored_rows
from fasthash.embeddings.scores import Estimate, by_codes, by_rows, candidates, first
from fasthash.index import HammingIndex
from fasthash.index.progress import progress_bar
from fasthash.index.store.manifest import METRICS
from fasthash.index.vectors import KINDS, Vectors

_FUNCTION = "against_exact"


def against_exact(
    X: Any,
    Q: Any,
    encoder: Any = ("itq", "rabitq"),
    *,
    bits: Any = None,
    refine: Any = (None, "int8"),
    metric: str = "cosine",
    at: Sequence[int] = (1, 10, 100),
    oversample: int = 3,
    fit_rows: int = encoders.FIT_ROWS,
    progress: bool | None = False,
) -> list[dict[str, Any]]:
    """Compares an EmbeddingIndex of rows X [N, F] with an exact search of X, for queries Q [q, F].

    One row of the result for each encoder, each of `bits` (for names; None: their default) and each `refine`: a dict
    with "encoder", "bits", "refine", "bytes" (an item's, ids and keys not counted), and for each k of `at` "recall@k",
    the part of queries whose nearest row is among the k found, and "overlap@k", the part of the k nearest that is among
    the k found. Each k is a search of its own, with oversample x k candidates.

    encoder: one or several of what EmbeddingIndex takes; names are fitted on the first `fit_rows` rows. X may be
    memory-mapped: it is read by blocks, once for the exact search and once for each encoder and width. Bits that an
    encoder cannot have are left out if it can have others of them. progress: a bar on stderr; None: where that is a
    terminal. Raises ValueError or TypeError.

    >>> X = torch.randn(500, 16, generator=torch.Generator().manual_seed(0))
    >>> rows = against_exact(X, X[:20], "rabitq", refine=["int8", "float32"], at=[1])
    >>> [(row["bytes"], row["recall@1"]) for row in rows]
    [(24, 1.0), (68, 1.0)]
    """
    choice(metric, _FUNCTION, "metric", METRICS)
    rows = checked_rows(X, None, _FUNCTION)
    asked = checked_rows(Q, rows.shape[1], _FUNCTION, "Q")
    if not len(rows) or not len(asked):
        raise ValueError(f"{_FUNCTION}: X and Q must have at least 1 row, got {len(rows)} and {len(asked)}")
    queries = torch.cat([block_of(asked, start, _FUNCTION, "Q") for start in range(0, len(asked), ROWS)])
    ranks = sorted({whole(k, _FUNCTION, "at", 1, len(rows), "the rows of X") for k in _listed(at)})
    oversample = whole(oversample, _FUNCTION, "oversample", 1)
    fit_rows = whole(fit_rows, _FUNCTION, "fit_rows", 2)
    kinds = _listed(refine)
    for name, given in (("at", ranks), ("refine", kinds), ("encoder", _listed(encoder)), ("bits", _listed(bits))):
        if not given:
            raise ValueError(f"{_FUNCTION}: {name} must have at least one entry, got none")
    for kind in kinds:
        if kind is not None:
            choice(kind, _FUNCTION, "refine", KINDS)
    plans = _plans(encoder, bits, rows.shape[1])
    result = []
    with progress_bar("rows", len(rows) * (1 + len(plans)), "row", progress) as bar:
        exact = exact_topk(rows, queries, ranks[-1], metric, bar)
        for given, width in plans:
            unit = isinstance(given, str) and metric == "cosine"
            fitted = _fitted(given, width, rows, unit, fit_rows)
            index = HammingIndex(encoders.bits_of(fitted), bit_weights=encoders.weights_of(fitted))
            for start in range(0, len(rows), ROWS):
                block = block_of(rows, start, _FUNCTION)
                taken_in = encoder_rows(block, unit)
                codes = fitted.encode(taken_in)
                scaled = encoders.has_scales(fitted, metric, unit)
                index.add(codes, code_scale=encoders.scales_of(fitted, taken_in, codes, metric) if scaled else None)
                bar.update(len(block))
            encoded = encoder_rows(queries, unit)
            near = candidates(index, fitted, metric, encoded, min(len(rows), ranks[-1] * oversample), None)
            for kind in kinds:
                if kind is None:
                    scores = by_codes(index._contents, Estimate(fitted), metric, queries, encoded, near)
                else:
                    scores = by_rows(partial(_refined, rows, metric, kind), metric, queries, near)
                stored = 0 if kind is None else Vectors.none(kind, rows.shape[1]).row_bytes
                told = {
                    "encoder": given if isinstance(given, str) else repr(given),
                    "bits": index.bits,
                    "refine": kind,
                    "bytes": -(-index.bits // 8) + 2 * index._contents.scaled + stored,
                }
                for k in ranks:
                    taken = slice(0, min(near.shape[1], k * oversample))
                    _, found = first(scores[:, taken], near[:, taken], k, metric)
                    hit = found[:, :, None] == exact[:, None, :k]
                    told[f"recall@{k}"] = float(hit[:, :, 0].any(1).double().mean())
                    told[f"overlap@{k}"] = float(hit.any(1).double().mean())
                result.append(told)
    return result


def exact_topk(rows: Tensor, queries: Tensor, k: int, metric: str, bar: Any) -> Tensor:
    """The ids of the k nearest rows, int64 [Q, k], nearest first, by float32 products of blocks of rows."""
    best_scores, best_ids = torch.empty(len(queries), 0), torch.empty(len(queries), 0, dtype=torch.int64)
    q = encoder_rows(queries, metric == "cosine")
    for start in range(0, len(rows), ROWS):
        block = encoder_rows(block_of(rows, start, _FUNCTION), metric == "cosine")
        scores = q @ block.T
        if metric == "l2":
            scores.mul_(2).sub_(block.square().sum(1))
        values, places = scores.topk(min(k, len(block)), dim=1)
        values, ids = torch.cat([best_scores, values], 1), torch.cat([best_ids, places + start], 1)
        best_scores, order = values.topk(min(k, values.shape[1]), dim=1)
        best_ids = ids.gather(1, order)
        bar.update(len(block))
    return best_ids


def _listed(given: Any) -> list[Any]:
    """One or several of something as a list."""
    return list(given) if isinstance(given, (list, tuple)) else [given]


def _plans(encoder: Any, bits: Any, features: int) -> list[tuple[Any, int | None]]:
    """The encoders that are measured, with the bits of those that are given by name."""
    given, widths = _listed(encoder), _listed(bits)
    plans: list[tuple[Any, int | None]] = []
    for own in given:
        if not isinstance(own, str):
            encoders.check_encoder(own, None, _FUNCTION)
            plans.append((own, None))
            continue
        for width in widths:
            encoders.check_encoder(own, width, _FUNCTION)
        can = [width for width in widths if encoders.can_have(own, width, features)]
        if not can:
            raise ValueError(f"{_FUNCTION}: {own!r} of {features} features cannot have codes of {widths} bits")
        plans += [(own, width) for width in can]
    return plans


def _fitted(given: Any, width: int | None, rows: Tensor, unit: bool, fit_rows: int) -> Encoder:
    if not isinstance(given, str):
        if encoders.features_of(given) != rows.shape[1]:
            raise ValueError(f"{_FUNCTION}: X must have {encoders.features_of(given)} features, got {rows.shape[1]}")
        return given  # type: ignore[no-any-return]
    few = rows[:fit_rows]
    blocks = [block_of(few, start, _FUNCTION) for start in range(0, len(few), ROWS)]
    return encoders.fit_encoder(given, width, encoder_rows(torch.cat(blocks), unit), _FUNCTION)


def _refined(rows: Tensor, metric: str, kind: str, ids: Tensor) -> Tensor:
    """The rows of ids as an EmbeddingIndex with this `refine` stores them."""
    return torch.from_numpy(Vectors.of(stored_rows(rows[ids].float(), metric), kind, _FUNCTION).values())
