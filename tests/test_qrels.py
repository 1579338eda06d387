"""Metrics over qrels: trec_eval where nothing ties, every order of the ties where something does, files, and names."""

from __future__ import annotations

import itertools
import math
import re
import shlex
import tracemalloc
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fasthash import HammingIndex, hamming_distances, metrics
from fasthash._warnings import FasthashWarning
from fasthash.cli.parser import make_parser
from fasthash.metrics import judged

Judged = dict[str, dict[str, int]]
RANKS = (1, 3, 10)


def one_order(grades: list[int], all_grades: list[int], k: int, exponential: bool = False) -> dict[str, float]:
    """The metrics of one ranking without ties, in plain Python: `grades` of the results, best first."""

    def dcg(values: list[int]) -> float:
        gains = [2.0**value - 1 if exponential else float(value) for value in values]
        return sum(gain / math.log2(place + 2) for place, gain in enumerate(gains[:k]) if gain > 0)

    relevant = [place for place, grade in enumerate(grades) if grade > 0]
    inside = [place for place in relevant if place < k]
    possible = sum(grade > 0 for grade in all_grades)
    best = dcg(sorted(all_grades, reverse=True))
    precision = {place: (number + 1) / (place + 1) for number, place in enumerate(relevant)}
    return {
        f"nDCG@{k}": dcg(grades) / best if best else 0.0,
        f"MAP@{k}": sum(precision[place] for place in inside) / possible if possible else 0.0,
        f"MRR@{k}": 1 / (inside[0] + 1) if inside else 0.0,
        f"R@{k}": len(inside) / possible if possible else 0.0,
        f"P@{k}": len(inside) / k,
        "MAP": sum(precision.values()) / possible if possible else 0.0,
        "MRR": 1 / (relevant[0] + 1) if relevant else 0.0,
    }


def over_all_orders(scores: dict[str, float], documents: dict[str, int], k: int, **options: Any) -> dict[str, float]:
    """The mean of `one_order` over every order in which scores never ascend."""
    tied = [
        list(itertools.permutations(name for name in scores if scores[name] == score))
        for score in sorted(set(scores.values()), reverse=True)
    ]
    orders = [list(itertools.chain(*groups)) for groups in itertools.product(*tied)]
    found = [
        one_order([documents.get(name, 0) for name in order], [*documents.values()], k, **options) for order in orders
    ]
    return {name: math.fsum(values[name] for values in found) / len(found) for name in found[0]}


def some_run(seed: int, queries: int = 30, documents: int = 60) -> tuple[dict[str, dict[str, float]], Judged]:
    """A run without ties, and qrels that judge some of its documents, others too, with grades from -1 to 3."""
    rng = np.random.default_rng(seed)
    run, qrels = {}, {}
    for query in range(queries):
        length = int(rng.integers(1, documents))
        names = rng.permutation(documents + 20)[:length]
        scores = rng.permutation(documents)[:length]
        run[f"q{query}"] = {f"d{name}": float(score) for name, score in zip(names, scores, strict=True)}
        own = rng.permutation(documents + 20)[: rng.integers(1, 25)]
        qrels[f"q{query}"] = {f"d{name}": int(rng.integers(-1, 4)) for name in own}
    return run, qrels


@pytest.mark.parametrize("seed", range(5))
def test_without_ties_as_trec_eval(seed: int) -> None:
    pytrec_eval = pytest.importorskip(
        "pytrec_eval", reason="pytrec_eval is not installed: pip install pytrec-eval-terrier"
    )
    run, qrels = some_run(seed)
    cuts = ",".join(map(str, RANKS))
    names = {"ndcg_cut": "nDCG", "map_cut": "MAP", "recall": "R", "P": "P"}
    oracle = pytrec_eval.RelevanceEvaluator(qrels, {*(f"{name}.{cuts}" for name in names), "map", "recip_rank"})
    expected = oracle.evaluate(run)
    found = metrics.retrieval(run, qrels, k=RANKS, per_query=True)
    assert found.keys() == expected.keys()
    for query, values in expected.items():
        own = {f"{ours}@{k}": values[f"{name}_{k}"] for name, ours in names.items() for k in RANKS}
        own |= {"MAP": values["map"], "MRR": values["recip_rank"]}
        own |= {f"MRR@{k}": values["recip_rank"] * (values["recip_rank"] * k > 1 - 1e-9) for k in RANKS}
        assert found[query] == pytest.approx(own, abs=1e-12), query


@pytest.mark.parametrize("exponential", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_without_ties_as_one_order(seed: int, exponential: bool) -> None:
    run, qrels = some_run(seed)
    gains = "exponential" if exponential else "linear"
    found = metrics.retrieval(run, qrels, k=RANKS, per_query=True, gains=gains)
    for query, scores in run.items():
        grades = [qrels[query].get(name, 0) for name in sorted(scores, key=scores.__getitem__, reverse=True)]
        for k in RANKS:
            expected = one_order(grades, [*qrels[query].values()], k, exponential)
            assert {name: found[query][name] for name in expected} == pytest.approx(expected, abs=1e-12)
    means = metrics.retrieval(run, qrels, k=RANKS, gains=gains)
    for name in found["q0"]:
        assert means[name] == pytest.approx(np.mean([values[name] for values in found.values()]))
    assert means["queries"] == len(qrels)


@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(-1, 3)), min_size=1, max_size=7),
    st.lists(st.integers(0, 3), max_size=3),
    st.integers(1, 9),
    st.booleans(),
)
@settings(max_examples=150, deadline=None)
def test_ties_are_the_mean_over_all_orders(
    results: list[tuple[int, int]], missing: list[int], k: int, exponential: bool
) -> None:
    scores = {f"d{place}": float(score) for place, (score, _) in enumerate(results)}
    documents = {f"d{place}": grade for place, (_, grade) in enumerate(results)}
    documents |= {f"not found {place}": grade for place, grade in enumerate(missing)}
    found = metrics.retrieval(
        {"q": scores}, {"q": documents}, k=k, gains="exponential" if exponential else "linear", per_query=True
    )
    expected = over_all_orders(scores, documents, k, exponential=exponential)
    assert found["q"] == pytest.approx(expected, abs=1e-12)


def test_a_constant_scorer_gets_what_chance_gives() -> None:
    run = {"q": dict.fromkeys(map(str, range(1000)), 0.5)}
    found = metrics.retrieval(run, {"q": {"7": 1}}, k=10)
    harmonic = sum(1 / rank for rank in range(1, 1001))
    assert found["MRR"] == pytest.approx(harmonic / 1000) == found["MAP"]
    assert found["MRR@10"] == pytest.approx(sum(1 / rank for rank in range(1, 11)) / 1000)
    assert found["R@10"] == pytest.approx(0.01)
    several = metrics.retrieval(run, {"q": dict.fromkeys(map(str, range(0, 1000, 4)), 1)}, k=10)
    first = [math.comb(1000 - place, 249) / math.comb(1000, 250) for place in range(1, 752)]
    assert several["MRR"] == pytest.approx(sum(chance / (place + 1) for place, chance in enumerate(first)), rel=1e-12)


def test_the_first_relevant_of_very_many_that_tie() -> None:
    size, hits = 2_000_000, 3
    counts, relevant = (
        torch.tensor([[5.0, size]], dtype=torch.float64),
        torch.tensor([[0.0, hits]], dtype=torch.float64),
    )
    found = judged.reciprocal_rank(counts, relevant, [5, 6, size + 5])[0].tolist()
    places = np.arange(1, size - hits + 2, dtype=np.float64)
    chance = (size - places) * (size - places - 1) / 2 / (size * (size - 1.0) * (size - 2.0) / 6)
    assert found[0] == 0.0
    assert found[1] == pytest.approx(hits / size / 6, rel=1e-9)
    assert found[2] == pytest.approx(float((chance / (places + 5)).sum()), rel=1e-9)


def named_items(kind: str, seed: int = 0) -> tuple[Any, Any, Any]:
    """Queries and database with many ties, and the distances [Q, N] between them."""
    rng = np.random.default_rng(seed)
    if kind == "codes":
        query, database = rng.integers(0, 256, (12, 1), np.uint8), rng.integers(0, 256, (90, 1), np.uint8)
        return query, database, hamming_distances(query, database)
    query, database = (rng.integers(0, 3, (rows, 2)).astype(np.float32) for rows in (12, 90))
    return query, database, np.abs(query[:, None] - database).sum(-1)


def run_of(distances: Any) -> dict[str, dict[str, float]]:
    return {
        f"{query}": {f"{row}": -float(distance) for row, distance in enumerate(own)}
        for query, own in enumerate(distances)
    }


def some_qrels(queries: int, rows: int, seed: int = 1) -> Judged:
    rng = np.random.default_rng(seed)
    return {
        f"{query}": {f"{row}": int(rng.integers(-1, 4)) for row in rng.permutation(rows)[: rng.integers(1, 20)]}
        for query in range(queries)
    }


@pytest.mark.parametrize("kind", ["codes", "floats"])
@pytest.mark.parametrize("exclude_self", [False, True])
@pytest.mark.parametrize("at_once", [1, 200, 1 << 20])
def test_the_whole_database_is_the_run_of_all(
    kind: str, exclude_self: bool, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    query, database, distances = named_items(kind)
    qrels = some_qrels(12, 90)
    expected = metrics.retrieval(run_of(distances), qrels, k=RANKS, exclude_self=exclude_self, per_query=True)
    monkeypatch.setattr(judged, "BLOCK", at_once)
    monkeypatch.setattr(judged, "PAIRS", at_once)
    for kept in (query, torch.from_numpy(query)):
        found = metrics.exhaustive_retrieval(
            kept, database, range(12), np.arange(90), qrels, k=RANKS, exclude_self=exclude_self, per_query=True
        )
        assert found.keys() == expected.keys()
        for name in expected:
            assert found[name] == pytest.approx(expected[name], abs=1e-12), name


def test_weights_of_bits_and_metrics_of_embeddings() -> None:
    query, database, _ = named_items("codes")
    weights = [(3, 5), (5, 1)]
    qrels = some_qrels(12, 90)
    distances = hamming_distances(query, database, bit_weights=weights)
    found = metrics.exhaustive_retrieval(query, database, range(12), range(90), qrels, bit_weights=weights)
    assert found == pytest.approx(metrics.retrieval(run_of(distances), qrels))
    points, others, _ = named_items("floats")
    points, others = points + 0.5, others + 0.5
    unit = [part / np.linalg.norm(part.astype(np.float64), axis=1, keepdims=True) for part in (points, others)]
    distances = 1 - np.round(unit[0] @ unit[1].T, 6)
    found = metrics.exhaustive_retrieval(points, others, range(12), range(90), qrels, metric="cosine")
    assert found == pytest.approx(metrics.retrieval(run_of(distances), qrels))


def test_results_of_a_search_are_a_run() -> None:
    query, database, distances = named_items("codes")
    qrels = some_qrels(12, 90)
    names, keys = [f"query {row}" for row in range(12)], [f"text {row}" for row in range(90)]
    named = {f"query {name}": {f"text {row}": grade for row, grade in own.items()} for name, own in qrels.items()}
    index = HammingIndex(8)
    index.add(database, keys=keys)
    found = index.search(query, 100)  # 10 places of each query stay empty
    expected = metrics.retrieval(run_of(distances), qrels)
    assert metrics.retrieval(found, named, query_names=names) == pytest.approx(expected)
    assert metrics.retrieval((-found.distances, found.ids), qrels) == pytest.approx(expected)
    arrays = (-found.distances.astype(np.float64), found.ids)
    assert metrics.retrieval(arrays, named, query_names=names, database_names=keys) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("kind", "of", "most"), [("codes", "hamming_histogram", 1000), ("floats", "pair_distances", 200)]
)
def test_rankings_are_made_for_a_few_queries_at_a_time(
    kind: str, of: str, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    query, database, _ = named_items(kind)
    seen, made = [], getattr(judged, of)

    def counted(*arguments: Any, **options: Any) -> Any:
        result = made(*arguments, **options)
        seen.append((result if torch.is_tensor(result) else result[0]).numel())
        return result

    monkeypatch.setattr(judged, of, counted)
    monkeypatch.setattr(judged, "BLOCK", 50)
    monkeypatch.setattr(judged, "PAIRS", most)
    metrics.exhaustive_retrieval(query, database, range(12), range(90), some_qrels(12, 90))
    assert len(seen) >= 2
    assert max(seen) <= (50 if kind == "codes" else most)


def test_names_that_nobody_judges_are_not_kept() -> None:
    database = np.zeros((200_000, 1), np.uint8)
    tracemalloc.start()
    names = (f"document {row}" for row in range(len(database)))
    metrics.exhaustive_retrieval(database[:1], database, ["q"], names, {"q": {"document 7": 1}})
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 2_000_000  # the names would take 12 MB


def test_what_is_not_there() -> None:
    run = {"a": {"x": 2.0, "y": 1.0}, "unknown": {"x": 1.0}, "bare": {}, "none": {"x": 1.0}}
    qrels = {"a": {"y": 1, "z": 2}, "bare": {"x": 1}, "none": {"x": 0, "y": -1}}
    found = metrics.retrieval(run, qrels, k=10, per_query=True)
    assert list(found) == ["a", "bare", "none"]
    assert (found["a"]["MRR"], found["a"]["R@10"], found["a"]["MAP"]) == (0.5, 0.5, 0.25)
    assert set(found["bare"].values()) == set(found["none"].values()) == {0.0}
    assert metrics.retrieval(run, qrels)["MRR"] == pytest.approx(0.5 / 3)
    with pytest.warns(FasthashWarning, match="1 of 4 judged queries are not in the run, 'lost' for example"):
        assert metrics.retrieval(run, qrels | {"lost": {"x": 1}})["MRR"] == pytest.approx(0.5 / 4)
    codes = np.array([[0], [1], [3]], np.uint8)
    with pytest.warns(FasthashWarning) as caught:
        found = metrics.exhaustive_retrieval(codes[:1], codes, ["a"], ["x", "y", "w"], {"a": {"y": 1, "z": 1}, "b": {}})
    assert [str(warning.message).partition(": ")[2] for warning in caught] == [
        "1 of 2 judged queries are not in query_names, 'b' for example; they score 0",
        "1 of 2 relevant documents are not in the database, 'z' for example; they count as not found",
    ]
    assert found["R@10"] == pytest.approx(0.25)


def test_pairs_may_be_made_one_by_one() -> None:
    run, qrels = some_run(0)
    assert metrics.retrieval(iter(run.items()), qrels) == metrics.retrieval(run, qrels)


CODES = np.array([[0], [1], [3]], np.uint8)
GOOD: dict[str, Any] = {"run": {"q": {"d": 1.0}}, "qrels": {"q": {"d": 1}}}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"run": {}}, "run must have at least one query, got none"),
        ({"run": 5}, "run must be a dict {query: {document: score}}, pairs of the two, or (scores, ids), got int"),
        ({"run": {"q": [1.0]}}, "pairs of the two, or (scores, ids), got tuple in it"),
        ({"run": {"q": {"d": math.nan}}}, "scores of the run must be numbers, got NaN for query 'q'"),
        ({"run": {"q": {"d": "best"}}}, "scores of the run must be numbers, got others for query 'q'"),
        ({"run": [("q", {"d": 1}), ("q", {"e": 1})]}, "a query must occur once in the run, got 'q' twice"),
        (
            {"run": {"q": {1: 1.0, "1": 2.0}}},
            "a document must occur once for a query of the run, got '1' twice for 'q'",
        ),
        ({"run": {"other": {"d": 1.0}}}, "no query of the run is in qrels, got 'other' and 'q' for example"),
        ({"run": (np.zeros((1, 2)), np.array([[3, 3]]))}, "got '3' twice for '0'"),
        ({"run": (np.zeros((1, 2)), np.zeros((1, 3)))}, "must both have shape [Q, k], got [1, 2] and [1, 3]"),
        ({"run": (np.zeros((1, 2)), np.zeros((1, 2)))}, "ids must be integers, got float64"),
        (
            {"run": (np.zeros((1, 1)), np.array([[4]])), "database_names": ["d"]},
            "must have a name for id 4, got 1 names",
        ),
        ({"run": (np.zeros((1, 1)), np.array([[4]])), "query_names": ["q", "r"]}, "must have 1 names like run, got 2"),
        ({"query_names": ["q"]}, "query_names and database_names must be None, except for a run of arrays"),
        ({"qrels": {}}, "qrels must judge at least one query, got none"),
        ({"qrels": ["q"]}, "qrels must be a dict {query: {document: relevance}}, got list"),
        ({"qrels": {"q": ["d"]}}, "a dict {document: relevance} for each query, got list for 'q'"),
        ({"qrels": {"q": {"d": 1.5}}}, "a relevance in qrels must be an integer, got 1.5 (float)"),
        ({"qrels": {"q": {"d": 101}}}, "a relevance in qrels must be between -100 and 100, got 101"),
        ({"qrels": {None: {"d": 1}}}, "names in qrels must be text or integers, got None (NoneType)"),
        ({"k": 0}, "k must be between 1 and"),
        ({"k": []}, "k must be one rank or several, got none"),
        ({"gains": "square"}, "gains must be 'linear' or 'exponential', got 'square'"),
    ],
)
def test_bad_runs_and_qrels(change: dict[str, Any], message: str) -> None:
    with pytest.raises((ValueError, TypeError), match="^retrieval: .*" + re.escape(message)):
        metrics.retrieval(**{**GOOD, **change})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"query_names": ["a"]}, "query_names must have 3 names, one for each row, got 1"),
        ({"query_names": ["a", "b", "a"]}, "a name must occur once in query_names, got 'a' in rows 0 and 2"),
        ({"database_names": ["x", "x", "y"]}, "a name must occur once in database_names, got 'x' in rows 0 and 1"),
        ({"database_names": "xyz"}, "database_names must be a sequence of text or integers, got str"),
        ({"database_names": [["x"], "y", "z"]}, "names in database_names must be text or integers, got ['x'] (list)"),
        ({"database_names": np.zeros((3, 1))}, "database_names must have one dimension, got shape [3, 1]"),
        ({"query_names": ["d", "e", "f"]}, "no query of query_names is in qrels, got 'd' and 'a' for example"),
        ({"database_names": ["u", "v", "w"]}, "no relevant document of qrels is in database_names, got 'u' and 'x'"),
        ({"database": CODES.astype(np.float32)}, "query and database must both be packed uint8 codes or both"),
    ],
)
def test_bad_names(change: dict[str, Any], message: str) -> None:
    arguments = {
        "query": CODES,
        "database": CODES,
        "query_names": ["a", "b", "c"],
        "database_names": ["x", "y", "z"],
        "qrels": {"a": {"x": 1}},
    }
    with pytest.raises((ValueError, TypeError), match="^exhaustive_retrieval: " + re.escape(message)):
        metrics.exhaustive_retrieval(**{**arguments, **change})


def test_many_names_of_which_few_are_judged_twice() -> None:
    found = metrics.exhaustive_retrieval(CODES[:1], CODES, ["a"], ["x", "u", "u"], {"a": {"x": 1}})
    assert found["MRR"] == 1.0  # nobody asks which of the two is which


def test_files_of_trec_and_beir(tmp_path: Path) -> None:
    trec, beir, run = (tmp_path / name for name in ("qrels.trec", "qrels.tsv", "run.trec"))
    trec.write_text("q1 0 d1 2\nq1\t0\td2\t-1\n\nq2 Q0 d 1 \n", encoding="utf-8-sig")
    assert metrics.read_qrels(trec) == {"q1": {"d1": 2, "d2": -1}, "q2": {"d": 1}}
    beir.write_bytes(b"query-id\tcorpus-id\tscore\r\nq 1\td1\t2\r\nq 1\td 2\t0\r\nq\xc3\xa9\td1\t1\r\n")
    assert metrics.read_qrels(str(beir)) == {"q 1": {"d1": 2, "d 2": 0}, "q\u00e9": {"d1": 1}}
    run.write_text("q1 Q0 d2 1 0.5 me\nq2 Q0 d1 1 7 me\nq1\tQ0\td1 2 -1e-3 me\n")
    assert metrics.read_run(run) == {"q1": {"d2": 0.5, "d1": -0.001}, "q2": {"d1": 7.0}}


@pytest.mark.parametrize(
    ("function", "text", "message"),
    [
        ("read_qrels", "", "must judge at least one document, got none"),
        ("read_qrels", "query-id\tcorpus-id\tscore\n", "must judge at least one document, got none"),
        (
            "read_qrels",
            "q\td\t1\n",
            'line 1 must have query, 0, document and relevance, or the file a header "query-id',
        ),
        ("read_qrels", "q 0 d 1\nq d 1\n", "line 2 must have query, 0, document and relevance, got 'q d 1'"),
        (
            "read_qrels",
            "query-id\tcorpus-id\tscore\nq 0 d 1\n",
            "line 2 must have query-id, corpus-id and score between",
        ),
        ("read_qrels", "q 0 d 1\n\nq 0 e 0.5\n", "line 3: the relevance must be an integer, got '0.5'"),
        ("read_qrels", "q 0 d 1000\n", "line 1: the relevance must be between -100 and 100, got 1000"),
        ("read_qrels", "q 0 d 1\nq 0 d 1\n", "line 2: a document must occur once for a query, got 'd' again for 'q'"),
        ("read_run", "", "must rank at least one document, got none"),
        ("read_run", "q Q0 d 1 0.5\n", "line 1 must have query, Q0, document, rank, score and tag, got 'q Q0 d 1 0.5'"),
        ("read_run", "q Q0 d 1 nan me\n", "line 1: the score must be a number, got 'nan'"),
        ("read_run", "q Q0 d 1 best me\n", "line 1: the score must be a number, got 'best'"),
        ("read_run", "q Q0 d 1 2 me\nq Q0 d 2 1 me\n", "line 2: a document must occur once for a query, got 'd' again"),
        ("read_qrels", b"q 0 d\xff 1\n", "must be UTF-8 text"),
        ("read_run", b"q Q0 d\xff 1 1 me\n", "must be UTF-8 text"),
    ],
)
def test_bad_files(function: str, text: str | bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ValueError, match=re.escape(f"{function}: {path} {message}")):
        getattr(metrics, function)(path)


@pytest.mark.parametrize("function", ["read_qrels", "read_run"])
def test_paths_are_names_of_files(function: str, tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=f"^{function}: path must be the name of a file, got int"):
        getattr(metrics, function)(0)
    with pytest.raises(FileNotFoundError):
        getattr(metrics, function)(tmp_path / "none")


def test_no_warning_where_all_is_there() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        metrics.retrieval(*some_run(0))


PAGE = (Path(__file__).resolve().parent.parent / "docs" / "qrels.md").read_text(encoding="utf-8")


def test_the_page_runs() -> None:
    (source,) = re.findall(r"^```python\n(.*?)^```", PAGE, flags=re.S | re.M)
    space: dict[str, Any] = {"__name__": "page"}
    exec(compile(source, "qrels.md", "exec"), space)
    assert set(space["whole"]) == set(space["found"])
    named = set(
        re.findall(r"`((?:nDCG|MAP|MRR|R|P|queries)(?:@k)?)`", PAGE.split("## Definitions")[1].split("`evaluate`")[0])
    )
    assert named == {name.replace("@10", "@k") for name in space["whole"]}


def test_commands_of_the_page_parse() -> None:
    commands = [line for line in PAGE.splitlines() if line.startswith("fasthash ")]
    assert len(commands) == 3
    for line in commands:
        make_parser().parse_args(shlex.split(line, comments=True)[1:])
