"""What RMSH is meant to show on task i, and whether the runs do; what each ablation costs."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from typing import Any

from benchmarks.quality.cross_modal_task import AT
from benchmarks.quality.methods import METHODS

Runs = dict[tuple[str, str, int], list[dict[str, Any]]]
MAIN = f"NDCG@{AT}"
MORE, NEAR = 0.02, 0.8  # above CCA and ITQ; of delta
SWEEP = {  # inside: between half of delta and the upper bound
    "rmsh-delta-1": ("1", False),
    "rmsh-delta-half": ("half of delta", True),
    "rmsh": ("delta", True),
    "rmsh-delta-upper": ("the upper bound", True),
    "rmsh-delta-k-2": ("K / 2", False),
}


def cross_modal_acceptance(runs: Runs, task: str) -> list[str]:
    """Two markdown tables: the acceptance sentences of RMSH with pass or fail, and its ablations."""
    lines = [
        f"Acceptance of RMSH, by {MAIN} of codes, mean over both directions and over seeds. The spread is the sum of "
        "both standard deviations. The first two lines must pass on one of the two data sets. Delta is the "
        "Gilbert-Varshamov distance.",
        "",
        "| bits | what | here | to reach | |",
        "|---|---|---|---|---|",
    ]
    widths = sorted({bits for name, _, bits in runs if name == task})
    for bits in widths:
        for text, value, limit, passed in _sentences(runs, task, bits):
            lines.append(f"| {bits} | {text} | {value:.4f} | {limit} | {'pass' if passed else '**fail**'} |")
    lines += [
        "",
        f"Ablations, by {MAIN} of codes. *idle*: the difference is at most the spread.",
        "",
        "| bits | method | whole | changed | difference | spread | |",
        "|---|---|---|---|---|---|---|",
    ]
    for bits in widths:
        for method in METHODS:
            if method.base is not None and (task, method.name, bits) in runs and (task, method.base, bits) in runs:
                whole, changed = (_values(runs, task, name, bits) for name in (method.base, method.name))
                difference = statistics.fmean(changed) - statistics.fmean(whole)
                spread = _deviation(whole) + _deviation(changed)
                what = "idle" if abs(difference) <= spread else "helps to leave out" if difference > 0 else "needed"
                lines.append(
                    f"| {bits} | {method.title} | {statistics.fmean(whole):.4f} | {statistics.fmean(changed):.4f} | "
                    f"{difference:+.4f} | {spread:.4f} | {what} |"
                )
    return [*lines, ""]


def _sentences(runs: Runs, task: str, bits: int) -> Iterator[tuple[str, float, str, bool]]:
    """What is said, the value, what it has to reach, whether it does."""
    names = {name for each, name, width in runs if (each, width) == (task, bits)}
    if "rmsh" not in names:
        return
    values = {name: _values(runs, task, name, bits) for name in names}
    mean = {name: statistics.fmean(each) for name, each in values.items()}
    here = mean["rmsh"]
    if "cca-itq" in names:
        limit = mean["cca-itq"] + MORE
        yield f"above CCA, ITQ + {MORE}", here, f"{limit:.4f}", here > limit
    if "pairs-fixed" in names:
        limit = mean["pairs-fixed"] + _deviation(values["rmsh"]) + _deviation(values["pairs-fixed"])
        yield "above triplets with the margin K / 4, beyond the spread", here, f"{limit:.4f}", here > limit
    delta, upper = (_of(runs, task, bits, name) for name in ("delta", "upper"))
    between = f"{NEAR * delta:.1f} to {upper:.0f}"
    for title, metric in (("test", "far"), ("training", "far, training")):
        distance = _of(runs, task, bits, metric)
        text = f"5 % quantile of the distances of {title} rows without a label in common"
        yield text, distance, between, NEAR * delta <= distance <= upper
    if set(SWEEP) <= names:
        best = max(SWEEP, key=mean.__getitem__)
        inside = " or ".join(title for title, good in SWEEP.values() if good)
        yield f"delta: the best of five is {SWEEP[best][0]}", mean[best], inside, SWEEP[best][1]
    if "rmsh-no-pseudo" in names:
        without = values["rmsh-no-pseudo"]
        limit = here + _deviation(values["rmsh"]) + _deviation(without)
        value = mean["rmsh-no-pseudo"]
        yield "without pseudo-codes not better, beyond the spread", value, f"at most {limit:.4f}", value <= limit
    if "pairs-ours" in names:
        best = max((name for name in names if name != "pairs-ours" and "rmsh-" not in name), key=mean.__getitem__)
        limit = mean[best] - _deviation(values[best]) - _deviation(values["pairs-ours"])
        title = next(m.title for m in METHODS if m.name == best)
        text = f"fasthash, labels: no other method is better beyond the spread ({title})"
        yield text, mean["pairs-ours"], f"{limit:.4f}", mean["pairs-ours"] >= limit


def _values(runs: Runs, task: str, method: str, bits: int) -> list[float]:
    """Of each run the mean of both ways."""
    return [
        statistics.fmean(scores[MAIN] for side, scores in run["metrics"].items() if side.startswith("codes"))
        for run in runs[task, method, bits]
    ]


def _of(runs: Runs, task: str, bits: int, metric: str) -> float:
    """A metric that both ways share, of RMSH."""
    return statistics.fmean(
        next(scores[metric] for side, scores in run["metrics"].items() if side.startswith("codes"))
        for run in runs[task, "rmsh", bits]
    )


def _deviation(values: list[float]) -> float:
    return statistics.stdev(values) if len(values) > 1 else 0.0
