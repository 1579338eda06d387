"""docs/figures/graded.svg, the README's picture: nDCG@10 of task l against bytes an item; needs matplotlib."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.quality.graded_acceptance import METRIC, best_values
from benchmarks.quality.graded_task import BYTES, LEARNED_FROM
from benchmarks.quality.results import FOLDER, find, read

# A line is the best of its methods at each size. Colours are those of Okabe and Ito, for all kinds of sight.
LINES = {
    "fasthash": (("graded-ours",), "#0072B2", "o"),
    "ITQ": (("graded-itq", "graded-itq-scales"), "#D55E00", "s"),
    "RaBitQ": (("graded-rabitq-1", "graded-rabitq-2", "graded-rabitq-4"), "#009E73", "^"),
    "OSQ": (("graded-osq-1", "graded-osq-2", "graded-osq-4"), "#E69F00", "v"),
    "TurboQuant": (("graded-turboquant-2", "graded-turboquant-4"), "#56B4E9", "P"),
    "PQ": (("graded-pq",), "#CC79A7", "D"),
    "rotation": (("graded-rotation",), "#7F7F7F", "x"),
}
Point = tuple[float, float]
Start = tuple[Point, str, str]


def graded_figure(folder: Path = FOLDER) -> Any:
    """The mean of the corpora, float queries, where codes were learned from the corpus itself and from another one."""
    from matplotlib.figure import Figure

    lines = {task: read(folder, task) for task in tasks(True) + tasks(False)}
    if not all(lines.values()):
        return None
    figure = Figure(figsize=(11, 4.8), layout="constrained")
    panels = figure.subplots(1, 2)
    titles = "Learned from the corpus itself", "Learned from another corpus"
    for axis, moved, title in zip(panels, (False, True), titles, strict=True):
        draw(axis, {task: lines[task] for task in tasks(moved)}, title)
    for axis in panels:
        axis.set_xlabel("bytes an item, at most (log scale)", fontsize=13)
    return figure


def tasks(moved: bool) -> tuple[str, ...]:
    return tuple(f"l-{name}{'-moved' * moved}" for name in LEARNED_FROM)


def draw(axis: Any, lines: dict[str, list[dict[str, Any]]], title: str) -> None:
    floats = statistics.fmean(
        floor["metrics"]["floats corpus"][METRIC] for each in lines.values() if (floor := find(each, kind="floors"))
    )
    axis.axhline(floats, color="black", linestyle="--", linewidth=1)
    axis.annotate("floats, 1,536 bytes", (5.4, floats), (0, 4), textcoords="offset points", fontsize=12)
    runs: dict[tuple[str, str, int], list[dict[str, Any]]] = {}
    for line in (line for each in lines.values() for line in each if line["kind"] == "run"):
        runs.setdefault((line["task"], line["method"], line["bits"]), []).append(line)
    ends = []
    for label, (methods, colour, marker) in LINES.items():
        points = curve(runs, tuple(lines), methods)
        wide = label == "fasthash"
        axis.plot(*zip(*points, strict=True), color=colour, marker=marker, lw=3 if wide else 1.6, ms=6, zorder=2 + wide)
        ends.append((points[0], label, colour))
    label_starts(axis, ends)
    axis.set_title(title, fontsize=14, loc="left")
    axis.set_xscale("log", base=2)
    axis.set_xlim(5.2, 240)
    axis.set_xticks(BYTES, [str(count) for count in BYTES])
    axis.minorticks_off()
    axis.tick_params(labelsize=12)
    axis.set_ylabel(f"{METRIC}, mean of 3 corpora", fontsize=13)
    axis.grid(alpha=0.3)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)


def curve(runs: Any, names: Sequence[str], methods: Sequence[str]) -> list[Point]:
    """Bytes at most, and the mean over tasks of the best of the methods; only sizes that all tasks have."""
    found: dict[float, float] = {}
    for method in methods:
        for count in BYTES:
            each = [best_values(runs, task, method, 8 * count) for task in names]
            if all(each):
                found[count] = max(found.get(count, 0.0), statistics.fmean(map(statistics.fmean, each)))
    return sorted(found.items())


def label_starts(axis: Any, starts: list[Start]) -> None:
    """Names left of the first points, moved down where they would cover each other."""
    low, high = axis.get_ylim()
    least = (high - low) * 0.06
    at = high
    for (x, y), label, colour in sorted(starts, key=lambda start: -start[0][1]):
        at = min(y, at - least)
        weight = "bold" if label == "fasthash" else "normal"
        axis.text(x * 0.95, at, label, color=colour, fontsize=13, ha="right", va="center", weight=weight)
