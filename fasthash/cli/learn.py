"""Commands that learn and use models: train, encode."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from fasthash import _ops, distributed
from fasthash._checkpoint import DECODER, GRID, LINEAR, is_file_of
from fasthash._durable import replaced_file
from fasthash.baselines import GridCodes, LinearCodes
from fasthash.cli.columns import for_tables, ids_beside, read_features, read_labels, read_targets
from fasthash.cli.files import ROWS, class_distances, fit_to_hierarchy, output_file, read_hierarchy, to_json
from fasthash.cli.output import report
from fasthash.cli.parser import UserError
from fasthash.codes import code_bytes
from fasthash.decoder import LinearDecoder
from fasthash.hierarchy import Hierarchy
from fasthash.index.exchange.exports import row_suffixes, write_rows
from fasthash.index.store.manifest import MANIFEST
from fasthash.train import Hasher

OPTIONAL = (
    "epochs", "batch_size", "lr", "ema", "patience", "precision", "compile", "workers", "run_dir", "kl", "preserve",
    "item_bits",
)  # fmt: skip
Model = Hasher | LinearCodes | GridCodes
DECODED_ROWS = 100_000  # of the features, by which a decoder is fitted
SCALE_METRICS: dict[type, tuple[str, ...]] = {
    Hasher: ("dot", "cosine"),
    LinearCodes: ("dot",),
    GridCodes: ("dot", "l2"),
}
_UNLABELLED = -1  # in --labels, unless it is a name in the hierarchy
# A model under one of these names could not be read by what reads such files.
_OTHER_FORMATS = {
    ".npy",
    ".npz",
    ".pt",
    ".pth",
    ".ckpt",
    ".bin",
    ".pkl",
    ".joblib",
    ".onnx",
    ".json",
    ".parquet",
    ".h5",
}


def train(arguments: argparse.Namespace) -> None:
    """`fasthash train`, in one process or as one of those that torchrun has started."""
    group = distributed.join()
    try:
        _train(arguments, group)
    except distributed.RankLostError as error:
        raise UserError(str(error)) from error
    finally:
        del group
        distributed.leave()


def _train(arguments: argparse.Namespace, group: Any) -> None:
    if arguments.backbone is not None or _is_pictures(arguments.features):
        from fasthash.cli import modules

        modules.train_images(arguments, group)
        return
    if arguments.out is None and arguments.run_dir is None:
        raise UserError("train: the following arguments are required: --out or --run-dir (see fasthash train --help)")
    for name in ("backbone_weights", "backbone_lr", "size", "start_from"):
        if getattr(arguments, name) is not None:
            raise UserError(f"train: --{name.replace('_', '-')} needs pictures: a folder of pictures, or --backbone")
    model = arguments.out or str(Path(arguments.run_dir) / "model.safetensors")
    out = None if arguments.out is None else model_file(arguments.out)
    if (arguments.val_features is None) != (arguments.val_labels is None) and not _unsupervised(arguments):
        raise UserError("train: --val-features and --val-labels must be given together")
    if arguments.hierarchy is not None and arguments.labels is None:
        raise UserError("train: --hierarchy needs --labels")
    if arguments.hierarchy_order is not None and arguments.hierarchy is None:
        raise UserError("train: --hierarchy-order needs --hierarchy")
    column = for_tables((arguments.features, arguments.val_features), arguments.column, "--column")
    X = read_features(arguments.features, column[arguments.features])
    hierarchy = None if arguments.hierarchy is None else read_hierarchy(arguments.hierarchy, arguments.hierarchy_order)
    y = _targets(arguments, arguments.labels or arguments.targets, hierarchy, X, arguments.features)
    if y is not None and hierarchy is not None:
        named = np.array([label for label in y.tolist() if label is not None and label != -1])
        class_distances(named if _UNLABELLED not in hierarchy else y, hierarchy, arguments.hierarchy)
    validation = None
    if arguments.val_features is not None:
        held_out = read_features(arguments.val_features, column[arguments.val_features])
        if held_out.shape[1] != X.shape[1]:
            raise UserError(
                f"{arguments.val_features}: must have {X.shape[1]} columns like {arguments.features}, "
                f"got {held_out.shape[1]}"
            )
        values = _targets(arguments, arguments.val_labels, hierarchy, held_out, arguments.val_features)
        validation = held_out, values
    optional = {name: getattr(arguments, name) for name in OPTIONAL}
    hasher = Hasher(
        bits=arguments.bits,
        hierarchy=hierarchy,
        supervision=arguments.supervision,
        seed=arguments.seed,
        device=_rank_device(choose_device(arguments.device), group),
        **{name: value for name, value in optional.items() if value is not None},
    )
    start = time.perf_counter()
    hasher.fit(X, y, validation, **({} if group is None else {"group": group}))
    seconds = time.perf_counter() - start
    if distributed.rank(group) > 0:
        return
    if out is not None:
        hasher.save(out)
    result: dict[str, Any] = {
        "model": model,
        "rows": len(X),
        "features": X.shape[1],
        "bits": arguments.bits,
        "bit_weights": hasher.bit_weights_,
        "classes": None if hasher.classes_ is None else len(hasher.classes_),
        "epochs": len(hasher.history_.losses),
        "best_epoch": hasher.best_epoch_,
        "loss": hasher.history_.losses[hasher.best_epoch_ - 1],
        "validation_score": hasher.history_.scores[hasher.best_epoch_ - 1],
        "seconds": seconds,
    }
    found = hasher.pseudo_classes_
    if found is not None:
        result |= {"new_classes": len(found.sizes), "rows_of_new_classes": sum(found.sizes)}
    score = "" if result["validation_score"] is None else f", validation score {result['validation_score']:.4f}"
    epochs = f"epoch {result['best_epoch']} of {result['epochs']}"
    new = "" if found is None else f", {len(found.sizes)} new classes of {sum(found.sizes):,} rows without a label"
    weights = "" if hasher.bit_weights_ is None else ", weights " + ",".join(f"{b}x{w}" for b, w in hasher.bit_weights_)
    line = f"{model}: {arguments.bits} bits{weights}, {len(X):,} rows{new}, {epochs}{score}"
    report(to_json(result) if arguments.json else line)


def _is_pictures(features: str) -> bool:
    """A folder, and no index."""
    return Path(features).is_dir() and not (Path(features) / MANIFEST).exists()


def encode(arguments: argparse.Namespace) -> None:
    if arguments.module is not None or _is_pictures(arguments.features):
        from fasthash.cli import modules

        modules.encode(arguments)
        return
    out = output_file(arguments.out, row_suffixes(arguments.real))
    scale_file = None if arguments.scales is None else output_file(arguments.scales, (".npy",))
    if scale_file is not None and arguments.real:
        raise UserError("encode: --scales cannot be used with --real, because outputs have no scales")
    decoder_file = None if arguments.decoder is None else model_file(arguments.decoder)
    model = load_model(arguments.model, arguments.device)
    if arguments.real and isinstance(model, GridCodes):
        raise UserError("encode: --real needs a Hasher or LinearCodes; codes of GridCodes are not rounded outputs")
    metric = _metric_of_scales(arguments, model)
    features = read_features(arguments.features, arguments.column)
    ids = None
    if arguments.id_column is not None or out.suffix.lower() not in (".npy", ".u8bin"):
        ids = ids_beside(arguments.features, arguments.id_column)
        if out.suffix.lower() in (".npy", ".u8bin"):
            raise UserError(f"{arguments.out}: {out.suffix} cannot hold ids (--id-column); write .parquet or .arrow")
    decoder = None if decoder_file is None else _decoder(model, features, arguments.features)
    width, dtype = (model.bits, "<f4") if arguments.real else (code_bytes(model.bits), "|u1")
    scales: list[NDArray[np.float16]] = []

    def encoded(rows: NDArray[Any]) -> NDArray[Any]:
        codes = model.encode(rows)
        if decoder is not None:
            scales.append(decoder.scales(rows, codes))
        elif metric is not None:
            scales.append(model.scales(rows, codes, **({} if metric == "" else {"metric": metric})))
        return np.asarray(codes)

    outputs = outputs_of(model) if arguments.real else encoded
    blocks = (np.ascontiguousarray(block, dtype) for block in row_blocks(model, features, arguments.features, outputs))
    try:
        write_rows(out, (len(features), width), blocks, ROWS, ids)
    except ValueError as error:
        raise UserError(f"{arguments.features}: {error}") from None
    result = {"out": arguments.out, "rows": len(features), "bits": model.bits, "shape": [len(features), width]}
    what = "outputs" if arguments.real else "codes"
    line = f"{arguments.out}: {len(features):,} {what} of {model.bits} bits, {np.dtype(dtype)} {result['shape']}"
    if scale_file is not None:
        with replaced_file(scale_file) as file:
            np.save(file, np.concatenate(scales))
        result["scales"] = arguments.scales
        line += f"; {arguments.scales}: their scales, float16"
    if decoder is not None:
        decoder.save(arguments.decoder)
        result["decoder"] = arguments.decoder
        line += f"; {arguments.decoder}: their decoder"
    report(to_json(result) if arguments.json else line)


def _decoder(model: Model, features: NDArray[Any], path: str) -> LinearDecoder:
    """A decoder of the model's codes, by rows that lie evenly over the features."""
    rows = np.asarray(features[:: -(-len(features) // DECODED_ROWS) or 1])
    codes = list(row_blocks(model, rows, path, model.encode, "fit decoder"))
    try:
        return LinearDecoder.fit(rows, np.concatenate(codes) if codes else model.encode(rows), model.bits)
    except ValueError as error:
        raise UserError(f"{path}: {str(error).replace('LinearDecoder.fit: ', '', 1)}") from None


def _metric_of_scales(arguments: argparse.Namespace, model: Model) -> str | None:
    """What the scales are for; "" where the model knows one metric alone, None where no scales are asked for."""
    wanted: str | None = arguments.metric
    if arguments.decoder is not None:
        if arguments.scales is None:
            raise UserError("encode: --decoder needs --scales, the file of the scales that belong to the decoder")
        if wanted is not None:
            raise UserError("encode: --metric cannot be used with --decoder, whose scales are for metric dot")
        return None
    if arguments.scales is None:
        if wanted is not None:
            raise UserError("encode: --metric needs --scales")
        return None
    known = SCALE_METRICS[type(model)]
    if wanted is not None and wanted not in known:
        names = " or ".join(known)
        raise UserError(f"encode: --metric must be {names} for a {type(model).__name__}, got {wanted}")
    return "" if known == ("dot",) else wanted or "dot"


def load_model(path: str, device: str | None) -> Model:
    """The model in a file, linear codes or a quantiser, on `device` or the best there is."""
    if is_file_of(path, DECODER):
        raise UserError(f"{path}: must be a model that encodes, got a LinearDecoder, which is for search --model")
    kind: type[Model] = LinearCodes if is_file_of(path, LINEAR) else GridCodes if is_file_of(path, GRID) else Hasher
    try:
        return kind.load(path, device=choose_device(device))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None


def outputs_of(model: Model) -> Callable[[NDArray[Any]], NDArray[Any]]:
    """Rows of embeddings -> outputs in [0, 1]; rounded, they are the codes."""
    return model.transform if isinstance(model, Hasher) else model.queries


def row_blocks(
    model: Model | LinearDecoder,
    features: NDArray[Any],
    path: str,
    function: Callable[[NDArray[Any]], NDArray[Any]],
    shown: str = "encode",
) -> Iterator[NDArray[Any]]:
    """Applies `function` to the features, a block of rows at a time, with a progress bar."""
    if features.shape[1] != model.n_features_in_:
        raise UserError(f"{path}: the model takes {model.n_features_in_} columns, got {features.shape[1]}")
    with tqdm(total=len(features), desc=shown, unit="row", unit_scale=True, disable=None) as bar:
        for start in range(0, len(features), ROWS):
            block = np.asarray(features[start : start + ROWS])
            yield function(block)
            bar.update(len(block))


def choose_device(name: str | None) -> str:
    """The torch device of that name, or CUDA where machine and build have it, else the CPU."""
    usable = torch.cuda.is_available() and bool(_ops.cuda_architectures())
    if name is None:
        return "cuda" if usable else "cpu"
    try:
        kind = torch.device(name).type
    except RuntimeError:
        kind = ""
    if kind not in ("cpu", "cuda"):
        raise UserError(f"--device: must be a torch device such as cpu, cuda or cuda:1, got {name!r}")
    if kind == "cuda" and not usable:
        lacking = "this build has no CUDA kernels (FASTHASH_CUDA=ON builds them)"
        why = lacking if torch.cuda.is_available() else "torch finds no GPU"
        raise UserError(f"--device: {name} cannot be used: {why}")
    return name


def _rank_device(name: str, group: Any) -> str:
    """The device of this process: of several on one machine, each has a GPU of its own."""
    return name if group is None or name != "cuda" else f"cuda:{distributed.local_rank()}"


def _unsupervised(arguments: argparse.Namespace) -> bool:
    return arguments.labels is None and arguments.targets is None and arguments.val_labels is None


def _targets(
    arguments: argparse.Namespace, path: str | None, hierarchy: Hierarchy | None, X: NDArray[Any], items: str
) -> NDArray[Any] | None:
    """Labels, or rows of targets, of the items X; None where neither is given."""
    if path is None:
        return None
    if arguments.labels is not None:
        column = for_tables((arguments.labels, arguments.val_labels), arguments.label_column, "--label-column")
        labels = read_labels(path, len(X), items, column[path])
        given = labels.astype(np.str_) != str(_UNLABELLED)
        named_so = hierarchy is not None and (_UNLABELLED in hierarchy or str(_UNLABELLED) in hierarchy)
        if path == arguments.val_labels or named_so or given.all():
            return labels if hierarchy is None else fit_to_hierarchy(labels, hierarchy, path)
        known = labels[given] if hierarchy is None else fit_to_hierarchy(labels[given], hierarchy, path)
        if known.dtype.kind == labels.dtype.kind == "i":
            return labels
        marked = np.full(len(labels), None, dtype=object)
        marked[given] = known
        return marked
    column = for_tables((arguments.targets, arguments.val_labels), arguments.target_column, "--target-column")
    targets = read_targets(path, column[path])
    if len(targets) != len(X):
        raise UserError(f"{path}: {items} has {len(X)} rows and needs {len(X)} targets, got {len(targets)}")
    return targets


def model_file(path: str) -> Path:
    """The name of a model to write, which is safetensors: a suffix of another format would mislead."""
    file = output_file(path)
    if file.suffix.lower() in _OTHER_FORMATS:
        raise UserError(f"{path}: a model is written as safetensors, got the suffix {file.suffix!r}; use .safetensors")
    return file
