"""The command line: what it does, what it prints, and one clear line with exit status 2 for input it cannot use."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fasthash
from fasthash.cli import main
from fasthash.hamming import hamming_topk
from fasthash.index import HammingIndex
from fasthash.train import Hasher

LABELS = ["cat", "dog", "car"]
EDGES = "parent child\nthing animal\nthing car\nanimal cat\nanimal dog\n"

Invoke = Callable[..., str]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with features, labels, a hierarchy, a model of 20 bits, its codes and an index: made by the commands."""
    folder = tmp_path_factory.mktemp("cli")
    rng = np.random.default_rng(0)
    classes = np.arange(120) % 3
    np.save(folder / "features.npy", (rng.normal(size=(120, 8)) + 3 * np.eye(8)[classes]).astype(np.float32))
    np.save(folder / "numbers.npy", classes)
    (folder / "labels.txt").write_text("".join(f"{LABELS[c]}\n" for c in classes))
    (folder / "edges.txt").write_text(EDGES)
    path = str(folder)
    train = ["train", f"{path}/features.npy", "--labels", f"{path}/labels.txt", "--hierarchy", f"{path}/edges.txt"]
    assert main([*train, "--bits", "20", "--epochs", "3", "--out", f"{path}/model.safetensors"]) == 0
    assert main(["encode", f"{path}/model.safetensors", f"{path}/features.npy", "--out", f"{path}/codes.npy"]) == 0
    assert main(["index", "build", f"{path}/codes.npy", "--bits", "20", "--out", f"{path}/index"]) == 0
    return folder


@pytest.fixture
def here(made: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory is the folder, so that messages are the same everywhere."""
    monkeypatch.chdir(made)
    return made


@pytest.fixture
def works(here: Path, capsys: pytest.CaptureFixture[str]) -> Invoke:
    """Runs a command that must succeed and gives its standard output."""

    def invoke(*arguments: str) -> str:
        capsys.readouterr()
        assert main(arguments) == 0
        return capsys.readouterr().out

    return invoke


@pytest.fixture
def fails(here: Path, capsys: pytest.CaptureFixture[str]) -> Invoke:
    """Runs a command that must fail with status 2 and one line; gives what follows `fasthash: error: `."""

    def invoke(*arguments: str) -> str:
        capsys.readouterr()
        assert main(arguments) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert err.count("\n") == 1
        assert err.startswith("fasthash: error: ")
        return err.removeprefix("fasthash: error: ").rstrip("\n")

    return invoke


# What the commands do


def test_codes_are_the_models(here: Path) -> None:
    hasher, features = Hasher.load("model.safetensors"), np.load("features.npy")
    np.testing.assert_array_equal(np.load("codes.npy"), hasher.encode(features))
    assert list(hasher.classes_) == sorted(LABELS)


def test_train_prints_json(works: Invoke, tmp_path: Path) -> None:
    arguments = ("train", "features.npy", "--labels", "numbers.npy", "--bits", "8", "--epochs", "2", "--json")
    validation = ("--val-features", "features.npy", "--val-labels", "numbers.npy")
    result = json.loads(works(*arguments, *validation, "--out", str(tmp_path / "m.safetensors")))
    assert result["rows"] == 120
    assert result["bits"] == 8
    assert result["classes"] == 3
    assert 0 < result["validation_score"] <= 1
    assert Hasher.load(tmp_path / "m.safetensors").bits == 8


def test_train_from_targets_and_from_features_alone(works: Invoke, tmp_path: Path) -> None:
    out = str(tmp_path / "m.safetensors")
    options = ("--bits", "8", "--epochs", "1", "--supervision", "similarity", "--kl", "0", "--preserve", "0.1")
    assert "8 bits, 120 rows, epoch 1 of 1" in works("train", "features.npy", "--out", out, *options)
    works("train", "features.npy", "--targets", "features.npy", "--out", out, *options)
    assert Hasher.load(out).kl == 0
    np.save(tmp_path / "multi.npy", np.eye(3, dtype=np.int64)[np.load("numbers.npy")])
    works("train", "features.npy", "--targets", str(tmp_path / "multi.npy"), "--out", out, *options)


def test_encode_real_outputs(works: Invoke, tmp_path: Path) -> None:
    out = tmp_path / "outputs.npy"
    result = json.loads(works("encode", "model.safetensors", "features.npy", "--real", "--json", "--out", str(out)))
    assert result["shape"] == [120, 20]
    expected = Hasher.load("model.safetensors").transform(np.load("features.npy"))
    np.testing.assert_allclose(np.load(out), expected, atol=1e-6)
    assert [path.name for path in tmp_path.iterdir()] == ["outputs.npy"]  # nothing aside is left


def test_index_build_info_verify(works: Invoke) -> None:
    info = json.loads(works("index", "info", "index", "--json"))
    assert (info["codes"], info["bits"], info["code_bytes"]) == (120, 20, 3)
    assert (info["lowest_id"], info["highest_id"]) == (0, 119)
    assert "120 codes of 20 bits" in works("index", "info", "index")
    assert json.loads(works("index", "verify", "index", "--json"))["good"] is True


def test_index_changes(works: Invoke, tmp_path: Path) -> None:
    folder, ids = str(tmp_path / "index"), str(tmp_path / "ids.npy")
    np.save(ids, np.arange(0, 1200, 10))
    assert "120 codes of 24 bits" in works("index", "build", "codes.npy", "--ids", ids, "--out", folder)
    added = json.loads(works("index", "add", folder, "codes.npy", "--json"))
    assert (added["first_id"], added["codes"]) == (1191, 240)
    assert json.loads(works("index", "remove", folder, ids, "--json"))["removed"] == 120
    np.save(tmp_path / "few.npy", np.arange(1191, 1196))
    works("index", "remove", folder, str(tmp_path / "few.npy"))
    assert len(HammingIndex.open(folder)) == 115
    compacted = json.loads(works("index", "compact", folder, "--json"))
    assert compacted["codes"] == 115
    assert compacted["disk_bytes"] < compacted["disk_bytes_before"]
    works("index", "build", "codes.npy", "--overwrite", "--out", folder)
    assert json.loads(works("index", "add", folder, "codes.npy", "--ids", ids, "--replace", "--json"))["codes"] == 228
    works("index", "build", "codes.npy", "--overwrite", "--out", folder)
    assert HammingIndex.open(folder).ids.tolist() == list(range(120))


def test_search_finds_what_the_function_finds(works: Invoke) -> None:
    codes = np.load("codes.npy")
    expected = hamming_topk(codes, codes, 3)
    for database in ("index", "codes.npy"):
        found = json.loads(works("search", database, "codes.npy", "-k", "3", "--json"))
        assert [row["ids"] for row in found] == expected.ids.tolist()
        assert [row["distances"] for row in found] == expected.distances.tolist()
    lines = works("search", "index", "codes.npy", "-k", "3").splitlines()
    assert lines[0] == "query\tid\tdistance"
    assert len(lines) == 1 + 3 * 120
    assert lines[1].split("\t") == ["0", str(expected.ids[0, 0]), "0"]


def test_search_with_a_model_and_rescoring(works: Invoke, tmp_path: Path) -> None:
    hasher, features = Hasher.load("model.safetensors"), np.load("features.npy")
    expected = HammingIndex.open("index").search(hasher.transform(features), 4, rescore=5)
    options = ("-k", "4", "--rescore", "5", "--out", str(tmp_path / "found.npz"))
    assert "120 queries" in works("search", "index", "features.npy", "--model", "model.safetensors", *options)
    with np.load(tmp_path / "found.npz") as found:
        np.testing.assert_array_equal(found["ids"], expected.ids)
        np.testing.assert_allclose(found["distances"], expected.distances, atol=1e-4)


def test_search_within_a_radius(works: Invoke) -> None:
    found = json.loads(works("search", "index", "codes.npy", "--radius", "2", "--json"))
    expected = HammingIndex.open("index").range_search(np.load("codes.npy"), 2)
    assert [id for row in found for id in row["ids"]] == expected.ids.tolist()
    assert len(found) == 120


def test_search_for_more_than_there_is(works: Invoke, tmp_path: Path) -> None:
    np.save(tmp_path / "one.npy", np.load("codes.npy")[:1])
    found = json.loads(works("search", str(tmp_path / "one.npy"), "codes.npy", "-k", "5", "--json"))
    assert [row["ids"] for row in found] == [[0]] * 120


def test_eval(works: Invoke) -> None:
    labels = ("--query-labels", "labels.txt", "--database-labels", "labels.txt")
    plain = json.loads(works("eval", "codes.npy", "codes.npy", *labels, "-k", "5", "--bits", "20", "--json"))
    assert {"mAP", "P@1", "P@5", "codes", "bit_balance"} <= set(plain)
    with_hierarchy = ("--hierarchy", "edges.txt", "--at", "50", "--json")
    graded = json.loads(works("eval", "codes.npy", "codes.npy", *labels, *with_hierarchy))
    assert graded["mAP"] == plain["mAP"]
    assert 0 < graded["mAHP@50"] <= 1
    numbers = ("--query-labels", "numbers.npy", "--database-labels", "numbers.npy")
    assert json.loads(works("eval", "codes.npy", "codes.npy", *numbers, "--json"))["mAP"] == plain["mAP"]
    text = works("eval", "features.npy", "features.npy", *labels, "--metric", "cosine")
    assert text.splitlines()[0].startswith("mAP")


def test_numbers_in_a_text_file_are_numbers(works: Invoke, tmp_path: Path) -> None:
    """Classes 0, 1, 2 in a hierarchy of numbers, and in one where other names are words."""
    (tmp_path / "labels.txt").write_text("".join(f"{number}\n" for number in np.load("numbers.npy")))
    labels = ("--query-labels", str(tmp_path / "labels.txt"), "--database-labels", "numbers.npy")
    scores = []
    for edges in ("9 8\n9 2\n8 0\n8 1\n", "thing animal\nthing 2\nanimal 0\nanimal 1\n"):
        (tmp_path / "edges.txt").write_text(edges)
        hierarchy = ("--hierarchy", str(tmp_path / "edges.txt"), "--at", "50")
        scores.append(json.loads(works("eval", "codes.npy", "codes.npy", *labels, *hierarchy, "--json"))["mAHP@50"])
    assert scores[0] == scores[1]


def test_info(works: Invoke) -> None:
    result = json.loads(works("info", "--json"))
    assert result["version"] == fasthash.__version__
    assert result["isa"] in result["isa_found"]
    assert {"compiler", "cuda_architectures", "threads", "torch", "numpy", "python", "gpus"} <= set(result)
    told = works("info")
    assert f"fasthash       {fasthash.__version__}" in told
    assert bool(result["cuda_architectures"]) is ("none (FASTHASH_CUDA=ON builds them)" not in told)


def test_bench(works: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    from fasthash.cli import machine

    monkeypatch.setattr(machine, "_ROWS", 10_000)
    monkeypatch.setattr(machine, "_BATCH", 256)
    monkeypatch.setattr(machine, "_SECONDS", 0.01)
    result = json.loads(works("bench", "--json"))
    assert result["hamming_topk, 1 query"]["pairs/s"] > 0
    assert result["kl_loss"]["ms"] > 0
    assert "agreed with its plain-torch definition" in works("bench")


# Help


@pytest.mark.parametrize(
    "command",
    [
        *(["demo"], ["train"], ["encode"], ["export"], ["search"], ["duplicates"], ["eval"], ["bench"], ["info"]),
        ["report"],
        *(["index", action] for action in ("build", "add", "remove", "mih", "compact", "export", "info", "verify")),
    ],
    ids=" ".join,
)
def test_help_has_an_example(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as done:
        main([*command, "--help"])
    assert done.value.code == 0
    text = capsys.readouterr().out
    assert f"example:\n  fasthash {' '.join(command)}" in text
    assert "--json" in text
    assert max(map(len, text.splitlines())) <= 110


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    text = capsys.readouterr().out
    learn, find = ("demo", "train", "encode", "export", "recipe"), ("index", "search", "duplicates", "eval", "report")
    for command in (*learn, *find, "bench", "info"):
        assert f"\n    {command} " in text


# Input that cannot be used


def save(path: Path, array: Any) -> str:
    np.save(path, array)
    return str(path)


def test_unknown_commands_and_options(fails: Invoke) -> None:
    assert fails().startswith("the following arguments are required: COMMAND")
    assert fails("fly").startswith("argument COMMAND: invalid choice: 'fly'")
    assert fails("train", "features.npy") == (
        "train: the following arguments are required: --out or --run-dir (see fasthash train --help)"
    )
    assert fails("index", "build", "codes.npy", "--out", "i", "--bits", "x").startswith(
        "index build: argument --bits: invalid int value: 'x'"
    )


def test_missing_files(fails: Invoke) -> None:
    assert fails("encode", "model.safetensors", "no.npy", "--out", "o.npy") == "no.npy: no such file"
    assert fails("encode", "no.safetensors", "features.npy", "--out", "o.npy") == "no.safetensors: no such file"
    assert fails("search", "nowhere", "codes.npy").endswith("nowhere: no such folder")
    assert fails("train", "features.npy", "--labels", "no.txt", "--out", "m") == "no.txt: no such file"
    arguments = ("train", "features.npy", "--labels", "labels.txt", "--out", "m")
    assert fails(*arguments, "--hierarchy", "no.txt") == "no.txt: no such file"


def test_wrong_types_and_shapes(fails: Invoke, tmp_path: Path) -> None:
    for array, message in (
        (np.zeros((3, 8), np.int64), "features must be floating point, got int64"),
        (np.zeros(8, np.float32), "features must be [rows, columns], neither of them 0, got shape (8,)"),
        (np.zeros((0, 8), np.float32), "features must be [rows, columns], neither of them 0, got shape (0, 8)"),
        (np.zeros((3, 9), np.float32), "the model takes 8 columns, got 9"),
    ):
        path = save(tmp_path / "x.npy", array)
        assert fails("encode", "model.safetensors", path, "--out", "o.npy") == f"{path}: {message}"
    for array, message in (
        (
            np.zeros((3, 3), np.int8),
            "codes must be packed uint8 [N, bytes of a code], 64-bit integers [N] or booleans [N, bits], got int8 of "
            "shape (3, 3); fasthash.codes.from_signed reads packed bits minus 128",
        ),
        (
            np.zeros((3, 20), np.uint8),
            "codes of 20 bits have 3 bytes, got 20 bytes in each row; pack bits (numpy.packbits)",
        ),
        (np.zeros(3, np.uint8), "codes must be [N, bytes of a code], got shape (3,)"),
        (np.zeros((3, 4), np.uint8), "codes of 20 bits have 3 bytes, got 4 bytes in each row"),
    ):
        path = save(tmp_path / "x.npy", array)
        assert fails("index", "build", path, "--bits", "20", "--out", "i") == f"{path}: {message}"
    for array, message in (
        (np.zeros((3, 4), np.uint8), "codes of 20 bits have 3 bytes, got 4 bytes in each row"),
        (
            np.zeros((3, 8), np.float32),
            "outputs for 20 bits must have 20 columns (embeddings need --model), got shape (3, 8)",
        ),
        (
            np.zeros((3, 3), np.int64),
            "codes of type int64 must be [N], one number for each code, got shape (3, 3); packed codes are "
            "uint8 [N, bytes of a code]: convert bytes with array.astype, pack bits with numpy.packbits",
        ),
    ):
        path = save(tmp_path / "x.npy", array)
        assert fails("search", "index", path) == f"{path}: {message}"
    assert not Path("i").exists()


def test_nan_features(fails: Invoke, tmp_path: Path) -> None:
    features = np.load("features.npy")
    features[77, 3] = np.nan
    path = save(tmp_path / "nan.npy", features)
    message = f"{path}: must be finite, got NaN or infinity in row 77"
    assert fails("encode", "model.safetensors", path, "--out", "o.npy") == message
    assert fails("train", path, "--labels", "labels.txt", "--out", "m") == message
    assert fails("train", "features.npy", "--targets", path, "--out", "m") == message
    assert fails("search", "index", path, "--model", "model.safetensors") == message


def test_queries_out_of_range(fails: Invoke, tmp_path: Path) -> None:
    path = save(tmp_path / "q.npy", np.full((2, 20), 1.5, np.float32))
    assert "must be in [0, 1], got 1.5" in fails("search", "index", path)
    assert fails("search", "index", "codes.npy", "-k", "0") == "search: -k must be at least 1, got 0"
    assert "rescore needs real-valued queries" in fails("search", "index", "codes.npy", "--rescore", "2")
    assert "cannot be used with --rescore" in fails("search", "index", "codes.npy", "--rescore", "2", "--radius", "1")


def test_labels(fails: Invoke, tmp_path: Path) -> None:
    path = str(tmp_path / "labels.txt")
    train = ("train", "features.npy", "--labels", path, "--hierarchy", "edges.txt", "--out", "m")
    lines = Path("labels.txt").read_text().splitlines(keepends=True)
    Path(path).write_text("".join(lines[:-1]) + "bird\n")
    assert fails(*train) == f"{path}: label 'bird' (row 119) is not in the hierarchy"
    Path(path).write_text("".join(lines[:-1]))
    assert fails(*train) == f"{path}: features.npy has 120 rows and needs 120 labels, got 119"
    Path(path).write_text("".join(lines[:5]) + "\n" + "".join(lines[5:-1]))
    assert fails(*train) == f"{path}: line 6 is empty, must have a value; only the end may be empty"
    Path(path).write_bytes(b"\xff\xfe\x00")
    assert "bytes that are not UTF-8 text; save it as UTF-8, or as UTF-16 with a byte order mark" in fails(*train)
    floats = save(tmp_path / "floats.npy", np.zeros(120))
    message = fails("train", "features.npy", "--labels", floats, "--out", "m")
    assert message == f"{floats}: labels must be integers or text [N], got float64 of shape (120,)"
    assert (
        fails("train", "features.npy", "--hierarchy", "edges.txt", "--out", "m") == "train: --hierarchy needs --labels"
    )


def test_hierarchies(fails: Invoke, tmp_path: Path) -> None:
    path = str(tmp_path / "edges.txt")
    train = ("train", "features.npy", "--labels", "labels.txt", "--hierarchy", path, "--out", "m")
    Path(path).write_text("a b c\n")
    assert "line 1 must be two names" in fails(*train)
    Path(path).write_text("a b\nb a\n")
    assert fails(*train) == f"{path}: Hierarchy: the edges have a cycle: 'a' -> 'b' -> 'a'"
    Path(path).rename(tmp_path / "edges.json")
    Path(path).with_suffix(".json").write_text('{"edges": 5, "alone": []}')
    message = fails(*train[:5], str(tmp_path / "edges.json"), "--out", "m")
    assert message.endswith("edges.json: Hierarchy.from_dict: edges must be a list of pairs and alone a list of names")


def test_settings_out_of_range(fails: Invoke) -> None:
    train = ("train", "features.npy", "--labels", "labels.txt", "--out", "m")
    assert fails(*train, "--bits", "0") == "Hasher.fit: bits must be between 1 and 4096, got 0"
    assert "kl must be >= 0 and finite" in fails(*train, "--kl", "-1")
    assert "seed" in fails(*train, "--seed", "-1")
    for device in ("toaster", "meta"):
        assert "must be a torch device" in fails(*train, "--device", device)
    message = fails(*train, "--val-features", "features.npy")
    assert message == "train: --val-features and --val-labels must be given together"
    assert not Path("m").exists()


def test_validation_of_another_width(fails: Invoke, tmp_path: Path) -> None:
    path = save(tmp_path / "wide.npy", np.zeros((120, 9), np.float32))
    arguments = ("--labels", "labels.txt", "--val-features", path, "--val-labels", "labels.txt", "--out", "m")
    assert fails("train", "features.npy", *arguments) == f"{path}: must have 8 columns like features.npy, got 9"


def test_damaged_models(fails: Invoke, tmp_path: Path) -> None:
    whole = Path("model.safetensors").read_bytes()
    path = tmp_path / "model.safetensors"
    for content in (b"", whole[:4], whole[: len(whole) // 2], whole[:-1], b"\x00" * 64):
        path.write_bytes(content)
        message = fails("encode", str(path), "features.npy", "--out", "o.npy")
        assert f"{path} is damaged or not a fasthash model" in message
    assert not Path("o.npy").exists()


def test_damaged_indexes(fails: Invoke, tmp_path: Path) -> None:
    for number, cut in enumerate(("manifest.json", "segment")):
        folder = tmp_path / str(number)
        shutil.copytree("index", folder)
        (file,) = (file for file in folder.iterdir() if file.name.startswith(cut))
        file.write_bytes(file.read_bytes()[:-7])
        assert str(folder) in fails("search", str(folder), "codes.npy")
        assert str(folder) in fails("index", "verify", str(folder))
    altered = tmp_path / "altered"
    shutil.copytree("index", altered)
    (file,) = (file for file in altered.iterdir() if file.name.startswith("segment"))
    file.write_bytes(file.read_bytes()[:-2] + b"\x55\x55")
    assert file.name in fails("index", "verify", str(altered))


def test_index_export_and_build_from_it(works: Invoke, fails: Invoke, tmp_path: Path) -> None:
    codes = np.load("codes.npy")
    for name in ("codes.npy", "codes.u8bin", "codes.faiss"):
        done = json.loads(works("index", "export", "index", "--out", f"{tmp_path}/{name}", "--json"))
        assert done["codes"] == 120
        assert done["bytes"] == (tmp_path / name).stat().st_size
        assert "120 codes" in works("index", "build", f"{tmp_path}/{name}", "--out", f"{tmp_path}/from-{name}")
        np.testing.assert_array_equal(HammingIndex.open(tmp_path / f"from-{name}").get(np.arange(120)), codes)
    ids = f"{tmp_path}/ids.npy"
    assert "120 codes" in works("index", "export", "index", "--out", f"{tmp_path}/codes.npy", "--ids", ids)
    assert np.load(ids).tolist() == list(range(120))
    (tmp_path / "codes.raw").write_bytes(codes.tobytes())
    raw = ("index", "build", f"{tmp_path}/codes.raw", "--out", f"{tmp_path}/raw")
    for options in ((), ("--bits", "20")):
        assert "has an unknown format" in fails(*raw, *options)
    assert fails(*raw, "--format", "raw") == f"{tmp_path}/codes.raw: --format 'raw' needs --bits"
    assert "120 codes of 20 bits" in works(*raw, "--format", "raw", "--bits", "20", "--ids", ids)
    assert "absent.u8bin: No such file" in fails("index", "build", "absent.u8bin", "--out", "i")
    assert "the suffix must be one of .npy" in fails("index", "export", "index", "--out", f"{tmp_path}/codes.csv")
    assert "there is no folder" in fails("index", "export", "index", "--out", f"{tmp_path}/nowhere/codes.npy")


def test_index_mistakes(fails: Invoke, tmp_path: Path) -> None:
    assert "index" in fails("index", "build", "codes.npy", "--out", "index")  # it is there already
    ids = save(tmp_path / "ids.npy", np.arange(7))
    build = ("index", "build", "codes.npy", "--out", str(tmp_path / "i"), "--ids")
    assert fails(*build, ids) == f"{ids}: 120 codes need 120 ids, got 7"
    same = save(tmp_path / "same.npy", np.zeros(120, np.int64))
    assert "ids must be distinct" in fails(*build, same)
    floats = save(tmp_path / "floats.npy", np.zeros(120))
    assert fails(*build, floats) == f"{floats}: ids must be integers [N], got float64 of shape (120,)"
    other = save(tmp_path / "other.npy", np.zeros((2, 9), np.uint8))
    assert fails("index", "add", "index", other) == f"{other}: codes of 20 bits have 3 bytes, got 9 bytes in each row"
    assert "index_of_nothing: no such folder" in fails("index", "info", "index_of_nothing")


def test_model_and_index_of_different_bits(fails: Invoke, tmp_path: Path) -> None:
    folder = tmp_path / "wide"
    HammingIndex(64).save(folder)
    message = fails("search", str(folder), "features.npy", "--model", "model.safetensors")
    assert message == "model.safetensors: makes codes of 20 bits, the index has 64"


def test_eval_mistakes(fails: Invoke, tmp_path: Path) -> None:
    labels = ("--query-labels", "labels.txt", "--database-labels", "labels.txt")
    message = fails("eval", "codes.npy", "features.npy", *labels)
    assert message == "codes.npy and features.npy: must both be codes or embeddings, got uint8 and float32"
    wide = save(tmp_path / "wide.npy", np.zeros((120, 9), np.uint8))
    message = fails("eval", "codes.npy", wide, *labels)
    assert message == f"codes.npy and {wide}: must have the same number of columns, got 3 and 9"
    assert "k must be between 1 and 120, got 500" in fails("eval", "codes.npy", "codes.npy", *labels, "-k", "500")
    graded = ("--hierarchy", "edges.txt", "--at", "250")
    assert "at must be between 1 and 120, got 250" in fails("eval", "codes.npy", "codes.npy", *labels, *graded)
    message = fails("eval", "codes.npy", "codes.npy", "--query-labels", "numbers.npy", *labels[2:])
    assert message == "numbers.npy: no label occurs in labels.txt, got '0' and 'cat' for example"


def test_outputs_that_cannot_be_written(fails: Invoke, tmp_path: Path) -> None:
    for command in (("train", "features.npy"), ("encode", "model.safetensors", "features.npy")):
        message = fails(*command, "--out", "nowhere/out")
        assert message == "nowhere/out: cannot be written, there is no folder nowhere"
        assert fails(*command, "--out", "index") == "index: a folder, must be the name of a file"
    assert fails("search", "index", "codes.npy", "--out", "nowhere/found.npz").startswith("nowhere/found.npz: cannot")
    os.mkfifo(tmp_path / "pipe")  # what is no file, /dev/null for one, is not replaced by one
    message = fails("encode", "model.safetensors", "features.npy", "--out", str(tmp_path / "pipe"))
    assert message == f"{tmp_path}/pipe: cannot be written, it exists and is not a regular file"
    assert (tmp_path / "pipe").is_fifo()
    assert "must not be empty" in fails("encode", "model.safetensors", "features.npy", "--out", "")


@pytest.mark.skipif(os.name == "nt" or (hasattr(os, "geteuid") and os.geteuid() == 0), reason="root may write anywhere")
def test_read_only_folders(fails: Invoke, tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        message = fails("encode", "model.safetensors", "features.npy", "--out", str(tmp_path / "o.npy"))
    finally:
        tmp_path.chmod(0o700)
    assert message == f"{tmp_path}/o.npy: cannot be written, the folder {tmp_path} is read-only"


def test_an_old_output_survives_a_failure(works: Invoke, fails: Invoke, tmp_path: Path, monkeypatch: Any) -> None:
    out = tmp_path / "codes.npy"
    works("encode", "model.safetensors", "features.npy", "--out", str(out))
    before = out.read_bytes()

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device", str(out))

    monkeypatch.setattr(Hasher, "encode", full)
    assert fails("encode", "model.safetensors", "features.npy", "--out", str(out)) == f"{out}: No space left on device"
    assert out.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["codes.npy"]


# How it ends


def test_interrupted(here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Hasher, "fit", interrupt)
    assert main(["train", "features.npy", "--out", "m"]) == 130
    told = "nothing was saved; with --run-dir FOLDER the same command continues after the last complete epoch"
    assert capsys.readouterr() == ("", f"fasthash: interrupted: {told}\n")
    assert main(["train", "features.npy", "--run-dir", "runs/x"]) == 130
    told = "run the same command again: it continues after the last complete epoch in runs/x"
    assert capsys.readouterr() == ("", f"fasthash: interrupted: {told}\n")


def test_out_of_memory(fails: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    def too_much(*_: Any) -> None:
        raise MemoryError("Unable to allocate 9 TiB")

    monkeypatch.setattr(Hasher, "fit", too_much)
    assert fails("train", "features.npy", "--out", "m") == "not enough memory: Unable to allocate 9 TiB"


def test_a_mistake_of_the_package_is_not_hidden(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def mistake(*_: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(Hasher, "fit", mistake)
    with pytest.raises(ZeroDivisionError):
        main(["train", "features.npy", "--out", "m"])


def test_json_has_no_nan(capsys: pytest.CaptureFixture[str]) -> None:
    from fasthash.cli.files import print_json

    print_json({"a": float("nan"), "b": [float("inf"), 1.0]})
    assert json.load(io.StringIO(capsys.readouterr().out)) == {"a": None, "b": [None, 1.0]}


def command_line(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "fasthash", *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        timeout=120,
        check=False,
    )


def test_as_a_process(here: Path) -> None:
    done = command_line("search", "index", "codes.npy", "-k", "1", "--json")
    assert done.returncode == 0
    assert done.stderr == ""
    assert len(json.loads(done.stdout)) == 120
    done = command_line("search", "index", "no.npy")
    assert (done.returncode, done.stdout, done.stderr) == (2, "", "fasthash: error: no.npy: no such file\n")


def test_reader_that_stops_early(here: Path) -> None:
    """As `fasthash search ... | head -1`: no complaint about the closed pipe."""
    command = [sys.executable, "-m", "fasthash", "search", "index", "codes.npy", "-k", "120"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.readline() == "query\tid\tdistance\n"
    process.stdout.close()
    assert process.wait(timeout=120) == 0
    assert process.stderr.read() == ""
    process.stderr.close()


def test_unknown_instruction_set(here: Path) -> None:
    done = command_line("info", FASTHASH_ISA="abacus")
    assert done.returncode == 2
    assert done.stderr.startswith("fasthash: error: ")
    assert done.stderr.count("\n") == 1
    assert "abacus" in done.stderr
