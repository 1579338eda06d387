"""What the codes are meant to reach, and whether the runs do: the first table of docs/results.md."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Iterator
from typing import Any

from benchmarks.quality.graded_acceptance import graded_goals

Runs = dict[tuple[str, str, int], list[dict[str, Any]]]
SECOND = ("features-itq", "ours-default")  # on images these begin where a network was trained already


def goals(runs: Runs, floors: dict[str, Any]) -> list[str]:
    """A markdown table: goal, value, limit, whether it is reached. Only what there are runs for."""
    lines = ["| goal | here | to reach | |", "|---|---|---|---|"]
    found = (
        *_hierarchy(runs),
        *_inside(runs),
        *_images(runs),
        *_open(runs),
        *_flat(runs),
        *_unseen(runs),
        *_noisy(runs),
        *_captions(runs, floors),
        *graded_goals(runs),
    )
    for text, value, limit, note in found:
        if math.isfinite(value) and math.isfinite(limit):
            lines.append(f"| {text} | {value:.4f} | {limit:.4f}{note} | {'yes' if value >= limit else '**no**'} |")
    return lines


def _values(runs: Runs, task: str, method: str, bits: int, side: str, metric: str) -> list[float]:
    found = [run["metrics"].get(side, {}).get(metric) for run in runs.get((task, method, bits), [])]
    return [value for value in found if value is not None]


def _mean(runs: Runs, *key: Any) -> float:
    values = _values(runs, *key)
    return statistics.fmean(values) if values else math.nan


def _spread(runs: Runs, *key: Any) -> float:
    values = _values(runs, *key)
    return statistics.stdev(values) if len(values) > 1 else 0.0


def _rival(runs: Runs, task: str, bits: int, side: str, metric: str) -> tuple[float, str]:
    """The best of the other methods that are trained in one go, and its name."""
    names = {m for t, m, b in runs if (t, b) == (task, bits) and "ours" not in m and m not in SECOND}
    found = [(_mean(runs, task, name, bits, side, metric), name) for name in sorted(names)]
    return max((pair for pair in found if math.isfinite(pair[0])), default=(math.nan, ""))


def _best_outputs(runs: Runs, task: str, names: set[str], bits: int, metric: str) -> float:
    real = [_mean(runs, task, name, bits, "outputs train", metric) for name in names]
    return max((value for value in real if math.isfinite(value)), default=math.nan)


def _hierarchy(runs: Runs) -> Iterator[tuple[str, float, float, str]]:
    for task, databases, metric, retention in (
        ("a", ("train", "val"), "mAHP@250", 0.993),
        ("b-reduced", ("train", "held out"), "mAHP@250", 0.99),
        ("b", ("train", "held out"), "mAHP@2500", 0.99),
    ):
        for bits in (32, 64):
            for database in databases:
                side = f"codes {database}"
                mine = _mean(runs, task, "ours", bits, side, metric)
                rival, name = _rival(runs, task, bits, side, metric)
                spread = _spread(runs, task, "ours", bits, side, metric) + _spread(runs, task, name, bits, side, metric)
                what = f"task {task}, {bits} bits, database {database}"
                yield f"{what}: {metric} above all others beyond the spread", mine, rival + spread, f" ({name})"
                rival, name = _rival(runs, task, bits, side, "mAP")
                yield f"{what}: mAP", _mean(runs, task, "ours", bits, side, "mAP"), rival - 0.01, f" ({name} - 0.01)"
            second = SECOND if task.startswith("b") else ()
            names = {m for t, m, b in runs if (t, b) == (task, bits)}
            kept = _mean(runs, task, "ours", bits, "codes train", metric) / _best_outputs(
                runs, task, names.difference(second), bits, metric
            )
            yield f"task {task}, {bits} bits: {metric} / best outputs of any method", kept, retention, ""


def _inside(runs: Runs) -> Iterator[tuple[str, float, float, str]]:
    """Classes, hierarchy and order inside a class at once, by the defaults."""
    for metric, limit in (("mAP", 0.958), ("mAHP@250", 0.973), ("overlap@10", 0.43)):
        value = _mean(runs, "a", "ours-default", 64, "codes train", metric)
        yield f"task a, 64 bits, database train, defaults: {metric}", value, limit, ""
    for metric, rival, less in (
        ("mAP", "ours-undivided", 0.005),
        ("mAHP@250", "ours-undivided", 0.005),
        ("overlap@10", "itq", 0.03),
    ):
        value, limit = (_mean(runs, "a", m, 64, "codes val", metric) for m in ("ours-default", rival))
        yield f"task a, 64 bits, database val, defaults: {metric}", value, limit - less, f" ({rival} - {less})"


def _images(runs: Runs) -> Iterator[tuple[str, float, float, str]]:
    """Hasher with its defaults on the features of a network, compared with that network's own codes."""
    for bits in (32, 64):
        what = f"task b-reduced, {bits} bits, defaults"
        for database in ("train", "held out"):
            mine, own = (
                _mean(runs, "b-reduced", m, bits, f"codes {database}", "mAHP@250") for m in ("ours-default", "ours")
            )
            yield f"{what}, database {database}: mAHP@250", mine, own, " (ours)"
        names = {m for t, m, b in runs if (t, b) == ("b-reduced", bits)}
        best = _best_outputs(runs, "b-reduced", names, bits, "mAHP@250")
        kept = _mean(runs, "b-reduced", "ours-default", bits, "codes train", "mAHP@250") / best
        yield f"{what}: mAHP@250 / best outputs of any method", kept, 0.99, ""
        for rival in ("ours", "itq", "features-itq"):
            task = "e-open-images-reduced"
            mine, other = (_mean(runs, task, m, bits, "codes unlabelled", "mAP") for m in ("ours-default", rival))
            yield f"task {task}, {bits} bits, defaults: mAP of unlabelled classes", mine, other, f" ({rival})"


def _open(runs: Runs) -> Iterator[tuple[str, float, float, str]]:
    for task, less, unlabelled in (("e-open", 0.0, 0.80), ("e-half", 0.03, 0.70)):
        what = f"task {task}, 64 bits, defaults: mAP of"
        note = f" (ours-undivided{f' - {less}' if less else ''})"
        value, limit = (_mean(runs, task, m, 64, "codes known", "mAP") for m in ("ours-default", "ours-undivided"))
        yield f"{what} known classes", value, limit - less, note
        value = _mean(runs, task, "ours-default", 64, "codes unlabelled", "mAP")
        yield f"{what} unlabelled classes", value, unlabelled, ""


def _flat(runs: Runs) -> Iterator[tuple[str, float, float, str]]:
    for task, bits, database in itertools.product(("c-reduced", "c"), (32, 64), ("train", "held out")):
        rival, name = _rival(runs, task, bits, f"codes {database}", "mAP")
        mine = _mean(runs, task, "ours", bits, f"codes {database}", "mAP")
        yield f"task {task}, {bits} bits, database {database}: mAP", mine, rival - 0.01, f" ({name} - 0.01)"


def _unseen(runs: Runs) -> Iterator[tuple[str, float, float, str]]:
    for task, bits in itertools.product(("e-unseen", "e-unseen-images-reduced", "e-unseen-images"), (32, 64)):
        for metric in ("mAHP@250", "mAP"):
            kept = _mean(runs, task, "ours-preserve", bits, "codes train", metric)
            itq = _mean(runs, task, "itq", bits, "codes train", metric)
            yield f"task {task}, unseen classes, {bits} bits: {metric} with preserve", kept, itq, " (itq)"
        seen = [_mean(runs, task, m, bits, "codes seen", "mAHP@250") for m in ("ours-preserve", "ours")]
        what = f"task {task}, seen classes, {bits} bits: mAHP@250 with preserve"
        yield what, seen[0], seen[1] - 0.02, " (without - 0.02)"


def _noisy(runs: Runs) -> Iterator[tuple[str, float, float, str]]:
    for bits in (32, 64):
        value = _mean(runs, "e-noisy", "noisy-ours", bits, "codes train", "mAHP@250")
        yield f"task e, noisy similarities, {bits} bits: mAHP@250", value, 0.945, ""


def _captions(runs: Runs, floors: dict[str, Any]) -> Iterator[tuple[str, float, float, str]]:
    for bits in (128, 256, 384):
        for metric, more in (("R@10", 0.0), ("overlap@10", 0.02)):
            if bits == 384 and more:
                continue
            best = [(_mean(runs, "d", m, bits, "codes all", metric), m) for m in ("sign", "rotation", "itq")]
            rival, name = max((pair for pair in best if math.isfinite(pair[0])), default=(math.nan, ""))
            mine = _mean(runs, "d", "captions-ours", bits, "codes all", metric)
            yield f"task d, {bits} bits: {metric}", mine, rival + more, f" ({name}{f' + {more}' if more else ''})"
    real = floors.get("d", {}).get("metrics", {}).get("input cosine all", {}).get("R@10", math.nan)
    value = _mean(runs, "d", "captions-ours", 384, "asymmetric all", "R@10")
    yield "task d, 384 bits, float query: R@10", value, 0.97 * real, " (97 % of real-valued)"
