"""`fasthash train` with a run folder, as a process that goes on."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hasher_cases import blobs

from fasthash.baselines import itq
from fasthash.cli import main
from fasthash.train import Hasher
from fasthash.train.run_folder import RunFolder


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    X, y = blobs()
    np.save("features.npy", X)
    np.save("labels.npy", y % 2 == 0)  # booleans
    np.save("numbers.npy", (y % 2 == 0).astype(np.int64))
    return tmp_path


TRAIN = ("train", "features.npy", "--labels", "labels.npy", "--bits", "8", "--epochs", "3", "--batch-size", "60")


def test_the_same_command_goes_on(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*TRAIN, "--out", "whole.safetensors"]) == 0
    save = RunFolder.save

    def interrupt(self: RunFolder, *state: object) -> None:
        save(self, *state)  # type: ignore[arg-type]
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "save", interrupt)
        assert main([*TRAIN, "--run-dir", "runs/x"]) == 130
    capsys.readouterr()
    assert main([*TRAIN, "--run-dir", "runs/x", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["model"] == str(Path("runs/x/model.safetensors"))
    assert result["epochs"] == 3
    X = np.load("features.npy")
    wanted = Hasher.load("whole.safetensors").transform(X)
    np.testing.assert_array_equal(Hasher.load("runs/x/model.safetensors").transform(X), wanted)
    assert main([*TRAIN, "--run-dir", "runs/x", "--out", "copy.safetensors"]) == 0  # it has ended: nothing is trained
    np.testing.assert_array_equal(Hasher.load("copy.safetensors").transform(X), wanted)
    capsys.readouterr()
    assert main([*TRAIN, "--run-dir", "runs/x", "--lr", "0.5"]) == 2
    assert "train: run_dir runs/x holds a run with hasher.lr 0.004, got 0.5: name another" in capsys.readouterr().err


def test_options_reach_the_hasher(here: Path) -> None:
    validation = ("--val-features", "features.npy", "--val-labels", "numbers.npy")
    options = ("--ema", "0.9", "--patience", "2", "--precision", "bfloat16", "--workers", "1", "--lr", "0.01")
    assert main([*TRAIN, *validation, *options, "--out", "m.safetensors"]) == 0
    hasher = Hasher.load("m.safetensors")
    assert (hasher.ema, hasher.patience, hasher.precision, hasher.lr) == (0.9, 2, "bfloat16", 0.01)
    assert (hasher.batch_size, hasher.workers, hasher.run_dir) == (60, 0, None)
    assert list(hasher.classes_) == [0, 1]


def test_refusals(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, message in (
        ((), "train: the following arguments are required: --out or --run-dir"),
        (("--run-dir", "features.npy"), "train: run_dir must be a folder, got the file features.npy"),
        (("--out", "m", "--patience", "2"), "Hasher.fit: patience needs validation, got patience 2 and no validation"),
        (("--out", "m", "--ema", "2"), "Hasher.fit: ema must be >= 0 and < 1, got 2.0"),
        (("--out", "m", "--workers", "-1"), "Hasher.fit: workers must be at least 0, got -1"),
    ):
        assert main([*TRAIN, *arguments]) == 2
        err = capsys.readouterr().err
        assert err.startswith(f"fasthash: error: {message}")
        assert err.count("\n") == 1


def test_encode_with_linear_codes(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    X = np.load("features.npy")
    codes = itq(X, 10)
    codes.save("itq.safetensors")
    assert main(["encode", "itq.safetensors", "features.npy", "--out", "codes.npy"]) == 0
    np.testing.assert_array_equal(np.load("codes.npy"), codes.encode(X))
    assert main(["encode", "itq.safetensors", "features.npy", "--real", "--out", "real.npy"]) == 0
    np.testing.assert_array_equal(np.load("real.npy"), codes.queries(X))
    np.save("narrow.npy", X[:, :3])
    capsys.readouterr()
    assert main(["encode", "itq.safetensors", "narrow.npy", "--out", "codes.npy"]) == 2
    assert capsys.readouterr().err.strip().endswith("narrow.npy: the model takes 12 columns, got 3")


def test_a_column_of_labels(here: Path) -> None:
    np.save("column.npy", np.load("numbers.npy")[:, None])
    for labels in ("numbers.npy", "column.npy"):
        assert main([*TRAIN[:3], labels, *TRAIN[4:], "--out", f"{labels}.safetensors"]) == 0
    X = np.load("features.npy")
    first, second = (Hasher.load(f"{labels}.npy.safetensors") for labels in ("numbers", "column"))
    assert second.classes_.tolist() == [0, 1]
    np.testing.assert_array_equal(first.encode(X), second.encode(X))


@pytest.mark.parametrize("names", ["numbers", "numbers in a hierarchy", "words in a hierarchy"])
def test_minus_one_marks_rows_without_a_label(
    names: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    y = np.repeat(np.arange(4), 40)
    np.save("X.npy", (6 * np.eye(8)[y] + rng.normal(size=(160, 8))).astype(np.float32))
    word = "w" if "words" in names else ""
    Path("y.txt").write_text("".join(f"{word}{label}\n" if label < 3 else "-1\n" for label in y))
    edges = [("r", "0"), ("r", "1"), ("s", "2"), ("s", "3"), ("t", "r"), ("t", "s")]
    Path("tree.txt").write_text("".join(f"{a} {word if b.isdigit() else ''}{b}\n" for a, b in edges))
    command = ["train", "X.npy", "--labels", "y.txt", "--bits", "64", "--epochs", "1", "--out", "m.safetensors"]
    if "hierarchy" in names:
        command += ["--hierarchy", "tree.txt", "--hierarchy-order", "parent child"]
    assert main([*command, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["bit_weights"] == [[44, 4], [20, 1]]
    assert found["classes"] == 3
    assert found["new_classes"] >= 1
    assert found["rows_of_new_classes"] >= 35
    assert main([*command, "--item-bits", "0"]) == 0
    assert "new class" in capsys.readouterr().out
    assert Hasher.load("m.safetensors").bit_weights_ is None
