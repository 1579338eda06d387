"""fasthash search in a folder of an EmbeddingIndex, whose queries are embeddings; and results as a table."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fasthash._durable import replaced_file
from fasthash._tables import import_arrow
from fasthash.cli.columns import read_features
from fasthash.cli.parser import UserError
from fasthash.index.errors import IndexFolderError
from fasthash.index.store.manifest import current_manifest

if TYPE_CHECKING:
    from fasthash.embeddings import EmbeddingResult

_OTHERS = ("radius", "bit_weights", "format", "links_within", "metric")
_QUERIES = 1 << 14  # that are searched at once


def has_encoder(folder: str) -> bool:
    """Whether a path is the folder of an EmbeddingIndex."""
    if not (Path(folder) / "manifest.json").is_file():
        return False
    try:
        return current_manifest(Path(folder)).embedding is not None
    except IndexFolderError:
        return False  # told when it is opened


def found_by_scores(arguments: argparse.Namespace, column: str | None) -> EmbeddingResult:
    """The answer for the embeddings of QUERIES."""
    from fasthash.embeddings import EmbeddingIndex, EmbeddingResult  # they import all that trains

    for name in _OTHERS:
        if getattr(arguments, name) is not None:
            option = "--" + name.replace("_", "-")
            raise UserError(
                f"{arguments.index}: {option} needs an index of codes; this index has an encoder and takes embeddings"
            )
    if arguments.rescore == "all":
        raise UserError(
            f"{arguments.index}: --rescore all needs an index of codes; here --rescore is the oversample, a whole "
            "number"
        )
    index = EmbeddingIndex.open(arguments.index, method=arguments.method)
    queries = read_features(arguments.queries, column)
    try:
        parts = [
            index.search(queries[start : start + _QUERIES], arguments.k or 10, oversample=arguments.rescore or 3)
            for start in range(0, len(queries), _QUERIES)
        ]
    except (ValueError, TypeError) as error:
        raise UserError(f"{arguments.queries}: {str(error).replace('EmbeddingIndex.search: ', '', 1)}") from None
    scores, ids = (np.concatenate([getattr(part, name) for part in parts]) for name in ("scores", "ids"))
    return EmbeddingResult(scores, ids, np.concatenate([part.keys for part in parts]) if index.keyed else None)


def write_table(path: Path, found: Any, keys: NDArray[Any] | None) -> int:
    """Writes a row for each result to a Parquet or Arrow file: query, rank, id, distance or score, and key.

    Gives how many. A file that is there is replaced when the new one is on the disk.
    """
    arrow = import_arrow("pyarrow", "search")
    measure = "scores" if hasattr(found, "scores") else "distances"
    queries, ranks, places = _places(found)
    values, ids = getattr(found, measure).reshape(-1)[places], found.ids.reshape(-1)[places]
    columns = {"query": queries, "rank": ranks, "id": ids, measure[:-1]: values}
    if keys is not None:
        columns["key"] = arrow.array(keys.reshape(-1)[places].tolist(), arrow.string())
    table = arrow.table(columns)
    with replaced_file(path) as file:
        if path.suffix.lower() == ".parquet":
            import_arrow("pyarrow.parquet", "search").write_table(table, file)
        else:
            with import_arrow("pyarrow.ipc", "search").new_file(file, table.schema) as writer:
                writer.write_table(table)
    return len(ids)


def _places(found: Any) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Of each result: its query, its rank from 0, and where it stands in the flat arrays."""
    if hasattr(found, "offsets"):
        counts = np.diff(found.offsets)
        queries = np.repeat(np.arange(len(counts)), counts)
        places = np.arange(len(found.ids))
        return queries, places - found.offsets[:-1][queries], places
    k = found.ids.shape[1]
    places = np.flatnonzero(found.ids.reshape(-1) >= 0)
    return places // k, places % k, places


def score_rows(found: EmbeddingResult) -> Iterator[dict[str, list[Any]]]:
    """Ids, scores and keys of each query, without the places that stayed empty."""
    for number in range(len(found.ids)):
        own = found.ids[number] >= 0
        row = {"ids": found.ids[number, own].tolist(), "scores": found.scores[number, own].tolist()}
        yield row if found.keys is None else {**row, "keys": found.keys[number, own].tolist()}
