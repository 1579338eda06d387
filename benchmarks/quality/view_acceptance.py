"""What CIMON is meant to show on images without labels, and whether the runs do."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from typing import Any

Runs = dict[tuple[str, str, int], list[dict[str, Any]]]
METHOD, ITQ = "cimon", "views-itq"
RIVALS = {"views-sdc": "SDC", "views-bihalf": "BiHalf"}
TERMS = {
    "no-confidence": "the confidence (W1 = 1)",
    "no-clusters": "the clusters (W2 = 1)",
    "no-contrast": "NT-Xent",
    "one-view": "the second view",
}  # ablations, and what is left out
BITS = 64
ABOVE_ITQ, SLACK, LESS, NEEDED = 0.10, 0.005, 0.01, 2


def view_acceptance(runs: Runs, task: str) -> list[str]:
    """Markdown tables: the acceptance sentences of CIMON with pass or fail, and what each ablation costs."""
    if (task, METHOD, BITS) not in runs:
        return []
    lines = [f"Acceptance of CIMON at {BITS} bits, by mAP over the whole database, means over seeds.", ""]
    lines += ["| what | here | to reach | |", "|---|---|---|---|"]
    for text, value, limit, passed in _sentences(runs, task):
        lines.append(f"| {text} | {value} | {limit} | {'pass' if passed else '**fail**'} |")
    lines += ["", "| without | mAP | difference from the whole |", "|---|---|---|"]
    whole = _mean(runs, task, METHOD)
    lines.append(f"| nothing | {whole:.4f} ±{_deviation(runs, task, METHOD):.4f} | |")
    for name, title in _ablations(runs, task):
        changed = _mean(runs, task, name)
        lines.append(f"| {title} | {changed:.4f} ±{_deviation(runs, task, name):.4f} | {changed - whole:+.4f} |")
    return [*lines, ""]


def _sentences(runs: Runs, task: str) -> Iterator[tuple[str, str, str, bool]]:
    """What is said, the value, what it has to reach, whether it does."""
    whole = _mean(runs, task, METHOD)
    if (task, ITQ, BITS) in runs:
        ahead = whole - _mean(runs, task, ITQ)
        yield (
            "mAP less that of ITQ of what pairs are mined from",
            f"{ahead:+.4f}",
            f"> {ABOVE_ITQ:.2f}",
            ahead > ABOVE_ITQ,
        )
    for name, title in RIVALS.items():
        if (task, name, BITS) in runs:
            ahead = whole - _mean(runs, task, name)
            yield f"mAP less that of {title}", f"{ahead:+.4f}", "> 0", ahead > 0
    costs = [(title, whole - _mean(runs, task, name)) for name, title in _ablations(runs, task)]
    for title, cost in costs:
        yield f"mAP gained by {title}", f"{cost:+.4f}", f">= {-SLACK}", cost >= -SLACK
    if costs:
        count = sum(cost >= LESS for _, cost in costs)
        yield f"parts that gain at least {LESS}", str(count), f">= {NEEDED}", count >= NEEDED
    for view, found in runs[task, METHOD, BITS][0]["reached"].items():
        before, after = found["precision of pairs"], found["precision of pairs kept"]
        yield (
            f"precision of {view}, after refinement (before: {before:.3f})",
            f"{after:.3f}",
            f"> {before:.3f}",
            after > before,
        )


def _ablations(runs: Runs, task: str) -> list[tuple[str, str]]:
    named = [(f"{METHOD}-{name}", title) for name, title in TERMS.items()]
    return [(name, title) for name, title in named if (task, name, BITS) in runs]


def _values(runs: Runs, task: str, method: str) -> list[float]:
    return [run["metrics"]["codes all"]["mAP"] for run in runs[task, method, BITS]]


def _mean(runs: Runs, task: str, method: str) -> float:
    return statistics.fmean(_values(runs, task, method))


def _deviation(runs: Runs, task: str, method: str) -> float:
    values = _values(runs, task, method)
    return statistics.stdev(values) if len(values) > 1 else 0.0
