"""Trains and measures: chooses settings on validation data, then writes one line of results for each run."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from benchmarks.kit import machine
from benchmarks.quality import results
from benchmarks.quality.class_byte import ClassByte
from benchmarks.quality.cross_modal_task import CrossModal, measure_pairs, pair_floors, pair_score
from benchmarks.quality.few_shot import VALIDATED, measure_episodes
from benchmarks.quality.fits import Model, Settings
from benchmarks.quality.graded_task import Coder, graded_floors, graded_score, measure_graded
from benchmarks.quality.measure import (
    array_ranking,
    asymmetric_distances,
    class_score,
    code_distances,
    histogram,
    measure_classes,
    measure_codes,
    measure_groups,
    output_distances,
    weighted,
)
from benchmarks.quality.methods import METHODS, Method
from benchmarks.quality.multilabel_task import AT, measure_multilabel
from benchmarks.quality.recommendation import Recommender, edge_floors, edge_score, measure_edges
from benchmarks.quality.results import FOLDER
from benchmarks.quality.tasks import Pair, Task
from fasthash.evaluate import code_statistics

TUNING_BITS, TUNING_SEED = 64, 100
GRADED_TUNING = 128, 192, 256, 384, 512  # of task l: each for items of at least so many bits


def run(
    task: Task,
    methods: list[Method],
    widths: list[int],
    seeds: list[int],
    folder: Path = FOLDER,
) -> int:
    """Does what is missing of methods x widths x seeds on one task; gives the number of runs done."""
    runs = (line for line in results.read(folder, task.name) if line["kind"] == "run")
    done = {(run["method"], run["bits"], run["seed"]) for run in runs}
    wanted = [(m, bits, seed) for seed in seeds for bits in widths for m in methods if _fits(m, task, bits)]
    left = [(m, bits, seed) for m, bits, seed in wanted if (m.name, bits, seed) not in done]
    with tqdm(
        total=len(wanted),
        initial=len(wanted) - len(left),
        desc=f"task {task.name}",
        unit="run",
    ) as bar:
        for method, bits, seed in left:
            bar.set_postfix_str(f"{method.name} {bits} bits, seed {seed}")
            settings = {**choose(task, method, bits, folder), **method.changes.get(task.name, method.change)}
            start = time.perf_counter()
            model = method.fit(task, method.rows(task.train), bits, seed, settings)
            seconds = time.perf_counter() - start
            result = {
                "kind": "run",
                "task": task.name,
                "method": method.name,
                "bits": bits,
                "seed": seed,
                "settings": settings,
                "train_seconds": round(seconds, 2),
                "threads": torch.get_num_threads(),
                "machine": machine(),
                "metrics": measure(task, model, bits),
            }
            own = isinstance(model, (Recommender, CrossModal, Coder))
            if not own and model.bit_weights is not None:
                result["bit_weights"] = model.bit_weights
            if isinstance(model, Model) and model.reached is not None:
                result["reached"] = model.reached
            if not own and model.outputs is not None:
                result["histogram"] = histogram(model.outputs(next(iter(task.test.values()))[0].X))
            results.put(folder, result)
            bar.update()
    return len(left)


def choose(task: Task, method: Method, bits: int, folder: Path) -> Settings:
    """The best of a method's settings on validation data (of its base's, for an ablation).

    They are chosen once for all widths, at TUNING_BITS; for captions, whose widths come near that of the inputs, at
    each width; on task l at each up to 512 bits.
    """
    named = next(m for m in METHODS if m.name == (method.base or method.name))
    candidates = named.elsewhere.get(task.name, named.settings)
    if len(candidates) == 1:
        return dict(candidates[0])
    if task.kind == "graded":
        bits = max(width for width in GRADED_TUNING if width <= bits)
    else:
        bits = TUNING_BITS if TUNING_BITS in task.widths else bits
    name = {"kind": "tuning", "task": task.name, "method": named.name, "bits": bits, "seed": TUNING_SEED}
    tried = results.find(results.read(folder, task.name), **name) or {**name, "scores": {}}
    for settings in candidates:
        key = json.dumps(settings, sort_keys=True)
        if key not in tried["scores"]:
            rows = task.validation_train or task.train
            model = named.fit(task, named.rows(rows), bits, TUNING_SEED, settings)
            tried["scores"][key] = validation_score(task, model, bits)
            results.put(folder, tried)
    keys = [json.dumps(settings, sort_keys=True) for settings in candidates]
    best = max(range(len(keys)), key=lambda i: float(tried["scores"][keys[i]]))
    return dict(candidates[best])


def validation_score(task: Task, model: Model | ClassByte | Recommender | CrossModal | Coder, bits: int) -> float:
    """What settings are chosen by: with classes `task.score` of codes, with several labels for each row NDCG@100.

    In episodes, the accuracy of outputs; with edges R@50; of two modalities NDCG@50, the mean of both ways; graded
    nDCG@10. Without any, the mean of R@10 and overlap@10.

    With as many bits as inputs, where signs of the inputs are the rival, overlap@10 does not count.
    """
    if isinstance(model, Recommender):
        return edge_score(task, model)
    if isinstance(model, Coder):
        return graded_score(task, model)
    if isinstance(model, CrossModal):
        return pair_score(task, model, bits)
    if task.kind == "groups":
        database = task.validation["all"][1]
        found = measure_groups(code_distances(model.codes(database.X), model.bit_weights), task, "validation")
        return found["R@10"] if bits == database.X.shape[1] else (found["R@10"] + found["overlap@10"]) / 2
    if task.kind == "multilabel":
        assert isinstance(model, Model)
        return float(np.mean([_several(model, sides)[f"NDCG@{AT}"] for sides in task.validation.values()]))
    if task.episodes is not None:
        assert isinstance(model, Model)
        items = task.validation["episodes"][0]
        return measure_episodes(model.outputs(items.X), items.y, task.episodes, VALIDATED)["accuracy"]
    return class_score(model, task.validation, task.score, task.similarity)


def measure(
    task: Task, model: Model | ClassByte | Recommender | CrossModal | Coder, bits: int
) -> dict[str, dict[str, float]]:
    """Metrics on test queries, by what was searched: "codes train", "outputs train" ..., rounded to 5 digits.

    "free train": codes of queries in the free codes of the training rows, where a method has them.
    """
    found: dict[str, dict[str, float]] = {}
    if isinstance(model, Recommender):
        return _rounded(measure_edges(task, model, "test"))
    if isinstance(model, Coder):
        return _rounded(measure_graded(task, model, "test"))
    if isinstance(model, CrossModal):
        return _rounded(measure_pairs(task, model, "test", bits))
    if task.kind == "groups":
        assert isinstance(model, Model)
        database = task.test["all"][1]
        u = weighted(model.outputs(database.X), model.bit_weights)
        codes = model.codes(database.X)
        distances = code_distances(codes, model.bit_weights)
        found["codes all"] = measure_groups(distances, task, "test") | code_statistics(codes, bits)
        queries = u if model.queries is None else weighted(model.queries(database.X), model.bit_weights)
        found["asymmetric all"] = measure_groups(asymmetric_distances(queries, codes, bits), task, "test")
        if model.queries is not None:  # what the outputs themselves would give
            saturated = measure_groups(asymmetric_distances(u, codes, bits), task, "test")
            found["asymmetric all"]["R@10 saturated"] = saturated["R@10"]
        found["outputs all"] = measure_groups(output_distances(u, model.metric), task, "test")
        return _rounded(found)
    if task.kind == "multilabel":
        assert isinstance(model, Model)
        for name, sides in task.test.items():
            found[f"codes {name}"] = _several(model, sides) | code_statistics(model.codes(sides[1].X), bits)
            outputs = [model.outputs(items.X) for items in sides]
            found[f"outputs {name}"] = measure_multilabel(array_ranking(outputs, sides, model.metric))
        return _rounded(found)
    if task.episodes is not None:
        assert isinstance(model, Model)
        items = task.test["episodes"][0]
        u = model.outputs(items.X)
        for name, rows in (("outputs", u), ("codes", np.where(u > 0, 1.0, -1.0))):
            found[f"{name} episodes"] = measure_episodes(rows, items.y, task.episodes, task.episodes.tested)
        return _rounded(found)
    for name, sides in task.test.items():
        found[f"codes {name}"] = measure_codes(model, sides, task.similarity, bits)
        if isinstance(model, Model) and model.free is not None and name == "train":
            codes = model.codes(sides[0].X), model.free
            found["free train"] = measure_classes(array_ranking(codes, sides), task.similarity)
        if model.outputs is None or not task.outputs or name in ("val", "held out"):
            continue  # outputs are measured once: what rounding costs does not depend on the database
        outputs = [weighted(model.outputs(items.X), model.bit_weights) for items in sides]
        found[f"outputs {name}"] = measure_classes(array_ranking(outputs, sides, model.metric), task.similarity)
    return _rounded(found)


def _several(model: Model, sides: Pair) -> dict[str, float]:
    return measure_multilabel(array_ranking([model.codes(items.X) for items in sides], sides))


def floors(task: Task, folder: Path = FOLDER) -> None:
    """What random ranking, coarse labels alone and real-valued input cosine give: once for each task."""
    if results.find(results.read(folder, task.name), kind="floors"):
        return
    found: dict[str, dict[str, float]] = {}
    if task.kind == "edges":
        found = edge_floors(task)
    elif task.kind == "pairs":
        found = pair_floors(task)
    elif task.kind == "graded":
        found = graded_floors(task)
    elif task.kind == "groups":
        X = task.test["all"][1].X
        found["input cosine all"] = measure_groups(output_distances(X, "cosine"), task, "test")
        found["random all"] = measure_groups(lambda rows: torch.zeros(len(rows), len(X)), task, "test")
    elif task.kind == "multilabel":
        for name, sides in task.test.items():
            same = [np.zeros((len(items.y), 1), dtype=np.uint8) for items in sides]
            found[f"random {name}"] = measure_multilabel(array_ranking(same, sides))
            inputs = [items.flat for items in sides]
            found[f"input cosine {name}"] = measure_multilabel(array_ranking(inputs, sides, "cosine"))
    elif task.episodes is not None:
        items = task.test["episodes"][0]
        X, count = items.flat, task.episodes.tested
        found["random episodes"] = {"accuracy": 1 / task.episodes.way}
        found["real-valued inputs episodes"] = measure_episodes(X, items.y, task.episodes, count)
        signs = np.where(X - task.train.flat.mean(axis=0) > 0, 1.0, -1.0)
        found[f"sign(x - mean), {X.shape[1]} bits episodes"] = measure_episodes(signs, items.y, task.episodes, count)
    else:
        similarity = task.similarity
        for name, sides in task.test.items():
            same = [np.zeros((len(items.y), 1), dtype=np.uint8) for items in sides]
            found[f"random {name}"] = measure_classes(array_ranking(same, sides), similarity)
            inputs = [items.flat for items in sides]
            found[f"input cosine {name}"] = measure_classes(array_ranking(inputs, sides, "cosine"), similarity)
            if task.hierarchy is not None:
                coarse = _coarse(similarity)
                codes = [np.packbits(np.eye(coarse.max() + 1, dtype=np.uint8)[coarse[i.y]], axis=1) for i in sides]
                found[f"coarse labels {name}"] = measure_classes(array_ranking(codes, sides), similarity)
    results.put(
        folder,
        {
            "kind": "floors",
            "task": task.name,
            "title": task.title,
            "notes": list(task.notes),
            "metrics": _rounded(found),
        },
    )


def _coarse(similarity: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Groups of classes at the coarsest level that has more than one."""
    from fasthash.targets import class_levels

    coarse: np.ndarray[Any, Any] = class_levels(1.0 - similarity, limit=64)[-1].numpy()
    return coarse


def _fits(method: Method, task: Task, bits: int) -> bool:
    if task.name not in method.tasks or (method.widths is not None and bits not in method.widths):
        return False
    width = task.train.flat.shape[1] if task.kind not in ("images", "edges", "pairs", "graded") else np.inf
    return bits == width if method.name == "sign" else bits <= width


def _rounded(found: dict[str, dict[str, float]]) -> dict[str, dict[str, float | None]]:
    return {
        side: {name: None if math.isnan(value) else round(value, 5) for name, value in metrics.items()}
        for side, metrics in found.items()
    }
