"""fasthash eval --qrels: runs, codes and embeddings with names, index folders, and options that do not go together."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from fasthash import HammingIndex, metrics
from fasthash.cli import main

KEYS = [f"text {row}" for row in range(40)]
NAMES = ("--query-keys", "q.txt", "--database-keys", "d.txt")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with codes and embeddings of 5 queries and 40 documents, their names, qrels and a run."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for name, rows in (("queries", 5), ("codes", 40)):
        np.save(f"{name}.npy", rng.integers(0, 256, (rows, 1), np.uint8))
        np.save(f"float {name}.npy", rng.normal(size=(rows, 4)).astype(np.float32))
    Path("q.txt").write_text("".join(f"q{row}\n" for row in range(5)))
    Path("d.txt").write_text("".join(f"{key}\n" for key in KEYS))
    lines = [
        f"q{query}\t{KEYS[row]}\t{grade}\n" for query in range(5) for grade, row in enumerate(rng.permutation(40)[:4])
    ]
    Path("qrels.tsv").write_text("query-id\tcorpus-id\tscore\n" + "".join(lines))
    Path("numbers.qrels").write_text("0 0 3 1\n0 0 5 2\n4 0 3 0\n4 0 1 1\n")
    Path("run.trec").write_text("0 Q0 3 1 0.5 me\n0 Q0 5 2 0.5 me\n4 Q0 1 1 9 me\n")
    HammingIndex.build("index", "codes.npy", keys=KEYS, progress=False)
    HammingIndex.build("plain", "codes.npy", progress=False)
    HammingIndex.build("weighted", "codes.npy", keys=KEYS, bit_weights=[(4, 3), (4, 1)], progress=False)
    return tmp_path


def answer(capsys: pytest.CaptureFixture[str], *command: str) -> str:
    capsys.readouterr()
    assert main(("eval", *command)) == 0
    out, err = capsys.readouterr()
    assert err == ""
    return out


def of_codes(**options: object) -> dict[str, float]:
    query_names = [f"q{row}" for row in range(5)]
    given = (np.load("queries.npy"), np.load("codes.npy"), query_names, KEYS, metrics.read_qrels("qrels.tsv"))
    result: dict[str, float] = metrics.exhaustive_retrieval(*given, **options)
    return result


def test_codes_and_indexes_with_names(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = ("queries.npy", "codes.npy", "--qrels", "qrels.tsv", *NAMES)
    assert json.loads(answer(capsys, *files, "--json")) == of_codes()
    keyed = ("queries.npy", "index", "--qrels", "qrels.tsv", *NAMES[:2])
    assert json.loads(answer(capsys, *keyed, "--json")) == of_codes()
    found = answer(capsys, *keyed, "-k", "3", "--gains", "exponential")
    expected = of_codes(k=3, gains="exponential")
    assert found.splitlines() == [
        *(f"{name:16} {value:.4f}" for name, value in expected.items() if name != "queries"),
        f"{'queries':16} 5",
    ]
    weights = ("--bit-weights", "4x3,4x1")
    expected = of_codes(bit_weights=[(4, 3), (4, 1)])
    assert expected != of_codes()
    assert json.loads(answer(capsys, *files, *weights, "--json")) == expected
    for typed in ((), weights):
        weighted = ("queries.npy", "weighted", "--qrels", "qrels.tsv", *NAMES[:2], *typed)
        assert json.loads(answer(capsys, *weighted, "--json")) == expected


def test_rows_and_ids_are_names_where_there_are_no_others(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = (np.load("queries.npy"), np.load("codes.npy"), range(5), range(40), metrics.read_qrels("numbers.qrels"))
    for database in ("codes.npy", "plain"):
        found = answer(capsys, "queries.npy", database, "--qrels", "numbers.qrels", "--json")
        assert json.loads(found) == metrics.exhaustive_retrieval(*given)


def test_embeddings(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = (np.load("float queries.npy"), np.load("float codes.npy"), range(5), range(40))
    files = ("float queries.npy", "float codes.npy", "--qrels", "numbers.qrels", "--metric", "cosine")
    expected = metrics.exhaustive_retrieval(*given, metrics.read_qrels("numbers.qrels"), metric="cosine")
    assert json.loads(answer(capsys, *files, "--json")) == expected


def test_a_run_of_trec(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = ("--run", "run.trec", "--qrels", "numbers.qrels")
    found = json.loads(answer(capsys, *run, "--json"))
    assert found == metrics.retrieval(metrics.read_run("run.trec"), metrics.read_qrels("numbers.qrels"))
    assert (found["MRR"], found["queries"]) == (1.0, 2.0)
    lines = answer(capsys, *run, "-k", "1", "--per-query").splitlines()
    assert lines[0].split("\t") == ["query", "nDCG@1", "MAP@1", "MRR@1", "R@1", "P@1", "MAP", "MRR"]
    assert lines[1].split("\t") == ["0", "0.7500", "0.5000", "1.0000", "0.5000", "1.0000", "1.0000", "1.0000"]
    assert json.loads(answer(capsys, *run, "-k", "1", "--per-query", "--json"))["4"]["nDCG@1"] == 1.0


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("queries.npy codes.npy", "eval: the following arguments are required: --query-labels, --database-labels (or "),
        ("--qrels qrels.tsv", "eval: the following arguments are required: QUERIES, DATABASE (or --run)"),
        ("queries.npy codes.npy --run run.trec", "eval: --run needs --qrels"),
        ("queries.npy codes.npy --gains linear", "eval: --gains needs --qrels"),
        ("queries.npy codes.npy --per-query", "eval: --per-query needs --qrels"),
        ("queries.npy codes.npy --qrels qrels.tsv --at 3", "eval: --at cannot be used with --qrels"),
        (
            "queries.npy codes.npy --qrels qrels.tsv --query-labels q.txt",
            "eval: --query-labels cannot be used with --qrels",
        ),
        (
            "queries.npy --qrels qrels.tsv --run run.trec",
            "eval: QUERIES cannot be used with --run, because a run is ranked",
        ),
        (
            "--qrels qrels.tsv --run run.trec --bits 8",
            "eval: --bits cannot be used with --run, because a run is ranked",
        ),
        ("--qrels qrels.tsv --run no.trec", "no.trec: no such file"),
        ("--qrels no.tsv --run run.trec", "no.tsv: no such file"),
        ("--qrels q.txt --run run.trec", "read_qrels: q.txt line 1 must have query, 0, document and relevance"),
        (
            "--qrels qrels.tsv --run run.trec",
            "retrieval: no query of the run is in qrels, got '0' and 'q0' for example",
        ),
        (
            "queries.npy codes.npy --qrels qrels.tsv",
            "exhaustive_retrieval: no query of query_names is in qrels, got '0'",
        ),
        ("queries.npy codes.npy --qrels qrels.tsv --query-keys d.txt", "d.txt: queries.npy has 5 codes and needs 5"),
        (
            "queries.npy index --qrels qrels.tsv --database-keys d.txt",
            "eval: --database-keys cannot be used with an index",
        ),
        ("queries.npy weighted --qrels qrels.tsv --bit-weights 8x2", "weighted: its bits have the weights 4x3,4x1"),
        ("queries.npy nowhere --qrels qrels.tsv", "nowhere: no such file"),
    ],
)
def test_what_cannot_be_done(command: str, message: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(("eval", *command.split())) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.removeprefix("fasthash: error: ").startswith(message)
