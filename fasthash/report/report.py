"""Report: what codes find, as one HTML page."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fasthash._arguments import whole
from fasthash._arrays import dtype_name
from fasthash._durable import replaced_file
from fasthash.hierarchy import Hierarchy
from fasthash.hierarchy.telling import telling_distances
from fasthash.index import HammingIndex
from fasthash.report import figures
from fasthash.report.cards import Card, Found
from fasthash.report.document import Content, document
from fasthash.report.items import Items
from fasthash.report.measures import Measures, Problem, measure, plane
from fasthash.report.sides import Side, database_side, query_side

Array = NDArray[Any]
CODES, QUERIES, PAIRS = 1 << 20, 5000, 1 << 29  # codes, queries and pairs of them that are measured at most
POINTS = 1500  # codes of the map
WORST = 10


class Report:
    """What codes find: one HTML page with queries and their nearest, scores and plots, that loads nothing.

    Args:
        database: a `HammingIndex`, or packed codes uint8 [N, ceil(bits / 8)]. Rows are in ascending order of id.
        queries: packed codes uint8 [Q, ceil(bits / 8)], or outputs [Q, bits] in [0, 1], which are rounded (a plot shows
            them). None: codes of the database, each left out for itself.
        query_labels, database_labels: 1-D classes [Q] and [N], integers or texts; "folder": the first folder of each
            name, "cats" of "cats/1.jpg". None: what needs labels is left out.
        hierarchy: a `Hierarchy` that holds every label, for hierarchical precision.
        names, query_names: texts [N] and [Q]; None: the keys of the index, or ids, and row numbers.
        texts, query_texts: texts [N] and [Q], which are shown.
        images, query_images: folders in which the names are files of pictures, which are shown small (needs Pillow).
            query_images=None: as images.
        bits, bit_weights: of `database` where that is an array; an index knows its own.
        exclude_self: query i is row i of the database (Q = N), and is left out for itself.
        k: results of a query that are shown. limit: queries that are shown.
        title: of the page.

    Scores are those of `fasthash.evaluate`. At most 5,000 queries, 2**20 codes and 2**29 pairs are measured: where
    there are more, random ones, and the page says so. Shown results come from all codes.

    Attributes: numbers (scores by name), measures (all that the plots show), notes (what the page says of what it left
    out), broken (name -> why, of pictures that could not be read).

    Raises ValueError or TypeError, naming the argument, for what does not fit; ImportError without Pillow.

    >>> codes = np.array([[0], [1], [254], [255]], np.uint8)
    >>> report = Report(codes, query_labels=["a", "a", "b", "b"], texts=["one", "two", "three", "four"], k=2)
    >>> report.numbers["mAP"], "<h1>" in report.html()
    (1.0, True)
    """

    def __init__(
        self,
        database: Any,
        queries: Any = None,
        *,
        query_labels: Any = None,
        database_labels: Any = None,
        hierarchy: Hierarchy | None = None,
        names: Sequence[str] | None = None,
        query_names: Sequence[str] | None = None,
        texts: Sequence[str] | None = None,
        query_texts: Sequence[str] | None = None,
        images: str | PathLike[str] | None = None,
        query_images: str | PathLike[str] | None = None,
        bits: int | None = None,
        bit_weights: Any = None,
        exclude_self: bool = False,
        k: int = 10,
        limit: int = 50,
        title: str = "What the codes find",
    ) -> None:
        self.title = title
        self.notes: list[str] = []
        self._index = _index_of(database, bits, bit_weights)
        own = exclude_self or queries is None
        if own and database_labels is None:
            database_labels = query_labels
        items = Items(texts, images)
        if images is not None and names is None and not self._index.keyed:
            raise ValueError("Report: images needs the names of its files: an index with keys, or names")
        self._database, self._ids = database_side(self._index, database_labels, names, items)
        self._queries = self._database
        if queries is not None:
            folder = images if query_images is None and query_names is not None else query_images
            asked = Items(query_texts, folder)
            if query_images is not None and query_names is None and not own:
                raise ValueError("Report: query_images needs query_names, the names of its files")
            if own:
                asked, query_names = items, query_names if query_names is not None else names
            self._queries = query_side(queries, self._index.bits, query_labels, query_names, asked)
        if own and self._queries.size != self._database.size:
            raise ValueError(
                f"Report: exclude_self needs query i to be row i of the database, got {self._queries.size} queries and "
                f"{self._database.size} codes"
            )
        if own and queries is not None:
            self._queries = _as_rows(self._queries, self._database)
        if self._database.size <= own:
            raise ValueError(f"Report: the database must have at least {1 + own} codes, got {self._database.size}")
        self._own = own
        self._k = min(whole(k, "Report", "k", 1, 1000), self._database.size - own)
        self._limit = whole(limit, "Report", "limit", 1, 10_000)
        self._choose()
        problem = self._problem(hierarchy)
        self.measures: Measures = measure(problem, self._k)
        self.numbers: dict[str, float] = self.measures.numbers
        self.broken: dict[str, str] = {}
        self._html = document(self._content(problem))

    def html(self) -> str:
        """The page."""
        return self._html

    def write(self, path: str | PathLike[str]) -> None:
        """Writes the page to a file, in one step. Raises OSError where it cannot be written."""
        with replaced_file(Path(path)) as file:
            file.write(self._html.encode("utf-8", "replace"))

    def _repr_html_(self) -> str:
        """The page in a frame, which keeps its style and ids apart from a notebook's."""
        return (
            f'<iframe title="{escape(self.title)}" sandbox="allow-scripts" width="100%" height="800" '
            f'srcdoc="{escape(self._html)}"></iframe>'
        )

    def _choose(self) -> None:
        """Which rows are measured: `_measured` of the queries, `_rows` of the database, drawn where there are many."""
        rng = np.random.default_rng(0)
        size, asked = self._database.size, self._queries.size
        rows = np.arange(size) if size <= CODES else np.unique(rng.integers(0, size, CODES))
        most = min(QUERIES, max(1, PAIRS // len(rows)))
        among = rows if self._own else np.arange(asked)
        chosen = among if len(among) <= most else np.sort(rng.choice(among, most, replace=False))
        if self._own:  # the metrics want query i to be row i
            rows = np.concatenate([chosen, np.setdiff1d(rows, chosen, assume_unique=True)])
        shown = np.arange(len(chosen))
        if len(shown) > self._limit:
            shown = np.sort(rng.choice(shown, self._limit, replace=False))
        self._rows, self._measured, self._shown = rows, chosen, shown
        if self._own:
            self.notes.append("The queries are codes of the database itself. No query finds itself.")
        if len(chosen) < asked:
            self.notes.append(f"Scores and plots are of {len(chosen):,} queries, drawn at random from {asked:,}.")
        if len(rows) < size:
            self.notes.append(
                f"Scores and plots are of {len(rows):,} codes, drawn at random from {size:,}: scores over all codes "
                "differ. The results shown come from all codes."
            )
        if len(shown) < len(chosen):
            self.notes.append(f"{len(shown):,} queries are shown, drawn at random.")

    def _problem(self, hierarchy: Hierarchy | None) -> Problem:
        """Codes and class numbers of the rows that are measured; `_classes` are the labels by number."""
        labels = self._queries.labels_of(self._measured), self._database.labels_of(self._rows)
        self._classes: list[Any] = []
        numbers: tuple[Array | None, Array | None] = (None, None)
        similarity = None
        if labels[0] is not None and labels[1] is not None:
            if len({part.dtype.kind == "U" for part in labels if part is not None}) > 1:
                kinds = f"{dtype_name(labels[0])} and {dtype_name(labels[1])}"
                raise TypeError(f"Report: query_labels and database_labels must be of one kind, got {kinds}")
            classes, all_numbers = np.unique(np.concatenate([labels[0], labels[1]]), return_inverse=True)
            all_numbers = all_numbers.reshape(-1).astype(np.int64)
            a, b = all_numbers[: len(self._measured)], all_numbers[len(self._measured) :]
            if np.isin(a, b).any():
                numbers, self._classes = (a, b), classes.tolist()
            elif not any(isinstance(side.labels, str) for side in (self._queries, self._database)):  # not of folders
                raise ValueError(
                    f"Report: no label of the queries occurs in the database, got {labels[0][0]!s} and "
                    f"{labels[1][0]!s} for example"
                )
        self._labelled = numbers[0] is not None
        if not self._labelled:
            if hierarchy is not None:
                raise ValueError("Report: hierarchy needs query_labels and database_labels with labels in common")
            self.notes.append(
                "Queries and database have no labels in common, so results are neither right nor wrong. This page "
                "has no precision, recall, hierarchical precision, near and far pairs, codes of each class or worst "
                "queries."
            )
        elif hierarchy is None:
            self.notes.append("Without a hierarchy over the classes, hierarchical precision is left out.")
        else:
            similarity = 1.0 - telling_distances(hierarchy, self._classes, "Report")
        if self._queries.outputs is None:
            self.notes.append("The queries are codes, so the histogram of outputs before rounding is left out.")
        codes = self._queries.codes_of(self._measured), self._database.codes_of(self._rows)
        return Problem(*codes, *numbers, self._index.bits, self._index.bit_weights, self._own, similarity)

    def _content(self, problem: Problem) -> Content:
        """All that is on the page."""
        scores = self.measures.average_precision
        cards = self._cards(self._shown, problem)
        worst = []
        if scores is not None:
            worst = self._cards(np.argsort(scores, kind="stable")[: min(WORST, self._limit)], problem)
        items = (self._queries.items, self._database.items)
        for part in items:
            self.broken |= part.broken
        groups = {card.group for card in (*cards, *worst) if card.group is not None}
        return Content(
            title=self.title,
            about=self._about(),
            notes=self.notes,
            broken=self.broken,
            measures=self.measures,
            figures=list(self._figures(problem)),
            cards=cards,
            worst=worst,
            pictures=any(part.folder is not None and part.texts is None for part in items),
            classes={group: str(self._classes[group]) for group in sorted(groups)},
            members={group: np.flatnonzero(problem.query_labels == group) for group in groups},
        )

    def _about(self) -> str:
        index = self._index
        weights = ""
        if index.bit_weights:
            told = ", ".join(f"{weight} for each of {bits} bits" for bits, weight in index.bit_weights)
            weights = f" Distances are weighted: a differing bit counts {told}."
        return (
            f"{self._queries.size:,} queries against {self._database.size:,} codes of {index.bits} bits, by Hamming "
            f"distance.{weights}"
        )

    def _cards(self, positions: Array, problem: Problem) -> list[Card]:
        """The queries at these positions of the measured ones, with the nearest of all codes."""
        rows, scores = self._measured[positions], self.measures.average_precision
        found = self._index.search(np.ascontiguousarray(problem.query[positions]), self._k + self._own)
        asked, labels = self._queries.card_parts(rows)
        cards = []
        for number, position in enumerate(positions.tolist()):
            ids, distances = found.ids[number], found.distances[number]
            if self._own:
                other = ids != self._ids[rows[number]]
                ids, distances = ids[other], distances[other]
            ids, distances = ids[: self._k], distances[: self._k]
            items, theirs = self._database.card_parts(np.searchsorted(self._ids, ids))
            right = [label == labels[number] if self._labelled else None for label in theirs]
            results = [Found(*part) for part in zip(items, distances.tolist(), theirs, right, strict=True)]
            group = None if problem.query_labels is None else int(problem.query_labels[position])
            score = None if scores is None else float(scores[position])
            cards.append(Card(asked[number], labels[number], group, score, results))
        return cards

    def _figures(self, problem: Problem) -> Any:
        yield from figures.scores(self.measures)
        yield figures.distances(self.measures)
        if self._queries.outputs is not None:
            yield figures.outputs(self._queries.outputs[self._measured])
        yield from figures.bits(self.measures)
        if problem.database_labels is not None:
            yield figures.classes(problem.database, problem.database_labels, [str(name) for name in self._classes])
        rng = np.random.default_rng(1)
        some = np.arange(len(problem.database))
        if len(some) > POINTS:
            some = np.sort(rng.choice(some, POINTS, replace=False))
        queries = problem.query[self._shown]
        points = plane(problem.database[some], queries, problem.bits, problem.bit_weights)
        groups: list[Any] = [None] * len(some)
        asked: list[Any] = [None] * len(queries)
        if problem.query_labels is not None and problem.database_labels is not None:
            groups, asked = problem.database_labels[some].tolist(), problem.query_labels[self._shown].tolist()
        yield figures.map_of_codes(points[0], points[1], groups, asked, points[2])


def _index_of(database: Any, bits: int | None, bit_weights: Any) -> HammingIndex:
    """The index that is given, or one of the codes that are."""
    if isinstance(database, HammingIndex):
        if bits is not None or bit_weights is not None:
            raise ValueError("Report: bits and bit_weights must be None for an index, which has its own")
        return database
    codes = np.asarray(database)
    if codes.ndim != 2 or codes.dtype != np.uint8:
        raise TypeError(
            f"Report: database must be a HammingIndex or packed uint8 codes [N, W], got {dtype_name(codes)} of shape "
            f"{list(codes.shape)}"
        )
    index = HammingIndex(8 * codes.shape[1] if bits is None else bits, bit_weights=bit_weights)
    index.add(codes)
    return index


def _as_rows(queries: Side, database: Side) -> Side:
    """Queries that are the rows of the database: shown and named as these."""
    labels = database.labels if queries.labels is None else queries.labels
    return Side(queries.size, queries.codes_of, database.names_of, labels, database.items, queries.outputs)
