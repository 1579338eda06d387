"""Task i, two modalities: pairs of PubMedQA and of MovieLens, and what is measured of codes that search each other."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.quality.measure import array_ranking
from benchmarks.quality.tasks import Items, Task
from fasthash import hamming_distances, pack_bits
from fasthash.datasets import movielens
from fasthash.datasets.files import existing
from fasthash.evaluate import code_statistics
from fasthash.losses import code_distance_bounds
from fasthash.metrics.expectation import average_precision, discounted_sum, ratio

Array = NDArray[Any]
AT, FIRST = 50, 10
FEATURES = 128  # of texts, by SVD of TF-IDF
USES = (20, 500)  # of a MeSH term that is a label: rarer ones say little, commoner ones nearly nothing
RATINGS = 5  # of a film, at least
HELD_OUT = 0.3  # of the training rows, for validation
FAR = 0.05  # quantile of the distances of rows without a label in common


@dataclass(frozen=True)
class Pairs:
    """Rows of two modalities, float32 [N, F1] and [N, F2]; joint: both as TF-IDF over one vocabulary, of texts."""

    first: Array
    second: Array
    joint: tuple[Array, Array] | None = None

    def __len__(self) -> int:
        return len(self.first)

    def __getitem__(self, rows: Array) -> Pairs:
        joint = None if self.joint is None else (self.joint[0][rows], self.joint[1][rows])
        return Pairs(self.first[rows], self.second[rows], joint)


@dataclass(frozen=True)
class CrossModal:
    """What a method gives: outputs float32 [N, bits] of each modality, whose signs are the bits; far apart or near."""

    first: Callable[[Array], Array]
    second: Callable[[Array], Array]
    metric: str = "cosine"

    def outputs(self, X: Pairs) -> tuple[Array, Array]:
        return self.first(X.first), self.second(X.second)

    def codes(self, X: Pairs) -> tuple[Array, Array]:
        first, second = (pack_bits(u, threshold=0.0) for u in self.outputs(X))
        return first, second


def task_pubmedqa(data: Path) -> Task:
    """Questions and the abstracts that answer them; labels are MeSH terms. The authors' split."""
    path = existing(data / "pubmedqa" / "data.jsonl", "task i-pubmedqa")
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    uses = Counter(term for row in rows for term in set(row["mesh"]))
    terms = sorted(term for term, count in uses.items() if USES[0] <= count <= USES[1])
    labels = np.array([[term in row["mesh"] for term in terms] for row in rows], dtype=np.uint8)
    train = np.array([row["split"] == "train" for row in rows])
    questions, abstracts = ([row[name] for row in rows] for name in ("question", "context"))
    X = Pairs(_svd(questions, train), _svd(abstracts, train), _joint(questions, abstracts, train))
    return _task(
        "i-pubmedqa",
        "PubMedQA, questions and the abstracts that answer them",
        X,
        labels,
        train,
        ("questions", "abstracts"),
        f"Labels: the {len(terms)} MeSH terms with {USES[0]} to {USES[1]} uses. Each side is TF-IDF over the "
        f"words of its own training texts, reduced to {FEATURES} dimensions by SVD. The split is that of the "
        "authors. *One vocabulary* is a reference: the cosine of real-valued TF-IDF over the words of both "
        "sides. No method gets it",
    )


def task_movielens(data: Path) -> Task:
    """Ratings of a film, and its title and tags; labels are genres. Films with tags and enough ratings."""
    found = movielens(data / "movielens_latest_small")
    films = np.bincount(found.films, minlength=len(found.film_ids)) >= RATINGS
    films &= np.array([bool(tags) for tags in found.tags])
    kept = np.flatnonzero(films)
    genres = sorted({genre for row in kept for genre in found.genres[row]})
    labels = np.array([[genre in found.genres[row] for genre in genres] for row in kept], dtype=np.uint8)
    train = np.zeros(len(kept), dtype=bool)
    train[np.random.default_rng(0).permutation(len(kept))[: len(kept) // 2]] = True
    means = np.bincount(found.users, found.ratings) / np.bincount(found.users)
    ratings = np.zeros((len(found.film_ids), len(found.user_ids)), dtype=np.float32)
    ratings[found.films, found.users] = found.ratings - means[found.users]
    texts = [" ".join([found.titles[row], *found.tags[row]]) for row in kept]
    return _task(
        "i-movielens",
        "MovieLens latest small, ratings of films and their titles and tags",
        Pairs(_unit(ratings[kept]), _svd(texts, train)),
        labels,
        train,
        ("ratings", "tags"),
        f"Labels: {len(genres)} genres. Films with tags and at least {RATINGS} ratings; half of them are "
        f"training films. First side: the ratings of {len(found.user_ids)} users, minus the mean of each "
        f"user, 0 for no rating. Second side: TF-IDF of title and tags, reduced to {FEATURES} dimensions by "
        "SVD",
    )


def _task(name: str, title: str, X: Pairs, labels: Array, train: Array, sides: tuple[str, str], note: str) -> Task:
    labelled = labels.any(1)
    rows = {
        "train": Items(X[train & labelled], labels[train & labelled]),
        "test": Items(X[~train & labelled], labels[~train & labelled]),
    }
    order = np.random.default_rng(0).permutation(len(rows["train"].y))
    held_out, rest = np.split(order, [round(HELD_OUT * len(order))])
    rows["validation"] = rows["train"].part(held_out)
    both = {kind: {side: (rows[kind], rows[kind]) for side in sides[::-1]} for kind in ("validation", "test")}
    return Task(
        name,
        title,
        "pairs",
        rows["train"],
        both["validation"],
        both["test"],
        (32, 64),
        validation_train=rows["train"].part(rest),
        notes=(
            f"{note}. {int((~labelled).sum())} rows without a label are omitted",
            f"{len(rows['train'].y)} training pairs and {len(rows['test'].y)} test pairs. The rows of each side "
            "are queries in the other side, which gives the table its name. Settings are chosen on "
            f"{len(held_out)} pairs of the training part, after training on the others, by NDCG@50 of codes, mean "
            "over both directions",
            "All trained methods have the same two encoders and 400 steps of 128 pairs (the default of "
            "CrossModalHasher is 900 steps of 256). The list of settings comes from 8 trials on validation pairs "
            "(benchmarks/results/quality-trials.jsonl)",
            f"NDCG@{AT}: the gain is the number of common labels. mAP: one common label is relevant. R@{FIRST}: "
            "recall of the partner of the query. Ties count by their expected value. far: the 5 % quantile of "
            "the Hamming distances between test rows of the two sides without a common label; far, training: the "
            "same for training rows",
        ),
    )


def _svd(texts: list[str], train: Array) -> Array:
    """TF-IDF by the words of the training texts, then SVD of those, of length 1; float32 [N, FEATURES]."""
    from sklearn.decomposition import TruncatedSVD

    weights = _tfidf(texts, [text for text, here in zip(texts, train, strict=True) if here])
    svd = TruncatedSVD(FEATURES, random_state=0).fit(weights[train])
    return _unit(svd.transform(weights))


def _tfidf(texts: list[str], known: list[str]) -> Any:
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectorizer = TfidfVectorizer(min_df=2, sublinear_tf=True, stop_words="english", dtype=np.float32).fit(known)
    return vectorizer.transform(texts)


def _joint(first: list[str], second: list[str], train: Array) -> tuple[Array, Array]:
    both = [f"{a} {b}" for a, b, here in zip(first, second, train, strict=True) if here]
    return _tfidf(first, both).toarray(), _tfidf(second, both).toarray()


def _unit(X: Array) -> Array:
    found: Array = (X / np.linalg.norm(X, axis=1, keepdims=True).clip(min=1e-12)).astype(np.float32)
    return found


def label_sets(y: Array) -> int:
    return len(np.unique(y, axis=0))


def measure_pairs(task: Task, model: CrossModal, side: str, bits: int) -> dict[str, dict[str, float]]:
    """Metrics of codes and of outputs, by "codes abstracts", "codes questions" ...: what is searched in."""
    found: dict[str, dict[str, float]] = {}
    asked = task.validation if side == "validation" else task.test
    rows = next(iter(asked.values()))[0]
    codes, outputs = model.codes(rows.X), model.outputs(rows.X)
    distances = hamming_distances(*codes).astype(np.float64)
    far: dict[str, float] = {"far": far_quantile(distances, rows.y)}
    far["delta"], far["upper"] = bounds(task, bits)
    far["far, training"] = far_quantile(hamming_distances(*model.codes(task.train.X)), task.train.y)
    for way, name in enumerate(asked):  # 0: the first side asks in the second
        toward = distances if way == 0 else distances.T
        query, database = codes[way], codes[1 - way]
        found[f"codes {name}"] = pair_scores((query, database), toward, rows.y) | far | code_statistics(database, bits)
        u = outputs[way], outputs[1 - way]
        found[f"outputs {name}"] = pair_scores(u, real_distances(*u, model.metric), rows.y, model.metric)
    return found


def pair_scores(arrays: tuple[Array, Array], distances: Array, y: Array, metric: str | None = None) -> dict[str, float]:
    """NDCG@50 and mAP of arrays, queries and database of the same labels y; R@10 of row i for query i, by distances."""
    items = Items(arrays[0], y), Items(arrays[1], y)
    ranking = array_ranking(arrays, items, metric)
    labels, at = ranking.labels, min(AT, ranking.eligible)
    best = ranking.ideal(labels.shared, lambda counts, sums: discounted_sum(counts, sums, at))
    sums = {f"NDCG@{AT}": 0.0, "mAP": 0.0}
    for groups in ranking.blocks(labels.shared, labels.relevant):
        shared, relevant = groups.sums
        sums[f"NDCG@{AT}"] += float(ratio(discounted_sum(groups.counts, shared, at), best[groups.rows]).sum())
        sums["mAP"] += float(average_precision(groups.counts, relevant).sum())
    return {name: total / len(y) for name, total in sums.items()} | {f"R@{FIRST}": partner_recall(distances)}


def partner_recall(distances: Array) -> float:
    """The part of the queries whose own row is among the 10 first of distances [N, N], in expectation over ties."""
    own = np.diag(distances)[:, None]
    before, tied = (distances < own).sum(1), (distances == own).sum(1)
    return float(((FIRST - before) / tied).clip(0, 1).mean())


def real_distances(a: Array, b: Array, metric: str) -> Array:
    if metric == "cosine":
        found: Array = -(_unit(a) @ _unit(b).T)
        return found
    return torch.cdist(torch.from_numpy(a), torch.from_numpy(b), p=1.0).numpy()


def far_quantile(distances: Array, y: Array) -> float:
    """Of the distances [N, N] between rows without a label in common; NaN where all have one."""
    unlike = distances[(y.astype(np.int64) @ y.T.astype(np.int64)) == 0]
    return float(np.quantile(unlike, FAR)) if len(unlike) else float("nan")


def pair_score(task: Task, model: CrossModal, bits: int) -> float:
    """What settings are chosen by: NDCG@50 of codes, the mean of both ways."""
    found = measure_pairs(task, model, "validation", bits)
    return float(np.mean([scores[f"NDCG@{AT}"] for name, scores in found.items() if name.startswith("codes")]))


def pair_floors(task: Task) -> dict[str, dict[str, float]]:
    """Any order; for texts, the cosine of words that both sides share."""
    found: dict[str, dict[str, float]] = {}
    for way, (name, (rows, _)) in enumerate(task.test.items()):
        same = np.zeros((len(rows.y), 1), dtype=np.uint8)
        found[f"random {name}"] = pair_scores((same, same), np.zeros((len(same), len(same))), rows.y)
        if rows.X.joint is not None:
            a, b = rows.X.joint if way == 0 else rows.X.joint[::-1]
            found[f"one vocabulary {name}"] = pair_scores((a, b), real_distances(a, b, "cosine"), rows.y, "cosine")
    return found


def bounds(task: Task, bits: int) -> tuple[int, int]:
    """The distances that so many codes as the training part has label sets can have."""
    return code_distance_bounds(bits, label_sets(task.train.y))
