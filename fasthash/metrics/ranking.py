"""Rankings as tie groups: of packed codes from per-distance counts, of embeddings (and storage order) from sorting."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from fasthash._arguments import choice
from fasthash._arrays import dtype_name, like, to_tensor
from fasthash._bit_weights import bit_weights as flat_bit_weights
from fasthash._bit_weights import largest
from fasthash._directions import unit_rows
from fasthash._moved import moved_names
from fasthash.hamming import hamming_distances, hamming_histogram
from fasthash.metrics.expectation import BLOCK
from fasthash.metrics.relevance import Gain, Labels

BitWeights = tuple[tuple[int, int], ...] | None  # (bits, weight) of each group; None: every bit counts 1

# Query-database pairs that are sorted at once; a pair takes about 150 bytes.
PAIRS = 1 << 19


@dataclass(frozen=True)
class Groups:
    """Tie groups of the queries `start` to `start + q`, nearest first: all [q, G], an empty group has count 0."""

    start: int
    distances: Tensor  # of the members of each group; infinite for padding
    counts: Tensor  # float64
    sums: tuple[Tensor, ...]  # float64, one for each gain asked for

    @property
    def rows(self) -> slice:
        return slice(self.start, self.start + len(self.counts))


class Ranking:
    """The database ranked for every query: checks what the metrics take, and hands out tie groups block by block.

    query [Q, W] and database [N, W] are packed uint8 codes (Hamming distance), or [Q, D] and [N, D] floating point
    (metric "l1", the default, "l2" or "cosine"). `ties` is "expected" or "index" (storage order: every result is a
    group of its own). With `exclude_self`, row i of the database is left out for query i. `largest`: the largest
    distance of codes.
    """

    def __init__(
        self,
        function: str,
        query: Any,
        database: Any,
        query_labels: Any,
        database_labels: Any,
        ties: str = "expected",
        metric: str | None = None,
        exclude_self: bool = False,
        bit_weights: Any = None,
    ) -> None:
        self.function = function
        self.query, self.database, self.metric = check_items(function, query, database, metric)
        self.bit_weights = check_bit_weights(function, bit_weights, self.query)
        self.largest = largest_distance(self.query, self.bit_weights)
        self.given = query
        self.ties = choice(ties, function, "ties", ["expected", "index"])
        self.exclude_self = exclude_self
        if exclude_self and not len(self.query) <= len(self.database):
            raise ValueError(
                f"{function}: exclude_self needs query i to be row i of the database, got {len(self.query)} queries "
                f"and {len(self.database)} rows"
            )
        self.eligible = len(self.database) - bool(exclude_self)  # items that can be retrieved
        if self.eligible == 0:
            raise ValueError(f"{function}: exclude_self needs a database of at least 2 rows, got 1")
        self.labels = Labels(function, query_labels, database_labels, self.query.device)
        for name, labels, items in (
            ("query", self.labels.query, self.query),
            ("database", self.labels.database, self.database),
        ):
            if len(labels) != len(items):
                raise ValueError(
                    f"{function}: {name}_labels must have {len(items)} rows like {name}, got {len(labels)}"
                )

    def score(self, value: Callable[[Groups], Tensor], *gains: Gain, per_query: bool = False, width: int = 1) -> Any:
        """Mean over queries of `value` [q] of their tie groups; with per_query, float64 [Q] of the kind of `query`."""
        scores = torch.cat([value(groups) for groups in self.blocks(*gains, width=width)])
        return like(scores, self.given) if per_query else float(scores.mean())

    def blocks(self, *gains: Gain, width: int = 1) -> Iterator[Groups]:
        """Tie groups of a few queries at a time. `width`: further elements for each query that the caller will need."""
        histogram = self.metric == "hamming" and self.ties == "expected"
        if histogram:
            step = BLOCK // max(self.largest + 1, len(self.labels.counts), width)
        else:
            step = min(PAIRS // len(self.database), BLOCK // width)
        step = max(1, step)
        for start in range(0, len(self.query), step):
            groups = self.labels.query[start : start + step]
            tables = [gain(groups) for gain in gains]
            yield (self._counted if histogram else self._sorted)(start, len(groups), tables)

    def ideal(self, gain: Gain, summarise: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        """`summarise(counts, sums)` of the best ranking for each query: the tie groups in descending order of gain.

        The best ranking depends only on the query's label group (and on that of the item left out): computed once for
        each.
        """
        number = len(self.labels.counts)
        left_out = self.labels.database[: len(self.query)] if self.exclude_self else torch.zeros_like(self.labels.query)
        keys, inverse = torch.unique(self.labels.query * number + left_out, return_inverse=True)
        results = []
        for part in keys.split(max(1, BLOCK // number)):
            table = gain(torch.div(part, number, rounding_mode="floor"))
            counts = self.labels.counts.repeat(len(part), 1)
            if self.exclude_self:
                counts.scatter_add_(1, (part % number)[:, None], counts.new_full((len(part), 1), -1.0))
            table, order = table.sort(-1, descending=True)
            counts = counts.gather(-1, order)
            results.append(summarise(counts, counts * table))
        return torch.cat(results)[inverse]

    def _counted(self, start: int, rows: int, tables: list[Tensor]) -> Groups:
        """Groups of codes: one for each distance from 0 to the largest."""
        own = slice(start, start + rows)
        query, labels = self.query[own], self.labels.database
        found = [
            hamming_histogram(
                query, self.database, database_labels=labels, class_weights=table, bit_weights=self.bit_weights
            )
            for table in tables
        ]
        counts = found[0][0].double()
        sums = tuple(part[1] for part in found)
        if self.exclude_self:
            row = torch.arange(rows, device=query.device)
            distance = row_distances(query, self.database[own], self.bit_weights)
            counts[row, distance] -= 1.0
            for total, table in zip(sums, tables, strict=True):
                total[row, distance] -= table[row, labels[own]]
        distances = torch.arange(counts.shape[1], dtype=torch.float64, device=query.device)
        return Groups(start, distances.expand_as(counts), counts, sums)

    def _sorted(self, start: int, rows: int, tables: list[Tensor]) -> Groups:
        """Groups of a full ranking: runs of equal distances, or single results where ties go by storage order."""
        distances = pair_distances(self.query[start : start + rows], self.database, self.metric, self.bit_weights)
        row = torch.arange(rows, device=distances.device)
        if self.exclude_self:
            distances[row, start + row] = torch.inf
        distances, order = _stable_sort(distances)
        labels = self.labels.database[order]
        counts = torch.ones(distances.shape, dtype=torch.float64, device=distances.device)
        sums = [table.gather(-1, labels) for table in tables]
        if self.exclude_self:  # the item left out has come last
            for values in (counts, *sums):
                values[:, -1] = 0.0
        if self.ties == "expected":
            new = torch.ones_like(distances, dtype=torch.bool)
            torch.ne(distances[:, 1:], distances[:, :-1], out=new[:, 1:])
            if not bool(new.all()):
                group = new.cumsum(-1) - 1
                distances = torch.full_like(distances, torch.inf).scatter_(-1, group, distances)
                counts = torch.zeros_like(counts).scatter_add_(-1, group, counts)
                sums = [torch.zeros_like(part).scatter_add_(-1, group, part) for part in sums]
        return Groups(start, distances, counts, tuple(sums))


def check_items(function: str, query: Any, database: Any, metric: str | None) -> tuple[Tensor, Tensor, str]:
    """Query and database as tensors on the query's device, of one dtype, and the metric's name."""
    a = to_tensor(query, function, "query").detach()
    b = to_tensor(database, function, "database").detach().to(a.device)
    for name, items in (("query", a), ("database", b)):
        if items.ndim != 2 or 0 in items.shape:
            raise ValueError(
                f"{function}: {name} must have shape [rows, columns], neither of them 0, got {list(items.shape)}"
            )
    codes = a.dtype == torch.uint8
    if codes != (b.dtype == torch.uint8) or not (codes or (a.is_floating_point() and b.is_floating_point())):
        kinds = f"{dtype_name(a)} and {dtype_name(b)}"
        raise TypeError(
            f"{function}: query and database must both be packed uint8 codes or both floating point, got {kinds}"
        )
    if a.shape[1] != b.shape[1]:
        raise ValueError(
            f"{function}: query and database must have the same number of columns, got {a.shape[1]} and {b.shape[1]}"
        )
    allowed = ("hamming",) if codes else ("l1", "l2", "cosine")
    metric = allowed[0] if metric is None else metric
    choice(metric, function, f"metric for {'packed uint8 codes' if codes else 'floating-point embeddings'}", allowed)
    if codes:
        return a.contiguous(), b.contiguous(), metric
    for name, items in (("query", a), ("database", b)):
        if not bool(items.isfinite().all()):
            raise ValueError(f"{function}: {name} has NaN or infinite values")
    dtype = torch.float64 if torch.float64 in (a.dtype, b.dtype) else torch.float32
    if metric == "cosine":
        a, b = (unit_rows(items.double()) for items in (a, b))
        return a, b, metric
    return a.to(dtype), b.to(dtype), metric


def check_bit_weights(function: str, given: Any, query: Tensor) -> BitWeights:
    """The groups of bits of `query` that `given` describes; raises TypeError where `query` is no codes."""
    if given is None:
        return None
    if query.dtype != torch.uint8:
        raise TypeError(f"{function}: bit_weights need packed uint8 codes, got {dtype_name(query)} embeddings")
    flat = flat_bit_weights(given, function, query.shape[1])
    return tuple(zip(flat[::2], flat[1::2], strict=True)) or None


def largest_distance(query: Tensor, bit_weights: BitWeights) -> int:
    return largest([number for pair in bit_weights or () for number in pair], query.shape[1])


def pair_distances(query: Tensor, database: Tensor, metric: str, bit_weights: BitWeights = None) -> Tensor:
    """Distances [q, N] of what `check_items` gave, in floating point; equal rows are at equal distances.

    Cosines are rounded to multiples of 2^-24, because the rounding of a matrix product depends on a row's position.
    """
    if metric == "hamming":
        distances: Tensor = hamming_distances(query, database, bit_weights=bit_weights)
        return distances.float() if largest_distance(query, bit_weights) <= 1 << 24 else distances.double()
    if metric == "cosine":
        grid = float(1 << 24)
        return (1.0 - (query @ database.T).mul_(grid).round_().div_(grid)).float()
    p = 1.0 if metric == "l1" else 2.0
    return torch.cdist(query, database, p=p, compute_mode="donot_use_mm_for_euclid_dist")


def _stable_sort(distances: Tensor) -> tuple[Tensor, Tensor]:
    """Rows [q, N] of distances >= 0 in ascending order, and the positions they came from; ties by position."""
    if distances.dtype != torch.float32 or distances.device.type != "cpu":
        values, order = distances.sort(dim=-1, stable=True)
        return values, order
    # The bits of floats >= 0 ascend like the floats. One integer holds distance and position, so that any sort is
    # stable and numpy's vectorised one will do: 3 ns a pair on one core, where sorting with positions takes 60.
    keys = (distances.view(torch.int32).long() << 32) + torch.arange(distances.shape[1])
    keys.numpy().sort(axis=-1)
    return (keys >> 32).int().view(torch.float32), keys & 0xFFFFFFFF


def row_distances(query: Tensor, database: Tensor, bit_weights: BitWeights) -> Tensor:
    """Hamming distances int64 [q] between rows of the same number."""
    shifts = torch.arange(7, -1, -1, device=query.device)
    differing = ((query ^ database).long()[:, :, None] >> shifts & 1).flatten(1)
    if bit_weights is not None:
        weights = torch.tensor([weight for bits, weight in bit_weights for _ in range(bits)], device=query.device)
        differing = differing[:, : len(weights)] * weights
    return differing.sum(1)


if not TYPE_CHECKING:  # a type checker should still see that a name is misspelled
    __getattr__ = moved_names(__name__)
