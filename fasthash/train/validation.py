"""Validation scores: how well codes of held-out rows find their like among codes of training rows."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fasthash._arrays import to_tensor
from fasthash.codes import pack_bits
from fasthash.evaluate import overlap_at
from fasthash.hierarchy import Hierarchy
from fasthash.metrics import hierarchical_precision, mean_average_precision
from fasthash.train.features import Features, read_features, scan
from fasthash.train.supervision import Targets, read_array, read_validation
from fasthash.train.threads import forward_operations, own_threads, short_waits, threads_for
from fasthash.train.word_bags import WordBags

BitWeights = list[tuple[int, int]] | None
# A score is taken many times in a training run: larger sets are sampled down to these sizes.
QUERIES = 3_000
DATABASE = 20_000
RANKS = 250


@dataclass(frozen=True)
class HeldOut:
    """Rows that are held out for a score, with targets in the terms of the training rows'."""

    features: Features
    targets: Targets


def read_held_out(
    validation: Any, train: Features, targets: Targets, hierarchy: Hierarchy | None, *, checksum: bool
) -> HeldOut | None:
    """The pair (Xv, yv) of `Hasher.fit` beside the training rows and their targets; None for None.

    Xv is read once, twice where values lie far out by the measure of the training rows. Raises ValueError or TypeError
    where the pair does not fit the rows and their targets.
    """
    if validation is None:
        return None
    if not isinstance(validation, (tuple, list)) or len(validation) != 2:
        raise TypeError(f"Hasher.fit: validation must be a pair (Xv, yv), got {type(validation).__name__}")
    rows = train.rows
    own = read_features(validation[0], "fit", "validation X")
    if not len(own):
        raise ValueError("Hasher.fit: validation X must have at least 1 row, got 0")
    if own.shape[1] != rows.shape[1]:
        raise ValueError(f"Hasher.fit: validation X must have {rows.shape[1]} features, got {own.shape[1]}")
    features = scan(own, "validation X", checksum=checksum, usual=train.usual)
    if (validation[1] is None) != (targets.values is rows):
        raise ValueError("Hasher.fit: validation must have labels yv if y is given, and None as yv if y is None")
    if validation[1] is None:
        return HeldOut(features, Targets("embedding", own))
    return HeldOut(features, read_validation(targets, validation[1], len(own), hierarchy))


def output_blocks(module: nn.Module, X: Tensor | WordBags, device: torch.device, rows: int = 8192) -> Iterator[Tensor]:
    """Outputs float32 [<= rows, bits] of blocks of rows of X, on the device of X; in evaluation mode. At least one."""
    module.eval()
    for start in range(0, max(len(X), 1), rows):
        x = X[start : start + rows].to(device)
        with torch.no_grad(), _threads(module, x):
            block: Tensor = module(x).float().to(X.device)
        yield block


def _threads(module: nn.Module, x: Tensor) -> contextlib.AbstractContextManager[None]:
    """The number of threads that the block is worth; a single row is left alone: changing it takes as long."""
    if x.device.type != "cpu" or len(x) < 2:
        return contextlib.nullcontext()
    most = torch.get_num_threads()
    count = threads_for(forward_operations(module, x), most)
    return short_waits() if count == most else own_threads(count)


def outputs(module: nn.Module, X: Tensor, device: torch.device) -> Tensor:
    """Outputs float32 [N, bits] of the rows of X, on the device of X, taken in blocks; in evaluation mode."""
    return torch.cat(list(output_blocks(module, X, device)))


def retrieval_score(
    query_X: Tensor,
    query: Targets,
    database_X: Tensor,
    database: Targets,
    device: torch.device,
    seed: int,
    bit_weights: BitWeights = None,
) -> Callable[[nn.Module], float]:
    """A score for `fasthash.train.train`, higher is better: codes of `query_X` searched in codes of `database_X`.

    `database` are the targets of database_X, in the terms of `query`; rows without a label are left out. By their kind:
    labels: mAHP@250 (variant "mean") under their distances, with `bit_weights`; multi-hot labels: mAP@250; embeddings:
    the part of the 10 nearest by the cosine of the targets that is among the 10 nearest by code. All are expectations
    over ties. Sets larger than QUERIES and DATABASE are sampled (by `seed`).
    """
    generator = torch.Generator().manual_seed(seed)
    labelled = (database.values >= 0).nonzero()[:, 0] if database.unlabelled else None
    query_rows = _sample(len(query_X), QUERIES, generator)
    database_rows = _sample(len(database_X) if labelled is None else len(labelled), DATABASE, generator)
    if labelled is not None:
        database_rows = labelled if database_rows is None else labelled[database_rows]
    query_X, database_X = _rows(query_X, query_rows), _rows(database_X, database_rows)
    query_y, database_y = _rows(query.values, query_rows), _rows(database.values, database_rows)
    ranks = min(RANKS, len(database_X))

    def score(module: nn.Module) -> float:
        a, b = (pack_bits(outputs(module, X, device)) for X in (query_X, database_X))
        if query.distances is not None:
            similarity = 1.0 - query.distances
            return float(
                hierarchical_precision(a, b, query_y, database_y, similarity, at=ranks, bit_weights=bit_weights)
            )
        if query.kind == "multilabel":
            return float(mean_average_precision(a, b, query_y, database_y, at=ranks))
        one_class = torch.zeros(len(a), dtype=torch.int64), torch.zeros(len(b), dtype=torch.int64)
        return float(overlap_at(a, b, query_y.float(), database_y.float(), *one_class, min(10, len(b) - 1)))

    return score


def own_score(codes: Tensor, X: Tensor, y: Any, kind: str | None, bit_weights: BitWeights = None) -> float:
    """How well packed codes uint8 [N, W] of the rows X find their like among one another; see `Hasher.score`.

    Larger sets than DATABASE are sampled, and no more than QUERIES of them are searched for, always the same ones.
    """
    generator = torch.Generator().manual_seed(0)
    order = torch.arange(len(codes))
    if len(codes) > QUERIES:
        order = torch.randperm(len(codes), generator=generator)[:DATABASE]
    database = codes[order.to(codes.device)]
    query = database[:QUERIES]
    if y is not None:
        array, kind = read_array(y, len(codes), kind, "Hasher.score")
        if kind != "embedding":
            if len(codes) < 2:
                raise ValueError(f"Hasher.score: X must have at least 2 rows, got {len(codes)}")
            labels = array[order.to(array.device) if isinstance(array, Tensor) else order.numpy()]
            own = labels[: len(query)]
            return float(
                mean_average_precision(query, database, own, labels, exclude_self=True, bit_weights=bit_weights)
            )
        X = to_tensor(array, "Hasher.score", "y")
    if len(codes) < 3:
        raise ValueError(f"Hasher.score: X must have at least 3 rows, a query and two rows to rank, got {len(codes)}")
    rows = X[order.to(X.device)].float()
    one_class = torch.zeros(len(query), dtype=torch.int64), torch.zeros(len(database), dtype=torch.int64)
    k = min(10, len(database) - 2)
    return float(overlap_at(query, database, rows[: len(query)], rows, *one_class, k, exclude_self=True))


def _sample(rows: int, limit: int, generator: torch.Generator) -> Tensor | None:
    return torch.randperm(rows, generator=generator)[:limit].sort().values if rows > limit else None


def _rows(values: Tensor, rows: Tensor | None) -> Tensor:
    return values if rows is None else values[rows.to(values.device)]
