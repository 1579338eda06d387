"""The queries of the page with what was found for each, right and wrong marked by a sign, a word and a colour."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from typing import NamedTuple

_MARKS = {
    True: '<span class="mark right" title="same class">✓<span class="hidden"> right</span></span>',
    False: '<span class="mark wrong" title="another class">✗<span class="hidden"> wrong</span></span>',
    None: "",
}


class Found(NamedTuple):
    """One result. right: of the query's class; None: not known."""

    item: str  # HTML
    distance: int
    label: str | None
    right: bool | None


class Card(NamedTuple):
    """One query. group: number of its class; score: its average precision; None: not known."""

    item: str  # HTML
    label: str | None
    group: int | None
    score: float | None
    found: list[Found]


def cards_html(cards: list[Card], pictures: bool) -> str:
    """The cards, one below the other."""
    kind = "pictures" if pictures else "texts"
    return f'<div class="cards {kind}">{"".join(_card(card) for card in cards)}</div>'


def _card(card: Card) -> str:
    group = "" if card.group is None else f' data-class="{card.group}"'
    score = "" if card.score is None else f'<span class="score">average precision {card.score:.3f}</span>'
    found = "".join(_found(card.found))
    return (
        f'<article class="card"{group}><div class="asked">{card.item}{_label(card.label)}{score}</div>'
        f'<ol class="found">{found}</ol><p class="none" hidden>nothing shown lies within the radius</p></article>'
    )


def _found(results: list[Found]) -> Iterator[str]:
    for result in results:
        side = {True: " right", False: " wrong", None: ""}[result.right]
        yield (
            f'<li class="result{side}" data-distance="{result.distance}">{_MARKS[result.right]}{result.item}'
            f'<span class="distance">distance {result.distance}</span>{_label(result.label)}</li>'
        )


def _label(label: str | None) -> str:
    return "" if label is None else f'<span class="label">{escape(label)}</span>'
