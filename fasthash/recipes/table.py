"""The table of a recipe, as text and as Markdown."""

from __future__ import annotations

from typing import Any

from fasthash.report.tables import markdown_lines, text_lines

_CLASSES = "mAP: relevant = same class."
_LEGEND = """\
mAHP: hierarchical precision by similarity ("mean" variant). Exact over ties.
floats: outputs before rounding, by L1 distance; bits: codes, by Hamming distance. No published number is claimed."""


def text_table(results: dict[str, Any]) -> str:
    """The tables as aligned text."""
    lines = [*_about(results), ""]
    for table in results["tables"]:
        lines += [_title(table), "", *text_lines(*_cells(table), 2), ""]
    return "\n".join([*lines, _legend(results)])


def markdown_table(results: dict[str, Any]) -> str:
    """The tables as Markdown."""
    lines = [*(f"- {line}" for line in _about(results)), ""]
    for table in results["tables"]:
        lines += [_title(table), "", *markdown_lines(*_cells(table), 2), ""]
    return "\n".join([*lines, _legend(results)])


def _about(results: dict[str, Any]) -> list[str]:
    reduced = ["reduced data, network and epochs (--small): these numbers compare with nothing published"]
    epochs = f"{results['trained_on']:,} pictures, {results['epochs']} epochs, seed {results['seed']}"
    skipped = [f"{len(results['skipped'])} pictures could not be read"] if results["skipped"] else []
    return [*results["about"], epochs, *(reduced if results["small"] else []), *skipped]


def _legend(results: dict[str, Any]) -> str:
    has_classes = results["tables"][0]["rows"][0]["mAP"] is not None
    return f"{_CLASSES} {_LEGEND}" if has_classes else _LEGEND


def _title(table: dict[str, Any]) -> str:
    title = str(table["title"])
    return f"{title[0].upper()}{title[1:]} ({table['queries']:,} queries, {table['database']:,} in the database)"


def _cells(table: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    ranks = [name for name in table["rows"][0] if name.startswith("mAHP@")]
    names = ["mAP", *ranks] if table["rows"][0]["mAP"] is not None else ranks
    rows = [[row["learned_from"], row["method"], *(f"{row[name]:.3f}" for name in names)] for row in table["rows"]]
    return ["learned from", "output", *names], rows
