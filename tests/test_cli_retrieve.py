"""fasthash search and eval: what goes with what, counts, the bar of a long search, and small databases."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from fasthash.cli import main, retrieve
from fasthash.index import HammingIndex

TREE = "animal\tthing\ncar\tthing\ncat\tanimal\ndog\tanimal\n"  # "child parent"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with an index of 500 codes of 8 bits, which has many ties, 300 queries and labels."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    np.save("codes.npy", rng.integers(0, 256, (500, 1), np.uint8))
    np.save("queries.npy", rng.integers(0, 256, (300, 1), np.uint8))
    np.save("outputs.npy", rng.random((300, 8), np.float32))
    np.save("few.npy", rng.integers(0, 256, (6, 1), np.uint8))
    Path("labels.txt").write_text("cat\ndog\ncar\n" * 2)
    Path("tree.tsv").write_text(TREE)
    HammingIndex.build("index", "codes.npy", progress=False)
    return tmp_path


def answer(capsys: pytest.CaptureFixture[str], *command: str) -> str:
    capsys.readouterr()
    assert main(command) == 0
    return capsys.readouterr().out


def refused(capsys: pytest.CaptureFixture[str], *command: str) -> str:
    capsys.readouterr()
    assert main(command) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    return err.removeprefix("fasthash: error: ").rstrip("\n")


@pytest.mark.parametrize("queries", ["queries.npy", "outputs.npy"])
@pytest.mark.parametrize("k", [1, 7, 600])
def test_the_k_nearest_within_a_radius(queries: str, k: int, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    everything = json.loads(answer(capsys, "search", "index", queries, "--radius", "2", "--json"))
    found = json.loads(answer(capsys, "search", "index", queries, "--radius", "2", "-k", str(k), "--json"))
    assert found == [
        {"query": row["query"], "ids": row["ids"][:k], "distances": row["distances"][:k]} for row in everything
    ]
    assert max(len(row["ids"]) for row in everything) > 7
    answer(capsys, "search", "index", queries, "--radius", "2", "-k", str(k), "--out", "found.npz")
    with np.load("found.npz") as arrays:
        assert arrays["ids"].tolist() == [id for row in found for id in row["ids"]]
        assert np.diff(arrays["offsets"]).tolist() == [len(row["ids"]) for row in found]
        assert [arrays[name].dtype for name in ("offsets", "distances", "ids")] == [np.int64, np.int32, np.int64]


def test_k_is_checked_beside_a_radius(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert refused(capsys, "search", "index", "queries.npy", "--radius", "2", "-k", "0") == (
        "search: -k must be at least 1, got 0"
    )
    default = json.loads(answer(capsys, "search", "index", "few.npy", "--json"))
    assert [len(row["ids"]) for row in default] == [10] * 6


def test_how_many_results_were_found(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    index = HammingIndex.open("index")
    near = len(index.range_search(np.load("queries.npy"), 1).ids)
    out = ("--out", "found.npz")
    assert answer(capsys, "search", "index", "queries.npy", "--radius", "1", *out) == (
        f"found.npz: {near:,} results of 300 queries\n"
    )
    assert answer(capsys, "search", "index", "queries.npy", "-k", "4", *out) == (
        "found.npz: 1,200 results of 300 queries\n"
    )
    result = json.loads(answer(capsys, "search", "few.npy", "queries.npy", "-k", "50", *out, "--json"))
    assert result == {"out": "found.npz", "queries": 300, "results": 6 * 300}  # places that stay empty are no results
    np.save("nothing.npy", np.zeros((0, 1), np.uint8))
    assert answer(capsys, "search", "index", "nothing.npy", *out) == "found.npz: 0 results of 0 queries\n"


class Bar:
    """Takes the place of tqdm: what the bar was told."""

    seen: ClassVar[list[tuple[int, list[int]]]] = []

    def __init__(self, total: int, **_: Any):
        Bar.seen.append((total, []))

    def update(self, count: int) -> None:
        Bar.seen[-1][1].append(count)

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, *_: object) -> None:
        pass


@pytest.mark.parametrize("terminal", [True, False])
@pytest.mark.parametrize(
    "options",
    [("-k", "7"), ("--radius", "2"), ("--radius", "2", "-k", "3"), ("-k", "7", "--rescore", "2")],
    ids=" ".join,
)
def test_a_bar_over_queries_changes_no_result(
    options: tuple[str, ...],
    terminal: bool,
    here: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    queries = "outputs.npy" if "--rescore" in options else "queries.npy"
    expected = answer(capsys, "search", "index", queries, *options)
    monkeypatch.setattr(retrieve, "tqdm", Bar)
    monkeypatch.setattr(retrieve, "LARGEST_BLOCK", 128)
    monkeypatch.setattr(Bar, "seen", [])
    monkeypatch.setattr("sys.stderr.isatty", lambda: terminal)
    assert answer(capsys, "search", "index", queries, *options) == expected
    assert Bar.seen == ([(300, [64, 128, 108])] if terminal else [])
    answer(capsys, "search", "index", queries, *options, "--json")  # none beside JSON
    assert len(Bar.seen) == terminal
    answer(capsys, "search", "index", queries, *options, "--out", "found.npz")
    assert len(Bar.seen) == 2 * terminal
    np.save("nothing.npy", np.load(queries)[:0])
    assert answer(capsys, "search", "index", "nothing.npy", *options) == "query\tid\tdistance\n"


def test_options_that_would_be_ignored(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    labels = ("--query-labels", "labels.txt", "--database-labels", "labels.txt")
    np.save("real.npy", np.eye(6, dtype=np.float32))
    for command, message in (
        (("eval", "few.npy", "few.npy", *labels, "--at", "3"), "eval: --at needs --hierarchy"),
        (("eval", "real.npy", "real.npy", *labels, "--bits", "3"), "eval: --bits needs codes, got embeddings in real"),
        (
            ("index", "add", "index", "few.npy", "--replace"),
            "index add: --replace needs --ids or --keys, because new ids replace nothing",
        ),
        (
            ("search", "index", "queries.npy", "--radius", "1", "--rescore", "2"),
            "search: --radius cannot be used with --res",
        ),
    ):
        assert refused(capsys, *command).startswith(message)
    assert len(HammingIndex.open("index")) == 500


# eval


def scores(capsys: pytest.CaptureFixture[str], *options: str) -> dict[str, float]:
    labels = ("--query-labels", "labels.txt", "--database-labels", "labels.txt")
    result: dict[str, float] = json.loads(answer(capsys, "eval", "few.npy", "few.npy", *labels, *options, "--json"))
    return result


def test_a_small_database_is_evaluated(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With the number of items in the names; what is asked for and cannot be had is refused."""
    tree = ("--hierarchy", "tree.tsv", "--hierarchy-order", "child parent")
    found = scores(capsys, *tree)
    assert {"mAHP@6", "P@6", "R@6", "nDCG@6"} < set(found)
    assert found == scores(capsys, *tree, "--at", "6", "-k", "6")
    labels = ("--query-labels", "labels.txt", "--database-labels", "labels.txt")
    for option, name in (("--at", "at"), ("-k", "k")):
        message = refused(capsys, "eval", "few.npy", "few.npy", *labels, *tree, option, "7")
        assert message == f"evaluate: {name} must be between 1 and 6, got 7"


def test_a_hierarchy_the_wrong_way_round(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Training and scoring refuse it in the words of the command line; an order or a header puts it right."""
    np.save("features.npy", np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32))
    labels = ("--query-labels", "labels.txt", "--database-labels", "labels.txt")
    train = ("train", "features.npy", "--labels", "labels.txt", "--bits", "8", "--epochs", "1", "--out", "model")
    commands = [("eval", "few.npy", "few.npy", *labels), train]
    Path("header.tsv").write_text(f"Hyponym\tHypernym\n{TREE}")
    Path("names.txt").write_text("cat 0\ndog 1\ncar 2\n")
    Path("other.txt").write_text(f"Begriff Oberbegriff\n{TREE}")
    Path("unclear.txt").write_text(f"from to\n{TREE}")
    Path("flat.txt").write_text("parent child\nthing cat\nthing dog\nthing car\n")
    for command in commands:
        message = refused(capsys, *command, "--hierarchy", "tree.tsv")
        assert message == (
            "tree.tsv: the hierarchy must give different distances between labels, got distance 1 for all "
            "pairs of the 3 labels: it seems to "
            'be upside down; read edges that are written as (child, parent) with --hierarchy-order "child parent". '
            "If all labels are equally far apart, omit the hierarchy"
        )
        answer(capsys, *command, "--hierarchy", "tree.tsv", "--hierarchy-order", "child parent")
        answer(capsys, *command, "--hierarchy", "header.tsv")
        message = refused(capsys, *command, "--hierarchy", "header.tsv", "--hierarchy-order", "parent child")
        assert 'which means --hierarchy-order "child parent", got --hierarchy-order "parent child"' in message
        assert "a table of class names" in refused(capsys, *command, "--hierarchy", "names.txt")
        assert "it may be a header in unknown words, or an edge" in refused(
            capsys, *command, "--hierarchy", "other.txt"
        )
        message = refused(capsys, *command, "--hierarchy", "unclear.txt")
        assert 'pass --hierarchy-order "parent child" or --hierarchy-order "child parent"' in message
        assert "it is flat: 'thing' is the only class" in refused(capsys, *command, "--hierarchy", "flat.txt")
        message = refused(capsys, *command, "--hierarchy-order", "child parent")
        assert message == f"{command[0]}: --hierarchy-order needs --hierarchy"
        message = refused(capsys, *command, "--hierarchy", "tree.tsv", "--hierarchy-order", "up")
        assert message.startswith(f"{command[0]}: argument --hierarchy-order: invalid choice: 'up'")
    Path("h.json").write_text('{"edges": [["a", "b"]], "alone": []}')
    message = refused(capsys, *commands[0], "--hierarchy", "h.json", "--hierarchy-order", "child parent")
    assert "--hierarchy-order is for text files" in message
