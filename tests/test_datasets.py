"""The data inside the package: what it holds, that it is as good as its source; and the loaders of public sets."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import pickle
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fasthash
from fasthash.datasets import (
    cifar10,
    cifar100,
    clinc150,
    clinc150_hierarchy,
    clinc150_names,
    coco_captions,
    conceptual_captions,
    image_archive,
    image_folder,
    movielens,
    pubmedqa,
    svmlight_bags,
    uci_bags,
)
from fasthash.metrics import precision_at

FOLDER = Path(fasthash.__file__).parent / "data" / "clinc150"


@pytest.mark.parametrize(("split", "rows"), [("train", 15_000), ("val", 3_000), ("test", 4_500)])
def test_split(split: str, rows: int) -> None:
    data = clinc150(split)
    assert len(data.texts) == rows
    assert data.embeddings.shape == (rows, 384)
    assert data.embeddings.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(data.embeddings, axis=1), 1, atol=1e-5)
    assert np.bincount(data.intents).tolist() == [rows // 150] * 150
    assert np.bincount(data.domains).tolist() == [rows // 10] * 10
    assert all(text == text.strip() and text for text in data.texts)


def test_unknown_split() -> None:
    with pytest.raises(ValueError, match='clinc150: split must be "train", "val" or "test", got \'dev\''):
        clinc150("dev")


def test_hierarchy_and_names() -> None:
    names, hierarchy = clinc150_names(), clinc150_hierarchy()
    assert sorted(hierarchy.leaves) == list(range(150))
    assert len(names.intents) == 150
    assert len(names.domains) == 10
    distances = hierarchy.distance_matrix(range(150))
    same_domain = names.domain_of[:, None] == names.domain_of
    np.testing.assert_array_equal(distances, np.where(same_domain, 0.5, 1.0) - 0.5 * np.eye(150))


def test_a_caller_cannot_change_the_data() -> None:
    clinc150("val").embeddings[:] = 0
    clinc150("val").texts.clear()
    assert len(clinc150("val").texts) == 3_000
    assert clinc150("val").embeddings.any()


def test_quantised_embeddings_retrieve_as_the_original_ones() -> None:
    """The original embeddings have P@1 0.880 and P@10 0.843 (test against train, same intent)."""
    query, database = clinc150("test"), clinc150("train")
    items = query.embeddings, database.embeddings, query.intents, database.intents
    assert precision_at(*items, 1, metric="cosine") == pytest.approx(0.880, abs=1e-3)
    assert precision_at(*items, 10, metric="cosine") == pytest.approx(0.843, abs=1e-3)


def test_same_as_the_source(shared_data: Path) -> None:
    with open(shared_data / "clinc150" / "data.tsv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    with np.load(shared_data / "clinc150" / "minilm_l6_v2_f16.npz") as archive:
        embeddings = archive["embedding"].astype(np.float32)
    for split in ("train", "val", "test"):
        chosen = [number for number, row in enumerate(rows) if row["split"] == split]
        data = clinc150(split)
        assert data.texts == [rows[number]["text"] for number in chosen]
        assert data.intents.tolist() == [int(rows[number]["intent"]) for number in chosen]
        assert data.domains.tolist() == [int(rows[number]["domain"]) for number in chosen]
        assert (data.embeddings * embeddings[chosen]).sum(axis=1).min() > 0.9995


def test_small_without_pickles_and_with_notices() -> None:
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 10e6
    with np.load(FOLDER / "embeddings.npz", allow_pickle=False) as archive:
        assert {name: archive[name].dtype.name for name in archive.files} == {"steps": "int8", "intents": "uint8"}
    assert "Attribution 3.0 Unported" in (FOLDER / "LICENSE.txt").read_text(encoding="utf-8")
    notice = (FOLDER / "NOTICE.txt").read_text(encoding="utf-8")
    for word in ("CC BY 3.0", "Larson", "all-MiniLM-L6-v2", "Apache License 2.0", "Changes"):
        assert word in notice


# Public data sets as they are distributed, in small copies


def small_cifar(folder: Path, labels: list[str], names: dict[str, list[str]], kind: str) -> dict[str, tuple[Any, Any]]:
    """Writes a few images into files of the format; gives images [N, 32, 32, 3] and labels [N, L] by split."""
    rng = np.random.default_rng(0)
    written = {}
    for split, files in names.items():
        images = rng.integers(0, 256, size=(len(files), 4, 3072), dtype=np.uint8)
        classes = rng.integers(0, 10, size=(len(files), 4, len(labels)))
        for name, pixels, rows in zip(files, images, classes, strict=True):
            if kind == "binary":
                (folder / f"{name}.bin").write_bytes(np.hstack([rows.astype(np.uint8), pixels]).tobytes())
                continue
            content: dict[Any, Any] = {b"data": pixels, b"batch_label": b"of 5"}
            content |= {label.encode(): rows[:, column].tolist() for column, label in enumerate(labels)}
            (folder / name).write_bytes(pickle.dumps(content, protocol=2))
        written[split] = images.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), classes.reshape(-1, len(labels))
    return written


CIFAR10 = {"train": [f"data_batch_{number}" for number in range(1, 6)], "test": ["test_batch"]}
CIFAR100 = {"train": ["train"], "test": ["test"]}


@pytest.mark.parametrize("kind", ["binary", "python"])
def test_cifar(kind: str, tmp_path: Path) -> None:
    (tmp_path / "10").mkdir()
    (tmp_path / "100").mkdir()
    written = small_cifar(tmp_path / "10", ["labels"], CIFAR10, kind)
    for split, (images, classes) in written.items():
        found = cifar10(tmp_path / "10", split)
        np.testing.assert_array_equal(found.images, images)
        np.testing.assert_array_equal(found.labels, classes[:, 0])
        assert found.coarse is None
    written = small_cifar(tmp_path / "100", ["coarse_labels", "fine_labels"], CIFAR100, kind)
    for split, (images, classes) in written.items():
        found = cifar100(tmp_path / "100", split)
        np.testing.assert_array_equal(found.images, images)
        np.testing.assert_array_equal(found.labels, classes[:, 1])
        np.testing.assert_array_equal(found.coarse, classes[:, 0])


class Dangerous:
    def __reduce__(self) -> Any:
        return Path.touch, (Path("unpickled"),)


def test_cifar_runs_nothing_that_a_file_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "test_batch").write_bytes(pickle.dumps({b"data": Dangerous(), b"labels": [1]}, protocol=2))
    with pytest.raises(
        ValueError, match=r"cifar10: .*test_batch is damaged or not a file of this data set: it asks for"
    ):
        cifar10(tmp_path, "test")
    (tmp_path / "test_batch").write_bytes(b"cos\nsystem\n(S'touch unpickled'\ntR.")
    with pytest.raises(ValueError, match=r"it asks for os\.system"):
        cifar10(tmp_path, "test")
    assert not (tmp_path / "unpickled").exists()


def test_cifar_refuses_other_files(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"cifar10: .*test_batch does not exist \(give the folder"):
        cifar10(tmp_path, "test")
    with pytest.raises(ValueError, match='cifar100: split must be "train" or "test", got \'val\''):
        cifar100(tmp_path, "val")
    (tmp_path / "test_batch").write_bytes(b"\x80\x04broken")
    with pytest.raises(ValueError, match="is damaged or not a file of this data set"):
        cifar10(tmp_path, "test")
    (tmp_path / "test_batch").write_bytes(pickle.dumps({b"data": np.zeros((2, 5), np.uint8), b"labels": [1, 2]}))
    with pytest.raises(ValueError, match=r"must hold uint8 pixels \[2, 3072\], got uint8 \[2, 5\]"):
        cifar10(tmp_path, "test")
    (tmp_path / "test.bin").write_bytes(b"123")
    with pytest.raises(ValueError, match=r"cifar100: .*test.bin must hold images of 3074 bytes, got 3 bytes in all"):
        cifar100(tmp_path, "test")


def test_image_folder(tmp_path: Path) -> None:
    for name in ("n02/b.JPEG", "n02/a.JPEG", "n01/deep/c.png", "n01/readme.txt", "n03/x.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = image_folder(tmp_path)
    assert found.classes == ["n01", "n02", "n03"]
    assert [str(path.relative_to(tmp_path)) for path in found.paths] == [
        "n01/deep/c.png",
        "n02/a.JPEG",
        "n02/b.JPEG",
        "n03/x.jpg",
    ]
    assert found.labels.tolist() == [0, 1, 1, 2]
    with pytest.raises(ValueError, match="must have a folder with images for each class, got 0 classes"):
        image_folder(tmp_path / "n03")
    with pytest.raises(FileNotFoundError, match=r"image_folder: .*nowhere does not exist"):
        image_folder(tmp_path / "nowhere")


def test_image_archive(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    pixels = np.random.default_rng(0).integers(0, 256, size=(3, 8, 8, 3), dtype=np.uint8)
    files = []
    for each in pixels:
        buffer = io.BytesIO()
        image.fromarray(each).save(buffer, "PNG")
        files.append(buffer.getvalue())
    data = {"jpeg": np.frombuffer(b"".join(files), np.uint8), "offset": np.cumsum([0, *map(len, files)])}
    np.savez(tmp_path / "a.npz", **data, label=np.array([4, 0, 4], np.uint8))
    images, labels = image_archive(tmp_path / "a.npz")
    np.testing.assert_array_equal(images, pixels)
    assert labels.tolist() == [4, 0, 4]
    np.savez(tmp_path / "b.npz", **data)
    with pytest.raises(ValueError, match="must hold jpeg, offset and label, got no label"):
        image_archive(tmp_path / "b.npz")
    np.savez(tmp_path / "c.npz", **data, label=np.zeros(2, np.uint8))
    with pytest.raises(ValueError, match="offset must have 3 entries, got 4"):
        image_archive(tmp_path / "c.npz")


def test_captions(tmp_path: Path) -> None:
    (tmp_path / "captions.tsv").write_text('image_id\tcaption_id\tcaption\n7\t1\ta "cat\n7\t2\ta dog\n3\t3\tsnow\n')
    with pytest.raises(FileNotFoundError, match=r"coco_captions: .*minilm_l6_v2_f16.npz does not exist"):
        coco_captions(tmp_path)
    np.savez(tmp_path / "minilm_l6_v2_f16.npz", embedding=2 * np.eye(3, 4, dtype=np.float16))
    found = coco_captions(tmp_path)
    assert found.captions == ['a "cat', "a dog", "snow"]
    assert found.images.tolist() == [7, 7, 3]
    np.testing.assert_array_equal(found.embeddings, np.eye(3, 4, dtype=np.float32))
    np.savez(tmp_path / "minilm_l6_v2_f16.npz", embedding=np.eye(2, 4))
    with pytest.raises(ValueError, match=r"captions.tsv has 3 rows, and minilm_l6_v2_f16.npz 2"):
        coco_captions(tmp_path)


def test_conceptual_captions(tmp_path: Path) -> None:
    path = tmp_path / "Validation_GCC-1.1.0-Validation.tsv"
    path.write_text('a "quote\thttp://a/1.jpg\nsnow \u2028 there\thttp://b/2.jpg\r\n', encoding="utf-8")
    found = conceptual_captions(path)
    assert found.captions == ['a "quote', "snow \u2028 there"]
    assert found.urls == ["http://a/1.jpg", "http://b/2.jpg"]
    path.write_text("caption\turl\nx\ty\n")
    assert conceptual_captions(path).captions == ["x"]
    path.write_text("x\ty\nonly\n")
    with pytest.raises(ValueError, match="line 2: must be caption, tab, url, got 'only"):
        conceptual_captions(path)


def test_svmlight_bags(tmp_path: Path) -> None:
    from scipy.sparse import csr_matrix

    path = tmp_path / "news20"
    path.write_text("# a comment\n3 1:2 4:1\n-1\n3 2:0.5  # there\n")
    found = svmlight_bags(path)
    np.testing.assert_array_equal(found.X.toarray(), [[2, 0, 0, 1], [0, 0, 0, 0], [0, 0.5, 0, 0]])
    assert found.labels is not None
    assert (found.labels.dtype, found.labels.tolist()) == (np.int64, [3, -1, 3])
    assert (found.classes, found.words) == (None, None)
    assert svmlight_bags(path, words=9).X.shape == (3, 9)
    fasthash.TextHasher(8, epochs=1, hidden=(4,), progress=False).fit(found.X)
    from sklearn.datasets import dump_svmlight_file

    counts = np.random.default_rng(0).poisson(0.3, size=(20, 12))
    counts[:, 0] = 1
    dump_svmlight_file(csr_matrix(counts), np.arange(20) % 4, str(tmp_path / "from_0"))
    again = svmlight_bags(tmp_path / "from_0", words=12)
    np.testing.assert_array_equal(again.X.toarray(), counts)
    for opened, name in ((gzip.open, "a.gz"), (bz2.open, "a.bz2")):
        with opened(tmp_path / name, "wb") as file:
            file.write(path.read_bytes())
        np.testing.assert_array_equal(svmlight_bags(tmp_path / name).X.toarray(), found.X.toarray())


def test_svmlight_bags_with_several_labels(tmp_path: Path) -> None:
    path = tmp_path / "rcv1"
    path.write_text("34 1:2\n34,59 2:1\n 3:1\n7 1:1 2:1\n")
    found = svmlight_bags(path)
    assert found.classes == [7, 34, 59]
    assert found.labels is not None
    assert found.labels.tolist() == [[0, 1, 0], [0, 1, 1], [0, 0, 0], [1, 0, 0]]
    np.testing.assert_array_equal(found.X.toarray(), [[2, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0]])


def test_svmlight_bags_refuses_other_files(tmp_path: Path) -> None:
    path = tmp_path / "bags"
    with pytest.raises(FileNotFoundError, match=r"svmlight_bags: .*bags does not exist"):
        svmlight_bags(path)
    for text, message in (("0.5 1:2\n", "labels must be whole numbers, got 0.5"), ("a b c\n", "is not a file of the")):
        path.write_text(text)
        with pytest.raises(ValueError, match=f"^svmlight_bags: .*{message}"):
            svmlight_bags(path)
    path.write_text("1 7:2\n")
    with pytest.raises(ValueError, match=r"^svmlight_bags: .* is not a file of the LIBSVM format: n_features"):
        svmlight_bags(path, words=3)


def test_uci_bags(tmp_path: Path) -> None:
    docword, vocab = tmp_path / "docword.kos.txt", tmp_path / "vocab.kos.txt"
    docword.write_text("3\n4\n3\n1 2 5\n1 4 1\n3 1 2\n")
    vocab.write_text("apple\nbell\ncat\ndog\n")
    found = uci_bags(docword, vocab)
    np.testing.assert_array_equal(found.X.toarray(), [[0, 5, 0, 1], [0, 0, 0, 0], [2, 0, 0, 0]])
    assert found.words == ["apple", "bell", "cat", "dog"]
    assert (found.labels, found.classes) == (None, None)
    for path in (docword, vocab):
        with gzip.open(f"{path}.gz", "wb") as file:
            file.write(path.read_bytes())
    again = uci_bags(f"{docword}.gz", f"{vocab}.gz")
    np.testing.assert_array_equal(again.X.toarray(), found.X.toarray())
    assert again.words == found.words
    assert uci_bags(docword).words is None
    vocab.write_text("apple\n")
    with pytest.raises(ValueError, match=r"uci_bags: .*vocab.kos.txt must have 4 words, as docword.kos.txt says"):
        uci_bags(docword, vocab)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("3\n4\n2\n1 2 5\n", "must have 2 entries, as its third line says, got 1"),
        ("3\n4\n1\n4 2 5\n", "a document must be between 1 and 3, got 4"),
        ("3\n4\n1\n1 0 5\n", "a word must be between 1 and 4, got 0"),
        ("3\n4\n", "is not a docword file"),
        ("3\n4\n1\n1 2\n", "is not a docword file"),
        ("some words\n", "is not a docword file"),
    ],
)
def test_uci_bags_refuses_other_files(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "docword.txt").write_text(text)
    with pytest.raises(ValueError, match=f"^uci_bags: .*docword.txt:? {message}"):
        uci_bags(tmp_path / "docword.txt")
    with pytest.raises(FileNotFoundError, match=r"uci_bags: .*none does not exist"):
        uci_bags(tmp_path / "none")


@pytest.mark.parametrize(
    ("module", "call"),
    [("sklearn.datasets", svmlight_bags), ("scipy.sparse", uci_bags)],
    ids=["svmlight_bags", "uci_bags"],
)
def test_bags_without_their_library(module: str, call: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=rf"{call.__name__}: needs .*pip install 'fasthash\[text\]'"):
        call(tmp_path / "file")


def test_the_developers_copies(shared_data: Path) -> None:
    captions = coco_captions(shared_data / "coco_captions_val2017")
    assert captions.embeddings.shape == (25_014, 384)
    assert len(np.unique(captions.images)) == 5000
    assert len(conceptual_captions(shared_data / "conceptual_captions_val" / "captions.tsv").urls) == 15_833


RATINGS = ["7,20,4.5,100", "3,10,3.0,90", "7,10,0.5,95"]
FILMS = ['20,"Misérables, Les (1995)",Drama|War', "10,Heat (1995),(no genres listed)", "30,Unseen (2001),Drama"]


def small_movielens(folder: Path, kind: str, encoding: str = "utf-8") -> None:
    """Writes three ratings, three films and two tags as the downloads have them."""
    heads = {
        "ratings": "userId,movieId,rating,timestamp",
        "movies": "movieId,title,genres",
        "tags": "userId,movieId,tag,timestamp",
    }
    rows = {"ratings": RATINGS, "movies": FILMS, "tags": ['3,10,"slow, dark",5', "7,10,heist,6"]}
    for name, lines in rows.items():
        text = "\r\n".join([heads[name], *lines, ""])
        if kind == "dat":
            fields = csv.reader(lines)
            text = "".join("::".join(each) + "\n" for each in fields)
        (folder / f"{name}.{kind}").write_bytes(text.encode(encoding))


@pytest.mark.parametrize(("kind", "encoding"), [("csv", "utf-8"), ("dat", "utf-8"), ("dat", "latin-1")])
def test_movielens(kind: str, encoding: str, tmp_path: Path) -> None:
    small_movielens(tmp_path, kind, encoding)
    found = movielens(tmp_path)
    assert found.user_ids.tolist() == [3, 7]
    assert found.film_ids.tolist() == [10, 20, 30]
    assert found.users.tolist() == [1, 0, 1]
    assert found.films.tolist() == [1, 0, 0]
    assert found.ratings.tolist() == [4.5, 3.0, 0.5]
    assert found.ratings.dtype == np.float32
    assert found.times.tolist() == [100, 90, 95]
    assert found.titles == ["Heat (1995)", "Misérables, Les (1995)", "Unseen (2001)"]
    assert found.genres == [(), ("Drama", "War"), ("Drama",)]
    assert found.tags == [("slow, dark", "heist"), (), ()]
    (tmp_path / f"tags.{kind}").unlink()  # ml-1m has none
    assert movielens(tmp_path).tags == [(), (), ()]


@pytest.mark.parametrize(
    ("name", "line", "message"),
    [
        ("ratings", "3,10,4.0", r"ratings\.csv, line 5: must have 4 columns, got 3"),
        ("ratings", "x,10,4.0,1", r"ratings\.csv, line 5: must be an integer, got 'x'"),
        ("ratings", "3,10,6.0,1", r"ratings\.csv, line 5: a rating must be a number between 0 and 5, got '6.0'"),
        ("ratings", "3,10,good,1", r"ratings\.csv, line 5: a rating must be a number between 0 and 5, got 'good'"),
        ("ratings", "3,11,4.0,1", r"ratings\.csv, line 5: film 11 is not among the 3 of the file of movies"),
        ("movies", "ten,Heat,Drama", r"movies\.csv, line 5: must be an integer, got 'ten'"),
        ("tags", "3,11,slow,1", r"tags\.csv, line 4: film 11 is not among the 3 of the file of movies"),
    ],
)
def test_movielens_refuses_other_files(name: str, line: str, message: str, tmp_path: Path) -> None:
    small_movielens(tmp_path, "csv")
    with (tmp_path / f"{name}.csv").open("a", newline="") as file:
        file.write(line + "\r\n")
    with pytest.raises(ValueError, match=f"movielens: .*{message}"):
        movielens(tmp_path)


def test_movielens_without_files(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"movielens: .*movies\.csv does not exist \(give the folder"):
        movielens(tmp_path)


def test_movielens_as_it_is_distributed(shared_data: Path) -> None:
    found = movielens(shared_data / "movielens_latest_small")
    assert len(found.ratings) == 100_836
    assert len(found.user_ids) == 610
    assert len(found.film_ids) == len(found.titles) == 9_742
    assert sum(map(len, found.tags)) == 3_683
    assert found.titles[0] == "Toy Story (1995)"
    assert int((found.ratings >= 4).sum()) == 48_580


def small_pubmedqa() -> dict[str, dict[str, Any]]:
    """Three questions as ori_pqal.json has them."""
    return {
        str(100 - row): {
            "QUESTION": f"Does {row} help?",
            "CONTEXTS": [f"We tried {row}.", "It was cold."][: 2 - row % 2],
            "LABELS": ["METHODS", "RESULTS"][: 2 - row % 2],
            "MESHES": ["Humans", f"Term, {row}"],
            "YEAR": "2011",
            "reasoning_required_pred": "yes",
            "reasoning_free_pred": "yes",
            "final_decision": decision,
            "LONG_ANSWER": f"{row} ± 1 helps.",
        }
        for row, decision in enumerate(("yes", "no", "maybe"))
    }


def write_json(path: Path, content: Any) -> Path:
    path.write_text(json.dumps(content, indent=4), encoding="utf-8")
    return path


def test_pubmedqa(tmp_path: Path) -> None:
    rows = small_pubmedqa()
    file = write_json(tmp_path / "ori_pqal.json", rows)
    assert pubmedqa(tmp_path).test is None
    write_json(tmp_path / "test_ground_truth.json", {"98": "maybe", "100": "yes"})
    found = pubmedqa(tmp_path)
    assert found.ids == ["100", "99", "98"]
    assert found.questions == ["Does 0 help?", "Does 1 help?", "Does 2 help?"]
    assert found.contexts == ["We tried 0. It was cold.", "We tried 1.", "We tried 2. It was cold."]
    assert found.conclusions[1] == "1 ± 1 helps."
    assert found.mesh[2] == ("Humans", "Term, 2")
    assert (found.years, found.decisions) == (["2011"] * 3, ["yes", "no", "maybe"])
    assert found.test is not None
    assert found.test.tolist() == [True, False, True]
    assert pubmedqa(file)._replace(test=found.test.tolist()) == found._replace(test=found.test.tolist())
    for row in rows.values():  # ori_pqau.json has no decisions, and some papers no year
        del row["final_decision"]
        row["YEAR"] = None
    without = pubmedqa(write_json(tmp_path / "ori_pqau.json", rows))
    assert (without.years, without.decisions, without.test) == ([""] * 3, [""] * 3, None)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("QUESTION", None, "QUESTION must be a text, got None"),
        ("LONG_ANSWER", 3, "LONG_ANSWER must be a text, got 3"),
        ("CONTEXTS", "text", "CONTEXTS must be a list of texts, got 'text'"),
        ("MESHES", ["Humans", 3], r"MESHES must be a list of texts, got \['Humans', 3\]"),
        ("YEAR", 2011, "YEAR must be a text, got 2011"),
    ],
)
def test_pubmedqa_refuses_other_files(key: str, value: Any, message: str, tmp_path: Path) -> None:
    rows = small_pubmedqa()
    rows["99"][key] = value
    with pytest.raises(ValueError, match=rf"^pubmedqa: .*ori_pqal\.json, row '99': {message}"):
        pubmedqa(write_json(tmp_path / "ori_pqal.json", rows))
    with pytest.raises(ValueError, match=r"^pubmedqa: .* must hold an object with an entry for each id, got list"):
        pubmedqa(write_json(tmp_path / "list.json", [1]))
    with pytest.raises(ValueError, match=r"^pubmedqa: .*, row '1': QUESTION must be a text, got None"):
        pubmedqa(write_json(tmp_path / "rows.json", {"1": "text"}))
    (tmp_path / "data.jsonl").write_text('{"a": 1}\n{"a": 2}\n')
    with pytest.raises(ValueError, match=r"^pubmedqa: .*data\.jsonl is not a JSON file: "):
        pubmedqa(tmp_path / "data.jsonl")
    write_json(tmp_path / "ori_pqal.json", small_pubmedqa())
    write_json(tmp_path / "test_ground_truth.json", {"7": "yes"})
    with pytest.raises(ValueError, match=r"^pubmedqa: .*test_ground_truth\.json names '7', which is not among the 3"):
        pubmedqa(tmp_path)


def test_pubmedqa_without_files(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"pubmedqa: .*ori_pqal\.json does not exist"):
        pubmedqa(tmp_path)
