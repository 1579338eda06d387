"""Task f, several labels for each row: its rows, and what is measured by the number of labels in common."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.quality.tasks import Items, Task
from fasthash.datasets import coco_captions
from fasthash.metrics.expectation import average_precision, discounted_sum, ratio, sums_at
from fasthash.metrics.ranking import Ranking

Array = NDArray[Any]
AT = 100
IMAGES = {"train": 700, "validation": 142}  # the others are test


def task_f(data: Path) -> Task:
    """COCO captions of the images with labels of 80 objects; split by image."""
    folder = data / "coco_captions_val2017"
    captions = coco_captions(folder)
    with np.load(folder / "labels80_partial.npz", allow_pickle=False) as arrays:
        images, labels = arrays["image_id"], arrays["multi_hot"].astype(np.uint8)
    order = np.random.default_rng(0).permutation(len(images))
    ends = np.cumsum(list(IMAGES.values()))
    place = np.argsort(images)
    row = place[np.searchsorted(images, captions.images, sorter=place).clip(max=len(images) - 1)]
    has_labels = images[row] == captions.images
    train, validation, test = (
        Items(captions.embeddings[rows], labels[row[rows]])
        for rows in (np.flatnonzero(has_labels & np.isin(row, part)) for part in np.split(order, ends))
    )
    return Task(
        "f",
        f"COCO captions with labels of 80 objects: {', '.join(map(str, IMAGES.values()))} and "
        f"{len(images) - ends[-1]} images to fit, to validate and as queries",
        "multilabel",
        train,
        {"train": (validation, train)},
        {"train": (test, train)},
        (32, 64),
        notes=(
            f"Queries: {len(test.y):,} captions. Database: the {len(train.y):,} training captions. "
            f"{labels.sum(1).mean():.2f} labels for each image, {len(np.unique(labels, axis=0))} different label "
            "sets. The labels are known for 1,142 of 5,000 images",
            "NDCG@100: the gain is 2^r - 1, where r is the number of common labels. ACG@100: mean r of the first "
            "100. mAP: captions with r >= 1 are relevant. Settings are chosen by NDCG@100 of codes",
        ),
    )


def measure_multilabel(ranking: Ranking) -> dict[str, float]:
    """NDCG@100, ACG@100 and mAP, exact over ties; at the size of the database where that is smaller."""
    labels, at = ranking.labels, min(AT, ranking.eligible)
    best = ranking.ideal(labels.exponential, lambda counts, sums: discounted_sum(counts, sums, at))
    sums = dict.fromkeys((f"NDCG@{AT}", f"ACG@{AT}", "mAP"), 0.0)
    ranks = torch.tensor([at])
    for groups in ranking.blocks(labels.exponential, labels.shared, labels.relevant):
        gain, shared, relevant = groups.sums
        sums[f"NDCG@{AT}"] += float(ratio(discounted_sum(groups.counts, gain, at), best[groups.rows]).sum())
        sums[f"ACG@{AT}"] += float(sums_at(groups.counts, shared, ranks).sum()) / at
        sums["mAP"] += float(average_precision(groups.counts, relevant).sum())
    return {name: total / len(ranking.query) for name, total in sums.items()}
