"""Retrieval metrics over qrels: graded relevance for each (query, document), exact over tied scores.

What a metric needs of a ranking is where the relevant documents stand in it: how many results come before each, and
how many have the same score. The rest is bounded memory: rankings are made for a few queries at a time.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fasthash._arguments import MOST, choice, whole
from fasthash._arrays import Array
from fasthash._warnings import warn
from fasthash.hamming import hamming_histogram
from fasthash.metrics.expectation import (
    BLOCK,
    average_precision,
    discounted_sum,
    ratio,
    reciprocal_rank,
    sums_at,
)
from fasthash.metrics.qrels import check_qrels, names_of, scored_documents
from fasthash.metrics.ranking import (
    PAIRS,
    check_bit_weights,
    check_items,
    largest_distance,
    pair_distances,
    row_distances,
)

Scores = dict[str, float]


class Places(NamedTuple):
    """Relevant documents that were found, one an entry [M], in no order."""

    query: NDArray[np.int64]  # the number of the query
    before: NDArray[np.int64]  # results with a better score
    size: NDArray[np.int64]  # results with this score, itself included
    grade: NDArray[np.int64]  # its relevance


def retrieval(
    run: Any,
    qrels: Any,
    *,
    k: int | Iterable[int] = (10, 100),
    gains: str = "linear",
    query_names: Any = None,
    database_names: Any = None,
    exclude_self: bool = False,
    per_query: bool = False,
) -> Any:
    """Metrics of a run over qrels, by name: "nDCG@k", "MAP@k", "MRR@k", "R@k" and "P@k" of each k, "MAP" and "MRR".

    Args:
        run: {query: {document: score}}, a higher score is better; or pairs (query, {document: score}), which may be
            made one by one; or arrays (scores, ids) [Q, k], or a `SearchResult` of `HammingIndex.search` (ids < 0 are
            empty places). `read_run` reads files.
        qrels: {query: {document: relevance}}, integers; >= 1 is relevant. `read_qrels` reads files.
        k: one rank or several.
        gains: of a relevance r >= 1 in nDCG: "linear", r, as trec_eval; or "exponential", 2^r - 1.
        query_names, database_names: for arrays, the names of their rows and ids; else rows and ids as decimal text
            (or the keys that the index gave).
        exclude_self: a document with the query's name is left out, of the run and of qrels.
        per_query: give {query: {name: value}} instead of the means.

    Scores that are equal tie: each value is the exact expectation over all orders of ties. Metrics are those of
    trec_eval: recall and MAP divide by all relevant documents of the query, found or not; precision by k, also where
    fewer were retrieved. Every query of qrels counts: one that the run has not, or that has no relevant document,
    scores 0 (trec_eval -c). Queries that are not judged are ignored. "queries" is the number of queries in the means.

    Warns where a judged query is not in the run. Raises ValueError or TypeError where no query of the run is judged,
    where a query, or a document of one query, occurs twice, and for NaN. Sources: Jarvelin & Kekalainen 2002 (nDCG);
    Voorhees & Harman, "TREC", 2005; ties as in McSherry & Najork, ECIR 2008.

    >>> retrieval({"q": {"a": 0.9, "b": 0.5, "c": 0.1}}, {"q": {"b": 1}}, k=2)["MRR@2"]
    0.5
    >>> constant = {"q": {"a": 1.0, "b": 1.0, "c": 1.0}}
    >>> round(retrieval(constant, {"q": {"b": 1}}, k=2)["MRR"], 4)  # (1 + 1/2 + 1/3) / 3
    0.6111
    """
    ranks, exponential = _check_options("retrieval", k, gains)
    relevant = check_qrels("retrieval", qrels, exclude_self)
    numbers = {query: number for number, query in enumerate(relevant)}
    found: list[tuple[int, int, int, int]] = []
    known, first = set(), ""
    for query, documents, scores in scored_documents("retrieval", run, query_names, database_names):
        first = first or query
        if query not in relevant:
            continue
        known.add(query)
        if exclude_self and query in documents:
            scores = np.delete(scores, documents.index(query))
            documents = [name for name in documents if name != query]
        grades = relevant[query]
        hits = [place for place, name in enumerate(documents) if name in grades]
        ordered = np.sort(-scores)
        before = np.searchsorted(ordered, -scores[hits], "left").tolist()
        end = np.searchsorted(ordered, -scores[hits], "right").tolist()
        for place, low, high in zip(hits, before, end, strict=True):
            found.append((numbers[query], low, high - low, grades[documents[place]]))
    _check_known("retrieval", "the run", relevant, known, first)
    columns = np.array(found, dtype=np.int64).reshape(-1, 4).T
    return _result(Places(*columns), relevant, ranks, exponential, per_query)


def exhaustive_retrieval(
    query: Array,
    database: Array,
    query_names: Any,
    database_names: Any,
    qrels: Any,
    *,
    k: int | Iterable[int] = (10, 100),
    gains: str = "linear",
    metric: str | None = None,
    bit_weights: Any = None,
    exclude_self: bool = False,
    per_query: bool = False,
) -> Any:
    """The metrics of `retrieval` of the whole database, ranked for each query by distance, in bounded memory.

    `query` [Q, ...], `database` [N, ...], `metric` and `bit_weights` are as in `fasthash.metrics`; names are text or
    integers, [Q] and [N]. Queries that are not judged are not ranked. Relevant documents that the database has not
    count as not found. Warns where a judged query or a relevant document is missing. Raises ValueError where no query
    of `query_names`, or no relevant document, is known, and for a query or a relevant document that is named twice.

    Memory beside the arguments and the qrels: some tens of MB for codes; for embeddings the distances of one query to
    the database, or more queries where they fit into the same.

    >>> codes = np.array([[0], [1], [1], [255]], dtype=np.uint8)
    >>> exhaustive_retrieval(codes[:1], codes, ["q"], ["a", "b", "c", "d"], {"q": {"b": 1}}, k=2)["MRR"]
    0.41666666666666663
    """
    name = "exhaustive_retrieval"
    ranks, exponential = _check_options(name, k, gains)
    relevant = check_qrels(name, qrels, exclude_self)
    left, right, metric = check_items(name, query, database, metric)
    weights = check_bit_weights(name, bit_weights, left)
    numbers = {query_name: number for number, query_name in enumerate(relevant)}
    rows, first = _rows_of(name, "query_names", query_names, numbers.keys(), len(left))
    _check_known(name, "query_names", relevant, set(rows), first)
    wanted = {document for query_name in rows for document in relevant[query_name]}
    own = set(rows) if exclude_self else set()
    places, first = _rows_of(name, "database_names", database_names, wanted | own, len(right))
    lost = len(wanted - places.keys())
    if wanted and lost == len(wanted):
        raise ValueError(
            f"{name}: no relevant document of qrels is in database_names, got {first!r} and {next(iter(wanted))!r} "
            "for example"
        )
    if lost:
        example = next(iter(sorted(wanted - places.keys())))
        warn(
            f"{name}: {lost:,} of {len(wanted):,} relevant documents are not in the database, {example!r} for example; "
            "they count as not found"
        )
    parts = []
    codes = metric == "hamming"
    step = max(1, BLOCK // (largest_distance(left, weights) + 1) if codes else PAIRS // len(right))
    queries = list(rows)
    for start in range(0, len(queries), step):
        block = queries[start : start + step]
        ranked = left[[rows[query_name] for query_name in block]]
        entries = [
            (place, numbers[query_name], places[document], grade)
            for place, query_name in enumerate(block)
            for document, grade in relevant[query_name].items()
            if document in places
        ]
        place, number, row, grade = np.array(entries, dtype=np.int64).reshape(-1, 4).T
        selves = np.array([places.get(query_name, -1) if own else -1 for query_name in block], dtype=np.int64)
        before, size = (_counted if codes else _sorted)(ranked, right, metric, weights, place, row, selves)
        parts.append(Places(number, before, size, grade))
    joined = Places(*(np.concatenate(column) for column in zip(*parts, strict=True)))
    return _result(joined, relevant, ranks, exponential, per_query)


Counts = tuple[NDArray[np.int64], NDArray[np.int64]]
Rows = NDArray[np.int64]


def _counted(query: Tensor, database: Tensor, metric: str, weights: Any, place: Rows, row: Rows, own: Rows) -> Counts:
    """Codes nearer than document `row` to query `place`, and as near, [M]; document `own` [q] is left out."""
    counts = hamming_histogram(query, database, bit_weights=weights)[0].cpu()

    def distances(of: Rows, to: Rows) -> Tensor:
        pairs = zip(torch.from_numpy(of).split(1 << 14), torch.from_numpy(to).split(1 << 14), strict=True)
        return torch.cat([row_distances(query[a], database[b], weights) for a, b in pairs]).cpu()

    rows = (own >= 0).nonzero()[0]
    if len(rows):
        counts[torch.from_numpy(rows), distances(rows, own[rows])] -= 1
    at = distances(place, row)
    size = counts[torch.from_numpy(place), at]
    before = counts.cumsum(1)[torch.from_numpy(place), at] - size
    return before.numpy(), size.numpy()


def _sorted(query: Tensor, database: Tensor, metric: str, weights: Any, place: Rows, row: Rows, own: Rows) -> Counts:
    """The same for embeddings: from their sorted distances."""
    distances = pair_distances(query, database, metric).cpu().numpy()
    own_row = (own >= 0).nonzero()[0]
    at = distances[place, row]
    distances[own_row, own[own_row]] = np.inf  # comes last, behind what is asked for
    distances.sort(axis=1)
    before, end = np.empty((2, len(place)), dtype=np.int64)
    for number, ordered in enumerate(distances):
        mine = place == number
        before[mine] = np.searchsorted(ordered, at[mine], "left")
        end[mine] = np.searchsorted(ordered, at[mine], "right")
    return before, end - before


def _check_options(function: str, k: Any, gains: Any) -> tuple[list[int], bool]:
    given = list(k) if isinstance(k, Iterable) and not isinstance(k, (str, bytes)) else [k]
    ranks = [whole(rank, function, "k", 1, MOST) for rank in given]
    if not ranks:
        raise ValueError(f"{function}: k must be one rank or several, got none")
    return list(dict.fromkeys(ranks)), choice(gains, function, "gains", ["linear", "exponential"]) == "exponential"


def _check_known(function: str, where: str, relevant: dict[str, Any], known: set[str], first: str) -> None:
    """Refuses names of which none is judged; warns where a judged query is missing."""
    missing = [query for query in relevant if query not in known]
    if not known:
        raise ValueError(f"{function}: no query of {where} is in qrels, got {first!r} and {missing[0]!r} for example")
    if missing:
        warn(
            f"{function}: {len(missing):,} of {len(relevant):,} judged queries are not in {where}, {missing[0]!r} for "
            "example; they score 0"
        )


def _rows_of(function: str, what: str, names: Any, wanted: Any, rows: int) -> tuple[dict[str, int], str]:
    """Row of each wanted name that is there, and the first name of all: only wanted names are kept."""
    found: dict[str, int] = {}
    first, number = "", -1
    for number, name in enumerate(names_of(function, what, names)):
        first = first if number else name
        if name in wanted:
            if name in found:
                raise ValueError(
                    f"{function}: a name must occur once in {what}, got {name!r} in rows {found[name]} and {number}"
                )
            found[name] = number
    if number + 1 != rows:
        raise ValueError(f"{function}: {what} must have {rows} names, one for each row, got {number + 1}")
    return found, first


def _result(
    places: Places, relevant: dict[str, dict[str, int]], ranks: list[int], exponential: bool, per_query: bool
) -> Any:
    order = np.lexsort((places.before, places.query))
    places = Places(*(column[order] for column in places))
    grades = [sorted(documents.values(), reverse=True) for documents in relevant.values()]
    width = max(1, *map(len, grades))
    step = max(1, BLOCK // (2 * width))
    parts = []
    for start in range(0, len(grades), step):
        low, high = np.searchsorted(places.query, [start, start + step])
        own = Places(*(column[low:high] for column in places))
        parts.append(_scores(own._replace(query=own.query - start), grades[start : start + step], ranks, exponential))
    values = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    if per_query:
        rows = zip(*(column.tolist() for column in values.values()), strict=True)
        return {query: dict(zip(values, row, strict=True)) for query, row in zip(relevant, rows, strict=True)}
    means: Scores = {name: float(column.mean()) for name, column in values.items()}
    return {**means, "queries": float(len(relevant))}


def _scores(places: Places, grades: list[list[int]], ranks: list[int], exponential: bool) -> dict[str, Tensor]:
    """Every metric of a few queries, float64 [q]; `places` sorted by query and place, `grades` descending."""

    def gain(grade: Tensor) -> Tensor:
        return torch.exp2(grade) - 1.0 if exponential else grade

    counts, relevant, gains = _groups(places, len(grades), gain(torch.from_numpy(places.grade).double()))
    possible = torch.tensor([float(len(own)) for own in grades], dtype=torch.float64)
    ideal = torch.zeros(len(grades), max(1, *map(len, grades)), dtype=torch.float64)
    for row, own in enumerate(grades):
        ideal[row, : len(own)] = gain(torch.tensor(own, dtype=torch.float64))
    found = relevant.sum(-1)
    longest = max(ideal.shape[1], int(counts.sum(-1).max()))  # a rank beyond it says the same
    cut = [min(rank, longest) for rank in ranks]
    inside = sums_at(counts, relevant, torch.tensor(cut))
    reciprocal = reciprocal_rank(counts, relevant, [*cut, longest])
    result: dict[str, Tensor] = {}
    for column, (rank, at) in enumerate(zip(ranks, cut, strict=True)):
        best = discounted_sum(torch.ones_like(ideal), ideal, at)
        result[f"nDCG@{rank}"] = ratio(discounted_sum(counts, gains, at), best)
        precision = average_precision(counts, relevant, at, "possible")
        result[f"MAP@{rank}"] = ratio(precision * found.clamp(max=at), possible)
        result[f"MRR@{rank}"] = reciprocal[:, column]
        result[f"R@{rank}"] = ratio(inside[:, column], possible)
        result[f"P@{rank}"] = inside[:, column] / rank
    result["MAP"] = ratio(average_precision(counts, relevant) * found, possible)
    result["MRR"] = reciprocal[:, -1]
    return result


def _groups(places: Places, rows: int, gain: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Tie groups [q, G]: results, relevant ones, and gain. What lies between relevant documents is one group."""
    new = np.ones(len(places.query), dtype=np.bool_)
    new[1:] = (np.diff(places.query) > 0) | (np.diff(places.before) > 0)
    first = new.nonzero()[0]
    query, before, size = places.query[first], places.before[first], places.size[first]
    position = np.arange(len(first)) - np.searchsorted(query, query)  # of the group among those of its query
    end = np.concatenate([[0], (before + size)[:-1]]) * (position > 0)
    width = 2 * (int(position.max()) + 1) if len(first) else 1
    counts, relevant, gains = torch.zeros(3, rows, width, dtype=torch.float64)
    if not len(first):
        return counts, relevant, gains
    at = torch.from_numpy(query), torch.from_numpy(2 * position + 1)
    counts[at] = torch.from_numpy(size).double()
    counts[at[0], at[1] - 1] = torch.from_numpy(before - end).double()
    group = new.cumsum() - 1
    relevant[at] = torch.from_numpy(np.bincount(group).astype(np.float64))
    gains[at] = torch.from_numpy(np.bincount(group, weights=gain.numpy()))
    return counts, relevant, gains
