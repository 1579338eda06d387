"""Graded relevance of documents for queries (qrels) and runs, by name: their files, and how they are checked.

Both are plain dicts, as pytrec_eval has them: qrels {query: {document: relevance}}, relevance an integer; a run
{query: {document: score}}, a higher score is better. A document with relevance >= 1 is relevant. A relevance of 0 or
less, and a document that is not judged, count as not relevant.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fasthash._arguments import whole
from fasthash._arrays import dtype_name, to_tensor
from fasthash.hamming import SearchResult

MOST_RELEVANT = 100  # the largest relevance: sums of 2^relevance stay finite
_BEIR = ["query-id", "corpus-id", "score"]

Qrels = dict[str, dict[str, int]]
Scored = tuple[str, list[str], NDArray[np.float64]]  # a query, its documents and their scores


def read_qrels(path: str | os.PathLike[str]) -> Qrels:
    """Qrels {query: {document: relevance}} from a file of TREC or BEIR, UTF-8 text.

    TREC: lines "query 0 document relevance", four fields between blanks; the second is ignored. BEIR: a header
    "query-id corpus-id score" and three fields between tabs. Empty lines are ignored. Raises ValueError, which names
    the line, for a line that is no such thing, for a document that is judged twice for a query, and where nothing is
    judged.

    >>> import tempfile
    >>> with tempfile.NamedTemporaryFile("w", suffix=".tsv") as file:
    ...     _ = file.write("query-id\\tcorpus-id\\tscore\\nq1\\td7\\t2\\nq1\\td9\\t0\\n")
    ...     file.flush()
    ...     read_qrels(file.name)
    {'q1': {'d7': 2, 'd9': 0}}
    """
    found: Qrels = {}
    beir = False
    for number, line in _lines(path, "read_qrels"):
        if not found and not beir and line.split() == _BEIR:
            beir = True
            continue
        fields = line.split("\t") if beir else line.split()
        where = f"read_qrels: {path} line {number}"
        if len(fields) != (3 if beir else 4):
            kind = "query-id, corpus-id and score between tabs" if beir else "query, 0, document and relevance"
            header = "" if beir or found else ', or the file a header "query-id corpus-id score"'
            raise ValueError(f"{where} must have {kind}{header}, got {line[:80]!r}")
        query, document, given = fields[0], fields[-2], fields[-1]
        try:
            relevance = int(given)
        except ValueError:
            raise ValueError(f"{where}: the relevance must be an integer, got {given[:80]!r}") from None
        _put(found, query, document, whole(relevance, where, "the relevance", -MOST_RELEVANT, MOST_RELEVANT), where)
    if not found:
        raise ValueError(f"read_qrels: {path} must judge at least one document, got none")
    return found


def read_run(path: str | os.PathLike[str]) -> dict[str, dict[str, float]]:
    """A run {query: {document: score}} from a file of TREC, UTF-8 text, in any order of lines.

    Lines "query Q0 document rank score tag", six fields between blanks. Only the score ranks: the rank is ignored, as
    trec_eval does. Raises ValueError, which names the line, for a line that is no such thing, a document that occurs
    twice for a query, a score that is NaN, and where there is no line.

    >>> import tempfile
    >>> with tempfile.NamedTemporaryFile("w", suffix=".trec") as file:
    ...     _ = file.write("q1 Q0 d7 1 0.9 mine\\nq1 Q0 d3 2 0.8 mine\\n")
    ...     file.flush()
    ...     read_run(file.name)
    {'q1': {'d7': 0.9, 'd3': 0.8}}
    """
    found: dict[str, dict[str, float]] = {}
    for number, line in _lines(path, "read_run"):
        fields = line.split()
        where = f"read_run: {path} line {number}"
        if len(fields) != 6:
            raise ValueError(f"{where} must have query, Q0, document, rank, score and tag, got {line[:80]!r}")
        try:
            score = float(fields[4])
        except ValueError:
            score = math.nan
        if math.isnan(score):
            raise ValueError(f"{where}: the score must be a number, got {fields[4][:80]!r}")
        _put(found, fields[0], fields[2], score, where)
    if not found:
        raise ValueError(f"read_run: {path} must rank at least one document, got none")
    return found


def _lines(path: str | os.PathLike[str], function: str) -> Iterator[tuple[int, str]]:
    """Lines that are not empty, with their numbers from 1."""
    if not isinstance(path, (str, os.PathLike)):  # open takes the number of an open file too
        raise TypeError(f"{function}: path must be the name of a file, got {type(path).__name__}")
    with open(path, encoding="utf-8-sig") as file:
        try:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield number, line.rstrip("\n")
        except UnicodeDecodeError:
            raise ValueError(f"{function}: {path} must be UTF-8 text") from None


def _put(found: dict[str, dict[str, Any]], query: str, document: str, value: Any, where: str) -> None:
    documents = found.setdefault(query, {})
    if document in documents:
        raise ValueError(f"{where}: a document must occur once for a query, got {document!r} again for {query!r}")
    documents[document] = value


def check_qrels(function: str, qrels: Any, exclude_self: bool) -> dict[str, dict[str, int]]:
    """The relevant documents, relevance >= 1, of every judged query; of some queries they are none."""
    if not isinstance(qrels, Mapping):
        raise TypeError(
            f"{function}: qrels must be a dict {{query: {{document: relevance}}}}, got {type(qrels).__name__}"
        )
    relevant = {}
    for query, documents in qrels.items():
        if not isinstance(documents, Mapping):
            raise TypeError(
                f"{function}: qrels must have a dict {{document: relevance}} for each query, got "
                f"{type(documents).__name__} for {query!r}"
            )
        name, own = _name(function, "qrels", query), {}
        for document, given in documents.items():
            grade = whole(given, function, "a relevance in qrels", -MOST_RELEVANT, MOST_RELEVANT)
            key = _name(function, "qrels", document)
            if grade > 0 and not (exclude_self and key == name):
                own[key] = grade
        relevant[name] = own
    if not relevant:
        raise ValueError(f"{function}: qrels must judge at least one query, got none")
    return relevant


def scored_documents(function: str, run: Any, query_names: Any, database_names: Any) -> Iterator[Scored]:
    """The queries of a run, with their documents and scores, one at a time. Raises where one is not as it should be."""
    seen: set[str] = set()
    if isinstance(run, tuple) and len(run) == 2:
        pairs = _of_arrays(function, run, query_names, database_names)
    else:
        if query_names is not None or database_names is not None:
            raise ValueError(
                f"{function}: query_names and database_names must be None, except for a run of arrays (scores, ids)"
            )
        pairs = _of_dicts(function, run)
    for query, documents, scores in pairs:
        if query in seen:
            raise ValueError(f"{function}: a query must occur once in the run, got {query!r} twice")
        seen.add(query)
        if len(set(documents)) < len(documents):
            twice = next(name for place, name in enumerate(documents) if name in documents[:place])
            raise ValueError(
                f"{function}: a document must occur once for a query of the run, got {twice!r} twice for {query!r}"
            )
        if bool(np.isnan(scores).any()):
            raise ValueError(f"{function}: scores of the run must be numbers, got NaN for query {query!r}")
        yield query, documents, scores
    if not seen:
        raise ValueError(f"{function}: run must have at least one query, got none")


def _of_dicts(function: str, run: Any) -> Iterator[Scored]:
    pairs = run.items() if isinstance(run, Mapping) else run
    wanted = "a dict {query: {document: score}}, pairs of the two, or (scores, ids)"
    if isinstance(pairs, (str, bytes)) or not isinstance(pairs, Iterable):
        raise TypeError(f"{function}: run must be {wanted}, got {type(run).__name__}")
    for pair in pairs:
        if not isinstance(pair, tuple) or len(pair) != 2 or not isinstance(pair[1], Mapping):
            raise TypeError(f"{function}: run must be {wanted}, got {type(pair).__name__} in it")
        query, documents = pair
        try:
            scores = np.array(list(documents.values()), dtype=np.float64).reshape(len(documents))
        except (ValueError, TypeError, OverflowError):
            raise TypeError(f"{function}: scores of the run must be numbers, got others for query {query!r}") from None
        yield _name(function, "run", query), [_name(function, "run", name) for name in documents], scores


def _of_arrays(function: str, run: Any, query_names: Any, database_names: Any) -> Iterator[Scored]:
    """Scores and ids [Q, k], or a SearchResult: distances and ids, or keys where it has some. Ids < 0 are no result."""
    scores = to_tensor(run[0], function, "scores").detach().cpu().numpy()
    keys = run.keys if isinstance(run, SearchResult) else None
    ids = to_tensor(run[1], function, "ids").detach().cpu().numpy()
    if scores.ndim != 2 or scores.shape != ids.shape:
        raise ValueError(
            f"{function}: scores and ids must both have shape [Q, k], got {list(scores.shape)} and {list(ids.shape)}"
        )
    if ids.dtype.kind not in "iu":
        raise TypeError(f"{function}: ids must be integers, got {dtype_name(ids)}")
    if scores.dtype.kind not in "fiu":
        raise TypeError(f"{function}: scores must be numbers, got {dtype_name(scores)}")
    names = None if database_names is None else list(names_of(function, "database_names", database_names))
    if names is not None and ids.size and int(ids.max()) >= len(names):
        raise ValueError(f"{function}: database_names must have a name for id {int(ids.max())}, got {len(names)} names")
    queries = [*map(str, range(len(ids)))]
    if query_names is not None:
        queries = list(names_of(function, "query_names", query_names))
    if len(queries) != len(ids):
        raise ValueError(f"{function}: query_names must have {len(ids)} names like run, got {len(queries)}")
    sign = -1.0 if isinstance(run, SearchResult) else 1.0
    for row, query in enumerate(queries):
        there = ids[row] >= 0
        if names is not None:
            documents = [names[id] for id in ids[row][there].tolist()]
        else:
            documents = [str(name) for name in (ids if keys is None else keys)[row][there].tolist()]
        yield query, documents, sign * scores[row][there].astype(np.float64)


def names_of(function: str, what: str, names: Any) -> Iterator[str]:
    """Names one by one, of any sequence of text or integers (an integer's name is its decimal text)."""
    if isinstance(names, (str, bytes, Mapping)) or not isinstance(names, Iterable):
        raise TypeError(f"{function}: {what} must be a sequence of text or integers, got {type(names).__name__}")
    if getattr(names, "ndim", 1) != 1:
        raise ValueError(f"{function}: {what} must have one dimension, got shape {list(getattr(names, 'shape', []))}")
    for name in names:
        yield name if type(name) is str else _name(function, what, name)


def _name(function: str, what: str, name: Any) -> str:
    if isinstance(name, str):
        return str(name)
    if isinstance(name, (int, np.integer)) and not isinstance(name, bool):
        return str(int(name))
    item = getattr(name, "item", None)  # an element of a tensor
    if item is not None and getattr(name, "ndim", 1) == 0 and isinstance(value := item(), int):
        return str(value)
    raise TypeError(f"{function}: names in {what} must be text or integers, got {name!r} ({type(name).__name__})")
