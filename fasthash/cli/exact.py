"""fasthash eval --exact: what codes find of an exact search, as a table, JSON or a plot."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from fasthash._durable import replaced_file
from fasthash.cli.columns import for_tables, read_features
from fasthash.cli.files import output_file, print_json
from fasthash.cli.output import show_lines
from fasthash.cli.parser import UserError
from fasthash.embeddings import against_exact
from fasthash.embeddings.encoders import FIT_ROWS, NAMES, encoder_from
from fasthash.index.errors import IndexFolderError
from fasthash.index.vectors import KINDS

_RANKS = (1, 10, 100)


def evaluate_exact(arguments: argparse.Namespace) -> None:
    """Measures every encoder, width and refinement that was asked for."""
    given = (arguments.queries, arguments.database, arguments.query_labels, arguments.database_labels)
    if any(value is not None for value in given):
        raise UserError("eval: --exact needs --queries, and takes no QUERIES, DATABASE or labels")
    if arguments.query_rows is None:
        raise UserError("eval: --exact needs --queries")
    plot = None if arguments.plot is None else output_file(arguments.plot, (".png", ".svg", ".pdf"))
    if plot is not None:
        _figure()  # said before long work
    paths = (arguments.exact, arguments.query_rows)
    column = for_tables(paths, arguments.column, "--column")
    rows, queries = (read_features(path, column[path]) for path in paths)
    if rows.shape[1] != queries.shape[1]:
        raise UserError(f"{paths[1]}: must have the {rows.shape[1]} columns of {paths[0]}, got {queries.shape[1]}")
    try:
        found = against_exact(
            rows,
            queries,
            [_encoder(name) for name in arguments.encoder.split(",")],
            bits=None if arguments.widths is None else [_whole(width) for width in arguments.widths.split(",")],
            refine=[_refine(kind) for kind in arguments.refine.split(",")],
            metric=arguments.metric or "cosine",
            at=[k for k in _RANKS if k <= len(rows)],
            oversample=arguments.oversample,
            fit_rows=FIT_ROWS if arguments.fit_rows is None else arguments.fit_rows,
            progress=False if arguments.json else None,
        )
    except (ValueError, TypeError) as error:
        raise UserError(str(error).replace("against_exact: ", "eval: ", 1)) from None
    if plot is not None:
        _draw(plot, found)
    if arguments.json:
        print_json(found)
        return
    show_lines(_table(found))


def _encoder(name: str) -> Any:
    if name in NAMES:
        return name
    path = Path(name)
    if not path.is_file():
        raise UserError(f"eval: --encoder must be one of {', '.join(NAMES)} or a file of an encoder, got {name!r}")
    try:
        return encoder_from(path.read_bytes(), name)
    except IndexFolderError as error:
        raise UserError(str(error)) from None


def _whole(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise UserError(f"eval: --widths must be whole numbers with commas between, got {text!r}") from None


def _refine(text: str) -> str | None:
    if text not in ("none", *KINDS):
        raise UserError(f"eval: --refine must be one of none, {', '.join(KINDS)}, got {text!r}")
    return None if text == "none" else text


def _table(found: list[dict[str, Any]]) -> list[str]:
    measures = [name for name in found[0] if "@" in name]
    wide = max(len(row["encoder"]) for row in found)
    lines = [f"{'encoder':{wide}}  bits  refine    bytes  " + "  ".join(f"{name:>11}" for name in measures)]
    for row in found:
        numbers = "  ".join(f"{row[name]:11.3f}" for name in measures)
        lines.append(
            f"{row['encoder']:{wide}}  {row['bits']:4}  {row['refine'] or 'none':8}  {row['bytes']:5}  {numbers}"
        )
    return lines


def _figure() -> Any:
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise UserError("eval: --plot needs matplotlib, which is not installed: pip install 'fasthash[demo]'") from None
    return Figure(figsize=(7, 4.5), layout="constrained")


def _draw(path: Path, found: list[dict[str, Any]]) -> None:
    """Overlap with the exact answer against bytes of an item; a line for each encoder and refinement."""
    figure = _figure()
    axis = figure.subplots()
    name = [name for name in found[0] if name.startswith("overlap@")][-2:][0]
    for key in dict.fromkeys((row["encoder"], row["refine"]) for row in found):
        own = sorted((row["bytes"], row[name]) for row in found if (row["encoder"], row["refine"]) == key)
        axis.plot(*zip(*own, strict=True), marker="o", label=f"{key[0]}, refine {key[1] or 'none'}")
    axis.set(xlabel="bytes an item", ylabel=name, xscale="log", ylim=(0, 1.02))
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8)
    with replaced_file(path) as file:
        figure.savefig(file, format=path.suffix[1:].lower(), dpi=120)
