"""Weights of bits on the command line: how they are written, where they come from, and what follows them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fasthash import Hasher, evaluate, hamming_topk
from fasthash.cli import learn, main
from fasthash.index import HammingIndex

GROUPS = [(10, 30), (14, 2)]
TYPED = "10x30,14x2"


@pytest.fixture
def codes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    """The working directory has 500 codes of 24 bits, 20 queries and labels of both."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    made = rng.integers(0, 256, (500, 3), np.uint8)
    np.save("codes.npy", made)
    np.save("queries.npy", made[:20] ^ rng.integers(0, 2, (20, 3), np.uint8))
    np.save("outputs.npy", rng.random((20, 24), np.float32))
    for name, count in (("labels", 500), ("query-labels", 20)):
        Path(f"{name}.txt").write_text("".join(f"{n % 7}\n" for n in range(count)))
    return made


class Model:
    """A model whose codes have weights; what a command needs of one."""

    bits, bit_weights_, n_features_in_ = 24, GROUPS, 24


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(learn, "load_model", lambda path, device: Model())
    return "model.safetensors"


def printed(capsys: pytest.CaptureFixture[str], *command: str) -> Any:
    capsys.readouterr()
    assert main([*command, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def line(capsys: pytest.CaptureFixture[str], *command: str) -> str:
    capsys.readouterr()
    assert main(command) == 0
    return capsys.readouterr().out.rstrip("\n")


def refused(capsys: pytest.CaptureFixture[str], *command: str) -> str:
    capsys.readouterr()
    assert main(command) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    return err.removeprefix("fasthash: error: ").rstrip("\n")


def test_an_index_with_weights(codes: np.ndarray, capsys: pytest.CaptureFixture[str]) -> None:
    built = printed(capsys, "index", "build", "codes.npy", "--out", "index", "--bit-weights", TYPED)
    assert built["bit_weights"] == [list(pair) for pair in GROUPS]
    again = line(capsys, "index", "build", "codes.npy", "--out", "index", "--overwrite", "--bit-weights", TYPED)
    assert again == "index: 500 codes of 24 bits, weights of bits 10x30,14x2"
    assert printed(capsys, "index", "info", "index")["bit_weights"] == [list(pair) for pair in GROUPS]
    assert line(capsys, "index", "info", "index").endswith(", weights of bits 10x30,14x2")
    queries = np.load("queries.npy")
    expected = hamming_topk(queries, codes, 5, bit_weights=GROUPS)
    assert not np.array_equal(expected.ids, hamming_topk(queries, codes, 5).ids)
    for options in ([], ["--bit-weights", TYPED], ["--bit-weights", "4x30,6x30,14x2"]):
        found = printed(capsys, "search", "index", "queries.npy", "-k", "5", *options)
        assert [row["ids"] for row in found] == expected.ids.tolist()
        assert [row["distances"] for row in found] == expected.distances.tolist()
    near = HammingIndex.open("index").range_search(queries, 31)
    found = printed(capsys, "search", "index", "queries.npy", "--radius", "31")
    assert [id for row in found for id in row["ids"]] == near.ids.tolist()
    real = HammingIndex.open("index").search(np.load("outputs.npy"), 5, rescore=3)
    found = printed(capsys, "search", "index", "outputs.npy", "-k", "5", "--rescore", "3")
    assert [row["ids"] for row in found] == real.ids.tolist()
    line(capsys, "index", "add", "index", "queries.npy")
    assert printed(capsys, "index", "info", "index")["bit_weights"] == [list(pair) for pair in GROUPS]


def test_an_index_without(codes: np.ndarray, capsys: pytest.CaptureFixture[str]) -> None:
    assert printed(capsys, "index", "build", "codes.npy", "--out", "index")["bit_weights"] is None
    assert printed(capsys, "index", "info", "index")["bit_weights"] is None
    assert "weights" not in line(capsys, "index", "info", "index")
    assert "weights" not in line(capsys, "index", "export", "index", "--out", "codes.u8bin")
    assert json.loads(Path("index/manifest.json").read_text())["version"] == 1


@pytest.mark.parametrize("suffix", [".npy", ".u8bin", ".faiss"])
def test_an_export_names_the_weights_that_it_cannot_keep(
    suffix: str, codes: np.ndarray, capsys: pytest.CaptureFixture[str]
) -> None:
    line(capsys, "index", "build", "codes.npy", "--out", "index", "--bit-weights", TYPED)
    told = line(capsys, "index", "export", "index", "--out", f"out{suffix}")
    assert told.endswith(", weights of bits 10x30,14x2 (not in the file: other programs search without them)")
    result = printed(capsys, "index", "export", "index", "--out", f"out{suffix}")
    assert result["bit_weights"] == [list(pair) for pair in GROUPS]
    line(capsys, "index", "build", f"out{suffix}", "--out", "again", "--bit-weights", TYPED)
    assert HammingIndex.open("again").bit_weights == GROUPS
    np.testing.assert_array_equal(HammingIndex.open("again").get(np.arange(500)), codes)


def test_a_file_of_codes_takes_them_from_the_option(codes: np.ndarray, capsys: pytest.CaptureFixture[str]) -> None:
    expected = hamming_topk(np.load("queries.npy"), codes, 5, bit_weights=GROUPS)
    found = printed(capsys, "search", "codes.npy", "queries.npy", "-k", "5", "--bit-weights", TYPED)
    assert [row["ids"] for row in found] == expected.ids.tolist()
    assert [row["distances"] for row in found] == expected.distances.tolist()


def test_the_model_says_them(
    codes: np.ndarray, model: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    built = printed(capsys, "index", "build", "codes.npy", "--out", "index", "--model", model)
    assert (built["bits"], built["bit_weights"]) == (24, [list(pair) for pair in GROUPS])
    line(
        capsys, "index", "build", "codes.npy", "--out", "index", "--overwrite", "--model", model, "--bit-weights", TYPED
    )
    for command in (("index", "build", "codes.npy", "--out", "new"), ("search", "codes.npy", "queries.npy")):
        message = refused(capsys, *command, "--model", model, "--bit-weights", "24x1")
        assert message == (
            "model.safetensors: its bits have the weights 10x30,14x2, --bit-weights must be equal or be omitted, "
            "got 24x1"
        )
    message = refused(capsys, "index", "build", "codes.npy", "--out", "new", "--model", model, "--bits", "23")
    assert message == "model.safetensors: makes codes of 24 bits, --bits must be the same, got 23"
    np.save("features.npy", np.load("outputs.npy"))
    monkeypatch.setattr(learn, "outputs_of", lambda model: lambda rows: rows)
    expected = HammingIndex.open("index").search(np.load("outputs.npy"), 5)
    for index in ("index", "codes.npy"):
        found = printed(capsys, "search", index, "features.npy", "-k", "5", "--model", model)
        assert [row["distances"] for row in found] == expected.distances.tolist()


def test_a_model_without_weights_says_none(codes: np.ndarray, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)
    Hasher(bits=20, epochs=1, seed=0).fit(rng.random((60, 5), np.float32)).save("plain.safetensors")
    np.save("codes20.npy", codes & np.array([255, 255, 240], np.uint8))
    built = printed(capsys, "index", "build", "codes20.npy", "--out", "index", "--model", "plain.safetensors")
    assert (built["bits"], built["bit_weights"]) == (20, None)


def test_eval_follows_them(codes: np.ndarray, model: str, capsys: pytest.CaptureFixture[str]) -> None:
    command = (
        "eval",
        "queries.npy",
        "codes.npy",
        "--query-labels",
        "query-labels.txt",
        "--database-labels",
        "labels.txt",
    )
    labels = [np.arange(count) % 7 for count in (20, 500)]
    wanted = evaluate.evaluate(np.load("queries.npy"), codes, *labels, bit_weights=GROUPS)
    plain = evaluate.evaluate(np.load("queries.npy"), codes, *labels)
    assert wanted["mAP"] != plain["mAP"]
    assert printed(capsys, *command, "--bit-weights", TYPED) == pytest.approx(wanted)
    assert printed(capsys, *command, "--model", model) == pytest.approx(wanted)
    assert printed(capsys, *command) == pytest.approx(plain)
    np.save("queries.npy", np.load("outputs.npy"))
    np.save("codes.npy", np.load("outputs.npy"))
    Path("labels.txt").write_text(Path("query-labels.txt").read_text())
    assert refused(capsys, *command, "--bit-weights", TYPED) == (
        "eval: weights of bits need codes, got embeddings in queries.npy"
    )


@pytest.mark.parametrize(
    "text", ["", "24", "24*1", "24x", "x1", "10x30;14x2", "10x30,", "-10x3,34x1", "1e1x3", "24x1.5"]
)
def test_weights_that_cannot_be_read(text: str, codes: np.ndarray, capsys: pytest.CaptureFixture[str]) -> None:
    for command in (("index", "build", "codes.npy", "--out", "index"), ("search", "codes.npy", "queries.npy")):
        assert refused(capsys, *command, f"--bit-weights={text}") == (
            "--bit-weights must be groups BITSxWEIGHT separated by commas, for example 40x3,24x1 for 40 bits of "
            f"weight 3 and then 24 bits of weight 1, got {text!r}"
        )
    assert not Path("index").exists()


def test_weights_that_do_not_fit(codes: np.ndarray, capsys: pytest.CaptureFixture[str]) -> None:
    build = ("index", "build", "codes.npy", "--out", "index")
    for text, message in (
        ("23x1", "must hold 24 bits, got 23"),
        ("30x1", "must hold 17 to 24 bits for codes of 3 bytes, got 30"),
        ("10x0,14x1", "must be between 1 and 255, got 0"),
        ("10x256,14x1", "must be between 1 and 255, got 256"),
        (",".join(["1x1"] * 65), "must have 1 to 64 groups, got 65"),
    ):
        told = refused(capsys, *build, "--bit-weights", text)
        assert re.search(f"--bit-weights .*{message}", told), told
        assert "bit_weights" not in told
    assert not Path("index/manifest.json").exists()
    line(capsys, *build, "--bit-weights", TYPED)
    for text in ("24x1", "14x2,10x30"):
        assert refused(capsys, "search", "index", "queries.npy", "--bit-weights", text) == (
            f"index: its bits have the weights 10x30,14x2, --bit-weights must be equal or be omitted, got {text}"
        )
    line(capsys, "index", "build", "codes.npy", "--out", "plain")
    assert refused(capsys, "search", "plain", "queries.npy", "--bit-weights", TYPED) == (
        f"plain: its bits have the weights none, --bit-weights must be equal or be omitted, got {TYPED}"
    )
