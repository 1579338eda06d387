"""fasthash eval --qrels: graded relevance of named documents, for a run or for codes and embeddings with names."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fasthash import metrics
from fasthash.cli.columns import for_tables, given, read_items
from fasthash.cli.files import print_json
from fasthash.cli.keys import key_options, read_keys
from fasthash.cli.output import show_lines
from fasthash.cli.parser import UserError
from fasthash.cli.weights import same_weights, weights_of
from fasthash.index import HammingIndex
from fasthash.index.groups import shown_groups
from fasthash.index.key_texts import printed

_OF_LABELS = ("query_labels", "database_labels", "label_column", "hierarchy", "hierarchy_order", "at", "map_at")
_OF_QRELS = ("run_file", "query_keys", "database_keys", "gains", "per_query")
_OF_ITEMS = ("queries", "database", "column", "format", "bits", "bit_weights", "model", "metric", "query_keys")


def check_options(arguments: argparse.Namespace) -> None:
    """Refuses options that would be ignored, and a command that says neither labels nor qrels."""
    labelled = arguments.qrels is None
    for name in _OF_QRELS if labelled else _OF_LABELS:
        if getattr(arguments, name):
            raise UserError(f"eval: {_typed(name)} {'needs' if labelled else 'cannot be used with'} --qrels")
    if arguments.run_file is not None:
        for name in (*_OF_ITEMS, "database_keys"):
            if getattr(arguments, name) is not None:
                raise UserError(f"eval: {_typed(name)} cannot be used with --run, because a run is ranked already")
        return
    needed = ("queries", "database", *(("query_labels", "database_labels") if labelled else ()))
    missing = [_typed(name) for name in needed if getattr(arguments, name) is None]
    if missing:
        or_qrels = " (or --qrels, or --exact)" if labelled else " (or --run)"
        raise UserError(
            f"eval: the following arguments are required: {', '.join(missing)}{or_qrels} (see fasthash eval --help)"
        )


def evaluate(arguments: argparse.Namespace, model: Any) -> None:
    with given(arguments.qrels):
        qrels = metrics.read_qrels(arguments.qrels)
    options: dict[str, Any] = {"k": (10, 100) if arguments.k is None else arguments.k, "per_query": arguments.per_query}
    options["gains"] = arguments.gains or "linear"
    if arguments.run_file is not None:
        with given(arguments.run_file):
            run = metrics.read_run(arguments.run_file)
        result = metrics.retrieval(run, qrels, **options)
    else:
        paths = (arguments.queries, arguments.database)
        column = for_tables(paths, arguments.column, "--column")
        weights = weights_of(arguments, model)
        if Path(arguments.database).is_dir():
            database, names, bits, weights = _of_index(arguments, weights)
        else:
            database, bits = read_items(paths[1], arguments.bits, arguments.format, column[paths[1]])
            names = _names(paths[1], arguments.database_keys, len(database), arguments.format)
        queries, query_bits = read_items(paths[0], arguments.bits or bits, arguments.format, column[paths[0]])
        if query_bits != bits and None not in (query_bits, bits):
            raise UserError(
                f"{paths[0]} and {paths[1]}: must have codes of the same number of bits, got {query_bits} and {bits}"
            )
        query_names = _names(paths[0], arguments.query_keys, len(queries), arguments.format)
        result = metrics.exhaustive_retrieval(
            queries, database, query_names, names, qrels, metric=arguments.metric, bit_weights=weights, **options
        )
    if arguments.json:
        print_json(result)
    elif arguments.per_query:
        columns = list(next(iter(result.values())))
        lines = (
            "\t".join([printed(name), *(f"{value:.4f}" for value in row.values())]) for name, row in result.items()
        )
        show_lines(["\t".join(["query", *columns]), *lines])
    else:
        show_lines(
            f"{name:16} {value:,.0f}" if name == "queries" else f"{name:16} {value:.4f}"
            for name, value in result.items()
        )


def _of_index(arguments: argparse.Namespace, weights: Any) -> tuple[NDArray[np.uint8], Any, int | None, Any]:
    """Codes of an index folder, their keys (ids where it has none), bits and weights."""
    path = arguments.database
    index = HammingIndex.open(path)
    for name in ("database_keys", "bits"):
        if getattr(arguments, name) is not None:
            raise UserError(f"eval: {_typed(name)} cannot be used with an index folder, which has its own, got {path}")
    if weights is not None and not same_weights(weights, index.bit_weights, index.bits):
        own = shown_groups(tuple(index.bit_weights or ()))
        raise UserError(f"{path}: its bits have the weights {own}; the given weights must be equal, or be omitted")
    ids = index.ids
    return index.get(ids), index.keys_of(ids) if index.keyed else ids, index.bits, index.bit_weights


def _names(path: str, keys: str | None, rows: int, format: str | None) -> Any:
    """The names of the rows of a file: its keys, else the numbers of its rows."""
    read = read_keys(key_options(path, keys, format), path, rows, format)
    if read is None:
        return range(rows)

    def texts() -> Iterator[str]:
        for row in range(read.size):
            yield read.one(row)[0].decode()

    return texts()


def _typed(name: str) -> str:
    if name in ("queries", "database"):
        return name.upper()
    return "--run" if name == "run_file" else f"--{name.replace('_', '-')}"
