"""fasthash.recipes: a tiny part of each recipe, from data as users download it to the table; and its messages."""

from __future__ import annotations

import io
import json
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torch import nn

from fasthash import Hierarchy
from fasthash.cli import main
from fasthash.recipes import conceptual_captions, markdown_table, run_recipe, text_table
from fasthash.recipes.cifar100_synsets import SYNSETS
from fasthash.recipes.experiment import first_of_each, of_classes
from fasthash.recipes.painted import painted
from fasthash.recipes.pictures import ArrayPictures

SUBJECTS = ("dog", "cat", "car", "tree")


@pytest.fixture
def nouns(tmp_path: Path) -> Path:
    """A noun file with the synsets of CIFAR-100: a root, groups of three, and the classes."""
    lines = ["wnid\thypernyms\tinstance_hypernyms", "n00000001\t\t"]
    lines += [f"n000001{group:02}\tn00000001\t" for group in range(34)]
    lines += [f"{wnid}\tn000001{number // 3:02}\t" for number, wnid in enumerate(SYNSETS.values())]
    path = tmp_path / "nouns.tsv"
    path.write_text("\n".join(lines) + "\n")
    return path


def cifar_part(each: int, seed: int) -> dict[bytes, object]:
    """A file of the Python version: `each` pictures of each class, coloured by class."""
    rng = np.random.default_rng(seed)
    fine = np.repeat(np.arange(100), each)
    data = (rng.normal(0, 20, (len(fine), 3072)) + 2 * fine[:, None]).clip(0, 255).astype(np.uint8)
    return {b"data": data, b"fine_labels": fine.tolist(), b"coarse_labels": (fine % 20).tolist()}


@pytest.fixture
def cifar(tmp_path: Path) -> Path:
    folder = tmp_path / "cifar-100-python"
    folder.mkdir()
    for name, each, seed in (("train", 2, 0), ("test", 1, 1)):
        (folder / name).write_bytes(pickle.dumps(cifar_part(each, seed), protocol=2))
    return folder


def synset_folder(folder: Path, classes: int = 6, each: int = 4, *, flat: bool = False) -> Path:
    """train/WNID/*.JPEG and val/ like it, or flat with its table."""
    wnids = list(SYNSETS.values())[:classes]
    rng = np.random.default_rng(0)
    lines = ["ImageId,PredictionString"]
    for part in ("train", "val"):
        for number, wnid in enumerate(wnids):
            place = folder / part if flat and part == "val" else folder / part / wnid
            place.mkdir(parents=True, exist_ok=True)
            for copy in range(each):
                values = rng.normal(30 * number, 10, (40, 50, 3)).clip(0, 255).astype(np.uint8)
                Image.fromarray(values).save(place / f"{part}_{number}_{copy}.JPEG")
                lines.append(f"{part}_{number}_{copy},{wnid} 1 2 3 4")
    if flat:
        (folder / "LOC_val_solution.csv").write_text("\n".join(lines) + "\n")
    return folder


def test_cifar100_from_the_archive_and_again(tmp_path: Path, nouns: Path, cifar: Path) -> None:
    packed = tmp_path / "cifar-100-python.tar.gz"
    with tarfile.open(packed, "w:gz") as archive:
        archive.add(cifar, "cifar-100-python")
        archive.addfile(tarfile.TarInfo("../evil"), io.BytesIO())
    out = tmp_path / "run"
    settings = {"small": True, "epochs": 1, "bits": 16, "wordnet": nouns, "progress": False}
    results = run_recipe("cifar100", packed, out, **settings)
    assert not (tmp_path / "evil").exists()
    assert [table["queries"] for table in results["tables"]] == [20, 20, 80]
    assert [table["database"] for table in results["tables"]] == [40, 200, 200]
    assert results["trained_on"] == 160
    for table in results["tables"]:
        assert len(table["rows"]) == 7  # chance, then floats and codes of three settings
        for row in table["rows"]:
            assert all(0 <= value <= 1 for name, value in row.items() if name.startswith("mA"))
    assert json.loads((out / "results.json").read_text())["tables"] == results["tables"]
    assert "compare with nothing published" in text_table(results)
    assert (out / "table.md").read_text() == markdown_table(results) + "\n"
    page = (out / "similarity-kl" / "report.html").read_text(encoding="utf-8")
    codes = results["tables"][0]["rows"][4]
    assert (codes["method"], codes["learned_from"]) == ("16 bits", "similarity + KL")
    assert f"{codes['mAP']:.4f}" in page

    again = run_recipe("cifar100", cifar, out, **settings)  # the same pictures: nothing is trained again
    assert again["tables"] == results["tables"]
    with pytest.raises(ValueError, match="run_dir"):
        run_recipe("cifar100", cifar, out, **{**settings, "bits": 8})


def test_the_binary_version_is_the_same(tmp_path: Path, nouns: Path, cifar: Path) -> None:
    folder = tmp_path / "cifar-100-binary"
    folder.mkdir()
    for name, each, seed in (("train", 2, 0), ("test", 1, 1)):
        part = cifar_part(each, seed)
        labels = np.stack([part[b"coarse_labels"], part[b"fine_labels"]], 1).astype(np.uint8)
        np.concatenate([labels, part[b"data"]], 1).tofile(folder / f"{name}.bin")
    settings = {"small": True, "epochs": 1, "bits": 8, "wordnet": nouns, "progress": False}
    first = run_recipe("cifar100", tmp_path, tmp_path / "a", **settings)  # the folder that holds them: the Python one
    second = run_recipe("cifar100", folder, tmp_path / "b", **settings)
    assert first["tables"] == second["tables"]


def test_imagenet_by_command_with_a_broken_picture(
    tmp_path: Path, nouns: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = synset_folder(tmp_path / "imagenet", flat=True)
    wnid = next(iter(SYNSETS.values()))
    broken = data / "train" / wnid / "train_0_0.JPEG"
    broken.write_bytes(broken.read_bytes()[:200])
    command = ["recipe", "imagenet", "--data", str(data), "--wordnet", str(nouns), "--out", str(tmp_path / "run")]
    assert main([*command, "--small", "--epochs", "1", "--bits", "8"]) == 0
    shown = capsys.readouterr()
    assert "Zero-shot: queries and database of unseen classes (4 queries, " in shown.out
    assert f"skipped train/{wnid}/train_0_0.JPEG: " in shown.err
    assert main([*command, "--small", "--epochs", "1", "--bits", "8", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["skipped"][0].startswith(f"train/{wnid}/train_0_0.JPEG: ")


def test_imagenet_in_folders_of_synsets(tmp_path: Path, nouns: Path) -> None:
    data = synset_folder(tmp_path / "imagenet")
    settings = {"small": True, "epochs": 1, "bits": 8, "wordnet": nouns, "progress": False}
    assert run_recipe("imagenet", data, tmp_path / "run", **settings)["trained_on"] == 20
    (data / "val" / "loose.JPEG").touch()
    (data / "LOC_val_solution.csv").write_text("ImageId,PredictionString\n")
    with pytest.raises(ValueError, match=r"loose\.JPEG must be in a folder of its synset"):
        run_recipe("imagenet", data, tmp_path / "other", **settings)


@pytest.fixture
def captions(tmp_path: Path) -> Path:
    folder = tmp_path / "captions"
    folder.mkdir()
    verbs = ("runs", "sleeps", "waits")
    lines = [
        f"a {SUBJECTS[n % 4]} {verbs[n % 3]} near the {SUBJECTS[n // 4 % 4]}\thttp://127.0.0.1/{n}.jpg"
        for n in range(60)
    ]
    (folder / "Validation.tsv").write_text("\n".join(lines) + "\n")
    return folder


def test_captions_with_generated_pictures(tmp_path: Path, captions: Path) -> None:
    pytest.importorskip("sklearn")
    results = run_recipe(
        "conceptual-captions", captions, tmp_path / "run", small=True, epochs=1, bits=8, progress=False
    )
    assert "GENERATED" in text_table(results)
    assert [len(table["rows"]) for table in results["tables"]] == [5, 5]  # no classes: two settings
    assert all(row["mAP"] is None for table in results["tables"] for row in table["rows"])


def test_captions_with_pictures_by_row_or_table(tmp_path: Path, captions: Path) -> None:
    rng = np.random.default_rng(0)
    (captions / "pictures").mkdir()
    for row in range(0, 60, 2):
        Image.fromarray(rng.integers(0, 255, (20, 20, 3), dtype=np.uint8)).save(captions / f"pictures/{row:06}.png")
    np.save(captions / "captions.npy", rng.normal(size=(60, 5)).astype(np.float32))
    body = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten())
    settings = {"epochs": 1, "bits": 8, "backbone": body, "progress": False}
    results = run_recipe("conceptual-captions", captions, tmp_path / "a", **settings)
    assert results["trained_on"] == 24
    read = {"generated": False, "embeddings": None, "validation": False}
    found = conceptual_captions.read(captions, tmp_path, conceptual_captions.FULL, **read)
    E = np.load(captions / "captions.npy")[::2][found.train]  # the rows that have a picture
    np.testing.assert_allclose(found.y, E / np.linalg.norm(E, axis=1, keepdims=True), rtol=1e-5)
    lines = [f"pictures/{row:06}.png,a picture" for row in range(0, 60, 2)]
    (captions / "pictures.csv").write_text("path,caption\n" + "\n".join(lines) + "\n")
    assert run_recipe("conceptual-captions", captions, tmp_path / "b", **settings)["trained_on"] == 24


def test_messages(tmp_path: Path, nouns: Path, cifar: Path, captions: Path) -> None:
    out = tmp_path / "run"
    with pytest.raises(ValueError, match="recipe: name must be"):
        run_recipe("mnist", cifar, out)
    with pytest.raises(FileNotFoundError, match="no such file or folder"):
        run_recipe("cifar100", tmp_path / "nothing", out)
    with pytest.raises(FileNotFoundError, match=r"needs WordNet 3\.0's data\.noun"):
        run_recipe("cifar100", cifar, out, wordnet=tmp_path / "nothing")
    with pytest.raises(FileNotFoundError, match="--small runs on generated pictures"):
        run_recipe("conceptual-captions", captions, out)
    (captions / "pictures").mkdir()
    Image.new("RGB", (9, 9)).save(captions / "pictures/000060.png")
    with pytest.raises(ValueError, match="must be named by a row of the captions, 0 to 59"):
        run_recipe("conceptual-captions", captions, out)
    (captions / "pictures/000060.png").rename(captions / "pictures/000059.png")
    with pytest.raises(ValueError, match="needs embeddings of the captions"):
        run_recipe("conceptual-captions", captions, out)
    np.save(tmp_path / "few.npy", np.zeros((0, 3), np.float32))
    with pytest.raises(ValueError, match=r"few\.npy must hold a row for each of 60 captions"):
        run_recipe("conceptual-captions", captions, out, embeddings=tmp_path / "few.npy")
    bad = tmp_path / "bad.tar.gz"
    bad.write_bytes(b"?")
    with pytest.raises(ValueError, match=r"must be CIFAR-100's \.tar\.gz"):
        run_recipe("cifar100", bad, out, wordnet=nouns)
    empty = tmp_path / "empty"
    synset_folder(empty, classes=5, each=1)
    with pytest.raises(ValueError, match="at least 2, got 1"):
        run_recipe("imagenet", empty, out, small=True, wordnet=nouns)


def test_validation_sees_no_test_picture_and_no_unseen_class_of_the_test() -> None:
    names = [f"c{n}" for n in range(20)]
    hierarchy = Hierarchy.from_edges(
        [("root", f"g{n % 4}") for n in range(4)] + [(f"g{n % 4}", f"c{n}") for n in range(20)]
    )
    labels = np.tile(np.arange(20), 15)
    queried = np.arange(300) >= 200
    pictures = ArrayPictures(np.zeros((300, 8, 8, 3), np.uint8))
    test, chosen = (
        of_classes(pictures, labels, queried, names, hierarchy, validation=validation, about=[])
        for validation in (False, True)
    )
    unseen = set(labels[test.protocols[0].queries])
    assert len(unseen) == 4
    assert not unseen & set(labels[test.train])
    for protocol in chosen.protocols:
        rows = np.concatenate([protocol.queries, protocol.database])
        assert not queried[rows].any()
        assert not unseen & set(labels[rows])
        assert not set(protocol.queries) & set(protocol.database)
    assert not set(labels[chosen.protocols[0].queries]) & set(labels[chosen.train])
    assert not set(chosen.protocols[2].queries) & set(chosen.train)
    assert set(labels[test.protocols[2].queries]) == set(labels[test.train])


def test_first_of_each() -> None:
    assert first_of_each(np.array([3, 1, 3, 3, 1]), 2).tolist() == [True, True, True, False, True]


def test_painted_pictures_keep_order_and_repeat() -> None:
    rng = np.random.default_rng(0)
    E = rng.normal(size=(30, 16)).astype(np.float32)
    E[1] = E[0] + 0.01
    E /= np.linalg.norm(E, axis=1, keepdims=True)
    images = painted(E, 32)
    assert images.shape == (30, 32, 32, 3)
    assert np.array_equal(images, painted(E, 32))
    difference = np.abs(images[0].astype(int) - images[1:]).mean((1, 2, 3))
    assert difference.argmin() == 0


def test_the_synsets_are_nouns_of_wordnet(shared_data: Path) -> None:
    hierarchy = Hierarchy.from_wordnet(shared_data / "wordnet30" / "wn30_nouns.tsv.gz")
    assert len(set(SYNSETS.values())) == len(SYNSETS) == 100
    assert all(wnid in hierarchy for wnid in SYNSETS.values())
    assert hierarchy.distance(SYNSETS["lion"], SYNSETS["tiger"]) < hierarchy.distance(SYNSETS["lion"], SYNSETS["rose"])


def test_the_fragment(shared_data: Path, tmp_path: Path) -> None:
    nouns = shared_data / "wordnet30" / "wn30_nouns.tsv.gz"
    data = shared_data / "cifar100_fragment"
    results = run_recipe("cifar100", data, tmp_path, small=True, epochs=1, wordnet=nouns, progress=False)
    assert [table["queries"] for table in results["tables"]] == [37, 37, 111]
