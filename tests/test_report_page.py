"""docs/report.md: its commands and examples run, in order, on generated pictures; and fasthash report itself."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from picture_cases import picture_folder

from fasthash import HammingIndex, Hasher, pack_bits
from fasthash.baselines import itq, rabitq
from fasthash.cli import main
from fasthash.evaluate import evaluate
from fasthash.images import ImageHasher

DOCS = Path(__file__).resolve().parent.parent / "docs"
PAGE = (DOCS / "report.md").read_text(encoding="utf-8")
LABELS = ["cat", "dog", "car"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which the page has run."""
    folder = tmp_path_factory.mktemp("report")
    picture_folder(folder / "photos", 10)
    picture_folder(folder / "more", 4)
    (folder / "more" / "dots" / "broken.png").write_text("?")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        names: dict[str, object] = {"__name__": "page"}
        for language, text in re.findall(r"^```(python|bash)\n(.*?)^```", PAGE, flags=re.S | re.M):
            if language == "python":
                exec(compile(text, "report.md", "exec"), names)
                continue
            for line in text.splitlines():
                words = shlex.split(line, comments=True)
                patch.setattr("sys.argv", words)  # which a run notes
                assert main(words[1:]) == 0, line
    rng = np.random.default_rng(0)
    classes = np.arange(60) % 3
    features = (rng.normal(size=(60, 8)) + 2 * np.eye(8)[classes]).astype(np.float32)
    np.save(folder / "features.npy", features)
    (folder / "labels.txt").write_text("".join(f"{LABELS[c]}\n" for c in classes))
    (folder / "texts.txt").write_text("".join(f"text <b>{row}</b>\n" for row in range(60)))
    (folder / "edges.txt").write_text("parent child\nthing animal\nthing car\nanimal cat\nanimal dog\n")
    hasher = Hasher(20, epochs=1, item_bits=8, progress=False).fit(features, classes)
    hasher.save(folder / "hasher.safetensors")
    np.save(folder / "codes.npy", hasher.encode(features))
    itq(features, 8).save(folder / "itq.safetensors")
    rabitq(features).save(folder / "rabitq.safetensors")
    return folder


@pytest.fixture
def here(made: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(made)
    return made


@pytest.fixture
def scores(here: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., dict[str, Any]]:
    """What `fasthash report ... --json` prints."""

    def run(*arguments: str) -> dict[str, Any]:
        capsys.readouterr()
        assert main(["report", *arguments, "--json", "--out", "new.html"]) == 0
        answer: dict[str, Any] = json.loads(capsys.readouterr().out)
        assert answer["bytes"] == Path("new.html").stat().st_size
        return answer

    return run


def test_the_page_runs(here: Path) -> None:
    for name in ("report", "run", "own", "three", "texts"):
        assert "<h1>What the codes find</h1>" in Path(f"{name}.html").read_text(encoding="utf-8")
    assert Path("report.html").read_text(encoding="utf-8").count("data:image/jpeg") > 100
    for target in re.findall(r"\]\((?!https?:)([^)]+)\)", PAGE):
        assert (DOCS / target.partition("#")[0]).exists(), target


def test_pictures_as_queries(scores: Callable[..., dict[str, Any]]) -> None:
    answer = scores("index", "--queries", "more", "--images", "photos", "--model", "run/model.safetensors")
    assert answer["skipped_files"] == ["dots/broken.png: not a picture, or broken"]
    hasher = ImageHasher.load("run/model.safetensors")
    kinds = np.repeat(["checks", "dots", "stripes"], 4)
    keys = [f"{kind}/{row % 4:03}.png" for row, kind in enumerate(kinds)]
    with HammingIndex.open("index") as index:
        ids = index.ids
        database = [key.split("/")[0] for key in index.keys_of(ids)]
        expected = evaluate(hasher.encode("more", keys=keys), index.get(ids), kinds, database, bits=32)
    assert answer["scores"] == pytest.approx(expected)


def test_a_run_shows_its_validation_data(scores: Callable[..., dict[str, Any]]) -> None:
    answer = scores("run")
    rows = Path("run/metrics.csv").read_text().splitlines()
    best = max(float(row.split(",")[2]) for row in rows[1:] if row.split(",")[2])
    assert answer["scores"]["mAP"] == pytest.approx(best)


def test_a_run_of_embeddings(scores: Callable[..., dict[str, Any]], capsys: pytest.CaptureFixture[str]) -> None:
    command = ["train", "features.npy", "--labels", "labels.txt", "--hierarchy", "edges.txt", "--bits", "16"]
    options = ["--val-features", "features.npy", "--val-labels", "labels.txt", "--epochs", "1", "--run-dir", "runs"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["fasthash", *command, *options])
        assert main([*command, *options]) == 0
    answer = scores("runs")
    assert "mAHP@59" in answer["scores"]
    patched = json.loads(Path("runs/environment.json").read_text())
    for words, message in (
        (command, "names no validation data (--val-features of fasthash train): pass data for its model"),
        (
            [*command, "--val-features", "no.npy"],
            "its validation data no.npy was not found: go to the folder of the training",
        ),
    ):
        patched[-1]["command"] = ["fasthash", *words, "--run-dir", "runs"]
        Path("runs/environment.json").write_text(json.dumps(patched))
        assert main(["report", "runs", "--out", "new.html"]) == 2
        assert f"runs: {message}" in capsys.readouterr().err
    again = scores("runs", "--queries", "features.npy", "--query-labels", "labels.txt", "--hierarchy", "edges.txt")
    assert again["scores"] == answer["scores"]


def test_codes_with_the_weights_of_their_model(scores: Callable[..., dict[str, Any]]) -> None:
    labels = ("--query-labels", "labels.txt", "--database-labels", "labels.txt")
    texts = ("--texts", "texts.txt", "--query-texts", "texts.txt")
    model = ("--model", "hasher.safetensors", "--hierarchy", "edges.txt")
    answer = scores("codes.npy", "--queries", "features.npy", *model, *labels, *texts)
    html = Path("new.html").read_text(encoding="utf-8")
    assert "text &lt;b&gt;7&lt;/b&gt;" in html
    assert "Distances are weighted" in html
    assert "Outputs before rounding" in html
    codes, classes = np.load("codes.npy"), np.arange(60) % 3
    hasher = Hasher.load("hasher.safetensors")
    np.testing.assert_array_equal(pack_bits(hasher.transform(np.load("features.npy"))), codes)
    expected = evaluate(codes, codes, classes, classes, bits=20, bit_weights=hasher.bit_weights_)
    assert {name: answer["scores"][name] for name in expected} == pytest.approx(expected)
    typed = scores("codes.npy", "--queries", "codes.npy", "--bits", "20", "--bit-weights", "12x3,8x1", *labels)
    weighted = evaluate(codes, codes, classes, classes, bits=20, bit_weights=[(12, 3), (8, 1)])
    assert typed["scores"] == pytest.approx(weighted)


@pytest.mark.parametrize("name", ["itq", "rabitq"])
def test_other_models(name: str, scores: Callable[..., dict[str, Any]]) -> None:
    assert main(["encode", f"{name}.safetensors", "features.npy", "--out", "other.npy"]) == 0
    answer = scores("other.npy", "--queries", "features.npy", "--model", f"{name}.safetensors")
    assert "codes" in answer["scores"]
    assert any("no labels in common" in note for note in answer["notes"])


def test_an_index_as_queries(scores: Callable[..., dict[str, Any]]) -> None:
    answer = scores("index", "--queries", "index", "--images", "photos")
    assert answer["scores"]["P@1"] > 0.3
    assert Path("new.html").read_text(encoding="utf-8").count("<img") > 200


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("index --queries more", "more: must be used with a model of pictures (--model)"),
        ("index --queries features.npy --model run/model.safetensors", "features.npy: must be a folder of pictures"),
        ("index --queries features.npy --model hasher.safetensors", "hasher.safetensors: makes codes of 20 bits, the"),
        ("codes.npy --queries index", "index: has codes of 32 bits, codes.npy has 24"),
        ("index --query-labels labels.txt", "--query-labels needs --queries"),
        ("index --hierarchy-order x", "--hierarchy-order: invalid choice"),
        ("codes.npy --texts labels.txt --images photos", "not allowed with argument"),
        ("codes.npy --database-labels labels.txt --limit 0", "report: --limit must be between 1 and 10000, got 0"),
        ("codes.npy --texts edges.txt", "report: --texts must have 60 rows, one for each code, got 5"),
        ("codes.npy --out report.pdf", "report.pdf: the suffix decides the format"),
        ("codes.npy --texts hasher.safetensors", "hasher.safetensors: not a UTF-8 text file"),
        ("photos", "photos: must be an index folder or a finished run"),
        ("run --model hasher.safetensors", "--model needs an index; run is a run and has its own model"),
        ("none", "none"),
    ],
)
def test_messages(arguments: str, message: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", "--out", "bad.html", *arguments.split()]) == 2
    told = capsys.readouterr().err
    assert message in told
    assert told.count("\n") == 1
    assert not Path("bad.html").exists()
