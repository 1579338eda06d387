"""The demo on a tenth of the texts: its tables, its folder, its report."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fasthash.cli import main
from fasthash.datasets import clinc150
from fasthash.demo import describe, run_demo
from fasthash.index import HammingIndex
from fasthash.report import Plots, markdown_tables, write_report
from fasthash.report.tables import kept
from fasthash.train import Hasher

Run = tuple[Path, dict[str, Any]]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("demo") / "out"
    return folder, run_demo(folder, fraction=0.1, epochs=8, ablations=True)


def rows(results: dict[str, Any], database: str = "train", **wanted: Any) -> list[dict[str, Any]]:
    return [row for row in results["tables"][database] if all(row[key] == value for key, value in wanted.items())]


def test_rows_of_both_tables(run: Run) -> None:
    results = run[1]
    names = [row["method"] for row in results["tables"]["train"]]
    assert names == [
        *("random ranking", "cosine, 384 floats", "sign bits, 384", "LSH, 64 bits", "ITQ, 64 bits"),
        *["fasthash, 64 floats"] * 4,
        *["fasthash, 64 bits"] * 4,
        "fasthash, 44 + 20 bits",
    ]
    assert [row["method"] for row in results["tables"]["val"]] == names
    sources = [(row["learned_from"], row["kl"]) for row in rows(results, method="fasthash, 64 bits")]
    assert sources == [("labels", True), ("labels", False), ("similarities", True), ("similarities", False)]
    assert [row["bytes"] for row in results["tables"]["train"]] == [None, 1536, 48, 8, 8, *[256] * 4, *[8] * 5]
    assert results["sizes"] == {"train": 1500, "val": 300, "test": 450}


def test_random_ranking_is_the_floor(run: Run) -> None:
    for database in ("train", "val"):
        (floor,) = rows(run[1], database, method="random ranking")
        assert floor["P@10"] == pytest.approx(1 / 150, abs=1e-4)  # rounded to four places
        for row in run[1]["tables"][database][1:]:
            assert row["mAP"] > 10 * floor["mAP"]
            assert row["mAHP"] > 1.2 * floor["mAHP"]


def test_learned_codes_beat_codes_without_training(run: Run) -> None:
    (itq,) = rows(run[1], method="ITQ, 64 bits")
    for row in rows(run[1], method="fasthash, 64 bits"):
        assert row["mAHP"] > itq["mAHP"] + 0.1
        assert 150 / 2 < row["codes"] <= 1500


def test_codes_of_two_parts_have_a_row(run: Run) -> None:
    (divided,) = rows(run[1], method="fasthash, 44 + 20 bits")
    undivided = rows(run[1], method="fasthash, 64 bits")[0]
    assert divided["mAP"] > undivided["mAP"] - 0.05
    assert divided["codes"] >= undivided["codes"]
    said = re.findall(r"% \((.*?)\)", kept(run[1]))
    assert said[-1] == "44 + 20 bits, labels, KL on"
    assert len(set(said)) == len(said) == 5


def test_every_searchable_row_has_a_speed(run: Run) -> None:
    for row in run[1]["tables"]["train"][1:]:
        assert row["queries_per_second"] > 0


def test_folder_holds_what_the_commands_need(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    folder, results = run
    assert json.loads((folder / "results.json").read_text(encoding="utf-8")) == results
    model = Hasher.load(folder / "model.safetensors")
    codes = np.load(folder / "codes.npy")
    train = clinc150("train")
    chosen = np.concatenate([np.flatnonzero(train.intents == intent)[:10] for intent in range(150)])
    np.testing.assert_array_equal(model.encode(train.embeddings[np.sort(chosen)]), codes)
    assert len(HammingIndex.open(folder / "index")) == 1500
    assert len((folder / "texts.txt").read_text(encoding="utf-8").splitlines()) == 1500

    assert HammingIndex.open(folder / "index").bit_weights == [(44, 4), (20, 1)]

    files = [str(folder / name) for name in ("queries.npy", "codes.npy")]
    files += ["--model", str(folder / "model.safetensors")]
    labels = [f"--query-labels={folder}/query_labels.txt", f"--database-labels={folder}/database_labels.txt"]
    assert main(["eval", *files, *labels, "--hierarchy", str(folder / "hierarchy.txt"), "--json"]) == 0
    measured = json.loads(capsys.readouterr().out)
    (row,) = rows(results, method="fasthash, 44 + 20 bits")
    assert measured["mAP"] == pytest.approx(row["mAP"], abs=1e-4)
    assert measured["mAHP@250"] == pytest.approx(row["mAHP"], abs=1e-4)
    assert measured["codes"] == row["codes"]


def test_examples_come_from_the_index(run: Run) -> None:
    folder, results = run
    texts = (folder / "texts.txt").read_text(encoding="utf-8").splitlines()
    for example in results["examples"]:
        distances = [found["distance"] for found in example["results"]]
        assert distances == sorted(distances)
        assert all(found["text"] in texts for found in example["results"])


def test_a_distance_is_said_to_be_weighted(run: Run) -> None:
    folder, results = run
    words = "Distance: 4 for each of the first 44 bits that differs, 1 for each of the next 20."
    assert words in describe(results, "out")
    assert words in (folder / "report.html").read_text(encoding="utf-8")
    example = results["examples"][0]
    row = clinc150("test").texts.index(example["text"])
    nearest = clinc150("train").texts.index(example["results"][0]["text"])
    model = Hasher.load(folder / "model.safetensors")
    pair = [model.encode(clinc150(split).embeddings[i : i + 1]) for split, i in (("test", row), ("train", nearest))]
    differ = np.unpackbits(pair[0] ^ pair[1])
    assert example["results"][0]["distance"] == 4 * differ[:44].sum() + differ[44:].sum()


def test_text_and_markdown_show_every_row(run: Run) -> None:
    text, markdown = describe(run[1], "out"), markdown_tables(run[1])
    assert text.count("fasthash, 64 bits ") == 8
    assert markdown.count("| fasthash, 64 bits |") == 8
    assert "mAHP@250" in text
    assert "out/index" in text
    cells = [line.count("|") for line in markdown.splitlines() if line.startswith("|")]
    assert set(cells) == {11}


def test_report_is_one_page_with_plots(run: Run) -> None:
    pytest.importorskip("matplotlib")
    page = (run[0] / "report.html").read_text(encoding="utf-8")
    assert run[1]["plots"] is True
    assert page.count("<svg") == 1
    for title in ("learned from labels", "learned from similarities", "bit balance", "precision and recall"):
        assert title in page
    assert not re.search(r'(src|href)="(?!#)', page)  # nothing is loaded from anywhere


def test_report_without_matplotlib(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    nothing = Plots({}, {}, [], np.zeros(0), np.zeros(0))
    assert write_report(tmp_path / "report.html", run[1], nothing) is False
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "<svg" not in page
    assert "matplotlib is not installed" in page
    assert "pip install 'fasthash[demo]'" in describe({**run[1], "plots": False}, "out")


def test_same_seed_same_scores_and_a_folder_can_be_used_again(run: Run) -> None:
    folder, first = run
    second = run_demo(folder, fraction=0.1, epochs=8)  # without the ablations
    assert "fasthash, 64 " not in describe(second, "out")  # no undivided codes, no outputs

    def scores(results: dict[str, Any]) -> Any:
        return [{**row, "queries_per_second": None} for table in results["tables"].values() for row in table]

    without = [row for row in scores(first) if row["learned_from"] is None or "+" in row["method"]]
    assert without == scores(second)
    assert first["examples"] == second["examples"]


@pytest.mark.parametrize("fraction", ["0.05", "1.5", "nan"])
def test_fraction_out_of_range(fraction: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--out", str(tmp_path / "out"), "--fraction", fraction]) == 2
    wanted = f"fasthash: error: demo: fraction must be >= 0.1 and <= 1, got {float(fraction)}\n"
    assert capsys.readouterr().err == wanted
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("option", "value"), [("epochs", "0"), ("seed", "-1")])
def test_settings_out_of_range(option: str, value: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--out", str(tmp_path / "out"), f"--{option}", value]) == 2
    assert capsys.readouterr().err.startswith(f"fasthash: error: demo: {option} must be ")
    assert not (tmp_path / "out").exists()


def test_folder_that_cannot_be_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert main(["demo", "--out", str(tmp_path / "file")]) == 2
    assert capsys.readouterr().err == f"fasthash: error: {tmp_path}/file: File exists\n"
