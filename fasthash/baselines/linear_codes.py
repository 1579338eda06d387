"""Codes that are signs of a linear map."""

from __future__ import annotations

from dataclasses import dataclass, replace
from os import PathLike
from typing import Any

import torch
from torch import Tensor

from fasthash._arguments import choice, number, one_device, whole
from fasthash._arrays import like
from fasthash._checkpoint import LINEAR, check_tensors, load_checkpoint, save_checkpoint
from fasthash._far_out import sample_of
from fasthash.baselines.rows import codes_of, finite_queries, in_blocks, in_float16, refuse_others, rows_of, typical
from fasthash.codes import pack_bits, unpack_bits

ABOVE_HALF = 0.5 + 2.0**-24  # the float32 after 0.5: a bit that is on stays on where it is rounded


@dataclass(frozen=True, eq=False, repr=False)
class LinearCodes:
    """Codes that are signs of a linear map: mean float32 [F], weights float32 [F, bits], on the device of the data.

    Bit d of x is whether (x - mean) . weights[:, d] > 0. unit: what `scales` are divided by and `queries(...,
    metric="dot")` multiplied by, so that float16 holds the scales.

    >>> LinearCodes(torch.zeros(8), torch.eye(8, 5))
    LinearCodes(8 features, 5 bits)
    """

    mean: Tensor
    weights: Tensor
    unit: float = 1.0

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

    def scales(self, X: Any, codes: Any) -> Any:
        """A number for each code, float16 [N]: `codes` are those of X, by `encode`.

        With u = `transform(X)` and s its signs it is <u, u> / <u, s>, the correction of RaBitQ (Gao & Long, 2024), in
        `unit`. Then scale * <queries, s> estimates the inner product of q and x - mean, for queries by `queries(q,
        metric="dot")`: within the span of orthonormal weights (PCA-sign, ITQ), `bits` times it for LSH. For LSH and ITQ
        this use is ours; we know no publication of it. The scale of a row that equals the mean is 0. Raises ValueError
        for codes that cannot be those of X, and for a row too far from the mean for float16: 65,504 times as far as
        usual rows of the fit.

        >>> codes = LinearCodes(torch.zeros(2), torch.eye(2))
        >>> rows = torch.tensor([[3.0, -1.0]])
        >>> codes.scales(rows, codes.encode(rows))
        tensor([2.5000], dtype=torch.float16)
        """
        return in_float16(self._scales(X, codes), self.unit, X, "LinearCodes.scales")

    def queries(self, X: Any, *, metric: str = "l1") -> Any:
        """Queries float32 [N, bits] of rows X [N, F]; one row may be [F]. Raises as `transform`.

        metric "l1": in [0, 1], for `HammingIndex.search(..., rescore=f)`; rounded, they are the codes. They are the
        projections of `transform`, scaled about 0.5 so that a row's largest is 0 or 1. They say how close
        each bit is to flipping.

        metric "dot": X @ weights in `unit`, for inner products with codes and their `scales`. The mean is not taken
        from a query here: <q, x> = <q, mean> + <q, x - mean>, and the first term is the same for all x.

        >>> codes = LinearCodes(torch.zeros(2), torch.eye(2))
        >>> codes.queries(torch.tensor([[4.0, -1.0]]))
        tensor([[1.0000, 0.3750]])
        """
        if choice(metric, "LinearCodes.queries", "metric", ("l1", "dot")) == "dot":
            rows = rows_of(X, "LinearCodes.queries", self.n_features_in_, one=True)
            return like(finite_queries(rows.double() @ self.weights.to(rows.device).double() * self.unit, self), X)
        u = self._projected(X, "queries")
        q = 0.5 + 0.5 * u / u.abs().amax(1, keepdim=True).clamp(min=torch.finfo(u.dtype).tiny)
        return like(torch.where(u > 0, q.clamp(min=ABOVE_HALF), q.clamp(max=0.5)), X)

    def save(self, path: str | PathLike[str]) -> None:
        """Writes mean, weights and unit as one safetensors file, which `fasthash encode` reads too.

        An existing file is replaced only when the new one is on the disk. Raises OSError where it cannot be written
        or `path` is something other than a file.
        """
        content = {"features": self.n_features_in_, "bits": self.bits, "unit": self.unit}
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
            unit = number(content.get("unit", 1.0), "its content", "unit", above=0)  # files of before had no scales
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise ValueError(f"{LINEAR.load}: {path} is damaged or not a fasthash LinearCodes: {error}") from None
        return cls(tensors["mean"].to(place), tensors["weights"].to(place), unit)

    def in_unit_of(self, rows: Tensor) -> LinearCodes:
        """The same codes with another `unit`: scales of rows like these are near 1."""
        sample = rows[sample_of(*rows.shape).to(rows.device)]
        return replace(self, unit=typical(self._scales(sample, self.encode(sample))))

    def _scales(self, X: Any, codes: Any) -> Tensor:
        """`scales` as float64 [N], not in `unit`."""
        rows = rows_of(X, "LinearCodes.scales", self.n_features_in_, one=True)
        mean, weights = self.mean.to(rows.device), self.weights.to(rows.device).double()

        def scaled(block: Tensor, packed: Tensor) -> Tensor:
            u = (block.double() - mean) @ weights
            squares, products = u.square().sum(1), (u * (2.0 * unpack_bits(packed, self.bits) - 1.0)).sum(1)
            return torch.where(squares > 0, squares / products, 0.0)

        scales = in_blocks(rows, codes_of(codes, self.bits, rows, "LinearCodes.scales"), scaled)
        refuse_others(scales, "LinearCodes.scales")
        return scales

    def _projected(self, X: Any, method: str) -> Tensor:
        one = method in ("encode", "queries")
        rows = rows_of(X, f"LinearCodes.{method}", self.n_features_in_, one=one)
        return (rows.float() - self.mean.to(rows.device)) @ self.weights.to(rows.device)
