"""Embeddings from their codes: a linear map, by which real-valued queries search the codes of any encoder."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from os import PathLike
from typing import Any

import torch
from torch import Tensor

from fasthash._arguments import number, one_device, whole
from fasthash._arrays import like, to_tensor
from fasthash._checkpoint import DECODER, check_tensors, load_checkpoint, save_checkpoint
from fasthash.baselines.rows import BLOCK, FLOAT16_MOST, codes_of, rows_of, rows_to_fit
from fasthash.codes import check_codes, unpack_bits

MOST_BITS = 4096  # of a code: the fit holds a square matrix of them
RIDGE = 0.01  # of the number of rows: keeps the map small where there are few rows for many bits
SHRINK = 0.06  # below 1 / c^2: rows that their codes describe badly would else count too much


@dataclass(frozen=True, eq=False, repr=False)
class LinearDecoder:
    """Estimates embeddings from codes: mean + (2 b - 1) @ weights, for the bits b of a code.

    Learned by `fit` from embeddings and their codes, whatever made these: `Hasher`, ITQ, another program. With it
    real-valued queries find more than with the encoder's own outputs (docs/results.md, task l). It costs 2 bytes a code
    and no time in a search. mean float32 [F], weights float32 [bits, F]. unit: a typical length of decoded rows.

    >>> import numpy as np
    >>> from fasthash import asymmetric_topk, baselines
    >>> X = np.random.default_rng(0).normal(size=(1000, 16)).astype(np.float32)
    >>> codes = baselines.lsh(X, 64).encode(X)
    >>> decoder = LinearDecoder.fit(X, codes, bits=64)
    >>> found = asymmetric_topk(decoder.queries(X[:2]), codes, 1, code_scale=decoder.scales(X, codes), metric="dot")
    >>> found.ids.tolist(), (-found.distances).round(1).tolist()
    ([[0], [1]], [[0.8999999761581421], [0.8999999761581421]])
    """

    mean: Tensor
    weights: Tensor
    unit: float = 1.0

    @classmethod
    def fit(cls, X: Any, codes: Any, bits: int) -> LinearDecoder:
        """The decoder of embeddings X [N, F] and their packed codes uint8 [N, ceil(bits / 8)], 1 <= bits <= 4096.

        The weights are those of ridge regression: they minimise the sum of |x - mean - (2 b - 1) @ weights|^2 + 0.01 N
        |weights|^2. It takes N bits (bits + F) operations, so give a sample of a large corpus: 100,000 rows will do.
        On the device of X. Raises ValueError or TypeError for no rows, NaN or infinity, and codes of another size.
        """
        function = "LinearDecoder.fit"
        bits = whole(bits, function, "bits", 1, MOST_BITS)
        rows = rows_to_fit(X, function)
        packed = codes_of(codes, bits, rows, function)
        mean = rows.double().mean(0) if rows.is_floating_point() else rows.float().double().mean(0)
        both = torch.zeros(bits, bits, dtype=torch.float64, device=rows.device)
        products = torch.zeros(bits, rows.shape[1], dtype=torch.float64, device=rows.device)
        for x, signs in _blocks(rows, packed, bits):
            both += signs.T @ signs  # whole numbers below 2^24, so float32 is exact
            products += signs.T @ (x.double() - mean).float()
        both.diagonal().add_(RIDGE * len(rows))
        weights = torch.linalg.solve(both, products).float()
        squares = sum(float((signs @ weights).double().square().sum()) for _, signs in _blocks(rows, packed, bits))
        return cls(mean.float(), weights, (squares / len(rows)) ** 0.5 or 1.0)

    @property
    def bits(self) -> int:
        """Length of a code."""
        return self.weights.shape[0]

    @property
    def n_features_in_(self) -> int:
        """Features of a row."""
        return self.weights.shape[1]

    def __repr__(self) -> str:
        return f"LinearDecoder({self.bits} bits, {self.n_features_in_} features)"

    def decode(self, codes: Any) -> Any:
        """Estimated embeddings float32 [N, F] of packed codes uint8 [N, ceil(bits / 8)]; numpy for numpy.

        Raises ValueError or TypeError for codes of another size.
        """
        packed = to_tensor(codes, "LinearDecoder.decode", "codes")
        check_codes(packed, self.bits, "LinearDecoder.decode")
        mean, weights = self.mean.to(packed.device), self.weights.to(packed.device)
        step = max(1, BLOCK // self.bits)
        parts = [mean + _signs(block, self.bits) @ weights for block in packed.split(step)]
        return like(torch.cat(parts), codes)

    def queries(self, X: Any) -> Any:
        """Queries float32 [N, bits] of rows X [N, F], for metric "dot" and codes with `scales`; one row may be [F].

        They are (x - mean) / |x - mean| @ weights.T, in `unit`. Raises ValueError for another number of features, NaN
        or infinity.
        """
        rows = rows_of(X, "LinearDecoder.queries", self.n_features_in_, one=True)
        mean, weights = self.mean.to(rows.device), self.weights.to(rows.device)
        x = rows.double() - mean
        x /= torch.linalg.vector_norm(x, dim=1, keepdim=True).clamp_min(torch.finfo(torch.float64).tiny)
        return like(x.float() @ (weights / self.unit).T, X)

    def scales(self, X: Any, codes: Any) -> Any:
        """A number for each code, float16 [N]: `codes` are those of the rows X [N, F].

        With r the decoded row less the mean, and c the cosine of r and x - mean, it is c / ((c^2 + 0.06) |r|), in
        `unit`; 0 where c is not above 0. Then scale * <query, 2 b - 1> estimates the cosine of a query and x, both less
        the mean. 1 / (c |r|) would be RaBitQ's correction (Gao & Long, 2024). For rows that their codes describe badly
        it is large, and such rows would come first too often; the added 0.06 was chosen on validation queries of task l
        (docs/results.md). Raises as `queries`, and for another number of codes than rows.
        """
        function = "LinearDecoder.scales"
        rows = rows_of(X, function, self.n_features_in_, one=True)
        packed = codes_of(codes, self.bits, rows, function)
        mean, weights = self.mean.to(rows.device), self.weights.to(rows.device)
        found = []
        for x, signs in _blocks(rows, packed, self.bits):
            centred, decoded = x.double() - mean, (signs @ weights).double() / self.unit
            lengths = torch.linalg.vector_norm(decoded, dim=1)
            cosines = (centred * decoded).sum(1) / (torch.linalg.vector_norm(centred, dim=1) * lengths)
            found.append(cosines / ((cosines.square() + SHRINK) * lengths))
        scales = torch.cat(found).nan_to_num(0.0)  # a row that equals the mean has no cosine
        return like(scales.clamp(0.0, FLOAT16_MOST).half(), X)

    def save(self, path: str | PathLike[str]) -> None:
        """Writes mean, weights and unit as one safetensors file.

        An existing file is replaced only when the new one is on the disk. Raises OSError where it cannot be written
        or `path` is something other than a file.
        """
        content = {"features": self.n_features_in_, "bits": self.bits, "unit": self.unit}
        save_checkpoint(path, {"mean": self.mean, "weights": self.weights}, content, DECODER)

    @classmethod
    def load(cls, path: str | PathLike[str], *, device: torch.device | str | None = None) -> LinearDecoder:
        """The decoder that `save` wrote, on `device` (None: the CPU).

        Raises FileNotFoundError, and ValueError, naming the file, for one that is truncated, of another kind or of an
        unknown version. Nothing in the file is executed.
        """
        tensors, content = load_checkpoint(path, DECODER)
        place = one_device("cpu" if device is None else device, DECODER.load)
        try:
            features, bits = (whole(content[name], "its content", name, 1) for name in ("features", "bits"))
            shapes = {"mean": (features,), "weights": (bits, features)}
            with torch.device("meta"):  # shapes without memory: sizes in the file are not trusted
                check_tensors(
                    tensors, {name: torch.empty(shape, dtype=torch.float32) for name, shape in shapes.items()}
                )
            if not all(bool(torch.isfinite(tensor).all()) for tensor in tensors.values()):
                raise ValueError("its tensors hold NaN or infinity")
            unit = number(content["unit"], "its content", "unit", above=0)
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise ValueError(f"{DECODER.load}: {path} is damaged or not a fasthash LinearDecoder: {error}") from None
        return cls(tensors["mean"].to(place), tensors["weights"].to(place), unit)


def _blocks(rows: Tensor, codes: Tensor, bits: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Rows float32 [n, F] and the signs float32 [n, bits] of their codes, a block at a time."""
    step = max(1, BLOCK // max(rows.shape[1], bits))
    for x, packed in zip(rows.split(step), codes.split(step), strict=True):
        yield x.float(), _signs(packed, bits)


def _signs(codes: Tensor, bits: int) -> Tensor:
    signs: Tensor = 2.0 * unpack_bits(codes, bits).float() - 1.0
    return signs
