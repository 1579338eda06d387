"""Figures of docs/method.md and docs/results.md from the JSON of the runs; needs matplotlib."""

from __future__ import annotations

import statistics
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.quality.graded_plot import graded_figure
from benchmarks.quality.measure import BINS, CURVE
from benchmarks.quality.methods import METHODS, OPEN
from benchmarks.quality.results import FOLDER, read
from benchmarks.quality.tables import TITLES

FIGURES = Path(__file__).resolve().parents[2] / "docs" / "figures"
SHOWN = (
    "ours",
    "ours-sim",
    "hierarchical_contrastive",
    "orthohash",
    "csq",
    "ce",
    "itq",
)
COLOURS = {name: f"C{number}" for number, name in enumerate(SHOWN)}


def write_plots(folder: Path = FOLDER, figures: Path = FIGURES) -> list[Path]:
    """Writes the figures for which there are runs."""
    import matplotlib

    matplotlib.use("Agg")
    figures.mkdir(parents=True, exist_ok=True)
    runs = [line for line in read(folder, "a") if line["kind"] == "run"]
    written = []
    for name, draw in (
        ("histograms", _histograms),
        ("retention", _retention),
        ("curves", _curves),
        ("pareto", partial(_pareto, folder)),
    ):
        figure = draw(runs)
        if figure is not None:
            written.append(figures / f"{name}.png")
            figure.savefig(written[-1], dpi=110, bbox_inches="tight")
    graded = graded_figure(folder)
    if graded is not None:
        written.append(figures / "graded.svg")
        with matplotlib.rc_context({"svg.hashsalt": "fasthash"}):
            graded.savefig(written[-1], metadata={"Date": None})
    return written


def _pick(runs: list[dict[str, Any]], method: str, bits: int) -> list[dict[str, Any]]:
    return [run for run in runs if run["method"] == method and run["bits"] == bits]


def _axes(width: float, height: float, columns: int = 1) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height))
    return figure, figure.subplots(1, columns)


def _histograms(runs: list[dict[str, Any]]) -> Any:
    """Outputs of test queries, with the KL term and without, by what they were learned from."""
    pairs = (
        ("ours", "ours-no-kl", "listwise, labels"),
        ("ours-sim", "ours-sim-no-kl", "listwise, similarities"),
        ("ours-sim-stress", "ours-sim-stress-no-kl", "stress, similarities"),
    )
    figure, axes = _axes(12, 3, 3)
    edges = (np.arange(BINS) + 0.5) / BINS
    drawn = False
    for axis, (with_kl, without, title) in zip(axes, pairs, strict=True):
        for name, label in ((with_kl, "with KL"), (without, "without")):
            counts = [run["histogram"] for run in _pick(runs, name, 64) if "histogram" in run]
            if counts:
                total = np.sum(counts, axis=0)
                axis.step(edges, total / total.sum(), where="mid", label=label)
                drawn = True
        axis.set(title=title, xlabel="output z (64 bits)", ylabel="part of outputs", yscale="log")
        if axis.lines:
            axis.legend()
    return figure if drawn else None


def _retention(runs: list[dict[str, Any]]) -> Any:
    """mAHP@250 of codes / that of the same model's outputs, against bits."""
    figure, axis = _axes(5.5, 3.5)
    widths = sorted({run["bits"] for run in runs})
    for name in (*SHOWN, "ours-no-kl", "ours-sim-no-kl"):
        points = []
        for bits in widths:
            values = [
                run["metrics"]["codes train"]["mAHP@250"] / run["metrics"]["outputs train"]["mAHP@250"]
                for run in _pick(runs, name, bits)
            ]
            if values:
                points.append((bits, statistics.fmean(values)))
        if len(points) > 1:
            style = "--" if name.endswith("no-kl") else "-"
            axis.plot(
                *zip(*points, strict=True),
                style,
                marker="o",
                color=COLOURS.get(name),
                label=TITLES[name],
            )
    axis.set(xscale="log", xlabel="bits", ylabel="mAHP@250: codes / own outputs")
    axis.set_xticks(widths, [str(bits) for bits in widths], minor=False)
    axis.minorticks_off()
    axis.legend(fontsize=7)
    return figure if axis.lines else None


def _curves(runs: list[dict[str, Any]]) -> Any:
    """Hierarchical precision against rank, of 64-bit codes."""
    figure, axis = _axes(5.5, 3.5)
    for name in SHOWN:
        found = [run["metrics"]["codes train"] for run in _pick(runs, name, 64)]
        found = [metrics for metrics in found if f"HP@{CURVE[0]}" in metrics]
        if found:
            means = [statistics.fmean(metrics[f"HP@{rank}"] for metrics in found) for rank in CURVE]
            axis.plot(CURVE, means, marker=".", color=COLOURS[name], label=TITLES[name])
    axis.axvline(100, color="grey", linewidth=0.5)
    axis.set(
        xscale="log",
        xlabel="rank (100 items a class, 1,500 a domain)",
        ylabel="hierarchical precision",
    )
    axis.legend(fontsize=7)
    return figure if len(axis.lines) > 1 else None


def _pareto(folder: Path, runs: list[dict[str, Any]]) -> Any:
    """Classes against order inside them, and known against unlabelled classes: every method, at 64 bits."""
    opened = {task: [line for line in read(folder, task) if line["kind"] == "run"] for task in OPEN}
    if not any(opened.values()):
        return None
    inside = ("codes train", "overlap@10")
    panels = [
        (runs, f"task a, {metric}", ("codes train", metric), inside, f"{metric}", "overlap@10 inside a class")
        for metric in ("mAP", "mAHP@250")
    ]
    panels += [
        (found, f"task {task}, mAP", ("codes known", "mAP"), ("codes unlabelled", "mAP"), "known", "unlabelled")
        for task, found in opened.items()
    ]
    figure, axes = _axes(18, 4, len(panels))
    figure.subplots_adjust(wspace=0.3)
    names = [method.name for method in METHODS if method.base is None]
    for axis, (found, title, *sides, x_label, y_label) in zip(axes, panels, strict=True):
        points = {name: _point(picked, *sides) for name in names if (picked := _pick(found, name, 64))}
        for number, name in enumerate(names):
            if name in points:
                axis.plot(*points[name], "os^D"[number // 10 % 4], color=f"C{number % 10}", label=TITLES[name])
        front = pareto_front(list(points.values()))
        axis.plot(*zip(*front, strict=True), "-", color="grey", linewidth=0.8, zorder=0)
        axis.set(title=title, xlabel=x_label, ylabel=y_label)
    shown = {label: line for axis in axes for line, label in zip(*axis.get_legend_handles_labels(), strict=True)}
    figure.legend(shown.values(), shown.keys(), loc="center left", bbox_to_anchor=(0.91, 0.5), fontsize=7)
    return figure


def pareto_front(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """The points that no other one surpasses in one value and reaches in the other, by the first value."""
    front: list[tuple[float, float]] = []
    for point in sorted(set(points), reverse=True):
        if not front or point[1] > front[-1][1]:
            front.append(point)
    return front[::-1]


def _point(runs: list[dict[str, Any]], *sides: tuple[str, str]) -> tuple[float, float]:
    x, y = (statistics.fmean(run["metrics"][side][name] for run in runs) for side, name in sides)
    return x, y
