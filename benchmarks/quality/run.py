"""Trains and measures: chooses settings on validation data, then writes one line of results for each run."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from benchmarks.kit import machine
from benchmarks.quality import results
from benchmarks.quality.measure import (
    asymmetric_distances,
    code_distances,
    hierarchical_score,
    histogram,
    measure_classes,
    measure_groups,
    output_distances,
)
from benchmarks.quality.methods import METHODS, Method, Model, Settings
from benchmarks.quality.results import FOLDER
from benchmarks.quality.tasks import Items, Task
from fasthash.evaluate import code_statistics

TUNING_BITS, TUNING_SEED = 64, 100


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
            model = method.fit(task, task.train, bits, seed, settings)
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
                "histogram": histogram(model.outputs(task.test[0].X)),
            }
            results.put(folder, result)
            bar.update()
    return len(left)


def choose(task: Task, method: Method, bits: int, folder: Path) -> Settings:
    """The best of a method's settings on validation data (of its base's, for an ablation).

    They are chosen once for all widths, at TUNING_BITS; for captions, whose widths come near that of the inputs, at
    each width.
    """
    named = next(m for m in METHODS if m.name == (method.base or method.name))
    candidates = named.elsewhere.get(task.name, named.settings)
    if len(candidates) == 1:
        return dict(candidates[0])
    bits = TUNING_BITS if TUNING_BITS in task.widths else bits
    name = {"kind": "tuning", "task": task.name, "method": named.name, "bits": bits, "seed": TUNING_SEED}
    tried = results.find(results.read(folder, task.name), **name) or {**name, "scores": {}}
    for settings in candidates:
        key = json.dumps(settings, sort_keys=True)
        if key not in tried["scores"]:
            rows = task.validation_train or task.train
            model = named.fit(task, rows, bits, TUNING_SEED, settings)
            tried["scores"][key] = validation_score(task, model, bits)
            results.put(folder, tried)
    keys = [json.dumps(settings, sort_keys=True) for settings in candidates]
    best = max(range(len(keys)), key=lambda i: float(tried["scores"][keys[i]]))
    return dict(candidates[best])


def validation_score(task: Task, model: Model, bits: int) -> float:
    """What settings are chosen by: with classes mAHP@250 of codes; without, the mean of R@10 and overlap@10.

    With as many bits as inputs, where signs of the inputs are the rival, overlap@10 does not count.
    """
    query, databases = task.validation
    database = next(iter(databases.values()))
    if task.kind == "groups":
        found = measure_groups(code_distances(model.codes(database.X)), task, "validation")
        return found["R@10"] if bits == database.X.shape[1] else (found["R@10"] + found["overlap@10"]) / 2
    codes = model.codes(query.X), model.codes(database.X)
    return hierarchical_score(*codes, (query, database), task.similarity)


def measure(task: Task, model: Model, bits: int) -> dict[str, dict[str, float]]:
    """Metrics on test queries, by what was searched: "codes train", "outputs train" ..., rounded to 5 digits."""
    found: dict[str, dict[str, float]] = {}
    if task.kind == "groups":
        database = task.test[1]["all"]
        u = model.outputs(database.X)
        codes = model.codes(database.X)
        found["codes all"] = measure_groups(code_distances(codes), task, "test") | code_statistics(codes, bits)
        queries = u if model.queries is None else model.queries(database.X)
        found["asymmetric all"] = measure_groups(asymmetric_distances(queries, codes, bits), task, "test")
        if model.queries is not None:  # what the outputs themselves would give
            saturated = measure_groups(asymmetric_distances(u, codes, bits), task, "test")
            found["asymmetric all"]["R@10 saturated"] = saturated["R@10"]
        found["outputs all"] = measure_groups(output_distances(u, model.metric), task, "test")
        return _rounded(found)
    for name, sides in _sides(task):
        codes = model.codes(sides[0].X), model.codes(sides[1].X)
        found[f"codes {name}"] = measure_classes(*codes, sides, task.similarity, metric=None, bits=bits, inputs=True)
        if name in ("val", "held out"):
            continue  # outputs are measured once: what rounding costs does not depend on the database
        u = model.outputs(sides[0].X), model.outputs(sides[1].X)
        found[f"outputs {name}"] = measure_classes(
            *u, sides, task.similarity, metric=model.metric, bits=bits, inputs=False
        )
    return _rounded(found)


def floors(task: Task, folder: Path = FOLDER) -> None:
    """What random ranking, coarse labels alone and real-valued input cosine give: once for each task."""
    if results.find(results.read(folder, task.name), kind="floors"):
        return
    found: dict[str, dict[str, float]] = {}
    if task.kind == "groups":
        X = task.test[1]["all"].X
        found["input cosine all"] = measure_groups(output_distances(X, "cosine"), task, "test")
        found["random all"] = measure_groups(lambda rows: torch.zeros(len(rows), len(X)), task, "test")
    else:
        similarity = task.similarity
        for name, sides in _sides(task):
            same = [np.zeros((len(items.y), 1), dtype=np.uint8) for items in sides]
            found[f"random {name}"] = measure_classes(*same, sides, similarity, metric=None, bits=8, inputs=False)
            X = [items.flat for items in sides]
            found[f"input cosine {name}"] = measure_classes(
                *X, sides, similarity, metric="cosine", bits=8, inputs=False
            )
            if task.hierarchy is not None:
                coarse = _coarse(similarity)
                codes = [np.packbits(np.eye(coarse.max() + 1, dtype=np.uint8)[coarse[i.y]], axis=1) for i in sides]
                bits = 8 * codes[0].shape[1]
                found[f"coarse labels {name}"] = measure_classes(
                    *codes, sides, similarity, metric=None, bits=bits, inputs=False
                )
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


def _sides(task: Task) -> Iterator[tuple[str, tuple[Items, Items]]]:
    """For each database of the test its name, the queries that are asked in it, and the database."""
    query, databases = task.test
    for name, database in databases.items():
        yield name, (task.seen if name == "seen" and task.seen is not None else query, database)


def _coarse(similarity: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Groups of classes at the coarsest level that has more than one."""
    from fasthash.targets import class_levels

    coarse: np.ndarray[Any, Any] = class_levels(1.0 - similarity, limit=64)[-1].numpy()
    return coarse


def _fits(method: Method, task: Task, bits: int) -> bool:
    if task.name not in method.tasks:
        return False
    width = task.train.flat.shape[1] if task.kind != "images" else np.inf
    return bits == width if method.name == "sign" else bits <= width


def _rounded(found: dict[str, dict[str, float]]) -> dict[str, dict[str, float | None]]:
    return {
        side: {name: None if math.isnan(value) else round(value, 5) for name, value in metrics.items()}
        for side, metrics in found.items()
    }
