"""Scores of candidates: by stored rows, or estimated from codes; and the best of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fasthash._arrays import like
from fasthash._directions import unit_rows
from fasthash.baselines import GridCodes, LinearCodes
from fasthash.codes import unpack_bits
from fasthash.embeddings.encoders import Encoder, scan_queries, weights_of
from fasthash.index import HammingIndex
from fasthash.index.segments import Contents
from fasthash.train import Hasher

_VALUES = 1 << 22  # numbers that are scored at once


class EmbeddingResult(NamedTuple):
    """scores float32 [Q, k], ids int64 [Q, k] and keys (objects [Q, k], or None without keys), the nearest first.

    Where fewer rows are eligible the missing places have id -1, key None and the worst score: -inf, for "l2" inf.
    """

    scores: Any
    ids: Any
    keys: Any


def candidates(codes: HammingIndex, encoder: Encoder, metric: str, queries: Tensor, count: int, filter: Any) -> Tensor:
    """The ids of the `count` nearest codes of each query, int64 [Q, count], nearest first; -1 where there are fewer.

    queries: float32 [Q, F] as the encoder takes them. Every code is compared with the query as it is, not rounded.
    """
    rows, scan = scan_queries(encoder, queries, metric, codes._contents.scaled)
    found: Tensor = codes.search(rows, count, filter, rescore="all", metric=scan).ids
    return found


def best(
    contents: Contents, encoder: Encoder, metric: str, queries: Tensor, encoded: Tensor, ids: Tensor, k: int
) -> tuple[Tensor, Tensor]:
    """The k best of candidates int64 [Q, C]: scores float32 [Q, k] and ids, ordered by (score, id).

    Scores are those of the stored rows, where there are some, else of the rows that codes give back. queries: float32
    [Q, F]; encoded: the same as the encoder takes them.
    """
    if not contents.segments:
        return first(torch.zeros(ids.shape), ids, k, metric)
    if all(segment.vectors is not None for segment in contents.segments):
        features = queries.shape[1]
        scores = by_rows(lambda own: stored(contents, own, features), metric, queries, ids)
    else:
        scores = by_codes(contents, Estimate(encoder), metric, queries, encoded, ids)
    return first(scores, ids, k, metric)


def by_rows(rows_of: Callable[[Tensor], Tensor], metric: str, queries: Tensor, ids: Tensor) -> Tensor:
    """Scores float32 [Q, C] of candidates int64 [Q, C]; rows_of: ids [M] -> rows float32 [M, F] as they are stored."""
    scores = torch.empty(ids.shape, dtype=torch.float32)
    for block in _blocks(ids, queries.shape[1]):
        rows = rows_of(ids[block].reshape(-1)).view(*ids[block].shape, -1)
        scores[block] = by_metric(queries[block], rows, metric, unit=False)
    return scores


def by_codes(
    contents: Contents, estimate: Estimate, metric: str, queries: Tensor, encoded: Tensor, ids: Tensor
) -> Tensor:
    """The same as codes tell; encoded: the queries as the encoder takes them."""
    scores = torch.empty(ids.shape, dtype=torch.float32)
    width = contents.segments[0].codes.shape[1]
    for block in _blocks(ids, max(queries.shape[1], 8 * width)):
        flat = ids[block].reshape(-1)
        codes, _ = contents.codes_of(flat, width)
        scales = scales_of_ids(contents, flat).view(ids[block].shape) if contents.scaled else None
        packed = codes.view(*ids[block].shape, width)
        scores[block] = estimate.scores(queries[block], encoded[block], packed, metric, scales)
    return scores


def _blocks(ids: Tensor, numbers: int) -> Iterator[slice]:
    """Blocks of queries whose candidates have about `_VALUES` numbers."""
    step = max(1, _VALUES // max(1, ids.shape[1] * numbers))
    return (slice(start, start + step) for start in range(0, len(ids), step))


def first(scores: Tensor, ids: Tensor, k: int, metric: str) -> tuple[Tensor, Tensor]:
    """The k best of candidates by (score, id), padded where there are fewer."""
    descending = metric != "l2"
    worst = -torch.inf if descending else torch.inf
    scores = scores.masked_fill(ids < 0, worst)
    if ids.shape[1] < k:
        missing = (0, k - ids.shape[1])
        scores = torch.nn.functional.pad(scores, missing, value=worst)
        ids = torch.nn.functional.pad(ids, missing, value=-1)
    ids, order = torch.where(ids < 0, torch.iinfo(torch.int64).max, ids).sort(dim=1)
    scores, places = scores.gather(1, order).sort(dim=1, stable=True, descending=descending)
    ids = ids.gather(1, places)[:, :k]
    return scores[:, :k].contiguous(), torch.where(ids == torch.iinfo(torch.int64).max, -1, ids)


def by_metric(queries: Tensor, rows: Tensor, metric: str, *, unit: bool = True) -> Tensor:
    """Scores float32 [Q, C] of rows float32 [Q, C, F], summed in float64.

    "cosine", "dot": larger is nearer. "l2": the Euclidean distance. unit=False: for cosines rows have length 1 already.
    """
    q, x = queries.double(), rows.double()
    if metric == "l2":
        return (x - q[:, None]).square_().sum(2).sqrt().float()
    if metric == "cosine":
        q, x = unit_rows(q), unit_rows(x) if unit else x
    return torch.einsum("qf,qcf->qc", q, x).float()


class Estimate:
    """The rows that codes give back, and their scores.

    A quantiser or a linear map gives back its mean and a point in the direction of the code: as far off as the scale of
    the code says, without one as rows of the fit were typically. A Hasher gives no row back: the score is 1 - 2 x the
    part of the code that differs, by the distance of the unrounded query.
    """

    def __init__(self, encoder: Encoder):
        self.encoder = encoder
        if isinstance(encoder, LinearCodes):
            weights = encoder.weights.double().cpu()
            smaller = weights.T @ weights if weights.shape[0] > weights.shape[1] else weights @ weights.T
            # The multiple of W W^T that is nearest to the identity on what it keeps: 1 for orthonormal W.
            slope = weights.square().sum() / smaller.square().sum().clamp_min(1e-300)
            self.points = (slope * encoder.unit * weights.T).float()  # [bits, F]
            self.mean = encoder.mean.cpu().float()
        elif isinstance(encoder, GridCodes):
            self.mean = encoder.mean.cpu().float()
            self.planes = encoder.weights.cpu().float() * encoder.unit
            self.length = encoder.unit * encoder.bits**0.5
            self.rotation = None if encoder.rotation is None else encoder.rotation.cpu().float()

    def scores(
        self, queries: Tensor, encoded: Tensor, codes: Tensor, metric: str, scales: Tensor | None = None
    ) -> Tensor:
        """Scores float32 [Q, C] of packed codes uint8 [Q, C, W]; scales float32 [Q, C] of quantisers' codes.

        Of scaled codes cosines are the inner products that they estimate: rows have length 1, what they give back not.
        """
        if isinstance(self.encoder, Hasher):
            return self._agreement(self.encoder.queries(encoded), codes)
        if scales is None:
            return by_metric(queries, self.rows(codes), metric)
        if metric == "l2":
            return by_metric(queries, self.rows(codes, scales, lengths=True), "l2")
        return by_metric(encoded, self.rows(codes, scales), "dot")

    def rows(self, codes: Tensor, scales: Tensor | None = None, lengths: bool = False) -> Tensor:
        """The rows that packed codes uint8 [..., W] decode to, float32 [..., F].

        scales: float32 [...], for inner products; with `lengths`, those for Euclidean distances.
        """
        encoder = self.encoder
        flat = codes.reshape(-1, codes.shape[-1])
        if isinstance(encoder, LinearCodes):
            rows = _signs(flat, encoder.bits) @ self.points
        else:
            planes = _signs(flat, encoder.bits).unflatten(1, (len(self.planes), -1))
            rows = torch.einsum("p,npf->nf", self.planes, planes)
            rows = rows if self.rotation is None else rows @ self.rotation.T
        if scales is not None and lengths:  # |x - mean| is scale x unit x the root of the bits
            rows = unit_rows(rows.double()).float() * self.length
        rows = rows if scales is None else rows * scales.reshape(-1, 1)
        return (rows + self.mean).view(*codes.shape[:-1], -1)

    def _agreement(self, queries: Tensor, codes: Tensor) -> Tensor:
        bits = queries.shape[1]
        ones = unpack_bits(codes.reshape(-1, codes.shape[-1]), bits).double().view(*codes.shape[:-1], bits)
        groups = weights_of(self.encoder) or [(bits, 1)]
        weights = torch.cat([torch.full((count,), float(weight), dtype=torch.float64) for count, weight in groups])
        q = queries.double()
        distances = (weights * q).sum(1)[:, None] + torch.einsum("qb,qcb->qc", weights * (1 - 2 * q), ones)
        return (1 - 2 * distances / weights.sum()).float()


def _signs(codes: Tensor, bits: int) -> Tensor:
    signs: Tensor = unpack_bits(codes, bits).float().mul_(2).sub_(1)
    return signs


def stored(contents: Contents, ids: Tensor, features: int) -> Tensor:
    """The stored rows of ids int64 [M], float32 [M, features]; zeros where no row has the id."""
    rows = torch.zeros(len(ids), features)
    for segment in contents.segments:
        if segment.vectors is not None:
            at = segment.find(ids)
            here = at >= 0
            rows[here] = torch.from_numpy(segment.vectors.taken(at[here].numpy()).values())
    return rows


def scales_of_ids(contents: Contents, ids: Tensor) -> Tensor:
    """The scales of codes with these ids int64 [M], float32 [M]; 0 where no code has the id."""
    found = torch.zeros(len(ids))
    for segment in contents.segments:
        if segment.scales is not None:
            at = segment.find(ids)
            here = at >= 0
            found[here] = segment.scales[at[here]].float()
    return found


def told(scores: Tensor, ids: Tensor, contents: Contents, queries: Any) -> EmbeddingResult:
    """A result as the kind that the queries are, on their device."""
    keys = contents.keys_of_ids(ids) if contents.keyed else None
    if isinstance(queries, Tensor):
        return EmbeddingResult(scores.to(queries.device), ids.to(queries.device), keys)
    return EmbeddingResult(like(scores, queries), like(ids, queries), keys)
