"""Conceptual Captions as users have it: captions with addresses, pictures that they fetched, caption similarities."""

from __future__ import annotations

import csv
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fasthash._durable import replaced_file
from fasthash.datasets import conceptual_captions
from fasthash.images import image_files
from fasthash.recipes.experiment import Experiment, Protocol, Sizes
from fasthash.recipes.networks import NARROW
from fasthash.recipes.painted import painted
from fasthash.recipes.pictures import ArrayPictures, FilePictures, Pictures
from fasthash.targets import embedding_distances

FULL = Sizes(epochs=20, batch_size=256, size=224, backbone="torchvision:resnet50")
SMALL = Sizes(epochs=8, batch_size=64, size=32, backbone=NARROW)
SMALL_ROWS = 6000  # captions of a small run
QUERIES, UNSEEN, STORED = 2000, 4000, 10_000  # pictures that are measured, at most: similarities of all pairs are held
UNSEEN_PART = 5  # one of 5 pictures is not in the training data; half of these are queries
WORDS = "words"
TOPICS = 64  # dimensions of embeddings by words


def read(
    data: Path,
    out: Path,
    sizes: Sizes,
    *,
    generated: bool,
    embeddings: str | PathLike[str] | None,
    validation: bool,
) -> Experiment:
    """data: a folder with one .tsv of captions and addresses, or that file.

    Pictures: a table pictures.csv beside it with the columns path and caption, or a folder pictures/ whose files are
    named by the row of their caption, from 0: pictures/000017.jpg. generated: none; each is painted from its caption.
    embeddings: a file .npy [N, E], row i of the i-th caption; "words" (topics of the captions' words, needs
    scikit-learn); or the name or folder of a model of sentence-transformers. None: captions.npy beside the captions,
    or else "words" where pictures are generated.
    """
    folder = data.parent if data.is_file() else data
    captions, keys, numbers = _rows(data, folder, generated)
    E, made = _embeddings(captions, numbers, folder, embeddings, out, generated)
    E = E / np.linalg.norm(E, axis=1, keepdims=True).clip(min=1e-12)
    pictures: Pictures
    if keys is None:
        pictures = ArrayPictures(painted(E, sizes.size))
        about = [f"captions of Conceptual Captions with GENERATED pictures: {len(captions):,}, painted from embeddings"]
    else:
        pictures = FilePictures(str(folder), keys, sizes.size)
        about = [f"Conceptual Captions, {len(captions):,} pictures at {sizes.size} pixels"]
    order = np.random.default_rng(0).permutation(len(captions))
    left_out = len(order) // UNSEEN_PART
    if validation:
        order = order[left_out:]
    queries, unseen, seen = np.split(order, [left_out // 2, left_out])
    queries, unseen = queries[:QUERIES], unseen[:UNSEEN]
    both = np.concatenate([unseen, seen[: STORED - len(unseen)]])
    measured = np.concatenate([queries, both])
    labels = np.full(len(captions), -1)
    labels[measured] = np.arange(len(measured))
    found = E[measured]
    about += [
        f"similarity of captions: cosine of {made}, 0 where it is negative",
        f"{len(seen):,} pictures are trained on; {'queries are others' if validation else 'the rest is unseen'}",
    ]
    return Experiment(
        pictures,
        seen,
        torch.from_numpy(E[seen]),
        embedding_distances,
        0,
        labels,
        torch.from_numpy((found @ found.T).clip(0, 1)),
        [
            Protocol("queries and database of unseen pictures", queries, unseen),
            Protocol("queries of unseen pictures, database of unseen and seen", queries, both),
        ],
        False,
        about,
        texts=captions,
    )


def _rows(data: Path, folder: Path, generated: bool) -> tuple[list[str], list[str] | None, list[int]]:
    """Captions, the paths of their pictures in the folder, and their row numbers in the file."""
    table = folder / "pictures.csv"
    if not generated and table.is_file():
        with table.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        if not rows or not {"path", "caption"} <= rows[0].keys():
            raise ValueError(f"recipe: {table} must have rows and the columns path and caption")
        return [row["caption"] for row in rows], [row["path"] for row in rows], list(range(len(rows)))
    captions = conceptual_captions(_tsv(data)).captions
    if generated:
        return captions[:SMALL_ROWS], None, list(range(len(captions[:SMALL_ROWS])))
    if not (folder / "pictures").is_dir():
        raise FileNotFoundError(
            f"recipe: {folder} must hold the pictures that you fetched: pictures.csv (path, caption), or pictures/ "
            "with names by row, 000017.jpg; --small runs on generated pictures"
        )
    numbered = {}
    for key in image_files(folder / "pictures"):
        stem = Path(key).stem
        if not stem.isdecimal() or int(stem) >= len(captions):
            raise ValueError(f"recipe: pictures/{key} must be named by a row of the captions, 0 to {len(captions) - 1}")
        numbered[int(stem)] = f"pictures/{key}"
    rows_found = sorted(numbered)
    return [captions[row] for row in rows_found], [numbered[row] for row in rows_found], rows_found


def _tsv(data: Path) -> Path:
    if data.is_file():
        return data
    found = sorted(data.glob("*.tsv"))
    if len(found) != 1:
        raise FileNotFoundError(f"recipe: {data} must hold one .tsv, got {len(found)}: name the file itself")
    return found[0]


def _embeddings(
    captions: list[str], numbers: list[int], folder: Path, given: str | PathLike[str] | None, out: Path, generated: bool
) -> tuple[NDArray[np.float32], str]:
    """Float32 [N, E], and what they are in words."""
    if given is None:
        beside = folder / "captions.npy"
        given = beside if beside.is_file() else WORDS if generated else None
    if given is None:
        raise ValueError(
            "recipe: needs embeddings of the captions: embeddings= (--embeddings) a file .npy, words, or a model of "
            "sentence-transformers such as sentence-transformers/all-MiniLM-L6-v2"
        )
    if str(given) == WORDS:
        return _topics(captions), f"topics of their words ({TOPICS} dimensions), not a language model"
    if str(given).endswith(".npy"):
        made = np.load(given, mmap_mode="r", allow_pickle=False)
        if made.ndim != 2 or len(made) <= numbers[-1]:
            raise ValueError(
                f"recipe: {given} must hold a row for each of {numbers[-1] + 1} captions, got shape {list(made.shape)}"
            )
        return np.asarray(made[numbers], dtype=np.float32), f"the rows of {Path(given).name}"
    return _sentences(captions, str(given), out / "captions.npy"), f"embeddings by {Path(given).name}"


def _topics(captions: list[str]) -> NDArray[np.float32]:
    try:
        from sklearn.decomposition import TruncatedSVD
        from sklearn.feature_extraction.text import TfidfVectorizer
    except ImportError:
        raise ImportError("recipe: embeddings by words need scikit-learn: pip install 'fasthash[text]'") from None
    counts = TfidfVectorizer(min_df=2, stop_words="english", sublinear_tf=True).fit_transform(captions)
    topics = TruncatedSVD(min(TOPICS, counts.shape[1] - 1), random_state=0).fit_transform(counts)
    return np.asarray(topics, dtype=np.float32)


def _sentences(captions: list[str], model: str, kept: Path) -> NDArray[np.float32]:
    """By a model of sentence-transformers; kept in a file, since a run that goes on needs them again."""
    if not kept.is_file():
        try:
            from sentence_transformers import SentenceTransformer
        except ImportError:
            raise ImportError(
                f"recipe: the embeddings {model!r} need sentence-transformers: pip install 'fasthash[integration]'"
            ) from None
        rows: Any = SentenceTransformer(model).encode(captions, show_progress_bar=True)
        with replaced_file(kept) as file:
            np.save(file, np.asarray(rows, dtype=np.float32))
    found: NDArray[np.float32] = np.load(kept, allow_pickle=False)
    if len(found) != len(captions):
        raise ValueError(f"recipe: {kept} has {len(found)} rows for {len(captions)} captions: give another --out")
    return found
