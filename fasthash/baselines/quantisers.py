"""Quantisers of 1 to 4 bits a dimension, without training: RaBitQ, optimised scalar quantisation, TurboQuant."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fasthash._arguments import whole
from fasthash.baselines.grid_codes import METHODS, MOST_PLANES, GridCodes
from fasthash.baselines.rows import rows_to_fit, without_far_out


def rabitq(X: Any, bits_per_dimension: int = 1, *, seed: int = 0) -> GridCodes:
    """RaBitQ with the mean of X [N, F] as its one centroid: codes of `bits_per_dimension` x F bits, 1 to 4 a dimension.

    A row less the mean is rotated at random; its code is the grid point l of the nearest direction, for 1 bit the
    signs. `scales` are |r|^2 / <r, l>, r = (x - mean) @ rotation. Then scale * <q @ rotation, l> estimates <q, x -
    mean> without bias over the rotation. Its error falls as 1 / sqrt(F), and about by half with each bit.

    One number for each code is ours. The papers estimate <q - mean, x - mean>, which is smaller and so has a smaller
    error, and need <mean, x> as a second number for inner products. docs/method.md has what that is worth.

    Sources: Gao & Long, SIGMOD 2024 (arXiv 2405.12497); Gao et al., SIGMOD 2025 (arXiv 2409.09913), for more bits. The
    estimator and the search for the grid point were read in the authors' public texts and other public code. Queries
    stay real numbers here, and the scale is rounded to float16; the papers quantise queries too, and keep a bound of
    the error.

    >>> import numpy as np
    >>> X = np.random.default_rng(0).normal(size=(100, 16)).astype(np.float32)
    >>> quantiser = rabitq(X, 2)
    >>> codes = quantiser.encode(X)
    >>> codes.shape, quantiser.scales(X, codes).dtype, quantiser.queries(X[:3]).shape
    ((100, 4), dtype('float16'), (3, 32))
    """
    return _fitted("rabitq", X, bits_per_dimension, seed)


def osq(X: Any, bits_per_dimension: int = 1) -> GridCodes:
    """Optimised scalar quantisation of X [N, F], as in Lucene: codes of `bits_per_dimension` x F bits, 1 to 4 each.

    Each value of a row less the mean, unrotated, is rounded to one of 2^B evenly spaced levels. The interval that they
    divide is the row's own. It is chosen to lower 0.9 <x, x - y>^2 / |x|^2 + 0.1 |x - y|^2, y the rounded row.

    Lucene has an interval [a, b]. Here it is [-b, b], which is ours: a single number for each code, half of the
    distance of two levels, then holds all of the estimate. docs/method.md has what that loses. Source:
    OptimizedScalarQuantizer in the public code of Apache Lucene, for the loss, its weight, the start and the number of
    rounds. Queries stay real numbers here; Lucene rounds them too.

    >>> import numpy as np
    >>> X = np.random.default_rng(0).normal(size=(100, 16)).astype(np.float32)
    >>> osq(X, 4).encode(X).shape
    (100, 8)
    """
    return _fitted("osq", X, bits_per_dimension, 0)


def turboquant(X: Any, bits_per_dimension: int = 1, *, seed: int = 0) -> GridCodes:
    """TurboQuant of X [N, F], for squared error: codes of `bits_per_dimension` x F bits, 1 to 4 a dimension.

    A row is rotated at random and divided by its length. Each value is then rounded to the nearest level of one
    codebook, the best for a coordinate of a random direction (Lloyd-Max). Source: Zandieh et al., 2025 (arXiv
    2504.19874); its steps were read in public descriptions of the paper, the codebook is computed here.

    Three things are ours. Rows are taken less the mean of X, which changes no order by inner product. The levels are
    sums of the weights of bit planes: those of the paper for 1 and 2 bits; for 3 and 4 bits the best of such sums, with
    a squared error of 0.0369 and 0.0114 in place of 0.0345 and 0.0095. And `scales` are those of `rabitq`, so that the
    estimate of inner products is unbiased. The paper has the length of the row there, or a sketch of the residual in
    place of one bit ("prod"); docs/method.md compares all three.

    >>> import numpy as np
    >>> X = np.random.default_rng(0).normal(size=(100, 16)).astype(np.float32)
    >>> turboquant(X, 2).weights
    tensor([0.2398, 0.1274])
    """
    return _fitted("turboquant", X, bits_per_dimension, seed)


def _fitted(method: str, X: Any, bits_per_dimension: int, seed: int) -> GridCodes:
    rows = rows_to_fit(X, method)
    planes = whole(bits_per_dimension, method, "bits_per_dimension", 1, MOST_PLANES)
    seed = whole(seed, method, "seed", 0, 2**63 - 1)
    rows = without_far_out(rows, method)
    features, way = rows.shape[1], METHODS[method]
    rotation = random_rotation(features, seed).to(rows.device) if way.ROTATED else None
    weights = way.weights(features, planes).to(rows.device)
    return GridCodes(method, rows.double().mean(0).float(), rotation, weights).in_unit_of(rows)


def random_rotation(features: int, seed: int) -> Tensor:
    """An orthonormal matrix float32 [F, F], each as likely as any other (Haar)."""
    noise = torch.randn(features, features, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    factors = torch.linalg.qr(noise)
    rotation: Tensor = factors.Q * factors.R.diagonal().sign()
    return rotation.float()
