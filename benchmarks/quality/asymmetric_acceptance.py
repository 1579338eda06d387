"""What DSAH is meant to show on tasks a and c-reduced, and whether the runs do."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from typing import Any

Runs = dict[tuple[str, str, int], list[dict[str, Any]]]
METHOD, RIVAL = "asymmetric", "ce"
TASKS = ("a", "c-reduced")
TERMS = {
    "no-quantization": "L_q",
    "no-second": "the second label",
    "no-affinity": "L_a",
}  # ablations, and what is left out
ROWS = "by-row"
LESS = 0.01  # what quantisation to a row's own code has to lose


def asymmetric_acceptance(runs: Runs) -> list[str]:
    """Markdown tables: three searches, the acceptance sentences of DSAH with pass or fail, what each ablation costs."""
    found = sorted((task, bits) for task, method, bits in runs if method == METHOD and task in TASKS)
    if not found:
        return []
    lines = [
        "Acceptance of DSAH (`AsymmetricHasher`), by mAP, means over seeds. The network encodes the queries. There are "
        "three databases: training rows, encoded by the network; rows outside training, encoded by the network; and "
        "the free codes of the training rows. The free codes know the labels of the database, so they do not show how "
        "good codes are. tests/test_asymmetric_hasher.py tests in exact arithmetic that no update of a bit raises the "
        "loss.",
        "",
        "| task, bits | training rows | rows not in training | free codes |",
        "|---|---|---|---|",
    ]
    for task, bits in found:
        others = "codes val" if task == "a" else "codes held out"
        cells = [_cell(_values(runs, task, METHOD, bits, side)) for side in ("codes train", others, "free train")]
        lines.append(f"| {task}, {bits} | {' | '.join(cells)} |")
    lines += ["", "| what | here | to reach | |", "|---|---|---|---|"]
    for text, value, limit, passed in _sentences(runs, found):
        lines.append(f"| {text} | {value:+.4f} | {limit} | {'pass' if passed else '**fail**'} |")
    lines += [
        "",
        "Ablations, by mAP of codes of training rows. *deviation*: the larger of the two standard deviations of a run. "
        "*needed*: without this part mAP falls by more than the deviation. *idle*: the difference is at most the "
        "deviation.",
        "",
        "| task, bits | without | whole | changed | difference | deviation | |",
        "|---|---|---|---|---|---|---|",
    ]
    for task, bits in found:
        for name, title in (*TERMS.items(), (ROWS, "class structure (a row's own code)")):
            if (task, f"{METHOD}-{name}", bits) in runs:
                whole, changed, gain, deviation = _gain(runs, task, name, bits)
                what = "needed" if gain > deviation else "helps to leave out" if -gain > deviation else "idle"
                cells = f"{whole:.4f} | {changed:.4f} | {-gain:+.4f} | {deviation:.4f}"
                lines.append(f"| {task}, {bits} | {title} | {cells} | {what} |")
    return [*lines, ""]


def _sentences(runs: Runs, found: list[tuple[str, int]]) -> Iterator[tuple[str, float, str, bool]]:
    """What is said, the value, what it has to reach, whether it does."""
    for task, bits in found:
        if (task, RIVAL, bits) in runs:
            ours, rival = (statistics.fmean(_values(runs, task, name, bits)) for name in (METHOD, RIVAL))
            yield f"{task}, {bits} bits: mAP less that of CE, sign", ours - rival, "0", ours >= rival
    for name, title in TERMS.items():
        gains = [(_gain(runs, *place), place) for place in _places(runs, found, name)]
        if gains:
            (_, _, gain, deviation), (task, _, bits) = max(gains, key=lambda each: each[0][2] - each[0][3])
            text = f"{title} gains more than a deviation on at least one set (most: {task}, {bits} bits)"
            yield text, gain, f"{deviation:.4f}", gain > deviation
    by_row = [(_gain(runs, *place)[2], place) for place in _places(runs, found, ROWS)]
    if by_row:
        gain, (task, _, bits) = max(by_row)
        yield (
            f"class structure beats a row's own code on at least one set (most: {task}, {bits} bits)",
            gain,
            f"{LESS}",
            (gain >= LESS),
        )


def _places(runs: Runs, found: list[tuple[str, int]], name: str) -> list[tuple[str, str, int]]:
    return [(task, name, bits) for task, bits in found if (task, f"{METHOD}-{name}", bits) in runs]


def _gain(runs: Runs, task: str, name: str, bits: int) -> tuple[float, float, float, float]:
    """Means of the whole and of the changed method, their difference, and the larger standard deviation of a run."""
    both = [_values(runs, task, method, bits) for method in (METHOD, f"{METHOD}-{name}")]
    whole, changed = (statistics.fmean(values) for values in both)
    return whole, changed, whole - changed, max(_deviation(values) for values in both)


def _deviation(values: list[float]) -> float:
    return statistics.stdev(values) if len(values) > 1 else 0.0


def _values(runs: Runs, task: str, method: str, bits: int, side: str = "codes train") -> list[float]:
    return [run["metrics"][side]["mAP"] for run in runs[task, method, bits]]


def _cell(values: list[float]) -> str:
    return f"{statistics.fmean(values):.4f} ±{_deviation(values):.4f}"
