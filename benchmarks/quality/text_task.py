"""Task g, texts as bags of words: clinc150 without embeddings, and pairwise supervised hashing on it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.quality.tasks import Bags, Items, Task
from fasthash import TextHasher
from fasthash.datasets import clinc150

if TYPE_CHECKING:
    from collections.abc import Callable

Array = NDArray[Any]
FEATURES = 256  # of TF-IDF by SVD, for methods that take dense rows
EPOCHS = 10


def task_g(data: Path) -> Task:
    """clinc150 texts, 150 intents; the words of the training texts are the vocabulary. Needs scikit-learn."""
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import CountVectorizer, TfidfTransformer

    splits = {name: clinc150(name) for name in ("train", "val", "test")}
    known = set(splits["train"].texts)
    kept = {
        name: np.array([name == "train" or text not in known for text in split.texts]) for name, split in splits.items()
    }
    counter, weights = CountVectorizer(min_df=2), TfidfTransformer()
    svd = TruncatedSVD(FEATURES, random_state=0)
    svd.fit(weights.fit_transform(counter.fit_transform(splits["train"].texts)))

    def items(name: str) -> Items:
        texts = np.array(splits[name].texts, dtype=object)[kept[name]]
        counts = counter.transform(texts)
        tfidf = weights.transform(counts)
        features = svd.transform(tfidf).astype(np.float32)
        features /= np.linalg.norm(features, axis=1, keepdims=True).clip(min=1e-12)
        return Items(Bags(counts, tfidf, features), splits[name].intents[kept[name]])

    train, validation, test = (items(name) for name in ("train", "val", "test"))
    left_out = {name: int((~kept[name]).sum()) for name in ("val", "test")}
    return Task(
        "g",
        "clinc150 texts as bags of words, 150 intents without a hierarchy",
        "classes",
        train,
        {"train": (validation, train)},
        {"train": (test, train)},
        (32,),
        notes=(
            f"{len(counter.vocabulary_):,} words that occur in at least two training texts; no sentence "
            "embeddings. PSH gets the counts, the class byte gets TF-IDF. The other methods, the input cosine "
            f"and overlap@10 use TF-IDF, reduced to {FEATURES} dimensions by SVD and scaled to length 1",
            f"Database: the {len(train.y):,} training texts, 100 of each intent, so that P@100 of perfect codes "
            f"is 1. Queries: {len(test.y):,} test texts. {left_out['val']} texts of val and {left_out['test']} of "
            "test are also in train and are omitted",
            "Settings are chosen by P@100 of codes at 32 bits. Reduced, so that the whole task takes a quarter "
            f"of an hour on one core: one width, no outputs before rounding, {EPOCHS} passes with batches of 256 "
            "texts for PSH (its default has 15 passes; public code has 30 passes with batches of 100)",
        ),
        score="P@100",
        outputs=False,
    )


def fit_psh(rows: Items, bits: int, seed: int, settings: dict[str, Any]) -> Callable[[Bags], Array]:
    """Trains a TextHasher on the counts; gives the outputs in [-1, 1] of bags, above 0 where the bit is on."""
    hasher = TextHasher(bits, seed=seed, epochs=EPOCHS, progress=False, **settings).fit(rows.X.counts, rows.y)
    return lambda X: 2.0 * hasher.transform(X.counts) - 1.0
