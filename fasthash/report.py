"""Results of `fasthash demo` for people: tables as text and Markdown, and one page with plots."""

from __future__ import annotations

import html
import io
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fasthash.codes import unpack_bits
from fasthash.metrics import precision_recall_curve

Array = NDArray[Any]

_DATABASES = {
    "train": "Database: the {database:,} training texts. Queries: {queries:,} test texts.",
    "val": "Database: {database:,} texts that nothing was trained on. Queries: {queries:,} test texts.",
}
_LEGEND = """\
mAP and P@10: relevant = same intent. mAHP@250: hierarchical precision, where an intent of the same domain counts half.
All exact over ties. overlap@10: part of the 10 nearest of the same intent that are also the 10 nearest by the cosine
of the inputs. codes: different codes in the database. bytes: of an item. queries/s: exact search of the 10 nearest,
{threads} threads. KL: trained with the KL term. "64 floats": the outputs before rounding, ranked by L1 distance."""


@dataclass(frozen=True)
class Plots:
    """What the plots are made of."""

    outputs: dict[tuple[str, bool], Array]  # (learned from, with KL term) -> outputs float32 [N, bits]
    codes: dict[str, Array]  # method -> codes uint8 [N, W]
    ranked: list[tuple[str, Array, Array, str]]  # method, queries, database, metric
    query_labels: Array
    database_labels: Array


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
        widths = [max(map(len, column)) for column in zip(headings, *rows, strict=True)]
        lines += [_about(results, database), ""]
        for cells in (headings, *rows):
            aligned = [
                cell.ljust(width) if number < 3 else cell.rjust(width)
                for number, (cell, width) in enumerate(zip(cells, widths, strict=True))
            ]
            lines.append("  ".join(aligned).rstrip())
        lines.append("")
    lines += [_legend(results), "", textwrap.fill(_kept(results), 118), ""]
    return "\n".join(lines)


def markdown_tables(results: dict[str, Any]) -> str:
    """Both tables and their legend as Markdown: what the README shows."""
    headings, tables = columns(results)
    lines = []
    for database, rows in tables.items():
        lines += [_about(results, database), "", f"| {' | '.join(headings)} |"]
        lines.append(f"|{'|'.join(['---'] * 3 + ['---:'] * (len(headings) - 3))}|")
        lines += [f"| {' | '.join(cells)} |" for cells in rows]
        lines.append("")
    return "\n".join([*lines, _legend(results), "", _kept(results)])


def write_report(path: Path, results: dict[str, Any], plots: Plots) -> bool:
    """Writes one HTML page that needs nothing beside it; gives whether it has plots, which matplotlib makes."""
    drawing = _draw(plots)
    headings, tables = columns(results)
    parts = [_HEAD, "<h1>fasthash demo</h1>", f"<p>{_escape(_title(results))}</p>"]
    for database, rows in tables.items():
        parts += [f"<h2>{_escape(_about(results, database))}</h2>", "<table>", _row(headings, "th")]
        parts += [_row(cells, "td") for cells in rows]
        parts.append("</table>")
    parts.append(f"<p>{_escape(_legend(results))}</p><p>{_escape(_kept(results))}</p>")
    parts.append(f"<h2>Outputs, bits and rankings</h2>{drawing or '<p>No plots: matplotlib is not installed.</p>'}")
    parts.append("<h2>Queries and their nearest texts, by Hamming distance</h2>")
    for example in results["examples"]:
        parts.append(f"<p><b>{_escape(example['text'])}</b> [{_escape(example['intent'])}]</p><ul>")
        for found in example["results"]:
            parts.append(f"<li>{found['distance']} bits: {_escape(found['text'])} [{_escape(found['intent'])}]</li>")
        parts.append("</ul>")
    parts.append(f"<footer>{_escape(_SOURCE)}</footer></body></html>\n")
    path.write_text("\n".join(parts), encoding="utf-8")
    return drawing is not None


# Words


_SOURCE = (
    """Data: clinc150 (Larson et al., EMNLP-IJCNLP 2019, CC BY 3.0), embeddings of all-MiniLM-L6-v2 (Apache-2.0)."""
)
_HEAD = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>fasthash demo</title><style>
body { font: 15px/1.5 system-ui, sans-serif; max-width: 70em; margin: 2em auto; padding: 0 1em; color: #222 }
table { border-collapse: collapse } td, th { padding: .15em .7em; text-align: right; border-bottom: 1px solid #ddd }
td:nth-child(-n+3), th:nth-child(-n+3) { text-align: left } h1, h2 { font-weight: 600 } h2 { font-size: 1.1em }
svg { max-width: 100%; height: auto } footer { margin-top: 2em; color: #666 }
</style></head><body>"""


def _title(results: dict[str, Any]) -> str:
    part = "" if results["fraction"] == 1 else f" ({100 * results['fraction']:.0f} % of the texts)"
    return f"{results['bits']}-bit codes of {results['data']}{part}, seed {results['seed']}, torch {results['torch']}."


def _about(results: dict[str, Any], database: str) -> str:
    sizes = results["sizes"]
    return _DATABASES[database].format(database=sizes[database], queries=sizes["test"])


def _legend(results: dict[str, Any]) -> str:
    return _LEGEND.format(threads=results["threads"])


def _kept(results: dict[str, Any]) -> str:
    """How much of the best real-valued outputs the codes keep."""
    rows = [row for row in results["tables"]["train"] if row["learned_from"] is not None]
    best = max(row["mAHP"] for row in rows if row["codes"] is None)
    parts = [
        f"{100 * row['mAHP'] / best:.1f} % ({row['learned_from']}, KL {'on' if row['kl'] else 'off'})"
        for row in rows
        if row["codes"] is not None
    ]
    return f"Of the best mAHP of {results['bits']} floats, {best:.3f}, the codes reach {', '.join(parts)}."


def _cells(row: dict[str, Any]) -> list[str]:
    def number(value: float | None, form: str) -> str:
        return "" if value is None else format(value, form)

    kl = {None: "", True: "on", False: "off"}[row["kl"]]
    scores = [number(row[name], ".3f") for name in ("mAP", "mAHP", "P@10", "overlap@10")]
    sizes = [number(row[name], ",.0f") for name in ("codes", "bytes", "queries_per_second")]
    return [row["method"], row["learned_from"] or "", kl, *scores, *sizes]


def _row(cells: list[str], tag: str) -> str:
    return f"<tr>{''.join(f'<{tag}>{_escape(cell)}</{tag}>' for cell in cells)}</tr>"


def _escape(text: str) -> str:
    return html.escape(text)


# Plots


def _draw(plots: Plots) -> str | None:
    """The figure as an SVG element, or None without matplotlib."""
    try:
        from matplotlib import rc_context
        from matplotlib.figure import Figure
    except ImportError:
        return None
    with rc_context({"svg.fonttype": "none", "font.size": 9, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(10.5, 7), layout="constrained")  # not pyplot's: no window system, no global state
        axes = figure.subplots(2, 2)
        for axis, source in zip(axes[0], ("labels", "similarities"), strict=True):
            _draw_outputs(axis, source, plots)
        _draw_balance(axes[1, 0], plots)
        _draw_curves(axes[1, 1], plots)
        out = io.StringIO()
        figure.savefig(out, format="svg", metadata={"Date": None})
    svg = out.getvalue()
    return svg[svg.index("<svg") :]


def _draw_outputs(axis: Any, source: str, plots: Plots) -> None:
    """Histogram of outputs, with the KL term and without."""
    for kl, color in ((True, "C3"), (False, "0.4")):
        values = plots.outputs[source, kl].ravel()
        moved = float(np.abs(values - (values > 0.5)).mean())
        label = f"KL {'on' if kl else 'off'}: mean |z - round z| = {moved:.3f}"
        part = np.full(len(values), 1 / len(values))
        axis.hist(values, bins=50, range=(0, 1), weights=part, histtype="step", color=color, label=label)
    axis.set(title=f"outputs before rounding, learned from {source}", xlabel="output", ylabel="part of outputs")
    axis.set_yscale("log")
    axis.legend(loc="upper center")


def _draw_balance(axis: Any, plots: Plots) -> None:
    """Part of items that have each bit, in ascending order: 0.5 everywhere is a bit used to the full."""
    for name, codes in plots.codes.items():
        ones = unpack_bits(codes, 8 * codes.shape[1]).mean(axis=0)
        axis.plot(np.sort(ones), label=name)
    axis.axhline(0.5, color="0.7", linewidth=0.8)
    axis.set(title="bit balance", xlabel="bits, sorted", ylabel="part of texts with the bit on", ylim=(0, 1))
    axis.legend(loc="lower right")


def _draw_curves(axis: Any, plots: Plots) -> None:
    """Precision against recall, along the ranking."""
    for name, query, database, metric in plots.ranked:
        distance = None if metric == "hamming" else metric
        curve = precision_recall_curve(query, database, plots.query_labels, plots.database_labels, metric=distance)
        axis.plot(curve.recall, curve.precision, label=name)
    axis.set(title="precision and recall, same intent", xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1))
    axis.legend(loc="lower left")
