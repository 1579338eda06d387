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
{threads} threads. KL: trained with the KL term. "64 floats": the outputs before rounding, ranked by L1 distance."""

_SHORT = ("mAP", "mAHP@250", "overlap@10", "bytes", "queries/s")
_SHORT_LEGEND = """\
mAP: relevant = same intent. mAHP@250: hierarchical precision, where an intent of the same domain counts half.
overlap@10: part of the 10 nearest of the same intent that are also the 10 nearest by the cosine of the inputs. All are
exact over ties. queries/s: exact search of the 10 nearest, {threads} threads."""


def columns(results: dict[str, Any]) -> tuple[list[str], dict[str, list[list[str]]]]:
    """Headings, and the cells of each table by the name of its database."""
    ranks = min(250, results["sizes"]["val"])
    headings = ["method", "from", "KL", "mAP", f"mAHP@{ranks}", "P@10", "overlap@10", "codes", "bytes", "queries/s"]
    return headings, {database: [_cells(row) for row in rows] for database, rows in results["tables"].items()}


def text_tables(results: dict[str, Any]) -> str:
    """Both tables and their legend as aligned text."""
    headings, tables = columns(results)
    lines = []
    for database, rows in tables.items():
        lines += [about(results, database), "", *text_lines(headings, rows, 3), ""]
    lines += [legend(results), "", textwrap.fill(kept(results), 118), ""]
    return "\n".join(lines)


def markdown_tables(results: dict[str, Any]) -> str:
    """Both tables and their legend as Markdown: what docs/demo.md shows."""
    headings, tables = columns(results)
    lines = []
    for database, rows in tables.items():
        lines += [about(results, database), "", *markdown_lines(headings, rows, 3), ""]
    return "\n".join([*lines, legend(results), "", kept(results)])


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


def legend(results: dict[str, Any]) -> str:
    return _LEGEND.format(threads=results["threads"])


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


def _cells(row: dict[str, Any]) -> list[str]:
    def number(value: float | None, form: str) -> str:
        return "" if value is None else format(value, form)

    kl = {None: "", True: "on", False: "off"}[row["kl"]]
    scores = [number(row[name], ".3f") for name in ("mAP", "mAHP", "P@10", "overlap@10")]
    sizes = [number(row[name], ",.0f") for name in ("codes", "bytes", "queries_per_second")]
    return [row["method"], row["learned_from"] or "", kl, *scores, *sizes]
