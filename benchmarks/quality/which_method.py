"""The table of docs/which-method.md: what you have, what to use, and what it reaches in the runs."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

Run = Mapping[str, Any]


class Row(NamedTuple):
    """The runs of `task` by `method` and `beside` with `bits`. sides: of the runs (of codes by default), and titles."""

    have: str
    use: str
    task: str
    method: str
    bits: int
    sides: dict[str, str]
    metrics: tuple[str, ...]
    beside: str
    beside_title: str


ROWS = (
    Row(
        "class labels, with a hierarchy or without one",
        "`Hasher(bits=64, hierarchy=h).fit(X, y)`",
        "a",
        "ours-default",
        64,
        {"train": ""},
        ("mAP", "mAHP@250", "overlap@10"),
        "class-byte",
        "predicted class in one byte",
    ),
    Row(
        "classes without a hierarchy, and only mAP matters",
        '`Hasher(bits=64, loss="greedyhash").fit(X, y)`',
        "a",
        "greedyhash",
        64,
        {"train": ""},
        ("mAP",),
        "ours-default",
        "the default",
    ),
    Row(
        "class labels, and a search that compares only a few items",
        '`loss="class_anchor_margin"`, `AnchorIndex`',
        "a",
        "class_anchor_margin",
        64,
        {"train": ""},
        ("mAP",),
        "ours-default",
        "the default",
    ),
    Row(
        "class labels for some rows, and some classes without any label",
        "the default, with -1 in y",
        "e-half",
        "ours-default",
        64,
        {"known": "known classes: ", "unlabelled": "unlabelled: "},
        ("mAP",),
        "itq",
        "ITQ",
    ),
    Row(
        "a graph, and class labels for a few rows",
        "`targets.refine_by_affinity`, then `Hasher`",
        "k",
        "graph-refined",
        32,
        {"unlabelled": ""},
        ("mAP",),
        "graph-seeds",
        "only the labelled rows",
    ),
    Row(
        "queries of classes that are not in the training data",
        "`preserve=7, similarity_weight=2, kl=2`",
        "e-unseen",
        "ours-preserve",
        64,
        {"train": "unseen classes: ", "seen": "seen: "},
        ("mAP",),
        "itq",
        "ITQ",
    ),
    Row(
        "only distances between classes, with noise",
        '`supervision="similarity"`',
        "e-noisy",
        "noisy-ours",
        64,
        {"train": ""},
        ("mAP", "mAHP@250"),
        "noisy-hashnet",
        "HashNet",
    ),
    Row(
        "several labels for each row",
        "`Hasher(bits=64).fit(X, Y)`, Y multi-hot",
        "f",
        "ours-default",
        64,
        {"train": ""},
        ("NDCG@100", "mAP"),
        "bce",
        "BCE, sign",
    ),
    Row(
        "several labels for each row, and one common label is enough",
        '`loss="rank_consistency"`',
        "f",
        "rank_consistency",
        64,
        {"train": ""},
        ("NDCG@100", "mAP"),
        "ours-default",
        "the default",
    ),
    Row(
        "no labels",
        "`Hasher(bits=128).fit(X)`",
        "d",
        "captions-ours",
        128,
        {"all": ""},
        ("R@10", "overlap@10"),
        "itq",
        "ITQ",
    ),
    Row(
        "no labels, and real-valued queries",
        "`Hasher(bits=240).fit(X)`, then `LinearDecoder`",
        "l-captions",
        "graded-ours",
        256,
        {"asymmetric corpus": ""},
        ("nDCG@10",),
        "graded-itq",
        "ITQ",
    ),
    Row(
        "a Hasher of another corpus, without labels, and real-valued queries",
        "`hasher.adapt(X)`, then `LinearDecoder`",
        "l-captions-moved",
        "graded-ours",
        256,
        {"asymmetric corpus": ""},
        ("nDCG@10",),
        "graded-itq",
        "ITQ",
    ),
    Row(
        "no labels, and two views of each row (images)",
        "`CIMON(bits=64, backbone=network, views=(a, b), features=f).fit(X)`",
        "m-mnist",
        "cimon",
        64,
        {"all": ""},
        ("mAP",),
        "views-itq",
        "ITQ",
    ),
    Row(
        "class labels, and a database that is the training data",
        "`AsymmetricHasher(bits=64).fit(X, y)`",
        "a",
        "asymmetric",
        64,
        {"train": "codes of the network: "},
        ("mAP",),
        "ours-default",
        "the default",
    ),
    Row(
        "images and class labels",
        "a network with `HashHead`, then `Hasher` on its features",
        "b-reduced",
        "ours-default",
        64,
        {"train": "database train: ", "held out": "held out: "},
        ("mAHP@250",),
        "ours",
        "the network's own codes",
    ),
    Row(
        "a few rows of each new class, after training",
        "`Hasher(bits=64, item_bits=0).fit(X, y)` on other classes; a class is the mean of its codes",
        "j-clinc150-5-shot",
        "few-ours",
        64,
        {"episodes": ""},
        ("accuracy",),
        "few-itq",
        "ITQ",
    ),
    Row(
        "texts, as bags of words",
        "`TextHasher(bits=32).fit(texts, y)`",
        "g",
        "psh",
        32,
        {"train": ""},
        ("P@100",),
        "class-byte",
        "predicted class in one byte",
    ),
    Row(
        "edges between users and items",
        "`GraphHasher(bits=32).fit(edges)`",
        "h",
        "graph",
        32,
        {"films": ""},
        ("R@50",),
        "mf-itq",
        "ITQ of factors",
    ),
    Row(
        "pairs of two modalities, with labels",
        "`CrossModalHasher(bits=64).fit(first, second, Y)`",
        "i-movielens",
        "rmsh",
        64,
        {"tags": "ratings find tags: ", "ratings": "tags find ratings: "},
        ("NDCG@50",),
        "cca-itq",
        "CCA, ITQ",
    ),
)


def which_method(runs: Mapping[tuple[str, str, int], Sequence[Run]]) -> list[str]:
    """Lines of the table, without rows whose runs are missing."""
    lines = ["", "| what you have | what to use | result | another method | measured in |", "|---" * 5 + "|"]
    for row in ROWS:
        found, rival = (runs.get((row.task, name, row.bits), []) for name in (row.method, row.beside))
        if found and rival:
            beside = f"{_reached(row, rival)} ({row.beside_title})"
            cells = [row.have, row.use, _reached(row, found), beside, f"task {row.task}, {row.bits} bits"]
            lines.append("| " + " | ".join(cells) + " |")
    return lines


def _reached(row: Row, each: Sequence[Run]) -> str:
    """Means over the seeds, for each side."""
    texts = []
    for side, label in row.sides.items():
        given = [run["metrics"].get(side) or run["metrics"][f"codes {side}"] for run in each]
        values = [(name, [metrics.get(name) for metrics in given]) for name in row.metrics]
        known = [f"{name} {statistics.fmean(v):.3f}" for name, v in values if None not in v]
        texts.append(label + ", ".join(known))
    return "; ".join(texts)
