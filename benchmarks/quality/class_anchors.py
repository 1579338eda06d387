"""python -m benchmarks.quality.class_anchors: what Class Anchor Margin has to show on clinc150 (docs/method.md).

With and without its repeller, and the search in two stages against the exhaustive one; three seeds on task a, with the
settings that `python -m benchmarks.quality --task a --method class_anchor_margin` chose on validation data. Does what
is missing in benchmarks/results/class-anchors.json. CE's values are those of benchmarks/results/quality/a.jsonl.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.kit import machine
from benchmarks.quality import results
from benchmarks.quality.fits import Model
from benchmarks.quality.measure import array_ranking, measure_classes
from benchmarks.quality.methods import METHODS
from benchmarks.quality.run import choose
from benchmarks.quality.tasks import Pair, task_a
from fasthash import Hasher, pack_bits
from fasthash.index import AnchorIndex
from fasthash.losses.published import ClassAnchorMarginLoss
from fasthash.metrics.ranking import Ranking
from fasthash.train import Objective

FILE = Path(__file__).resolve().parents[1] / "results" / "class-anchors.json"
NEAR_ZERO = 0.1  # deviation of anchors that begin as normal numbers in the place of rows of Hadamard
ABLATIONS: dict[str, tuple[dict[str, float], bool]] = {  # what is changed, and whether anchors begin near zero
    "whole": ({}, False),
    "no repeller": ({"repel": 0.0}, False),
    "centre loss": ({"repel": 0.0, "min_norm": 0.0}, False),
    "whole, from near zero": ({}, True),
    "no repeller, from near zero": ({"repel": 0.0}, True),
}


def precision(ids: Any, sides: Pair) -> float:
    """P@10, the mean part of the ten that is of the query's class; a missing place is of none."""
    query, database = sides
    return float(((ids >= 0) & (database.y[ids] == query.y[:, None])).mean())


def two_stages(codes: list[Any], anchors: Any, sides: Pair) -> dict[str, Any]:
    index = AnchorIndex(anchors, codes[1])
    found: dict[str, Any] = {"exhaustive": precision(index.search(codes[0], 10, len(anchors)).ids, sides)}
    for probes in (1, 3):
        compared = len(anchors) + index.sizes[index.nearest_anchors(codes[0], probes)].sum(1)
        found[f"{probes} probed"] = precision(index.search(codes[0], 10, probes).ids, sides)
        found[f"{probes} probed, part of the comparisons"] = float(compared.mean() / len(index))
    return found


def study(bits: int, seed: int) -> dict[str, Any]:
    task, method = task_a(Path()), next(m for m in METHODS if m.name == "class_anchor_margin")
    settings, sides = choose(task, method, bits, results.FOLDER), task.test["train"]
    found: dict[str, Any] = {"bits": bits, "seed": seed, "settings": settings}
    for name, (change, near_zero) in ABLATIONS.items():
        own = {key.removeprefix("loss."): value for key, value in settings.items() if key.startswith("loss.")}
        rest = {key: value for key, value in settings.items() if not key.startswith("loss.")}
        loss = ClassAnchorMarginLoss(bits, 150, **{**own, **change})
        if near_zero:
            torch.nn.init.normal_(loss.anchors, std=NEAR_ZERO, generator=torch.Generator().manual_seed(seed))
        hasher = Hasher(bits, seed=seed, progress=False, loss=loss, **rest).fit(task.train.X, task.train.y)
        network, trained = hasher.module_[0], hasher.loss_
        assert isinstance(trained, ClassAnchorMarginLoss)
        with torch.no_grad():
            u = [network(torch.from_numpy(items.X)).numpy() for items in sides]
        codes = [pack_bits(values, threshold=0.0) for values in u]
        measured: dict[str, Ranking] = {
            "codes": array_ranking(codes, sides),
            "outputs, L2": array_ranking(u, sides, "l2"),
        }
        found[name] = {
            **{key: measure_classes(ranking, task.similarity)["mAP"] for key, ranking in measured.items()},
            "mean distance of anchors": float(torch.pdist(trained.anchors.detach()).mean()),
        }
        if name == "whole":
            found["codes in two stages"] = two_stages(codes, trained.codes().numpy(), sides)
            found["outputs in two stages"] = two_stages(u, trained.anchors.detach().numpy(), sides)
    return found


def cross_entropy(bits: int, seed: int) -> dict[str, float]:
    """Outputs of CE, sign: by cosine as in a.jsonl, and by L2."""
    task, method = task_a(Path()), next(m for m in METHODS if m.name == "ce")
    model = method.fit(task, task.train, bits, seed, choose(task, method, bits, results.FOLDER))
    assert isinstance(model, Model)
    sides = task.test["train"]
    u = [model.outputs(items.X) for items in sides]
    return {
        metric: measure_classes(array_ranking(u, sides, metric), task.similarity)["mAP"] for metric in ("cosine", "l2")
    }


def step_seconds(batch: int = 256, bits: int = 64, classes: int = 150, steps: int = 100) -> dict[str, float]:
    """Median seconds of loss and backward: this project's objective, and Class Anchor Margin, by turns."""
    torch.manual_seed(0)
    losses = {
        "objective": Objective(bits, classes=classes, distance=1.0 - torch.eye(classes)),
        "class_anchor_margin": ClassAnchorMarginLoss(bits, classes),
    }
    u, y = torch.randn(batch, bits, requires_grad=True), torch.randint(classes, (batch,))
    taken: dict[str, list[float]] = {name: [] for name in losses}
    for _ in range(steps):
        for name, loss in losses.items():
            start = time.perf_counter()
            loss(u.sigmoid() if name == "objective" else u, y).backward()
            taken[name].append(time.perf_counter() - start)
    return {name: statistics.median(times) for name, times in taken.items()}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quality.class_anchors")
    parser.add_argument("--bits", nargs="+", type=int, default=[32, 64])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    found: dict[str, Any] = {"machine": machine(), "step seconds": step_seconds(), "runs": []}
    if FILE.exists():
        found = json.loads(FILE.read_text(encoding="utf-8"))
    done = {(line["bits"], line["seed"]) for line in found["runs"]}
    for bits in options.bits:
        for seed in range(options.seeds):
            if (bits, seed) in done:
                continue
            line = study(bits, seed)
            line["CE outputs"] = cross_entropy(bits, seed)
            found["runs"].append(line)
            print(json.dumps(line), flush=True)
            FILE.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
