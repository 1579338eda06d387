"""fasthash eval --exact, and fasthash search in the folder of an EmbeddingIndex."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from embedding_cases import ENCODERS, F, Q, X, rows
from numpy.typing import NDArray

from fasthash import EmbeddingIndex, HammingIndex
from fasthash.cli import main
from fasthash.embeddings import against_exact

Run = Callable[..., Any]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command among files; gives its output, or its one line of error."""
    monkeypatch.chdir(tmp_path)
    np.save("X.npy", X)
    np.save("Q.npy", Q)
    np.save("bad.npy", np.full((2, F), np.nan, np.float32))
    np.save("narrow.npy", Q[:, :5])
    ENCODERS["itq"].save("itq.safetensors")

    def call(*words: str, fails: bool = False) -> str:
        assert main(list(words)) == (2 if fails else 0)
        out, error = capsys.readouterr()
        assert not fails or (not out and error.count("\n") == 1)
        return error.removeprefix("fasthash: error: ").strip() if fails else out

    return call


# against_exact


def exact_ids(queries: Any, base: Any, metric: str, k: int) -> NDArray[np.int64]:
    q, x = np.asarray(queries, np.float64), np.asarray(base, np.float64)
    scores = q @ x.T
    if metric == "cosine":
        scores = scores / np.linalg.norm(x, axis=1)
    if metric == "l2":
        scores = 2 * scores - (x * x).sum(1)
    return np.argsort(-scores, axis=1)[:, :k]


@pytest.mark.parametrize("metric", ["cosine", "dot", "l2"])
def test_it_measures_what_an_index_answers(metric: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("exact", "encoders"):
        monkeypatch.setattr(f"fasthash.embeddings.{module}.ROWS", 64)  # X comes in blocks
    base, queries = rows(300, seed=3), rows(40, seed=4)
    names = ["rabitq", "lsh", ENCODERS["osq 2"]]
    found = against_exact(base, queries, names, bits=[8, F, 2 * F], refine=[None, "int8"], metric=metric, at=[1, 5, 20])
    wanted = [("rabitq", F), ("rabitq", 2 * F), ("lsh", 8), ("lsh", F), ("lsh", 2 * F), (ENCODERS["osq 2"], None)]
    assert len(found) == 2 * len(wanted)
    truth = exact_ids(queries, base, metric, 20)
    for (encoder, bits), pair in zip(wanted, [found[at : at + 2] for at in range(0, len(found), 2)], strict=True):
        for refine, row in zip((None, "int8"), pair, strict=True):
            index = EmbeddingIndex(encoder, refine=refine, metric=metric, bits=bits)
            monkeypatch.setattr("fasthash.embeddings.embedding_index.ROWS", 64)
            index.add(base)
            assert row["bits"] == index.codes.bits
            assert row["refine"] == refine
            assert row["bytes"] == -(-index.codes.bits // 8) + 2 * index.codes._contents.scaled + (
                F + 4 if refine else 0
            )
            for k in (1, 5, 20):
                ids = index.search(queries, k).ids
                recall = np.mean([true[0] in own for own, true in zip(ids, truth, strict=True)])
                overlap = np.mean([len(set(own) & set(true[:k])) / k for own, true in zip(ids, truth, strict=True)])
                assert row[f"recall@{k}"] == pytest.approx(recall)
                assert row[f"overlap@{k}"] == pytest.approx(overlap)


def test_it_finds_all_where_all_are_candidates() -> None:
    for row in against_exact(X, Q, "lsh", refine="float32", at=[1, 10, 100], oversample=200):
        assert all(value == 1 for name, value in row.items() if "@" in name)


def test_names_are_fitted_on_the_first_rows() -> None:
    few = [row["recall@10"] for row in against_exact(X, Q, "rabitq", refine=None, at=[10], fit_rows=50)]
    moved = np.concatenate([X[:50], X[50:] + 3])
    assert few != [row["recall@10"] for row in against_exact(moved, Q + 3, "rabitq", refine=None, at=[10], fit_rows=50)]


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"X": X[:0]}, ValueError, "X and Q must have at least 1 row, got 0 and 7"),
        ({"Q": Q[:, :3]}, ValueError, f"Q must have {F} features, got 3"),
        ({"encoder": "itqq"}, ValueError, "encoder must be 'itq', .*, got 'itqq'"),
        ({"encoder": 3}, TypeError, "encoder must be a fitted Hasher"),
        (
            {"encoder": "rabitq", "bits": [F + 1]},
            ValueError,
            f"'rabitq' of {F} features cannot have codes of .17. bits",
        ),
        ({"refine": "int4"}, ValueError, "refine must be 'int8', 'float16' or 'float32', got 'int4'"),
        ({"metric": "l1"}, ValueError, "metric must be 'cosine', 'dot' or 'l2', got 'l1'"),
        ({"at": [500]}, ValueError, r"at must be between 1 and 200 \(the rows of X\), got 500"),
        ({"oversample": 0}, ValueError, "oversample must be at least 1, got 0"),
        ({"fit_rows": 1}, ValueError, "fit_rows must be at least 2, got 1"),
        ({"Q": np.full((1, F), np.nan)}, ValueError, "Q must be finite in float32, got NaN or infinity in row 0"),
    ],
)
def test_what_cannot_be_measured(change: dict[str, Any], error: type[Exception], message: str) -> None:
    given: dict[str, Any] = {"X": X, "Q": Q, "encoder": "lsh", "at": [1], **change}
    with pytest.raises(error, match=f"^against_exact: {message}"):
        against_exact(given.pop("X"), given.pop("Q"), given.pop("encoder"), **given)


# fasthash eval --exact


def test_eval_exact(run: Run, tmp_path: Path) -> None:
    words = ("eval", "--exact", "X.npy", "--queries", "Q.npy", "--encoder", "lsh,itq.safetensors", "--widths", "8,40")
    found = json.loads(run(*words, "--refine", "none,float32", "--json"))
    own = against_exact(X, Q, ["lsh", ENCODERS["itq"]], bits=[8, 40], refine=[None, "float32"], at=[1, 10, 100])
    assert found == own
    text = run(*words, "--plot", "curve.png")
    assert len(text.splitlines()) == 7
    assert text.split()[:6] == ["encoder", "bits", "refine", "bytes", "recall@1", "overlap@1"]
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")
    wider = json.loads(run(*words, "--oversample", "100", "--metric", "l2", "--fit-rows", "100", "--json"))
    assert all(row["overlap@10"] >= before["overlap@10"] for row, before in zip(wider[1::2], found[1::2], strict=True))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--exact", "X.npy"], "eval: --exact needs --queries"),
        (
            ["a.npy", "b.npy", "--exact", "X.npy", "--queries", "Q.npy"],
            "eval: --exact needs --queries, and takes no QUERIES",
        ),
        (["--exact", "X.npy", "--queries", "bad.npy"], "bad.npy: must be finite, got NaN or infinity in row 0"),
        (["--exact", "X.npy", "--queries", "narrow.npy"], "narrow.npy: must have the 16 columns of X.npy, got 5"),
        (["--exact", "none.npy", "--queries", "Q.npy"], "none.npy: no such file"),
        (["--exact", "X.npy", "--queries", "Q.npy", "--encoder", "itqq"], "eval: --encoder must be one of itq, lsh, "),
        (
            ["--exact", "X.npy", "--queries", "Q.npy", "--encoder", "Q.npy"],
            "Q.npy: its encoder is not a file of Hasher",
        ),
        (
            ["--exact", "X.npy", "--queries", "Q.npy", "--widths", "a"],
            "eval: --widths must be whole numbers with commas",
        ),
        (["--exact", "X.npy", "--queries", "Q.npy", "--refine", "int4"], "eval: --refine must be one of none, int8, "),
        (["--exact", "X.npy", "--queries", "Q.npy", "--metric", "l1"], "eval: metric must be 'cosine', 'dot' or 'l2'"),
        (["--exact", "X.npy", "--queries", "Q.npy", "--plot", "a.txt"], "a.txt: the suffix decides the format"),
        (
            ["Q.npy"],
            "eval: the following arguments are required: DATABASE, --query-labels, --database-labels (or --qrels, or",
        ),
        (
            ["Q.npy", "X.npy", "--query-labels", "a", "--database-labels", "b", "--plot", "a.png"],
            "eval: --queries and --plot need --exact",
        ),
    ],
)
def test_eval_exact_mistakes(run: Run, words: list[str], message: str) -> None:
    assert run("eval", *words, fails=True).startswith(message)


# fasthash search


@pytest.mark.parametrize("keyed", [True, False])
def test_search_by_scores(run: Run, keyed: bool) -> None:
    names = [f"row {number}\n" for number in range(200)] if keyed else None
    index = EmbeddingIndex.build("index", X, ENCODERS["itq"], refine="float32", keys=names, progress=False)
    found = index.search(Q, 4, oversample=5)
    answer = json.loads(run("search", "index", "Q.npy", "-k", "4", "--rescore", "5", "--json"))
    assert [row["ids"] for row in answer] == found.ids.tolist()
    assert [row["scores"] for row in answer] == found.scores.tolist()
    assert [row.get("keys") for row in answer] == (found.keys.tolist() if keyed else [None] * len(Q))
    lines = run("search", "index", "Q.npy", "-k", "2").splitlines()
    assert lines[0].split("\t") == ["query", "id", "score", *["key"] * keyed]
    assert len(lines) == 1 + 2 * len(Q)
    run("search", "index", "Q.npy", "--out", "found.npz")
    with np.load("found.npz") as arrays:
        assert sorted(arrays) == ["ids", *["keys"] * keyed, "scores"]
        np.testing.assert_array_equal(arrays["ids"], index.search(Q, 10).ids)
    assert "64 features" not in run("search", "index", "narrow.npy", fails=True)
    assert "takes embeddings" in run("search", "index", "Q.npy", "--radius", "3", fails=True)


@pytest.mark.parametrize("suffix", ["parquet", "arrow"])
def test_search_writes_a_table(run: Run, suffix: str) -> None:
    parquet, feather = pytest.importorskip("pyarrow.parquet"), pytest.importorskip("pyarrow.feather")
    arrow = pytest.importorskip("pyarrow")
    read = parquet.read_table if suffix == "parquet" else feather.read_table
    names = [f"row {number}" for number in range(200)]
    index = EmbeddingIndex.build("index", X, ENCODERS["itq"], refine="float32", keys=names, progress=False)
    parquet.write_table(arrow.table({"embedding": list(Q)}), "queries.parquet")
    told = run("search", "index", "queries.parquet", "-k", "3", "--out", f"found.{suffix}")
    assert told.strip() == f"found.{suffix}: {3 * len(Q)} results of {len(Q)} queries"
    table, found = read(f"found.{suffix}").to_pydict(), index.search(Q, 3)
    assert list(table) == ["query", "rank", "id", "score", "key"]
    assert table["query"] == np.repeat(np.arange(len(Q)), 3).tolist()
    assert table["rank"] == [0, 1, 2] * len(Q)
    assert table["id"] == found.ids.reshape(-1).tolist()
    assert table["score"] == found.scores.reshape(-1).tolist()
    assert table["key"] == found.keys.reshape(-1).tolist()
    codes = ENCODERS["itq"].encode(X)
    np.save("codes.npy", codes)
    HammingIndex.build("codes", codes, bits=12, progress=False)
    run("search", "codes", "codes.npy", "-k", "250", "--out", f"near.{suffix}")
    table = read(f"near.{suffix}").to_pydict()
    assert list(table) == ["query", "rank", "id", "distance"]
    assert len(table["id"]) == 200 * 200  # no row for a place that stayed empty
    run("search", "codes", "codes.npy", "--radius", "1", "--out", f"within.{suffix}")
    table, within = read(f"within.{suffix}").to_pydict(), HammingIndex.open("codes").range_search(codes, 1)
    assert table["id"] == within.ids.tolist()
    assert table["query"] == np.repeat(np.arange(200), np.diff(within.offsets)).tolist()
    assert [rank for rank, query in zip(table["rank"], table["query"], strict=True) if query == 7] == list(
        range(int(np.diff(within.offsets)[7]))
    )
