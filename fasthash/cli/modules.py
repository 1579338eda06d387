"""Commands for pictures and for modules of one's own: train, encode, export."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fasthash._checkpoint import IMAGES, LINEAR, is_file_of
from fasthash.cli.columns import read_features
from fasthash.cli.files import output_file, read_hierarchy, to_json
from fasthash.cli.learn import choose_device, model_file
from fasthash.cli.output import complain, report
from fasthash.cli.parser import UserError
from fasthash.images import ImageHasher, ImageLoader, image_files
from fasthash.index import HammingIndex
from fasthash.train import Hasher, load_weights
from fasthash.train.encode import FILES
from fasthash.train.encode import encode as encode_all
from fasthash.train.export import SUFFIXES
from fasthash.train.export import export as export_module

_WITH_KEYS = FILES[3:]
_NAMED = 10  # skipped pictures whose names are printed


# Options of `fasthash train` for embeddings, which pictures do not have.
_EMBEDDINGS = (
    *("labels", "targets", "label_column", "target_column", "column", "val_labels", "item_bits", "patience", "ema"),
    *("compile", "kl", "preserve"),
)


def train_images(arguments: argparse.Namespace, group: Any) -> None:
    """`fasthash train` of pictures."""
    if group is not None:
        raise UserError(
            "train: training on pictures runs in one process; use torchrun for embeddings, or with fasthash.train"
        )
    if arguments.out is None and arguments.run_dir is None:
        raise UserError("train: the following arguments are required: --out or --run-dir (see fasthash train --help)")
    given = [name for name in _EMBEDDINGS if getattr(arguments, name) is not None]
    if given or arguments.supervision != "full":
        raise UserError(f"train: --{(given or ['supervision'])[0].replace('_', '-')} needs embeddings, got pictures")
    if arguments.hierarchy_order is not None and arguments.hierarchy is None:
        raise UserError("train: --hierarchy-order needs --hierarchy")
    out = None if arguments.out is None else model_file(arguments.out)
    hierarchy = None if arguments.hierarchy is None else read_hierarchy(arguments.hierarchy, arguments.hierarchy_order)
    names = (
        "backbone",
        "backbone_weights",
        "backbone_lr",
        "size",
        "epochs",
        "batch_size",
        "lr",
        "precision",
        "workers",
    )
    optional = {name: getattr(arguments, name) for name in (*names, "start_from", "run_dir")}
    hasher = ImageHasher(
        arguments.bits,
        hierarchy,
        seed=arguments.seed,
        device=choose_device(arguments.device),
        progress=None if sys.stderr.isatty() else "lines",
        **{name: value for name, value in optional.items() if value is not None},
    )
    start = time.perf_counter()
    try:
        hasher.fit(arguments.features, arguments.val_features)
    except (FileNotFoundError, ImportError) as error:
        raise UserError(str(error)) from None
    if out is not None:
        hasher.save(out)
    model = arguments.out or str(Path(arguments.run_dir) / "model.safetensors")
    history, best = hasher.history_, hasher.history_.best_epoch
    score = history.scores[best - 1]
    result = {
        "model": model,
        "bits": arguments.bits,
        "classes": hasher.classes_,
        "epochs": len(history.losses),
        "best_epoch": best,
        "loss": history.losses[best - 1],
        "validation_score": score,
        "skipped_files": hasher.skipped_,
        "seconds": time.perf_counter() - start,
    }
    _tell_skipped(hasher.skipped_, len(hasher.skipped_))
    scored = "" if score is None else f", validation mAP {score:.4f}"
    epochs = f"epoch {best} of {len(history.losses)}"
    line = f"{model}: {arguments.bits} bits, {len(hasher.classes_ or [])} classes, {epochs}{scored}"
    report(to_json(result) if arguments.json else line)


def encode(arguments: argparse.Namespace) -> None:
    """`fasthash encode` of a module of one's own, or of pictures."""
    pictures = Path(arguments.features).is_dir()
    given = [name for name in ("id_column", "scales", "metric", "decoder") if getattr(arguments, name) is not None]
    if arguments.real or given:
        name = "real" if arguments.real else given[0].replace("_", "-")
        raise UserError(f"encode: --{name} needs embeddings and a model of them, got pictures or a module")
    out = _folder_or_file(arguments, _WITH_KEYS if pictures else FILES)
    size = 224 if arguments.size is None else arguments.size
    if arguments.module is not None:
        module = own_module(arguments.module, arguments.model)
    else:
        if not is_file_of(arguments.model, IMAGES):
            raise UserError(
                f"{arguments.features}: a folder of pictures needs a model of pictures, or --module package:function: "
                f"the function makes the module, {arguments.model} holds its weights"
            )
        if arguments.size is not None:
            raise UserError("encode: --size needs --module; a model of pictures has a fixed size")
        hasher = ImageHasher.load(arguments.model, backbone=arguments.backbone)
        module, size = hasher.module_, hasher.size or size
    device = choose_device(arguments.device)
    loader: Any
    if pictures:
        loader = ImageLoader(
            arguments.features,
            _left(image_files(arguments.features), out, arguments.batch_size),
            size=size,
            batch_size=arguments.batch_size,
            workers=arguments.workers,
        )
    else:
        loader = _Rows(read_features(arguments.features, arguments.column), arguments.batch_size)
    rows = encode_all(module, loader, out, threshold=arguments.threshold, device=device)
    result: dict[str, Any] = {"out": arguments.out, "rows": rows}
    if pictures:
        result |= {"skipped": loader.skipped_count, "skipped_files": loader.skipped}
        _tell_skipped(loader.skipped, loader.skipped_count)
    line = f"{arguments.out}: codes of {rows:,} {'pictures' if pictures else 'rows'}"
    report(to_json(result) if arguments.json else line)


def export(arguments: argparse.Namespace) -> None:
    """`fasthash export`: a model as ONNX or as a graph of torch.export."""
    out = output_file(arguments.out, SUFFIXES)
    if (arguments.module is None) != (arguments.shape is None):
        raise UserError("export: --module and --shape must be given together")
    if is_file_of(arguments.model, LINEAR):
        raise UserError(f"{arguments.model}: linear codes cannot be exported, only models of fasthash train")
    try:
        if is_file_of(arguments.model, IMAGES):
            pictures = ImageHasher.load(arguments.model, backbone=arguments.backbone)
            sizes = [3, *2 * (pictures.size or 0,)]
            pictures.export(out)
        elif arguments.module is not None:
            module = own_module(arguments.module, arguments.model)
            sizes = _sizes(arguments.shape)
            export_module(module, out, torch.zeros(2, *sizes), about={"shape": sizes})
        else:
            hasher = Hasher.load(arguments.model, device="cpu")
            sizes = [hasher.n_features_in_]
            hasher.export(out)
    except FileNotFoundError:
        raise UserError(f"{arguments.model}: no such file") from None
    except ImportError as error:
        raise UserError(str(error)) from None
    result = {"out": arguments.out, "shape": sizes, "bytes": out.stat().st_size}
    line = f"{arguments.out}: x float32 [{', '.join(map(str, ['N', *sizes]))}] -> codes, outputs"
    report(to_json(result) if arguments.json else line)


def own_module(spec: str, path: str) -> nn.Module:
    """The module that package:function makes, with the weights of a run. Only what was typed is imported."""
    package, colon, name = spec.partition(":")
    if not (colon and package and name):
        raise UserError(f"--module: must be package:function, such as net:build for build() in net.py, got {spec!r}")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        build: Any = import_module(package)
    except ModuleNotFoundError as error:
        raise UserError(f"--module: there is no module {error.name!r} here or among the installed packages") from None
    for part in name.split("."):
        build = getattr(build, part, None)
    if not callable(build):
        raise UserError(f"--module: {package} has no function {name!r}")
    module = build()
    if not isinstance(module, nn.Module):
        raise UserError(f"--module: {spec} must give a torch.nn.Module, got {type(module).__name__}")
    return load_weights(module, path)


class _Rows:
    """Batches of rows of features."""

    def __init__(self, features: Any, batch_size: int) -> None:
        if batch_size < 1:
            raise UserError(f"--batch-size: must be at least 1, got {batch_size}")
        self.dataset, self.batch_size = features, batch_size

    def __iter__(self) -> Iterator[Tensor]:
        for start in range(0, len(self.dataset), self.batch_size):
            yield torch.from_numpy(np.array(self.dataset[start : start + self.batch_size], np.float32))


def _tell_skipped(lines: list[str], count: int) -> None:
    for line in lines[:_NAMED]:
        complain(f"fasthash: warning: skipped {line}")
    if count > _NAMED:
        complain(f"fasthash: warning: skipped {count - _NAMED:,} more (--json names them)")


def _left(keys: list[str], out: Path, few: int) -> list[str]:
    """The pictures that an earlier call has not encoded, and a few of the others, by which `encode` compares."""
    folder = out if not out.suffix else out.with_name(f"{out.name}.partial")
    if not (folder / "manifest.json").exists():
        return keys
    with HammingIndex.open(folder) as index:
        if not index.keyed:
            return keys
        there = index.ids_of(keys) >= 0
    kept = ~there | (np.cumsum(there) <= few)
    return [key for key, keep in zip(keys, kept, strict=True) if keep]


def _folder_or_file(arguments: argparse.Namespace, suffixes: tuple[str, ...]) -> Path:
    """The name of an index folder, or of a file of codes with one of the suffixes."""
    path = Path(arguments.out)
    if path.suffix:
        return output_file(arguments.out, suffixes)
    if not path.parent.is_dir():
        raise UserError(f"{arguments.out}: cannot be written, there is no folder {path.parent}")
    return path


def _sizes(text: str) -> list[int]:
    try:
        sizes = [int(part) for part in text.split(",")]
    except ValueError:
        sizes = []
    if not sizes or min(sizes) < 1:
        raise UserError(f"--shape: must be sizes such as 3,224,224, got {text!r}")
    return sizes
