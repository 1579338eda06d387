"""The plots of the page, each with its legend beside it and one sentence on what good looks like."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fasthash.report.measures import Measures, codes_of_classes
from fasthash.report.svg import Plot, heat_map

Array = NDArray[Any]
BINS = 50  # of outputs
MOST_BITS = 256  # of the picture of correlations
MOST_BARS = 200  # classes


class Figure(NamedTuple):
    """A plot as HTML; legend: (colour, dashed or a mark, words) of all that is drawn; good: what good looks like."""

    title: str
    drawing: str
    legend: list[tuple[str, str, str]]
    good: str

    def html(self) -> str:
        entries = "".join(
            f'<li><span class="swatch {mark} {colour}" aria-hidden="true"></span>{escape(words)}</li>'
            for colour, mark, words in self.legend
        )
        legend = f'<ul class="legend">{entries}</ul>' if entries else ""
        good = f'<p class="good">{escape(self.good)}</p>'
        return f"<figure><h3>{escape(self.title)}</h3>{self.drawing}<figcaption>{legend}{good}</figcaption></figure>"


def scores(measures: Measures) -> Iterator[Figure]:
    """The scores that need labels: precision, recall and hierarchical precision."""
    curve = measures.by_rank
    if curve is not None:
        plot = Plot("recall", "precision", (0, 1), (0, 1)).line(curve.recall, curve.precision, "measure")
        yield Figure(
            "Precision and recall along the ranking",
            plot.svg("Precision over recall, mean over the queries"),
            [("measure", "", "mean over the queries, from rank 1 to the last")],
            "Good: the line is flat at the top and falls only at the right edge. Then the first results are "
            "right until all are found.",
        )
    if measures.precision is not None and measures.recall is not None:
        plot = Plot("radius", "part", (0, int(measures.radii[-1])), (0, 1))
        plot.line(measures.radii, measures.precision.mean(0), "measure")
        plot.line(measures.radii, measures.recall.mean(0), "measure", dashed=True).marker()
        yield Figure(
            "Precision and recall within a radius",
            plot.svg("Precision and recall over the radius, mean over the queries"),
            [("measure", "", "precision"), ("measure", "dashed", "recall"), ("marker", "", "the chosen radius")],
            "Good: both are high at one radius. A search within that radius finds most of a class and little else.",
        )
    if measures.hierarchical is not None:
        ranks = np.arange(1, len(measures.hierarchical) + 1)
        plot = Plot("rank", "hierarchical precision", (1, len(ranks)), (0, 1))
        yield Figure(
            "Hierarchical precision by rank",
            plot.line(ranks, measures.hierarchical, "measure").svg("Hierarchical precision over the rank"),
            [("measure", "", "mean over the queries")],
            "Good: near 1 at every rank. Then results of other classes are of classes close in the hierarchy.",
        )


def distances(measures: Measures) -> Figure:
    """Pairs of query and code by distance."""
    edges = np.concatenate([[-0.5], measures.radii + 0.5])
    parts = [part / max(part.sum(), 1) / np.diff(edges) for part in (measures.near, measures.far) if part is not None]
    top = max(float(part.max()) for part in parts) * 1.05
    plot = Plot("distance", "part of the pairs", (float(edges[0]), float(edges[-1])), (0, top))
    marker = ("marker", "", "the chosen radius")
    if measures.near is None:
        return Figure(
            "Distances",
            plot.steps(edges, parts[0], "database").marker().svg("Histogram of distances"),
            [("database", "", "queries and all codes"), marker],
            "Good: one hill in the middle and a thin tail on the left, where the near codes are.",
        )
    plot.steps(edges, parts[0], "right").steps(edges, parts[1], "wrong", dashed=True).marker()
    return Figure(
        "Distances of near and far pairs",
        plot.svg("Histograms of distances between items of one class and of different classes"),
        [("right", "", "same class"), ("wrong", "dashed", "other class"), marker],
        "Good: two hills that hardly overlap, with that of the same class on the left.",
    )


def outputs(values: Array) -> Figure:
    """Outputs before rounding."""
    counts, edges = np.histogram(values, BINS, (0, 1))
    parts = counts / max(counts.sum(), 1)
    moved = float(np.abs(values - (values > 0.5)).mean())
    plot = Plot("output", "part of the outputs", (0, 1), (0, float(parts.max()) * 1.05))
    return Figure(
        "Outputs before rounding",
        plot.steps(edges, parts, "query").svg("Histogram of the outputs of the queries"),
        [("query", "", f"queries; rounding moves an output by {moved:.3f} on average")],
        "Good: nearly all are at 0 and 1, with about the same number at each. Then rounding changes little, "
        "and bits are balanced.",
    )


def bits(measures: Measures) -> Iterator[Figure]:
    """How the database's codes use their bits."""
    size = len(measures.ones)
    plot = Plot("bits, sorted", "part of codes with the bit on", (0, size), (0, 1)).level(0.5)
    yield Figure(
        "Bit balance",
        plot.steps(np.arange(size + 1), np.sort(measures.ones), "database").svg("Part of ones of each bit, sorted"),
        [("database", "", "codes of the database"), ("level", "", "half of the codes")],
        "Good: every bit is on for about half of the codes. A bit that is always on, or always off, carries "
        "no information.",
    )
    chosen = np.unique(np.linspace(0, size - 1, min(size, MOST_BITS)).round().astype(np.int64))
    picture = heat_map(np.abs(measures.correlation[np.ix_(chosen, chosen)]))
    of = "" if len(chosen) == size else f" ({len(chosen)} of {size} bits, evenly spaced)"
    yield Figure(
        "Correlation of bits",
        f'<img class="heat" src="{picture}" alt="Correlation between each two bits, as a picture">',
        [("white", "box", "0: the bits are not correlated"), ("black", "box", f"1 or -1: one bit is enough{of}")],
        "Good: light colours beside the dark diagonal. A dark place means that two bits say nearly the same.",
    )


def classes(codes: Array, labels: Array, names: Sequence[str]) -> Figure:
    """Different codes of each class. labels: class numbers of the codes, which index `names`."""
    numbers, items, different = codes_of_classes(codes, labels)
    order = np.argsort(-different, kind="stable")
    told = [
        f"{names[number]}: {of:,} different codes of {items_of:,} items"
        for number, items_of, of in zip(numbers[order], items[order], different[order], strict=True)
    ]
    plot = Plot("classes, sorted", "different codes", (0, len(order)), (0, float(different.max()) * 1.05))
    if len(order) <= MOST_BARS:
        plot.bars(different[order], "database", told)
    else:
        plot.steps(np.arange(len(order) + 1), different[order], "database")
    shown = [*told[:MOST_BARS], *([f"and {len(told) - MOST_BARS:,} more classes"] if len(told) > MOST_BARS else [])]
    rows = "".join(f"<li>{escape(line)}</li>" for line in shown)
    return Figure(
        "Codes of each class",
        f"{plot.svg('Number of different codes of each class, sorted')}"
        f"<details><summary>The classes by name</summary><ul>{rows}</ul></details>",
        [("database", "", f"different codes of a class; {int(np.median(items)):,} items in the median class")],
        "Good: many different codes in each class, if the order inside a class matters. One code keeps only the class.",
    )


def map_of_codes(
    points: Array, of_queries: Array, groups: Sequence[Any], query_groups: Sequence[Any], part: float
) -> Figure:
    """Database and queries in the plane of the two principal directions of the bits."""
    both = np.concatenate([points, of_queries])
    low, high = both.min(0), both.max(0)
    room = 0.04 * np.maximum(high - low, 1e-9)
    (x0, y0), (x1, y1) = (low - room).tolist(), (high + room).tolist()
    plot = Plot("first direction", "second direction", (x0, x1), (y0, y1), ticks=False)
    plot.dots(points, "database", groups, 2.2).dots(of_queries, "query", query_groups, 4, "diamond")
    light = " Choose a class above: its items stay, the others fade." if groups and groups[0] is not None else ""
    return Figure(
        "Map of the codes",
        plot.svg("Codes of database and queries in two dimensions").replace("<svg", '<svg class="map"', 1),
        [("database", "dot-mark", f"{len(points):,} codes of the database"), ("query", "diamond", "the queries below")],
        f"The two principal directions of the bits (PCA), {part:.0%} of their variance. Good: separate "
        f"groups, with the queries inside the group of their class. Equal codes share one dot.{light}",
    )
