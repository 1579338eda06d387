"""The report of `fasthash demo`: one HTML page."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import Any

from fasthash._durable import replaced_file
from fasthash.report.plots import Plots, draw
from fasthash.report.tables import about, columns, distance_words, notes, text_columns

_SOURCE = (
    """Data: clinc150 (Larson et al., EMNLP-IJCNLP 2019, CC BY 3.0), embeddings of all-MiniLM-L6-v2 (Apache-2.0)."""
)
_LESS_BINARY = (
    "With the KL term, outputs can be less binary than without it. Other terms already drive them to 0 "
    "and 1. The KL term pushes the items of a class apart, so that some of their outputs lie between."
)
_HEAD = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>fasthash demo</title><style>
body { font: 15px/1.5 system-ui, sans-serif; max-width: 70em; margin: 2em auto; padding: 0 1em; color: #222 }
table { border-collapse: collapse } td, th { padding: .15em .7em; text-align: right; border-bottom: 1px solid #ddd }
.text { text-align: left } h1, h2 { font-weight: 600 } h2 { font-size: 1.1em }
svg { max-width: 100%; height: auto } footer { margin-top: 2em; color: #666 }
</style></head><body>"""


def write_report(path: Path, results: dict[str, Any], plots: Plots) -> bool:
    """Writes one HTML page that needs nothing beside it; gives whether it has plots, which matplotlib makes."""
    drawing = draw(plots)
    headings, tables = columns(results)
    texts = text_columns(results)
    parts = [_HEAD, "<h1>fasthash demo</h1>", f"<p>{escape(_title(results))}</p>"]
    for database, rows in tables.items():
        parts += [f"<h2>{escape(about(results, database))}</h2>", "<table>", _row(headings, "th", texts)]
        parts += [_row(cells, "td", texts) for cells in rows]
        parts.append("</table>")
    parts += [f"<p>{escape(words)}</p>" for words in notes(results)]
    parts.append(f"<h2>Outputs, bits and rankings</h2>{drawing or '<p>No plots: matplotlib is not installed.</p>'}")
    if texts > 1:
        parts.append(f"<p>{_LESS_BINARY}</p>")
    parts.append(f"<h2>Queries and their nearest texts</h2><p>{escape(distance_words(results))}</p>")
    for example in results["examples"]:
        parts.append(f"<p><b>{escape(example['text'])}</b> [{escape(example['intent'])}]</p><ul>")
        for found in example["results"]:
            parts.append(f"<li>{found['distance']}: {escape(found['text'])} [{escape(found['intent'])}]</li>")
        parts.append("</ul>")
    parts.append(f"<footer>{escape(_SOURCE)}</footer></body></html>\n")
    with replaced_file(path) as file:
        file.write("\n".join(parts).encode())
    return drawing is not None


def _title(results: dict[str, Any]) -> str:
    part = "" if results["fraction"] == 1 else f" ({100 * results['fraction']:.0f} % of the texts)"
    return f"{results['bits']}-bit codes of {results['data']}{part}, seed {results['seed']}, torch {results['torch']}."


def _row(cells: list[str], tag: str, texts: int) -> str:
    """A row of a table; the first cells are texts, the others numbers."""
    begins = [f'<{tag} class="text">'] * texts + [f"<{tag}>"] * (len(cells) - texts)
    return f"<tr>{''.join(f'{begin}{escape(cell)}</{tag}>' for begin, cell in zip(begins, cells, strict=True))}</tr>"
