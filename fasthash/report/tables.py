"""The tables of `fasthash demo`, as text and as Markdown, and the words about them."""

from __future__ import annotations

import textwrap
from typing import Any

_DATABASES = {
    "train": "Database: the {database:,} training texts. Queries: {queries:,} test texts.",
    "val": "Database: {database:,} texts that nothing was trained on. Queries: {queries:,} test texts.",
}
_LEGEND = """\
mAP and P@10: relevant = same intent. mAHP@250: hierarchical precision, where an intent of the same domain counts half.
All exact over ties. overlap@10: part of the 10 nearest of the same intent that are also the 10 nearest by the cosine
of the inputs. codes: different codes in the database. bytes: of an item. queries/s: exact search of the 10 nearest,
{threads} threads."""
_LEGEND_OF_ABLATIONS = (
    """ KL: trained with the KL term. "64 floats": the outputs before rounding, ranked by L1 distance."""
)

_SHORT = ("mAP", "mAHP@250", "overlap@10", "bytes", "queries/s")
_SHORT_LEGEND = """\
mAP: relevant = same intent. mAHP@250: hierarchical precision, where an intent of the same domain counts half.
overlap@10: part of the 10 nearest of the same intent that are also the 10 nearest by the cosine of the inputs. All are
exact over ties. queries/s: exact search of the 10 nearest, {threads} threads."""


def columns(results: dict[str, Any]) -> tuple[list[str], dict[str, list[list[str]]]]:
    """Headings, and the cells of each table by the name of its database. The texts are the first `text_columns`."""
    ranks = min(250, results["sizes"]["val"])
    texts = ["method", "from", "KL"][: text_columns(results)]
    headings = [*texts, "mAP", f"mAHP@{ranks}", "P@10", "overlap@10", "codes", "bytes", "queries/s"]
    cells = {database: [_cells(row, len(texts)) for row in rows] for database, rows in results["tables"].items()}
    return headings, cells


def text_columns(results: dict[str, Any]) -> int:
    """1, the method. With ablations also what it learned from and whether with the KL term, which differ only there."""
    return 3 if _ablations(results) else 1


def _ablations(results: dict[str, Any]) -> bool:
    return any(row["kl"] is False for row in results["tables"]["train"])


def text_tables(results: dict[str, Any]) -> str:
    """Both tables and their legend as aligned text."""
    headings, tables = columns(results)
    lines = []
    for database, rows in tables.items():
        lines += [about(results, database), "", *text_lines(headings, rows, text_columns(results)), ""]
    return "\n".join([*lines, *(f"{textwrap.fill(words, 118)}\n" for words in notes(results))])


def markdown_tables(results: dict[str, Any]) -> str:
    """Both tables and their legend as Markdown: what docs/demo.md shows."""
    headings, tables = columns(results)
    lines = []
    for database, rows in tables.items():
        lines += [about(results, database), "", *markdown_lines(headings, rows, text_columns(results)), ""]
    return "\n".join([*lines, "\n\n".join(notes(results))])


def short_table(results: dict[str, Any]) -> str:
    """A few rows of the first table as Markdown: what the README shows."""
    headings, tables = columns(results)
    database, rows = next(iter(tables.items()))
    names = ["method", *_SHORT]
    chosen = [dict(zip(headings, rows[number], strict=True)) for number in _short_rows(results["tables"][database])]
    lines = markdown_lines(names, [[row[name] for name in names] for row in chosen], 1)
    return "\n".join([*lines, "", _SHORT_LEGEND.format(threads=results["threads"])])


def _short_rows(rows: list[dict[str, Any]]) -> list[int]:
    """The floats, all codes without training, and what `Hasher` learns by default: the last row."""
    return [*(n for n, row in enumerate(rows) if row["learned_from"] is None and row["bytes"]), len(rows) - 1]


def text_lines(headings: list[str], rows: list[list[str]], texts: int) -> list[str]:
    """A table as lines of aligned text; the first columns are texts, the others numbers."""
    widths = [max(map(len, column)) for column in zip(headings, *rows, strict=True)]
    lines = []
    for cells in (headings, *rows):
        aligned = [
            cell.ljust(width) if number < texts else cell.rjust(width)
            for number, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ]
        lines.append("  ".join(aligned).rstrip())
    return lines


def markdown_lines(headings: list[str], rows: list[list[str]], texts: int) -> list[str]:
    """The same as lines of Markdown."""
    rule = "|".join(["---"] * texts + ["---:"] * (len(headings) - texts))
    return [f"| {' | '.join(headings)} |", f"|{rule}|", *(f"| {' | '.join(cells)} |" for cells in rows)]


def about(results: dict[str, Any], database: str) -> str:
    sizes = results["sizes"]
    return _DATABASES[database].format(database=sizes[database], queries=sizes["test"])


def notes(results: dict[str, Any]) -> list[str]:
    """The legend, and with ablations how much of the outputs before rounding the codes keep."""
    legend = _LEGEND.format(threads=results["threads"])
    return [legend + _LEGEND_OF_ABLATIONS, kept(results)] if _ablations(results) else [legend]


def distance_words(results: dict[str, Any]) -> str:
    """What a distance of the examples is: "Distance: 4 for each of the first 44 bits that differs, ..."."""
    (first, weight), *others = results["bit_weights"]
    parts = [f"{weight} for each of the first {first} bits that differs"]
    parts += [f"{weight} for each of the next {bits}" for bits, weight in others]
    return f"Distance: {', '.join(parts)}."


def kept(results: dict[str, Any]) -> str:
    """How much of the best real-valued outputs the codes keep."""
    rows = [row for row in results["tables"]["train"] if row["learned_from"] is not None]
    best = max(row["mAHP"] for row in rows if row["codes"] is None)
    parts = [f"{100 * row['mAHP'] / best:.1f} % ({_trained(row)})" for row in rows if row["codes"] is not None]
    return f"Of the best mAHP of {results['bits']} floats, {best:.3f}, the codes reach {', '.join(parts)}."


def _trained(row: dict[str, Any]) -> str:
    """How the codes of a row were trained, and their parts where they have some: "44 + 20 bits, labels, KL on"."""
    bits = row["method"].removeprefix("fasthash, ")
    parts = [bits] if "+" in bits else []
    return ", ".join([*parts, row["learned_from"], f"KL {'on' if row['kl'] else 'off'}"])


def _cells(row: dict[str, Any], texts: int) -> list[str]:
    def number(value: float | None, form: str) -> str:
        return "" if value is None else format(value, form)

    kl = {None: "", True: "on", False: "off"}[row["kl"]]
    scores = [number(row[name], ".3f") for name in ("mAP", "mAHP", "P@10", "overlap@10")]
    sizes = [number(row[name], ",.0f") for name in ("codes", "bytes", "queries_per_second")]
    return [*[row["method"], row["learned_from"] or "", kl][:texts], *scores, *sizes]
