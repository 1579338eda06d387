"""Codes that need no training loop: random hyperplanes, signs of principal components, ITQ.

Each function looks at X and gives `LinearCodes`: bit d of x is whether (x - mean) . weights[:, d] > 0. A value of X
that lies absurdly far out counts as the mean of its column, since it would decide mean and components alone; a warning
(UserWarning) names its row and column.
"""

from __future__ import annotations

from dataclasses import dataclass
from os import PathLike
from typing import Any

import torch
from torch import Tensor

from fasthash._arguments import MAX_BITS, one_device, whole
from fasthash._arrays import like, to_tensor
from fasthash._checkpoint import LINEAR, check_tensors, load_checkpoint, save_checkpoint
from fasthash._far_out import find, sample_of, usual_of, warn_far_out
from fasthash.codes import pack_bits

ABOVE_HALF = 0.5 + 2.0**-24  # the float32 after 0.5: a bit that is on stays on where it is rounded


@dataclass(frozen=True, eq=False, repr=False)
class LinearCodes:
    """Codes that are signs of a linear map: mean float32 [F], weights float32 [F, bits], on the device of the data.

    >>> LinearCodes(torch.zeros(8), torch.eye(8, 5))
    LinearCodes(8 features, 5 bits)
    """

    mean: Tensor
    weights: Tensor

    @property
    def bits(self) -> int:
        """Length of a code."""
        return self.weights.shape[1]

    @property
    def n_features_in_(self) -> int:
        """Features of a row."""
        return self.weights.shape[0]

    def __repr__(self) -> str:
        return f"LinearCodes({self.n_features_in_} features, {self.bits} bits)"

    def transform(self, X: Any) -> Any:
        """Real-valued projections float32 [N, bits] of X [N, F]: numpy for numpy, else a tensor on X's device.

        Raises ValueError for another number of features, NaN or infinity.
        """
        return like(self._projected(X, "transform"), X)

    def encode(self, X: Any) -> Any:
        """Packed codes uint8 [N, ceil(bits / 8)]: the signs of `transform`. One row may be [F]."""
        return like(pack_bits(self._projected(X, "encode"), threshold=0.0), X)

    def queries(self, X: Any) -> Any:
        """Queries float32 [N, bits] in [0, 1] for `HammingIndex.search(..., rescore=f)`; rounded, they are the codes.

        They are the projections of `transform`, scaled about 0.5, a row's largest to 0 or 1: by how much a bit could
        turn. One row may be [F]. Raises as `transform`.

        >>> codes = LinearCodes(torch.zeros(2), torch.eye(2))
        >>> codes.queries(torch.tensor([[4.0, -1.0]]))
        tensor([[1.0000, 0.3750]])
        """
        u = self._projected(X, "queries")
        q = 0.5 + 0.5 * u / u.abs().amax(1, keepdim=True).clamp(min=torch.finfo(u.dtype).tiny)
        return like(torch.where(u > 0, q.clamp(min=ABOVE_HALF), q.clamp(max=0.5)), X)

    def save(self, path: str | PathLike[str]) -> None:
        """Writes mean and weights as one safetensors file, which `fasthash encode` reads too.

        A file that is there is replaced only when the new one is on the disk. Raises OSError where it cannot be written
        or `path` is something other than a file.
        """
        content = {"features": self.n_features_in_, "bits": self.bits}
        save_checkpoint(path, {"mean": self.mean, "weights": self.weights}, content, LINEAR)

    @classmethod
    def load(cls, path: str | PathLike[str], *, device: torch.device | str | None = None) -> LinearCodes:
        """The codes that `save` wrote, on `device` (None: the CPU): the same codes, bit for bit.

        Raises FileNotFoundError, and ValueError, naming the file, for one that is truncated, of another kind or of an
        unknown version. Nothing in the file is executed.
        """
        tensors, content = load_checkpoint(path, LINEAR)
        place = one_device("cpu" if device is None else device, LINEAR.load)
        try:
            features, bits = (whole(content[name], "its content", name, 1) for name in ("features", "bits"))
            shapes = {"mean": (features,), "weights": (features, bits)}
            with torch.device("meta"):  # shapes without memory: sizes in the file are not trusted
                check_tensors(
                    tensors, {name: torch.empty(shape, dtype=torch.float32) for name, shape in shapes.items()}
                )
            if not all(bool(torch.isfinite(tensor).all()) for tensor in tensors.values()):
                raise ValueError("its tensors hold NaN or infinity")
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise ValueError(f"{LINEAR.load}: {path} is damaged or not a fasthash LinearCodes: {error}") from None
        return cls(tensors["mean"].to(place), tensors["weights"].to(place))

    def _projected(self, X: Any, method: str) -> Tensor:
        rows = _rows(X, f"LinearCodes.{method}", one=method in ("encode", "queries"))
        if rows.shape[1] != len(self.mean):
            raise ValueError(f"LinearCodes.{method}: X must have {len(self.mean)} features, got {rows.shape[1]}")
        return (rows.float() - self.mean.to(rows.device)) @ self.weights.to(rows.device)


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
    return LinearCodes(rows.double().mean(0).float(), weights.to(rows.device))


def pca_sign(X: Any, bits: int) -> LinearCodes:
    """Signs of the first `bits` principal components of X [N, F], 1 <= bits <= F, largest variance first.

    Each component points to where its largest weight is positive, so the codes do not depend on the eigensolver.

    >>> import numpy as np
    >>> X = np.random.default_rng(0).normal(size=(100, 8)).astype(np.float32)
    >>> pca_sign(X, 8).transform(X).shape
    (100, 8)
    """
    return _pca_sign(*_checked(X, bits, "pca_sign", "features"))


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
    return LinearCodes(components.mean, components.weights @ rotation.float())


def _checked(X: Any, bits: int, function: str, limit: str | None) -> tuple[Tensor, int]:
    rows = _rows(X, function)
    if not len(rows):
        raise ValueError(f"{function}: X must have at least 1 row, got 0")
    if limit is None:
        bits = whole(bits, function, "bits", 1, MAX_BITS)
    else:
        bits = whole(bits, function, "bits", 1, rows.shape[1], f"the number of {limit}")
    return _without_far_out(rows, function), bits


def _without_far_out(rows: Tensor, function: str) -> Tensor:
    """The rows, or a copy where values that lie far out are the means of their columns, with a warning."""
    usual = usual_of(rows[sample_of(*rows.shape).to(rows.device)], len(rows))
    low, high = rows.aminmax(dim=0)
    if not bool((usual.beyond(low) | usual.beyond(high)).any()):
        return rows
    means, _, found = find(rows, usual)
    warn_far_out(found, len(rows), function, "X", "in what is learned")
    wide = rows if rows.is_floating_point() else rows.float()
    return torch.where(usual.beyond(rows), means.to(wide.dtype), wide)


def _rows(X: Any, function: str, *, one: bool = False) -> Tensor:
    rows = to_tensor(X, function, "X").detach()
    if one and rows.dim() == 1:
        rows = rows[None]
    if rows.dim() != 2 or rows.shape[1] < 1:
        raise ValueError(f"{function}: X must have shape [N, F] with F >= 1, got {tuple(rows.shape)}")
    bad = int((~torch.isfinite(rows.float())).any(1).sum())  # float32 is what is used
    if bad:
        raise ValueError(f"{function}: X must be finite, got NaN or infinity in {bad} of {len(rows)} rows")
    return rows
