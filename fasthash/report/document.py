"""The HTML of a report: one file, whose policy forbids the browser to load anything or to run any other script."""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fasthash.report.cards import Card, cards_html
from fasthash.report.colours import style
from fasthash.report.figures import Figure
from fasthash.report.measures import Measures

NAMED = 50  # broken pictures that are named
_WORDS = {
    "mAP": "mean average precision",
    "P": "precision of the first {}",
    "R": "recall of the first {}",
    "nDCG": "discounted gain of the first {}, of the best possible one",
    "mAHP": "mean hierarchical precision up to rank {}",
    "codes": "different codes in the database",
    "bit_balance": "1: each bit is on for half of the codes",
    "bit_entropy": "bits of information in a bit, on average",
    "bit_correlation": "mean over pairs of bits; 0: no bit predicts another",
}


@dataclass(frozen=True)
class Content:
    """All that is on the page. classes: name of each class by number; members: positions of its measured queries."""

    title: str
    about: str
    notes: list[str]
    broken: dict[str, str]
    measures: Measures
    figures: list[Figure]
    cards: list[Card]
    worst: list[Card]
    pictures: bool
    classes: dict[int, str]
    members: dict[int, NDArray[Any]]


def document(content: Content) -> str:
    """The page."""
    css, script = style() + _file("page.css"), _file("page.js")
    policy = (
        f"default-src 'none'; img-src data:; style-src '{_hash(css)}'; script-src '{_hash(script)}'; base-uri 'none'; "
        "form-action 'none'"
    )
    notes = "".join(f"<li>{escape(note)}</li>" for note in content.notes)
    parts = [
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{escape(content.title)}</title><style>{css}</style></head><body>",
        f"<header><h1>{escape(content.title)}</h1><p>{escape(content.about)}</p></header><main>",
        _controls(content),
        "<h2>Scores</h2>",
        _table(content.measures.numbers),
        f'<ul class="quiet">{notes}</ul>' if notes else "",
        _broken(content.broken),
        f'<h2>Plots</h2><div class="figures">{"".join(figure.html() for figure in content.figures)}</div>',
        f"<section><h2>Queries and their nearest</h2>{cards_html(content.cards, content.pictures)}</section>",
    ]
    if content.worst:
        parts.append(
            '<section id="worst"><h2>The worst queries</h2><p class="good">The queries with the lowest average '
            "precision of all that were measured. Good: even here most of the nearest are right, or a label is "
            f"wrong.</p>{cards_html(content.worst, content.pictures)}</section>"
        )
    parts += [
        "</main><footer>Made by fasthash report. This page is one file and loads nothing.</footer>",
        f'<script type="application/json" id="data">{_json(_data(content))}</script>',
        f"<script>{script}</script></body></html>\n",
    ]
    return "".join(parts)


def _controls(content: Content) -> str:
    """The slider and the filter. They are hidden where no script runs; everything is shown then."""
    radii = content.measures.radii
    farthest = max((found.distance for card in (*content.cards, *content.worst) for found in card.found), default=0)
    start = int(np.searchsorted(radii, farthest))
    chosen = ""
    if content.classes:
        options = "".join(f'<option value="{number}">{escape(name)}</option>' for number, name in _by_name(content))
        chosen = f'<label for="class">Class <select id="class"><option value="">all</option>{options}</select></label>'
    return (
        '<form id="controls" aria-label="What is shown" autocomplete="off" hidden>'
        f'<label for="radius">Radius <input type="range" id="radius" min="0" max="{len(radii) - 1}" step="1" '
        f'value="{start}"><output id="radius-value" for="radius"></output></label>{chosen}'
        '<p id="shown" role="status"></p><p id="scores" role="status"></p></form>'
    )


def _by_name(content: Content) -> list[tuple[int, str]]:
    return sorted(content.classes.items())  # numbers are in the order of the labels


def _table(numbers: dict[str, float]) -> str:
    """Scores by name."""
    rows = []
    for name, value in numbers.items():
        base, _, rank = name.partition("@")
        words = _WORDS.get(base, "").format(rank)
        if rank.startswith("radius"):
            words = f"precision within distance {rank.removeprefix('radius')}"
        told = f"{value:,.0f}" if name == "codes" else f"{value:.4f}"
        rows.append(f'<tr><th scope="row">{escape(name)}</th><td>{told}</td><th class="good">{escape(words)}</th></tr>')
    return f"<table>{''.join(rows)}</table>"


def _broken(broken: dict[str, str]) -> str:
    """Pictures that could not be read."""
    if not broken:
        return ""
    lines = [f"<li>{escape(name[:400])}: {escape(why)}</li>" for name, why in list(broken.items())[:NAMED]]
    if len(broken) > NAMED:
        lines.append(f"<li>and {len(broken) - NAMED:,} more</li>")
    summary = f"<summary>Pictures that could not be read: {len(broken):,}</summary>"
    return f"<details open>{summary}<ul>{''.join(lines)}</ul></details>"


def _data(content: Content) -> dict[str, Any]:
    """What the script reads: radii, and precision and recall within each, of all queries and of those of a class."""
    precision, recall = content.measures.precision, content.measures.recall
    data: dict[str, Any] = {"radii": content.measures.radii.tolist(), "all": None, "classes": {}}
    if precision is None or recall is None:
        return data

    def curves(rows: Any) -> dict[str, Any]:
        a, b = precision[rows], recall[rows]
        return {"queries": len(a), "precision": a.mean(0).round(6).tolist(), "recall": b.mean(0).round(6).tolist()}

    data["all"] = curves(slice(None))
    data["classes"] = {str(group): curves(rows) for group, rows in content.members.items()}
    return data


def _json(data: dict[str, Any]) -> str:
    """JSON that cannot end the script element that it is in."""
    text = json.dumps(data, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _file(name: str) -> str:
    return files("fasthash.report").joinpath(name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
