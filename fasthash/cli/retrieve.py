"""Commands over codes: index, search, eval."""

from __future__ import annotations

import argparse
import contextlib
import itertools
import re
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from fasthash._arguments import whole
from fasthash._arrays import dtype_name
from fasthash._durable import replaced_file
from fasthash.cli import qrels
from fasthash.cli.columns import (
    for_tables,
    read_codes,
    read_features,
    read_ids,
    read_items,
    read_labels,
    read_scales,
)
from fasthash.cli.embedded import found_by_scores, has_encoder, score_rows, write_table
from fasthash.cli.files import class_distances, fit_to_hierarchy, output_file, print_json, read_hierarchy, to_json
from fasthash.cli.keys import all_keys, as_strings, key_options, read_keys
from fasthash.cli.output import report, show, show_lines
from fasthash.cli.parser import UserError
from fasthash.cli.weights import parse_weights, same_weights, weights_of
from fasthash.codes import code_bytes
from fasthash.evaluate import evaluate as retrieval_metrics
from fasthash.hamming import RangeResult, SearchResult
from fasthash.index import HammingIndex
from fasthash.index.errors import IndexFolderError
from fasthash.index.exchange.pair_files import GROUP_SUFFIXES, TABLE_SUFFIXES, group_members, member_line, write_groups
from fasthash.index.groups import shown_groups
from fasthash.index.joins import stored_keys
from fasthash.index.key_texts import printed
from fasthash.index.store.manifest import current_manifest
from fasthash.index.store.untrusted import links_within

# Queries of a search that shows a bar: few first, so that it moves soon, then so many that going over the codes
# once for each block costs little beside comparing them.
FIRST_BLOCK, LARGEST_BLOCK = 64, 1024


def index_build(arguments: argparse.Namespace) -> None:
    source, bits, model = arguments.codes, arguments.bits, _model(arguments)
    if model is not None:
        if bits not in (None, model.bits):
            raise UserError(f"{arguments.model}: makes codes of {model.bits} bits, --bits must be the same, got {bits}")
        bits = model.bits
    weights = weights_of(arguments, model)
    options = {name: getattr(arguments, name) for name in ("overwrite", "mih", "format", "column", "id_column")}
    options |= key_options(source, arguments.keys, arguments.format) | {"code_scale": read_scales(arguments.code_scale)}
    with _as_typed(arguments.ids):
        index = HammingIndex.build(
            arguments.out, source, bits, arguments.ids, bit_weights=weights, progress=_progress(arguments), **options
        )
    _tell(
        arguments,
        {
            "index": arguments.out,
            "bits": index.bits,
            "codes": len(index),
            "bit_weights": index.bit_weights,
            "keys": index.keyed,
            "code_scale": index.scaled,
        },
        "{index}: {codes:,} codes of {bits} bits"
        + (" with keys" if index.keyed else "")
        + (" with scales" if index.scaled else "")
        + _weights_told(index),
    )


def index_add(arguments: argparse.Namespace) -> None:
    with HammingIndex.open(arguments.index, writable=True) as index:
        beside, named = arguments.ids is not None, key_options(arguments.codes, arguments.keys, arguments.format)
        id_column = None if beside else arguments.id_column
        read = read_codes(
            arguments.codes, index.bits, arguments.format, arguments.column, id_column, with_ids=not beside,
            key_column=named.get("key_column"),
        )  # fmt: skip
        codes, given_ids = read.codes, read.ids
        if beside:
            if given_ids is not None:
                raise UserError(f"{arguments.codes} holds ids, --ids must not be given")
            given_ids = _ids_for(arguments.ids, arguments.id_column, codes, arguments.codes)
        if arguments.replace and given_ids is None and not named:
            raise UserError("index add: --replace needs --ids or --keys, because new ids replace nothing")
        keys = read_keys(named, arguments.codes, len(codes), arguments.format)
        with _as_typed():
            scale = read_scales(arguments.code_scale)
            ids = index.add(codes, given_ids, keys=keys, replace=arguments.replace, code_scale=scale)
        added = {"index": arguments.index, "added": len(codes), "first_id": int(ids.min()) if len(ids) else None}
        _tell(arguments, {**added, "codes": len(index)}, "{index}: added {added:,}, {codes:,} codes now")


def index_remove(arguments: argparse.Namespace) -> None:
    if (arguments.ids is None) == (arguments.keys is None):
        raise UserError(
            f"index remove: either IDS or --keys must be given, got {'none' if arguments.ids is None else 'both'}"
        )
    ids = None if arguments.ids is None else read_ids(arguments.ids, arguments.id_column)
    keys = None if arguments.keys is None else all_keys(arguments.keys)
    with HammingIndex.open(arguments.index, writable=True) as index, _as_typed():
        removed = index.remove(ids, keys=keys)
        result = {"index": arguments.index, "removed": removed, "codes": len(index)}
        _tell(arguments, result, "{index}: removed {removed:,}, {codes:,} codes now")


def index_compact(arguments: argparse.Namespace) -> None:
    before = _disk_bytes(arguments.index)
    with HammingIndex.open(arguments.index, writable=True) as index:
        index.compact(progress=_progress(arguments))
        sizes = {"disk_bytes_before": before, "disk_bytes": _disk_bytes(arguments.index)}
        result = {"index": arguments.index, "codes": len(index), **sizes}
        _tell(arguments, result, "{index}: {codes:,} codes, {disk_bytes_before:,} bytes before, {disk_bytes:,} now")


def index_mih(arguments: argparse.Namespace) -> None:
    before = _disk_bytes(arguments.index)
    with HammingIndex.open(arguments.index, writable=True) as index:
        index.build_mih(progress=_progress(arguments))
        added = _disk_bytes(arguments.index) - before
        result = {"index": arguments.index, "codes": len(index), "added_bytes": added}
        _tell(arguments, result, "{index}: {codes:,} codes, {added_bytes:,} bytes of tables added")


def index_export(arguments: argparse.Namespace) -> None:
    out = output_file(arguments.out)
    ids = None if arguments.ids is None else output_file(arguments.ids)
    index = _open_folder(arguments)
    with _as_typed():
        index.export(out, ids, progress=_progress(arguments))
    result = {
        "index": arguments.index,
        "out": arguments.out,
        "codes": len(index),
        "bytes": out.stat().st_size,
        "bit_weights": index.bit_weights,
    }
    lost = f"{_weights_told(index)} (not in the file: other programs search without them)" if index.bit_weights else ""
    _tell(arguments, result, "{out}: {codes:,} codes, {bytes:,} bytes" + lost)


def index_info(arguments: argparse.Namespace) -> None:
    index = _open_folder(arguments)
    lowest, highest = index.id_range or (None, None)
    within = arguments.links_within
    with links_within(None if within is None else Path(within).absolute()):
        segments = current_manifest(Path(arguments.index)).segments
    result: dict[str, Any] = {
        "index": arguments.index,
        "codes": len(index),
        "bits": index.bits,
        "code_bytes": code_bytes(index.bits),
        "bit_weights": index.bit_weights,
        "lowest_id": lowest,
        "highest_id": highest,
        "keys": index.keyed,
        "code_scale": index.scaled,
        "disk_bytes": _disk_bytes(arguments.index),
        "segments": len(segments),
        "deleted": sum(segment.deleted for segment in segments),
        "codes_with_tables": sum(segment.rows for segment in segments if segment.extra("mih")),
    }
    line = (
        "{index}: {codes:,} codes of {bits} bits, ids {lowest_id} to {highest_id}, {disk_bytes:,} bytes on disk, "
        "{segments:,} segments, {deleted:,} deleted rows, tables (mih) of {codes_with_tables:,} codes"
        + (", with keys" if index.keyed else "")
        + (", with scales" if index.scaled else "")
        + _weights_told(index)
    )
    _answer(arguments, result, line)


def index_verify(arguments: argparse.Namespace) -> None:
    index = _open_folder(arguments)
    index.verify(progress=_progress(arguments))
    _answer(arguments, {"index": arguments.index, "codes": len(index), "good": True}, "{index}: good, {codes:,} codes")


def search(arguments: argparse.Namespace) -> None:
    if arguments.k is not None:
        whole(arguments.k, "search", "-k", 1)
    if arguments.radius is not None:
        whole(arguments.radius, "search", "--radius", 0)
        if arguments.rescore:
            raise UserError("search: --radius cannot be used with --rescore")
    if arguments.metric is not None and arguments.rescore != "all":
        raise UserError(f"search: --metric needs --rescore all, got --rescore {arguments.rescore}")
    out = None if arguments.out is None else output_file(arguments.out, (".npz", ".parquet", ".arrow", ".feather"))
    column = for_tables((arguments.index, arguments.queries), arguments.column, "--column")
    model = _model(arguments)
    found: Any
    if model is None and has_encoder(arguments.index):
        found = found_by_scores(arguments, column[arguments.queries])
        keys, measure = found.keys, "score"
    else:
        index = _open_index(arguments, column[arguments.index], model)
        found = _found(arguments, index, _queries(arguments, index, column[arguments.queries], model))
        keys = index.keys_of(found.ids.reshape(-1)).reshape(found.ids.shape) if index.keyed else None
        measure = "distance"
    count = len(found.offsets) - 1 if isinstance(found, RangeResult) else len(found.ids)
    if out is not None and out.suffix.lower() != ".npz":
        with _as_typed():
            results = write_table(out, found, keys)
        result = {"out": arguments.out, "queries": count, "results": results}
        _tell(arguments, result, "{out}: {results:,} results of {queries:,} queries")
        return
    if out is not None:
        arrays = {name: array for name, array in zip(found._fields, found, strict=True) if name != "keys"}
        if keys is not None:
            arrays["keys"] = as_strings(keys)
        with replaced_file(out) as file:
            np.savez(file, **arrays)
        results = int((found.ids >= 0).sum())
        result = {"out": arguments.out, "queries": count, "results": results}
        _tell(arguments, result, "{out}: {results:,} results of {queries:,} queries")
        return
    rows = (_row(found, keys, number) for number in range(count)) if measure == "distance" else score_rows(found)
    if arguments.json:
        print_json([{"query": number, **row} for number, row in enumerate(rows)])
        return
    lines = (
        f"{number}\t{id}\t{distance:g}" + "".join(f"\t{printed(key)}" for key in own)
        for number, row in enumerate(rows)
        for id, distance, *own in zip(*row.values(), strict=True)
    )
    show_lines(itertools.chain([f"query\tid\t{measure}" + ("" if keys is None else "\tkey")], lines))


def duplicates(arguments: argparse.Namespace) -> None:
    whole(arguments.radius, "duplicates", "--radius", 0)
    if arguments.pairs and arguments.out is None:
        raise UserError("duplicates: --pairs needs --out")
    if arguments.pairs and arguments.link != "single":
        raise UserError("duplicates: --link cannot be used with --pairs, because it is for groups")
    suffixes = TABLE_SUFFIXES if arguments.pairs else GROUP_SUFFIXES
    out = None if arguments.out is None else output_file(arguments.out, suffixes)
    index = _codes_to_join(arguments)
    if arguments.pairs and out is not None:
        with _as_typed():
            total = index.write_pairs(out, arguments.radius, progress=_progress(arguments))
        result = {"out": arguments.out, "codes": len(index), "pairs": total}
        _tell(arguments, result, "{out}: {pairs:,} pairs of {codes:,} codes")
        return
    with _as_typed():
        found = index.groups(arguments.radius, link=arguments.link)
    keys = stored_keys(index._side())
    if out is None:
        groups = group_members(found.ids, found.labels, found.sizes)
        if arguments.json:
            named = [{"group": int(ids[0]), "ids": ids.tolist()} for ids in groups]
            print_json(named if keys is None else [{**group, "keys": keys(group["ids"]).tolist()} for group in named])
        else:
            show_lines("".join(member_line(ids, keys)) for ids in groups)
        return
    with _as_typed():
        write_groups(out, found.ids, found.labels, found.representatives, found.sizes, keys, "duplicates")
    several = found.sizes[found.sizes > 1]
    result = {
        "out": arguments.out,
        "codes": len(found.ids),
        "groups": len(several),
        "duplicates": int(several.sum()) - len(several),
    }
    _tell(arguments, result, "{out}: {groups:,} groups of {codes:,} codes, {duplicates:,} duplicates beside the first")


def _codes_to_join(arguments: argparse.Namespace) -> HammingIndex:
    """The index of a folder, or one in memory of a file's codes."""
    if Path(arguments.index).is_dir() or not Path(arguments.index).exists():
        if arguments.keys is not None:
            raise UserError(f"duplicates: --keys needs a file of codes, {arguments.index} is an index")
        return _open_folder(arguments, "scan")
    named = key_options(arguments.index, arguments.keys, arguments.format)
    column = named.get("key_column")
    read = read_codes(
        arguments.index, arguments.bits, arguments.format, arguments.column, arguments.id_column, key_column=column
    )
    keys = read_keys(named, arguments.index, len(read.codes), arguments.format)
    with _as_typed():
        index = HammingIndex(read.bits)
        index.add(read.codes, read.ids, keys=keys)
    return index


def evaluate(arguments: argparse.Namespace) -> None:
    if arguments.exact is not None:
        from fasthash.cli.exact import evaluate_exact

        evaluate_exact(arguments)
        return
    qrels.check_options(arguments)
    if arguments.query_rows is not None or arguments.plot is not None:
        raise UserError("eval: --queries and --plot need --exact")
    if arguments.qrels is not None:
        with _as_typed():
            qrels.evaluate(arguments, _model(arguments))
        return
    if arguments.hierarchy_order is not None and arguments.hierarchy is None:
        raise UserError("eval: --hierarchy-order needs --hierarchy")
    if arguments.at is not None and arguments.hierarchy is None:
        raise UserError("eval: --at needs --hierarchy")
    paths = (arguments.queries, arguments.database)
    column = for_tables(paths, arguments.column, "--column")
    (queries, query_bits), (database, bits) = (
        read_items(path, arguments.bits, arguments.format, column[path]) for path in paths
    )
    if queries.dtype.kind != database.dtype.kind:
        kinds = f"{dtype_name(queries)} and {dtype_name(database)}"
        raise UserError(f"{arguments.queries} and {arguments.database}: must both be codes or embeddings, got {kinds}")
    if queries.shape[1] != database.shape[1]:
        widths = f"{queries.shape[1]} and {database.shape[1]}"
        raise UserError(
            f"{arguments.queries} and {arguments.database}: must have the same number of columns, got {widths}"
        )
    if arguments.bits is not None and queries.dtype != np.uint8:
        raise UserError(f"eval: --bits needs codes, got embeddings in {arguments.queries}")
    weights = weights_of(arguments, _model(arguments))
    if weights is not None and queries.dtype != np.uint8:
        raise UserError(f"eval: weights of bits need codes, got embeddings in {arguments.queries}")
    if query_bits != bits and None not in (query_bits, bits):
        raise UserError(
            f"{paths[0]} and {paths[1]}: must have codes of the same number of bits, got {query_bits} and {bits}"
        )
    label_paths = (arguments.query_labels, arguments.database_labels)
    label_column = for_tables(label_paths, arguments.label_column, "--label-column")
    labels = [
        read_labels(path, len(items), name, label_column[path])
        for path, items, name in (
            (arguments.query_labels, queries, arguments.queries),
            (arguments.database_labels, database, arguments.database),
        )
    ]
    similarity = None
    if arguments.hierarchy is not None:
        hierarchy = read_hierarchy(arguments.hierarchy, arguments.hierarchy_order)
        labels = [fit_to_hierarchy(part, hierarchy, path) for part, path in zip(labels, label_paths, strict=True)]
    if len({part.dtype.kind == "U" for part in labels}) > 1:
        labels = [part.astype(np.str_) for part in labels]
    if arguments.hierarchy is None and not np.isin(labels[0], labels[1]).any():
        raise UserError(
            f"{arguments.query_labels}: no label occurs in {arguments.database_labels}, "
            f"got {str(labels[0][0])!r} and {str(labels[1][0])!r} for example"
        )
    if arguments.hierarchy is not None:
        classes, numbers = np.unique(np.concatenate(labels), return_inverse=True)
        similarity = 1.0 - class_distances(classes, hierarchy, arguments.hierarchy)
        numbers = numbers.reshape(-1)
        labels = [numbers[: len(queries)], numbers[len(queries) :]]
    with _as_typed():
        result = retrieval_metrics(
            queries,
            database,
            *labels,
            class_similarity=similarity,
            k=arguments.k,
            at=arguments.at,
            map_at=arguments.map_at,
            bits=bits,
            bit_weights=weights,
            metric=arguments.metric,
        )
    if arguments.json:
        print_json(result)
        return
    show_lines(
        f"{name:16} {value:,.0f}" if name == "codes" else f"{name:16} {value:.4f}" for name, value in result.items()
    )


@contextlib.contextmanager
def _as_typed(ids: str | None = None) -> Iterator[None]:
    """Tells what the library refuses in the words of the command line, and so a package that is not installed."""
    try:
        yield
    except ImportError as error:
        raise UserError(str(error)) from None
    except (ValueError, TypeError) as error:
        message = str(error)
        for argument in ("overwrite", "replace"):
            message = message.replace(f"{argument}=True", f"--{argument}")
        message = message.replace("bit_weights", "--bit-weights").removeprefix("HammingIndex.build: ")
        raise UserError(f"{ids}: {message}" if ids and re.search(r"codes need \S+ ids", message) else message) from None


def _progress(arguments: argparse.Namespace) -> bool | None:
    """A bar where stderr is a terminal, but not beside JSON."""
    return False if arguments.json else None


def _tell(arguments: argparse.Namespace, result: dict[str, Any], line: str) -> None:
    """Reports what was done as JSON, or as the line that it fills in."""
    report(to_json(result) if arguments.json else line.format(**result))


def _answer(arguments: argparse.Namespace, result: dict[str, Any], line: str) -> None:
    """The same for a command that changes nothing."""
    show(to_json(result) if arguments.json else line.format(**result))


def _disk_bytes(folder: str) -> int:
    path = Path(folder)
    return sum(file.stat().st_size for file in path.iterdir() if file.is_file()) if path.is_dir() else 0


def _ids_for(path: str, id_column: str | None, codes: NDArray[Any], codes_path: str) -> NDArray[Any]:
    ids = read_ids(path, id_column)
    if len(ids) != len(codes):
        raise UserError(f"{path}: {codes_path} has {len(codes)} codes and needs {len(codes)} ids, got {len(ids)}")
    return ids


def _open_folder(arguments: argparse.Namespace, method: str = "auto") -> HammingIndex:
    try:
        return HammingIndex.open(arguments.index, method=method, links_within=arguments.links_within)
    except IndexFolderError as error:
        message = str(error).replace(
            "open it with links_within=DIR, where DIR is the folder", "pass --links-within DIR, where DIR is the folder"
        )
        raise IndexFolderError(message) from None


def _model(arguments: argparse.Namespace) -> Any:
    """The model of --model; None where none is given."""
    if arguments.model is None:
        return None
    from fasthash._checkpoint import DECODER, is_file_of
    from fasthash.cli.learn import load_model

    if is_file_of(arguments.model, DECODER):
        from fasthash.decoder import LinearDecoder

        return LinearDecoder.load(arguments.model)
    return load_model(arguments.model, None)


def _weights_told(index: HammingIndex) -> str:
    """The weights of an index's bits at the end of a line."""
    return f", weights of bits {shown_groups(tuple(index.bit_weights))}" if index.bit_weights else ""


def _open_index(arguments: argparse.Namespace, column: str | None, model: Any) -> HammingIndex:
    """An index folder, or a file of codes as an index in memory, which is always scanned."""
    path, method = arguments.index, arguments.method
    if Path(path).is_dir() or not Path(path).exists():
        index = _open_folder(arguments, method)
        typed = parse_weights(arguments.bit_weights)
        with _as_typed():
            if typed is not None and not same_weights(typed, index.bit_weights, index.bits):
                own = shown_groups(tuple(index.bit_weights or ()))
                raise UserError(
                    f"{path}: its bits have the weights {own}, --bit-weights must be equal or be omitted, got "
                    f"{arguments.bit_weights}"
                )
        return index
    if method == "mih":
        raise UserError(f"{path}: --method mih needs an index folder, see fasthash index build --mih")
    weights = weights_of(arguments, model)
    bits = None if weights is None else sum(count for count, _ in weights)
    read = read_codes(path, bits, column=column)
    with _as_typed():
        index = HammingIndex(read.bits, bit_weights=weights)
        index.add(read.codes, read.ids)
    return index


def _queries(arguments: argparse.Namespace, index: HammingIndex, column: str | None, model: Any) -> NDArray[Any]:
    """Packed codes or outputs for the index: read as they are, or made of embeddings by a model."""
    path = arguments.queries
    if model is not None:
        from fasthash.cli.learn import row_blocks

        if model.bits != index.bits:
            raise UserError(f"{arguments.model}: makes codes of {model.bits} bits, the index has {index.bits}")
        return np.concatenate(list(row_blocks(model, read_features(path, column), path, _encoded(arguments, model))))
    queries = read_items(path, index.bits, arguments.format, column, empty=True).items
    if queries.dtype == np.uint8:
        expected, what = code_bytes(index.bits), f"codes of {index.bits} bits must have {code_bytes(index.bits)} bytes"
    else:
        expected, what = (
            index.bits,
            f"outputs for {index.bits} bits must have {index.bits} columns (embeddings need --model)",
        )
    if queries.ndim != 2 or queries.shape[1] != expected:
        raise UserError(f"{path}: {what}, got shape {queries.shape}")
    return queries


def _encoded(arguments: argparse.Namespace, model: Any) -> Any:
    """Rows of embeddings -> queries for the codes of a model, by the metric of the search."""
    from fasthash.baselines import GridCodes
    from fasthash.cli.learn import SCALE_METRICS, outputs_of
    from fasthash.decoder import LinearDecoder

    metric = arguments.metric or "l1"
    if isinstance(model, LinearDecoder):
        if arguments.rescore != "all" or metric != "dot":
            raise UserError(f"{arguments.model}: a decoder needs --rescore all --metric dot")
        return model.queries
    if metric == "l1" and not isinstance(model, GridCodes):
        return outputs_of(model)
    if arguments.rescore != "all":
        return model.encode
    if metric not in SCALE_METRICS[type(model)]:
        names = ("dot", "l2") if isinstance(model, GridCodes) else ("l1", *SCALE_METRICS[type(model)])
        raise UserError(f"{arguments.model}: --metric must be {' or '.join(names)} for this model, got {metric}")
    return partial(model.queries, metric=metric)


def _found(arguments: argparse.Namespace, index: HammingIndex, queries: NDArray[Any]) -> SearchResult | RangeResult:
    """The results of all queries; on a terminal in blocks of queries, under a bar."""

    def found(block: NDArray[Any]) -> SearchResult | RangeResult:
        if arguments.radius is None:
            metric = arguments.metric or "l1"
            with _as_typed():
                return index.search(block, arguments.k or 10, rescore=arguments.rescore, metric=metric)
        if arguments.k is None:
            return index.range_search(block, arguments.radius)
        return _within(index.search(block, arguments.k), arguments.radius)

    if arguments.json or not sys.stderr.isatty() or not len(queries):
        return found(queries)
    blocks, start, size = [], 0, FIRST_BLOCK
    with tqdm(total=len(queries), desc="search", unit="query", unit_scale=True, leave=False) as bar:
        while start < len(queries):
            block = queries[start : start + size]
            blocks.append(found(block))
            bar.update(len(block))
            start, size = start + size, min(4 * size, LARGEST_BLOCK)
    return _joined(blocks)


def _within(found: SearchResult, radius: int) -> RangeResult:
    """Those of the nearest that are within a radius."""
    near = (found.ids >= 0) & (found.distances <= radius)
    offsets = np.concatenate([[0], near.sum(1).cumsum()]).astype(np.int64)
    return RangeResult(offsets, found.distances[near], found.ids[near])


def _joined(blocks: list[Any]) -> SearchResult | RangeResult:
    """The results of all blocks of queries as those of one search."""
    distances, ids = (np.concatenate([getattr(block, name) for block in blocks]) for name in ("distances", "ids"))
    if isinstance(blocks[0], SearchResult):
        return SearchResult(distances, ids)
    counts = np.concatenate([np.diff(block.offsets) for block in blocks])
    return RangeResult(np.concatenate([[0], counts.cumsum()]).astype(np.int64), distances, ids)


def _row(found: Any, keys: NDArray[Any] | None, number: int) -> dict[str, list[Any]]:
    """Ids, distances and keys (where there are some) of one query, without the places that stayed empty."""
    own: Any
    if isinstance(found, RangeResult):
        own = slice(int(found.offsets[number]), int(found.offsets[number + 1]))
    else:
        own = (number, found.ids[number] >= 0)
    row = {"ids": found.ids[own].tolist(), "distances": found.distances[own].tolist()}
    return row if keys is None else {**row, "keys": keys[own].tolist()}
