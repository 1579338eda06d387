"""The parts of a fit, as the settings of a Hasher and the data ask for them: network, batches, objective.

settings: as `fasthash.train.settings.completed` gives them.
"""

from __future__ import annotations

import copy
import inspect
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from fasthash import distributed
from fasthash._arguments import whole
from fasthash.baselines import itq
from fasthash.index.progress import progress_bar
from fasthash.losses.published import LOSSES, MULTILABEL
from fasthash.targets import class_levels, shared_label_distances
from fasthash.train.batches import shuffled_batches
from fasthash.train.class_batches import ClassBatches
from fasthash.train.drawn_rows import DrawnRows
from fasthash.train.encoder import encoder, set_weights
from fasthash.train.episode_batches import EpisodeBatches
from fasthash.train.features import Features
from fasthash.train.neighbor_batches import nearest_rows
from fasthash.train.objective import Objective
from fasthash.train.supervision import Targets
from fasthash.train.two_parts import TwoPartObjective, two_part_encoder

ITQ_ROWS = 20_000
FURTHER_ROUNDS = 10  # of ITQ, for bits beyond the features


def fit_network(settings: SimpleNamespace, features: Features) -> nn.Module:
    """The encoder, as training begins."""
    rows, bits, hidden = features.rows, settings.bits, settings.hidden
    more = {
        "hidden": hidden,
        "dropout": settings.dropout,
        "mean": features.mean,
        "deviation": features.deviation,
        "limit": features.limit,
        "sigmoid": settings.loss is None,
        "scale": settings.head_scale if settings.loss is None else 1.0,
    }
    if settings.item_bits:
        return two_part_encoder(rows.shape[1], bits, settings.item_bits, **more)
    module = encoder(rows.shape[1], bits, **more)
    if settings.init == "itq":
        if hidden:
            raise ValueError(f'Hasher.fit: init "itq" needs hidden=(), got hidden {hidden}')
        generator = torch.Generator().manual_seed(settings.seed)
        chosen = torch.randperm(len(rows), generator=generator)[:ITQ_ROWS].sort().values
        sample = rows[chosen.to(rows.device)].float()
        if not features.ordinary:
            sample = module[0](sample)
        set_weights(module, _itq_directions(sample, bits, settings.seed).T)
    return module


def _itq_directions(rows: Tensor, bits: int, seed: int) -> Tensor:
    """Directions of ITQ [F, bits]. Bits beyond the features are further ITQs, each from another random rotation."""
    features = rows.shape[1]
    parts = [itq(rows, min(features, bits), seed=seed)]
    for start in range(features, bits, features):
        size = min(features, bits - start)
        parts.append(itq(rows, size, iterations=FURTHER_ROUNDS, seed=seed + len(parts)))
    return torch.cat([part.weights for part in parts], dim=1)


def fit_batches(
    settings: SimpleNamespace, features: Features, targets: Targets, group: Any
) -> DataLoader[tuple[Tensor, ...]] | DrawnRows | ClassBatches:
    """This rank's part of the batches, with the rows beside them that `preserve` or two-part codes ask for."""
    rank, world, size = distributed.rank(group), distributed.world_size(group), settings.batch_size
    if settings.loss is None and settings.kl != 0:
        whole(settings.kl_k, "Hasher.fit", "kl_k", 1, size - 1, "the others of a batch")
    if size < 2 * world:
        raise ValueError(f"Hasher.fit: batch_size must be at least {2 * world}, 2 rows a rank, got {size}")
    order = torch.Generator().manual_seed(settings.seed)
    near = None
    if settings.neighbors > 1:
        with progress_bar("neighbours", len(targets.values), "row", settings.progress if rank == 0 else False) as bar:
            near = nearest_rows(targets.values, order, centre=targets.centre, advance=bar.update)
    loader = shuffled_batches(
        features.rows,
        targets.values,
        batch_size=size,
        generator=order,
        nearest=near,
        group=settings.neighbors,
        episodes=_episodes(settings, targets, order, rank, world),
        workers=settings.workers,
        rank=rank,
        world=world,
    )
    standard = None if features.ordinary else features.standard
    if settings.item_bits:
        return ClassBatches(
            loader,
            features.rows,
            targets.values,
            size=size,
            seed=settings.seed,
            rank=rank,
            world=world,
            standard=standard,
        )
    if not settings.preserve or settings.loss is not None:
        return loader
    draws = settings.draws * size
    return DrawnRows(
        loader,
        features.rows,
        features.mean,
        draws=draws,
        seed=settings.seed,
        rank=rank,
        world=world,
        standard=standard,
    )


def _episodes(
    settings: SimpleNamespace, targets: Targets, order: torch.Generator, rank: int, world: int
) -> EpisodeBatches | None:
    """Batches of as many rows of each of their classes, where that is asked for."""
    if targets.kind != "labels" or settings.rows_per_class == 1:
        return None
    counts = torch.bincount(targets.values.cpu())
    smallest, present = int(counts[counts > 0].min()), int((counts > 0).sum())
    asked, size = settings.rows_per_class, settings.batch_size
    if asked is None:
        wanted = getattr(LOSSES.get(settings.loss, settings.loss), "rows_per_class", None)
        asked = min(wanted or 1, smallest, size // 2)
        if asked == 1:
            return None
    elif asked > min(smallest, size):
        limit, what = (size, "batch_size") if size < smallest else (smallest, "the rows of the smallest class")
        whole(asked, "Hasher.fit", "rows_per_class", 1, limit, what)
    way = min(size // asked, present)
    return EpisodeBatches(
        targets.values,
        way=way,
        queries=asked - 1,  # which rows are support is the loss's to say
        batches=max(1, len(targets.values) // (way * asked)),
        generator=order,
        rank=rank,
        world=world,
    )


def fit_objective(settings: SimpleNamespace, targets: Targets) -> nn.Module:
    """The package's objective, or the baseline of the setting `loss`: what the name stands for, a copy of the module.

    Raises ValueError where the settings do not fit the targets.
    """
    if settings.loss is None:
        return _objective(settings, targets)
    if isinstance(settings.loss, nn.Module):
        return copy.deepcopy(settings.loss).float()
    return _baseline(settings.loss, settings.bits, targets)


def _objective(settings: SimpleNamespace, targets: Targets) -> nn.Module:
    classified = settings.supervision == "full" and targets.outputs > 0
    classification = settings.classification if classified else 0.0
    if not any((classification, settings.similarity_weight, settings.kl, settings.preserve)):
        raise ValueError(f"Hasher.fit: a term that applies to target {targets.kind!r} must have a weight above 0")
    ranked = targets.kind == "multilabel" and settings.similarity == "listwise"
    objective = Objective(
        settings.bits - settings.item_bits,
        classes=targets.outputs if classified else 0,
        multilabel=targets.kind == "multilabel",
        distance=shared_label_distances if ranked else targets.distance,  # stress needs symmetric ones
        classification=classification,
        soft_labels=settings.soft_labels,
        similarity=settings.similarity,
        similarity_weight=settings.similarity_weight,
        kl=settings.kl,
        kl_k=settings.kl_k,
        preserve=settings.preserve,
        temperature_y=settings.temperature_y,
        temperature_z=settings.temperature_z,
    ).float()
    return TwoPartObjective(objective, settings.item_bits) if settings.item_bits else objective


def _baseline(loss: str, bits: int, targets: Targets) -> nn.Module:
    """A loss of `LOSSES`, with the sizes that it asks for."""
    if loss not in LOSSES:
        raise ValueError(f"Hasher.fit: loss must be a module or one of {', '.join(LOSSES)}, got {loss!r}")
    known: dict[str, Any] = {"bits": bits}
    if targets.kind == "multilabel":
        if loss not in MULTILABEL:
            several = ", ".join(sorted(MULTILABEL))
            needs = "embeddings" if loss == "sdc" else "class labels"
            raise ValueError(
                f"Hasher.fit: loss {loss!r} needs {needs} y, got target 'multilabel' "
                f"(multi-hot labels are for {several})"
            )
        known["classes"] = targets.outputs
    if targets.distances is not None:
        known |= {"classes": targets.outputs, "levels": class_levels(targets.distances)}
    wanted = inspect.signature(LOSSES[loss].__init__).parameters
    missing = [name for name in ("classes", "levels") if name in wanted and name not in known]
    if any(wanted[name].default is inspect.Parameter.empty for name in missing):
        raise ValueError(f"Hasher.fit: loss {loss!r} needs class labels y, got target {targets.kind!r}")
    return LOSSES[loss](**{name: value for name, value in known.items() if name in wanted}).float()
