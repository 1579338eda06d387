"""What is compared on task l: codes and quantisers that fill a number of bytes, and how each one is searched.

`width` is a whole item's bits. Where an item has a scale of its own (float16), the code has 16 bits fewer.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.quality.graded_task import Coder
from benchmarks.quality.tasks import Items, Task
from fasthash import Hasher, LinearDecoder, baselines, hamming_distances
from fasthash.baselines import GridCodes, LinearCodes
from fasthash.baselines.quantisers import random_rotation

Array = NDArray[Any]
Settings = dict[str, Any]
Placed = Callable[[Array], Coder]  # what was learned, for the rows of the corpus that is searched
Learn = Callable[[Array, int, int, Settings], Placed]
SCALE = 16  # bits of a scale
PQ_ROWS, PQ_ROUNDS = 30, 15  # of k-means, rows for each centroid

_codes: dict[tuple[Any, ...], tuple[Array, LinearCodes]] = {}
_learned: dict[tuple[Any, ...], tuple[Array, Placed]] = {}  # with the rows, so that their id stays theirs


def fit_graded(learn: Learn, name: str) -> Callable[[Task, Items, int, int, Settings], Coder]:
    """Learns from the rows once for all corpora that are searched."""

    def fit(task: Task, rows: Items, bits: int, seed: int, settings: Settings) -> Coder:
        key = name, id(rows.X), bits, seed, json.dumps(settings, sort_keys=True)
        if key not in _learned:
            _learned[key] = rows.X, learn(rows.X, bits, seed, settings)
        return _learned[key][1](task.test["corpus"][1].X)

    return fit


def itq(X: Array, width: int, seed: int, settings: Settings) -> Placed:
    """Signs by ITQ; float queries by what they are before rounding."""
    return _placed(baselines.itq(X, width, seed=seed), None)


def itq_with_scales(X: Array, width: int, seed: int, settings: Settings) -> Placed:
    """ITQ with the scales of `LinearCodes`."""
    return _placed(_itq_beside_scale(X, width, seed), "dot")


def itq_decoded(X: Array, width: int, seed: int, settings: Settings) -> Placed:
    """ITQ that is searched as the codes of fasthash are: by a `LinearDecoder` of the corpus."""
    codes = _itq_beside_scale(X, width, seed)

    def placed(corpus: Array) -> Coder:
        own = replace(codes, mean=torch.from_numpy(corpus.mean(0)))
        return _decoded(own.encode, own.bits, corpus, lambda Q: Q)

    return placed


def _itq_beside_scale(X: Array, width: int, seed: int) -> LinearCodes:
    key = id(X), width, seed
    if key not in _codes:
        _codes[key] = X, baselines.itq(X, width - SCALE, seed=seed)
    return _codes[key][1]


def rotation(X: Array, width: int, seed: int, settings: Settings) -> Placed:
    """Signs after a random rotation."""
    turned = random_rotation(X.shape[1], seed)[:, :width]
    return _placed(LinearCodes(torch.zeros(X.shape[1]), turned), None)


def sign(X: Array, width: int, seed: int, settings: Settings) -> Placed:
    """Signs of the centred embeddings themselves."""
    return _placed(LinearCodes(torch.zeros(X.shape[1]), torch.eye(X.shape[1])), None)


def _placed(codes: LinearCodes, scale: str | None) -> Placed:
    def placed(corpus: Array) -> Coder:
        own = replace(codes, mean=torch.from_numpy(corpus.mean(0)))
        if scale == "dot":
            own = own.in_unit_of(torch.from_numpy(corpus))
        packed = own.encode(corpus)
        points = signs(packed, own.bits)
        if scale == "dot":
            points *= _column(own.scales(corpus, packed))

        def asymmetric(Q: Array) -> Array:
            return _product(own.queries(Q, metric="dot") if scale == "dot" else own.transform(Q), points)

        return Coder(own.bits // 8 + (0 if scale is None else 2), _by_hamming(own.encode, packed), asymmetric)

    return placed


def _decoded(encode: Callable[[Array], Array], bits: int, rows: Array, cut: Callable[[Array], Array]) -> Coder:
    """Codes and scales of rows, real-valued queries by a decoder of them; queries are `cut` first."""
    packed = encode(rows)
    decoder = LinearDecoder.fit(rows, packed, bits)
    items = signs(packed, bits) * _column(decoder.scales(rows, packed))
    return Coder(
        bits // 8 + 2, _by_hamming(lambda Q: encode(cut(Q)), packed), lambda Q: _product(decoder.queries(cut(Q)), items)
    )


def grid(function: Callable[..., GridCodes], planes: int, seeded: bool = True) -> Learn:
    """`planes` bits a dimension and a scale: of all dimensions or, where they do not fit, of the first components."""

    def learn(X: Array, width: int, seed: int, settings: Settings) -> Placed:
        dimensions = min(X.shape[1], (width - SCALE) // planes)
        components = first_components(X, dimensions)

        def placed(corpus: Array) -> Coder:
            mean = corpus.mean(0)

            def cut(rows: Array) -> Array:
                return rows if components is None else (rows - mean) @ components

            rows = cut(corpus)
            codes = function(rows, planes, **({"seed": seed} if seeded else {}))

            def points(packed: Array) -> Array:
                weighted = signs(packed, codes.bits) * np.repeat(codes.weights.numpy(), dimensions)
                found: Array = weighted.reshape(len(packed), planes, dimensions).sum(1)
                return found

            packed = codes.encode(rows)
            items = points(packed) * _column(codes.scales(rows, packed))

            def asymmetric(Q: Array) -> Array:
                return _product(cut(Q) if codes.rotation is None else cut(Q) @ codes.rotation.numpy(), items)

            return Coder(-(-codes.bits // 8) + 2, lambda Q: _product(points(codes.encode(cut(Q))), items), asymmetric)

        return placed

    return learn


def pq(X: Array, width: int, seed: int, settings: Settings) -> Placed:
    """Product quantisation by faiss: a byte for each part of the dimensions, as many parts as divide them."""
    import faiss

    faiss.omp_set_num_threads(torch.get_num_threads())
    parts = next(count for count in range(width // 8, 0, -1) if X.shape[1] % count == 0)
    quantiser = faiss.ProductQuantizer(X.shape[1], parts, 8)
    quantiser.cp.seed, quantiser.cp.niter = 1234 + seed, PQ_ROUNDS
    quantiser.cp.min_points_per_centroid, quantiser.cp.max_points_per_centroid = 1, PQ_ROWS
    quantiser.train(np.ascontiguousarray(X - X.mean(0)))

    def placed(corpus: Array) -> Coder:
        mean = corpus.mean(0)

        def decoded(rows: Array) -> Array:
            found: Array = quantiser.decode(quantiser.compute_codes(np.ascontiguousarray(rows - mean)))
            return found

        items = decoded(corpus)
        return Coder(parts, lambda Q: _product(decoded(Q), items), lambda Q: _product(Q, items))

    return placed


def ours(X: Array, width: int, seed: int, settings: Settings) -> Placed:
    """Hasher without labels; with a `LinearDecoder` of the corpus unless `decoded` is False; of first `components`."""
    settings = dict(settings)
    decoded = settings.pop("decoded", True)
    components = first_components(X, settings.pop("components", X.shape[1]))

    def cut(rows: Array, mean: Array) -> Array:
        return rows if components is None else (rows - mean) @ components

    bits = width - SCALE if decoded else width
    hasher = Hasher(bits, seed=seed, progress=False, **settings).fit(cut(X, X.mean(0)))

    def placed(corpus: Array) -> Coder:
        mean = corpus.mean(0)
        rows = cut(corpus, mean)
        own = hasher if corpus is X else copy.deepcopy(hasher).adapt(rows)
        if decoded:
            return _decoded(own.encode, bits, rows, lambda Q: cut(Q, mean))
        packed = own.encode(rows)
        items = signs(packed, bits)
        return Coder(
            bits // 8,
            _by_hamming(lambda Q: own.encode(cut(Q, mean)), packed),
            lambda Q: _product(own.queries(cut(Q, mean), metric="cosine"), items),
        )

    return placed


def first_components(X: Array, count: int) -> Array | None:
    """The principal components [F, count] of X, or None where these are all dimensions."""
    return None if count >= X.shape[1] else baselines.pca_sign(X, count).weights.numpy()


def signs(codes: Array, bits: int) -> Array:
    """-1 and 1 [N, bits] of packed codes."""
    return 2.0 * np.unpackbits(codes, axis=1, count=bits).astype(np.float32) - 1.0


def _by_hamming(encode: Callable[[Array], Array], packed: Array) -> Callable[[Array], Array]:
    return lambda Q: -hamming_distances(encode(Q), packed).astype(np.float32)


def _product(queries: Array, points: Array) -> Array:
    found: Array = queries.astype(np.float32, copy=False) @ points.T
    return found


def _column(scales: Array) -> Array:
    found: Array = scales.astype(np.float32)[:, None]
    return found
