"""What HashGNN is meant to show on task h, and whether the runs do; what each ablation costs."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from typing import Any

from benchmarks.quality.methods import METHODS
from benchmarks.quality.recommendation import K

Runs = dict[tuple[str, str, int], list[dict[str, Any]]]
RECALL = f"R@{K}"
RELATIVE, KEPT = 1.10, 0.95
PURE, RERANKED, OUTPUTS = "codes films", "reranked films", "outputs films"


def recommendation_acceptance(runs: Runs, floor: dict[str, Any]) -> list[str]:
    """Two markdown tables: the acceptance sentences of HashGNN with pass or fail, and its ablations."""
    lines = [
        f"Acceptance of HashGNN, by {RECALL}, means over seeds. Codes alone: at least 10 % above BPR-MF with sign, "
        "above BPR-MF with ITQ, and above codes from the start by more than the spread (the sum of both standard "
        "deviations). Re-ranked: at least 0.95 of the value of outputs alone, and above the most popular films:",
        "",
        "| bits | what | here | to reach | |",
        "|---|---|---|---|---|",
    ]
    widths = sorted({bits for task, _, bits in runs if task == "h"})
    for bits in widths:
        for text, value, limit, passed in _sentences(runs, floor, bits):
            lines.append(f"| {bits} | {text} | {value:.4f} | {limit:.4f} | {'pass' if passed else '**fail**'} |")
    lines += [
        "",
        f"Ablations, by {RECALL} of codes and of re-ranked codes. *idle*: the difference is at most the spread.",
        "",
        "| bits | method | | whole | changed | difference | spread | |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for bits in widths:
        for method in METHODS:
            if method.base is not None and ("h", method.name, bits) in runs and ("h", method.base, bits) in runs:
                for side, title in ((PURE, "codes"), (RERANKED, "re-ranked")):
                    whole, changed = (_values(runs, name, bits, side) for name in (method.base, method.name))
                    difference = statistics.fmean(changed) - statistics.fmean(whole)
                    spread = _deviation(whole) + _deviation(changed)
                    what = "idle" if abs(difference) <= spread else "helps to leave out" if difference > 0 else "needed"
                    lines.append(
                        f"| {bits} | {method.title} | {title} | {statistics.fmean(whole):.4f} | "
                        f"{statistics.fmean(changed):.4f} | {difference:+.4f} | {spread:.4f} | {what} |"
                    )
    return [*lines, ""]


def _sentences(runs: Runs, floor: dict[str, Any], bits: int) -> Iterator[tuple[str, float, float, bool]]:
    """What is said, the value, what it has to reach, whether it does."""
    names = {name for task, name, width in runs if (task, width) == ("h", bits)}
    if "graph" not in names:
        return
    here = _values(runs, "graph", bits, PURE)
    pure, reranked = statistics.fmean(here), statistics.fmean(_values(runs, "graph", bits, RERANKED))
    if "mf-sign" in names:
        limit = RELATIVE * statistics.fmean(_values(runs, "mf-sign", bits, PURE))
        yield "codes: at least 1.10 x BPR-MF, sign", pure, limit, pure >= limit
    if "mf-itq" in names:
        limit = statistics.fmean(_values(runs, "mf-itq", bits, PURE))
        yield "codes: above BPR-MF, ITQ", pure, limit, pure > limit
    if "graph-codes" in names:
        rival = _values(runs, "graph-codes", bits, PURE)
        limit = statistics.fmean(rival) + _deviation(rival) + _deviation(here)
        yield "codes: above codes from the start, beyond the spread", pure, limit, pure > limit
    if "graph-continuous" in names:
        limit = KEPT * statistics.fmean(_values(runs, "graph-continuous", bits, OUTPUTS))
        yield "re-ranked: at least 0.95 x outputs alone", reranked, limit, reranked >= limit
    popular = floor["metrics"]["most popular films"][RECALL]
    yield "re-ranked: above the most popular films", reranked, popular, reranked > popular


def _values(runs: Runs, method: str, bits: int, side: str) -> list[float]:
    return [run["metrics"][side][RECALL] for run in runs["h", method, bits]]


def _deviation(values: list[float]) -> float:
    return statistics.stdev(values) if len(values) > 1 else 0.0
