"""Methods whose codes are signs: random hyperplanes, principal components, ITQ."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fasthash._arguments import MAX_BITS, whole
from fasthash.baselines.linear_codes import LinearCodes
from fasthash.baselines.rows import rows_to_fit, without_far_out


def lsh(X: Any, bits: int, *, seed: int = 0) -> LinearCodes:
    """Locality-sensitive hashing by random hyperplanes through the mean of X [N, F]; bits >= 1.

    The angle between two centred rows is pi / bits times the expected Hamming distance of their codes (Charikar,
    "Similarity estimation techniques from rounding algorithms", 2002).

    >>> import numpy as np
    >>> X = np.random.default_rng(0).normal(size=(100, 8)).astype(np.float32)
    >>> lsh(X, 16).encode(X).shape
    (100, 2)
    """
    rows, bits = _checked(X, bits, "lsh", None)
    generator = torch.Generator().manual_seed(whole(seed, "lsh", "seed", 0, 2**63 - 1))
    weights = torch.randn(rows.shape[1], bits, generator=generator, dtype=torch.float32)
    return LinearCodes(rows.double().mean(0).float(), weights.to(rows.device)).in_unit_of(rows)


def pca_sign(X: Any, bits: int) -> LinearCodes:
    """Signs of the first `bits` principal components of X [N, F], 1 <= bits <= F, largest variance first.

    Each component points to where its largest weight is positive, so the codes do not depend on the eigensolver.

    >>> import numpy as np
    >>> X = np.random.default_rng(0).normal(size=(100, 8)).astype(np.float32)
    >>> pca_sign(X, 8).transform(X).shape
    (100, 8)
    """
    rows, bits = _checked(X, bits, "pca_sign", "features")
    return _pca_sign(rows, bits).in_unit_of(rows)


def _pca_sign(rows: Tensor, bits: int) -> LinearCodes:
    centred = rows.double()
    mean = centred.mean(0)
    centred = centred - mean
    _, vectors = torch.linalg.eigh(centred.T @ centred)  # ascending
    weights = vectors.flip(1)[:, :bits]
    largest = weights.gather(0, weights.abs().argmax(0, keepdim=True))
    return LinearCodes(mean.float(), (weights * torch.where(largest < 0, -1.0, 1.0)).float())


def itq(X: Any, bits: int, *, iterations: int = 50, seed: int = 0) -> LinearCodes:
    """Iterative quantisation of X [N, F]: principal components, rotated so that rounding them moves them least.

    Alternates, from a random rotation, between the nearest signs and the nearest rotation (orthogonal Procrustes).
    1 <= bits <= F. Source: Gong & Lazebnik, "Iterative quantization: a procrustean approach to learning binary codes",
    CVPR 2011.

    >>> import numpy as np
    >>> X = np.random.default_rng(0).normal(size=(100, 8)).astype(np.float32)
    >>> itq(X, 8).encode(X).shape
    (100, 1)
    """
    rows, bits = _checked(X, bits, "itq", "features")
    whole(iterations, "itq", "iterations", 0)
    seed = whole(seed, "itq", "seed", 0, 2**63 - 1)
    components = _pca_sign(rows, bits)
    projected = components.transform(rows)
    noise = torch.randn(bits, bits, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    rotation = torch.linalg.qr(noise).Q.to(rows.device)
    for _ in range(iterations):
        signs = torch.where(projected @ rotation.float() > 0, 1.0, -1.0).float()
        left, _, right = torch.linalg.svd((projected.T @ signs).double())
        rotation = left @ right  # maximises trace(rotation^T projected^T signs)
    return LinearCodes(components.mean, components.weights @ rotation.float()).in_unit_of(rows)


def _checked(X: Any, bits: int, function: str, limit: str | None) -> tuple[Tensor, int]:
    rows = rows_to_fit(X, function)
    if limit is None:
        bits = whole(bits, function, "bits", 1, MAX_BITS)
    else:
        bits = whole(bits, function, "bits", 1, rows.shape[1], f"the number of {limit}")
    return without_far_out(rows, function), bits
