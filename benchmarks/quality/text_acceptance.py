"""What pairwise supervised hashing (PSH) is meant to show on task g, and whether the runs do."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from typing import Any

from benchmarks.quality.methods import METHODS

Runs = dict[tuple[str, str, int], list[dict[str, Any]]]
MAIN = "P@100"


def text_acceptance(runs: Runs) -> list[str]:
    """Two markdown tables: the acceptance sentences of PSH with pass or fail, and what each ablation costs."""
    lines = [
        "Acceptance of PSH, by P@100 of codes, means over seeds. tests/test_gradients.py compares ARM and DisARM with "
        "enumeration: the mean of both is the exact gradient, and DisARM has the lower variance.",
        "",
        "| bits | what | here | to reach | |",
        "|---|---|---|---|---|",
    ]
    widths = sorted({bits for task, _, bits in runs if task == "g"})
    for bits in widths:
        for text, value, limit, passed in _sentences(runs, bits):
            lines.append(f"| {bits} | {text} | {value:.4f} | {limit} | {'pass' if passed else '**fail**'} |")
    lines += [
        "",
        "Ablations, by P@100 of codes. *idle*: the difference is at most the spread, the sum of both standard "
        "deviations.",
        "",
        "| bits | method | whole | changed | difference | spread | |",
        "|---|---|---|---|---|---|---|",
    ]
    for bits in widths:
        for method in METHODS:
            if method.base is not None and ("g", method.name, bits) in runs and ("g", method.base, bits) in runs:
                whole, changed = (_values(runs, name, bits) for name in (method.base, method.name))
                difference, spread = _difference(whole, changed)
                what = "idle" if abs(difference) <= spread else "helps to leave out" if difference > 0 else "needed"
                lines.append(
                    f"| {bits} | {method.title} | {statistics.fmean(whole):.4f} | {statistics.fmean(changed):.4f} | "
                    f"{difference:+.4f} | {spread:.4f} | {what} |"
                )
    return [*lines, ""]


def _sentences(runs: Runs, bits: int) -> Iterator[tuple[str, float, str, bool]]:
    """What is said, the value, what it has to reach, whether it does."""
    mean = {name: statistics.fmean(_values(runs, name, bits)) for task, name, b in runs if (task, b) == ("g", bits)}
    if "psh" not in mean:
        return
    here = mean["psh"]
    for name, text, more in (
        ("psh-straight-through", "at least straight-through", 0.0),
        ("psh-gumbel", "at least Gumbel - 0.005", -0.005),
        ("psh-vae", "at least the VAE alone + 0.10", 0.1),
        ("psh-no-pair", "at least without pairs + 0.01", 0.01),
    ):
        if name in mean:
            limit = mean[name] + more
            yield f"PSH (DisARM) {text}", here, f"{limit:.4f}", here >= limit
    if "psh-no-pair" in mean:
        difference, spread = _difference(*(_values(runs, name, bits) for name in ("psh", "psh-no-pair")))
        text = "the pair term reaches the encoder: without it the difference is larger than the spread"
        yield text, abs(difference), f"{spread:.4f}", abs(difference) > spread


def _values(runs: Runs, method: str, bits: int) -> list[float]:
    return [run["metrics"]["codes train"][MAIN] for run in runs["g", method, bits]]


def _difference(whole: list[float], changed: list[float]) -> tuple[float, float]:
    """Of the means, and the sum of both standard deviations."""
    spread = sum(statistics.stdev(values) if len(values) > 1 else 0.0 for values in (whole, changed))
    return statistics.fmean(changed) - statistics.fmean(whole), spread
