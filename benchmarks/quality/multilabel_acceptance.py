"""What RCDH, and its rivals on several labels, are meant to show on task f, and whether the runs do."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from typing import Any

from benchmarks.quality.methods import METHODS

Runs = dict[tuple[str, str, int], list[dict[str, Any]]]
MAIN = "NDCG@100"
METRICS = (MAIN, "ACG@100", "mAP")
RANDOM = 0.02  # above the random ranking by less: nothing was learned


def multilabel_acceptance(runs: Runs, floor: dict[str, Any]) -> list[str]:
    """Two markdown tables: the acceptance sentences of RCDH with pass or fail, and what each ablation costs."""
    lines = [
        "Acceptance of RCDH. NDCG@100 is at least that of DSRH, and at least 0.01 above that of BCE and sign. Without "
        "L_RC it is lower by at least 0.01. With the labels of other rows it falls to that of the random ranking. "
        "Acceptance of fasthash: no published loss is better by more than the spread, the sum of both standard "
        "deviations. Values are NDCG@100 of codes, unless a line names another metric; means over seeds:",
        "",
        "| bits | what | here | to reach | |",
        "|---|---|---|---|---|",
    ]
    widths = sorted({bits for task, _, bits in runs if task == "f"})
    for bits in widths:
        for text, value, limit, passed in _sentences(runs, floor, bits):
            lines.append(f"| {bits} | {text} | {value:.4f} | {limit} | {'pass' if passed else '**fail**'} |")
    lines += [
        "",
        "Ablations, by NDCG@100 of codes. *idle*: the difference is at most the spread.",
        "",
        "| bits | method | whole | changed | difference | spread | |",
        "|---|---|---|---|---|---|---|",
    ]
    for bits in widths:
        for method in METHODS:
            if method.base is not None and ("f", method.name, bits) in runs and ("f", method.base, bits) in runs:
                whole, changed = (_values(runs, name, bits) for name in (method.base, method.name))
                difference = statistics.fmean(changed) - statistics.fmean(whole)
                spread = _deviation(whole) + _deviation(changed)
                what = "idle" if abs(difference) <= spread else "helps to leave out" if difference > 0 else "needed"
                lines.append(
                    f"| {bits} | {method.title} | {statistics.fmean(whole):.4f} | {statistics.fmean(changed):.4f} | "
                    f"{difference:+.4f} | {spread:.4f} | {what} |"
                )
    return [*lines, ""]


def _sentences(runs: Runs, floor: dict[str, Any], bits: int) -> Iterator[tuple[str, float, str, bool]]:
    """What is said, the value, what it has to reach, whether it does."""
    mean = {name: statistics.fmean(_values(runs, name, bits)) for task, name, b in runs if (task, b) == ("f", bits)}
    if "rank_consistency" not in mean:
        return
    here = mean["rank_consistency"]
    for name, title, more in (("dsrh", "DSRH", 0.0), ("bce", "BCE, sign", 0.01)):
        if name in mean:
            limit = mean[name] + more
            yield f"RCDH at least {title}{f' + {more}' if more else ''}", here, f"{limit:.4f}", here >= limit
    if "rank_consistency-no-rank" in mean:
        without = mean["rank_consistency-no-rank"]
        yield "RCDH without L_RC lower by 0.01", without, f"at most {here - 0.01:.4f}", without <= here - 0.01
    if "rank_consistency-permuted" in mean:
        chance, permuted = floor["metrics"]["random train"][MAIN], mean["rank_consistency-permuted"]
        text = f"RCDH with labels of other rows falls to the random ranking (+ {RANDOM})"
        yield text, permuted, f"at most {chance + RANDOM:.4f}", permuted <= chance + RANDOM
    titles = {m.name: m.title for m in METHODS if m.base is None}
    rivals = [name for name in mean if name in titles and "ours" not in name]
    for metric in METRICS:
        score = {name: statistics.fmean(_values(runs, name, bits, metric)) for name in mean}
        best = max(rivals, key=score.__getitem__)
        for name in (name for name in ("ours", "ours-default") if name in mean):
            spread = sum(_deviation(_values(runs, each, bits, metric)) for each in (best, name))
            text = f"{titles[name]}: no published loss has a better {metric} beyond the spread ({titles[best]})"
            yield text, score[name], f"{score[best] - spread:.4f}", score[name] >= score[best] - spread


def _values(runs: Runs, method: str, bits: int, metric: str = MAIN) -> list[float]:
    return [run["metrics"]["codes train"][metric] for run in runs["f", method, bits]]


def _deviation(values: list[float]) -> float:
    return statistics.stdev(values) if len(values) > 1 else 0.0
