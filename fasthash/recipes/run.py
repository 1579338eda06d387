"""One recipe from data to table: train the paper's settings, encode, measure, write."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, replace
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from fasthash._arguments import choice, one_device, whole
from fasthash._durable import make_folder, replaced_file
from fasthash.codes import pack_bits
from fasthash.metrics import hierarchical_precision, mean_average_precision
from fasthash.recipes import cifar100, conceptual_captions, imagenet
from fasthash.recipes.experiment import Experiment, Protocol, Rows, Sizes
from fasthash.recipes.networks import network
from fasthash.recipes.page import write_page
from fasthash.recipes.table import markdown_table
from fasthash.recipes.wordnet import wordnet
from fasthash.train import Objective
from fasthash.train.checksum import fingerprint
from fasthash.train.loop import train
from fasthash.train.randomness import seeded

RECIPES = ("cifar100", "imagenet", "conceptual-captions")
RANKS = (250, 2500)
# What is learned from -> weights. KL: by the 3rd neighbours, weight 0.1; similarity: the paper's form ("stress").
SETTINGS = {
    "similarity + KL + classification": {"classification": 1.0, "kl": 0.1},
    "similarity + KL": {"classification": 0.0, "kl": 0.1},
    "similarity": {"classification": 0.0, "kl": 0.0},
}
KL_K, SOFT_LABELS = 3, 0.1


def run_recipe(
    name: str,
    data: str | PathLike[str],
    out: str | PathLike[str],
    *,
    small: bool = False,
    bits: int = 64,
    epochs: int | None = None,
    seed: int = 0,
    wordnet: str | PathLike[str] | None = None,
    embeddings: str | PathLike[str] | None = None,
    backbone: str | nn.Module | None = None,
    backbone_weights: str | PathLike[str] | None = None,
    batch_size: int | None = None,
    validation: bool = False,
    workers: int = 0,
    device: torch.device | str | None = None,
    progress: bool | str | None = None,
) -> dict[str, Any]:
    """Trains the settings of the paper on a data set and measures zero-shot hashing; gives what results.json holds.

    Args:
        name: "cifar100", "imagenet" or "conceptual-captions".
        data: the data as it is downloaded (see docs/recipes.md).
        out: a folder for a run folder of each setting (see `fasthash.train.train`), with its report.html, and for
            results.json and table.md. The same call continues an interrupted one.
        small: reduced data, network and epochs, for minutes on a CPU; captions get generated pictures.
        bits: of a code. epochs, batch_size, backbone: None for those of the recipe. seed: for weights and order; which
            classes are unseen does not depend on it.
        wordnet: WordNet 3.0's data.noun, for the first two; None: where it usually is. embeddings: of captions.
        backbone_weights: see `fasthash.images.ImageHasher`.
        validation: measure on held-out training pictures, of other unseen classes than those of the test: for choosing
            settings.
        workers: processes that read pictures ahead. device: None is the CPU. progress: see `fasthash.train.train`.

    Raises ValueError, FileNotFoundError or ImportError, naming what is wrong or missing.
    """
    choice(name, "recipe", "name", RECIPES)
    bits = whole(bits, "recipe", "bits", 1, 4096)
    seed = whole(seed, "recipe", "seed", 0, 2**63 - 1)
    workers = whole(workers, "recipe", "workers", 0)
    place = one_device("cpu" if device is None else device, "recipe")
    start, folder, source = time.perf_counter(), Path(out), Path(data)
    if not source.exists():
        raise FileNotFoundError(f"recipe: {source}: no such file or folder")
    make_folder(folder)
    chosen = _sizes(name, small)
    chosen = replace(
        chosen,
        epochs=chosen.epochs if epochs is None else whole(epochs, "recipe", "epochs", 1),
        batch_size=chosen.batch_size if batch_size is None else whole(batch_size, "recipe", "batch_size", 2),
        backbone=chosen.backbone if backbone is None else backbone,
    )
    experiment = _read(name, source, folder, chosen, small, validation, wordnet, embeddings)
    _check(experiment, source)
    tables: list[dict[str, Any]] = [
        {
            "title": protocol.title,
            "queries": len(protocol.queries),
            "database": len(protocol.database),
            "rows": [_chance(experiment, protocol)],
        }
        for protocol in experiment.protocols
    ]
    skipped: dict[str, None] = {}
    for setting in SETTINGS:
        if SETTINGS[setting]["classification"] and not experiment.classes:
            continue  # captions have no classes
        found = _trained_rows(
            experiment, setting, folder, chosen, bits, seed, backbone_weights, workers, place, progress
        )
        skipped.update(dict.fromkeys(found["skipped"]))
        for table, rows in zip(tables, found["rows"], strict=True):
            table["rows"] += rows
    results: dict[str, Any] = {
        "recipe": name,
        "small": small,
        "validation": validation,
        "bits": bits,
        "epochs": chosen.epochs,
        "batch_size": chosen.batch_size,
        "seed": seed,
        "trained_on": len(experiment.train),
        "about": experiment.about,
        "tables": tables,
        "skipped": list(skipped),
        "seconds": round(time.perf_counter() - start, 1),
    }
    _write(folder, results)
    return results


def _sizes(name: str, small: bool) -> Sizes:
    recipe: Any = {"cifar100": cifar100, "imagenet": imagenet, "conceptual-captions": conceptual_captions}[name]
    sizes: Sizes = recipe.SMALL if small else recipe.FULL
    return sizes


def _read(
    name: str,
    source: Path,
    out: Path,
    sizes: Sizes,
    small: bool,
    validation: bool,
    nouns: str | PathLike[str] | None,
    embeddings: str | PathLike[str] | None,
) -> Experiment:
    if name == "conceptual-captions":
        return conceptual_captions.read(
            source, out, sizes, generated=small, embeddings=embeddings, validation=validation
        )
    hierarchy = wordnet(nouns, source if source.is_dir() else source.parent)
    read = cifar100.read if name == "cifar100" else imagenet.read
    return read(source, out, sizes, hierarchy, validation=validation)


def _check(experiment: Experiment, source: Path) -> None:
    parts = [("pictures to train on", experiment.train)]
    for protocol in experiment.protocols:
        parts += [
            (f"queries ({protocol.title})", protocol.queries),
            (f"a database ({protocol.title})", protocol.database),
        ]
    for what, rows in parts:
        if len(rows) < 2:
            raise ValueError(f"recipe: {source} must have {what}: at least 2, got {len(rows)}")


def _trained_rows(
    experiment: Experiment,
    setting: str,
    out: Path,
    sizes: Sizes,
    bits: int,
    seed: int,
    weights: str | PathLike[str] | None,
    workers: int,
    device: torch.device,
    progress: bool | str | None,
) -> dict[str, Any]:
    """One setting: its "rows" in each table, floats and codes, and the pictures "skipped" because of what they are."""
    run = out / setting.replace(" + ", "-").lower()
    given = SETTINGS[setting]
    classes = experiment.classes if given["classification"] else 0
    with seeded(seed, device):
        module = network(bits, sizes.size, sizes.backbone, weights)
        objective = Objective(
            bits,
            classes=classes,
            distance=experiment.distance,
            similarity="stress",
            soft_labels=SOFT_LABELS if classes else 0.0,
            kl_k=KL_K,
            classification=given["classification"],
            kl=given["kl"],
        )
        batches = experiment.pictures.batches(
            experiment.train, experiment.y, sizes.batch_size, workers, torch.Generator().manual_seed(seed)
        )
        named = asdict(replace(sizes, backbone="")) | {"backbone": _backbone_name(sizes.backbone)}
        train(
            module,
            batches,
            objective,
            epochs=sizes.epochs,
            run_dir=run,
            config={
                "recipe": {"setting": setting, "bits": bits, "seed": seed},
                "sizes": named | {"weights": None if weights is None else str(weights)},
                "data": {
                    "pictures": experiment.pictures.checksum(),
                    "targets": fingerprint(torch.from_numpy(experiment.train), experiment.y),
                },
            },
            device=device,
            progress=progress,
        )
    kept = run / "rows.json"  # of a setting that is done; `train` has compared its settings and data
    if not kept.is_file():
        outputs = _outputs(module, experiment, sizes.batch_size, workers, device, progress)
        rows = [_measured(experiment, protocol, outputs, setting) for protocol in experiment.protocols]
        write_page(run / "report.html", experiment, setting, *_parts(experiment.protocols[0], outputs))
        _write_text(kept, json.dumps({"rows": rows, "skipped": experiment.pictures.skipped}, indent=1) + "\n")
    found: dict[str, Any] = json.loads(kept.read_text(encoding="utf-8"))
    return found


def _backbone_name(backbone: str | nn.Module) -> str:
    return backbone if isinstance(backbone, str) else repr(backbone)


@torch.no_grad()
def _outputs(
    module: nn.Module,
    experiment: Experiment,
    batch_size: int,
    workers: int,
    device: torch.device,
    progress: bool | str | None,
) -> tuple[Tensor, Tensor]:
    """Outputs [M, bits] of all pictures that are measured, and the place [N] of each row in them, -1 for none."""
    module.eval()
    rows = np.unique(np.concatenate([part for p in experiment.protocols for part in (p.queries, p.database)]))
    parts, place, done = list[Tensor](), torch.full((len(experiment.pictures),), -1), 0
    hidden = None if progress is None else progress is not True
    with tqdm(total=len(rows), desc="encode", unit="picture", disable=hidden) as bar:
        for x, read in experiment.pictures.read(rows, batch_size, workers):
            parts.append(module(x.to(device)).float())
            place[torch.tensor(read)] = torch.arange(done, done + len(read))
            done += len(read)
            bar.update(len(read))
    return torch.cat(parts), place


def _measured(
    experiment: Experiment, protocol: Protocol, outputs: tuple[Tensor, Tensor], setting: str
) -> list[dict[str, Any]]:
    (query, database), rows = _parts(protocol, outputs)
    labels = [experiment.labels[part] for part in rows]
    bits = query.shape[1]
    return [
        _row(experiment, protocol, f"{bits} floats", setting, query, database, labels, "l1"),
        _row(experiment, protocol, f"{bits} bits", setting, pack_bits(query), pack_bits(database), labels, None),
    ]


def _parts(protocol: Protocol, outputs: tuple[Tensor, Tensor]) -> tuple[list[Tensor], list[Rows]]:
    """Outputs of queries and database, and their rows, without the pictures that could not be read."""
    z, place = outputs
    rows = [torch.from_numpy(part) for part in (protocol.queries, protocol.database)]
    rows = [part[place[part] >= 0] for part in rows]
    return [z[place[part].to(z.device)] for part in rows], [part.numpy() for part in rows]


def _chance(experiment: Experiment, protocol: Protocol) -> dict[str, Any]:
    """A random ranking: all codes equal, so that the expectation over ties is over all orders."""
    query, database = (torch.zeros(len(part), 1, dtype=torch.uint8) for part in (protocol.queries, protocol.database))
    labels = [experiment.labels[part] for part in (protocol.queries, protocol.database)]
    return _row(experiment, protocol, "random ranking", "", query, database, labels, None)


def _row(
    experiment: Experiment,
    protocol: Protocol,
    method: str,
    setting: str,
    query: Tensor,
    database: Tensor,
    labels: list[Any],
    metric: str | None,
) -> dict[str, Any]:
    """One row of a table; mAHP at a rank beyond the database is that of the whole database, and is called so."""
    asked, stored = (torch.from_numpy(part).to(query.device) for part in labels)
    similarity = experiment.similarity.to(query.device)
    row: dict[str, Any] = {"method": method, "learned_from": setting, "mAP": None}
    if experiment.has_classes:
        row["mAP"] = round(float(mean_average_precision(query, database, asked, stored, metric=metric)), 4)
    for rank in dict.fromkeys(min(rank, len(protocol.database)) for rank in RANKS):
        least = min(rank, len(database))  # fewer where pictures could not be read
        found = hierarchical_precision(query, database, asked, stored, similarity, at=least, metric=metric)
        row[f"mAHP@{rank}"] = round(float(found), 4)
    return row


def _write(folder: Path, results: dict[str, Any]) -> None:
    """Writes results.json for programs and table.md for people."""
    _write_text(folder / "results.json", json.dumps(results, indent=1, allow_nan=False) + "\n")
    _write_text(folder / "table.md", markdown_table(results) + "\n")


def _write_text(path: Path, text: str) -> None:
    with replaced_file(path) as file:
        file.write(text.encode())
