"""fasthash report: an index or a run, queries, and what is shown of them, as one page."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fasthash._checkpoint import IMAGES, is_file_of
from fasthash.cli.columns import for_tables, read_codes, read_features, read_items, read_labels
from fasthash.cli.files import fit_to_hierarchy, output_file, read_hierarchy, to_json
from fasthash.cli.output import complain
from fasthash.cli.output import report as tell
from fasthash.cli.parser import UserError, make_parser
from fasthash.cli.weights import parse_weights, same_weights, weights_of
from fasthash.index import HammingIndex
from fasthash.index.store.manifest import MANIFEST
from fasthash.report import Report
from fasthash.report.sides import FOLDER

_MODEL = "model.safetensors"
_NAMED = 10  # broken pictures whose names are printed


def report(arguments: argparse.Namespace) -> None:
    if arguments.hierarchy_order is not None and arguments.hierarchy is None:
        raise UserError("report: --hierarchy-order needs --hierarchy")
    out = output_file(arguments.out, (".html", ".htm"))
    arguments.skipped = []
    try:
        made = (_of_run if _is_run(arguments.index) else _of_index)(arguments)
    except ImportError as error:  # Pillow
        raise UserError(str(error)) from None
    except (ValueError, TypeError) as error:
        message = str(error).removeprefix("Report: ")
        for name in ("query_labels", "database_labels", "query_texts", "texts", "limit", "k"):
            option = f"-{'-' * (len(name) > 1)}{name.replace('_', '-')}"
            message = f"{option}{message.removeprefix(name)}" if message.startswith(f"{name} must") else message
        raise UserError(f"report: {message}" if str(error).startswith("Report: ") else message) from None
    made.write(out)
    for name, why in list(made.broken.items())[:_NAMED]:
        complain(f"fasthash: warning: no picture of {name}: {why}")
    if len(made.broken) > _NAMED:
        complain(f"fasthash: warning: no picture of {len(made.broken) - _NAMED:,} more (the page names them)")
    result = {
        "out": arguments.out,
        "bytes": out.stat().st_size,
        "scores": made.numbers,
        "notes": made.notes,
        "skipped_files": [*arguments.skipped, *(f"{name}: {why}" for name, why in made.broken.items())],
    }
    scored = f", mAP {made.numbers['mAP']:.4f}" if "mAP" in made.numbers else ""
    tell(to_json(result) if arguments.json else f"{arguments.out}: {result['bytes']:,} bytes{scored}")


def _is_run(path: str) -> bool:
    """A folder of a training run."""
    return Path(path).is_dir() and not (Path(path) / MANIFEST).exists()


def _of_index(arguments: argparse.Namespace) -> Report:
    """The report of an index folder or a file of codes."""
    model = _model(arguments, arguments.model)
    index = _index(arguments, model)
    if model is not None and model.bits != index.bits:
        raise UserError(f"{arguments.model}: makes codes of {model.bits} bits, the index has {index.bits}")
    options: dict[str, Any] = {"texts": _lines(arguments.texts), "images": arguments.images}
    labels: Any = _labels(arguments.database_labels, len(index), arguments.index, arguments)
    if labels is None and index.keyed:
        labels = FOLDER
    if arguments.queries is None:
        for name in ("query_labels", "query_texts", "query_images"):
            if getattr(arguments, name) is not None:
                raise UserError(f"report: --{name.replace('_', '-')} needs --queries")
        return _made(arguments, index, None, {**options, "database_labels": labels})
    queries, names, folder = _queries(arguments, index.bits, model)
    given: Any = _labels(arguments.query_labels, len(queries), arguments.queries, arguments)
    if given is None and names is not None:
        given = FOLDER
    options |= {"query_labels": given, "database_labels": labels, "query_names": names}
    options |= {"query_texts": _lines(arguments.query_texts), "query_images": arguments.query_images or folder}
    return _made(arguments, index, queries, options)


def _of_run(arguments: argparse.Namespace) -> Report:
    """The report of a run: validation data, or --queries, by its model, searched among themselves."""
    run, path = arguments.index, Path(arguments.index) / _MODEL
    if not path.is_file():
        raise UserError(f"{run}: must be an index folder or a finished run (there is no {_MODEL} in it)")
    for name in ("model", "database_labels", "bit_weights", "bits"):
        if getattr(arguments, name) is not None:
            raise UserError(f"report: --{name.replace('_', '-')} needs an index; {run} is a run and has its own model")
    if arguments.queries is None:
        _take_validation(arguments)
    model = _model(arguments, str(path))
    outputs, names, folder = _queries(arguments, model.bits, model)
    labels = _labels(arguments.query_labels, len(outputs), arguments.queries, arguments)
    index = HammingIndex(model.bits, bit_weights=getattr(model, "bit_weights_", None))
    index.add(outputs if outputs.dtype == np.uint8 else _rounded(outputs), keys=names)
    options = {
        "query_labels": FOLDER if labels is None and names is not None else labels,
        "texts": _lines(arguments.query_texts or arguments.texts),
        "images": arguments.query_images or arguments.images or folder,
        "exclude_self": True,
    }
    return _made(arguments, index, outputs, options)


def _take_validation(arguments: argparse.Namespace) -> None:
    """Fills in the validation data, labels and hierarchy of the command line that the run notes."""
    run = arguments.index
    way_out = f"pass data for its model with --queries, or an index (fasthash encode {run}/{_MODEL} ...)"
    trained = _training_command(Path(run) / "environment.json")
    features = getattr(trained, "val_features", None)
    if features is None:
        raise UserError(f"{run}: names no validation data (--val-features of fasthash train): {way_out}")
    if not Path(features).exists():
        raise UserError(
            f"{run}: its validation data {features} was not found: go to the folder of the training, or {way_out}"
        )
    arguments.queries, arguments.column = features, arguments.column or trained.column
    if arguments.query_labels is None and trained.labels is not None:
        arguments.query_labels = trained.val_labels
        arguments.label_column = arguments.label_column or trained.label_column
    if arguments.hierarchy is None and (trained.hierarchy is not None and Path(trained.hierarchy).exists()):
        arguments.hierarchy, arguments.hierarchy_order = trained.hierarchy, trained.hierarchy_order
    if arguments.backbone is None:
        arguments.backbone = trained.backbone


def _training_command(path: Path) -> Any:
    """The arguments of the `fasthash train` that a run was last started by; None where it was started otherwise."""
    try:
        words = json.loads(path.read_text(encoding="utf-8"))[-1]["command"]
        trained = make_parser().parse_args([str(word) for word in words[1:]])
    except (OSError, ValueError, LookupError, TypeError, UserError, SystemExit):
        return None
    return trained if trained.run == "learn:train" else None


def _made(arguments: argparse.Namespace, index: HammingIndex, queries: Any, options: dict[str, Any]) -> Report:
    """The report, with labels as the hierarchy has them."""
    sides = ("query_labels", "database_labels")
    hierarchy = None
    if arguments.hierarchy is not None:
        hierarchy = read_hierarchy(arguments.hierarchy, arguments.hierarchy_order)
        for name in sides:
            if isinstance(options.get(name), np.ndarray):
                options[name] = fit_to_hierarchy(options[name], hierarchy, getattr(arguments, name))
    given = [options[name] for name in sides if options.get(name) is not None]
    if len({isinstance(part, str) or part.dtype.kind == "U" for part in given}) > 1:
        for name in sides:
            if isinstance(options[name], np.ndarray):
                options[name] = options[name].astype(np.str_)
    return Report(
        index, queries, hierarchy=hierarchy, k=arguments.k, limit=arguments.limit, title=arguments.title, **options
    )


def _index(arguments: argparse.Namespace, model: Any) -> HammingIndex:
    """An index folder, or a file of codes as an index in memory."""
    path = arguments.index
    if Path(path).is_dir() or not Path(path).exists():
        index = HammingIndex.open(path)
        typed = parse_weights(arguments.bit_weights)
        if typed is not None and not same_weights(typed, index.bit_weights, index.bits):
            raise UserError(
                f"{path}: --bit-weights must be equal to those of the index, {index.bit_weights}, or be omitted, got "
                f"{arguments.bit_weights}"
            )
        return index
    weights = weights_of(arguments, model)
    bits = arguments.bits
    if bits is None:
        bits = sum(count for count, _ in weights) if weights else getattr(model, "bits", None)
    read = read_codes(path, bits)
    index = HammingIndex(read.bits, bit_weights=weights)
    index.add(read.codes, read.ids)
    return index


def _model(arguments: argparse.Namespace, path: str | None) -> Any:
    """A model of embeddings, or of pictures; None where there is none."""
    if path is None:
        return None
    if is_file_of(path, IMAGES):
        from fasthash.images import ImageHasher

        return ImageHasher.load(path, backbone=arguments.backbone)
    from fasthash.cli.learn import load_model

    return load_model(path, None)


def _queries(arguments: argparse.Namespace, bits: int, model: Any) -> tuple[NDArray[Any], list[str] | None, str | None]:
    """Codes or outputs of the queries, their names, and the folder of their pictures."""
    path = arguments.queries
    if (Path(path) / MANIFEST).exists():
        with HammingIndex.open(path) as index:
            if index.bits != bits:
                raise UserError(f"{path}: has codes of {index.bits} bits, {arguments.index} has {bits}")
            ids = index.ids
            return np.asarray(index.get(ids)), index.keys_of(ids).tolist() if index.keyed else None, None
    pictures = model is not None and hasattr(model, "module_") and hasattr(model, "backbone")
    if Path(path).is_dir() != pictures:
        needs = (
            "be a folder of pictures, because the model is for pictures"
            if pictures
            else "be used with a model of pictures (--model)"
        )
        raise UserError(f"{path}: must {needs}")
    if pictures:
        return *_outputs_of_pictures(arguments, model), path
    if model is None:
        return read_items(path, bits, None, arguments.column).items, None, None
    from fasthash.baselines import GridCodes
    from fasthash.cli.learn import outputs_of, row_blocks

    features = read_features(path, arguments.column)
    made = model.encode if isinstance(model, GridCodes) else outputs_of(model)
    return np.concatenate(list(row_blocks(model, features, path, made))), None, None


def _outputs_of_pictures(arguments: argparse.Namespace, model: Any) -> tuple[NDArray[np.float32], list[str]]:
    """Outputs of the pictures of --queries, and their names; a warning names those that cannot be read."""
    import torch

    from fasthash.images import ImageLoader

    folder = arguments.queries
    loader = ImageLoader(folder, size=model.size, batch_size=model.batch_size)
    parts, names = [], list[str]()
    with torch.no_grad():
        for x, keys in loader:
            parts.append(model.module_(x).numpy())
            names += keys
    arguments.skipped = loader.skipped
    for line in loader.skipped[:_NAMED]:
        complain(f"fasthash: warning: skipped {line}")
    if loader.skipped_count > _NAMED:
        complain(f"fasthash: warning: skipped {loader.skipped_count - _NAMED:,} more")
    if not names:
        raise UserError(f"{folder}: none of its pictures can be read")
    return np.concatenate(parts), names


def _rounded(outputs: NDArray[Any]) -> NDArray[np.uint8]:
    from fasthash.codes import pack_bits

    return np.asarray(pack_bits(outputs))


def _labels(path: str | None, rows: int, items: str, arguments: argparse.Namespace) -> NDArray[Any] | None:
    if path is None:
        return None
    files = (arguments.query_labels, arguments.database_labels)
    return read_labels(path, rows, items, for_tables(files, arguments.label_column, "--label-column")[path])


def _lines(path: str | None) -> list[str] | None:
    """Texts, one a line."""
    if path is None:
        return None
    try:
        return Path(path).read_text(encoding="utf-8").removesuffix("\n").split("\n")
    except UnicodeDecodeError:
        raise UserError(f"{path}: not a UTF-8 text file") from None
