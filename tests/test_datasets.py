"""The data inside the package: what it holds, that it is as good as its source, that its notices are there."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

import fasthash
from fasthash.datasets import clinc150, clinc150_hierarchy, clinc150_names
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
